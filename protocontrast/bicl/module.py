"""Bi-directional contrastive learning in one object: `BiCL` (state: two banks and a bias)."""

from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch import distributed as dist

from protocontrast.bank import DomainBias, PrototypeBank
from protocontrast.bank.buffers import WholeLoads
from protocontrast.bank.domain_bias import BiasState, Warmup
from protocontrast.bank.moments import Moments
from protocontrast.bank.prototype_bank import BankState, Normalize
from protocontrast.bicl.labels import GridLabels, at_grid
from protocontrast.bicl.settings import BiCLSettings, Held
from protocontrast.bicl.silence import Silence
from protocontrast.bicl.whole_step import whole_step
from protocontrast.calls import ClassSumsCall, ContrastCall, Domain, TargetPassCall
from protocontrast.checks import called, check_flag, sentence
from protocontrast.functional import ClassPrototypes
from protocontrast.functional.bidirectional import contrast_of_batch
from protocontrast.functional.class_prototypes import class_means
from protocontrast.functional.contrast import contrast_of
from protocontrast.functional.labels import labels_are_known
from protocontrast.functional.maps import (
    check_feature_map,
    class_counts,
    equal_shares,
    shares,
    target_counts,
)
from protocontrast.functional.settings import Absent, Backend, Balance, read_temperature
from protocontrast.functional.target_pass import TargetPass, pass_over
from protocontrast.functional.transfer import Measure
from protocontrast.module import Configured


class BiCLOutput(NamedTuple):
    """One step of `BiCL`.

    Attributes:
        loss: weights[0] * target_to_source + weights[1] * source_to_target, ().
        target_to_source: target pixels against source prototypes, ().
        source_to_target: source pixels against target prototypes, ().
        target_labels: the hybrid pseudo labels on the grid, (B, h, w) or (B, z, h, w) int64.
        coverage: share of target pixels with a label, () in [0, 1].
        class_share: (C,) share of each class among the labelled target pixels over its share among
            the labelled source pixels; 0 where source has none.
    """

    loss: Tensor
    target_to_source: Tensor
    source_to_target: Tensor
    target_labels: Tensor
    coverage: Tensor
    class_share: Tensor


def _weighed(weight: float, term: Tensor) -> Tensor:
    """A term without weight is 0 whatever it holds, and still gives a gradient of zeros."""
    return weight * term if weight else 0 * term.nan_to_num(0, 0, 0)


