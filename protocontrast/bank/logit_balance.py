"""Logits of all classes on one distribution: `LogitBalance` (tables, anchors, counts)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch import distributed as dist

from protocontrast.bank import mixtures
from protocontrast.bank.buffers import WideBuffers
from protocontrast.bank.mixtures import Kinds, Mixtures, fit_anchors, fit_classes, kinds_of
from protocontrast.checks import (
    called,
    check_choice,
    check_count,
    check_device,
    check_factor,
    check_ignore_index,
    check_integer_number,
    check_share,
)
from protocontrast.functional.class_members import members_of, spread_out
from protocontrast.functional.maps import check_channels
from protocontrast.functional.pixels import Pixels, read_checked_labels, read_features
from protocontrast.functional.precision import widest

DOMAINS = ("source", "target")
TILE = 2**18
"""Logits of a tile, so that what is worked out for each stays small."""

Domain = Literal["source", "target"]


@dataclass(frozen=True, eq=False)
class BalanceSettings:
    """Of `LogitBalance`."""

    num_classes: int
    components: int
    momentum: float
    ramp: int
    strength: float
    pixels: int
    seed: int

    def __post_init__(self) -> None:
        check_count("num_classes", self.num_classes)
        check_count("components", self.components)
        check_share("momentum", self.momentum)
        check_count("ramp", self.ramp)
        check_factor("strength", self.strength)
        check_count("pixels", self.pixels)
        check_integer_number("seed", self.seed)
        object.__setattr__(self, "momentum", float(self.momentum))
        object.__setattr__(self, "strength", float(self.strength))


class LogitBalance(WideBuffers):
    """Moves logits towards what they would be if all classes had the same distribution of logits.

    For pixels of class l the logits of channel c follow a mixture of K normal distributions, F_lc,
    one table per domain; an anchor A is the mixture of the logits of pixels' own classes (l = c),
    another that of all others, both of every labelled pixel of the source.

        delta = A^{-1}(F_lc(z)) - z,    balanced = z - strength * delta

    `update` follows the distributions; the module itself gives the balanced logits, for a
    cross-entropy in training. With F_lc(z) held to [0.01, 0.99].

    Args:
        num_classes: C.
        components: K, normal distributions of each mixture.
        momentum: in [0, 1], weighs the OLD table; momentum^s for a class not seen for s updates.
        ramp: updates of a domain over which its momentum rises from 0, in equal steps.
        strength: any finite number; the share of the difference that is taken off.
        pixels: pixels sampled of each class in an update; classes with fewer take no part in it.
            An anchor stays where it is in a batch with fewer logits of its kind.
        seed: where sampling starts, any integer.
        process_group: ranks that share the tables. None: all, where torch.distributed is
            initialised.

    Attributes:
        weight, mean, variance: (2, C, C, K) float32, by domain (source, target), class of the
            pixel, channel and component.
        anchor_weight, anchor_mean, anchor_variance: (2, K) float32, own class and others.
        count: (2, C) int64, updates of the class.
        latest: (2, C) int64, the step of the latest one.
        step: (2,) int64, calls of `update`.

    Shape:
        logits (B, C, Z, H, W), (B, C, H, W), (B, C, P) or (N, C); labels (B, Z, H, W), (B, H, W),
        (B, P) or (N,). Balanced logits and `delta` have the shape of the logits.

    Raises:
        ValueError: a size below 1, a momentum outside [0, 1], an unknown domain, or shapes that
            disagree.
        TypeError: a wrong dtype.

    Source:
        Balanced Learning for Domain Adaptive Semantic Segmentation, arXiv 2512.06886; (D6), (D7)
        of docs/distributions.md.

    Example:
        >>> import torch
        >>> balance = LogitBalance(2, 1, pixels=2)
        >>> logits = torch.tensor([[4.0, 0.0], [6.0, 0.0], [0.0, 1.0], [0.0, 3.0]])
        >>> labels = torch.tensor([0, 0, 1, 1])
        >>> balance.update(logits, labels)
        >>> own = balance.delta(logits, labels).gather(1, labels[:, None])
        >>> (own < 0).flatten().tolist()
        [True, True, False, False]
    """

    Settings = BalanceSettings
    fixed = ("num_classes", "components")
    weight: Tensor
    mean: Tensor
    variance: Tensor
    anchor_weight: Tensor
    anchor_mean: Tensor
    anchor_variance: Tensor
    count: Tensor
    latest: Tensor
    step: Tensor

    @called("LogitBalance")
    def __init__(
        self,
        num_classes: int,
        components: int = 5,
        *,
        momentum: float = 0.99,
        ramp: int = 1500,
        strength: float = 0.1,
        pixels: int = 500,
        seed: int = 0,
        process_group: "dist.ProcessGroup | None" = None,
    ) -> None:
        super().__init__()
        self.num_classes, self.components = num_classes, components
        self.momentum, self.ramp, self.strength = momentum, ramp, strength
        self.pixels, self.seed = pixels, seed
        self.check()
        self.process_group = process_group
        for name, shape in (("", (2, num_classes, num_classes)), ("anchor_", (2,))):
            for part in Mixtures._fields:
                self.register_buffer(
                    name + part, torch.zeros(*shape, components, dtype=torch.float32)
                )
        self.register_buffer("count", torch.zeros(2, num_classes, dtype=torch.int64))
        self.register_buffer("latest", torch.zeros(2, num_classes, dtype=torch.int64))
        self.register_buffer("step", torch.zeros(2, dtype=torch.int64))

    def forward(
        self,
        logits: Tensor,
        labels: Tensor,
        *,
        domain: Domain = "source",
        ignore_index: int = 255,
    ) -> Tensor:
        """Logits minus `strength` times `delta`; the gradient passes as through the identity."""
        delta = self.delta(logits, labels, domain=domain, ignore_index=ignore_index)
        return logits - (self.strength * delta).to(logits.dtype)

    @torch.no_grad()
    def update(
        self,
        logits: Tensor,
        labels: Tensor,
        *,
        domain: Domain = "source",
        ignore_index: int = 255,
    ) -> None:
        """Fit the tables of a domain to a batch and move towards them; source moves the anchors.

        `pixels` pixels of each class are taken at equal distances in the order of the batch, from a
        start that follows from seed and step alone. Classes of fewer pixels, or of logits that are
        not finite, keep their tables; a channel that is -inf on all of a class's pixels is absent
        and keeps its own alone. The anchors are fitted to every labelled pixel of finite logits,
        absent channels left out. With torch.distributed initialised every rank must call this: the
        fit is to the pixels of all ranks.
        """
        pixels, classes = self._read(logits, labels, domain, ignore_index)
        which = DOMAINS.index(domain)
        samples, used = self._samples(pixels, classes, ignore_index, which)
        tables, present = self._moved_tables(samples, used, which)
        anchors = self._moved_anchors(pixels, classes, ignore_index) if which == 0 else None
        # Ranks meet in the fits above, so nothing has moved where one of them failed.
        for buffer, new in zip(self._tables(), tables, strict=True):
            buffer[which] = new
        if anchors is not None:
            buffers = self.anchor_weight, self.anchor_mean, self.anchor_variance
            for buffer, new in zip(buffers, anchors, strict=True):
                buffer.copy_(new)
        self.step[which] += 1
        self.count[which] += present
        self.latest[which] = torch.where(present, self.step[which], self.latest[which])

    @torch.no_grad()
    def delta(
        self,
        logits: Tensor,
        labels: Tensor,
        *,
        domain: Domain = "source",
        ignore_index: int = 255,
    ) -> Tensor:
        """(D7) how far each logit lies below its place on the anchor; float32 (float64).

        0 for ignored pixels, for classes without a table, before the source was seen, and at -inf.
        """
        pixels, classes = self._read(logits, labels, domain, ignore_index)
        which = DOMAINS.index(domain)
        wide = torch.float64 if logits.dtype == torch.float64 else torch.float32
        # Components first, then channels, so that a component's numbers of a tile are one gather.
        tables = [one[which].permute(2, 1, 0).to(wide) for one in self._tables()]
        tables[2] = tables[2].clamp_min(mixtures.NARROWEST).rsqrt()
        pieces = mixtures.inverse(self._anchors()).to(wide).flatten(0, 1)
        pieces = pieces.t().contiguous()
        ready = self._known(which).t() & self._begun()[0]
        out = torch.empty_like(pixels.features, dtype=wide)
        channels = torch.arange(self.num_classes, device=classes.device)[:, None]
        width = max(1, TILE // self.num_classes)
        for image, rows, into in zip(pixels.features, classes, out, strict=True):
            for value, label, place in zip(
                image.split(width, 1), rows.split(width), into.split(width, 1), strict=True
            ):
                valid = (label != ignore_index) & (label >= 0) & (label < self.num_classes)
                own = torch.where(valid, label, 0).long()
                value = value.to(wide)
                share = torch.zeros_like(value)
                for weight, mean, inverse_length in zip(*tables, strict=True):
                    gap = value - mean.index_select(1, own)
                    gap.mul_(inverse_length.index_select(1, own))
                    below = mixtures.normal_distribution(gap)
                    share.addcmul_(weight.index_select(1, own), below)
                moved = mixtures.at(share, pieces, (channels != own).long())
                # An absent class stays so, whatever the strength.
                known = valid & ready.index_select(1, own) & (value != -torch.inf)
                place.copy_(torch.where(known, moved - value, 0))
        if logits.dim() == 2:
            return out[0].t()
        return out.reshape(logits.shape)

    def _tables(self) -> Mixtures:
        return Mixtures(self.weight, self.mean, self.variance)

    def _anchors(self) -> Mixtures:
        spread = self.anchor_variance.clamp_min(mixtures.NARROWEST)
        return Mixtures(self.anchor_weight, self.anchor_mean, spread)

    @called("LogitBalance")
    def _read(
        self, logits: Tensor, labels: Tensor, domain: Domain, ignore_index: int
    ) -> tuple[Pixels, Tensor]:
        pixels = read_features(logits, "logits")
        requirement = f"with C = {self.num_classes} channels"
        check_channels("logits", logits, self.num_classes, requirement)
        check_device("logits", logits, self.mean, "the tables")
        check_choice("domain", domain, DOMAINS)
        check_ignore_index(ignore_index, self.num_classes)
        return pixels, read_checked_labels(pixels, labels, self.num_classes, ignore_index)

    def _samples(
        self, pixels: Pixels, classes: Tensor, ignore_index: int, which: int
    ) -> tuple[Tensor, Tensor]:
        """Logits (C, C, n) of n pixels per class, channels second, and which of them count (C, C).

        A channel that is -inf on all of a class's pixels does not: it is absent there.
        """
        members = members_of(classes.flatten(), self.num_classes, ignore_index)
        # Steps along the golden ratio never come back to a start, and spread evenly.
        start = 0.7548776662466927 * self.seed + 0.6180339887498949 * widest(self.step[which])
        slots = torch.arange(self.pixels, device=classes.device)
        number = members.count[:, None]
        places = spread_out(number, torch.full_like(number, self.pixels), slots, start % 1)
        chosen = members.at(places)
        side = max(pixels.features.shape[2], 1)
        if classes.numel() == 0:
            found = self.mean.new_zeros(*chosen.shape, self.num_classes)
        else:
            found = pixels.features.transpose(1, 2)[chosen // side, chosen % side]
        found = widest(found).transpose(1, 2)
        absent = (found == -torch.inf).all(dim=2)
        readable = torch.isfinite(found).all(dim=2) | absent
        used = (members.count >= self.pixels) & readable.all(dim=1) & ~absent.diagonal()
        pairs = used[:, None] & ~absent
        return torch.where(pairs[..., None], found, 0), pairs

    def _known(self, which: int) -> Tensor:
        """Which classes and channels (C, C) of a domain have a table."""
        return self.weight[which].sum(dim=2) > 0

    def _moved_tables(
        self, samples: Tensor, used: Tensor, which: int
    ) -> tuple[list[Tensor], Tensor]:
        """The tables of a domain, moved; which classes (C,) were seen on any rank."""
        old = Mixtures(*(one[which] for one in self._tables()))
        known = self._known(which)
        fitted, present = fit_classes(samples, used, known, old, self.over_ranks)
        waited = self.step[which] + 1 - self.latest[which]
        momentum = torch.where(known, self._momentum(which, waited)[:, None], 0)[..., None]
        tables = []
        for buffer, new in zip(self._tables(), fitted, strict=True):
            moved = torch.lerp(new, widest(buffer[which]), momentum).to(buffer.dtype)
            tables.append(torch.where(present[..., None], moved, buffer[which]))
        return tables, present.any(dim=1)

    def _moved_anchors(self, pixels: Pixels, classes: Tensor, ignore_index: int) -> list[Tensor]:
        """The anchors, moved."""

        def tiles() -> Iterator[Kinds]:
            width = max(1, TILE // self.num_classes)
            for image, rows in zip(pixels.features, classes, strict=True):
                for value, label in zip(image.split(width, 1), rows.split(width), strict=True):
                    yield kinds_of(value, label, ignore_index)

        seen = self._begun()
        fitted, number = fit_anchors(tiles, seen, self._anchors(), self.over_ranks)
        momentum = torch.where(seen, self._momentum(0, torch.ones_like(self.step[0])), 0)[:, None]
        enough = (number >= self.pixels)[:, None]
        buffers, anchors = (self.anchor_weight, self.anchor_mean, self.anchor_variance), []
        for buffer, new in zip(buffers, fitted, strict=True):
            moved = torch.lerp(new, widest(buffer), momentum).to(buffer.dtype)
            anchors.append(torch.where(enough, moved, buffer))
        return anchors

    def _begun(self) -> Tensor:
        """Which anchors (2,) have been fitted: weights sum to 1 from then on."""
        return self.anchor_weight.sum(dim=1) > 0

    def _momentum(self, which: int, waited: Tensor) -> Tensor:
        """Weight of a domain's old table: little at first, and for what was not seen for long."""
        grown = (widest(self.step[which]) / self.ramp).clamp_max(1)
        return (self.momentum * grown) ** widest(waited)
