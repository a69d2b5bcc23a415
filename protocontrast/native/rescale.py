"""A gradient times what its pixels' classes weigh, in C, in place."""

import torch
from torch import Tensor

from protocontrast.native.calls import Rescale, arrays
from protocontrast.native.library import machine, run


def rescale(
    gradient: Tensor,
    labels: Tensor,
    factors: Tensor,
    ignore_index: int,
    rows: Tensor | None = None,
    row_factor: float = 1.0,
) -> None:
    """Each pixel of (B, D, P) times the factor of its class, plus the row of it, if given.

    `factors` are (C + 1,), the last one of pixels without a class; rows are (G, C, D), G = B or 1.
    """
    given = arrays(gradient, labels, factors, rows)
    run(
        "rescale",
        Rescale(
            machine(gradient.dtype == torch.float64),
            *gradient.shape,
            factors.shape[0] - 1,
            1 if rows is None else rows.shape[0],
            *given,
            ignore_index,
            row_factor,
        ),
    )
