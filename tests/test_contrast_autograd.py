"""`pixel_prototype_contrast` as a guest of autograd: graphs, buffers, strides, autocast."""

import copy
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from protocontrast import class_prototypes, pixel_prototype_contrast
from tests.strategies import ContrastCase, contrast_cases, label_map, normal, pixel_shape
from tests.tolerance import assert_within

pytestmark = pytest.mark.usefixtures("eager")

SHAPE = (2, 7, 3, 5)
REDUCTIONS = ["mean", "sum", "none"]


def call_of(case: ContrastCase, **settings: Any) -> dict[str, Any]:
    call = {**case.tensors(), **case.settings, **settings}
    call["features"].requires_grad_()
    call["prototypes"].requires_grad_()
    return call


def loss_of(call: dict[str, Any]) -> Tensor:
    return pixel_prototype_contrast(**call).sum()


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_two_losses_on_the_same_features_add_up(reduction: str) -> None:
    call = call_of(ContrastCase(0, SHAPE, 4, dtype=torch.float64, reduction=reduction))
    other = {**call, "labels": call["labels"].flip(0), "temperature": 1.0}
    features = call["features"]
    parts = [torch.autograd.grad(loss_of(kind), features)[0] for kind in (call, other)]
    (together,) = torch.autograd.grad(loss_of(call) + loss_of(other), features)
    torch.testing.assert_close(together, parts[0] + parts[1])
    loss_of(call).backward()
    loss_of(other).backward()
    torch.testing.assert_close(features.grad, parts[0] + parts[1])


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("factor", [1.0, 0.0, -2.5])
def test_the_upstream_gradient_scales(factor: float, reduction: str) -> None:
    call = call_of(ContrastCase(0, SHAPE, 4, dtype=torch.float64, reduction=reduction))
    leaves = [call["features"], call["prototypes"]]
    plain = torch.autograd.grad(loss_of(call), leaves)
    scaled = torch.autograd.grad(factor * loss_of(call), leaves)
    for one, other in zip(plain, scaled, strict=True):
        torch.testing.assert_close(other, factor * one, rtol=1e-14, atol=0)


@pytest.mark.parametrize("layout", ["expanded", "transposed", "strided", "reversed"])
def test_upstream_gradients_of_any_stride(layout: str) -> None:
    call = call_of(ContrastCase(0, SHAPE, 4, reduction="none"))
    shape = pixel_shape(SHAPE)
    upstream = normal(1, shape, torch.float32)
    if layout == "expanded":
        upstream = torch.tensor(0.7).expand(shape)
    elif layout == "transposed":
        upstream = normal(1, shape[::-1], torch.float32).permute(2, 1, 0)
    elif layout == "strided":
        upstream = normal(1, tuple(2 * n for n in shape), torch.float32)[::2, ::2, ::2]
    else:
        upstream = upstream.flip(2).transpose(0, 2).contiguous().transpose(0, 2)
    loss = pixel_prototype_contrast(**call)
    leaves = [call["features"], call["prototypes"]]
    given_strides = torch.autograd.grad(loss, leaves, upstream, retain_graph=True)
    contiguous = torch.autograd.grad(loss, leaves, upstream.contiguous())
    assert all(torch.equal(a, b) for a, b in zip(given_strides, contiguous, strict=True))


