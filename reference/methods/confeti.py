"""CONFETI (Li et al., CVPRW 2023): contrast with prototypes, and source images in target look."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

import protocontrast as pc
from reference.methods.activations import ActivationPrototypes
from reference.methods.dacs import DACS, Seen, cells
from reference.methods.settings import WARMUP
from reference.methods.translator import Translator
from reference.training.losses import cell_labels
from reference.training.method import Start, Step


class CONFETI(DACS):
    """DACS + 0.5 CE(v P^T / 0.1) + 2 spread + CUT + 0.1 (u_s P^T - M(u_G) P^T)^2 + presence.

    u is a 1x1 projection and v the same at unit length: of translated source, of mixed and, times
    the confident share, of target images.

    Args:
        dim: channels of the network's features.
        ramp: average the first prototypes; False, released: m = 0.99 (there 0.999) from the start.
        zero_rows: a class that was not seen has logit 0; released. False leaves it out.
        toward: sign of the spread, see `pc.spread`.

    Source:
        Li et al., Contrast, Stylize and Adapt, CVPRW 2023, arXiv 2306.09098.
    """

    def __init__(
        self, dim: int, *, ramp: bool = True, zero_rows: bool = False,
        toward: Literal["released", "uniform"] = "released",
    ) -> None:  # fmt: skip
        super().__init__()
        self.dim, self.ramp, self.zero_rows, self.toward = dim, ramp, zero_rows, toward

    def begin(self, start: Start) -> None:
        """Make the heads, the prototypes and the translator."""
        super().begin(start)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(start.seed)
            self.heads = ActivationPrototypes(self.dim, ramp=self.ramp)
            self.translate = Translator()

    def more(self, step: Step, seen: Seen) -> dict[str, Tensor]:
        """Translation, similarities, class presence and, after the warm-up, contrast."""
        random, target, warm = step.random(), step.target_batch.images, step.progress < WARMUP
        labels, heads = cell_labels(seen.mixed_labels), self.heads
        weight = cells(seen.from_source).float() if warm else None
        heads.update(self.teacher(seen.mixed_images).features, labels, weight, step.index)
        images, translation = self.translate(step.source.images, target, random)
        styled = step.network(images).features
        losses = {
            "translation": translation,
            "similarity": 0.1 * heads.similarity(seen.source.features, styled),
            "presence": heads.presence(seen.mixed.features, labels),
        }
        if not warm:
            near = self.contrast(styled, step.source_labels, random)
            near = near + self.contrast(seen.mixed.features, labels, random)
            features = step.network(target).features
            near = near + seen.share * self.contrast(features, seen.labels, random)
            losses["contrast"], losses["spread"] = near.unbind()
        return losses

    def contrast(self, features: Tensor, labels: Tensor, random: torch.Generator) -> Tensor:
        """0.5 contrast and 2 spread of 2048 cells (published: 4096, of twice as many), (2,)."""
        bank, drawn = self.heads.bank, pc.sample_pixels(labels, 2048, generator=random)
        rows = self.heads.project(features).movedim(1, -1).flatten(0, 2)[drawn.positions]
        how = (F.normalize(rows, dim=1), drawn.labels, bank.prototypes)
        known = None if self.zero_rows else bank.present
        near = pc.pixel_prototype_contrast(*how, present=known, similarity="dot")
        return torch.stack([0.5 * near, 2 * pc.spread(*how, toward=self.toward, present=known)])
