"""Prototypes over time: `PrototypeBank` (buffers prototypes, count, present, skipped)."""

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor
from torch import distributed as dist
from torch.nn.functional import normalize as unit_rows

from protocontrast.bank.buffers import WideBuffers
from protocontrast.checks import (
    check_choice,
    check_count,
    check_device,
    check_floating,
    check_shape,
    check_share,
    sentence,
)
from protocontrast.functional import ClassPrototypes, class_prototypes

RULES = ("ema", "cumulative", "replace")
NORMALIZE = (False, "features", "prototypes")
SMALLEST = 1e-300
"""A divisor that no float64 count or length above 0 is below."""

Rule = Literal["ema", "cumulative", "replace"]
Normalize = Literal[False, "features", "prototypes"]


class PrototypeBank(WideBuffers):
    """Moving class prototypes, equal on all ranks, exact over save and load.

        p_c <- momentum * p_c + (1 - momentum) * mean_c        for classes of the batch

    `momentum` weighs the OLD value (torch's BatchNorm means the opposite). The first batch that
    holds a class is copied; classes that are absent stay bit-identical; a class whose batch mean is
    not finite keeps its value and is counted in `skipped`.

    Args:
        num_classes: C.
        dim: D.
        momentum: in [0, 1], of the rule "ema".
        rule: "ema" as above; "cumulative", the mean over everything seen, weighted by counts;
            "replace".
        normalize: False; "features" averages features of unit length; "prototypes" renormalises
            each row after its update.
        process_group: ranks that share the bank. None: all, where torch.distributed is initialised.

    Attributes:
        prototypes: (C, D) float32, zero rows for classes never seen.
        count: (C,) float64, summed counts of all batches that were used.
        present: (C,) bool, the class has a prototype.
        skipped: (C,) int64, batches whose mean was not finite.

    Shape:
        features and labels as in `class_prototypes`.

    Raises:
        ValueError: a size below 1, a momentum outside [0, 1], an unknown rule, or statistics of
            another shape.

    Source:
        (M9) of docs/maths.md.

    Example:
        >>> import torch
        >>> bank = PrototypeBank(2, 1, momentum=0.9)
        >>> _ = bank.update(torch.tensor([[10.0]]), torch.tensor([0]))
        >>> _ = bank.update(torch.tensor([[20.0]]), torch.tensor([0]))
        >>> bank.prototypes.tolist(), bank.present.tolist()
        ([[11.0], [0.0]], [True, False])
    """

    prototypes: Tensor
    count: Tensor
    present: Tensor
    skipped: Tensor
    pending_sum: Tensor
    pending_count: Tensor
    counting = ("count", "pending_sum", "pending_count")

    def __init__(
        self,
        num_classes: int,
        dim: int,
        *,
        momentum: float = 0.99,
        rule: Rule = "ema",
        normalize: Normalize = False,
        process_group: "dist.ProcessGroup | None" = None,
    ) -> None:
        super().__init__()
        check_count("PrototypeBank", "num_classes", num_classes)
        check_count("PrototypeBank", "dim", dim)
        check_share("PrototypeBank", "momentum", momentum)
        check_choice("PrototypeBank", "rule", rule, RULES)
        check_choice("PrototypeBank", "normalize", normalize, NORMALIZE)
        self.num_classes = num_classes
        self.dim = dim
        self.momentum = momentum
        self.rule = rule
        self.normalize = normalize
        self.process_group = process_group
        self.register_buffer("prototypes", torch.zeros(num_classes, dim))
        self.register_buffer("count", torch.zeros(num_classes, dtype=torch.float64))
        self.register_buffer("present", torch.zeros(num_classes, dtype=torch.bool))
        self.register_buffer("skipped", torch.zeros(num_classes, dtype=torch.int64))
        self.register_buffer("pending_sum", torch.zeros(num_classes, dim, dtype=torch.float64))
        self.register_buffer("pending_count", torch.zeros(num_classes, dtype=torch.float64))

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        return (
            f"{self.num_classes}, {self.dim}, momentum={self.momentum}, rule={self.rule!r}, "
            f"normalize={self.normalize!r}"
        )

    @torch.no_grad()
    def update(
        self,
        features: Tensor,
        labels: Tensor,
        *,
        pixel_weight: Tensor | None = None,
        ignore_index: int = 255,
    ) -> ClassPrototypes:
        """`update_from` the class means of a batch."""
        return self.update_from(
            class_prototypes(
                features,
                labels,
                self.num_classes,
                pixel_weight=pixel_weight,
                normalize=self.normalize == "features",
                ignore_index=ignore_index,
            )
        )

    @torch.no_grad()
    def update_from(self, stats: ClassPrototypes) -> ClassPrototypes:
        """Move the bank towards given class means.

        With torch.distributed initialised every rank must call this, whatever its batch holds: sums
        and counts are all-reduced, so that ranks equal one process on their union.

        Args:
            stats: mean (C, D) with count (C,), or (B, C, D) with (B, C), where each image that
                holds the class then counts once.

        Returns:
            The all-reduced class means (C, D) and counts (C,) that the bank was moved by.
        """
        shared = self._share(self._flatten(stats))
        self._absorb(shared)
        return shared

    @torch.no_grad()
    def accumulate(self, stats: ClassPrototypes) -> None:
        """Keep a micro-batch for `commit`; local to the rank."""
        total, count = self._weighted(self._flatten(stats))
        self.pending_sum += total
        self.pending_count += count

    @torch.no_grad()
    def commit(self) -> ClassPrototypes:
        """Update from all accumulated micro-batches as from one batch of their union."""
        shared = self.update_from(self._pooled(self.pending_sum, self.pending_count))
        self.pending_sum.zero_()
        self.pending_count.zero_()
        return shared

    @torch.no_grad()
    def fit(
        self, batches: Iterable[tuple[Tensor, Tensor]], *, ignore_index: int = 255
    ) -> "PrototypeBank":
        """Reset to the exact mean over all (features, labels) pairs of an iterable.

        The bank stays as it was where a batch is refused.
        """
        total, number = torch.zeros_like(self.pending_sum), torch.zeros_like(self.pending_count)
        units = self.normalize == "features"
        for features, labels in batches:
            stats = class_prototypes(
                features, labels, self.num_classes, normalize=units, ignore_index=ignore_index
            )
            part, count = self._weighted(self._flatten(stats))
            total += part
            number += count
        self.reset()
        self.update_from(self._pooled(total, number))
        return self

    def on_scale(self, rows: Tensor) -> Tensor:
        """Rows (C, D) as this bank keeps them: of unit length under normalize="prototypes"."""
        if self.normalize != "prototypes":
            return rows
        # In float64 the square of no float32 vanishes, so only a zero row keeps its length.
        return unit_rows(rows.double(), dim=1, eps=SMALLEST)

    @torch.no_grad()
    def reset(self) -> None:
        """Forget everything."""
        for buffer in self.buffers(recurse=False):
            buffer.zero_()

    def _flatten(self, stats: ClassPrototypes) -> ClassPrototypes:
        if not isinstance(stats, tuple) or len(stats) != 2:
            requirement = "to be ClassPrototypes(mean, count)"
            got = type(stats).__name__
            raise TypeError(sentence("PrototypeBank", "stats", requirement, got))
        mean, count = stats
        check_floating("PrototypeBank", "stats.mean", mean)
        check_floating("PrototypeBank", "stats.count", count)
        images = (mean.shape[0],) if mean.dim() == 3 else ()
        reason = f"for a bank of {self.num_classes} classes and dim {self.dim}"
        hint = "use the bank built for these features."
        check_shape(
            "PrototypeBank", "stats.mean", mean, (*images, self.num_classes, self.dim), reason, hint
        )
        expected = (*images, self.num_classes)
        check_shape("PrototypeBank", "stats.count", count, expected, "like stats.mean")
        check_device("PrototypeBank", "stats.mean", mean, self.prototypes, "the bank")
        check_device("PrototypeBank", "stats.count", count, self.prototypes, "the bank")
        if not images:
            return ClassPrototypes(mean.detach(), count.detach())
        seen = (count > 0).to(mean.dtype)
        total = torch.where(seen[..., None] > 0, mean, 0).sum(dim=0)
        number = seen.sum(dim=0)
        return ClassPrototypes(total / number.clamp_min(1)[:, None], number)

    def _share(self, stats: ClassPrototypes) -> ClassPrototypes:
        if not (dist.is_available() and dist.is_initialized()):
            return stats
        total, count = self._weighted(stats)
        packed = torch.cat([total, count[:, None]], dim=1)
        dist.all_reduce(packed, group=self.process_group)
        shared = self._pooled(packed[:, :-1], packed[:, -1])
        return ClassPrototypes(shared.mean.to(stats.mean.dtype), shared.count.to(stats.count.dtype))

    def _weighted(self, stats: ClassPrototypes) -> ClassPrototypes:
        """Sums in place of means, float64; 0 where the count is 0, whatever the mean holds."""
        count = stats.count.double()
        total = stats.mean.double() * count[:, None]
        return ClassPrototypes(torch.where(count[:, None] > 0, total, 0), count)

    def _pooled(self, total: Tensor, count: Tensor) -> ClassPrototypes:
        mean = total / torch.where(count > 0, count, 1)[:, None]
        return ClassPrototypes(mean, count.clone())

    def _absorb(self, stats: ClassPrototypes) -> None:
        mean, count = stats.mean.double(), stats.count.double()
        touched = count > 0
        finite = torch.isfinite(mean.to(self.prototypes.dtype)).all(dim=1) & torch.isfinite(count)
        self.skipped += (touched | ~torch.isfinite(count)) & ~finite
        used = touched & finite
        # Where a row is not used its batch value may be NaN, which no arithmetic below may meet.
        mean = torch.where(used[:, None], mean, 0)
        count = torch.where(used, count, 0)
        old = self.prototypes.double()
        if self.rule == "ema":
            moved = self.momentum * old + (1 - self.momentum) * mean
        elif self.rule == "cumulative":
            share = (count / (self.count + count).clamp_min(SMALLEST))[:, None]
            moved = old + share * (mean - old)
        else:
            moved = mean
        new = torch.where(self.present[:, None], moved, mean)
        new = self.on_scale(new).to(self.prototypes.dtype)
        self.prototypes.copy_(torch.where(used[:, None], new, self.prototypes))
        self.count += count
        self.present |= used
