"""Weights of classes by how often they occur: `frequency_weights`."""

import torch
from torch import Tensor

from protocontrast.calls import accumulation_dtype
from protocontrast.checks import (
    FEATURE_DTYPES,
    LABEL_DTYPES,
    check_factor,
    check_masses,
    check_tensor,
    public,
    sentence,
)
from protocontrast.functional.precision import widest
from protocontrast.ops.backend import readable

SAME = 1e-9
"""Logarithms of frequencies that lie closer are equal: what rounding leaves is no deviation."""


@public
@torch.no_grad()
def frequency_weights(counts: Tensor, *, strength: float = 0.05) -> Tensor:
    """Class weights around 1 that grow with the rarity of the class.

        w_c = max(0, 1 + strength (mean_k log n_k - log n_c) / std_k log n_k)

    Mean and sample standard deviation are over the classes that occur.

    Args:
        counts: pixels or frequencies of the classes, >= 0, any integer or floating dtype; what
            multiplies all of them cancels.
        strength: weight of one standard deviation, any finite number; negative favours frequent
            classes.

    Shape:
        counts (C,). Result (C,).

    Returns:
        float32 (float64 for float64 counts), without gradient, >= 0: `class_weight` of the losses.
        NaN for all of them where one count is NaN.
        1 for classes that do not occur, and for all where fewer than two occur or all are equally
        frequent.

    Raises:
        ValueError: not one dimension, or a wrong strength. Or a count below 0 or infinite, which is
            looked for on a CPU alone; elsewhere, and in a compiled program, it gives NaN.
        TypeError: `counts` is no tensor of numbers.

    Source:
        Yang et al., arXiv 2111.10339 (night-time adaptation), as released; (P8) of docs/parts.md.

    Example:
        >>> import torch
        >>> [round(w, 4) for w in frequency_weights(torch.tensor([1000, 100, 10, 0])).tolist()]
        [0.95, 1.0, 1.05, 1.0]
    """
    check_tensor("counts", counts)
    if counts.dtype not in (*FEATURE_DTYPES, *LABEL_DTYPES):
        requirement = "of an integer or floating dtype"
        raise TypeError(sentence("counts", requirement, counts.dtype))
    if counts.dim() != 1 or counts.shape[0] == 0:
        requirement = "of shape (C,) with at least one class"
        raise ValueError(sentence("counts", requirement, tuple(counts.shape)))
    check_factor("strength", strength)
    if readable(counts):
        check_masses("counts", counts)
    seen = counts != 0
    logs = widest(counts).log()
    number = seen.sum()
    mean = torch.where(seen, logs, 0).sum() / number.clamp_min(1)
    rarity = torch.where(seen, mean - logs, 0)
    deviation = (rarity.square().sum() / (number - 1).clamp_min(1)).sqrt()
    weights = torch.where(deviation <= SAME, 1, 1 + float(strength) * rarity / deviation).clamp_min(
        0
    )
    return weights.to(accumulation_dtype(counts))
