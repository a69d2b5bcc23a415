"""What a run would do, in words, after the checks that the run itself makes."""

from pathlib import Path
from typing import Any

from reference.data.checking import scaling
from reference.data.image_set import ImageSet, Sample, shown_classes
from reference.data.layouts import LAYOUTS, Layout
from reference.data.sets import Sets
from reference.data.settings import Drawn
from reference.run.folder import RunFolder, as_plain
from reference.run.ranks import joined
from reference.run.state import State
from reference.settings import Settings, phases
from reference.synthetic.draw import is_claimed, scenes, settings_of


class PlanSets(Sets):
    """The sets of a run, without drawing scenes: those that are missing are listed alone."""

    def _draw(self, folder: Path, drawn: Drawn) -> None:
        self._scenes_to_be = [*scenes(folder, drawn)]
        claimed = is_claimed(folder, settings_of(drawn, self._seed))
        if not claimed or any(scene.missing for scene in self._scenes_to_be):
            self.undrawn = folder

    def _open(self, layout: Layout, root: Path, split: str, **more: Any) -> ImageSet:
        if root != self.undrawn:
            return super()._open(layout, root, split, **more)
        wanted = "source" if layout is LAYOUTS["toy-source"] else "target", split
        night = self.settings.drawn.night
        samples = tuple(
            Sample(
                scene.image.stem, scene.image, scene.labels, 0, scene.image if night else None, {}
            )
            for scene in self._scenes_to_be
            if (scene.domain, scene.split) == wanted and scene.labels is not None
        )
        shown = shown_classes(layout, self.classes, self.settings.merge)
        return ImageSet(layout.title, root, self.classes, samples, more["labels"], shown, ())


def plan(settings: Settings, folder: Path, *, resume: bool = False) -> str:
    """Check what a run needs, and say what it would do; nothing is drawn and nothing written."""
    with joined(settings.machine) as ranks:
        run = RunFolder(folder, as_plain(settings), ranks, resume=resume)
        if run.check():
            run.find_newest()
        sets = PlanSets(settings.data, settings.seed, oracle=settings.stages == "oracle")
        state = State(settings, sets, ranks, run.checkpoint)
        notes = [*state.check(), *run.notes]
    millions = sum(parameter.numel() for parameter in state.network.parameters()) / 1e6
    opened = sets.opened(target=settings.adapts, validation=settings.reporting.evaluate)
    seen = [
        f"{name} images{' without labels' * (name == 'target')}: {len(images)} in {images.root}"
        for name, images in opened.items()
    ]
    if sets.undrawn:
        seen.append(f"drawn scenes in {sets.undrawn}, drawn by the run")
    network = f"network of {millions:.1f} million parameters; {state.beginning}"
    trained = [
        f"{phase.name}: iterations {start}..{phase.stop - 1}, learning rate of the backbone "
        f"{phase.learning_rate(start):.2e} to {phase.learning_rate(phase.stop - 1):.2e}"
        for phase in phases(settings)
        if (start := max(phase.start, state.iteration)) < phase.stop
    ]
    lines = [f"run folder {folder}", *seen, scaling(settings, sets), *notes, network]
    return "\n".join([*lines, *(trained or ["nothing is left to train"])])
