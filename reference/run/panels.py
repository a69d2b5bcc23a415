"""Pictures and prototypes that a run keeps while it goes on, always of the same images.

Nothing here changes what is trained: the network is read without gradient and in evaluation mode,
the method is asked on a copy of itself.
"""

import copy
from pathlib import Path
from typing import Final

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save
from torch import Tensor

from reference.data.batches import Batch, passes
from reference.data.classes import ByteArray
from reference.data.files import resize_image, resize_labels
from reference.data.image_set import ImageSet, spread_indices
from reference.data.sets import Sets
from reference.data.settings import Size, require
from reference.method import Method, Part, label_counts
from reference.networks.output import Domain, at_rest
from reference.pictures.strips import StripFile, colourise, strip_png
from reference.run.files import write_atomically
from reference.run.folder import PANELS, PROTOTYPES, labels_of
from reference.run.state import State
from reference.settings import Phase, Settings, phases

_LONGEST_SIDE: Final = 384
_PER_SET: Final = 2


def due(settings: Settings, iteration: int) -> bool:
    """Whether panels are drawn after so many steps.

    Besides every so often and at the end of the warm-up and of the run, they are drawn once early
    in adaptation, when prototypes have become averages.
    """
    every, rounds = settings.reporting.panels_every, phases(settings)
    if not every:
        return False
    ends = {rounds[-1].stop, *(phase.stop for phase in rounds if not phase.adapts)}
    early = [min(p.start + settings.reporting.every, p.stop) for p in rounds if p.adapts][:1]
    return iteration % every == 0 or iteration in {*ends, *early}


def chosen_images(name: str, count: int, wanted: tuple[int, ...]) -> list[int]:
    """Return the numbers of the images of a set that panels show; by default two, evenly spaced."""
    below = f"below {count}, the number of {name} images"
    for number in wanted:
        require("train", "reporting.panel_ids", number, below, number < count)
    return list(wanted) or spread_indices(count, _PER_SET)


def shown_sets(settings: Settings, sets: Sets) -> dict[str, tuple[ImageSet, list[int]]]:
    """Return the sets that panels show, no others than a run opens, and which images of each."""
    opened = sets.opened(target=settings.adapts, validation=settings.reporting.evaluate)
    labelled = opened.pop("labelled")
    if settings.stages != "oracle":
        opened = {"source": labelled, **opened}
    wanted = settings.reporting.panel_ids
    return {name: (s, chosen_images(name, len(s), wanted)) for name, s in opened.items()}


def draw_panels(folder: Path, settings: Settings, sets: Sets, state: State, phase: Phase) -> None:
    """Draw what the network sees in a few images of every set, and keep the prototypes.

    All ranks must call this, because a method may add up statistics over them; the main one writes.
    """
    main = state.ranks.is_main
    with at_rest(state.network):
        drawing, at = _Drawing(folder, state, phase), state.iteration
        legend = dict(zip(sets.classes.names, sets.classes.colours, strict=True))
        for name, (images, chosen) in shown_sets(settings, sets).items():
            # Of an image that is broken there is none.
            for batch in passes(images, settings.reporting.size, chosen, skip=state.skip):
                pictures, index = drawing.pictures(name, images, batch), int(batch.indices)
                stem = images.stems[index]
                strip = StripFile(name, index, stem, at, phase.name, pictures, legend)
                if main:
                    write_atomically(folder / PANELS / strip.place, strip_png(strip))
    tables = state.method.prototypes() if phase.adapts else {}
    if main and tables:
        plain = {name: table.detach().cpu().contiguous() for name, table in tables.items()}
        write_atomically(folder / PROTOTYPES / f"{state.iteration:08d}.safetensors", save(plain))


class _Drawing:
    """The pictures of one moment of a run."""

    def __init__(self, folder: Path, state: State, phase: Phase) -> None:
        self.state, self.phase = state, phase
        self.static: Path | None = None
        if phase.static and state.method.uses_static:
            self.static = labels_of(folder, phase.name)
        # A copy, because asking a method may move its prototypes.
        self.method = copy.deepcopy(state.method).eval() if phase.adapts else None

    @torch.no_grad()
    def pictures(self, name: str, images: ImageSet, batch: Batch) -> dict[str, ByteArray]:
        """Caption -> picture, all of one size, of the one image of a batch."""
        state, index = self.state, int(batch.indices)
        # The warm-up trains the stem of the target, on source images.
        domain: Domain = "source" if name == "source" and self.phase.adapts else "target"
        pixels = batch.images.to(state.ranks.device)
        height, width = pixels.shape[-2:]
        scale = _LONGEST_SIDE / max(height, width)
        self.shown: Size = (max(1, round(height * scale)), max(1, round(width * scale)))
        logits = state.see(state.network, pixels, domain=domain).logits
        logits = state.network.upsampled(logits, self.shown, self.state.sets.masked)[0]
        confidence, best = logits.softmax(dim=0).max(dim=0)
        pictures = {"image": resize_image(images.image(index), self.shown)}
        if name != "target" and images.has_labels:
            pictures["ground truth"] = self._painted(images.labels(index))
        pictures["prediction"] = self._painted(best)
        if name == "target":
            pictures |= self._pseudo_labels(images.stems[index], batch)
        shades = (255 * confidence).round().to(torch.uint8).cpu().numpy()
        return pictures | {"confidence: black 0, white 1": np.stack([shades] * 3, axis=2)}

    def _painted(self, labels: Tensor | ByteArray) -> ByteArray:
        if isinstance(labels, Tensor):
            labels = labels.cpu().numpy().astype(np.uint8)
        return colourise(resize_labels(labels, self.shown), self.state.sets.classes.colours)

    def _pseudo_labels(self, stem: str, batch: Batch) -> dict[str, ByteArray]:
        """Static labels of this round, and those that the method would use now."""
        pictures = {}
        if self.static is not None:
            with Image.open(self.static / f"{stem}.png") as file:
                static = np.array(file)
            pictures["static labels"] = self._painted(static)
            size = batch.images.shape[-2], batch.images.shape[-1]
            batch = batch._replace(labels=torch.tensor(resize_labels(static, size)).long()[None])
        if self.method is not None and self.method.uses_target:
            used = self._used(self.method, batch)
            if used is not None:
                pictures["labels used"] = self._painted(used[0])
        return pictures

    def _used(self, method: Method, target: Batch) -> Tensor | None:
        """Pseudo labels of the method, which sees the first source image of the panels beside."""
        state, source = self.state, self.state.sets.source
        beside = chosen_images("source", len(source), self.state.settings.reporting.panel_ids)[:1]
        # Of one size: a method may mix the images.
        size = target.images.shape[-2], target.images.shape[-1]
        batch = next(passes(source, size, beside, skip=state.skip), None)
        if batch is None:
            return None
        part = Part(*(each.to(state.ranks.device) for each in (batch, target)))
        counts = label_counts([part], state.class_weights, state.ranks)
        # A method may move modules of its own, here those of the copy, by a backward pass.
        with torch.enable_grad():
            labels = method(state.step_of(self.phase, part, 0, counts)).labels
        state.network.zero_grad(set_to_none=True)
        return None if labels is None else labels.detach()
