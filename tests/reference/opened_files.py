"""Run in a process of its own: read a training split and print every path that Python opened.

    python -m tests.reference.opened_files ROOT {target,source} WORKERS

"target" is the pipeline of adaptation; "source" reads the same split with its labels.
"""

import sys
from pathlib import Path

LOG: list[str] = []


def _note(event: str, arguments: tuple[object, ...]) -> None:
    if event in ("open", "os.scandir", "os.listdir") and isinstance(arguments[0], str | Path):
        LOG.append(str(arguments[0]))
        # A worker's list stays in the worker.
        if "gtFine" in LOG[-1]:
            print(f"opened {LOG[-1]}", flush=True)


def main() -> None:
    root, pipeline, workers = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    from reference.data.cityscapes import Cityscapes
    from reference.data.crops import SourceCrops, TargetCrops
    from reference.data.loading import source_batches, target_batches
    from reference.data.order import Batching
    from reference.data.resizing import Resize

    sys.addaudithook(_note)
    size = Resize(size=(4, 6))
    batching = Batching(seed=0, start=0, stop=3, batch_size=2, workers=workers)
    if pipeline == "target":
        blind = Cityscapes(root, "train", labels=False)
        crops = TargetCrops(size, crop=(4, 4))
        batches = list(target_batches(blind, crops, batching))
    else:
        seeing = Cityscapes(root, "train", labels=True)
        source = SourceCrops(size, crop=(4, 4))
        batches = list(source_batches(seeing, source, batching))
    images = sum("leftImg8bit" in path for path in LOG)
    print(f"{len(batches)} batches, {images} paths of images")


if __name__ == "__main__":
    main()
