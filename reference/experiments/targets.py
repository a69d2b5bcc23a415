"""The preset that belongs to a target, with its data in place."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Final

from reference.data.layouts import LAYOUTS
from reference.data.sets import Sets
from reference.presets import PRESETS
from reference.settings import Settings

TOY: Final = "toy"
NIGHT: Final = "night"
_PRESETS: Final = {TOY: "toy", NIGHT: "toy-night"}


def is_named(target: str) -> bool:
    """Whether a target is a name, and not the folder of photographs."""
    return target in _PRESETS or target in PRESETS


def target_settings(
    target: str, seed: int, *, data: Path, scenes: Path | None = None, root: Path | None = None,
    sequence: str = "",
) -> Settings:  # fmt: skip
    """Settings of a whole run towards a target, of one thread.

    The target is "toy", "night", another preset, whose sets lie below `root`, or the folder of
    photographs, of which the drive `sequence` is the target and the others are the source; their
    layout is that of the folder's name ("camvid", "kitti" ...) or else that of Cityscapes. Scenes
    are drawn below `data`, each kind in a folder of its own, or in `scenes`.
    """
    _, settings = PRESETS["day-to-dusk" if sequence else _PRESETS.get(target, target)]
    sets = replace(settings.data, root=root)
    if sequence:
        folder = Path(target)
        layout = folder.name.lower() if folder.name.lower() in LAYOUTS else "cityscapes"
        sets = replace(sets, source=folder, target=folder, sequence=sequence)
        sets = replace(sets, source_set=layout, target_set=layout)
    elif sets.source_set == "toy":
        sets = replace(sets, root=scenes or data / sets.drawn.folder(seed).name)
    return replace(settings, seed=seed, data=sets, machine=replace(settings.machine, threads=1))


def draw_missing(many: Iterable[Settings]) -> None:
    """Open the data of several runs once, before they want them at the same time."""
    for settings in {(each.seed, each.data): each for each in many}.values():
        sets = Sets(settings.data, settings.seed)
        _ = len(sets.target), len(sets.validation), len(sets.source)


def image_counts(settings: Settings) -> dict[str, int]:
    """How many images a run has of source, target and test."""
    sets = Sets(settings.data, settings.seed)
    counted = {"source": sets.source, "target": sets.target, "test": sets.validation}
    return {name: len(images) for name, images in counted.items()}


def has_training_labels(settings: Settings) -> bool:
    """Whether a target offers labels of its training images, which only the oracle needs."""
    try:
        return len(Sets(settings.data, settings.seed).oracle) > 0
    except ValueError:
        return False
