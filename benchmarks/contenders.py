"""What a user would write in plain torch, operator by operator, and the library's own step.

"eager" functions are the usual composition. "tuned" ones are the fastest composition found that
still is a few lines: products that read the features in place, and the length of a pixel divided
out of its logits instead of its features.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

import protocontrast as pc

TEMPERATURE = 0.1
DISTANCE = 1.0
"""Temperature of Euclidean distances."""
THRESHOLD = 0.8
IGNORE_INDEX = 255
NUM_CLASSES = 19
NEVER = -1e9
"""Logit of an absent class: finite, since its weight of 0 times infinity would be NaN."""


def cosine_logits(features: Tensor, prototypes: Tensor) -> Tensor:
    """(B, C, H, W) from unit pixels."""
    units = F.normalize(prototypes, dim=1).to(features.dtype)
    return torch.einsum("bdhw,cd->bchw", F.normalize(features, dim=1), units) / TEMPERATURE


def cosine_logits_tuned(features: Tensor, prototypes: Tensor) -> Tensor:
    """(B, C, P), without a normalised copy of the features."""
    rows = features.flatten(2)
    units = F.normalize(prototypes, dim=1).to(features.dtype) / TEMPERATURE
    inverse_length = rows.square().sum(dim=1, keepdim=True).clamp_min(1e-24).rsqrt()
    return torch.bmm(units.expand(len(rows), *units.shape), rows) * inverse_length


def contrast(features: Tensor, labels: Tensor, prototypes: Tensor) -> Tensor:
    """F.normalize + einsum + F.cross_entropy."""
    return F.cross_entropy(cosine_logits(features, prototypes), labels, ignore_index=IGNORE_INDEX)


def contrast_tuned(features: Tensor, labels: Tensor, prototypes: Tensor) -> Tensor:
    """The same loss from logits divided by length."""
    logits = cosine_logits_tuned(features, prototypes)
    return F.cross_entropy(logits, labels.flatten(1), ignore_index=IGNORE_INDEX)


def soft_contrast(features: Tensor, targets: Tensor, prototypes: Tensor) -> Tensor:
    """torch.cdist + log_softmax, weighed by distributions (B, C, H, W) that may be all zero."""
    distances = torch.cdist(features.flatten(2).transpose(1, 2), prototypes)
    shares = (-distances / DISTANCE).log_softmax(dim=2)
    weights = targets.flatten(2).transpose(1, 2)
    return -(weights * shares).sum() / weights.sum()


def upsampled_cross_entropy(logits: Tensor, labels: Tensor, align_corners: bool) -> Tensor:
    """F.interpolate + F.cross_entropy."""
    size = labels.shape[1:]
    upsampled = F.interpolate(logits, size, mode="bilinear", align_corners=align_corners)
    return F.cross_entropy(upsampled, labels, ignore_index=IGNORE_INDEX)


def one_hot(labels: Tensor, dtype: torch.dtype, num_classes: int = NUM_CLASSES) -> Tensor:
    """(B, C, P) in a floating dtype; `IGNORE_INDEX` is no class."""
    classes = torch.arange(num_classes, device=labels.device)[:, None]
    return (labels.flatten(1)[:, None] == classes).to(dtype)


def class_means_einsum(
    features: Tensor, labels: Tensor, num_classes: int = NUM_CLASSES
) -> tuple[Tensor, Tensor]:
    """Means (C, D) and counts (C,) by one product over all images."""
    members = one_hot(labels, features.dtype, num_classes)
    counts = members.sum(dim=(0, 2))
    sums = torch.einsum("bcp,bdp->cd", members, features.flatten(2))
    return sums / counts.clamp_min(1)[:, None], counts


def class_means_bmm(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The same by one product per image, which reads the features in place."""
    members = one_hot(labels, features.dtype)
    counts = members.sum(dim=(0, 2))
    sums = torch.bmm(members, features.flatten(2).transpose(1, 2)).sum(dim=0)
    return sums / counts.clamp_min(1)[:, None], counts


