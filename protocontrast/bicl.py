"""Bi-directional contrastive learning in one object: `BiCL` (state: two banks and a bias)."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch import distributed as dist

from protocontrast.bank import DomainBias, PrototypeBank
from protocontrast.bank.domain_bias import Warmup
from protocontrast.bank.prototype_bank import Normalize
from protocontrast.checks import (
    check_choice,
    check_ignore_index,
    check_labels,
    check_number,
    check_positive,
    is_number,
    sentence,
)
from protocontrast.functional import (
    BidirectionalContrast,
    ClassPrototypes,
    bidirectional_contrast,
    class_prototypes,
    fuse_labels,
    labels_to_grid,
    transfer_labels,
)
from protocontrast.functional.contrast import ABSENT, BACKENDS, Absent, Backend
from protocontrast.functional.maps import check_feature_map, check_label_map, shares
from protocontrast.functional.transfer import MEASURES, Measure


class BiCLOutput(NamedTuple):
    """One step of `BiCL`.

    Attributes:
        loss: weights[0] * target_to_source + weights[1] * source_to_target, ().
        target_to_source: target pixels against source prototypes, ().
        source_to_target: source pixels against target prototypes, ().
        target_labels: the hybrid pseudo labels on the grid, (B, h, w) int64.
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


class BiCL(nn.Module):
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
        temperature: tau of contrast and confidence, > 0.
        threshold: a dynamic label needs this `measure`.
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
        ignore_index: label of pixels without a class.
        process_group: ranks that share banks and bias. None: all, where torch.distributed is
            initialised.
        validate: check label values on every call; waits for a GPU.
        backend: "auto", or an implementation by name.

    Shape:
        features (B, D, h, w); labels (B, H, W) at the grid or at image resolution. At image
        resolution they are taken at the grid ("nearest"), and source_to_target uses the counts of
        the source labels.

    Returns:
        `BiCLOutput` from `forward(source_features, source_labels, target_features,
        target_labels=None, *, update=True)`. Until a class has a prototype it takes no part; with
        empty banks in eval the loss is 0. `update=False` and `eval()` change no state. Loss,
        coverage and class_share are local to the rank; banks and bias are global.

    Raises:
        ValueError: an unknown setting, `pairwise` without prototypes="batch", or bad shapes.
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

    def __init__(
        self,
        num_classes: int,
        dim: int,
        *,
        temperature: float = 0.1,
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
        ignore_index: int = 255,
        process_group: "dist.ProcessGroup | None" = None,
        validate: bool = False,
        backend: Backend = "auto",
    ) -> None:
        super().__init__()
        check_positive("BiCL", "temperature", temperature)
        check_choice("BiCL", "measure", measure, MEASURES)
        check_choice("BiCL", "prototypes", prototypes, ("bank", "batch"))
        check_choice("BiCL", "bank_update", bank_update, ("before", "after"))
        check_choice("BiCL", "absent", absent, ABSENT)
        check_choice("BiCL", "backend", backend, BACKENDS)
        for name, flag in {"pairwise": pairwise, "calibrate": calibrate}.items():
            check_choice("BiCL", name, flag, (True, False))
        if pairwise and prototypes != "batch":
            hint = "a bank belongs to no image pair."
            requirement = 'to be False with prototypes="bank"'
            raise ValueError(sentence("BiCL", "pairwise", requirement, "True", hint))
        check_number("BiCL", "threshold", threshold)
        if not isinstance(weights, (tuple, list)) or not [*map(is_number, weights)] == [True, True]:
            raise ValueError(sentence("BiCL", "weights", "to be two numbers", repr(weights)))
        check_ignore_index("BiCL", ignore_index)
        self.num_classes = num_classes
        self.dim = dim
        self.temperature = temperature
        self.threshold = threshold
        self.measure = measure
        self.prototypes = prototypes
        self.bank_update = bank_update
        self.pairwise = pairwise
        self.calibrate = calibrate
        self.absent = absent
        self.weights = (float(weights[0]), float(weights[1]))
        self.ignore_index = ignore_index
        self.validate = validate
        self.backend = backend
        banks = [
            PrototypeBank(
                num_classes,
                dim,
                momentum=momentum,
                normalize=normalize,
                process_group=process_group,
            )
            for _ in range(2)
        ]
        self.source_bank, self.target_bank = banks
        self.domain_bias = DomainBias(num_classes, dim, momentum=bias_momentum, warmup=bias_warmup)

    def extra_repr(self) -> str:
        """The settings that the banks do not show."""
        names = (
            "temperature", "threshold", "measure", "prototypes", "bank_update", "pairwise",
            "calibrate", "absent", "weights", "ignore_index", "validate", "backend",
        )  # fmt: skip
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in names)

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
        buffer = self.source_bank.prototypes
        check_feature_map("BiCL", "source_features", source_features, self.dim, buffer)
        check_feature_map("BiCL", "target_features", target_features, self.dim, buffer)
        if self.pairwise and len(source_features) != len(target_features):
            requirement = f"of {len(source_features)} images as in source_features, for pairs"
            got = len(target_features)
            raise ValueError(sentence("BiCL", "target_features", requirement, got))
        # A wrong label is met here, before any state has changed.
        source_grid = self._at_grid("source_labels", source_labels, source_features)
        static = None
        if target_labels is not None:
            static = self._at_grid("target_labels", target_labels, target_features)
        updates = update and self.training
        early = updates and self.bank_update == "before"
        if early:
            self.source_bank.update_from(self._means(source_features, source_grid))

        prototypes = self.source_bank.prototypes
        if self.calibrate:
            prototypes = self.domain_bias.calibrate(prototypes)
        fused = transfer_labels(
            target_features,
            prototypes,
            present=self.source_bank.present,
            threshold=self.threshold,
            measure=self.measure,
            temperature=self.temperature,
            ignore_index=self.ignore_index,
            backend=self.backend,
        ).labels
        if static is not None:
            fused = fuse_labels(static, fused, ignore_index=self.ignore_index)

        if early:
            self._remember_target(target_features, fused)
        contrast = self._contrast(source_features, source_labels, target_features, fused)
        if updates and not early:
            self.source_bank.update_from(self._means(source_features, source_grid))
            self._remember_target(target_features, fused)

        coverage, class_share = shares(source_grid, fused, self.num_classes, self.ignore_index)
        to_source, to_target = contrast.target_to_source, contrast.source_to_target
        loss = self.weights[0] * to_source + self.weights[1] * to_target
        return BiCLOutput(loss, to_source, to_target, fused, coverage, class_share)

    def _at_grid(self, argument: str, labels: Tensor, features: Tensor) -> Tensor:
        check_label_map("BiCL", argument, labels, features)
        if self.validate:
            check_labels(labels, self.num_classes, ignore_index=self.ignore_index)
        size = (features.shape[2], features.shape[3])
        return labels_to_grid(
            labels, size, num_classes=self.num_classes, ignore_index=self.ignore_index
        )

    def _means(self, features: Tensor, labels: Tensor) -> ClassPrototypes:
        with torch.no_grad():
            return class_prototypes(
                features,
                labels,
                self.num_classes,
                normalize=self.source_bank.normalize == "features",
                ignore_index=self.ignore_index,
                backend=self.backend,
            )

    def _remember_target(self, features: Tensor, labels: Tensor) -> None:
        stats = self.target_bank.update_from(self._means(features, labels))
        both = stats.present & self.source_bank.present
        mean = self.target_bank.on_scale(stats.mean)
        self.domain_bias.update(self.source_bank.prototypes, mean, both)

    def _contrast(
        self,
        source_features: Tensor,
        source_labels: Tensor,
        target_features: Tensor,
        target_labels: Tensor,
    ) -> BidirectionalContrast:
        banked = self.prototypes == "bank"
        return bidirectional_contrast(
            source_features,
            source_labels,
            target_features,
            target_labels,
            num_classes=self.num_classes,
            source_prototypes=self.source_bank.prototypes if banked else None,
            target_prototypes=self.target_bank.prototypes if banked else None,
            source_present=self.source_bank.present if banked else None,
            target_present=self.target_bank.present if banked else None,
            pairwise=self.pairwise,
            temperature=self.temperature,
            absent=self.absent,
            ignore_index=self.ignore_index,
            backend=self.backend,
        )
