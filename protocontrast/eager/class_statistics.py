"""Class sums of squared deviations in one read: (D1) for `class_statistics`."""

import torch
from torch import Tensor

from protocontrast.calls import ClassSquaresCall
from protocontrast.eager.class_prototypes import Members, added_by_class
from protocontrast.eager.lengths import unit_columns
from protocontrast.eager.tiles import Tile, widened, without


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
