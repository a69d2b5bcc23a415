"""Make a smaller copy of a set, one whole file after another, never over anything else."""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Final

from PIL import Image

from reference.atomic import write_atomically
from reference.data.prepared import Manifest, SetName, manifest_path, read_manifest
from reference.data.readers import FileReader, Reader
from reference.data.resizing import resize_image, resize_labels
from reference.data.worker_pool import over_files

QUALITY: Final = 95
_TIMED: Final = 8


@dataclass(frozen=True)
class Plan:
    """What is copied to where.

    Args:
        reader: the original.
        folder: of the copy.
        manifest: what the copy holds.
    """

    reader: FileReader
    folder: Path
    manifest: Manifest


def make_plan(
    name: SetName,
    split: str,
    reader: FileReader,
    folder: Path,
    *,
    image_divisor: int,
    label_divisor: int,
) -> Plan:
    """List the files of a copy; nothing is written.

    Args:
        name: of the set.
        split: of the set.
        reader: the original.
        folder: of the copy.
        image_divisor: images are scaled to 1 / this, at least 1.
        label_divisor: labels likewise, at least 1; not used where the reader has none.
    """
    images = [path.relative_to(reader.root).with_suffix(".jpg") for path in reader.image_files]
    labels = [path.relative_to(reader.root).as_posix() for path in reader.label_files]
    pairs = zip(reader.stems, images, labels or [""] * len(images), strict=True)
    manifest = Manifest(
        name,
        split,
        str(reader.root.resolve()),
        image_divisor,
        label_divisor if reader.has_labels else None,
        tuple((stem, image.as_posix(), file) for stem, image, file in pairs),
    )
    return Plan(reader, folder, manifest)


def claim(plans: Sequence[Plan]) -> None:
    """Make the folder of a set ours, or raise before anything is written.

    Args:
        plans: of all splits of one set, which share a folder.

    Raises:
        ValueError: the folder holds other things, or a copy made in another way.
    """
    for plan in plans:
        found = read_manifest(plan.folder, plan.manifest.split)
        if found is not None:
            _require_same(plan, found)
    folder = plans[0].folder
    ours = any(folder.glob(manifest_path(Path(), "*").name))
    if not ours and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(
            f"prepare: expected a new or empty folder, or one that it made, got {folder}, which "
            "holds other things. Hint: choose another folder with --out."
        )
    for plan in plans:
        path = manifest_path(plan.folder, plan.manifest.split)
        if not path.exists():
            write_atomically(path, plan.manifest.text())


def _require_same(plan: Plan, found: Manifest) -> None:
    for field in fields(found):
        wanted, stored = getattr(plan.manifest, field.name), getattr(found, field.name)
        if wanted != stored:
            if field.name == "pairs":
                wanted, stored = f"{len(wanted)} pairs", f"{len(stored)} or other files"
            raise ValueError(
                f"prepare: expected {plan.folder} to hold a copy with {field.name} {wanted}, got "
                f"{stored}. Hint: choose another folder with --out."
            )


def _scaled(shape: tuple[int, ...], divisor: int) -> tuple[int, int]:
    return max(1, round(shape[0] / divisor)), max(1, round(shape[1] / divisor))


def copy_pair(plan: Plan, index: int) -> int:
    """Write the files of one pair that are not there yet.

    Args:
        plan: of the copy.
        index: number of the pair.

    Returns:
        int: number of files written, 0..2.

    Raises:
        DataError: a file of the original is broken (see the readers).
    """
    manifest = plan.manifest
    _, image, labels = manifest.pairs[index]
    written = 0
    if not (plan.folder / image).exists():
        pixels = plan.reader.image(index)
        small = resize_image(pixels, _scaled(pixels.shape, manifest.image_divisor))
        encoded = io.BytesIO()
        Image.fromarray(small).save(encoded, format="JPEG", quality=QUALITY)
        write_atomically(plan.folder / image, encoded.getvalue())
        written += 1
    if manifest.label_divisor is not None and not (plan.folder / labels).exists():
        ids = plan.reader.labels(index)
        encoded = io.BytesIO()
        small = resize_labels(ids, _scaled(ids.shape, manifest.label_divisor))
        Image.fromarray(small).save(encoded, format="PNG")
        write_atomically(plan.folder / labels, encoded.getvalue())
        written += 1
    return written


def copy_all(plan: Plan, *, workers: int = 0, progress: bool = False) -> int:
    """Write all files that are not there yet.

    Args:
        plan: of the copy; its folder was claimed.
        workers: processes that copy; 0 copies in this one.
        progress: show a bar.

    Returns:
        int: number of files written.

    Raises:
        DataError: a file of the original is broken (see the readers).
    """
    work = partial(copy_pair, plan)
    count = len(plan.manifest.pairs)
    described = f"Preparing {plan.manifest.name} {plan.manifest.split}"
    return sum(over_files(work, count, described, workers=workers, progress=progress))


def decode_time_ms(reader: Reader) -> float:
    """Measure how long reading one image and its labels takes, on average of up to 8 pairs.

    Args:
        reader: of the original or of the copy; the pairs are spread over the set.

    Returns:
        float: milliseconds of wall time.
    """
    numbers = sorted({place * len(reader) // _TIMED for place in range(_TIMED)})
    # The first read of a file comes from the disk, the second from memory.
    for number in numbers:
        _read(reader, number)
    began = time.perf_counter()
    for number in numbers:
        _read(reader, number)
    return 1000.0 * (time.perf_counter() - began) / len(numbers)


def _read(reader: Reader, number: int) -> None:
    reader.image(number)
    if reader.has_labels:
        reader.labels(number)
