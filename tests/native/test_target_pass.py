"""The target pass in C on tiles and spans of any kind, and what it scales instead of reading."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.agreement import similarity_scales, widened
from tests.native.variants import EVERY
from tests.strategies import NAN, laid_out, normal, soft_map
from tests.target_passes import target_pass
from tests.test_target_pass import assert_pass_agrees, passed, plain_call
from tests.tolerance import assert_within


def large_call(layout: str, dtype: torch.dtype, soft: bool = False) -> dict[str, Any]:
    """More than one span, tiles that are transposed as they lie, and a last one that is not full.

    A pixel in six is as far away as its dtype's square can not reach.
    """
    call = plain_call(dtype, classes=19)
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


@EVERY
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_whole_tiles(layout: str, dtype: torch.dtype, soft: bool) -> None:
    assert_pass_agrees(large_call(layout, dtype, soft), normal(9, (19,)), "native")


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
    call = plain_call(torch.float32)
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


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_weights_of_classes_scale_what_the_forward_wrote(dtype: torch.dtype) -> None:
    """As exact as what reads the features again; a class of weight 0 may hold anything."""
    call = plain_call(dtype)
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
    plain, truth = (passed(one, "naive", weights)[1] for one in (clean, widened(clean)))
    padded = torch.cat([weights.abs().double(), torch.zeros(1)])
    slope = 2 * padded[found.labels.clamp(max=5)].flatten()
    scale = similarity_scales(clean, slope, "cosine", clean["temperature"])["features"]
    for name, ours in (("scaled", scaled), ("read", read)):
        assert_within(ours, plain, truth, scale=scale, name=name)
