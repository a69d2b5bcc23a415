"""Write the drawn domains to disk in the layouts of GTA5 and Cityscapes.

The toy then goes through the same readers as the real sets. A small manifest beside the data
holds the settings they were drawn with: the same settings find their data again, others are
refused, and nothing that exists is ever overwritten.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from reference.atomic import write_atomically
from reference.data.classes import NUM_CLASSES, PALETTE, TRAIN_TO_CITYSCAPES, ByteArray
from reference.progress import track
from reference.synthetic.look import Domain
from reference.synthetic.scene import Split, draw_scene

MANIFEST: Final = "toy.json"
UNLABELLED_ID: Final = 0
CITY: Final = "toytown"


@dataclass(frozen=True)
class Sizes:
    """How many images are drawn of each domain and split (images, >= 0; own choice).

    Raises:
        ValueError: a number is negative.
    """

    source_train: int = 300
    target_train: int = 300
    target_val: int = 100
    target_test: int = 100

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) < 0:
                raise ValueError(
                    f"Sizes: expected {field.name} >= 0, got {getattr(self, field.name)}."
                )


@dataclass(frozen=True)
class Domains:
    """Where the drawn domains lie.

    Args:
        source: root for the `GTA5` reader.
        target: root for the `Cityscapes` reader.
        day: the same, of a day image of every training image of the night; its own split "train",
            without labels. None where the target is no night.
    """

    source: Path
    target: Path
    day: Path | None = None


@dataclass(frozen=True)
class _Pair:
    """One image with its labels, to be drawn into two files; without labels, into one."""

    domain: Domain
    split: Split
    index: int
    image: Path
    labels: Path | None

    @property
    def drawn(self) -> bool:
        """Whether all its files are there."""
        return self.image.is_file() and (self.labels is None or self.labels.is_file())


def _id_table() -> ByteArray:
    table = np.full(256, UNLABELLED_ID, dtype=np.uint8)
    table[:NUM_CLASSES] = TRAIN_TO_CITYSCAPES
    return table


def _id_palette() -> list[int]:
    colours = np.zeros((256, 3), dtype=np.uint8)
    colours[TRAIN_TO_CITYSCAPES] = PALETTE
    return [int(value) for value in colours.ravel()]


def _pairs(domains: Domains, sizes: Sizes) -> Iterator[_Pair]:
    for index in range(sizes.source_train):
        name = f"{index + 1:05d}.png"
        images, labels = domains.source / "images", domains.source / "labels"
        yield _Pair("source", "train", index, images / name, labels / name)
    splits: tuple[tuple[Split, int], ...] = (
        ("train", sizes.target_train),
        ("val", sizes.target_val),
        ("test", sizes.target_test),
    )
    for split, count in splits:
        images = domains.target / "leftImg8bit" / split / CITY
        labels = domains.target / "gtFine" / split / CITY
        for index in range(count):
            stem = f"{CITY}_{index:06d}_000000"
            yield _Pair(
                "target",
                split,
                index,
                images / f"{stem}_leftImg8bit.png",
                labels / f"{stem}_gtFine_labelIds.png",
            )
    if domains.day is not None:
        images = domains.day / "leftImg8bit" / "train" / CITY
        for index in range(sizes.target_train):
            image = images / f"{CITY}_{index:06d}_000000_leftImg8bit.png"
            yield _Pair("target", "train", index, image, None)


def _save(picture: Image.Image, path: Path) -> None:
    """Save so that a run that is stopped half-way leaves no half-written file behind."""
    encoded = io.BytesIO()
    picture.save(encoded, format="PNG", compress_level=1)
    write_atomically(path, encoded.getvalue())


def _fingerprint(seed: int, size: tuple[int, int], shift: float, varied: bool, night: bool) -> str:
    digest = hashlib.sha256()
    domains: tuple[Domain, ...] = ("source", "target")
    for domain in domains:
        for pixels in draw_scene(seed, domain, 0, size, shift, varied=varied, night=night):
            digest.update(pixels.tobytes())
    return digest.hexdigest()[:16]


def _claim(root: Path, settings: dict[str, Any]) -> None:
    """Make `root` ours for these settings, or raise when it holds anything else."""
    manifest = root / MANIFEST
    if not manifest.is_file():
        if root.exists() and (not root.is_dir() or any(root.iterdir())):
            raise ValueError(
                f"write_domains: expected root to be a new or empty folder, got {root}, which "
                f"holds other things and no {MANIFEST}. Hint: choose another folder."
            )
        write_atomically(manifest, json.dumps(settings, indent=2) + "\n")
        return
    try:
        found = json.loads(manifest.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"write_domains: expected {manifest} to hold JSON, got a damaged file ({error}). "
            "Hint: choose another folder."
        ) from error
    if not isinstance(found, dict):
        found = {}
    for key, value in settings.items():
        if found.get(key) != value:
            raise ValueError(
                f"write_domains: expected {root} to hold data drawn with {key} {value}, got "
                f"{found.get(key)}. Hint: choose another folder for other settings."
            )


def write_domains(
    root: str | Path,
    seed: int = 0,
    sizes: Sizes | None = None,
    *,
    size: tuple[int, int] = (96, 192),
    shift: float = 0.7,
    varied: bool = False,
    night: bool = False,
    progress: bool = False,
) -> Domains:
    """Draw both domains into `root`, or find them there.

    Files are ``gta5/images/00001.png`` with ``gta5/labels/00001.png`` (palette PNG of class ids)
    and ``cityscapes/leftImg8bit/<split>/toytown/*_leftImg8bit.png`` with
    ``cityscapes/gtFine/<split>/toytown/*_gtFine_labelIds.png``. Image i of a split is the same
    however many are drawn. A run that was stopped is completed by the next call.

    Args:
        root: a new or empty folder, or one that this function filled with the same settings.
        seed: number of the data set, >= 0.
        sizes: how many images; None means the defaults of `Sizes`.
        size: (height, width) of every image, pixels.
        shift: how far the target's look has moved from the source's, 0..1.
        varied: give every source image a look of its own.
        night: draw the target after dark, and for every training image of it a day image of the
            same street, with other vehicles and persons, below ``day`` in place of ``cityscapes``.
        progress: show a progress bar with the time left.

    Returns:
        The roots for the `GTA5` and `Cityscapes` readers.

    Raises:
        ValueError: `root` holds anything else, or data drawn with other settings (nothing is
            touched then); or a setting that `draw_scene` refuses.
    """
    wanted, root = sizes or Sizes(), Path(root)
    settings: dict[str, Any] = {
        "seed": seed,
        "sizes": asdict(wanted),
        "size": list(size),
        "shift": shift,
        "drawing": _fingerprint(seed, size, shift, varied, night),
    }
    if varied:
        settings["varied"] = True
    if night:
        settings["night"] = True
    _claim(root, settings)
    domains = Domains(root / "gta5", root / "cityscapes", root / "day" if night else None)
    missing = [pair for pair in _pairs(domains, wanted) if not pair.drawn]
    ids, palette = _id_table(), _id_palette()
    for number in track(len(missing), "Drawing street scenes", show=progress and bool(missing)):
        pair = missing[number]
        image, train_ids = draw_scene(
            seed, pair.domain, pair.index, size, shift, pair.split, varied=varied,
            night=night and pair.labels is not None, other_traffic=pair.labels is None,
        )  # fmt: skip
        _save(Image.fromarray(image), pair.image)
        if pair.labels is None:
            continue
        labels = Image.fromarray(ids[train_ids])
        if pair.domain == "source":
            labels.putpalette(palette)
        _save(labels, pair.labels)
    return domains
