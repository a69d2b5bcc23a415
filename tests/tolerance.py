"""The one tolerance of this suite: a small multiple of plain torch's own error, plus a floor.

    |ours - truth| <= FACTOR * max|plain - truth| + floor

`truth` is float64, `plain` the plain composition in the dtype of `ours`. Its largest error over the
tensor counts, since the error of a single element is often 0 by luck.
"""

import torch
from torch import Tensor

FACTOR = 4.0
STEPS = 16.0


def floor_of(truth: Tensor, dtype: torch.dtype, scale: float | None) -> float:
    """What is allowed where plain torch is exact by luck.

    Two roundings to `dtype` of the largest value, and `STEPS` units in the last place of the
    accumulation at `scale`, the size of the terms before they cancel.
    """
    largest = float(truth.abs().max())
    wide = torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32)
    narrow = torch.finfo(dtype)
    subnormal = narrow.tiny * narrow.eps
    return (
        2 * narrow.eps * largest
        + STEPS * wide.eps * (largest if scale is None else scale)
        + subnormal
    )


def assert_within(
    ours: Tensor,
    plain: Tensor,
    truth: Tensor,
    *,
    scale: float | None = None,
    factor: float = FACTOR,
    name: str = "result",
) -> None:
    """AssertionError unless `ours` is as exact as the tolerance asks, with `plain`'s dtype.

    NaN and infinity must stand exactly where they stand in `truth`.
    """
    if truth.dtype != torch.float64:
        raise TypeError(f"assert_within: expected truth in float64, got {truth.dtype}.")
    ours, plain, truth = ours.detach(), plain.detach(), truth.detach()
    for side, tensor in (("ours", ours), ("plain", plain)):
        if tensor.shape != truth.shape:
            raise AssertionError(
                f"{name}: {side} {tuple(tensor.shape)}, truth {tuple(truth.shape)}"
            )
        pattern = torch.nan_to_num(tensor.double(), nan=2.0, posinf=1.0, neginf=-1.0)
        expected = torch.nan_to_num(truth, nan=2.0, posinf=1.0, neginf=-1.0)
        odd = ~torch.isfinite(truth)
        if not torch.equal(~torch.isfinite(tensor), odd) or not torch.equal(
            pattern[odd], expected[odd]
        ):
            raise AssertionError(f"{name}: {side} is not finite in other places than the truth")
    if ours.dtype != plain.dtype:
        raise AssertionError(f"{name}: dtype {ours.dtype}, plain {plain.dtype}")
    finite = torch.isfinite(truth)
    truth = truth[finite]
    if truth.numel() == 0:
        return
    error = (ours.double()[finite] - truth).abs().max().item()
    plain_error = (plain.double()[finite] - truth).abs().max().item()
    floor = floor_of(truth, ours.dtype, scale)
    if not error <= factor * plain_error + floor:
        raise AssertionError(
            f"{name}: error {error:.3e} > {factor} * plain error {plain_error:.3e} "
            f"+ floor {floor:.3e}; largest value {truth.abs().max().item():.3e}"
        )
