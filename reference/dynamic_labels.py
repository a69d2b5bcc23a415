"""Dynamic labels on which more is asked than `protocontrast.BiCL` asks of its own."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import protocontrast as pc
from reference.data.classes import IGNORE
from reference.method import Given, Step
from reference.networks.output import Output, Segmenter
from reference.settings import Contrast


class DynamicLabels(nn.Module):
    """The nearest calibrated prototype's label, where the head agrees or the class's surest share.

    Source prototypes are moved by the batch and the bias beforehand, as inside `BiCL`, which then
    reads these labels as given ones: its banks and its bias see no others. One thing differs. A
    cell of the grid whose nearest pixel has no static label, while others of it do, has no label in
    the target's bank; inside `BiCL` it would have its dynamic one.
    """

    # (C,), added to the logits; a class without source pixels is never chosen.
    log_prior: Tensor | None

    def __init__(
        self, settings: Contrast, num_classes: int, class_counts: Tensor | None = None
    ) -> None:
        super().__init__()
        self.settings, self.num_classes = settings, num_classes
        log_prior = None
        if settings.prior and class_counts is not None:
            log_prior = settings.prior * (class_counts / class_counts.sum()).float().log()
        self.register_buffer("log_prior", log_prior, persistent=False)
        self.thresholds = None
        if settings.class_coverage:
            self.thresholds = pc.ClassThresholds(
                num_classes, share=settings.class_coverage, momentum=settings.momentum
            )

    @torch.no_grad()
    def forward(self, bicl: pc.BiCL, step: Step, features: Tensor, target: Output) -> Tensor:
        """Fill static labels (B, H, W) from the prototypes of `bicl`, which stays as it is.

        `features` are the source's, (B, D, h, w), as `bicl` is about to see them, and so are those
        of `target`.
        """
        bank = bicl.source_bank.state
        if self.training:
            means = pc.class_prototypes(
                features, step.on_grid(step.source_labels, features), self.num_classes,
                normalize=bicl.source_bank.normalize == "features",
            )  # fmt: skip
            bank, _ = bicl.source_bank.moved_by(means)
        labels = self.transferred(bicl, target, bank.prototypes, bank.present)
        static = step.target_batch.labels
        return labels if static is None else filled(static, labels, self.num_classes)

    def follow(self, network: Segmenter) -> None:
        """Look at the network after its weights have moved."""

    @torch.no_grad()
    def transferred(
        self, bicl: pc.BiCL, target: Output, prototypes: Tensor, present: Tensor
    ) -> Tensor:
        """Labels (B, h, w) from source prototypes (C, D) and the bias, 255 where none is sure."""
        rows = bicl.domain_bias.calibrate(prototypes) if bicl.calibrate else prototypes
        labels = self._nearest(target.features, rows, present)
        if self.settings.agree:
            head = pc.labels_to_grid(target.logits.argmax(dim=1), tuple(labels.shape[1:]))
            labels = labels.masked_fill(labels != head, IGNORE)
        return labels

    def _nearest(self, features: Tensor, rows: Tensor, present: Tensor) -> Tensor:
        settings = self.settings
        if self.thresholds is None and self.log_prior is None:
            return pc.transfer_labels(
                features, rows, present=present, threshold=settings.threshold,
                measure=settings.measure, temperature=settings.temperature,
            ).labels  # fmt: skip
        logits = pc.prototype_logits(
            features, rows, present=present, temperature=settings.temperature
        )
        if self.log_prior is not None:
            logits = logits + self.log_prior[:, None, None]
        # Where no class has a prototype yet, all of them are NaN, which gets no label.
        probabilities = logits.softmax(dim=1)
        if self.thresholds is None:
            return pc.select_labels(probabilities, settings.threshold).labels
        if self.training:
            self.thresholds.update(probabilities)
        return self.thresholds.select(probabilities).labels


class TaughtLabels(DynamicLabels):
    """Labels by a mean teacher: by its features, with prototypes and a bias that are its own.

    The network can move a feature across a border and is labelled anew by where it lies; its
    teacher takes a hundred steps to follow.
    """

    def __init__(self, given: Given, own: pc.BiCL, class_counts: Tensor | None) -> None:
        from reference.methods.teachers import MeanTeacher

        super().__init__(given.stage.contrast, given.num_classes, class_counts)
        self.teacher, self.own = MeanTeacher(given.network), own

    @torch.no_grad()
    def forward(self, bicl: pc.BiCL, step: Step, features: Tensor, target: Output) -> Tensor:
        """Fill static labels; what the network itself sees is not looked at."""
        del bicl, features, target
        source = step.see(step.source.images, "source", by=self.teacher).features
        target = step.see(step.target_batch.images, by=self.teacher)
        labels = super().forward(self.own, step, source, target)
        self.own(source, step.source_labels, target.features, labels)
        return labels

    def follow(self, network: Segmenter) -> None:
        self.teacher.update_parameters(network)


def labels_outside(given: Given, bicl: pc.BiCL) -> DynamicLabels:
    """What labels the target for `bicl`, as the settings of its contrast ask."""
    settings = given.stage.contrast
    counts = given.class_counts() if settings.prior else None
    if settings.teacher:
        return TaughtLabels(given, copy.deepcopy(bicl), counts)
    return DynamicLabels(settings, given.num_classes, counts)


def filled(static: Tensor, dynamic: Tensor, num_classes: int) -> Tensor:
    """Static labels (B, H, W) where a cell of the grid has any, else its dynamic one, (B, h, w)."""
    size = (dynamic.shape[1], dynamic.shape[2])
    given = pc.labels_to_grid(static, size, mode="counts", num_classes=num_classes).sum(dim=1)
    free = dynamic.masked_fill(given > 0, IGNORE)[:, None].float()
    whole = F.interpolate(free, size=static.shape[1:], mode="nearest")[:, 0].long()
    return pc.fuse_labels(static, whole)
