"""The kernels take features, prototypes and weights each in a dtype of its own."""

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

import protocontrast as pc
from tests.agreement import widened
from tests.strategies import label_map, normal

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
LABELS = label_map(1, (2, 20), 3)


def contrasted(call: dict[str, Any], backend: str) -> Tensor:
    return pc.pixel_prototype_contrast(
        call["features"], LABELS, call["prototypes"], pixel_weight=call["weight"],
        class_weight=call["class_weight"], temperature=0.5, backend=backend,
    )  # fmt: skip


def looked_up(call: dict[str, Any], backend: str) -> Tensor:
    found = pc.prototype_logits(
        call["features"], call["prototypes"], similarity="dot", temperature=2.0, backend=backend
    )
    return (found * call["weight"][:, None]).square().mean()


def distributed(call: dict[str, Any], backend: str) -> Tensor:
    return pc.distribution_contrast(
        call["features"], LABELS, call["prototypes"], call["prototypes"].square(),
        pixel_weight=call["weight"], temperature=1.0, backend=backend,
    )  # fmt: skip


def paired(call: dict[str, Any], backend: str) -> Tensor:
    return pc.pair_contrast(
        call["features"][0].t(), LABELS[0], call["prototypes"], torch.arange(3),
        anchor_weight=call["weight"][0], temperature=0.5, backend=backend,
    )  # fmt: skip


def averaged(call: dict[str, Any], backend: str) -> Tensor:
    found = pc.class_prototypes(
        call["features"], LABELS, 3, pixel_weight=call["weight"], normalize=True, backend=backend
    )
    return (found.mean * call["prototypes"]).sum()


LOSSES: tuple[Callable[[dict[str, Any], str], Tensor], ...] = (
    contrasted,
    looked_up,
    distributed,
    paired,
    averaged,
)


FARTHEST = (torch.float64, torch.bfloat16)
PAIRS = [
    pytest.param(*pair, marks=[] if pair == FARTHEST else pytest.mark.slow)
    for pair in product(DTYPES, DTYPES)
]


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(("features", "prototypes"), PAIRS)
def test_values_and_gradients_of_mixed_dtypes(
    features: torch.dtype, prototypes: torch.dtype, loss: Callable[[dict[str, Any], str], Tensor]
) -> None:
    weights = DTYPES[(DTYPES.index(features) + DTYPES.index(prototypes)) % 4]
    call = {
        "features": normal(2, (2, 7, 20), features),
        "prototypes": normal(3, (3, 7), prototypes),
        "weight": normal(4, (2, 20), weights).abs(),
        "class_weight": normal(5, (3,), weights).abs(),
    }

    def found(call: dict[str, Any], backend: str) -> list[Tensor]:
        leaves = {name: call[name].detach().requires_grad_() for name in ("features", "prototypes")}
        value = loss({**call, **leaves}, backend)
        return [value.detach(), *torch.autograd.grad(value, list(leaves.values()))]

    ours, truth = found(call, "triton"), found(widened(call), "naive")
    for mine, other in zip(ours, truth, strict=True):
        scale = float(other.abs().max())
        torch.testing.assert_close(mine.double(), other, rtol=0, atol=2e-2 * scale)
    assert [gradient.dtype for gradient in ours[1:]] == [features, prototypes]
