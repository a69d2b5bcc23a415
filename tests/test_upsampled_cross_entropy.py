"""`upsampled_cross_entropy`: eager equals `naive`, and both equal interpolate and cross_entropy."""

import pytest
import torch
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
