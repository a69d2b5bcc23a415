"""The index of a set: how many pixels of each class every label file holds, counted once.

Counting reads every label file, which takes minutes for GTA5; the result is kept as JSON and
found again as long as no label file was added, removed or changed.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from reference.atomic import write_atomically
from reference.data.classes import NUM_CLASSES
from reference.data.readers import FileReader, Reader
from reference.data.worker_pool import over_files

Counts = npt.NDArray[np.int64]

FOLDER: Final = Path("runs/index")


@dataclass(frozen=True)
class SetIndex:
    """Sizes and class counts of a set, in the order of its reader.

    Args:
        stems: N names.
        sizes: (height, width) of every label file, int64 (N, 2), pixels.
        pixels: pixels of every train id in every label file, int64 (N, 19).
    """

    stems: tuple[str, ...]
    sizes: Counts
    pixels: Counts


def count_pixels(reader: Reader, index: int) -> tuple[tuple[int, int], list[int]]:
    """Return the (height, width) of one label file and its pixels of every train id.

    Raises:
        DataError: the file is broken (see the readers).
    """
    labels = reader.labels(index)
    counts = np.bincount(labels.ravel(), minlength=256)[:NUM_CLASSES]
    return (labels.shape[0], labels.shape[1]), counts.tolist()


def index_path(reader: FileReader, folder: Path = FOLDER) -> Path:
    """Return where the index of a set is kept.

    The name follows from the root, and from the name, size and time of change of every label
    file.

    Args:
        reader: the set, with labels.
        folder: of all indexes.

    Raises:
        ValueError: the reader holds no labels.
    """
    if not reader.has_labels:
        raise ValueError(
            f"index_path: expected a reader with labels, got {type(reader).__name__} without."
        )
    digest = hashlib.sha256(f"{reader.root.resolve()}\n{len(reader)}\n".encode())
    for path in reader.label_files:
        state = path.stat()
        line = f"{path.relative_to(reader.root)} {state.st_size} {state.st_mtime_ns}\n"
        digest.update(line.encode())
    return folder / f"{type(reader).__name__.lower()}-{digest.hexdigest()[:16]}.json"


def stored_index(reader: FileReader, folder: Path = FOLDER) -> SetIndex | None:
    """Return the kept index of a set, or None where there is none or it is damaged.

    Args:
        reader: the set, with labels.
        folder: of all indexes.

    Raises:
        ValueError: the reader holds no labels.
    """
    try:
        stored: Any = json.loads(index_path(reader, folder).read_text(encoding="utf-8"))
        sizes = np.array(stored["sizes"], dtype=np.int64)
        pixels = np.array(stored["pixels"], dtype=np.int64)
        stems = tuple(stored["stems"])
    except (FileNotFoundError, json.JSONDecodeError, KeyError, TypeError):
        return None
    whole = stems == reader.stems and sizes.shape == (len(stems), 2)
    if not whole or pixels.shape != (len(stems), NUM_CLASSES):
        return None
    return SetIndex(stems, sizes, pixels)


def store_index(reader: FileReader, index: SetIndex, folder: Path = FOLDER) -> Path:
    """Keep an index, and return its file.

    Args:
        reader: the set, with labels.
        index: what was counted.
        folder: of all indexes.
    """
    path = index_path(reader, folder)
    content = {
        "root": str(reader.root.resolve()),
        "count": len(reader),
        "stems": index.stems,
        "sizes": index.sizes.tolist(),
        "pixels": index.pixels.tolist(),
    }
    write_atomically(path, json.dumps(content) + "\n")
    return path


def index_of(
    reader: FileReader, folder: Path = FOLDER, *, workers: int = 0, progress: bool = False
) -> SetIndex:
    """Return the index of a set, counting only when it was not counted before.

    Args:
        reader: the set, with labels.
        folder: of all indexes.
        workers: processes to count with; 0 counts in this one.
        progress: show a bar.

    Raises:
        ValueError: the reader holds no labels.
        DataError: a label file is broken (see the readers).
    """
    stored = stored_index(reader, folder)
    if stored is not None:
        return stored
    counted = list(
        over_files(
            partial(count_pixels, reader),
            len(reader),
            "Counting pixels",
            workers=workers,
            progress=progress,
        )
    )
    index = SetIndex(
        reader.stems,
        np.array([size for size, _ in counted], dtype=np.int64),
        np.array([pixels for _, pixels in counted], dtype=np.int64),
    )
    store_index(reader, index, folder)
    return index
