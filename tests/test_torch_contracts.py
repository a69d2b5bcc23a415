"""What torch asks of a differentiable function: right gradients, untouched inputs, every mode."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck
from torch.utils.checkpoint import checkpoint

from tests.differentiable import CALLS, READ_AGAIN, READS_PROTOTYPES, leaves_of, outcome, scene

pytestmark = pytest.mark.usefixtures("eager")


def gradients(name: str, *inputs: Tensor) -> list[Tensor]:
    """Result and gradients of whatever is read."""
    return outcome(CALLS[name], inputs, leaves_of(name))


@pytest.mark.parametrize("name", CALLS)
def test_gradcheck(name: str) -> None:
    features, labels, prototypes = scene()
    leaves = features.requires_grad_(), prototypes.requires_grad_(name in READS_PROTOTYPES)
    assert gradcheck(
        lambda f, p: CALLS[name](f, labels, p),
        leaves,
        check_undefined_grad=True,
        check_batched_grad=True,
        nondet_tol=1e-12 if name in READ_AGAIN else 0.0,
    )


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("name", CALLS)
def test_checkpointing(name: str, reentrant: bool) -> None:
    inputs = scene(torch.float32)
    expected = gradients(name, *inputs)
    again = partial(checkpoint, CALLS[name], use_reentrant=reentrant)
    got = outcome(again, inputs, leaves_of(name))
    # Reentrant checkpoints take the value without autograd, where the sweep sums in another order.
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("name", CALLS)
def test_saved_tensor_hooks(name: str) -> None:
    inputs = scene(torch.float32)
    expected = gradients(name, *inputs)
    packed: dict[tuple[Any, ...], tuple[Tensor, Tensor]] = {}

    def pack(value: Tensor) -> tuple[Any, ...]:
        # What is saved twice, as anchors that are their own keys, is one tensor when it comes back.
        place = value.data_ptr(), value.dtype, value.shape, value.stride()
        # Kept beside its clone, so that its place is not another's meanwhile.
        packed.setdefault(place, (value.detach(), value.detach().clone()))
        return place

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda place: packed[place][1]):
        got = gradients(name, *inputs)
    assert packed
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


@pytest.mark.parametrize("name", CALLS)
def test_uninitialised_memory_never_shows(name: str) -> None:
    inputs = scene(torch.float32)
    expected = gradients(name, *inputs)
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.empty(3).isnan().all()
        got = gradients(name, *inputs)
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


# The gradient of a plain class mean does not read the features, and some calls read a copy of them.
@pytest.mark.parametrize(
    "name", [name for name in CALLS if name not in ("class means", "learnt", "upsampled volume")]
)
def test_features_changed_before_backward_are_noticed(name: str) -> None:
    features, labels, prototypes = scene()
    leaf = features.clone().requires_grad_()
    moved = leaf * 1
    result = CALLS[name](moved, labels, prototypes).sum()
    with torch.no_grad():
        moved.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        result.backward()


@pytest.mark.parametrize("name", CALLS)
def test_a_kept_graph_gives_the_same_gradient_again(name: str) -> None:
    features, labels, prototypes = scene(torch.float32)
    leaves = [features.requires_grad_()]
    if name in READS_PROTOTYPES:
        leaves.append(prototypes.requires_grad_())
    loss = CALLS[name](features, labels, prototypes).sum() * 3
    first = torch.autograd.grad(loss, leaves, retain_graph=True)
    kept = [gradient.clone() for gradient in first]
    for gradient in first:
        gradient.fill_(7)
    for again in (True, False):
        found = torch.autograd.grad(loss, leaves, retain_graph=again)
        rounding = 1e-5 if name in READ_AGAIN else 0.0
        torch.testing.assert_close([*found], kept, rtol=rounding, atol=rounding)
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        torch.autograd.grad(loss, leaves)


@pytest.mark.parametrize("name", CALLS)
def test_no_grad_and_inference_mode_give_the_same_value(name: str) -> None:
    features, labels, prototypes = scene(torch.float32)
    expected = gradients(name, features, labels, prototypes)[0]
    with torch.no_grad():
        quiet = CALLS[name](features.clone().requires_grad_(), labels, prototypes)
    with torch.inference_mode():
        inferred = CALLS[name](features, labels, prototypes)
    assert not quiet.requires_grad
    torch.testing.assert_close(quiet, expected)
    torch.testing.assert_close(inferred, expected)


class _Dropped(torch.autograd.Function):
    """Passes a value on and no gradient back."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> None:
        return None


@pytest.mark.parametrize("name", CALLS)
def test_a_gradient_may_not_arrive(name: str) -> None:
    features, labels, prototypes = scene()
    leaf = features.requires_grad_()
    total = _Dropped.apply(CALLS[name](leaf, labels, prototypes)).sum() + leaf.sum()
    assert torch.equal(torch.autograd.grad(total, leaf)[0], torch.ones_like(leaf))
