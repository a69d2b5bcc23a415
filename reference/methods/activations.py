"""The prototypes of CONFETI: a teacher's projection where the class activation is largest."""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import protocontrast as pc
from reference.data.classes import IGNORE, NUM_CLASSES
from reference.methods.mean_teacher import mean_teacher
from reference.methods.settings import TEACHER

DIM: Final = 64
"""Channels of the projection; own (published: 512)."""
STRONGEST: Final = 32
"""Cells of a class that make its prototype; published, of pixels."""


class ActivationPrototypes(nn.Module):
    """P_c <- unit(m P_c + (1 - m) unit(sum_i a_ic u_i / sum_i a_ic)) over the 32 largest a_ic.

    u is a 1x1 projection and a = max(0, A f) the class activation, both of the teacher.

    Args:
        feature_dim: channels D of the features f.
        ramp: m = min(1 - 1 / (n + 1), 0.99) after n steps; False: m = 0.99 but for a first row.
    """

    def __init__(self, feature_dim: int, *, ramp: bool) -> None:
        super().__init__()
        self.ramp = ramp
        self.project = nn.Conv2d(feature_dim, DIM, 1, bias=False)
        self.activate = nn.Conv2d(feature_dim, NUM_CLASSES, 1, bias=False)
        self.match = nn.Conv2d(DIM, DIM, 1)
        self.slow_project = mean_teacher(self.project)
        self.slow_activate = mean_teacher(self.activate)
        self.bank = pc.PrototypeBank(NUM_CLASSES, DIM, momentum=TEACHER, normalize="prototypes")

    def presence(self, features: Tensor, labels: Tensor) -> Tensor:
        """Teach activation and features which classes images of labels (B, H, W) show."""
        counts = pc.labels_to_grid(labels, (1, 1), mode="counts", num_classes=NUM_CLASSES)
        mean = self.activate(features).mean(dim=(2, 3), keepdim=True)
        return F.binary_cross_entropy_with_logits(mean, (counts > 0).to(mean.dtype))

    def similarity(self, source: Tensor, styled: Tensor) -> Tensor:
        """Mean (M(u_styled) P^T - u_source P^T)^2; projection and the source's side are held."""
        projected = F.conv2d(styled, self.project.weight.detach())
        apart = self.match(projected) - self.project(source).detach()
        table = self.bank.prototypes
        differences = pc.prototype_logits(apart, table, similarity="dot", temperature=1.0)
        return differences.square().mean()

    @torch.no_grad()
    def update(self, features: Tensor, labels: Tensor, pasted: Tensor | None, step: int) -> None:
        """Move by the teacher's features (B, D, h, w); of `pasted` cells, all alike, if given."""
        self.slow_project.update_parameters(self.project)
        self.slow_activate.update_parameters(self.activate)
        scores = self.slow_activate(features).relu()
        if pasted is not None:
            labels, scores = labels.masked_fill(~pasted, IGNORE), torch.ones_like(scores)
        projected, weight = self.slow_project(features), strongest(scores, labels)
        mean, count = pc.class_prototypes(projected, labels, NUM_CLASSES, pixel_weight=weight)
        if self.ramp:
            self.bank.momentum = min(1 - 1 / (step + 1), TEACHER)
        self.bank.update_from(pc.ClassPrototypes(self.bank.on_scale(mean), count))


def strongest(scores: Tensor, labels: Tensor) -> Tensor:
    """Scores (B, C, h, w) of cells' own class, but 32 of each, largest then first, 0: (B, h, w)."""
    same = labels.flatten() == torch.arange(scores.shape[1])[:, None]
    own = scores.gather(1, labels.masked_fill(labels >= scores.shape[1], 0)[:, None])[:, 0]
    rows = torch.where(same, own.flatten(), -1)
    first = rows.sort(dim=1, descending=True, stable=True).indices[:, :STRONGEST]
    kept = torch.zeros_like(same).scatter_(1, first, True) & same
    return torch.where(kept.any(dim=0).view_as(labels), own, 0)
