"""`upsampled_cross_entropy`: sizes, seams, and what stands at the edges."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from protocontrast import upsampled_cross_entropy
from protocontrast.calls import UpsampledCall
from protocontrast.eager import resampling
from protocontrast.eager import upsampled_cross_entropy as eager
from tests.agreement import assert_agrees, values_and_gradients, widened
from tests.launching import Largest
from tests.tolerance import assert_within
from tests.upsampled_cases import Case, cases, composed, scales

BACKENDS = ["eager", "naive"]


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of a row and chunks of two: every seam there is."""
    monkeypatch.setattr(resampling, "TILE_BYTES", 1)
    monkeypatch.setattr(resampling, "CHUNK_BYTES", 1)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("size", [(3, 4), (4, 5), (7, 9), (33, 41)])
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_seams(reduction: str, align_corners: bool, size: tuple[int, int]) -> None:
    case = Case(size=size, align_corners=align_corners, reduction=reduction)
    assert_agrees(upsampled_cross_entropy, case.call(), ("logits",), scales=scales(case))


@pytest.mark.parametrize("backend", BACKENDS)
@given(data=st.data())
def test_the_composition(backend: str, data: st.DataObject) -> None:
    case = data.draw(cases(dtype=torch.float64))
    call = case.call()
    found = values_and_gradients(
        lambda **rest: upsampled_cross_entropy(**rest, backend=backend), call, ("logits",), 0
    )
    expected = values_and_gradients(composed, call, ("logits",), 0)
    # Over nothing the composition is 0 / 0, or something smoothed over 0.
    nothing = {"nan": 0.0, "posinf": 0.0, "neginf": 0.0}
    values, gradient = [v.nan_to_num(**nothing) for v in expected[0]], expected[1]["logits"]
    size = scales(case)
    for ours, truth in zip(found[0], values, strict=True):
        assert_within(ours, truth, truth, scale=size["value"])
    truth = gradient.nan_to_num(**nothing)
    assert_within(found[1]["logits"], truth, truth, scale=size["logits"])


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("size", [(130, 257), (33, 65), (73, 91)])
def test_sizes_of_several_tiles(size: tuple[int, int], align_corners: bool) -> None:
    case = Case(shape=(1, 19, 33, 65), size=size, align_corners=align_corners)
    call = case.call()
    found = values_and_gradients(upsampled_cross_entropy, call, ("logits",), 0)
    truth = values_and_gradients(composed, widened(call), ("logits",), 0)
    torch.testing.assert_close(found[0][0].double(), truth[0][0], rtol=1e-6, atol=0)
    error = (found[1]["logits"] - truth[1]["logits"]).abs().max()
    assert error <= 1e-6 * truth[1]["logits"].abs().max()


