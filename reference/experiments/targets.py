"""The preset that belongs to a target, with its data in place."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from reference.presets import PRESETS
from reference.settings import Settings

if TYPE_CHECKING:
    from reference.data.sets import Sets

TOY: Final = "toy"
NIGHT: Final = "night"
_PRESETS: Final = {TOY: "toy", NIGHT: "toy-night"}


def is_named(target: str) -> bool:
    """Whether a target is a name, and not the folder of photographs."""
    return target in _PRESETS or target in PRESETS


def target_settings(
    target: str,
    seed: int,
    *,
    data: Path,
    scenes: Path | None = None,
    root: Path | None = None,
    varied: bool = False,
    sequence: str = "",
) -> Settings:
    """Settings of a whole run towards a target, of one thread.

    Args:
        target: "toy", "night", another preset, or the folder of photographs, whose layout is that
            of its name ("camvid", "kitti" ...) or else that of Cityscapes.
        seed: of the drawn scenes, the weights and the batches.
        data: folder below which scenes are drawn, each kind in a folder of its own or in `scenes`.
        scenes: folder of the drawn scenes.
        root: of the sets of a preset that draws nothing.
        varied: for photographs: a varied source, and a larger network trained longer.
        sequence: a drive of these photographs that is the target, the others being the source.
    """
    if is_named(target):
        _, settings = PRESETS[_PRESETS.get(target, target)]
        sets = replace(settings.data, root=root)
    else:
        from reference.data.layouts import LAYOUTS

        name = "varied-to-photographs" if varied else "toy-to-photographs"
        _, settings = PRESETS["day-to-dusk" if sequence else name]
        folder = Path(target)
        layout = folder.name.lower() if folder.name.lower() in LAYOUTS else "cityscapes"
        sets = replace(settings.data, target=folder, target_set=layout)
        if sequence:
            sets = replace(sets, source=folder, source_set=layout, sequence=sequence)
    if sets.source_set == "toy":
        folder = scenes or data / sets.drawn.folder(seed).name
        # Beside photographs the root would be that of both sets.
        place = "root" if sets.target_set.startswith("toy") else "source"
        sets = replace(sets, **{place: folder})  # type: ignore[arg-type]
    return replace(settings, seed=seed, data=sets, machine=replace(settings.machine, threads=1))


def draw_missing(many: Iterable[Settings]) -> None:
    """Open the data of several runs once, before they want them at the same time."""
    for settings in {(each.seed, each.data): each for each in many}.values():
        sets = sets_of(settings)
        # Photographs first: a wrong folder is told before anything is drawn.
        _ = len(sets.target), len(sets.validation), len(sets.source)


def sets_of(settings: Settings) -> "Sets":
    """The sets of a run, of which nothing is opened yet."""
    from reference.data.sets import Sets

    return Sets(settings.data, settings.seed)


def image_counts(settings: Settings) -> dict[str, int]:
    """How many images a run has of source, target and test."""
    sets = sets_of(settings)
    counted = {"source": sets.source, "target": sets.target, "test": sets.validation}
    return {name: len(images) for name, images in counted.items()}


def has_training_labels(settings: Settings) -> bool:
    """Whether a target offers labels of its training images, which only the oracle needs."""
    try:
        return len(sets_of(settings).oracle) > 0
    except ValueError:
        return False
