"""Where the drawn scenes lie.

Their layouts are those of GTA5 and Cityscapes, so that the toy is read as the real sets are. A
manifest beside them holds the settings they were drawn with: the same settings find their data
again, others are refused, and nothing that exists is ever overwritten. Nothing here imports what
paints: drawing is a process of its own, ``python -m reference.synthetic``.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

from reference.data.settings import Drawn, refusal, require
from reference.run.files import entries

MANIFEST: Final = "toy.json"
_CITY: Final = "toytown"

Split = Literal["train", "val", "test"]


@dataclass(frozen=True)
class Scene:
    """One image with its labels, to be drawn into two files; without labels, into one."""

    domain: Literal["source", "target"]
    split: Split
    index: int
    image: Path
    labels: Path | None

    @property
    def missing(self) -> bool:
        """Whether a file of it is not there."""
        return not (self.image.is_file() and (self.labels is None or self.labels.is_file()))


def scenes(root: Path, drawn: Drawn) -> Iterator[Scene]:
    """Every scene below a folder; scene i of a split is the same however many are drawn.

    Each training image of a night has an image by day, unlabelled, after it.
    """
    for index in range(drawn.source_train):
        name = f"{index + 1:05d}.png"
        files = (root / "gta5" / kind / name for kind in ("images", "labels"))
        yield Scene("source", "train", index, *files)
    for split in get_args(Split):
        for index in range(getattr(drawn, f"target_{split}")):
            stem = f"{_CITY}_{index:06d}_000000"
            image = f"leftImg8bit/{split}/{_CITY}/{stem}_leftImg8bit.png"
            labels = f"gtFine/{split}/{_CITY}/{stem}_gtFine_labelIds.png"
            city = root / "cityscapes"
            yield Scene("target", split, index, city / image, city / labels)
            if drawn.night and split == "train":
                yield Scene("target", split, index, root / "day" / image, None)


def settings_of(drawn: Drawn, seed: int) -> dict[str, Any]:
    """What the manifest holds, but for the fingerprint of the pixels."""
    whole = {**asdict(drawn), "size": list(drawn.size)}
    sizes = {name: whole.pop(name) for name in [*whole] if name.startswith(("source", "target"))}
    return {"seed": seed, "sizes": sizes, **whole}


def is_claimed(root: Path, wanted: Mapping[str, Any]) -> bool:
    """Whether a folder holds scenes of these settings already; False where it is new or empty.

    One with other things, or scenes of other settings, is refused.
    """
    manifest, hint = root / MANIFEST, "name another folder, with --data.root"
    if not manifest.is_file():
        ok = not root.exists() or (root.is_dir() and not entries(root))
        got = f"{root}, which holds other things and no {MANIFEST}"
        require("synthetic", "a new or empty folder", got, "for drawn scenes", ok, hint)
        return False
    try:
        found = {**json.loads(manifest.read_text("utf-8"))}
        # Scenes of this split change no other, and were once drawn for every run.
        found["sizes"] = {**found["sizes"], "target_val": wanted["sizes"]["target_val"]}
    except (ValueError, TypeError, KeyError) as error:
        got = f"a damaged file ({error})"
        raise refusal("synthetic", str(manifest), got, "to hold settings", hint) from error
    for name, value in wanted.items():
        held, told = found.get(name), f"to hold scenes drawn with {name} {value}"
        require("synthetic", str(root), held, told, held == value, hint)
    return True
