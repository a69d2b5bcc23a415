"""Pictures and prototypes that a run keeps while it goes on, always of the same images.

Nothing here changes what is trained: the network is read without gradient and in evaluation mode,
the method is asked on a copy of itself.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save
from torch import Tensor

from reference.data.batches import Batch, whole_image
from reference.data.sets import ImageSet, Sets
from reference.data.settings import Size
from reference.method import Part, Step, label_counts
from reference.networks.output import Domain
from reference.pictures.paint import ByteArray, colourise, grey
from reference.pictures.strip_files import PANELS, StripFile, strip_png
from reference.run.files import write_atomically
from reference.settings import Phase, Settings, phases

if TYPE_CHECKING:
    from reference.run.state import State

PROTOTYPES: Final = "prototypes"
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
    adapting = [phase for phase in rounds if phase.adapts]
    ends = {rounds[-1].stop, *(phase.stop for phase in rounds if not phase.adapts)}
    if adapting:
        ends.add(min(adapting[0].start + settings.reporting.every, adapting[0].stop))
    return iteration % every == 0 or iteration in ends


def chosen_images(name: str, count: int, wanted: tuple[int, ...]) -> list[int]:
    """Return the numbers of the images of a set that panels show; two, evenly spaced, by default.

    Raises:
        ValueError: the set has no image of a number that is wanted.
    """
    for number in wanted:
        if number >= count:
            raise ValueError(
                f"train: expected reporting.panel_ids below {count}, the number of {name} images, "
                f"got {number}."
            )
    shown = min(_PER_SET, count)
    return list(wanted) or [(2 * place + 1) * count // (2 * shown) for place in range(shown)]


def shown_sets(settings: Settings, sets: Sets) -> dict[str, tuple[ImageSet, list[int]]]:
    """Return the sets that panels show, and which images of each.

    Target training images are opened only by a run that trains on them, validation images only by
    one that evaluates.

    Raises:
        ValueError: a set has no image of a number that is wanted.
    """
    opened: dict[str, ImageSet] = {}
    if settings.stages != "oracle":
        opened["source"] = sets.source
    if any(phase.adapts for phase in phases(settings)):
        opened["target"] = sets.target
    if settings.reporting.evaluate:
        opened["validation"] = sets.validation
    wanted = settings.reporting.panel_ids
    return {name: (s, chosen_images(name, len(s), wanted)) for name, s in opened.items()}


def draw_panels(folder: Path, settings: Settings, sets: Sets, state: State, phase: Phase) -> None:
    """Draw what the network sees in a few images of every set, and keep the prototypes.

    All ranks must call this, because a method may add up statistics over them; the main one writes.

    Args:
        folder: of the run; the files lie in ``panels/`` and ``prototypes/`` below it.
        settings: of the run.
        sets: its images.
        state: what is trained.
        phase: that the last step belonged to.

    Raises:
        ValueError: an image is broken, or the disk is full.
    """
    training = state.network.training
    state.network.eval()
    try:
        drawing = _Drawing(folder, settings, sets, state, phase)
        for name, (images, chosen) in shown_sets(settings, sets).items():
            for index in chosen:
                pictures = drawing.pictures(name, images, index)
                legend = dict(zip(sets.classes.names, sets.classes.colours, strict=True))
                strip = StripFile(
                    name, index, images.stems[index], state.iteration, phase.name, pictures, legend
                )
                if state.ranks.is_main:
                    write_atomically(folder / PANELS / strip.place, strip_png(strip))
    finally:
        state.network.train(training)
    if phase.adapts and state.ranks.is_main:
        write_prototypes(folder, state.iteration, state.method.prototypes())


def write_prototypes(folder: Path, iteration: int, tables: Mapping[str, Tensor]) -> None:
    """Keep tables of prototypes as they stand, a few kilobytes, for the page's picture."""
    if tables:
        plain = {name: table.detach().cpu().contiguous() for name, table in tables.items()}
        write_atomically(folder / PROTOTYPES / f"{iteration:08d}.safetensors", save(plain))


