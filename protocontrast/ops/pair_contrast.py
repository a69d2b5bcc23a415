"""The operator of contrast between pairs of pixels: loss per anchor, and its gradients."""

import torch
from torch import Tensor

from protocontrast import naive
from protocontrast.calls import PairContrastCall, PairRolesCall, accumulation_dtype
from protocontrast.eager import pair_contrast as eager_pair_contrast
from protocontrast.native import pair_contrast as native_pair_contrast
from protocontrast.ops.backend import full_precision
from protocontrast.ops.gradient import private_copy, private_temperature, snapshot_if_traced
from protocontrast.ops.operator import Implementation, Operator, named
from protocontrast.ops.reduction import reduced


def _empty(call: PairRolesCall) -> list[Tensor]:
    anchors, dtype = call.anchors, accumulation_dtype(call.anchors)
    count = anchors.shape[0]
    return [anchors.new_empty(shape, dtype=dtype) for shape in ((count,), (count,), (3, count))]


def _triton() -> Implementation:
    from protocontrast.kernels import pair_contrast as kernels

    return named(kernels, "pair_contrast")


OPERATOR = Operator(
    "pair_contrast", PairRolesCall, _empty, triton=_triton,
    eager=named(eager_pair_contrast, "pair_contrast"),
    native=named(native_pair_contrast, "pair_contrast"),
    results=3, saved=[2], differentiable=["anchors", "keys"], unread=["anchor_weight"],
)  # fmt: skip


def _naive(call: PairContrastCall) -> tuple[Tensor, Tensor]:
    dtype, negatives = accumulation_dtype(call.anchors), call.negatives
    rows = call._replace(
        anchors=call.anchors.to(dtype),
        keys=call.keys.to(dtype),
        negatives=None if negatives is None else negatives.to(dtype),
        anchor_weight=private_copy(call.anchor_weight),
        temperature=private_temperature(call.temperature),
    )
    with full_precision(call.anchors):
        return naive.pair_contrast(rows)


def _over_temperature(call: PairContrastCall) -> PairContrastCall:
    """A temperature that is a tensor divides the anchors, which carry its gradient.

    A distance is that of all rows over the temperature.
    """
    temperature = private_temperature(call.temperature)
    if not isinstance(temperature, Tensor):
        return call
    unit, apart = call.similarity == "cosine", call.similarity == "euclidean"

    def other(rows: Tensor) -> Tensor:
        if unit or apart:
            return _divided(snapshot_if_traced(rows), unit, temperature if apart else None)
        return rows

    return call._replace(
        anchors=_divided(call.anchors, unit, temperature),
        keys=other(call.keys),
        negatives=None if call.negatives is None else other(call.negatives),
        similarity="dot" if unit else call.similarity,
        temperature=1.0,
    )


def _divided(rows: Tensor, unit: bool, divisor: Tensor | None) -> Tensor:
    """Rows, if wanted of unit length, over a divisor; one that is not finite has no gradient.

    Without a gradient it would be NaN where nothing comes back to it.
    """
    wide = rows.to(accumulation_dtype(rows))
    finite = torch.isfinite(wide).all(dim=1, keepdim=True)
    found = torch.where(finite, wide, 0)
    other = torch.where(finite, 0, wide.detach())
    if unit:
        # Squares of large and of tiny numbers are no numbers.
        largest = found.detach().abs().amax(dim=1, keepdim=True)
        nothing = largest == 0
        found = found / torch.where(nothing, 1, largest)
        length = torch.where(nothing, 1, found).norm(dim=1, keepdim=True)
        found, other = torch.where(nothing, 0, found / length), other * torch.nan
    if divisor is not None:
        found, other = found / divisor, other / divisor.detach()
    return torch.where(finite, found, other)


def _in_one_dtype(call: PairContrastCall) -> PairContrastCall:
    """Products need operands of one dtype, the widest of those given."""
    wide = torch.promote_types(call.anchors.dtype, call.keys.dtype)
    if call.negatives is not None:
        wide = torch.promote_types(wide, call.negatives.dtype)
    negatives = snapshot_if_traced(call.negatives)
    return call._replace(
        anchors=call.anchors.to(wide),
        keys=snapshot_if_traced(call.keys).to(wide),
        negatives=None if negatives is None else negatives.to(wide),
    )


def _roles(call: PairContrastCall) -> PairRolesCall:
    """All keys (K + M, D) in one matrix, with their labels as positives and as negatives."""
    keys, positive, negative = call.keys, call.key_labels, call.key_labels
    if call.negatives is not None and call.negative_labels is not None:
        keys = torch.cat([keys, call.negatives])
        ignored = torch.full_like(call.negative_labels, call.ignore_index)
        positive = torch.cat([call.key_labels, ignored])
        ignored = torch.full_like(call.key_labels, call.ignore_index)
        negative = torch.cat([ignored, call.negative_labels])
    # A tensor has divided the rows by now.
    temperature: float = call.temperature  # type: ignore[assignment]
    return PairRolesCall(
        call.anchors, call.anchor_labels, keys, positive, negative,
        snapshot_if_traced(call.anchor_weight), call.similarity, temperature,
        call.all_in_denominator, call.exclude_self, call.ignore_index,
    )  # fmt: skip


def pair_contrast(call: PairContrastCall, reduction: str, backend: str) -> Tensor:
    """The loss: (A,) for "none", else () with 0 where no anchor counts."""
    if backend == "naive":
        loss, weight = _naive(_in_one_dtype(call))
        return reduced(loss, weight, reduction)
    return OPERATOR.loss(_roles(_in_one_dtype(_over_temperature(call))), reduction, backend)
