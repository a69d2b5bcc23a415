"""The specification's gradients: float64 gradcheck, and the values chosen where none exists."""

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from protocontrast import naive
from protocontrast.calls import ClassSumsCall, ContrastCall, LogitsCall
from tests.strategies import label_map, normal, soft_map, weights

KINDS = ["cosine", "dot", "euclidean"]
PRESENT = torch.tensor([True, True, False, True])


def leaf(seed: int, *shape: int) -> Tensor:
    return normal(seed, shape).requires_grad_()


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize(
    ("kind", "absent"),
    [("cosine", "mask"), ("cosine", "floor"), ("dot", "mask"), ("euclidean", "mask")],
)
def test_contrast(kind: str, absent: str, soft: bool) -> None:
    labels = soft_map(2, (7,), 4, "mixed").double() if soft else label_map(2, (7,), 4)
    weight = weights(3, (7,), torch.float64)

    def loss(features: Tensor, prototypes: Tensor) -> Tensor:
        call = ContrastCall(
            features, labels, prototypes, PRESENT, torch.tensor([1.0, 2.0, 3.0, 0.5]), weight,
            kind, 0.4, absent == "floor", 255,
        )  # fmt: skip
        return naive.pixel_prototype_contrast(call)[0]

    assert gradcheck(loss, (leaf(0, 7, 3), leaf(1, 4, 3)))


@pytest.mark.parametrize("kind", KINDS)
def test_logits(kind: str) -> None:
    def present_columns(features: Tensor, prototypes: Tensor) -> Tensor:
        call = LogitsCall(features, prototypes, PRESENT, kind, 0.4)
        return naive.prototype_logits(call)[:, PRESENT]

    assert gradcheck(present_columns, (leaf(0, 5, 3), leaf(1, 4, 3)))


@pytest.mark.parametrize("normalize", [False, True])
def test_class_sums(normalize: bool) -> None:
    labels, weight = label_map(0, (9,), 3), weights(1, (9,), torch.float64)

    def sums(features: Tensor) -> Tensor:
        call = ClassSumsCall(features, labels, weight, 3, normalize, False, 255)
        return naive.class_sums(call)[0]

    assert gradcheck(sums, (leaf(0, 9, 4),))


def test_gradcheck_can_fail() -> None:
    def detached(features: Tensor) -> Tensor:
        return naive.unit_rows(features) * features.detach()

    with pytest.raises(RuntimeError, match="Jacobian mismatch"):
        gradcheck(detached, (leaf(0, 3, 2),))


def test_a_row_of_zero_length_has_gradient_zero() -> None:
    rows = torch.tensor([[0.0, 0.0], [3.0, 4.0]], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(naive.unit_rows(rows)[:, 0].sum(), rows)
    # d(x / |x|)/dx at (3, 4): (1 - 0.36) / 5 and -0.48 / 5.
    expected = torch.tensor([[0.0, 0.0], [0.128, -0.096]], dtype=torch.float64)
    torch.testing.assert_close(gradient, expected)


def test_at_zero_distance_the_gradient_is_zero() -> None:
    features = torch.tensor([[1.0, 1.0], [4.0, 5.0]], dtype=torch.float64, requires_grad=True)
    prototypes = torch.tensor([[1.0, 1.0]], dtype=torch.float64, requires_grad=True)
    found = naive.similarities(features, prototypes, "euclidean")
    assert found.tolist() == [[0.0], [-5.0]]
    gradients = torch.autograd.grad(found.sum(), (features, prototypes))
    expected = torch.tensor([[0.0, 0.0], [-0.6, -0.8]], dtype=torch.float64)
    torch.testing.assert_close(gradients[0], expected)
    torch.testing.assert_close(gradients[1], -expected[1:])


@pytest.mark.parametrize("kind", KINDS)
def test_ignored_pixels_and_absent_rows_have_gradient_zero(kind: str) -> None:
    features = normal(0, (4, 3))
    features[1] = float("nan")
    features[2] = float("inf")
    prototypes = torch.where(PRESENT[:, None], normal(1, (4, 3)), float("nan"))
    features.requires_grad_()
    prototypes.requires_grad_()
    call = ContrastCall(
        features, torch.tensor([0, 255, 2, 3]), prototypes, PRESENT, None, None, kind, 1.0,
        False, 255,
    )  # fmt: skip
    loss, _ = naive.pixel_prototype_contrast(call)
    to_features, to_prototypes = torch.autograd.grad(loss.sum(), (features, prototypes))
    assert (to_features[1:3] == 0).all()
    assert (to_features[[0, 3]] != 0).any(dim=1).all()
    assert torch.isfinite(to_prototypes).all()
    assert (to_prototypes[2] == 0).all()
