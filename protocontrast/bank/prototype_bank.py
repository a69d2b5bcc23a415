"""Prototypes over time: `PrototypeBank` (buffers prototypes, count, present, skipped, variance)."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch import distributed as dist
from torch.nn.functional import normalize as unit_rows

from protocontrast.bank.buffers import WideBuffers, new_counts
from protocontrast.bank.moments import (
    Moments,
    averaged,
    mixed,
    read_batches,
    read_statistics,
    summed,
)
from protocontrast.checks import (
    called,
    check_choice,
    check_count,
    check_device,
    check_flag,
    check_share,
    sentence,
)
from protocontrast.functional import (
    ClassPrototypes,
    ClassStatistics,
    class_prototypes,
    class_statistics,
)
from protocontrast.functional.maps import check_dim
from protocontrast.functional.precision import smallest, widest, widest_dtype

RULES = ("ema", "cumulative", "replace")
NORMALIZE = (False, "features", "prototypes")
Rule = Literal["ema", "cumulative", "replace"]
Normalize = Literal[False, "features", "prototypes"]


@dataclass(frozen=True, eq=False)
class BankSettings:
    """Of `PrototypeBank`."""

    num_classes: int
    dim: int
    momentum: float
    rule: Rule
    normalize: Normalize
    keeps_variance: bool

    def __post_init__(self) -> None:
        check_count("num_classes", self.num_classes)
        check_count("dim", self.dim)
        check_share("momentum", self.momentum)
        check_choice("rule", self.rule, RULES)
        check_choice("normalize", self.normalize, NORMALIZE)
        check_flag("variance", self.keeps_variance)
        if self.keeps_variance and self.normalize == "prototypes":
            requirement = 'to be False with normalize="prototypes"'
            hint = 'rows of unit length are no means; normalize="features" has a variance.'
            raise ValueError(sentence("variance", requirement, self.keeps_variance, hint))
        object.__setattr__(self, "momentum", float(self.momentum))


class BankState(NamedTuple):
    """What an update changes: the buffers of these names."""

    prototypes: Tensor
    count: Tensor  # type: ignore[assignment]  # shadows tuple.count
    present: Tensor
    skipped: Tensor
    variance: Tensor | None


class PrototypeBank(WideBuffers):
    """Moving class prototypes, equal on all ranks, exact over save and load.

        p_c <- momentum * p_c + (1 - momentum) * mean_c        for classes of the batch

    `momentum` weighs the OLD value (torch's BatchNorm means the opposite). The first batch that
    holds a class is copied; classes that are absent stay bit-identical; a class whose batch mean is
    not finite keeps its value and is counted in `skipped`. With `variance` the bank also holds how
    far the features of each class lie from its prototype: that of the mixture in which the batch
    has the weight it has in the prototype,

        S_c <- (1 - a) S_c + a V_c + a (1 - a) (mean_c - p_c)^2,    a = 1 - momentum under "ema",

    which under "cumulative" is the variance over everything seen. `eval()` freezes nothing: a bank
    moves whenever it is updated, unless a `BiCL` in eval holds it.

    Args:
        num_classes: C.
        dim: D.
        momentum: in [0, 1], of the rule "ema".
        rule: "ema" as above; "cumulative", the mean over everything seen, weighted by counts;
            "replace".
        normalize: False; "features" averages features of unit length; "prototypes" renormalises
            each row after its update.
        variance: keep a variance per class and channel; not with normalize="prototypes", whose rows
            are no means.
        process_group: ranks that share the bank. None: all, where torch.distributed is initialised.

    Attributes:
        prototypes: (C, D) float32, zero rows for classes never seen.
        count: (C,) float64, summed counts of all batches that were used.
        present: (C,) bool, the class has a prototype.
        skipped: (C,) int64, batches whose mean or variance was not finite.
        variance: (C, D) float32 and >= 0, zero rows for classes never seen; None without it.

    Shape:
        features and labels as in `class_prototypes`.

    Raises:
        ValueError: a size below 1, a momentum outside [0, 1], an unknown rule, or statistics of
            another shape.
        TypeError: statistics without a variance for a bank that keeps it, or the reverse.

    Source:
        (M9) of docs/maths.md; (D2) of docs/distributions.md for the variance.

    Example:
        >>> import torch
        >>> bank = PrototypeBank(2, 1, momentum=0.9)
        >>> _ = bank.update(torch.tensor([[10.0]]), torch.tensor([0]))
        >>> _ = bank.update(torch.tensor([[20.0]]), torch.tensor([0]))
        >>> bank.prototypes.tolist(), bank.present.tolist()
        ([[11.0], [0.0]], [True, False])
    """

    Settings = BankSettings
    fixed = ("num_classes", "dim", "keeps_variance")
    prototypes: Tensor
    count: Tensor
    present: Tensor
    skipped: Tensor
    pending_sum: Tensor
    pending_count: Tensor
    variance: Tensor | None
    pending_square: Tensor | None
    counting = ("count", "pending_sum", "pending_count", "pending_square")

    @called("PrototypeBank")
    def __init__(
        self,
        num_classes: int,
        dim: int,
        *,
        momentum: float = 0.99,
        rule: Rule = "ema",
        normalize: Normalize = False,
        variance: bool = False,
        process_group: "dist.ProcessGroup | None" = None,
    ) -> None:
        super().__init__()
        self.num_classes, self.dim = num_classes, dim
        self.momentum, self.rule, self.normalize = momentum, rule, normalize
        self.keeps_variance = variance
        self.check()
        self.process_group = process_group
        self.register_buffer("prototypes", torch.zeros(num_classes, dim, dtype=torch.float32))
        wide = new_counts()
        self.register_buffer("count", torch.zeros(num_classes, dtype=wide))
        self.register_buffer("present", torch.zeros(num_classes, dtype=torch.bool))
        self.register_buffer("skipped", torch.zeros(num_classes, dtype=torch.int64))
        self.register_buffer("pending_sum", torch.zeros(num_classes, dim, dtype=wide))
        self.register_buffer("pending_count", torch.zeros(num_classes, dtype=wide))
        spread = torch.zeros(num_classes, dim, dtype=torch.float32) if variance else None
        self.register_buffer("variance", spread)
        self.register_buffer(
            "pending_square", None if spread is None else torch.zeros_like(spread, dtype=wide)
        )

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        return super().extra_repr() + ("" if self.variance is None else ", variance=True")

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
        return self.update_from(self._statistics(features, labels, pixel_weight, ignore_index))

    @torch.no_grad()
    def update_from(self, stats: ClassPrototypes | ClassStatistics) -> ClassPrototypes:
        """Move the bank towards given class means, and variances where it keeps them.

        With torch.distributed initialised every rank must call this, whatever its batch holds: sums
        and counts are all-reduced, so that ranks equal one process on their union.

        Args:
            stats: mean (C, D) with count (C,), or (B, C, D) with (B, C), where each image that
                holds the class then counts once; of `class_statistics` for a bank with variance.

        Returns:
            The all-reduced class means (C, D) and counts (C,) that the bank was moved by.
        """
        state, shared = self.moved_by(stats)
        self.take(state)
        return shared

    @torch.no_grad()
    def moved_by(
        self, stats: ClassPrototypes | ClassStatistics
    ) -> tuple[BankState, ClassPrototypes]:
        """What `update_from` would make of the bank, which stays as it is, and would return."""
        return self.moved_by_moments(self._read(stats))

    def moved_by_moments(self, stats: Moments) -> tuple[BankState, ClassPrototypes]:
        """The same from statistics that have been checked and have no gradient."""
        shared = self.shared(stats)
        return self._after(shared), ClassPrototypes(shared.mean, shared.count)

    @torch.no_grad()
    def take(self, state: BankState) -> None:
        """Go on from a state that `moved_by` gave."""
        for name, new in zip(BankState._fields, state, strict=True):
            if new is not None:
                getattr(self, name).copy_(new)

    @property
    def state(self) -> BankState:
        """The buffers themselves."""
        # Looked up where they are: a module searches for each attribute, which a step would feel.
        # What a user put in a buffer's place, such as a parameter, is an attribute alone.
        held: list[Any] = []
        for name in BankState._fields:
            held.append(self._buffers[name] if name in self._buffers else getattr(self, name))
        return BankState(*held)

    @torch.no_grad()
    def accumulate(self, stats: ClassPrototypes | ClassStatistics) -> None:
        """Keep a micro-batch for `commit`; local to the rank."""
        part = summed(self._read(stats))
        self.pending_sum += part.mean
        self.pending_count += part.count
        if self.pending_square is not None and part.variance is not None:
            self.pending_square += part.variance

    @torch.no_grad()
    def commit(self) -> ClassPrototypes:
        """Update from all accumulated micro-batches as from one batch of their union."""
        pending = Moments(self.pending_sum, self.pending_count, self.pending_square)
        shared = self.shared(averaged(pending))
        self.take(self._after(shared))
        for buffer in pending:
            if buffer is not None:
                buffer.zero_()
        return ClassPrototypes(shared.mean, shared.count)

    @torch.no_grad()
    def fit(
        self, batches: Iterable[tuple[Tensor, Tensor]], *, ignore_index: int = 255
    ) -> "PrototypeBank":
        """Reset to the exact mean, and variance, over all (features, labels) pairs of an iterable.

        The bank stays as it was where a batch is refused.
        """
        square = self.pending_square
        whole = Moments(
            torch.zeros_like(self.pending_sum),
            torch.zeros_like(self.pending_count),
            None if square is None else torch.zeros_like(square),
        )
        for features, labels in read_batches(batches):
            part = summed(self._read(self._statistics(features, labels, None, ignore_index)))
            for total, more in zip(whole, part, strict=True):
                if total is not None and more is not None:
                    total += more
        shared = self.shared(averaged(whole))
        self.reset()
        self.take(self._after(shared))
        return self

    def on_scale(self, rows: Tensor) -> Tensor:
        """Rows (C, D) as this bank keeps them: of unit length under normalize="prototypes"."""
        if self.normalize != "prototypes":
            return rows
        # In float64 the square of no float32 vanishes, so only a zero row keeps its length.
        rows = widest(rows)
        if rows.dtype != torch.float64:
            largest = rows.abs().amax(dim=1, keepdim=True)
            rows = rows / torch.where(largest == 0, 1, largest)
        return unit_rows(rows, dim=1, eps=smallest(rows))

    def _statistics(
        self, features: Tensor, labels: Tensor, pixel_weight: Tensor | None, ignore_index: int
    ) -> ClassPrototypes | ClassStatistics:
        take = class_prototypes if self.variance is None else class_statistics
        stats = take(
            features,
            labels,
            self.num_classes,
            pixel_weight=pixel_weight,
            normalize=self.normalize == "features",
            ignore_index=ignore_index,
        )
        self._check_fit(features)
        return stats

    @called("PrototypeBank")
    def _check_fit(self, features: Tensor) -> None:
        check_dim("features", features, self.dim)
        check_device("features", features, self.prototypes, "the bank")

    def _read(self, stats: ClassPrototypes | ClassStatistics) -> Moments:
        return read_statistics(stats, self.prototypes, self.variance is not None)

    def shared(self, stats: Moments) -> Moments:
        """The same of all ranks, from statistics that have been checked and have no gradient."""
        if not (dist.is_available() and dist.is_initialized()):
            return stats
        total, count, square = summed(stats)
        parts = [total, count[:, None]] if square is None else [total, count[:, None], square]
        packed = torch.cat(parts, dim=1)
        dist.all_reduce(packed, group=self.process_group)
        rest = packed[:, self.dim + 1 :]
        shared = averaged(
            Moments(packed[:, : self.dim], packed[:, self.dim], None if square is None else rest)
        )
        return Moments(
            shared.mean.to(stats.mean.dtype), shared.count.to(stats.count.dtype), shared.variance
        )

    def _after(self, stats: Moments) -> BankState:
        """The state once all-reduced statistics have moved it."""
        wide = widest_dtype(self.prototypes.device)
        mean, count = stats.mean.to(wide), stats.count.to(wide)
        touched = count > 0
        finite = torch.isfinite(mean.to(self.prototypes.dtype)).all(dim=1) & torch.isfinite(count)
        spread = stats.variance
        if spread is not None:
            spread = spread.to(wide)
            finite &= torch.isfinite(spread.to(self.prototypes.dtype)).all(dim=1)
        skipped = self.skipped + ((touched | ~torch.isfinite(count)) & ~finite)
        used = touched & finite
        # Where a row is not used its batch value may be NaN, which no arithmetic below may meet.
        mean = torch.where(used[:, None], mean, 0)
        count = torch.where(used, count, 0)
        old = self.prototypes.to(wide)
        if self.rule == "ema":
            share = torch.full_like(count, 1 - self.momentum)[:, None]
            moved = self.momentum * old + (1 - self.momentum) * mean
        elif self.rule == "cumulative":
            share = (count / (self.count + count).clamp_min(smallest(count)))[:, None]
            moved = old + share * (mean - old)
        else:
            share = torch.ones_like(count)[:, None]
            moved = mean
        new = torch.where(self.present[:, None], moved, mean)
        new = self.on_scale(new).to(self.prototypes.dtype)
        variance = self.variance
        if variance is not None and spread is not None:
            spread = torch.where(used[:, None], spread, 0)
            share = torch.where(self.present[:, None], share, 1)
            wider = mixed(variance.to(wide), spread, mean - old, share).to(variance.dtype)
            variance = torch.where(used[:, None], wider, variance)
        return BankState(
            torch.where(used[:, None], new, self.prototypes),
            self.count + count,
            self.present | used,
            skipped,
            variance,
        )
