"""Products of 16-bit features in kernels lose nothing, and survive numbers that float16 lacks."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from protocontrast import (
    class_prototypes,
    pair_contrast,
    pixel_prototype_contrast,
    prototype_logits,
)
from tests.agreement import Call, values_and_gradients, widened
from tests.strategies import ContrastCase, label_map, normal


@pytest.mark.parametrize(
    ("precision", "low", "high"),
    [("highest", 0, 1e-6), ("high", 0, 1e-6), ("medium", 1e-5, 1e-2)],
)
def test_16_bit_operands_lose_nothing_unless_asked(precision: str, low: float, high: float) -> None:
    """float16 products of two halves are as exact as float32 ones; the upper half alone is not."""
    case = ContrastCase(6, (2, 33, 40), 5, dtype=torch.float16)
    call = {**case.tensors(), **case.settings}
    truth = pixel_prototype_contrast(**widened(call), backend="naive")
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        loss = pixel_prototype_contrast(**call, backend="triton")
    finally:
        torch.set_float32_matmul_precision(before)
    assert low <= abs(float(loss) / float(truth) - 1) <= high


def test_float16_products_survive_tiny_and_huge_numbers() -> None:
    """A mean over many pixels has gradients, and a long prototype entries, outside float16."""
    case = ContrastCase(
        8, (1, 16, 9), 3, dtype=torch.float16, similarity="dot", temperature=1e5, reduction="sum"
    )
    call = {**case.tensors(), **case.settings}
    call["prototypes"] = call["prototypes"] * 1e5
    call["pixel_weight"] = torch.full((1, 9), 1e-6)
    ours, plain = (
        values_and_gradients(
            pixel_prototype_contrast, {**call, "backend": backend}, ["prototypes"], 0
        )[1]["prototypes"]
        for backend in ("triton", "naive")
    )
    torch.testing.assert_close(ours, plain, rtol=1e-5, atol=0)


TINY = 1e-9
"""Of pixels' weights: nothing in float16."""


def _sums_of_tiny_slopes(name: str, channels: int) -> tuple[Tensor, Tensor]:
    """What 39 pixels sum to beside a long one that pulls nothing: of kernels in float16, and of
    `naive` in float64."""
    features, prototypes = normal(0, (1, channels, 40)), normal(1, (5, channels), torch.float32)
    labels = label_map(2, (1, 40), 5, "full")
    unit = normalize(prototypes[labels[0, 3]].double(), dim=0)
    features[0, :, 3] = 60 * unit  # of its own class alone, so the loss is flat
    weight = TINY * torch.ones(1, 40)
    upstream = TINY * normal(3, (1, 5, 40), torch.float32)
    upstream[..., 3] = 0
    if name == "means":
        features[0, :, 3] *= 1000
        weight[0, 3] = 0

    def found(features: Tensor, prototypes: Tensor, backend: Any) -> Tensor:
        if name == "means":
            return class_prototypes(
                features, labels, 5, pixel_weight=weight, normalize=True, backend=backend
            ).mean
        call: Call = {"similarity": "dot", "temperature": 1.0, "backend": backend}
        prototypes = prototypes.requires_grad_()
        if name == "logits":
            out, back = prototype_logits(features, prototypes, **call), upstream
        else:
            call |= {"pixel_weight": weight, "reduction": "none"}
            out = pixel_prototype_contrast(features, labels, prototypes, **call)
            back = torch.ones_like(out)
        return torch.autograd.grad(out, prototypes, back.to(out.dtype))[0]

    half = features.half()
    ours = found(half, prototypes.clone(), "triton")
    return ours.double(), found(half.double(), prototypes.double(), "naive").double()


@pytest.mark.parametrize("channels", [24, 300])
@pytest.mark.parametrize("name", ["contrast", "logits", "means"])
def test_float16_sums_of_tiny_slopes_beside_a_pixel_that_pulls_nothing(
    name: str, channels: int
) -> None:
    ours, plain = _sums_of_tiny_slopes(name, channels)
    assert plain.abs().max() > 0
    torch.testing.assert_close(ours, plain, rtol=1e-5, atol=float(1e-5 * plain.abs().max()))


@pytest.mark.parametrize("channels", [24, 300])
def test_anchors_beside_a_long_key_that_pulls_nothing(channels: int) -> None:
    """Its score is so low that its share is 0."""
    anchors, keys = normal(0, (20, channels)).abs().half(), normal(1, (20, channels)).half()
    keys[3] = -6e4
    labels = torch.arange(20) % 4
    call: Call = {
        "anchors": anchors, "keys": keys, "anchor_labels": labels,
        "key_labels": torch.where(torch.arange(20) == 3, 9, labels),
        "anchor_weight": torch.full((20,), 1e-3), "similarity": "dot", "temperature": 10.0,
    }  # fmt: skip
    ours, plain = (
        values_and_gradients(pair_contrast, {**given, "backend": backend}, ["anchors"], 0)[1]
        for given, backend in ((call, "triton"), (widened(call), "naive"))
    )
    scale = float(plain["anchors"].abs().max())
    assert scale > 0
    torch.testing.assert_close(
        ours["anchors"].double(), plain["anchors"], rtol=1e-3, atol=1e-3 * scale
    )
