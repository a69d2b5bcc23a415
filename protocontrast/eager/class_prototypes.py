"""Class sums and counts in one read: (M1) for `class_prototypes`, and the way back."""

import torch
from torch import Tensor

from protocontrast.eager.tiles import Tile, accumulation_dtype, tiles, widened, without


def _weights(
    features: Tensor, labels: Tensor, pixel_weight: Tensor | None, ignore_index: int
) -> Tensor:
    """Weight of every pixel (B, P), 0 where ignored."""
    dtype = accumulation_dtype(features)
    valid = labels != ignore_index
    if pixel_weight is None:
        return valid.to(dtype)
    return torch.where(valid, pixel_weight.to(dtype), 0)


def _inverse_length(block: Tensor) -> Tensor:
    squared = torch.ones_like(block[:, :1]).t() @ (block * block)
    return squared.rsqrt().masked_fill_(squared == 0, 0)


def _membership(tile: Tile, labels: Tensor, classes: Tensor, weight: Tensor) -> Tensor:
    """One-hot labels times weights, (C, n), in the accumulation dtype."""
    member = torch.empty(
        len(classes), tile.stop - tile.start, dtype=weight.dtype, device=weight.device
    )
    return torch.eq(tile.of(labels), classes, out=member).mul_(tile.of(weight))


def class_sums(
    features: Tensor,
    labels: Tensor,
    pixel_weight: Tensor | None,
    num_classes: int,
    normalize: bool,
    per_image: bool,
    ignore_index: int,
) -> tuple[Tensor, Tensor]:
    """Sums (G, C, D) and counts (G, C) with G = B per image, else 1."""
    dtype = accumulation_dtype(features)
    weight = _weights(features, labels, pixel_weight, ignore_index)
    classes = torch.arange(num_classes, dtype=labels.dtype, device=labels.device)[:, None]
    images, channels, _ = features.shape
    groups = images if per_image else 1
    sums = torch.zeros(groups, channels, num_classes, dtype=dtype, device=features.device)
    counts = torch.zeros(groups, num_classes, dtype=dtype, device=features.device)
    on_host = features.device.type == "cpu"
    for tile in tiles(features):
        group = tile.image if per_image else 0
        block = widened(features, tile)
        member = _membership(tile, labels, classes, weight)
        counts[group] += member.sum(dim=1)
        if on_host:
            part = _plain_sum(block, member, normalize)
            if not bool(torch.isfinite(part).all()):
                part = _separate_sum(block, member, tile.of(labels), tile.of(weight), normalize)
        else:
            part = _marked_sum(block, member, tile.of(weight), normalize)
        sums[group] += part
    return sums.transpose(1, 2).contiguous(), counts


def _plain_sum(block: Tensor, member: Tensor, normalize: bool) -> Tensor:
    if normalize:
        member = member * _inverse_length(block)
    return block @ member.t()


def _separate_sum(
    block: Tensor, member: Tensor, labels: Tensor, weight: Tensor, normalize: bool
) -> Tensor:
    """The same sum where some pixel is NaN or infinite: it reaches its own class only.

    A product with one-hot labels would spread it to every class, since 0 * NaN is NaN.
    """
    kept = weight != 0
    block = without(block, ~kept)
    if normalize:
        block = block * _inverse_length(block)
    out = torch.zeros(block.shape[0], member.shape[0], dtype=block.dtype, device=block.device)
    return out.index_add_(
        1, torch.where(kept, labels, 0).long(), torch.where(kept, block * weight, 0)
    )


def _marked_sum(block: Tensor, member: Tensor, weight: Tensor, normalize: bool) -> Tensor:
    """The same sum without asking the host: classes with a non-finite pixel are marked NaN."""
    block = without(block, weight == 0)
    unread = ~torch.isfinite(block).all(dim=0)
    part = _plain_sum(without(block, unread), member, normalize)
    marked = (member * unread).sum(dim=1) != 0
    return torch.where(marked, torch.nan, part)


def class_sums_backward(
    upstream: Tensor,
    features: Tensor,
    labels: Tensor,
    pixel_weight: Tensor | None,
    normalize: bool,
    ignore_index: int,
) -> Tensor:
    """Gradient of the features from that of the sums (G, C, D).

    Plain: dL/df_i = w_i g_y, and the features are not read. Normalised, q = f / |f|:
    dL/df_i = w_i (g_y - q (g_y . q)) / |f|.
    """
    weight = _weights(features, labels, pixel_weight, ignore_index)
    num_classes = upstream.shape[1]
    classes = torch.arange(num_classes, dtype=labels.dtype, device=labels.device)[:, None]
    gradient = torch.empty_like(features)
    columns = upstream.to(weight.dtype).transpose(1, 2).contiguous()
    for tile in tiles(features):
        slope = columns[tile.image if len(columns) > 1 else 0]
        member = _membership(tile, labels, classes, weight)
        into = tile.of(gradient)
        if normalize:
            block = without(widened(features, tile), tile.of(weight) == 0)
            inverse = _inverse_length(block)
            pulled = slope @ member.mul_(inverse)
            radial = (pulled * block).sum(dim=0).mul_(inverse[0]).mul_(inverse[0])
            into.copy_(pulled.addcmul_(block, radial, value=-1))
        else:
            into.copy_(slope @ member)
    return gradient