def class_means_index_add(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The same by adding each pixel's row; ignored pixels go to a row that is cut off."""
    index = torch.where(labels == IGNORE_INDEX, NUM_CLASSES, labels).flatten()
    rows = features.permute(0, 2, 3, 1).reshape(-1, features.shape[1])
    sums = features.new_zeros(NUM_CLASSES + 1, features.shape[1]).index_add(0, index, rows)
    counts = torch.bincount(index, minlength=NUM_CLASSES + 1)[:NUM_CLASSES].to(features.dtype)
    return sums[:NUM_CLASSES] / counts.clamp_min(1)[:, None], counts


def nearest(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Labels and confidence from logits with classes in dimension 1."""
    confidence, labels = logits.softmax(dim=1).max(dim=1)
    return torch.where(confidence >= THRESHOLD, labels, IGNORE_INDEX), confidence


@torch.no_grad()
def transfer(features: Tensor, prototypes: Tensor) -> tuple[Tensor, Tensor]:
    """F.normalize + einsum + softmax + max + threshold."""
    return nearest(cosine_logits(features, prototypes))


@torch.no_grad()
def transfer_tuned(features: Tensor, prototypes: Tensor) -> tuple[Tensor, Tensor]:
    """The same from logits divided by length."""
    labels, confidence = nearest(cosine_logits_tuned(features, prototypes))
    shape = features.shape[0], *features.shape[2:]
    return labels.reshape(shape), confidence.reshape(shape)


def masked(logits: Tensor, present: Tensor) -> Tensor:
    """Logits in which absent classes cannot win and have no share."""
    return logits.masked_fill(~present.view(1, -1, *[1] * (logits.dim() - 2)), NEVER)


def bidirectional_step(
    source: Tensor, source_labels: Tensor, target: Tensor
) -> tuple[Tensor, Tensor]:
    """Loss () and transferred target labels from four modular calls.

    Source means, labels for the target from them, target means, both contrasts; gradient through
    all means.
    """
    source_means, source_count = class_means_bmm(source, source_labels)
    with torch.no_grad():
        logits = masked(cosine_logits(target, source_means), source_count > 0)
        target_labels, _ = nearest(logits)
    target_means, target_count = class_means_bmm(target, target_labels)
    weight = ((source_count > 0) & (target_count > 0)).to(source.dtype)
    target_logits = masked(cosine_logits(target, source_means), source_count > 0)
    source_logits = masked(cosine_logits(source, target_means), target_count > 0)
    loss = F.cross_entropy(target_logits, target_labels, weight, ignore_index=IGNORE_INDEX)
    loss = loss + F.cross_entropy(source_logits, source_labels, weight, ignore_index=IGNORE_INDEX)
    return loss, target_labels


def bidirectional_step_tuned(
    source: Tensor, source_labels: Tensor, target: Tensor
) -> tuple[Tensor, Tensor]:
    """The same step; one set of target logits serves labels and contrast."""
    source_means, source_count = class_means_bmm(source, source_labels)
    target_logits = masked(cosine_logits_tuned(target, source_means), source_count > 0)
    with torch.no_grad():
        target_labels, _ = nearest(target_logits)
    target_means, target_count = class_means_bmm(target, target_labels)
    weight = ((source_count > 0) & (target_count > 0)).to(source.dtype)
    source_logits = masked(cosine_logits_tuned(source, target_means), target_count > 0)
    loss = F.cross_entropy(target_logits, target_labels, weight, ignore_index=IGNORE_INDEX)
    loss = loss + F.cross_entropy(
        source_logits, source_labels.flatten(1), weight, ignore_index=IGNORE_INDEX
    )
    return loss, target_labels.reshape(source_labels.shape)


def library_step(
    source: Tensor, source_labels: Tensor, target: Tensor, backend: str = "auto"
) -> tuple[Tensor, Tensor]:
    """The same step from the library's functions."""
    with torch.no_grad():
        means = pc.class_prototypes(source, source_labels, NUM_CLASSES, backend=backend)
        target_labels = pc.transfer_labels(
            target,
            means.mean,
            present=means.present,
            threshold=THRESHOLD,
            temperature=TEMPERATURE,
            backend=backend,
        ).labels
    out = pc.bidirectional_contrast(
        source,
        source_labels,
        target,
        target_labels,
        num_classes=NUM_CLASSES,
        pairwise=False,
        temperature=TEMPERATURE,
        backend=backend,
    )
    return out.loss, target_labels


def bicl_step(
    source: Tensor, source_labels: Tensor, target: Tensor, backend: str = "auto"
) -> tuple[Tensor, Tensor]:
    """The first step of `BiCL`, whose banks then hold the means of this batch, detached."""
    bicl = pc.BiCL(
        NUM_CLASSES, source.shape[1], temperature=TEMPERATURE, threshold=THRESHOLD, backend=backend
    )
    out = bicl.to(source.device)(source, source_labels, target)
    return out.loss, out.target_labels


def bicl_step_composed(
    source: Tensor, source_labels: Tensor, target: Tensor
) -> tuple[Tensor, Tensor]:
    """The same step from public functions, each of which reads the features."""
    banks = [pc.PrototypeBank(NUM_CLASSES, source.shape[1]).to(source.device) for _ in range(2)]
    bias = pc.DomainBias(NUM_CLASSES, source.shape[1]).to(source.device)
    with torch.no_grad():
        banks[0].update_from(pc.class_prototypes(source, source_labels, NUM_CLASSES))
        target_labels = pc.transfer_labels(
            target,
            bias.calibrate(banks[0].prototypes),
            present=banks[0].present,
            threshold=THRESHOLD,
            temperature=TEMPERATURE,
        ).labels
        banks[1].update_from(pc.class_prototypes(target, target_labels, NUM_CLASSES))
        both = banks[0].present & banks[1].present
        bias.update(banks[0].prototypes, banks[1].prototypes, both)
    out = pc.bidirectional_contrast(
        source,
        source_labels,
        target,
        target_labels,
        num_classes=NUM_CLASSES,
        source_prototypes=banks[0].prototypes,
        target_prototypes=banks[1].prototypes,
        source_present=banks[0].present,
        target_present=banks[1].present,
        pairwise=False,
        temperature=TEMPERATURE,
    )
    return out.loss, target_labels
