"""Euclidean distances, also where the squares of differences leave the range of their dtype."""

import torch
from torch import Tensor

from protocontrast.eager.lengths import SAFE_EXPONENT, sizes


def distances(rows: Tensor, others: Tensor) -> Tensor:
    """Distances (C, n) between rows (C, D) and others (n, D)."""
    # Differences, not |f|^2 + |p|^2 - 2 f.p, which has no digit left near distance zero.
    exact = "donot_use_mm_for_euclid_dist"
    if rows.device.type == "cpu" and rows.numel() and others.numel():
        found = torch.cdist(rows, others, compute_mode=exact)
        limit = 2.0 ** (SAFE_EXPONENT[found.dtype] / 2)
        low, high = (float(one) for one in torch.aminmax(found))
        if 1 / limit <= low and high <= limit:
            return found
    return torch.stack([_from_one(row, others) for row in rows])


def _from_one(row: Tensor, others: Tensor) -> Tensor:
    """The distances (n,) of others (n, D) from one row (D,)."""
    gaps = others - row
    size = sizes(gaps, 1)
    return gaps.div_(size).square_().sum(dim=1).sqrt_().mul_(size[:, 0])