class _Drawing:
    """The pictures of one moment of a run."""

    def __init__(
        self, folder: Path, settings: Settings, sets: Sets, state: State, phase: Phase
    ) -> None:
        self.settings, self.sets, self.state, self.phase = settings, sets, state, phase
        self.static: Path | None = None
        if phase.static and state.method.uses_static:
            self.static = folder / "labels" / phase.name.replace(" ", "-")
        height, width = settings.reporting.size
        scale = _LONGEST_SIDE / max(height, width)
        self.shown: Size = (max(1, round(height * scale)), max(1, round(width * scale)))
        # A copy, because asking a method may move its prototypes.
        self.method = copy.deepcopy(state.method).eval() if phase.adapts else None

    @torch.no_grad()
    def pictures(self, name: str, images: ImageSet, index: int) -> dict[str, ByteArray]:
        """Caption -> picture, all of one size."""
        pixels = whole_image(images, index, self.settings.reporting.size)
        # The warm-up trains the stem of the target, on source images.
        domain: Domain = "source" if name == "source" and self.phase.adapts else "target"
        logits = self.state.see(
            self.state.network, pixels.to(self.state.ranks.device), domain=domain
        )[0]
        corners = self.state.network.align_corners
        logits = F.interpolate(logits, self.shown, mode="bilinear", align_corners=corners)[0]
        hidden = torch.tensor(self.sets.masked, dtype=torch.int64, device=logits.device)
        confidence, best = logits.index_fill(0, hidden, -torch.inf).softmax(dim=0).max(dim=0)
        height, width = self.shown
        photograph = Image.fromarray(images.image(index))
        pictures = {"image": np.asarray(photograph.resize((width, height), Image.Resampling.BOX))}
        if name != "target" and images.has_labels:
            pictures["ground truth"] = self._painted(images.labels(index))
        pictures["prediction"] = self._painted(best)
        if name == "target":
            pictures |= self._pseudo_labels(images, index, pixels)
        shades = (255 * confidence).round().to(torch.uint8).cpu().numpy()
        pictures["confidence: black 0, white 1"] = grey(shades)
        return pictures

    def _painted(self, labels: Tensor | ByteArray) -> ByteArray:
        if isinstance(labels, Tensor):
            labels = labels.cpu().numpy().astype(np.uint8)
        height, width = self.shown
        sized = Image.fromarray(labels).resize((width, height), Image.Resampling.NEAREST)
        return colourise(np.asarray(sized), self.sets.classes.colours)

    def _pseudo_labels(self, images: ImageSet, index: int, pixels: Tensor) -> dict[str, ByteArray]:
        """Static labels of this round, and those that the method would use now."""
        pictures, static = {}, None
        if self.static is not None:
            with Image.open(self.static / f"{images.stems[index]}.png") as file:
                static = np.array(file)
            pictures["static labels"] = self._painted(static)
        if self.method is not None and self.method.uses_target:
            used = self._used(images, index, pixels, static)
            if used is not None:
                pictures["labels used"] = self._painted(used[0])
        return pictures

    def _used(
        self, images: ImageSet, index: int, pixels: Tensor, static: ByteArray | None
    ) -> Tensor | None:
        """Pseudo labels of the method, which sees the first source image of the panels beside."""
        if self.method is None:
            return None
        state, settings, source = self.state, self.settings, self.sets.source
        size, device = settings.reporting.size, state.ranks.device
        beside = chosen_images("source", len(source), settings.reporting.panel_ids)[0]
        partner = images.partner(index) if self.method.uses_partners else None
        part = Part(
            Batch(
                whole_image(source, beside, size), _resized(source.labels(beside), size),
                torch.tensor([beside]), None,
            ),
            Batch(
                pixels, None if static is None else _resized(static, size), torch.tensor([index]),
                None if partner is None else _floats(partner, size),
            ),
        )  # fmt: skip
        part = Part(part.source.to(device), part.target and part.target.to(device))
        step = Step(
            network=state.network, source=part.source, target=part.target,
            index=state.iteration - self.phase.stage_start, steps=self.phase.stage_count,
            round_index=self.phase.round_index or 0, part=0, seed=settings.seed, ranks=state.ranks,
            autocast=state.precision.autocast,
            counts=label_counts([part], state.class_weight, state.ranks),
            class_weight=state.class_weight,
        )  # fmt: skip
        # A method may move modules of its own, here those of the copy, by a backward pass.
        with torch.enable_grad():
            labels = self.method(step).labels
        state.network.zero_grad(set_to_none=True)
        return None if labels is None else labels.detach()


def _resized(labels: ByteArray, size: Size) -> Tensor:
    sized = Image.fromarray(labels).resize((size[1], size[0]), Image.Resampling.NEAREST)
    return torch.from_numpy(np.array(sized)).long()[None]


def _floats(pixels: ByteArray, size: Size) -> Tensor:
    sized = Image.fromarray(pixels).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(sized)).permute(2, 0, 1)[None].float() / 255
