"""A derivative of a gradient raises: a gradient penalty that drops out would be a silent error."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.differentiable import CALLS, ONE_OF_EACH, READS_PROTOTYPES, scene
from tests.test_operators import CASES

pytestmark = pytest.mark.usefixtures("eager")

MESSAGE = (
    "protocontrast: expected one backward pass, got a derivative of a gradient (double backward). "
    'Hint: backend="naive" is differentiable twice.'
)


def refused(step: Callable[[], object]) -> None:
    with pytest.raises(RuntimeError) as caught:
        step()
    assert str(caught.value) == MESSAGE


@pytest.mark.parametrize("name", CALLS)
def test_a_gradient_penalty(name: str) -> None:
    """On what made the features, and on the prototypes."""
    features, labels, prototypes = scene()
    made = features.requires_grad_() * 1.5
    leaves = [made, *[prototypes.requires_grad_()] * (name in READS_PROTOTYPES)]
    loss = CALLS[name](made, labels, prototypes).sum()
    for gradient in torch.autograd.grad(loss, leaves, create_graph=True):
        refused(lambda g=gradient: (loss + g.square().sum()).backward(retain_graph=True))


@pytest.mark.parametrize("name", CALLS)
def test_a_derivative_by_the_upstream_gradient(name: str) -> None:
    features, labels, prototypes = scene()
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    leaf = features.requires_grad_()
    loss = (CALLS[name](leaf, labels, prototypes) * scale).sum()
    (gradient,) = torch.autograd.grad(loss, leaf, create_graph=True)
    refused(lambda: torch.autograd.grad(gradient.sum(), scale))


@pytest.mark.parametrize("name", CALLS)
def test_create_graph_alone_is_harmless(name: str) -> None:
    features, labels, prototypes = scene()
    leaf = features.requires_grad_()
    plain = torch.autograd.grad(CALLS[name](leaf, labels, prototypes).sum(), leaf)[0]
    loss = CALLS[name](leaf, labels, prototypes).sum()
    recorded = torch.autograd.grad(loss, leaf, create_graph=True)[0]
    assert recorded.requires_grad
    assert torch.equal(recorded.detach(), plain)


@pytest.mark.parametrize("name", ONE_OF_EACH)
@pytest.mark.parametrize("outer", [torch.func.grad, torch.func.jacrev])
def test_nested_transforms(name: str, outer: Callable[..., Callable[..., Tensor]]) -> None:
    features, labels, prototypes = scene()

    def penalty(inner: Tensor) -> Tensor:
        gradient = torch.func.grad(lambda f: CALLS[name](f, labels, prototypes).sum())(inner)
        return gradient.square().sum()

    refused(lambda: outer(penalty)(features))


# Stretching is linear, so its gradient depends on nothing that has one.
DIFFERENTIABLE = [
    (name, arguments)
    for name, arguments in CASES
    if f"{name}_backward" in {one for one, _ in CASES}
    and name != "stretched_depth"
    and any(isinstance(one, Tensor) and one.requires_grad for one in arguments)
]


@pytest.mark.parametrize(("name", "arguments"), DIFFERENTIABLE)
def test_the_bare_operators(name: str, arguments: tuple[Any, ...]) -> None:
    leaf = next(one for one in arguments if isinstance(one, Tensor) and one.requires_grad)
    result = getattr(torch.ops.protocontrast, name)(*arguments)
    first = result[0] if isinstance(result, (tuple, list)) else result
    (gradient,) = torch.autograd.grad(first.sum(), leaf, create_graph=True)
    refused(gradient.sum().backward)


@pytest.mark.parametrize("name", CALLS)
def test_the_hint_holds(name: str) -> None:
    features, labels, prototypes = scene()
    leaf = features.requires_grad_()
    loss = CALLS[name](leaf, labels, prototypes, backend="naive").square().sum()
    (gradient,) = torch.autograd.grad(loss, leaf, create_graph=True)
    (second,) = torch.autograd.grad(gradient.square().sum(), leaf)
    assert second.isfinite().all()
    assert second.abs().sum() > 0
