"""An implementation against `naive` in the same dtype and in float64: values and every gradient."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from tests.strategies import normal, pixel_mass, rows_of
from tests.tolerance import assert_within

Call = dict[str, Any]
Function = Callable[..., Any]


def widened(call: Call) -> Call:
    """The call with every floating tensor in float64."""
    return {
        name: value.double() if isinstance(value, Tensor) and value.is_floating_point() else value
        for name, value in call.items()
    }


def values_and_gradients(
    function: Function, call: Call, wanted: Sequence[str], upstream_seed: int
) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Floating results, and gradients of what is wanted under random upstream gradients.

    Leaves share the given tensors' memory and strides.
    """
    leaves = {name: call[name].detach().requires_grad_() for name in wanted}
    found = function(**{**call, **leaves})
    results = [found] if isinstance(found, Tensor) else list(found)
    sources = [result for result in results if result.requires_grad]
    upstream = [
        normal(upstream_seed + i, tuple(result.shape), result.dtype)
        for i, result in enumerate(sources)
    ]
    if not sources:
        return results, {}
    gradients = torch.autograd.grad(sources, list(leaves.values()), upstream)
    return results, dict(zip(wanted, gradients, strict=True))


def assert_agrees(
    function: Function,
    call: Call,
    wanted: Sequence[str],
    *,
    scales: dict[str, float],
    upstream_seed: int = 0,
    backend: str = "eager",
) -> None:
    """AssertionError unless values and gradients on `backend` are within the tolerance.

    Nor may anything be written that is given.

    `scales` has the size of the terms that cancel: "value", and each name in `wanted`.
    """
    before = [(one, one.clone(), one._version) for one in call.values() if isinstance(one, Tensor)]
    ours = values_and_gradients(function, {**call, "backend": backend}, wanted, upstream_seed)
    for one, copy, version in before:
        torch.testing.assert_close(
            one, copy, rtol=0, atol=0, equal_nan=True, msg="a tensor that is given was written"
        )
        assert one._version == version
    plain = values_and_gradients(function, {**call, "backend": "naive"}, wanted, upstream_seed)
    truth = values_and_gradients(
        function, {**widened(call), "backend": "naive"}, wanted, upstream_seed
    )
    if not len(ours[0]) == len(plain[0]) == len(truth[0]):
        raise AssertionError("the implementations give different numbers of results")
    for i, values in enumerate(zip(ours[0], plain[0], truth[0], strict=True)):
        if values[0].is_floating_point():
            assert_within(*values, scale=scales["value"], name=f"result {i}")
        elif not torch.equal(values[0], values[2]):
            raise AssertionError(f"result {i}: {values[0]} is not {values[2]}")
    if not set(wanted) == set(ours[1]) == set(plain[1]) == set(truth[1]):
        raise AssertionError("the implementations give gradients to different tensors")
    for name in wanted:
        triple = ours[1][name], plain[1][name], truth[1][name]
        assert_within(*triple, scale=scales[name], name=f"gradient of {name}")


def similarity_scales(
    call: Call, slope: Tensor, similarity: str, temperature: float
) -> dict[str, float]:
    """Sizes of the terms of logits and of their gradients.

    `slope` (N,) is the summed |dL/dz_ic| of each pixel. A gradient carries the rounding of the
    softmax under it, so its terms grow with the logits.
    """
    kept = slope != 0
    prototypes = call["prototypes"].double()
    present = call.get("present")
    if present is not None:
        prototypes = prototypes[present]
    lengths = rows_of(call["features"]).double().norm(dim=1)[kept]
    reaches = prototypes.norm(dim=1)
    if not lengths.numel() or not reaches.numel():
        return {"value": 1 / temperature, "features": 0.0, "prototypes": 0.0}
    longest, furthest = float(lengths.max()), float(reaches.max())
    slope = slope[kept]
    if similarity == "cosine":
        logit, to_feature = 1.0, torch.where(lengths > 0, 1 / lengths, 0)
        to_prototype = float(torch.where(reaches > 0, 1 / reaches, 0).max())
    elif similarity == "dot":
        logit, to_feature = longest * furthest, torch.full_like(lengths, furthest)
        to_prototype = longest
    else:
        logit, to_feature = longest + furthest, torch.ones_like(lengths)
        to_prototype = 1.0
    amplified = (1 + logit / temperature) / temperature
    return {
        "value": logit / temperature,
        "features": float((slope * to_feature).max()) * amplified,
        "prototypes": float(slope.sum()) * to_prototype * amplified,
    }


def contrast_scales(call: Call, settings: dict[str, Any], upstream_seed: int) -> dict[str, float]:
    """Sizes of the terms of `pixel_prototype_contrast` and of its gradients."""
    mass = pixel_mass(call, settings).flatten()
    shape = tuple(call["labels"].shape)
    if call["labels"].is_floating_point():
        shape = shape[:1] + shape[2:]
    reduction = settings["reduction"]
    upstream = normal(upstream_seed, shape if reduction == "none" else ()).abs().flatten()
    if reduction == "mean":
        mass = mass / max(float(mass.sum()), 1e-30)
    scales = similarity_scales(
        call, 2 * mass * upstream, settings["similarity"], settings["temperature"]
    )
    weight = 0.0
    if mass.numel():
        weight = float(mass.max() if reduction == "none" else mass.sum())
    return {**scales, "value": (2 * scales["value"] + 5) * weight}
