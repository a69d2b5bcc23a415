"""The specification: one plain function per equation of docs/maths.md; autograd derives them.

Pixels are rows here: features (N, D), labels (N,) or soft targets (N, C), prototypes (C, D).
Nothing is fused, tiled or saved; every other implementation is tested against this file.
"""

import torch
from einops import rearrange, reduce, repeat
from torch import Tensor


def unit_rows(rows: Tensor) -> Tensor:
    """Rows divided by their length; a row of zero length stays zero and has gradient zero."""
    squared = reduce(rows.square(), "n d -> n 1", "sum")
    nonzero = squared != 0  # True for NaN, which must reach the result
    return torch.where(nonzero, rows * torch.where(nonzero, squared, 1).rsqrt(), 0)


def present_rows(prototypes: Tensor, present: Tensor | None, similarity: str) -> Tensor:
    """(C,) bool: the given presence, else every row, except all-zero rows under cosine."""
    if present is not None:
        return present
    if similarity == "cosine":
        return (prototypes != 0).any(dim=1)
    return torch.ones(len(prototypes), dtype=torch.bool, device=prototypes.device)


def similarities(features: Tensor, prototypes: Tensor, similarity: str) -> Tensor:
    """(M2) sim(f_i, p_c) for every pixel and prototype, (N, C)."""
    if similarity == "cosine":
        return torch.einsum("nd,cd->nc", unit_rows(features), unit_rows(prototypes))
    if similarity == "dot":
        return torch.einsum("nd,cd->nc", features, prototypes)
    gaps = rearrange(features, "n d -> n 1 d") - rearrange(prototypes, "c d -> 1 c d")
    squared = reduce(gaps.square(), "n c d -> n c", "sum")
    apart = squared != 0
    return -torch.where(apart, torch.where(apart, squared, 1).sqrt(), 0)


def prototype_logits(
    features: Tensor,
    prototypes: Tensor,
    present: Tensor | None,
    similarity: str,
    temperature: float,
    absent: str = "mask",
) -> Tensor:
    """(M2) z_ic = sim(f_i, p_c) / tau; an absent class has -inf ("mask") or cosine -1 ("floor")."""
    present = present_rows(prototypes, present, similarity)
    readable = torch.where(rearrange(present, "c -> c 1"), prototypes, 0).to(features.dtype)
    logits = similarities(features, readable, similarity) / temperature
    return torch.where(present, logits, -torch.inf if absent == "mask" else -1 / temperature)


def pixel_prototype_contrast(
    features: Tensor,
    labels: Tensor,
    prototypes: Tensor,
    present: Tensor | None,
    class_weight: Tensor | None,
    pixel_weight: Tensor | None,
    similarity: str,
    temperature: float,
    absent: str,
    ignore_index: int,
) -> tuple[Tensor, Tensor]:
    """(M3), (M5) weighted loss and weight of every pixel, each (N,).

    loss_i = w_i sum_c t_ic cw_c (logsumexp_k z_ik - z_ic), where t_i is the one-hot label or the
    soft target.
    """
    num_classes = len(prototypes)
    present = present_rows(prototypes, present, similarity)
    share = torch.ones(num_classes, dtype=features.dtype, device=features.device)
    if class_weight is not None:
        share = class_weight.to(features.dtype)
    if absent == "mask":
        share = torch.where(present, share, 0)
    if labels.is_floating_point():
        targets = labels.to(features.dtype)
    else:
        classes = torch.arange(num_classes, device=labels.device)
        targets = (rearrange(labels, "n -> n 1") == classes).to(features.dtype)
        targets = targets * rearrange(labels != ignore_index, "n -> n 1")
    targets = torch.where((share == 0) | (targets == 0), 0, targets * share)
    if pixel_weight is not None:
        weight = rearrange(pixel_weight.to(features.dtype), "n -> n 1")
        targets = torch.where((weight == 0) | (targets == 0), 0, targets * weight)
    weight = reduce(targets, "n c -> n", "sum")
    valid = weight != 0
    # The ignored pixels' features may hold NaN, and 0 * NaN is NaN: they leave before any
    # arithmetic.
    readable = torch.where(rearrange(valid, "n -> n 1"), features, 0)
    logits = prototype_logits(readable, prototypes, present, similarity, temperature, absent)
    counted = rearrange(valid, "n -> n 1") & (targets != 0)
    normaliser = torch.logsumexp(torch.where(valid[:, None], logits, 0), dim=1)
    gap = repeat(normaliser, "n -> n c", c=num_classes) - torch.where(counted, logits, 0)
    return reduce(torch.where(counted, targets * gap, 0), "n c -> n", "sum"), weight


