"""Class sums and counts in one read: (M1) for `class_prototypes`, and the way back."""

import torch
from torch import Tensor

from protocontrast.calls import ClassSumsCall
from protocontrast.eager.lengths import lengths, unit_columns
from protocontrast.eager.products import add_product
from protocontrast.eager.tiles import (
    Tile,
    accumulation_dtype,
    class_rows,
    holds_nonfinite,
    tiles,
    widened,
    without,
)

ROWS = 4096
"""Pixels that are added up one after another before the sum joins the others, to keep digits."""


class Members:
    """Which pixel counts how much for which class."""

    def __init__(
        self,
        features: Tensor,
        labels: Tensor,
        pixel_weight: Tensor | None,
        num_classes: int,
        ignore_index: int,
    ) -> None:
        dtype = accumulation_dtype(features)
        used = labels != ignore_index
        self.weight = None
        if pixel_weight is not None:
            self.weight = torch.where(used, pixel_weight.to(dtype), 0)
            used = used & (self.weight != 0)
        # Compared as floats, which is several times faster on CPU than as integers; -1 is no class.
        self.key = torch.where(used, labels.to(dtype), -1)
        self.classes = torch.arange(num_classes, dtype=dtype, device=labels.device)[:, None]

    def of(self, tile: Tile) -> Tensor:
        """One-hot labels times weights, (C, n)."""
        key = tile.of(self.key)
        member = torch.empty(len(self.classes), key.shape[0], dtype=key.dtype, device=key.device)
        torch.eq(key, self.classes, out=member)
        return member if self.weight is None else member.mul_(tile.of(self.weight))

    def columns_of(self, columns: Tensor, tile: Tile) -> Tensor:
        """Each pixel's own column of (D, C), weighed, (D, n); 0 where it has no class.

        That is the product with `of` where all columns are finite.
        """
        key, number = tile.of(self.key), len(self.classes)
        own = torch.where((key < 0) | (key >= number), number, key).long()
        found = torch.nn.functional.pad(columns, (0, 1)).index_select(1, own)
        return found if self.weight is None else found.mul_(tile.of(self.weight))

    def unused(self, tile: Tile) -> Tensor:
        """Pixels of no class, (n,) bool."""
        return tile.of(self.key) < 0


def class_sums(call: ClassSumsCall) -> tuple[Tensor, Tensor]:
    """Sums (G, C, D) and counts (G, C) with G = B per image, else 1."""
    features, num_classes = call.features, call.num_classes
    normalize, per_image = call.normalize, call.per_image
    if added_by_pixel(features, num_classes) and call.pixel_weight is None and not normalize:
        return _sums_of_rows(call)
    members = Members(features, call.labels, call.pixel_weight, num_classes, call.ignore_index)
    images, channels, _ = features.shape
    groups = images if per_image else 1
    sums = [class_rows(features, num_classes) for _ in range(groups)]
    counts = members.key.new_zeros(groups, num_classes)
    on_host = features.device.type == "cpu"
    add = _add if on_host else add_marked
    # The features pass by once; what is read again, and is to stay in cache, are the members.
    once = on_host and features.dtype == members.key.dtype and not normalize
    rows = num_classes if once else None
    for tile in tiles(features, rows):
        group = tile.image if per_image else 0
        member = members.of(tile)
        counts[group] += member.sum(dim=1)
        add(sums[group], widened(features, tile), member, members.unused(tile), normalize)
    found = torch.stack(sums) if groups else members.key.new_zeros(0, num_classes, channels)
    if on_host and holds_nonfinite(found):
        found.zero_()
        for tile in tiles(features):
            total = found[tile.image if per_image else 0]
            _add_separately(total, widened(features, tile), members, tile, normalize)
    return found, counts


def lie_as_rows(features: Tensor) -> bool:
    """Whether pixels lie one after another, all channels of each together, in the final dtype."""
    on_host = features.device.type == "cpu"
    return on_host and features.stride(1) == 1 and features.dtype == accumulation_dtype(features)


def added_by_pixel(features: Tensor, num_classes: int) -> bool:
    """Whether sums of pixels cost less than a product with one-hot labels, which counts classes.

    Pixels that do not lie as rows are copied to do so, which many channels make dear.
    """
    on_host = features.device.type == "cpu" and features.dtype == accumulation_dtype(features)
    many_for_a_product = num_classes >= 100 and features.shape[1] <= 128
    return on_host and (features.stride(1) == 1 or many_for_a_product)


def _row_of(labels: Tensor, num_classes: int, ignore_index: int) -> Tensor:
    """The row of each pixel's class; ignored pixels share one behind the classes."""
    key = labels.long()
    return torch.where(key == ignore_index, num_classes, key)


