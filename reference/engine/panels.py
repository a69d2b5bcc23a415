"""Pictures and prototypes that a run keeps while it goes on, always of the same images.

Nothing here changes what is trained: the network is read without gradient and in evaluation mode,
the prototypes are not moved.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor

import protocontrast as pc
from reference.atomic import write_atomically
from reference.data.classes import ByteArray
from reference.data.picture_files import decode_ids
from reference.data.readers import FileReader
from reference.data.resizing import Size, resize_image, resize_labels
from reference.engine.domains import RunDomains
from reference.engine.phases import Phase, phases
from reference.engine.pseudo_label_files import labels_folder
from reference.engine.settings import Settings
from reference.engine.state import RunState
from reference.engine.validation import protocol_of
from reference.networks.output import Domain, Output
from reference.networks.toy import unit_range
from reference.pictures.strip_files import FOLDER, StripFile, grey, strip_png
from reference.pictures.visualise import colourise, spread_indices

PROTOTYPES: Final = "prototypes"
_LONGEST_SIDE: Final = 384
_PER_SET: Final = 2


def chosen_images(name: str, count: int, wanted: tuple[int, ...]) -> list[int]:
    """Return the numbers of the images of a set that panels show.

    Args:
        name: of the set.
        count: images in it.
        wanted: numbers from the settings; none takes two, evenly spaced.

    Raises:
        ValueError: the set has no such image.
    """
    for number in wanted:
        if number >= count:
            raise ValueError(
                f"train: expected reporting.panel_ids below {count}, the number of {name} images, "
                f"got {number}."
            )
    return list(wanted) or spread_indices(count, _PER_SET)


def write_prototypes(run: Path, iteration: int, bicl: pc.BiCL) -> None:
    """Keep prototypes and bias as they stand, a few kilobytes, for the report's picture."""
    state = {name: value.cpu().contiguous() for name, value in bicl.state_dict().items()}
    write_atomically(run / PROTOTYPES / f"{iteration:08d}.safetensors", save(state))


class RunPanels:
    """Draws what the network sees in a few images of every set of a run.

    Args:
        run: folder of the run; the files lie in ``panels/`` and ``prototypes/`` below it.
        settings: of the run.
        domains: the images. Target training images are opened only in a mode that trains on them,
            validation images only where the run evaluates.

    Raises:
        ValueError: a set has no image of a number that was asked for.
    """

    def __init__(self, run: Path, settings: Settings, domains: RunDomains) -> None:
        self.run, self.settings = run, settings
        readers: dict[str, FileReader] = {"source": domains.source}
        if settings.mode != "source-only":
            readers["target"] = domains.target
        if settings.reporting.evaluate:
            readers["validation"] = domains.validation
        self.readers = readers
        self.chosen = {
            name: chosen_images(name, len(reader), settings.reporting.panel_ids)
            for name, reader in readers.items()
        }
        self.protocol = protocol_of(settings)
        height, width = settings.reporting.size
        scale = _LONGEST_SIDE / max(height, width)
        self.shown: Size = (max(1, round(height * scale)), max(1, round(width * scale)))
        # Prototypes at the start of adaptation: after enough steps to be averages.
        adapting = [phase for phase in phases(settings) if phase.adapts]
        self._early = None
        if adapting:
            self._early = min(adapting[0].start + settings.reporting.every, adapting[0].stop)

    def due(self, iteration: int) -> bool:
        """Whether panels are drawn after so many steps, beside the last."""
        return iteration % self.settings.reporting.panels_every == 0 or iteration == self._early

    def __call__(self, state: RunState, phase: Phase) -> None:
        """Draw every panel, and keep the prototypes.

        Args:
            state: of the run.
            phase: that its last step belonged to.

        Raises:
            ValueError: an image is broken.
        """
        bicl = state.bicl if phase.adapts else None
        training = state.network.training
        state.network.eval()
        try:
            for name, reader in self.readers.items():
                for index in self.chosen[name]:
                    strip = StripFile(
                        name,
                        index,
                        reader.stems[index],
                        state.iteration,
                        phase.name,
                        self._pictures(name, index, state, phase),
                    )
                    path = self.run / FOLDER / strip.place
                    write_atomically(path, strip_png(strip, self.protocol.classes))
        finally:
            state.network.train(training)
        if bicl is not None:
            write_prototypes(self.run, state.iteration, bicl)

    @torch.no_grad()
    def _read(self, pixels: ByteArray, domain: Domain, state: RunState) -> Output:
        device = next(state.network.parameters()).device
        stored = torch.from_numpy(resize_image(pixels, self.settings.reporting.size).copy())
        images = unit_range(stored.permute(2, 0, 1)[None].to(device))
        with state.precision.autocast():
            output = state.network(images, domain=domain)
        return Output(output.logits.float(), output.features.float())

    def _pictures(
        self, name: str, index: int, state: RunState, phase: Phase
    ) -> dict[str, ByteArray]:
        reader = self.readers[name]
        pixels = reader.image(index)
        # The warm-up trains the stem of the target, on source images.
        domain: Domain = "source" if name == "source" and phase.adapts else "target"
        output = self._read(pixels, domain, state)
        logits = F.interpolate(
            output.logits, self.shown, mode="bilinear", align_corners=state.network.align_corners
        )[0]
        masked = torch.tensor(self.protocol.masked, dtype=torch.int64, device=logits.device)
        confidence, best = logits.index_fill(0, masked, -torch.inf).softmax(dim=0).max(dim=0)
        found = {"image": resize_image(pixels, self.shown), "prediction": _painted(best)}
        if reader.has_labels:
            found["ground truth"] = colourise(resize_labels(reader.labels(index), self.shown))
        if name == "target":
            static = self._static(index, phase)
            if static is not None:
                found["static labels"] = colourise(resize_labels(static, self.shown))
            if state.bicl is not None and phase.adapts:
                found["labels of the contrast"] = self._hybrid(output.features, static, state)
        shades = (255 * confidence).round().to(torch.uint8).cpu().numpy()
        found["confidence: black 0, white 1"] = grey(shades)
        return found

    def _static(self, index: int, phase: Phase) -> ByteArray | None:
        """The image's static labels of this round."""
        if not phase.static:
            return None
        path = labels_folder(self.run, phase) / f"{self.readers['target'].stems[index]}.png"
        return decode_ids("train", path, ("L",))

    @torch.no_grad()
    def _hybrid(self, features: Tensor, static: ByteArray | None, state: RunState) -> ByteArray:
        """Labels that the contrast would use: static where there are any, else dynamic."""
        bicl, source = state.bicl, self.readers["source"]
        if bicl is None:
            raise RuntimeError("RunPanels: expected a run with contrast, got one without.")
        # Labels of the target do not depend on which source image stands beside it.
        beside = self.chosen["source"][0]
        seen = self._read(source.image(beside), "source", state).features
        labels = resize_labels(source.labels(beside), self.settings.reporting.size)
        fixed = None if static is None else _as_labels(static, features)
        told = bicl(seen, _as_labels(labels, features), features, fixed, update=False)
        ids = told.target_labels[0].cpu().numpy().astype(np.uint8)
        return colourise(resize_labels(ids, self.shown))


def _painted(labels: Tensor) -> ByteArray:
    return colourise(labels.cpu().numpy().astype(np.uint8))


def _as_labels(labels: ByteArray, beside: Tensor) -> Tensor:
    return torch.from_numpy(labels.copy()).long()[None].to(beside.device)
