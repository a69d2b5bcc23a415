"""`target_pass`: eager equals `naive`; what spoilt pixels and uneven weights do; derivatives."""

import math
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from protocontrast.functional.target_pass import TargetPass
from tests.agreement import similarity_scales, widened
from tests.strategies import NAN, contrast_cases, label_map, normal, rows_of, seeds, soft_map
from tests.target_passes import target_pass
from tests.test_transfer import undecided
from tests.tolerance import STEPS, assert_within

BACKENDS = ["eager", "naive"]
Call = dict[str, Any]


@st.composite
def calls(draw: st.DrawFn, **fixed: Any) -> Call:
    """Calls of any form; NaN in some pixels, labelled ones among them."""
    case = draw(contrast_cases(similarity="cosine", soft=False, spoilt=None, **fixed))
    tensors = case.tensors()
    features, static, prototypes = tensors["features"], tensors["labels"], tensors["prototypes"]
    present = tensors["present"]
    if present is None:
        present = (prototypes != 0).any(dim=1)
    ignore_index = case.label_dtype[1]
    random = torch.Generator().manual_seed(case.seed + 6)
    limits = torch.iinfo(static.dtype)
    if limits.min <= ignore_index <= limits.max:
        dropped = torch.rand(static.shape, generator=random) < 0.6
        static = torch.where(dropped, ignore_index, static.long()).to(static.dtype)
    if draw(st.booleans()) and case.layout != "expanded":
        columns = features if features.dim() == 2 else features.movedim(1, -1)
        columns[torch.rand(static.shape, generator=random) < 0.1] = NAN
    shape = tuple(prototypes.shape)
    nearest = torch.where(present[:, None], normal(case.seed + 7, shape, prototypes.dtype), NAN)
    counted = torch.rand(len(present), generator=random) < 0.8
    kind = draw(st.sampled_from(["mixed", "full", "all_ignored"]))
    # Numbers of pixels, which targets in 16 bits hold exactly.
    filling = torch.randint(1, 99, static.shape[1:] or static.shape, generator=random).float()
    soft = soft_map(case.seed + 8, tuple(static.shape), len(present), kind)
    return {
        "features": features,
        "prototypes": prototypes,
        "present": present,
        "targets": draw(st.sampled_from([None, None, soft])),
        "filling": draw(st.sampled_from([None, filling])),
        "counted": draw(st.sampled_from([counted, counted, None])),
        "static": draw(st.sampled_from([static, static, None])),
        "nearest": draw(st.sampled_from([nearest, nearest, None])),
        "threshold": draw(st.sampled_from([0.5, 0.1, -3.0, 0.9])),
        "measure": draw(st.sampled_from(["confidence", "similarity"])),
        "temperature": case.temperature,
        "absent": case.absent,
        "normalize": draw(st.booleans()),
        "transfer": draw(st.sampled_from([True, True, False])),
        "ignore_index": ignore_index,
    }


def passed(call: Call, backend: str, upstream: Tensor) -> tuple[TargetPass, Tensor | None]:
    """Everything the pass gives, and the gradient of its weighted losses."""
    leaf = call["features"].detach().requires_grad_()
    found = target_pass(**{**call, "features": leaf}, backend=backend)
    if call["counted"] is None:
        assert not found.losses.requires_grad
        return found, None
    weighted = (found.losses * upstream.to(found.losses.dtype)).sum()
    return found, torch.autograd.grad(weighted, leaf)[0]


def noise_of(call: Call) -> float:
    """By how much the logits of a pixel may be off."""
    dtype = torch.float64 if call["features"].dtype == torch.float64 else torch.float32
    return STEPS * torch.finfo(dtype).eps * max(1 / call["temperature"], 1.0)


def rounding_decides(call: Call) -> bool:
    """Whether the label of some pixel is within the noise."""
    confidence = target_pass(**widened(call), backend="naive").confidence
    nearest = call["prototypes"] if call["nearest"] is None else call["nearest"]
    near = {**call, "prototypes": nearest, "similarity": "cosine"}
    near = {name: value for name, value in near.items() if name not in ("static", "counted")}
    return bool(undecided(near, confidence, noise_of(call)).any())


