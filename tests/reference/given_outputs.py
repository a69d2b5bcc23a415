"""A network that answers with given maps, and a step of a method on them, in float64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from reference.data.arrays import ArrayDomain
from reference.data.classes import IGNORE, NUM_CLASSES
from reference.data.transforms import Batch
from reference.methods.dacs import at_image_size
from reference.networks.output import Domain, Output
from reference.networks.toy import STRIDE, SegmentationNetwork
from reference.training.method import Start, Step

EACH: Final = 4
"""Images of each domain: 0..3 are the source's, 4..7 the target's."""
DIM: Final = 8
GRID: Final = (3, 5)


class Given(SegmentationNetwork):
    """Answers image n, which is n / 255 throughout, with row n of given maps.

    An image that is not of one colour, as after a strong change, is answered with `changed`. A head
    that takes the place of the first one makes the logits.
    """

    def __init__(self, logits: Tensor, features: Tensor, changed: Tensor) -> None:
        super().__init__(stem_width=8, near_width=8, far_width=8, dilations=(), feature_dim=DIM)
        self.first = self.head
        self.given = Output(logits, features)
        self.changed = changed

    def forward(self, images: Tensor, domain: Domain = "target") -> Output:
        del domain
        if (images != images[:, :1, :1, :1]).any():
            return Output(self.given.logits[: len(images)], self.changed)
        rows = (images[:, 0, 0, 0] * 255).round().long()
        logits, features = self.given.logits[rows], self.given.features[rows]
        return Output(logits if self.head is self.first else self.head(features), features)


@dataclass(frozen=True)
class Example:
    """What a method begins with, and one step of two images of either domain.

    Args:
        network: answers with maps that are leaves.
        start, step: for `begin` and `forward`; the step sees the images 1, 2 and 5, 7.
        labels: of the source images on the grid, (EACH, h, w).
    """

    network: Given
    start: Start
    step: Step
    labels: Tensor


def plain(first: int, count: int) -> Tensor:
    """Images first..first + count - 1 as stored, each of its own colour."""
    numbers = torch.arange(first, first + count, dtype=torch.uint8)
    height, width = GRID
    return numbers.view(-1, 1, 1, 1).expand(-1, 3, STRIDE * height, STRIDE * width).clone()


def drawn(domain: ArrayDomain, rows: list[int]) -> Batch:
    indices = torch.tensor(rows)
    labels = None if domain.labels is None else domain.labels[indices].long()
    return Batch(domain.images[indices] / 255, labels, indices, torch.tensor([False, False]))


def example(seed: int) -> Example:
    """Random maps; the source's predictions are right in about two cells of three."""
    random = torch.Generator().manual_seed(seed)
    shape = (2 * EACH, NUM_CLASSES, *GRID)
    logits = torch.randn(shape, generator=random, dtype=torch.float64)
    features = torch.randn((2 * EACH, DIM, *GRID), generator=random, dtype=torch.float64)
    changed = torch.randn((2, DIM, *GRID), generator=random, dtype=torch.float64)
    labels = torch.randint(0, 4, (EACH, *GRID), generator=random) * 5
    labels[torch.rand(labels.shape, generator=random) < 0.1] = IGNORE
    helped = (torch.rand(labels.shape, generator=random) < 0.65) & (labels != IGNORE)
    image, row, column = helped.nonzero(as_tuple=True)
    logits[image, labels[helped], row, column] += 8
    network = Given(logits.requires_grad_(), features.requires_grad_(), changed.requires_grad_())
    stored = at_image_size(labels).to(torch.uint8)
    source = ArrayDomain(plain(0, EACH), stored, ("",) * EACH)
    target = ArrayDomain(plain(EACH, EACH), None, ("",) * EACH)
    step = Step(
        network=network,
        source=drawn(source, [1, 2]),
        target=drawn(target, [1, 3]),
        index=0,
        steps=10,
        round_index=0,
        starts_round=True,
        seed=seed,
        full_resolution=False,
        target_images=target.images,
    )
    return Example(network, Start(network, source, target.images, seed), step, labels)


def pixels(maps: Tensor) -> Tensor:
    """Maps (B, K, h, w) as rows (B h w, K)."""
    return maps.movedim(1, -1).flatten(0, 2)


def assert_same(ours: Tensor, restated: Tensor, leaves: list[Tensor]) -> None:
    """Equal values and equal gradients of all leaves; a leaf that neither reads has none."""
    torch.testing.assert_close(ours, restated, rtol=1e-9, atol=1e-12)
    found = torch.autograd.grad(ours, leaves, retain_graph=True, allow_unused=True)
    wanted = torch.autograd.grad(restated, leaves, retain_graph=True, allow_unused=True)
    for mine, naive in zip(found, wanted, strict=True):
        if naive is None:
            assert mine is None or not mine.any()
            continue
        assert mine is not None
        assert naive.any()
        torch.testing.assert_close(mine, naive, rtol=1e-9, atol=1e-12)