def class_sums(
    features: Tensor,
    labels: Tensor,
    num_classes: int,
    pixel_weight: Tensor | None,
    normalize: bool,
    ignore_index: int,
) -> tuple[Tensor, Tensor]:
    """(M1) sum of w_i f_i and of w_i over the pixels of each class: (C, D) and (C,)."""
    weight = torch.ones_like(features[:, 0]) if pixel_weight is None else pixel_weight
    weight = torch.where(labels == ignore_index, 0, weight.to(features.dtype))
    # An ignored pixel may hold NaN, and 0 * NaN is NaN: it leaves before any arithmetic.
    features = torch.where(rearrange(weight != 0, "n -> n 1"), features, 0)
    if normalize:
        features = unit_rows(features)
    sums, counts = [], []
    for c in range(num_classes):
        member = rearrange((labels == c) & (weight != 0), "n -> n 1")
        mass = rearrange(weight, "n -> n 1")
        sums.append(reduce(torch.where(member, features * mass, 0), "n d -> d", "sum"))
        counts.append(torch.where(member, mass, 0).sum())
    return torch.stack(sums), torch.stack(counts)


def first_of_equals(prototypes: Tensor, present: Tensor) -> Tensor:
    """(C,) the lowest present class with the same prototype, so that rounding breaks no tie."""
    pairs = rearrange(prototypes, "c d -> c 1 d") == rearrange(prototypes, "k d -> 1 k d")
    same = pairs.all(dim=2) & present
    return same.fill_diagonal_(True).long().argmax(dim=1)


def transfer_labels(
    features: Tensor,
    prototypes: Tensor,
    present: Tensor | None,
    threshold: Tensor,
    measure: str,
    similarity: str,
    temperature: float,
    ignore_index: int,
) -> tuple[Tensor, Tensor]:
    """(M6) nearest present prototype, kept where the measure reaches the class's threshold (C,)."""
    present = present_rows(prototypes, present, similarity)
    logits = prototype_logits(features, prototypes, present, similarity, temperature)
    nearest = first_of_equals(prototypes, present)[logits.argmax(dim=1)]
    if measure == "confidence":
        value = torch.softmax(logits, dim=1).amax(dim=1)
    else:
        readable = torch.where(present[:, None], prototypes, 0).to(features.dtype)
        scores = similarities(features, readable, similarity)
        value = scores.gather(1, nearest[:, None])[:, 0]
    unread = torch.isnan(features).any(dim=1)
    value = torch.where(unread, torch.nan, torch.where(present.any(), value, 0))
    kept = (value >= threshold[nearest]) & present.any() & ~unread
    return torch.where(kept, nearest, ignore_index), value


def fuse_labels(base: Tensor, other: Tensor, ignore_index: int) -> Tensor:
    """(M7) the base label where there is one, else the other."""
    return torch.where(base != ignore_index, base, other)