def assert_pass_agrees(call: Call, upstream: Tensor, backend: str = "eager") -> None:
    """AssertionError unless labels equal naive's, and all numbers are within the tolerance."""
    truth, true_gradient = passed(widened(call), "naive", upstream)
    ours, gradient = passed(call, backend, upstream)
    plain, plain_gradient = passed(call, "naive", upstream)
    assert torch.equal(ours.labels, truth.labels)
    assert torch.equal(ours.prototypes.count.double(), truth.prototypes.count)
    torch.testing.assert_close(ours.mass.double(), truth.mass, rtol=1e-5, atol=0)
    features = torch.nan_to_num(call["features"].double())
    longest = 1.0 if call["normalize"] else max(features.abs().flatten().tolist(), default=0.0)
    temperature, mass = call["temperature"], truth.mass.sum().item()
    scales = {"confidence": 1 / temperature, "losses": (2 / temperature + 5) * max(mass, 1)}
    for name, scale in scales.items():
        triple = (getattr(found, name) for found in (ours, plain, truth))
        assert_within(*triple, scale=max(scale, 1.0), name=name)
    means = (found.prototypes.mean for found in (ours, plain, truth))
    assert_within(*means, scale=longest, name="means")
    if gradient is None or plain_gradient is None or true_gradient is None:
        return
    weight = (upstream.double() * call["counted"] * call["present"]).abs()
    if call["targets"] is None:
        valid = truth.labels != call["ignore_index"]
        padded = torch.cat([weight, torch.zeros(1)])
        slope = 2 * padded[torch.where(valid, truth.labels, len(weight))].flatten()
    else:
        assert truth.targets is not None
        slope = 2 * rows_of(truth.targets).double() @ weight
    # A pixel that is NaN has no length that could scale an error.
    slope = torch.where(torch.isnan(rows_of(call["features"])).any(dim=1), 0, slope)
    scales = similarity_scales(call, slope, "cosine", temperature)
    triple = gradient, plain_gradient, true_gradient
    assert_within(*triple, scale=scales["features"], name="gradient")


@pytest.mark.parametrize("backend", ["eager"])
@given(call=calls(), seed=seeds, even=st.booleans())
def test_any_call(call: Call, seed: int, even: bool, backend: str) -> None:
    assume(not rounding_decides(call))
    upstream = normal(seed, (len(call["prototypes"]),))
    assert_pass_agrees(call, torch.full_like(upstream, 0.3) if even else upstream, backend)


def plain_call(dtype: torch.dtype = torch.float32, classes: int = 5) -> Call:
    """Two images of 7 channels around 5 prototypes, a third of them labelled."""
    prototypes = normal(0, (classes, 7), dtype)
    truth = label_map(1, (2, 90), classes, "full")
    features = (prototypes[truth] + 0.3 * normal(2, (2, 90, 7), dtype)).transpose(1, 2)
    dropped = torch.rand(2, 90, generator=torch.Generator().manual_seed(3)) < 0.6
    return {
        "features": features.contiguous(),
        "prototypes": prototypes,
        "present": torch.ones(classes, dtype=torch.bool),
        "counted": torch.ones(classes, dtype=torch.bool),
        "static": torch.where(dropped, 255, truth),
        "targets": None,
        "filling": None,
        "nearest": prototypes + 0.1 * normal(4, (classes, 7), dtype),
        "threshold": 0.5,
        "transfer": True,
        "measure": "confidence",
        "temperature": 0.1,
        "absent": "mask",
        "normalize": False,
        "ignore_index": 255,
    }


def test_the_check_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    call, upstream = plain_call(), torch.ones(5)
    assert_pass_agrees(call, upstream)
    right = passed

    def wrong(call: Call, backend: str, upstream: Tensor) -> tuple[TargetPass, Tensor | None]:
        found, gradient = right(call, backend, upstream)
        return found, gradient * 1.01 if backend == "eager" else gradient

    monkeypatch.setitem(globals(), "passed", wrong)
    with pytest.raises(AssertionError, match="gradient"):
        assert_pass_agrees(call, upstream)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_mean_is_over_shared_classes(backend: Any) -> None:
    found = target_pass(**plain_call(), backend=backend)
    shared = torch.tensor([True, False, True, True, False])
    mass = found.prototypes.count[shared].sum()
    expected = found.losses[shared].sum() / mass
    torch.testing.assert_close(found.mean_loss(shared), expected)
    assert found.mean_loss(torch.zeros_like(shared)) == 0


@pytest.mark.parametrize("backend", ["eager"])
def test_a_class_that_is_left_out_afterwards_is_as_if_never_counted(backend: Any) -> None:
    """A pixel that is NaN keeps its class out of a bank, and then out of loss and gradient.

    The gradient of `naive` is NaN there, since autograd multiplies by 0.
    """
    call = plain_call()
    call["features"][0, 2, 7] = NAN
    label = 3
    call["static"][0, 7] = label
    shared = torch.arange(5) != label
    losses, gradients = [], []
    for counted in (call["counted"], shared):
        leaf = call["features"].clone().requires_grad_()
        found = target_pass(**{**call, "features": leaf, "counted": counted}, backend=backend)
        assert torch.isnan(found.prototypes.mean).any(dim=1).tolist() == (~shared).tolist()
        losses.append(found.mean_loss(shared))
        gradients.append(torch.autograd.grad(losses[-1], leaf)[0])
    assert math.isfinite(losses[0].item())
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(*gradients)
    assert not gradients[0].movedim(1, -1)[found.labels == label].any()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("wants", [False, True])
def test_means_that_are_not_wanted_are_zero(wants: bool, backend: Any) -> None:
    found = target_pass(**plain_call(), wants_means=wants, backend=backend)
    assert bool(found.prototypes.mean.any()) == wants
    assert found.prototypes.count.sum() == (found.labels != 255).sum()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_static_label_that_is_no_class_is_refused(backend: Any) -> None:
    call = plain_call()
    call["static"][1, 4] = 77
    with pytest.raises(ValueError, match="value 77"):
        target_pass(**call, backend=backend)