@pytest.mark.parametrize("scale", [4, 8])
def test_the_largest_tensor_does_not_grow_with_the_labels(scale: int) -> None:
    case = Case(shape=(1, 19, 40, 64), size=(40 * scale, 64 * scale))
    call = case.call()
    labels = call["labels"].to(torch.uint8)
    with Largest(lambda value: value.untyped_storage().nbytes()) as watch:
        read = UpsampledCall(call["logits"], labels, None, 255, False, 0.0)
        eager.upsampled_cross_entropy_with_gradient(read, True, (True,))
    assert 0 < watch.largest <= resampling.CHUNK_BYTES
    with Largest(lambda value: value.untyped_storage().nbytes()) as watch:
        composed(**call)
    assert watch.largest == 4 * call["logits"].numel() * scale**2


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(
    ("grid", "size", "axis"),
    [((2, 8), (5, 21), 3), ((4, 2, 3), (9, 5, 7), 2), ((4, 2, 3), (4, 5, 7), 2)],
)
def test_what_ignored_pixels_read_is_not_read(
    grid: tuple[int, ...], size: tuple[int, ...], axis: int, value: float, reduction: str,
    backend: str,
) -> None:  # fmt: skip
    """Half of the logits along an axis are spoilt, and every pixel that reads it is ignored."""
    call = Case(shape=(1, 5, *grid), size=size, label_kind="full", reduction=reduction).call()
    logits, labels = call.pop("logits"), call.pop("labels")
    half, spoilt, length = torch.zeros_like(logits), logits.clone(), logits.shape[axis]
    for one, filler in ((half, 1.0), (spoilt, value)):
        one.narrow(axis, length // 2, length // 2).fill_(filler)
    mode = ("bilinear", "trilinear")[len(grid) - 2]
    labels[F.interpolate(half[:, :1], size, mode=mode)[:, 0] > 0] = 255
    results = []
    for given_logits in (spoilt, logits):
        leaf = given_logits.requires_grad_()
        loss = upsampled_cross_entropy(leaf, labels, **call, backend=backend)
        results.append((loss.detach(), torch.autograd.grad(loss.sum(), leaf)[0]))
    assert not results[0][1][half == 1].any()
    torch.testing.assert_close(*results)


def assert_not_finite_where_naive_is_not(call: dict[str, Any], backend: str) -> None:
    """Equal to `naive`, and where that is not finite, not finite."""
    found, truth = (
        values_and_gradients(upsampled_cross_entropy, {**call, "backend": one}, ("logits",), 0)
        for one in (backend, "naive")
    )
    assert torch.equal(found[0][0].isfinite(), truth[0][0].isfinite())
    # Of infinity, logsumexp's own gradient is NaN in that class alone; a softmax is NaN in all.
    ours, expected = found[1]["logits"], truth[1]["logits"]
    assert torch.equal(ours.isfinite().all(dim=1), expected.isfinite().all(dim=1))
    for mine, theirs in ((found[0][0], truth[0][0]), (ours, expected)):
        finite = mine.isfinite() & theirs.isfinite()
        torch.testing.assert_close(mine[finite], theirs[finite], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("backend", ["eager"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@given(data=st.data())
def test_what_is_not_finite_stays_where_it_is_read(
    value: float, smoothing: float, backend: str, data: st.DataObject
) -> None:
    fixed = {"dtype": torch.float64, "layout": "contiguous", "spread": 1.0}
    case = data.draw(cases(**fixed, label_smoothing=smoothing))
    call = case.call()
    logits = call["logits"]
    if logits.numel():
        logits.view(-1)[case.seed % logits.numel()] = value
    assert_not_finite_where_naive_is_not(call, backend)


@pytest.mark.parametrize("backend", ["eager"])
@pytest.mark.parametrize("weight", [(1.0, 0.0, float("nan")), (float("inf"), 0.0, 2.0)])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_weights_that_are_not_finite(
    smoothing: float, weight: tuple[float, ...], backend: str
) -> None:
    call = Case(shape=(2, 3, 3, 4), dtype=torch.float64, label_smoothing=smoothing).call()
    call |= {"class_weight": torch.tensor(weight), "reduction": "none"}
    assert_not_finite_where_naive_is_not(call, backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_pixel_between_two_certain_cells(backend: str) -> None:
    """Every logit of the middle pixel is far below the peaks of what it reads."""
    logits = torch.tensor([[[[500.0, 0.0]], [[0.0, 500.0]], [[100.0, 100.0]]]])
    loss = upsampled_cross_entropy(
        logits, torch.tensor([[[0, 2, 1]]]), align_corners=True, reduction="none", backend=backend
    )
    assert loss.flatten().tolist() == pytest.approx([0, 150 + 0.6931472, 0], rel=1e-6)


@pytest.mark.parametrize("backend", ["eager"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_loss_scale_saves_small_half_precision_gradients(reduction: str, backend: str) -> None:
    call = Case(dtype=torch.float16, label_kind="one_class", reduction=reduction).call()
    # Certain of the right class: a slope of e^-16 is less than float16 can hold without the scale.
    call["logits"] = torch.zeros_like(call["logits"])
    call["logits"][:, -1] = 16
    found = []
    for one, change in ((backend, {}), ("naive", widened(call))):
        given_call = {**call, **change}
        logits = given_call.pop("logits").detach().requires_grad_()
        loss = upsampled_cross_entropy(logits, **given_call, backend=one)
        found.append(torch.autograd.grad(loss * 2.0**20, logits)[0][:, :-1].double())
    assert found[1].min() > 0
    torch.testing.assert_close(*found, rtol=2e-3, atol=0)