@given(case=contrast_cases(layout="contiguous"), backward=st.booleans())
def test_inputs_are_never_written(case: ContrastCase, backward: bool) -> None:
    call = case.tensors()
    tensors = [tensor for tensor in call.values() if tensor is not None]
    versions = [tensor._version for tensor in tensors]
    copies = copy.deepcopy(tensors)
    leaves = {name: call[name].detach().requires_grad_() for name in ("features", "prototypes")}
    loss = pixel_prototype_contrast(**{**call, **(leaves if backward else {})}, **case.settings)
    if backward:
        torch.autograd.grad(2 * loss.sum(), list(leaves.values()))
    assert [tensor._version for tensor in tensors] == versions
    torch.testing.assert_close(tensors, copies, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("shape", [SHAPE, (2, 7, 15), (15, 7)])
def test_the_gradient_has_the_features_memory_format(
    shape: tuple[int, ...], layout: str, dtype: torch.dtype, reduction: str
) -> None:
    case = ContrastCase(0, shape, 4, dtype=dtype, layout=layout, reduction=reduction)
    call = call_of(case)
    (gradient,) = torch.autograd.grad(loss_of(call), call["features"])
    assert gradient.stride() == call["features"].stride()
    assert gradient.dtype == dtype


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("backend", ["eager", "naive"])
def test_autocast_around_the_call_changes_nothing(
    backend: str, dtype: torch.dtype, reduction: str
) -> None:
    call = call_of(ContrastCase(0, (2, 33, 5, 5), 4, reduction=reduction), backend=backend)
    leaves = [call["features"], call["prototypes"]]
    expected = loss_of(call)
    gradients = torch.autograd.grad(expected, leaves)
    found = []
    with torch.autocast("cpu", dtype=dtype):
        loss = loss_of(call)
        # Plain autograd, which naive uses, would run its backward in autocast, too.
        if backend == "eager":
            found.append(torch.autograd.grad(loss, leaves, retain_graph=True))
    found.append(torch.autograd.grad(loss, leaves))
    assert loss.dtype == torch.float32
    assert torch.equal(loss, expected)
    for pair in found:
        assert all(torch.equal(a, b) for a, b in zip(pair, gradients, strict=True))


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("prototype_dtype", [torch.float16, torch.float32])
def test_a_loss_scale_saves_small_half_precision_gradients(
    prototype_dtype: torch.dtype, reduction: str
) -> None:
    case = ContrastCase(
        0, SHAPE, 4, dtype=torch.float16, prototype_dtype=prototype_dtype, reduction=reduction,
        temperature=20.0,
    )  # fmt: skip
    call = case.tensors()
    # Rows this long have gradients near 1e-8, less than float16 can hold without the scale.
    leaves = {name: (4096 * call[name]).requires_grad_() for name in ("features", "prototypes")}
    found = []
    for backend, widen in (("eager", False), ("naive", False), ("naive", True)):
        inputs = {**call, **({k: v.double() for k, v in leaves.items()} if widen else leaves)}
        loss = pixel_prototype_contrast(**inputs, **case.settings, backend=backend)
        found.append(torch.autograd.grad(loss * 2.0**20, [inputs[name] for name in leaves]))
    for ours, plain, truth in zip(*found, strict=True):
        assert_within(ours, plain, truth)


def test_the_one_pass_gradient_is_the_two_pass_gradient() -> None:
    call = call_of(ContrastCase(0, SHAPE, 4, dtype=torch.float64, reduction="mean"))
    leaves = [call["features"], call["prototypes"]]
    one_pass = torch.autograd.grad(loss_of(call), leaves)
    each = pixel_prototype_contrast(**{**call, "reduction": "none"})
    mean = each.sum() / (call["labels"] != 255).sum()
    assert torch.allclose(mean, loss_of(call), rtol=1e-14)
    torch.testing.assert_close(one_pass, torch.autograd.grad(mean, leaves), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_a_bank_may_change_between_forward_and_backward(reduction: str) -> None:
    call = call_of(ContrastCase(0, SHAPE, 4, reduction=reduction, presence="given"))
    bank, present = call["prototypes"].detach(), call["present"]
    features = call["features"]
    (expected,) = torch.autograd.grad(loss_of({**call, "prototypes": bank}), features)
    loss = loss_of({**call, "prototypes": bank})
    bank.mul_(-1).add_(0.3)
    present.logical_not_()
    assert torch.equal(torch.autograd.grad(loss, features)[0], expected)


def test_the_same_call_gives_the_same_bits() -> None:
    call = call_of(ContrastCase(0, (2, 33, 17, 13), 19))
    leaves = [call["features"], call["prototypes"]]
    runs = []
    for _ in range(2):
        loss = loss_of(call)
        runs.append((loss, *torch.autograd.grad(loss, leaves)))
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


class _Dropped(torch.autograd.Function):
    """Passes a value on and no gradient back."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> None:
        return None


@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_a_gradient_may_not_arrive(reduction: Any) -> None:
    features = normal(0, (2, 4, 3)).requires_grad_()
    labels, rows = label_map(1, (2, 3), 3), normal(2, (3, 4))
    loss = pixel_prototype_contrast(features, labels, rows, reduction=reduction)
    sums = class_prototypes(features, labels, 3).mean
    total = _Dropped.apply(loss).sum() + _Dropped.apply(sums).sum() + features.sum()
    (gradient,) = torch.autograd.grad(total, features)
    assert torch.equal(gradient, torch.ones_like(features))
