"""Run in a process of its own: read a training split and print every path that Python opened.

    python -m tests.reference.opened_files ROOT LAYOUT {target,oracle} WORKERS

"target" is the pipeline of adaptation; "oracle" reads the same split with its labels.
"""

import sys
from pathlib import Path

LOG: list[str] = []


def _note(event: str, arguments: tuple[object, ...]) -> None:
    if event in ("open", "os.scandir", "os.listdir") and isinstance(arguments[0], str | Path):
        LOG.append(str(arguments[0]))
        # A worker's list stays in the worker.
        if "truth" in LOG[-1] or "gtFine" in LOG[-1] or "/gt/" in LOG[-1]:
            print(f"opened {LOG[-1]}", flush=True)


def main() -> None:
    root, layout, pipeline, workers = Path(sys.argv[1]), *sys.argv[2:4], int(sys.argv[4])
    from reference.data.batches import batches
    from reference.data.sets import open_sets
    from reference.data.settings import Crops, DataSettings

    classes = root / "classes.json"
    sets = open_sets(
        DataSettings(
            target_set=layout,
            target=root / "photographs" if layout == "own" else root,
            target_labels=root / "truth",
            classes=classes if layout == "own" else None,
            source_set="own" if layout == "own" else "gta5",
        )
    )
    sys.addaudithook(_note)
    images = sets.target if pipeline == "target" else sets.oracle
    crops = Crops(size=(4, 6), crop=(4, 4))
    drawn = batches(images, crops, seed=0, stream=1, start=0, stop=3, batch_size=2, workers=workers)
    print(f"{len(list(drawn))} batches, {len(LOG)} paths", flush=True)


if __name__ == "__main__":
    main()
