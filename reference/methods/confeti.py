"""CONFETI (Li et al., CVPRW 2023, arXiv 2306.09098): prototypes, and source in target look."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

import protocontrast as pc
from reference.methods.activations import ActivationPrototypes
from reference.methods.dacs import DACS, Seen, cells
from reference.methods.projector import pixel_rows
from reference.methods.translator import Translator, held_features
from reference.training.losses import cell_labels
from reference.training.method import Start, Step, Stepped

MIXED, WARMUP = 2000 / 80000, 3000 / 80000  # Shares of the run; released.
Toward = Literal["released", "uniform"]


class CONFETI(DACS):
    """DACS + 0.5 CE(v P^T / 0.1) + 2 spread + CUT + 0.1 (u_s P^T - M(u_G) P^T)^2 + presence.

    u is a 1x1 projection, v the same at unit length: of translated source, mixed and, times q, of
    target images. CUT and similarities move the translator, all else takes its images as given.

    Args:
        dim: channels of the network's features.
        ramp: average the first prototypes; False, released: m = 0.99 (there 0.999) from the start.
        zero_rows: a class that was not seen has logit 0; released. False leaves it out.
        toward: sign of the spread, see `pc.spread`.
    """

    def __init__(
        self, dim: int, *, ramp: bool = True, zero_rows: bool = False, toward: Toward = "released"
    ) -> None:
        super().__init__()
        self.dim, self.ramp, self.zero_rows, self.toward = dim, ramp, zero_rows, toward

    def begin(self, start: Start) -> None:
        """Make the heads, the prototypes and the translator."""
        super().begin(start)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(start.seed)
            self.heads = ActivationPrototypes(self.dim, ramp=self.ramp)
            self.translate = Translator()

    def forward(self, step: Step) -> Stepped:
        """Train on translated source images, and the translator beside."""
        styled, loss = self.translate(step.source.images, step.target_batch.images, step.random())
        done = super().forward(replace(step, source=replace(step.source, images=styled.detach())))
        near = self.heads.similarity(*held_features(step.network, step.source.images, styled))
        return replace(done, losses=done.losses | {"translation": loss, "similarity": 0.1 * near})

    def more(self, step: Step, seen: Seen) -> dict[str, Tensor]:
        """Class presence and, after the warm-up, contrast."""
        random, warm, y = step.random(), step.progress < WARMUP, cell_labels(seen.mixed_labels)
        source, mixed, heads = seen.source.features, seen.mixed.features, self.heads
        pasted = cells(seen.from_source) if warm else None
        heads.update(self.teacher(seen.mixed_images).features, y, pasted, step.index)
        late, shown = step.progress > MIXED, heads.presence(source, step.image_labels)
        shown = shown + late * heads.presence(mixed, seen.mixed_labels)
        if warm:
            return {"presence": shown}
        new = step.network(step.target_batch.images).features
        near = self.contrast(source, step.source_labels, random) + self.contrast(mixed, y, random)
        near = near + seen.share * self.contrast(new, seen.labels, random)
        return {"presence": shown, "contrast": near[0], "spread": near[1]}

    def contrast(self, features: Tensor, labels: Tensor, random: torch.Generator) -> Tensor:
        """0.5 contrast of 2048 cells (released: 4096, of twice as many), 2 spread of all; (2,)."""
        table, known = self.heads.bank.prototypes, self.heads.bank.present | self.zero_rows
        rows = pixel_rows(F.normalize(self.heads.project(features), dim=1))
        drawn, y = pc.sample_pixels(labels, 2048, generator=random)
        near = pc.pixel_prototype_contrast(rows[drawn], y, table, present=known, similarity="dot")
        even = pc.spread(rows, labels.flatten(), table, toward=self.toward, present=known)
        return torch.stack([0.5 * near, 2 * even])
