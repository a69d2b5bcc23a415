"""Calls nobody planned: views, one of everything, values at the ends."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import protocontrast as pc
from tests.differentiable import CALLS, SIMILARITIES, scene

pytestmark = pytest.mark.usefixtures("eager")

FEATURES, LABELS, PROTOTYPES = scene(torch.float32)
MAP = LABELS.reshape(2, 2, 3)


def test_integers_beyond_64_bits_are_numbers_where_they_multiply() -> None:
    large: Any = 2**70
    logits = torch.linspace(-1, 1, 12).sin().reshape(4, 3)
    rows = PROTOTYPES.reshape(3, 1, -1)
    bias = pc.DomainBias(3, 4)
    assert torch.equal(bias.calibrate(PROTOTYPES, large), PROTOTYPES)
    assert torch.equal(pc.sinkhorn(logits, epsilon=large), pc.sinkhorn(logits, epsilon=2.0**70))
    found = pc.assign_subclasses(FEATURES, LABELS, rows, epsilon=large)
    assert torch.equal(found, LABELS.long())


@pytest.mark.parametrize("backend", ["naive", "eager"])
@pytest.mark.parametrize("temperature", [1e30, 1e155, 1e308])
def test_a_temperature_whose_square_is_no_number(temperature: float, backend: Any) -> None:
    loss = pc.distribution_contrast(
        FEATURES, LABELS, PROTOTYPES, PROTOTYPES.square(), temperature=temperature, backend=backend
    )
    assert loss.item() == pytest.approx(math.log(3))


def test_a_class_whose_threshold_is_nan_is_never_given() -> None:
    threshold = torch.tensor([math.nan, 0.0, 0.0])
    labels = pc.transfer_labels(FEATURES, PROTOTYPES, threshold=threshold).labels
    plain = pc.transfer_labels(FEATURES, PROTOTYPES, threshold=0.0).labels
    assert (plain == 0).any()
    assert torch.equal(labels, torch.where(plain == 0, 255, plain))


VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "transposed": lambda value: value.transpose(0, -1).contiguous().transpose(0, -1),
    "every second": lambda value: torch.stack([value, value + 1], -1).flatten(-2)[..., ::2],
    "inside a larger one": lambda value: nn.functional.pad(value, (3, 2))[..., 3:-2],
    "negated twice": lambda value: torch._neg_view(-value),
    "a parameter": lambda value: nn.Parameter(value),
    "from numpy": lambda value: torch.from_numpy(value.numpy().copy()),
}


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("name", CALLS)
def test_views_of_features_and_prototypes(name: str, view: str) -> None:
    expected = CALLS[name](FEATURES, LABELS, PROTOTYPES)
    features, prototypes = VIEWS[view](FEATURES), VIEWS[view](PROTOTYPES)
    assert torch.equal(features.detach(), FEATURES)
    torch.testing.assert_close(CALLS[name](features, LABELS, prototypes).detach(), expected)


@pytest.mark.parametrize("name", CALLS)
def test_gradients_add_up_over_what_is_expanded(name: str) -> None:
    one = FEATURES[:1].clone().requires_grad_()
    CALLS[name](one.expand(2, 4, 6), LABELS, PROTOTYPES).sum().backward()
    both = FEATURES[:1].repeat(2, 1, 1).requires_grad_()
    CALLS[name](both, LABELS, PROTOTYPES).sum().backward()
    assert one.grad is not None
    assert both.grad is not None
    torch.testing.assert_close(one.grad, both.grad.sum(dim=0, keepdim=True), rtol=1e-4, atol=1e-6)


class Marked(Tensor):
    """A subclass without behaviour of its own."""


def test_a_subclass_goes_through() -> None:
    leaf = FEATURES.clone().as_subclass(Marked).requires_grad_()
    loss = pc.pixel_prototype_contrast(leaf, LABELS, PROTOTYPES)
    loss.backward()
    plain = FEATURES.clone().requires_grad_()
    pc.pixel_prototype_contrast(plain, LABELS, PROTOTYPES).backward()
    assert isinstance(loss, Marked)
    assert leaf.grad is not None
    torch.testing.assert_close(leaf.grad.as_subclass(Tensor), plain.grad)


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("shape", [(1, 1), (1, 1, 1), (1, 1, 1, 1)])
def test_one_of_everything(shape: tuple[int, ...], similarity: Any) -> None:
    features, prototypes = torch.full(shape, 2.0, requires_grad=True), torch.full((1, 1), 3.0)
    labels = torch.zeros(shape[:1] + shape[2:], dtype=torch.long)
    loss = pc.pixel_prototype_contrast(features, labels, prototypes, similarity=similarity)
    loss.backward()
    assert loss == 0
    assert features.grad is not None
    assert not features.grad.any()
    assert pc.class_prototypes(features, labels, 1).mean.item() == 2
    assert pc.transfer_labels(features, prototypes, similarity=similarity).labels.item() == 0


# In "pairs none" the pixel is the only one of its class, so it has no positive and does not count.
READERS = [name for name in CALLS if "means" not in name and name != "pairs none"]
# Among logits -inf says that a class is absent.
OF_LOGITS = [name for name in READERS if name.startswith("upsampled")]


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name in READERS for value in (math.nan, math.inf)]
    + [(name, -math.inf) for name in READERS if name not in OF_LOGITS],
)
def test_what_is_not_finite_at_a_valid_pixel_comes_out(name: str, value: float) -> None:
    broken = FEATURES.clone()
    broken[0, 1, 2] = value
    leaf = broken.requires_grad_()
    result = CALLS[name](leaf, LABELS, PROTOTYPES).sum()
    result.backward()
    assert not result.isfinite()
    assert leaf.grad is not None
    assert not leaf.grad[0, :, 2].isfinite().all()


@pytest.mark.parametrize("name", OF_LOGITS)
def test_a_class_at_minus_infinity_carries_nothing(name: str) -> None:
    absent = FEATURES.clone()
    absent[0, 1, 2] = -math.inf
    leaf = absent.requires_grad_()
    result = CALLS[name](leaf, LABELS, PROTOTYPES).sum()
    result.backward()
    assert result.isfinite()
    assert leaf.grad is not None
    assert leaf.grad.isfinite().all()
    assert leaf.grad[0, 1, 2] == 0


@pytest.mark.parametrize("temperature", [1e-6, 1e-3, 1e3, 1e6])
def test_temperatures_at_the_ends(temperature: float) -> None:
    leaf = FEATURES.clone().requires_grad_()
    loss = pc.pixel_prototype_contrast(leaf, LABELS, PROTOTYPES, temperature=temperature)
    loss.backward()
    truth = FEATURES.double().requires_grad_()
    wide = pc.pixel_prototype_contrast(truth, LABELS, PROTOTYPES.double(), temperature=temperature)
    wide.backward()
    torch.testing.assert_close(loss.double(), wide, rtol=1e-5, atol=0)
    assert leaf.grad is not None
    assert leaf.grad.isfinite().all()