def _sums_of_rows(call: ClassSumsCall) -> tuple[Tensor, Tensor]:
    """The same by adding each pixel to its class: no product, whatever the number of classes.

    Ignored pixels have a row of their own, so what they hold reaches no class.
    """
    features, num_classes, per_image = call.features, call.num_classes, call.per_image
    images, channels, pixels = features.shape
    groups = images if per_image else 1
    key = _row_of(call.labels, num_classes, call.ignore_index)
    sums = features.new_zeros(groups, num_classes, channels)
    counts = features.new_zeros(groups, num_classes)
    for image in range(images):
        group = image if per_image else 0
        for start in range(0, pixels, ROWS):
            some = slice(start, start + ROWS)
            rows = features.new_zeros(num_classes + 1, channels)
            rows.index_add_(0, key[image, some], features[image, :, some].t())
            sums[group] += rows[:num_classes]
        counts[group] += torch.bincount(key[image], minlength=num_classes + 1)[:num_classes]
    return sums, counts


def _add(total: Tensor, block: Tensor, member: Tensor, unused: Tensor, normalize: bool) -> None:
    if normalize:
        block, inverse, _ = lengths(block)
        member = member * inverse
    add_product(total, member, block)


def add_marked(
    total: Tensor, block: Tensor, member: Tensor, unused: Tensor, normalize: bool
) -> None:
    """The same without asking the host: what is not finite is found by two products more."""
    block = without(block, unused)
    if normalize:
        block = unit_columns(block)
    finite = torch.isfinite(block)
    total.addmm_(member, torch.where(finite, block, 0).t())
    lost = torch.isnan(block)
    for signed, value in ((block > 0, torch.inf), (block < 0, -torch.inf)):
        reached = (signed & ~finite | lost).to(block.dtype)
        # NaN is the sum of both infinities.
        total += torch.where((member != 0).to(block.dtype) @ reached.t() > 0, value, 0)


def _add_separately(
    total: Tensor, block: Tensor, members: Members, tile: Tile, normalize: bool
) -> None:
    """The same where some pixel is NaN or infinite: it reaches its own class only.

    A product with one-hot labels spreads it to every class, since 0 * NaN is NaN.
    """
    unused = members.unused(tile)
    block = without(block, unused)
    if normalize:
        block = unit_columns(block)
    if members.weight is not None:
        block = without(block * tile.of(members.weight), unused)
    total.index_add_(0, tile.of(members.key).clamp_min(0).long(), block.t())


def class_sums_backward(grad_output: Tensor, call: ClassSumsCall, wants: tuple[bool]) -> Tensor:
    """Gradient of the features from that of the sums (G, C, D).

    Plain: dL/df_i = w_i g_y, and the features are not read. Normalised, q = f / |f|:
    dL/df_i = w_i (g_y - q (g_y . q)) / |f|.
    """
    features, normalize = call.features, call.normalize
    if lie_as_rows(features) and call.pixel_weight is None and not normalize:
        return _rows_of_classes(grad_output, features, call.labels, call.ignore_index)
    members = Members(features, call.labels, call.pixel_weight, call.num_classes, call.ignore_index)
    gradient = torch.empty_like(features)
    columns = grad_output.to(members.key.dtype).transpose(1, 2).contiguous()
    apart = holds_nonfinite(columns)
    for tile in tiles(features):
        of_classes = columns[tile.image if len(columns) > 1 else 0]
        # A product would send what is not finite on to the pixels of every class.
        own = members.columns_of(of_classes, tile) if apart else None
        member = members.of(tile)
        into = tile.of(gradient)
        if normalize:
            block = without(widened(features, tile), members.unused(tile))
            block, inverse, size = lengths(block)
            direct = of_classes @ member.mul_(inverse) if own is None else own.mul_(inverse)
            radial = (direct * block).sum(dim=0).mul_(inverse[0]).mul_(inverse[0])
            direct.addcmul_(block, radial, value=-1)
            into.copy_(direct if size is None else direct.div_(size))
        else:
            into.copy_(of_classes @ member if own is None else own)
    return gradient


def _rows_of_classes(
    grad_output: Tensor, features: Tensor, labels: Tensor, ignore_index: int
) -> Tensor:
    """The plain gradient where pixels lie as rows: each is its class's row, or 0."""
    groups, num_classes, _ = grad_output.shape
    key = _row_of(labels, num_classes, ignore_index)
    rows = torch.nn.functional.pad(grad_output.to(features.dtype), (0, 0, 0, 1))
    gradient = torch.empty_like(features)
    for image, into in enumerate(gradient):
        own = rows[image if groups > 1 else 0]
        if into.t().is_contiguous():
            torch.index_select(own, 0, key[image], out=into.t())
        else:
            into.copy_(own[key[image]].t())
    return gradient
