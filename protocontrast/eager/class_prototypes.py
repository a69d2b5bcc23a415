"""Class sums, counts and squares by tile: (M1) and (D1), and the way back of the sums."""

from collections.abc import Callable

import torch
from torch import Tensor

from protocontrast.calls import ClassSquaresCall, ClassSumsCall, accumulation_dtype
from protocontrast.eager.lengths import lengths, unit_columns
from protocontrast.eager.products import add_product
from protocontrast.eager.tiles import Tile, holds_nonfinite, tiles, widened, without


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
        if self.weight is not None:
            # A product would spread a weight that is not finite to every class.
            return torch.where(key == self.classes, tile.of(self.weight), 0)
        member = torch.empty(len(self.classes), key.shape[0], dtype=key.dtype, device=key.device)
        return torch.eq(key, self.classes, out=member)

    def columns_of(self, columns: Tensor, tile: Tile) -> Tensor:
        """Each pixel's own column of (D, C), weighed, (D, n); 0 where it has no class."""
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
    members = Members(features, call.labels, call.pixel_weight, num_classes, call.ignore_index)
    images, channels, _ = features.shape
    groups = images if call.per_image else 1
    counts = members.key.new_zeros(groups, num_classes)
    for tile in tiles(features):
        counts[tile.image if call.per_image else 0] += members.of(tile).sum(dim=1)

    def block(tile: Tile) -> Tensor:
        found = widened(features, tile)
        return unit_columns(found) if call.normalize else found

    sums = members.key.new_zeros(groups, num_classes, channels)
    return added_by_class(sums, features, members, block), counts


def added_by_class(
    sums: Tensor, features: Tensor, members: Members, block: Callable[[Tile], Tensor]
) -> Tensor:
    """Sums (G, C, D) of the blocks (D, n) of all tiles, G = B per image, else 1.

    A product with one-hot labels spreads what is not finite to every class, since 0 * NaN is NaN.
    So a host looks at the sums and begins again, and a device, which is not asked, marks at once.
    """
    ways = (add_product, add_marked) if features.device.type == "cpu" else (add_marked,)
    for add in ways:
        sums.zero_()
        for tile in tiles(features):
            add(sums[tile.image if len(sums) > 1 else 0], members.of(tile), block(tile))
        if not holds_nonfinite(sums):
            break
    return sums


def add_marked(total: Tensor, member: Tensor, block: Tensor) -> None:
    """total (C, D) += member (C, n) @ block', where what is not finite reaches its own class only.

    Two products more find it.
    """
    block = without(block, member.sum(dim=0) == 0)
    finite = torch.isfinite(block)
    total.addmm_(member, torch.where(finite, block, 0).t())
    lost = torch.isnan(block)
    for signed, value in ((block > 0, torch.inf), (block < 0, -torch.inf)):
        reached = (signed & ~finite | lost).to(block.dtype)
        # NaN is the sum of both infinities.
        total += torch.where((member != 0).to(block.dtype) @ reached.t() > 0, value, 0)


def class_sums_backward(grad_output: Tensor, call: ClassSumsCall, wants: tuple[bool]) -> Tensor:
    """Gradient of the features from that of the sums (G, C, D).

    Plain: dL/df_i = w_i g_y, and the features are not read. Normalised, q = f / |f|:
    dL/df_i = w_i (g_y - q (g_y . q)) / |f|.
    """
    features, normalize = call.features, call.normalize
    members = Members(features, call.labels, call.pixel_weight, call.num_classes, call.ignore_index)
    gradient = torch.empty_like(features)
    columns = grad_output.to(members.key.dtype).transpose(1, 2).contiguous()
    for tile in tiles(features):
        # A product would send what is not finite on to the pixels of every class.
        direct = members.columns_of(columns[tile.image if len(columns) > 1 else 0], tile)
        if normalize:
            block = without(widened(features, tile), members.unused(tile))
            block, inverse, size = lengths(block)
            direct.mul_(inverse)
            radial = (direct * block).sum(dim=0).mul_(inverse[0]).mul_(inverse[0])
            direct.addcmul_(block, radial, value=-1)
            direct = direct if size is None else direct.div_(size)
        tile.of(gradient).copy_(direct)
    return gradient


def class_squares(call: ClassSquaresCall) -> Tensor:
    """Sums of w_i (f_i - mean_y)^2 like the means (G, C, D): G = B per image, else 1."""
    features, means = call.features, call.means
    members = Members(features, call.labels, call.pixel_weight, means.shape[1], call.ignore_index)
    columns = means.to(members.key.dtype).transpose(1, 2).contiguous()
    squares = torch.zeros_like(means, dtype=members.key.dtype)

    def deviations(tile: Tile) -> Tensor:
        """Squared distance of each channel from its class's mean, (D, n); 0 where unused."""
        block = widened(features, tile)
        if call.normalize:
            block = unit_columns(block)
        centre = columns[tile.image if len(columns) > 1 else 0]
        index = tile.of(members.key).clamp(0, means.shape[1] - 1).long()
        gap = block - centre.index_select(1, index)
        return without(gap.square_(), members.unused(tile))

    return added_by_class(squares, features, members, deviations)
