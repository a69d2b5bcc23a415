"""A derivative of a gradient raises: a gradient penalty that drops out would be a silent error."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.differentiable import CALLS, ONE_OF_EACH, READS_PROTOTYPES, scene

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
    features, labels, prototypes = scene()
    leaf = features.requires_grad_()
    loss = CALLS[name](leaf, labels, prototypes).sum()
    (gradient,) = torch.autograd.grad(loss, leaf, create_graph=True)
    refused(lambda: (loss + gradient.square().sum()).backward())


@pytest.mark.parametrize("name", READS_PROTOTYPES)
def test_a_penalty_on_the_gradient_of_the_prototypes(name: str) -> None:
    features, labels, prototypes = scene()
    leaf = prototypes.requires_grad_()
    loss = CALLS[name](features, labels, leaf).sum()
    (gradient,) = torch.autograd.grad(loss, leaf, create_graph=True)
    refused(gradient.sum().backward)


@pytest.mark.parametrize("name", CALLS)
def test_a_derivative_by_the_upstream_gradient(name: str) -> None:
    features, labels, prototypes = scene()
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    leaf = features.requires_grad_()
    loss = (CALLS[name](leaf, labels, prototypes) * scale).sum()
    (gradient,) = torch.autograd.grad(loss, leaf, create_graph=True)
    refused(lambda: torch.autograd.grad(gradient.sum(), scale))


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_a_penalty_through_what_made_the_features(name: str) -> None:
    features, labels, prototypes = scene()
    slope = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    made = features * slope
    loss = CALLS[name](made, labels, prototypes).sum()
    (gradient,) = torch.autograd.grad(loss, made, create_graph=True)
    refused(lambda: (loss + gradient.square().sum()).backward())


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


# The operators' own arguments, from features and labels, prototypes.
BARE: dict[str, Callable[..., tuple[object, ...]]] = {
    "contrast": lambda f, y, p: (
        f, y, p, None, None, None, None, "cosine", 0.1, False, 255, "eager",
    ),
    "logits": lambda f, y, p: (f, p, None, "cosine", 0.1, "eager"),
    "class_sums": lambda f, y, p: (f, y, None, 3, True, False, 255, "eager"),
    "distribution_contrast": lambda f, y, p: (
        f, y, p, p.square(), None, None, None, True, 1.0, 255, "eager",
    ),
    "upsampled_cross_entropy": lambda f, y, p: (
        f[:, :, None], y[:, None], None, 255, False, 0.0, "eager",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BARE)
def test_the_bare_operators(name: str) -> None:
    features, labels, prototypes = scene()
    leaf = features.requires_grad_()
    arguments = BARE[name](leaf, labels, prototypes)
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
