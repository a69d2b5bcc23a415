"""Run in a process of its own: read a training split and print every path that Python opened.

    python -m tests.reference.opened_files ROOT LAYOUT {target,oracle} WORKERS

"target" is the pipeline of adaptation; "oracle" reads the same split with its labels.
"""

import sys
from pathlib import Path

OPENED: list[str] = []


def _note(event: str, arguments: tuple[object, ...]) -> None:
    if event in ("open", "os.scandir", "os.listdir") and isinstance(arguments[0], str | Path):
        OPENED.append(path := str(arguments[0]))
        # A worker's list stays in the worker.
        if any(part in path for part in ("truth", "gtFine", "/gt/")):
            print(f"opened {path}", flush=True)


def main() -> None:
    root, layout, pipeline, workers = Path(sys.argv[1]), *sys.argv[2:4], int(sys.argv[4])
    from reference.data.batches import batches
    from reference.data.sets import Sets
    from reference.data.settings import Crops, DataSettings

    folders = {"target": root}
    if layout == "own":
        folders = {"target": root / "photographs", "classes": root / "classes.json"}
        folders["target_labels"] = root / "truth"
    sets = Sets(DataSettings(target_set=layout, **folders))
    sys.addaudithook(_note)
    images = sets.target if pipeline == "target" else sets.oracle
    crops = Crops(size=(4, 6), crop=(4, 4))
    drawn = batches(images, crops, seed=0, stream=1, start=0, stop=3, batch_size=2, workers=workers)
    print(f"{len(list(drawn))} batches, {len(OPENED)} paths", flush=True)


if __name__ == "__main__":
    main()
