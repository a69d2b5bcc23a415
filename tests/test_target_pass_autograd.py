"""`target_pass` and autograd: backward again, unevenly, later, compiled, under torch.func."""

import math

import pytest
import torch
from torch import Tensor

from protocontrast.eager.similarity import Similarity
from tests.small_tiles import small_tiles
from tests.strategies import NAN
from tests.target_passes import target_pass
from tests.test_target_pass import plain_call

pytestmark = pytest.mark.usefixtures("eager")


@pytest.mark.parametrize("backend", ["eager"])
def test_every_backward_gives_the_same_gradient(backend: str) -> None:
    """The first takes what the forward sweep wrote, the others read the features again."""
    call = plain_call(torch.float64) | {"backend": backend}
    leaf = call["features"].requires_grad_()
    losses = target_pass(**call).losses
    first, second = (torch.autograd.grad(losses.sum(), leaf, retain_graph=True) for _ in range(2))
    torch.testing.assert_close(first, second, rtol=1e-12, atol=1e-12)
    weights = torch.arange(5.0, dtype=torch.float64)
    parts = [torch.autograd.grad(losses[c], leaf, retain_graph=True)[0] for c in range(5)]
    (whole,) = torch.autograd.grad(losses, leaf, weights)
    torch.testing.assert_close(whole, sum(w * part for w, part in zip(weights, parts, strict=True)))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_weights_of_classes_scale_what_the_forward_wrote(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of hard labels; a class of weight 0 may hold anything, and no features are read again."""
    call = plain_call(dtype)
    call["counted"] = torch.tensor([True, True, True, False, True])
    call["features"][0, :, 0], call["static"][0, 0] = NAN, 2
    weights = torch.tensor([0.5, 3.0, 0.0, 7.0, -1.0], dtype=torch.float64)
    found = []
    for wide in (False, True):
        leaf = (call["features"].double() if wide else call["features"]).requires_grad_()
        with small_tiles():
            losses = target_pass(**{**call, "features": leaf}).losses
            upstream = weights.to(losses.dtype)
            first = torch.autograd.grad(losses, leaf, upstream, retain_graph=True)
            if wide:
                found += torch.autograd.grad(losses, leaf, upstream)
            losses = target_pass(**{**call, "features": leaf}).losses
            with monkeypatch.context() as patch:
                patch.setattr(Similarity, "scores", None)
                found += torch.autograd.grad(losses, leaf, upstream)
        assert first[0].equal(found[-1])
    one, read, scaled = (gradient.double() for gradient in found)
    torch.testing.assert_close(scaled, read, rtol=1e-12, atol=1e-12)
    assert (read[0, :, 0] == 0).all() and read.any()
    error = (one - scaled).abs().max() / scaled.abs().max()
    assert error < 20 * torch.finfo(dtype).eps


@pytest.mark.parametrize("backend", ["eager"])
def test_an_upstream_gradient_may_be_nan_zero_or_empty(backend: str) -> None:
    call = plain_call() | {"backend": backend}
    for weights, expected in ((NAN, NAN), (0.0, 0.0)):
        leaf = call["features"].clone().requires_grad_()
        losses = target_pass(**{**call, "features": leaf}).losses
        (gradient,) = torch.autograd.grad(losses, leaf, torch.full((5,), weights))
        labelled = target_pass(**call).labels != 255
        found = gradient.movedim(1, -1)[labelled].mean()
        assert found.item() == expected or (math.isnan(expected) and math.isnan(found.item()))
    for change in (
        {"features": call["features"][:0], "static": None},
        {"counted": ~call["counted"]},
    ):
        changed = {**call, **change}
        leaf = changed["features"].clone().requires_grad_()
        losses = target_pass(**{**changed, "features": leaf}).losses
        (gradient,) = torch.autograd.grad(losses.sum(), leaf)
        assert not losses.any() and not gradient.any()


@pytest.mark.parametrize("backend", ["eager"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_inputs_may_change_between_forward_and_backward(dtype: torch.dtype, backend: str) -> None:
    call = plain_call(dtype) | {"backend": backend}
    leaf = call["features"].requires_grad_()
    (expected,) = torch.autograd.grad(target_pass(**call).losses.sum(), leaf)
    moving = {name: call[name].clone() for name in ("prototypes", "nearest", "present", "counted")}
    losses = target_pass(**{**call, **moving}).losses
    for value in moving.values():
        value.zero_()
    assert torch.equal(torch.autograd.grad(losses.sum(), leaf)[0], expected)


@pytest.mark.parametrize("backend", ["eager"])
@pytest.mark.parametrize("counted", [True, False])
def test_compiled_in_one_graph(counted: bool, backend: str) -> None:
    call = plain_call() | {"backend": backend}
    if not counted:
        call["counted"] = None
    leaf = call.pop("features").requires_grad_()

    def step(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        found = target_pass(features, **call)
        return found.losses, found.labels, found.prototypes.mean

    plain = step(leaf)
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")(leaf)
    torch.testing.assert_close(compiled, plain)
    if counted:
        gradients = (torch.autograd.grad(out[0].sum(), leaf)[0] for out in (compiled, plain))
        torch.testing.assert_close(*gradients)
