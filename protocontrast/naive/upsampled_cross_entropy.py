"""Cross-entropy of upsampled logits (M16)."""

import torch
from einops import rearrange
from torch import Tensor

from protocontrast.calls import UpsampledCall


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


def part(values: Tensor, share: Tensor) -> Tensor:
    """Values times their share of a blend; what has no share is not read, infinity times 0 is 0."""
    return torch.where(share == 0, 0, values * share)


def bilinear(logits: Tensor, size: tuple[int, ...], align_corners: bool) -> Tensor:
    """(M16) logits (B, C, h, w) at the size of the labels, (B, C, *size)."""
    height, width = size
    left, right, share = bilinear_reads(logits.shape[3], width, align_corners, logits)
    wide = part(logits[..., left], 1 - share) + part(logits[..., right], share)
    top, bottom, share = bilinear_reads(logits.shape[2], height, align_corners, logits)
    share = rearrange(share, "h -> h 1")
    return part(wide[..., top, :], 1 - share) + part(wide[..., bottom, :], share)


def trilinear(logits: Tensor, size: tuple[int, ...], align_corners: bool) -> Tensor:
    """(M16) logits (B, C, z, h, w) of a volume at the size of the labels, (B, C, *size)."""
    below, above, share = bilinear_reads(logits.shape[2], size[0], align_corners, logits)
    share = rearrange(share, "z -> z 1 1")
    deep = part(logits[:, :, below], 1 - share) + part(logits[:, :, above], share)
    slices = bilinear(rearrange(deep, "b c z h w -> (b z) c h w"), size[1:], align_corners)
    return rearrange(slices, "(b z) c h w -> b c z h w", z=size[0])


def upsampled_cross_entropy(call: UpsampledCall) -> tuple[Tensor, Tensor]:
    """(M16) v_y (logsumexp_k z_k - z_y) of the upsampled logits z, and v_y, like the labels.

    Both are 0 where z_y is -inf: there the pixel's class is absent. Smoothed, it is (1 - eps) of
    that and eps / C' of the sum over all C' classes of the pixel, in place of y.
    """
    logits, labels, label_smoothing = call.logits, call.labels, call.label_smoothing
    num_classes, size = logits.shape[1], labels.shape[1:]
    share = torch.ones(num_classes, dtype=logits.dtype, device=logits.device)
    if call.class_weight is not None:
        share = call.class_weight.to(logits.dtype)
    ignored = labels == call.ignore_index
    index = torch.where(ignored, 0, labels).long()
    weight = torch.where(ignored, 0, share[index])
    upsample = bilinear if len(size) == 2 else trilinear
    upsampled = upsample(logits, size, call.align_corners)
    absent = upsampled.gather(1, rearrange(index, "b ... -> b 1 ...")) == -torch.inf
    weight = torch.where(rearrange(absent, "b 1 ... -> b ..."), 0, weight)
    # An ignored pixel may read NaN, and 0 * NaN is NaN: it leaves before any arithmetic.
    read = weight != 0
    if label_smoothing:
        there = upsampled != -torch.inf
        shares = torch.where(there.movedim(1, -1), share, 0)
        own_class = rearrange(~absent, "b 1 ... -> b ...")
        read = ~ignored & own_class & (shares != 0).any(dim=-1)
    upsampled = torch.where(rearrange(read, "b ... -> b 1 ..."), upsampled, 0)
    own = upsampled.gather(1, rearrange(index, "b ... -> b 1 ..."))
    lse = torch.logsumexp(upsampled, dim=1)
    gap = lse - rearrange(own, "b 1 ... -> b ...")
    loss = torch.where(weight == 0, 0, weight * gap)
    if label_smoothing:
        gaps = (rearrange(lse, "b ... -> b 1 ...") - upsampled).movedim(1, -1)
        even = torch.where(shares == 0, 0, gaps * shares).sum(dim=-1)
        even = even / there.sum(dim=1).clamp_min(1)
        loss = (1 - label_smoothing) * loss + label_smoothing * torch.where(read, even, 0)
    return loss, weight
