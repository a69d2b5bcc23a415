"""Where the drawn scenes lie, and `drawn_domains`, which has them drawn where they are missing.

Their layouts are those of GTA5 and Cityscapes, so that the toy is read as the real sets are. A
manifest beside them holds the settings they were drawn with: the same settings find their data
again, others are refused, and nothing that exists is ever overwritten. Nothing here imports what
paints: drawing is a process of its own, ``python -m reference.synthetic``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from reference.data.settings import Drawn

MANIFEST: Final = "toy.json"
DATA: Final = Path("runs/data")
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


def usual_folder(drawn: Drawn, seed: int) -> Path:
    """Where scenes lie if no folder is named, such as runs/data/toy-192x96-seed0."""
    kind = "varied" if drawn.varied else "night" if drawn.night else "toy"
    height, width = drawn.size
    return DATA / f"{kind}-{width}x{height}-seed{seed}"


def drawn_domains(
    root: Path,
    drawn: Drawn,
    seed: int,
    *,
    target: bool = True,
    quiet: bool = False,
    option: str = "--data.root",
) -> Roots:
    """Find the drawn scenes in a folder, or have the missing ones drawn there.

    Args:
        root: a new or empty folder, or one that was filled with the same settings.
        drawn: what is drawn.
        seed: of the scenes.
        target: False leaves the target out, where photographs take its place.
        quiet: draw without a bar.
        option: what the command calls `root`, for hints.

    Raises:
        ValueError: the folder holds other things or scenes of other settings (nothing is touched
            then), or drawing ended early.
    """
    if not target:
        drawn = replace(drawn, target_train=0, target_val=0, target_test=0, night=False)
    claimed = is_claimed(root, settings_of(drawn, seed), option)
    roots = roots_below(root, drawn)
    if claimed and not any(scene.missing for scene in scenes(roots, drawn)):
        return roots
    command = [sys.executable, "-m", "reference.synthetic", str(root), "--seed", str(seed)]
    for field in fields(Drawn):
        value = getattr(drawn, field.name)
        name = field.name.replace("_", "-")
        if isinstance(value, bool):
            command.append(f"--{name}" if value else f"--no-{name}")
        else:
            command += [f"--{name}", *map(str, value if isinstance(value, tuple) else (value,))]
    # The parent folder of `reference`, wherever the run was started from.
    paths = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    status = subprocess.run([*command, *(["--quiet"] if quiet else [])], env=environment).returncode
    if status:
        raise ValueError(
            f"drawn_domains: expected scenes to be drawn into {root}, got exit status {status} of "
            "python -m reference.synthetic. Hint: the line above says why; what was drawn is kept."
        )
    return roots


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


def is_claimed(root: Path, wanted: Mapping[str, Any], option: str) -> bool:
    """Whether a folder holds scenes of these settings already; False where it is new or empty.

    Raises:
        ValueError: it holds other things, scenes of other settings or a damaged manifest.
    """
    manifest, hint = root / MANIFEST, f"Hint: name another folder with {option}."
    if not manifest.is_file():
        if root.exists() and (not root.is_dir() or any(root.iterdir())):
            raise ValueError(
                f"drawn_domains: expected a new or empty folder for drawn scenes, got {root}, "
                f"which holds other things and no {MANIFEST}. {hint}"
            )
        return False
    try:
        # Manifests of scenes by day, of one look, may not say so.
        found = {"varied": False, "night": False, **json.loads(manifest.read_text("utf-8"))}
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"drawn_domains: expected {manifest} to hold settings, got a damaged file ({error}). "
            f"{hint}"
        ) from error
    for name, value in wanted.items():
        if found.get(name) != value:
            raise ValueError(
                f"drawn_domains: expected {root} to hold scenes drawn with {name} {value}, got "
                f"{found.get(name)}. {hint}"
            )
    return True
