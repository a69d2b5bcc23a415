"""Confidence thresholds per class over time: `ClassThresholds` (buffer mass)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch import distributed as dist

from protocontrast.bank.buffers import WideBuffers, new_counts
from protocontrast.checks import called, check_count, check_device, check_share
from protocontrast.functional import TransferredLabels, select_labels
from protocontrast.functional.maps import check_channels
from protocontrast.functional.pixels import read_features
from protocontrast.functional.precision import widest
from protocontrast.functional.selection import most_probable

BINS = 8192
HIGHEST = 80.0
"""Log-odds of the last bin: softmax in float32 has none much above, others round to 0 there."""
PARTS = 2**16
"""What a pixel is divided into, since a momentum leaves fractions of pixels."""


@dataclass(frozen=True, eq=False)
class ThresholdsSettings:
    """Of `ClassThresholds`."""

    num_classes: int
    share: float
    cap: float
    image_share: float
    momentum: float | None

    def __post_init__(self) -> None:
        check_count("num_classes", self.num_classes)
        for name in ("share", "cap", "image_share", "momentum"):
            value = getattr(self, name)
            if value is None and name == "momentum":
                continue
            check_share(name, value)
            object.__setattr__(self, name, float(value))


class ClassThresholds(WideBuffers):
    """The confidence above which the surest share of a class's predictions lies.

    Every class keeps its own share of the pixels predicted as it, so that frequent and easy classes
    do not crowd out the others. Confidence is counted in bins of log-odds about 0.01 wide, which
    tell pixels apart whose probability rounds to 1 and which ranks can add up.

    Args:
        num_classes: C.
        share: of each class's pixels that is kept, in [0, 1], at least: bins are kept whole. 0.5 is
            the median.
        cap: a probability, in [0, 1]; no threshold is above it. 1: no cap.
        image_share: of `select`: this share of each image is kept whatever the class, in [0, 1].
        momentum: in [0, 1]. None: all pixels seen count alike. Else each class that a batch
            predicts moves, h <- momentum * h + (1 - momentum) * batch, the first time as a copy.
        process_group: ranks that share the thresholds. None: all, where torch.distributed is
            initialised.

    Attributes:
        mass: (C, bins) float64, pixels predicted as a class by their log-odds.

    Shape:
        probabilities (B, C, Z, H, W), (B, C, H, W), (B, C, P) or (N, C).

    Raises:
        ValueError: a setting out of its range, or probabilities of other classes.
        TypeError: a wrong dtype.

    Source:
        Zou et al., ECCV 2018, arXiv 1810.07911 (a share per class); median and cap 0.9 as in Xie et
        al., arXiv 2111.12358; (M15) of docs/maths.md and (P11) of docs/parts.md.

    Example:
        >>> import torch
        >>> thresholds = ClassThresholds(2, share=0.5)
        >>> probabilities = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.4, 0.6]])
        >>> thresholds.update(probabilities)
        >>> thresholds.select(probabilities).labels.tolist()
        [0, 0, 255, 1]
        >>> [round(value, 2) for value in thresholds.confidence().tolist()]
        [0.8, 0.6]
    """

    Settings = ThresholdsSettings
    fixed = ("num_classes",)
    mass: Tensor
    edges: Tensor
    counting = ("mass",)

    @called("ClassThresholds")
    def __init__(
        self,
        num_classes: int,
        *,
        share: float = 0.5,
        cap: float = 1.0,
        image_share: float = 0.0,
        momentum: float | None = None,
        process_group: "dist.ProcessGroup | None" = None,
    ) -> None:
        super().__init__()
        self.num_classes, self.momentum = num_classes, momentum
        self.share, self.cap, self.image_share = share, cap, image_share
        self.check()
        self.process_group = process_group
        # The best of C classes has at least 1/C, but for rounding.
        lowest = -math.log(max(num_classes - 1, 1))
        # Made on the host, so that they are the same everywhere.
        edges = torch.linspace(lowest, HIGHEST, BINS, dtype=torch.float64, device="cpu").float()
        edges = edges.to(torch.get_default_device())
        edges[0] = -torch.inf
        self.register_buffer("edges", edges, persistent=False)
        self.register_buffer("mass", torch.zeros(num_classes, BINS, dtype=new_counts()))

    @torch.no_grad()
    def update(self, probabilities: Tensor) -> None:
        """Count a batch; a NaN pixel is left out.

        With torch.distributed initialised every rank must call this, whatever its batch holds.
        """
        best = most_probable(self._read(probabilities))
        place = torch.bucketize(best.log_odds, self.edges, right=True) - 1
        cell = best.labels * BINS + place
        # What is NaN goes to a cell of its own, which is dropped.
        cell = torch.where(best.log_odds.isnan(), self.mass.numel(), cell).flatten()
        number = torch.zeros(self.mass.numel() + 1, dtype=torch.int64, device=self.mass.device)
        number = number.scatter_add(0, cell, torch.ones_like(cell))
        batch = self.over_ranks(number[:-1].view_as(self.mass).to(self.mass.dtype))
        if self.momentum is None:
            self.mass += batch
            return
        moved = self.momentum * self.mass + (1 - self.momentum) * batch
        known = self.mass.sum(dim=1, keepdim=True) > 0
        shown = batch.sum(dim=1, keepdim=True) > 0
        self.mass.copy_(torch.where(shown, torch.where(known, moved, batch), self.mass))

    @torch.no_grad()
    def thresholds(self) -> Tensor:
        """Least log-odds that are kept, (C,) float32.

        A class that was never predicted, or a share of 0, has the cap, or infinity without one.
        """
        # Sums of integers have one result; a GPU adds up floats in no fixed order.
        parts = (self.mass * PARTS).round().long()
        above = widest(parts.flip(1).cumsum(1).flip(1))
        total = above[:, :1]
        # A quotient, because 0.1 * 30 is above 3.
        enough = above / torch.where(total > 0, total, 1) >= self.share
        edge = self.edges[enough.sum(dim=1) - 1]
        known = (total[:, 0] > 0) & (self.share > 0)
        return torch.where(known, edge, torch.inf).clamp_max(_log_odds(self.cap))

    @torch.no_grad()
    def confidence(self) -> Tensor:
        """The same as probabilities, (C,) float32; 1 where nothing is kept."""
        return widest(self.thresholds()).sigmoid().float()

    def select(self, probabilities: Tensor, *, ignore_index: int = 255) -> TransferredLabels:
        """`select_labels` by these thresholds and `image_share`; `confidence` is in log-odds."""
        self._read(probabilities)
        return select_labels(
            probabilities,
            self.thresholds(),
            measure="log_odds",
            image_share=self.image_share,
            ignore_index=ignore_index,
        )

    @torch.no_grad()
    def reset(self) -> None:
        """Forget everything."""
        self.mass.zero_()

    @called("ClassThresholds")
    def _read(self, probabilities: Tensor) -> Tensor:
        pixels = read_features(probabilities, "probabilities")
        requirement = f"with {self.num_classes} classes"
        check_channels("probabilities", probabilities, self.num_classes, requirement)
        check_device("probabilities", probabilities, self.mass, "the counts")
        return pixels.features


def _log_odds(probability: float) -> float:
    """log p - log(1 - p), infinite at the ends."""
    if probability in (0, 1):
        return math.inf if probability else -math.inf
    return math.log(probability) - math.log1p(-probability)