class BiCL(Configured, WholeLoads):
    """Pull target pixels to source prototypes and source pixels to target prototypes.

    A step, in this order: the source bank takes the batch (M9); the source prototypes are moved by
    the domain bias (M11); target pixels are labelled by the nearest of those (M6); given static
    labels win where valid (M7); the target bank takes the batch under the fused labels (M9); the
    bias moves towards this batch's target mean minus the source bank, for classes in both (M10);
    both contrasts are taken against uncalibrated prototypes (M12). The bias serves the transfer
    only.

    Args:
        num_classes: C.
        dim: D of the features.
        temperature: tau of contrast and confidence, > 0, a number or a tensor (). The attribute may
            be replaced between steps; compiled, a tensor is annealed without another compilation.
            A setting as all others here: not in the state dict.
        threshold: a dynamic label needs this `measure`; in [0, 1] for a confidence, in [-1, 1] for
            a similarity. math.inf: no dynamic labels.
        measure: "confidence" or "similarity", see `transfer_labels`.
        momentum: of both banks, in [0, 1], weighs the old value.
        bias_momentum: of the bias, likewise.
        bias_warmup: "zero" or "copy", see `DomainBias`.
        normalize: of both banks: False, "features" or "prototypes".
        prototypes: "bank" contrasts against detached momentum prototypes; source_to_target then
            sends gradient to source features only. "batch" contrasts against this batch's class
            means with gradient through them (the released code), the banks still serving the
            transfer.
        bank_update: "before" the contrast, or "after": the step then sees the previous step's
            prototypes.
        pairwise: with "batch", image b against image b of the other domain.
        calibrate: False leaves the source prototypes where they are; the bias is still estimated.
        absent: "mask" or "floor", see `pixel_prototype_contrast`.
        weights: of target_to_source and source_to_target in the loss.
        balance: "pixel", every pixel alike, or "class", every class alike (M18): a pixel weighs 1
            over the pixels of its class, at least 20, so that no single one, which may be labelled
            wrongly, is more than a twentieth of a class.
        ignore_index: label of pixels without a class, outside 0..C-1.
        process_group: ranks that share banks and bias. None: all, where torch.distributed is
            initialised.
        validate: check label values on every call; waits for a GPU.
        backend: "auto", or an implementation by name.

    Shape:
        features (B, D, h, w) with labels (B, H, W), or (B, D, z, h, w) with labels (B, Z, H, W), at
        the grid or at image resolution. At image resolution they are taken at the grid ("nearest"),
        every pixel of them is checked, and both contrasts use their counts; a target cell without
        any given label has its transferred one, which counts for all of its pixels.

    Returns:
        `BiCLOutput` from `forward(source_features, source_labels, target_features,
        target_labels=None, *, update=True)`. Until a class has a prototype it takes no part; with
        empty banks in eval the loss is 0. `update=False` and `eval()` change no state. Loss,
        coverage and class_share are local to the rank; banks and bias are global. A refused call
        changes no state. Where no target pixel has had a label in the first 20 updates, one
        UserWarning says what helps; a later fall to 0 shows in `coverage` alone. With
        balance="class" and "bank" prototypes, a step that updates counts the pixels of a class on
        all ranks: the mean of their losses is then the loss of all their images. "batch" prototypes
        are the rank's own, and so are their counts.

    Raises:
        ValueError: an unknown setting, a threshold that nothing reaches, an `ignore_index` that is
            a class, `pairwise` without prototypes="batch", bad shapes, or (CPU, else with
            `validate`) a label that is no class.
        TypeError: a wrong dtype.

    Source:
        Lee et al., ECCV 2022, arXiv 2207.10892; (M13) of docs/maths.md. It has no parameters: keep
        it beside the DDP model, not inside it, and outside activation checkpointing.

    Example:
        >>> import torch
        >>> source, target = torch.eye(2).reshape(1, 2, 1, 2), torch.ones(1, 2, 1, 2)
        >>> bicl = BiCL(2, 2, threshold=0.5)
        >>> out = bicl(source, torch.tensor([[[0, 1]]]), target, torch.tensor([[[255, 1]]]))
        >>> out.target_labels.tolist(), out.coverage.item()
        ([[[0, 1]]], 1.0)
    """

    Settings = BiCLSettings
    settings: BiCLSettings
    fixed = ("num_classes", "dim")
    momentum = Held[float]("momentum", "source_bank", "target_bank")
    normalize = Held[Normalize]("normalize", "source_bank", "target_bank")
    process_group = Held["dist.ProcessGroup | None"]("process_group", "source_bank", "target_bank")
    bias_momentum = Held[float]("momentum", "domain_bias")
    bias_warmup = Held[Warmup]("warmup", "domain_bias")

    def __init__(
        self,
        num_classes: int,
        dim: int,
        *,
        temperature: float | Tensor = 0.1,
        threshold: float = 0.8,
        measure: Measure = "confidence",
        momentum: float = 0.99,
        bias_momentum: float = 0.99,
        bias_warmup: Warmup = "zero",
        normalize: Normalize = False,
        prototypes: Literal["bank", "batch"] = "bank",
        bank_update: Literal["before", "after"] = "before",
        pairwise: bool = False,
        calibrate: bool = True,
        absent: Absent = "mask",
        weights: tuple[float, float] = (1.0, 1.0),
        balance: Balance = "pixel",
        ignore_index: int = 255,
        process_group: "dist.ProcessGroup | None" = None,
        validate: bool = False,
        backend: Backend = "auto",
    ) -> None:
        super().__init__()
        bank = partial(
            PrototypeBank, num_classes, dim, momentum=momentum, normalize=normalize,
            process_group=process_group,
        )  # fmt: skip
        self.num_classes, self.dim = num_classes, dim
        self.temperature, self.threshold, self.measure = temperature, threshold, measure
        self.prototypes, self.bank_update, self.pairwise = prototypes, bank_update, pairwise
        self.calibrate, self.absent, self.balance = calibrate, absent, balance
        self.weights, self.ignore_index = weights, ignore_index
        self.validate, self.backend = validate, backend
        self.source_bank, self.target_bank = bank(), bank()
        self.domain_bias = DomainBias(num_classes, dim, momentum=bias_momentum, warmup=bias_warmup)
        self.silence = Silence()
        self.check()

    @called("BiCL")
    def forward(
        self,
        source_features: Tensor,
        source_labels: Tensor,
        target_features: Tensor,
        target_labels: Tensor | None = None,
        *,
        update: bool = True,
    ) -> BiCLOutput:
        """One step; see the class for order, shapes and edges."""
        check_flag("update", update)
        buffer = self.source_bank.prototypes
        check_feature_map("source_features", source_features, self.dim, buffer)
        check_feature_map("target_features", target_features, self.dim, buffer)
        temperature = read_temperature(self.temperature, source_features, "source_features")
        if self.pairwise and len(source_features) != len(target_features):
            requirement = f"of {len(source_features)} images as in source_features, for pairs"
            got = len(target_features)
            raise ValueError(sentence("target_features", requirement, got))
        # A wrong label is met here, before ranks meet and any state has changed.
        known = self.num_classes, self.ignore_index, self.validate
        of_source = at_grid("source_labels", source_labels, source_features, *known)
        static = None
        if target_labels is not None:
            static = at_grid("target_labels", target_labels, target_features, *known)
        maps = source_features.flatten(2), target_features.flatten(2)
        with labels_are_known():
            out = self._step(maps, of_source, static, temperature, update and self.training)
        labels = out.target_labels.reshape(len(target_features), *target_features.shape[2:])
        return out._replace(target_labels=labels)

    def _step(
        self,
        maps: tuple[Tensor, Tensor],
        of_source: GridLabels,
        static: GridLabels | None,
        temperature: float | Tensor,
        updates: bool,
    ) -> BiCLOutput:
        """One step on pixels (B, D, P), source and target; everything has been checked."""
        early = updates and self.bank_update == "before"
        whole = whole_step(self, maps, of_source, static, temperature) if early else None
        if whole is not None:
            out = BiCLOutput(*whole)
            self.silence.note(out.coverage, self.threshold, self.measure)
            return out
        # What will be the state stands beside the buffers until the step has come to its end.
        source, target = self.source_bank.state, self.target_bank.state
        bias, means = None, None
        if early:
            means = self._means(maps[0], of_source.grid)
            source, _ = self.source_bank.moved_by_moments(Moments(*means, None))
        passed = self._pass_target(maps[1], static, source, temperature, early, updates)
        if early:
            target, bias = self._moved_target(passed.prototypes, source)
        if self.prototypes == "bank":
            shared = source.present & target.present
            equal = self._equal_shares(passed.mass, of_source, means, shared, updates)
            to_source = passed.mean_loss(shared, equal[0])
            if updates and not early:
                # Both prototypes are known beforehand, so source features are read once, too.
                to_target, means = self._pass_source(
                    maps[0], of_source, target, temperature, shared, equal[1]
                )
            else:
                to_target = self._to_target(
                    maps[0], of_source.targets, target, temperature, shared, equal[1]
                )
        else:
            targets = passed.labels if passed.targets is None else passed.targets
            _, to_source, to_target = contrast_of_batch(
                Domain(maps[0], of_source.grid, of_source.targets),
                Domain(maps[1], passed.labels, targets),
                self.settings,
                temperature,
            )
        if updates and not early:
            means = self._means(maps[0], of_source.grid) if means is None else means
            source, _ = self.source_bank.moved_by_moments(Moments(*means, None))
            target, bias = self._moved_target(passed.prototypes, source)

        counts = (
            means.count
            if means is not None
            else class_counts(of_source.grid.flatten(), self.num_classes)
        )
        found = passed.prototypes.count
        coverage, class_share = shares(counts, found, passed.labels.numel())
        forth, back = self.weights
        loss = _weighed(forth, to_source) + _weighed(back, to_target)
        if bias is not None:
            self.source_bank.take(source)
            self.target_bank.take(target)
            self.domain_bias.take(bias)
            self.silence.note(coverage, self.threshold, self.measure)
        return BiCLOutput(loss, to_source, to_target, passed.labels, coverage, class_share)

    @torch.no_grad()
    def _means(self, features: Tensor, labels: Tensor) -> ClassPrototypes:
        normalize = self.source_bank.normalize == "features"
        call = ClassSumsCall(
            features, labels, None, self.num_classes, normalize, False, self.ignore_index
        )
        return class_means(call, self.backend).of_all()

    def _moved_target(
        self, means: ClassPrototypes, source: BankState
    ) -> tuple[BankState, BiasState]:
        """Target bank and bias after this batch; `source` has taken it, too."""
        target, stats = self.target_bank.moved_by_moments(Moments(*means, None))
        both = stats.present & source.present
        mean = self.target_bank.on_scale(stats.mean)
        return target, self.domain_bias.moved_by_checked(source.prototypes, mean, both)

    def _pass_target(
        self,
        features: Tensor,
        static: GridLabels | None,
        source: BankState,
        temperature: float | Tensor,
        early: bool,
        updates: bool,
    ) -> TargetPass:
        """All that the target features are read for before the target bank moves."""
        counted = None
        if self.prototypes == "bank":
            # Where the bank moves first, a class that is met here will be in it.
            counted = source.present
            counted = counted if early else counted & self.target_bank.present
        else:
            features = features.detach()
        nearest = self.domain_bias.added_to(source.prototypes) if self.calibrate else None
        grid, counts, cell = static or (None, None, None)
        call = TargetPassCall(
            features, grid, counts, cell, source.prototypes, nearest, source.present, counted,
            float(self.threshold), self.measure, temperature, self.absent == "floor",
            self.target_bank.normalize == "features", self.ignore_index, True, updates,
        )  # fmt: skip
        return pass_over(call, self.backend, even=self.balance == "pixel")

    def _pass_source(
        self,
        features: Tensor,
        labels: GridLabels,
        target: BankState,
        temperature: float | Tensor,
        shared: Tensor,
        equal: Tensor | None,
    ) -> tuple[Tensor, ClassPrototypes]:
        """Contrast and class means of the source in one read."""
        counts = labels.counts
        if counts is not None and equal is not None:
            # With the weights in the counts, the gradient that is written meanwhile is the last.
            counts = (counts.movedim(1, -1) * equal).movedim(-1, 1)
            equal = torch.ones_like(equal)
        call = TargetPassCall(
            features, labels.grid, counts, None, target.prototypes, None, target.present, shared,
            float(self.threshold), self.measure, temperature, self.absent == "floor",
            self.source_bank.normalize == "features", self.ignore_index, False, True,
        )  # fmt: skip
        found = pass_over(call, self.backend)
        return found.mean_loss(shared, equal), found.prototypes

    def _equal_shares(
        self,
        of_target: Tensor,
        of_source: GridLabels,
        means: ClassPrototypes | None,
        shared: Tensor,
        updates: bool,
    ) -> tuple[Tensor | None, Tensor | None]:
        """(M18) shares (C,) of the classes in the losses of target and source pixels, if asked for.

        Where ranks meet, of the pixels of all of them, and so scaled that the mean of their losses
        is the loss of their union.
        """
        if self.balance == "pixel":
            return None, None
        if means is not None and of_source.counts is None:
            own = means.count
        else:
            own = target_counts(of_source.targets, self.num_classes, of_target).sum(dim=0)
        counts = torch.stack([of_target, own.to(of_target.dtype)])
        world = 1
        if updates and dist.is_available() and dist.is_initialized():
            group = self.source_bank.process_group
            dist.all_reduce(counts, group=group)
            world = dist.get_world_size(group)
        to_source, to_target = world * equal_shares(counts, shared)
        return to_source, to_target

    def _to_target(
        self,
        features: Tensor,
        targets: Tensor,
        target: BankState,
        temperature: float | Tensor,
        shared: Tensor,
        equal: Tensor | None,
    ) -> Tensor:
        """(M12) source to target, against the bank."""
        call = ContrastCall(
            features, targets, target.prototypes, target.present,
            shared.float() if equal is None else equal, None,
            "cosine", temperature, self.absent == "floor", self.ignore_index,
        )  # fmt: skip
        return contrast_of(call, "mean" if equal is None else "sum", self.backend)
