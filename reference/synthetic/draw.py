"""Where the drawn scenes lie.

Their layouts are those of GTA5 and Cityscapes, so that the toy is read as the real sets are. A
manifest beside them holds the settings they were drawn with: the same settings find their data
again, others are refused, and nothing that exists is ever overwritten. Nothing here imports what
paints: drawing is a process of its own, ``python -m reference.synthetic``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from reference.data.settings import Drawn

MANIFEST: Final = "toy.json"
_CITY: Final = "toytown"


class Roots(NamedTuple):
    """Where the domains lie.

    Args:
        source: in the layout of GTA5.
        target: in the layout of Cityscapes.
        day: likewise, of a day image of every training image of the night, unlabelled; None where
            the target is no night.
    """

    source: Path
    target: Path
    day: Path | None


@dataclass(frozen=True)
class Scene:
    """One image with its labels, to be drawn into two files; without labels, into one."""

    domain: Literal["source", "target"]
    split: Literal["train", "val", "test"]
    index: int
    image: Path
    labels: Path | None

    @property
    def missing(self) -> bool:
        """Whether a file of it is not there."""
        return not (self.image.is_file() and (self.labels is None or self.labels.is_file()))


def roots_below(root: Path, drawn: Drawn) -> Roots:
    """The folders of the domains."""
    return Roots(root / "gta5", root / "cityscapes", root / "day" if drawn.night else None)


def scenes(roots: Roots, drawn: Drawn) -> Iterator[Scene]:
    """Every scene; scene i of a split is the same however many are drawn."""
    for index in range(drawn.source_train):
        name = f"{index + 1:05d}.png"
        images, labels = roots.source / "images", roots.source / "labels"
        yield Scene("source", "train", index, images / name, labels / name)
    splits: tuple[tuple[Literal["train", "val", "test"], int], ...]
    splits = ("train", drawn.target_train), ("val", drawn.target_val), ("test", drawn.target_test)
    for split, count in splits:
        images = roots.target / "leftImg8bit" / split / _CITY
        labels = roots.target / "gtFine" / split / _CITY
        for index in range(count):
            stem = f"{_CITY}_{index:06d}_000000"
            image = images / f"{stem}_leftImg8bit.png"
            yield Scene("target", split, index, image, labels / f"{stem}_gtFine_labelIds.png")
    if roots.day is not None:
        images = roots.day / "leftImg8bit" / "train" / _CITY
        for index in range(drawn.target_train):
            image = images / f"{_CITY}_{index:06d}_000000_leftImg8bit.png"
            yield Scene("target", "train", index, image, None)


def settings_of(drawn: Drawn, seed: int) -> dict[str, Any]:
    """What the manifest holds, but for the fingerprint of the pixels."""
    whole = asdict(drawn)
    sizes = {name: whole[name] for name in whole if name.startswith(("source", "target"))}
    return {
        "seed": seed,
        "sizes": sizes,
        "size": list(drawn.size),
        "shift": drawn.shift,
        "varied": drawn.varied,
        "night": drawn.night,
    }


def is_claimed(root: Path, wanted: Mapping[str, Any]) -> bool:
    """Whether a folder holds scenes of these settings already; False where it is new or empty.

    Raises:
        ValueError: it holds other things, scenes of other settings or a damaged manifest.
    """
    manifest, hint = root / MANIFEST, "Hint: name another folder, with --data.root."
    if not manifest.is_file():
        if root.exists() and (not root.is_dir() or any(root.iterdir())):
            raise ValueError(
                f"synthetic: expected a new or empty folder for drawn scenes, got {root}, "
                f"which holds other things and no {MANIFEST}. {hint}"
            )
        return False
    try:
        # Manifests of scenes by day, of one look, may not say so.
        found = {"varied": False, "night": False, **json.loads(manifest.read_text("utf-8"))}
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"synthetic: expected {manifest} to hold settings, got a damaged file ({error}). {hint}"
        ) from error
    for name, value in wanted.items():
        if found.get(name) != value:
            raise ValueError(
                f"synthetic: expected {root} to hold scenes drawn with {name} {value}, got "
                f"{found.get(name)}. {hint}"
            )
    return True
