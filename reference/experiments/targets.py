"""The preset that belongs to a target, with its data in place."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Final

from reference.data.sets import Sets
from reference.presets import PRESETS
from reference.settings import Settings

TOY: Final = "toy"
NIGHT: Final = "night"
DUSK: Final = "day-to-dusk"
_PRESETS: Final = {TOY: "toy", NIGHT: "toy-night"}


def target_settings(
    target: str, seed: int, *, data: Path, scenes: Path | None = None, root: Path | None = None
) -> Settings:
    """Settings of a whole run towards a target, of one thread.

    The target is "toy", "night" or another preset, whose sets lie below `root`. Scenes are drawn
    below `data`, each kind in a folder of its own, or in `scenes`.
    """
    _, settings = PRESETS[_PRESETS.get(target, target)]
    sets = settings.data
    if sets.source_set == "toy":
        root = scenes or data / sets.drawn.folder(seed).name
    sets, machine = replace(sets, root=root), replace(settings.machine, threads=1)
    return replace(settings, seed=seed, data=sets, machine=machine)


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
