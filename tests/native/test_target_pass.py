"""The target pass in C equals `naive`, and is the same guest of torch as the eager one."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from tests import test_target_pass as any_backend
from tests import test_target_pass_autograd as derivatives
from tests.agreement import similarity_scales, widened
from tests.native.variants import NAMES, variant
from tests.strategies import NAN, laid_out, normal, seeds, soft_map
from tests.target_passes import target_pass
from tests.tolerance import assert_within


@pytest.fixture
def native(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every plain call is one of C within these tests."""

    def plain_call(*given: Any, **settings: Any) -> dict[str, Any]:
        return {**any_backend.plain_call(*given, **settings), "backend": "native"}

    monkeypatch.setattr(derivatives, "plain_call", plain_call)
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.parametrize("name", NAMES)
@given(call=any_backend.calls(), seed=seeds, even=st.booleans())
def test_any_call(name: str, call: dict[str, Any], seed: int, even: bool) -> None:
    assume(not any_backend.rounding_decides(call))
    upstream = normal(seed, (len(call["prototypes"]),))
    with variant(name):
        weights = torch.full_like(upstream, 0.3) if even else upstream
        any_backend.assert_pass_agrees(call, weights, "native")


def large_call(layout: str, dtype: torch.dtype, soft: bool = False) -> dict[str, Any]:
    """More than one span, tiles that are transposed as they lie, and a last one that is not full.

    A pixel in six is as far away as its dtype's square can not reach.
    """
    call = any_backend.plain_call(dtype, classes=19)
    random = torch.Generator().manual_seed(1)
    truth = torch.randint(19, (2, 40, 41), generator=random)
    call["features"] = call["prototypes"][truth] + 0.3 * normal(2, (2, 40, 41, 7), dtype)
    call["features"] = call["features"].repeat(1, 1, 1, 4)
    call["features"][:, ::6] *= 2.0**70
    call["features"] = laid_out(call["features"].movedim(-1, 1).contiguous(), layout)
    call["prototypes"], call["nearest"] = (
        call[name].repeat(1, 4) for name in ("prototypes", "nearest")
    )
    dropped = torch.rand(truth.shape, generator=random) < 0.3
    call["static"] = torch.where(dropped, 255, truth)
    call["normalize"] = True
    if soft:
        call["targets"] = soft_map(5, (2, 40, 41), 19, "mixed")
        call["filling"] = torch.arange(40 * 41).reshape(40, 41).remainder(9).float() + 1
    return call


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_whole_tiles(layout: str, dtype: torch.dtype, soft: bool) -> None:
    call = large_call(layout, dtype, soft)
    for name in NAMES:
        with variant(name):
            any_backend.assert_pass_agrees(call, normal(9, (19,)), "native")


@pytest.mark.parametrize("normalize", [False, True])
def test_means_of_what_has_no_square(normalize: bool) -> None:
    """A scaled tile is summed at the scale at which it was read."""
    call = {**large_call("contiguous", torch.float32), "normalize": normalize}
    mine, other = (target_pass(**call, backend=backend) for backend in ("native", "eager"))
    torch.testing.assert_close(mine.prototypes.mean, other.prototypes.mean)
    assert torch.equal(mine.labels, other.labels)


@pytest.mark.parametrize("value", [NAN, float("inf")])
@pytest.mark.parametrize("counted", [False, True])
def test_what_is_not_finite_stays_in_its_class(value: float, counted: bool) -> None:
    """Of a class that is not counted it reaches the mean alone; unlabelled, nothing."""
    call = any_backend.plain_call(torch.float32)
    call["features"][0, 2, :2] = value
    call["static"][0, :2] = torch.tensor([3, 255])
    call["counted"] = torch.arange(5) != 3 if not counted else call["counted"]
    leaf = call["features"].requires_grad_()
    found = target_pass(**call, backend="native")
    gradient = torch.autograd.grad(found.losses, leaf, torch.ones(5))[0]
    of_class = torch.arange(5) == 3
    assert torch.equal(~torch.isfinite(found.prototypes.mean).all(dim=1), of_class)
    assert torch.equal(~torch.isfinite(found.losses), of_class & counted)
    spoilt = ~torch.isfinite(gradient.movedim(1, -1)).all(dim=-1)
    assert spoilt.flatten().nonzero().flatten().tolist() == ([0] if counted else [])


def test_what_any_backend_does() -> None:
    any_backend.test_the_mean_is_over_shared_classes("native")
    any_backend.test_a_class_that_is_left_out_afterwards_is_as_if_never_counted("native")
    any_backend.test_a_static_label_that_is_no_class_is_refused("native")
    for wants in (False, True):
        any_backend.test_means_that_are_not_wanted_are_zero(wants, "native")


def test_gradcheck() -> None:
    derivatives.test_gradcheck("native")


@pytest.mark.usefixtures("native")
def test_derivatives() -> None:
    derivatives.test_every_backward_gives_the_same_gradient()
    derivatives.test_an_upstream_gradient_may_be_nan_zero_or_empty()
    for dtype in (torch.float32, torch.float16):
        derivatives.test_inputs_may_change_between_forward_and_backward(dtype)
    derivatives.test_double_backward_raises()
    derivatives.test_func_grad_and_vmap()


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("counted", [True, False])
def test_compiled_in_one_graph(counted: bool) -> None:
    derivatives.test_compiled_in_one_graph(counted)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_weights_of_classes_scale_what_the_forward_wrote(dtype: torch.dtype) -> None:
    """As exact as what reads the features again; a class of weight 0 may hold anything."""
    call = any_backend.plain_call(dtype)
    call["features"][0, :, 0], call["static"][0, 0] = NAN, 2
    leaf = call["features"].requires_grad_()
    weights = torch.tensor([0.5, 3.0, 0.0, 7.0, -1.0])
    found = target_pass(**call, backend="native")
    losses = found.losses

    def gradient() -> Tensor:
        upstream = weights.to(losses.dtype)
        return torch.autograd.grad(losses, leaf, upstream, retain_graph=True)[0]

    scaled, read = gradient(), gradient()
    assert (scaled[0, :, 0] == 0).all() and scaled.any()
    clean = {**call, "features": torch.nan_to_num(leaf.detach(), nan=1.0)}
    plain, truth = (any_backend.passed(one, "naive", weights)[1] for one in (clean, widened(clean)))
    padded = torch.cat([weights.abs().double(), torch.zeros(1)])
    slope = 2 * padded[found.labels.clamp(max=5)].flatten()
    scale = similarity_scales(clean, slope, "cosine", clean["temperature"])["features"]
    for name, ours in (("scaled", scaled), ("read", read)):
        assert_within(ours, plain, truth, scale=scale, name=name)


@pytest.mark.parametrize("threads", [2, 3, 7])
def test_the_same_bits_for_every_number_of_threads(threads: int) -> None:
    call, found = large_call("contiguous", torch.float32), []
    before = torch.get_num_threads()
    try:
        for number in (1, threads):
            torch.set_num_threads(number)
            leaf = call["features"].clone().requires_grad_()
            one = target_pass(**{**call, "features": leaf}, backend="native")
            (gradient,) = torch.autograd.grad(one.losses, leaf, torch.arange(19.0))
            found.append((*one.prototypes, one.losses, one.labels, one.confidence, gradient))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))
