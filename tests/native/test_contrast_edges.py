"""What a loss of the contrast in C is exactly, where it is 0 or small beside its logits."""

import pytest
import torch

from protocontrast import pixel_prototype_contrast
from tests.native.variants import EVERY
from tests.operator_calls import SIMILARITIES
from tests.strategies import ContrastCase


@EVERY
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_a_class_alone_loses_nothing_whatever_it_weighs(
    similarity: str, soft: bool, dtype: torch.dtype
) -> None:
    """Exactly 0, and no gradient: a weight times what a logit is rounded to is rounded again."""
    case = ContrastCase(
        1, (2, 33, 65), 1, dtype=dtype, similarity=similarity, temperature=0.07, soft=soft,
        reduction="none", pixel_weight=torch.float32, class_weight=torch.float32,
    )  # fmt: skip
    call = {**case.tensors(), **case.settings, "class_weight": torch.tensor([0.7])}
    leaves = call["features"].requires_grad_(), call["prototypes"].requires_grad_()
    loss = pixel_prototype_contrast(**call, backend="native")
    gradients = torch.autograd.grad(loss.sum(), leaves)
    assert not loss.any()
    assert not any(gradient.any() for gradient in gradients)


@EVERY
@pytest.mark.parametrize("soft", [False, True])
def test_nor_does_it_where_it_stands_at_the_floor(soft: bool) -> None:
    case = ContrastCase(
        1, (2, 5, 70), 1, temperature=0.07, soft=soft, reduction="none", absent="floor",
        presence="none", pixel_weight=torch.float32,
    )  # fmt: skip
    call = {**case.tensors(), **case.settings}
    assert not pixel_prototype_contrast(**call, backend="native").any()


@EVERY
@pytest.mark.parametrize("soft", [False, True])
def test_a_small_loss_of_large_logits_keeps_its_digits(soft: bool) -> None:
    """log(1 + e^-8) of logits about 1000, a unit in the last place of which is a fifth of it."""
    features = torch.linspace(1, 1.1, 70)[:, None]
    labels = torch.zeros(70, dtype=torch.int64)
    rows = torch.tensor([[1000.0], [992.0]])
    weight = torch.linspace(0.1, 3, 70)
    if soft:
        labels = torch.nn.functional.one_hot(labels, 2).float()
    found = pixel_prototype_contrast(
        features, labels, rows, pixel_weight=weight, similarity="dot", temperature=1.0,
        reduction="none", backend="native",
    )  # fmt: skip
    expected = weight.double() * torch.log1p(torch.exp(-8 * features[:, 0].double()))
    torch.testing.assert_close(found.double(), expected, rtol=2e-3, atol=0)