def target_pass(
    features: Tensor,
    static: Tensor | None,
    targets: Tensor | None,
    prototypes: Tensor,
    nearest: Tensor,
    present: Tensor,
    counted: Tensor,
    threshold: Tensor,
    measure: str,
    temperature: float,
    absent: str,
    normalize: bool,
    ignore_index: int,
    transfer: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """(M6) from `nearest`, (M7), (M1) and (M3) of the fused labels, the last summed per class.

    Soft `targets` (N, C) take the fused labels' place in the contrast, (M5).

    Fused labels and measure (N,), loss (C,) of the `counted` classes, sums (C, D), counts (C,).
    """
    labels, value = transfer_labels(
        features, nearest, present, threshold, measure, "cosine", temperature, ignore_index
    )
    if not transfer:
        labels, value = torch.full_like(labels, ignore_index), torch.zeros_like(value)
    if static is not None:
        labels = fuse_labels(static, labels, ignore_index)
    pulled_to = labels if targets is None else targets
    classes = torch.arange(len(prototypes), device=labels.device)
    losses = []
    for c in range(len(prototypes)):
        loss, _ = pixel_prototype_contrast(
            features, pulled_to, prototypes, present, counted & present & (classes == c), None,
            "cosine", temperature, absent, ignore_index,
        )  # fmt: skip
        losses.append(loss.sum())
    sums, counts = class_sums(features, labels, len(prototypes), None, normalize, ignore_index)
    return labels, value, torch.stack(losses), sums, counts


def label_counts(labels: Tensor, num_classes: int, height: int, width: int) -> Tensor:
    """(M8) pixels of each class in each cell of torch's nearest upsampling map, (B, C, h, w)."""
    cells = torch.arange(height * width, dtype=torch.float64).reshape(1, 1, height, width)
    cell_of = torch.nn.functional.interpolate(cells, size=labels.shape[1:], mode="nearest")[0, 0]
    counts = torch.zeros(len(labels), num_classes, height, width)
    for b in range(len(labels)):
        for c in range(num_classes):
            for cell in cell_of[labels[b] == c].long().tolist():
                counts[b, c, cell // width, cell % width] += 1
    return counts


def bilinear_reads(
    inputs: int, outputs: int, align_corners: bool, like: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """(M16) where each output position reads: lower and upper input, and the share of the upper."""
    positions = torch.arange(outputs, device=like.device, dtype=torch.float64)
    if align_corners:
        source = positions * ((inputs - 1) / max(outputs - 1, 1))
    else:
        source = ((positions + 0.5) * (inputs / outputs) - 0.5).clamp_min(0)
    lower = source.long().clamp_max(inputs - 1)
    share = (source - lower).clamp(0, 1)
    return lower, (lower + 1).clamp_max(inputs - 1), share.to(like.dtype)


def bilinear(logits: Tensor, height: int, width: int, align_corners: bool) -> Tensor:
    """(M16) logits (B, C, h, w) at the size of the labels, (B, C, height, width)."""
    left, right, share = bilinear_reads(logits.shape[3], width, align_corners, logits)
    wide = logits[..., left] * (1 - share) + logits[..., right] * share
    top, bottom, share = bilinear_reads(logits.shape[2], height, align_corners, logits)
    share = rearrange(share, "h -> h 1")
    return wide[..., top, :] * (1 - share) + wide[..., bottom, :] * share


def upsampled_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    class_weight: Tensor | None,
    ignore_index: int,
    align_corners: bool,
) -> tuple[Tensor, Tensor]:
    """(M16) v_y (logsumexp_k z_k - z_y) of the upsampled logits z, and v_y, each (B, H, W)."""
    num_classes, (height, width) = logits.shape[1], labels.shape[1:]
    share = torch.ones(num_classes, dtype=logits.dtype, device=logits.device)
    if class_weight is not None:
        share = class_weight.to(logits.dtype)
    index = torch.where(labels == ignore_index, 0, labels).long()
    weight = torch.where(labels == ignore_index, 0, share[index])
    upsampled = bilinear(logits, height, width, align_corners)
    # An ignored pixel may read NaN, and 0 * NaN is NaN: it leaves before any arithmetic.
    upsampled = torch.where(rearrange(weight != 0, "b h w -> b 1 h w"), upsampled, 0)
    own = upsampled.gather(1, rearrange(index, "b h w -> b 1 h w"))
    gap = torch.logsumexp(upsampled, dim=1) - rearrange(own, "b 1 h w -> b h w")
    return torch.where(weight == 0, 0, weight * gap), weight


def moving_average(old: Tensor, batch: Tensor, momentum: float, present: Tensor) -> Tensor:
    """(M9) momentum * old + (1 - momentum) * batch in the rows of present classes."""
    new = momentum * old + (1 - momentum) * batch
    return torch.where(rearrange(present, "c -> c 1"), new, old)


def calibrate(prototypes: Tensor, bias: Tensor, strength: float) -> Tensor:
    """(M11) every prototype moved by its class's domain bias."""
    return prototypes + strength * bias
