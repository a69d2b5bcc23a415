"""A network that answers with given maps, and a step of a method on them, in float64."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reference.data.batches import Batch
from reference.data.classes import IGNORE
from reference.method import Method, Start, Step
from reference.methods import entry
from reference.networks.output import Domain, Output, Segmenter
from reference.run.ranks import Ranks
from tests.reference.method_steps import given, step_of

EACH: Final = 4
"""Images of each domain: 0..3 are the source's, 4..7 the target's."""
DIM: Final = 8
CLASSES: Final = 19
GRID: Final = (3, 5)
STRIDE: Final = 4


class Answers(Segmenter):
    """Answers image n, which is n / 255 throughout, with row n of given maps.

    An image that is not of one colour, as after a strong change, is answered with `changed`.
    """

    def __init__(self, logits: Tensor, features: Tensor, changed: Tensor) -> None:
        super().__init__(feature_dim=DIM, num_classes=CLASSES, stride=STRIDE, align_corners=False)
        self.anything = nn.Parameter(torch.zeros(()).double())
        self.given = Output(logits, features)
        self.changed = changed

    def forward(self, images: Tensor, domain: Domain = "target") -> Output:
        del domain
        if (images != images[:, :1, :1, :1]).any():
            return Output(self.given.logits[: len(images)], self.changed)
        rows = (images[:, 0, 0, 0] * 255).round().long()
        return Output(self.given.logits[rows], self.given.features[rows])

    def __deepcopy__(self, memo: dict[int, Any]) -> "Answers":
        """A copy says the same, as a teacher's does, without gradient."""
        return Answers(*(maps.detach().clone() for maps in (*self.given, self.changed)))


class Exact(Step):
    """A step that leaves what a network says in float64."""

    def see(self, images: Tensor, domain: Domain = "target", by: nn.Module | None = None) -> Output:
        output: Output = (by or self.network)(images, domain=domain)
        return output


class ExactStart(Start):
    """Likewise before the first step."""

    def see(self, images: Tensor, domain: Domain = "target") -> Output:
        output: Output = self.network(images, domain=domain)
        return output


@dataclass(frozen=True)
class Example:
    """What a method begins with, and one step, which sees the images 1, 2 and 5, 7.

    The network answers with maps that are leaves; labels (EACH, h, w) are the source's on the grid.
    """

    network: Answers
    step: Step
    labels: Tensor

    def begun(self, name: str, **options: Any) -> Any:
        """A method in float64, before its first step."""
        found = entry(name)
        kind: Any = found.kind()
        method: Method = kind(given(self.network), **{**found.options, **options})
        source, target = ([drawn([i], self.labels if i < EACH else None) for i in numbers]
                          for numbers in (range(EACH), range(EACH, 2 * EACH)))  # fmt: skip
        start = ExactStart(
            self.network, lambda: iter(source), lambda: iter(target), nullcontext, Ranks()
        )
        method.double().begin(start)
        return method

    def mean_cross_entropy(self, logits: Tensor) -> Tensor:
        """Of the step's source, at the size of the images."""
        whole = F.interpolate(logits, scale_factor=STRIDE, mode="bilinear")
        return F.cross_entropy(whole, self.step.source_labels, ignore_index=IGNORE)


def drawn(rows: list[int], labels: Tensor | None) -> Batch:
    """Images by number, each of its own colour."""
    size = STRIDE * GRID[0], STRIDE * GRID[1]
    images = (torch.tensor(rows) / 255).view(-1, 1, 1, 1).expand(-1, 3, *size).clone()
    whole = None
    if labels is not None:
        whole = labels[rows].repeat_interleave(STRIDE, 1).repeat_interleave(STRIDE, 2)
    return Batch(images, whole, torch.tensor(rows), None)


def example(seed: int) -> Example:
    """Random maps; the source's predictions are right in about two cells of three."""
    random = torch.Generator().manual_seed(seed)
    shape = (2 * EACH, CLASSES, *GRID)
    logits = torch.randn(shape, generator=random, dtype=torch.float64)
    features = torch.randn((2 * EACH, DIM, *GRID), generator=random, dtype=torch.float64)
    changed = torch.randn((2, DIM, *GRID), generator=random, dtype=torch.float64)
    labels = torch.randint(0, 4, (EACH, *GRID), generator=random) * 5
    labels[torch.rand(labels.shape, generator=random) < 0.1] = IGNORE
    helped = (torch.rand(labels.shape, generator=random) < 0.65) & (labels != IGNORE)
    image, row, column = helped.nonzero(as_tuple=True)
    logits[image, labels[helped], row, column] += 8
    network = Answers(logits.requires_grad_(), features.requires_grad_(), changed.requires_grad_())
    source, target = drawn([1, 2], labels), drawn([5, 7], None)
    count = (source.labels != IGNORE).sum().double()
    step = step_of(
        network, 0, steps=10, seed=seed, kind=Exact, source=source, target=target,
        counts=(count, torch.ones(()).double()),
    )  # fmt: skip
    return Example(network, step, labels)


def pixels(maps: Tensor) -> Tensor:
    """Maps (B, K, h, w) as rows (B h w, K)."""
    return maps.movedim(1, -1).flatten(0, 2)


def image_means(maps: Tensor, labels: Tensor) -> Tensor:
    """Per class the mean over images of the mean over an image's own pixels; NaN without any."""
    rows = torch.full((CLASSES, maps.shape[1]), torch.nan).double()
    for c in range(CLASSES):
        pairs = zip(maps.detach(), labels, strict=True)
        shown = [image[:, own == c].mean(dim=1) for image, own in pairs if (own == c).any()]
        if shown:
            rows[c] = torch.stack(shown).mean(dim=0)
    return rows


def assert_same(
    ours: Tensor, restated: Tensor, leaves: Sequence[Tensor], rtol: float = 1e-9,
    atol: float = 1e-12,
) -> None:  # fmt: skip
    """Equal values and equal gradients of all leaves; a leaf that neither reads has none."""
    torch.testing.assert_close(ours, restated, rtol=rtol, atol=atol)
    mine, wanted = (
        torch.autograd.grad(loss, leaves, retain_graph=True, allow_unused=True)
        for loss in (ours, restated)
    )
    for own, naive in zip(mine, wanted, strict=True):
        if naive is None:
            assert own is None or not own.any()
            continue
        assert naive.any()
        torch.testing.assert_close(own, naive, rtol=rtol, atol=atol)
