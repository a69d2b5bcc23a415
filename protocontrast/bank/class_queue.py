"""The latest features of every class: `ClassQueue` (buffers keys, count, skipped)."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch import distributed as dist

from protocontrast.bank.buffers import WideBuffers
from protocontrast.checks import called, check_count, check_device, check_ignore_index
from protocontrast.functional.class_members import members_of, spread_out
from protocontrast.functional.maps import check_dim
from protocontrast.functional.pixels import read_checked_labels, read_features


@dataclass(frozen=True, eq=False)
class QueueSettings:
    """Of `ClassQueue`."""

    num_classes: int
    length: int
    dim: int

    def __post_init__(self) -> None:
        check_count("num_classes", self.num_classes)
        check_count("length", self.length)
        check_count("dim", self.dim)


class QueuedKeys(NamedTuple):
    """What a queue holds.

    Attributes:
        keys: (C * L, D); 0 where nothing is.
        labels: (C * L,) int64, the class, or the ignore value where nothing is.
        valid: (C * L,) bool.
    """

    keys: Tensor
    labels: Tensor
    valid: Tensor


class ClassQueue(WideBuffers):
    """The `length` latest features of every class, first in first out, equal on all ranks.

    Features may be pixels, or class means of a batch with `torch.arange(C)` as their labels. A
    feature that is not finite is left out and counted in `skipped`. `eval()` freezes nothing: a
    queue moves whenever `push` is called.

    Args:
        num_classes: C.
        length: L, features kept of each class.
        dim: D.
        process_group: ranks that share the queue. None: all, where torch.distributed is
            initialised.

    Attributes:
        keys: (C, L, D) float32; the next feature of class c goes to place count[c] % L.
        count: (C,) int64, features pushed so far.
        skipped: (C,) int64, features that were not finite.

    Raises:
        ValueError: a size below 1, or features and labels that do not fit.
        TypeError: a wrong dtype.

    Source:
        Xie et al., SePiCo, arXiv 2204.08808 (a bank of class means); Wang et al., Exploring
        Cross-Image Pixel Contrast, arXiv 2101.11939 (queues of pixels and regions).

    Example:
        >>> import torch
        >>> queue = ClassQueue(2, 2, 1)
        >>> for value in (1.0, 2.0, 3.0):
        ...     queue.push(torch.tensor([[value]]), torch.tensor([0]))
        >>> keys, labels, valid = queue.read()
        >>> keys.tolist(), labels.tolist()
        ([[3.0], [2.0], [0.0], [0.0]], [0, 0, 255, 255])
    """

    Settings = QueueSettings
    fixed = ("num_classes", "length", "dim")
    keys: Tensor
    count: Tensor
    skipped: Tensor

    @called("ClassQueue")
    def __init__(
        self,
        num_classes: int,
        length: int,
        dim: int,
        *,
        process_group: "dist.ProcessGroup | None" = None,
    ) -> None:
        super().__init__()
        self.num_classes, self.length, self.dim = num_classes, length, dim
        self.check()
        self.process_group = process_group
        self.register_buffer("keys", torch.zeros(num_classes, length, dim, dtype=torch.float32))
        self.register_buffer("count", torch.zeros(num_classes, dtype=torch.int64))
        self.register_buffer("skipped", torch.zeros(num_classes, dtype=torch.int64))

    @called("ClassQueue")
    @torch.no_grad()
    def push(
        self,
        features: Tensor,
        labels: Tensor,
        *,
        per_class: int | None = None,
        ignore_index: int = 255,
    ) -> None:
        """Append features to the queues of their classes, in order; the oldest make room.

        With torch.distributed initialised every rank must call this, with the same `per_class`,
        whatever its batch holds: the ranks' features are gathered and appended rank by rank, so
        that all queues stay equal, to those of one process that pushes the batches in turn.

        Args:
            features: (B, D, Z, H, W), (B, D, H, W), (B, D, P) or (N, D), any memory format.
            labels: (B, Z, H, W), (B, H, W), (B, P) or (N,), classes 0..C-1 or `ignore_index`.
            per_class: at most this many of each class of this rank's batch, at equal distances
                among its pixels. None: all.
            ignore_index: label of pixels without a class, outside 0..C-1.
        """
        pixels = read_features(features)
        check_dim("features", features, self.dim)
        check_device("features", features, self.keys, "the queue")
        check_ignore_index(ignore_index, self.num_classes)
        if per_class is not None:
            check_count("per_class", per_class)
        index = read_checked_labels(pixels, labels, self.num_classes, ignore_index)
        classes = index.flatten().long()
        side = max(pixels.features.shape[2], 1)
        picked = self._picked(classes, per_class, ignore_index)
        finite = torch.isfinite(pixels.features.to(self.keys.dtype)).all(dim=1).flatten()
        lost = members_of(
            torch.where(picked & ~finite, classes, ignore_index), self.num_classes, ignore_index
        ).count
        # Of more features than places the last ones stay, whatever else was pushed between them.
        members = members_of(
            torch.where(picked & finite, classes, ignore_index), self.num_classes, ignore_index
        )
        number = members.count[:, None]
        slots = torch.arange(min(self.length, per_class or self.length), device=self.keys.device)
        chosen = members.at(slots + (number - len(slots)).clamp_min(0))
        if index.numel() == 0:
            found = self.keys.new_zeros(*chosen.shape, self.dim)
        else:
            found = pixels.features.transpose(1, 2)[chosen // side, chosen % side]
        found = found.to(self.keys.dtype)
        for part, kept, skipped in self._gathered(found, members.count, lost):
            self.skipped += skipped
            self._append(part, kept)

    @called("ClassQueue")
    @torch.no_grad()
    def read(self, *, ignore_index: int = 255) -> QueuedKeys:
        """A copy of all keys, so that the queue may move on before a backward pass reads them.

        Within a class they stand in no order of age.
        """
        check_ignore_index(ignore_index, self.num_classes)
        device = self.keys.device
        valid = torch.arange(self.length, device=device) < self.count[:, None]
        classes = torch.arange(self.num_classes, device=device)[:, None]
        labels = torch.where(valid, classes, ignore_index)
        return QueuedKeys(self.keys.flatten(0, 1).clone(), labels.flatten(), valid.flatten())

    def _picked(self, classes: Tensor, per_class: int | None, ignore_index: int) -> Tensor:
        """Which pixels (N,) are pushed: all, or `per_class` of each class at equal distances."""
        number = len(classes)
        if per_class is None or per_class >= number:
            return torch.ones_like(classes, dtype=torch.bool)
        members = members_of(classes, self.num_classes, ignore_index)
        picks = members.count[:, None].clamp_max(per_class)
        slots = torch.arange(per_class, device=classes.device)
        chosen = members.at(spread_out(members.count[:, None], picks, slots))
        # What is no pick goes to a place of its own, which is dropped.
        chosen = torch.where(slots < picks, chosen, number).flatten()
        picked = torch.zeros(number + 1, dtype=torch.bool, device=classes.device)
        return picked.scatter(0, chosen, torch.ones_like(chosen, dtype=torch.bool))[:number]

    def _append(self, found: Tensor, number: Tensor) -> None:
        """Write candidates (C, K, D), in order, K <= L; the last K of `number` (C,) pushed."""
        width = found.shape[1]
        slots = torch.arange(width, device=found.device)
        first = self.count + (number - width).clamp_min(0)
        places = (first[:, None] + slots) % self.length
        into = places[:, :, None].expand_as(found)
        new = (slots < number[:, None])[:, :, None]
        # Other places are written with what they hold: each occurs once, so no write meets another.
        self.keys.scatter_(1, into, torch.where(new, found, self.keys.gather(1, into)))
        self.count += number

    def _gathered(
        self, found: Tensor, kept: Tensor, lost: Tensor
    ) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Candidates (C, K, D) and numbers (C,) of every rank, in the order of the ranks."""
        if not (dist.is_available() and dist.is_initialized()):
            return [(found, kept, lost)]
        ranks = range(dist.get_world_size(self.process_group))
        numbers = torch.stack([kept, lost])
        all_found = [torch.empty_like(found) for _ in ranks]
        all_numbers = [torch.empty_like(numbers) for _ in ranks]
        dist.all_gather(all_found, found.contiguous(), group=self.process_group)
        dist.all_gather(all_numbers, numbers, group=self.process_group)
        pairs = zip(all_found, all_numbers, strict=True)
        return [(part, number[0], number[1]) for part, number in pairs]
