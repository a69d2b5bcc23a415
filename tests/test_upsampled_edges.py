"""`upsampled_cross_entropy` where pixels drop out, and as a guest of autograd."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from protocontrast import upsampled_cross_entropy
from tests.agreement import values_and_gradients, widened
from tests.strategies import LABEL_DTYPES, label_map, normal
from tests.upsampled_cases import Case, cases

BACKENDS = ["eager", "naive"]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize(
    "change",
    [{"label_kind": "all_ignored"}, {"shape": (0, 5, 3, 4)}, {"class_weight": torch.float32}],
    ids=["ignored", "empty", "weightless"],
)
def test_no_valid_pixel_is_zero_and_connected(
    change: dict[str, Any], reduction: str, backend: str
) -> None:
    call = Case(reduction=reduction, **change).call()
    if call["class_weight"] is not None:
        call["class_weight"] = torch.zeros(5)
    logits = call.pop("logits").requires_grad_()
    loss = upsampled_cross_entropy(logits, **call, backend=backend)
    assert loss.requires_grad
    assert (loss == 0).all()
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert gradient.shape == logits.shape
    assert (gradient == 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_ignored_pixels_read_is_not_read(value: float, reduction: str, backend: str) -> None:
    """The right half of the logits is spoilt, and every pixel that reads it is ignored."""
    call = Case(shape=(1, 5, 2, 8), size=(5, 21), label_kind="full", reduction=reduction).call()
    logits, labels = call.pop("logits"), call.pop("labels")
    reads = F.interpolate(
        (torch.arange(8) >= 4).float().expand(1, 1, 2, 8), (5, 21), mode="bilinear"
    )
    labels[:, reads[0, 0] > 0] = 255
    spoilt = logits.clone()
    spoilt[..., 4:] = value
    results = []
    for given_logits in (spoilt, logits):
        leaf = given_logits.requires_grad_()
        loss = upsampled_cross_entropy(leaf, labels, **call, backend=backend)
        results.append((loss.detach(), torch.autograd.grad(loss.sum(), leaf)[0]))
    assert (results[0][1][..., 4:] == 0).all()
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


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@given(data=st.data())
def test_what_is_not_finite_stays_where_it_is_read(value: float, data: st.DataObject) -> None:
    case = data.draw(cases(dtype=torch.float64, layout="contiguous", spread=1.0))
    call = case.call()
    logits = call["logits"]
    if logits.numel():
        logits.view(-1)[case.seed % logits.numel()] = value
    assert_not_finite_where_naive_is_not(call, "eager")


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_pixel_between_two_certain_cells(backend: str) -> None:
    """Every logit of the middle pixel is far below the peaks of what it reads."""
    logits = torch.tensor([[[[500.0, 0.0]], [[0.0, 500.0]], [[100.0, 100.0]]]])
    loss = upsampled_cross_entropy(
        logits, torch.tensor([[[0, 2, 1]]]), align_corners=True, reduction="none", backend=backend
    )
    assert loss.flatten().tolist() == pytest.approx([0, 150 + 0.6931472, 0], rel=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
@given(data=st.data())
def test_every_integer_dtype_gives_the_same_bits(backend: str, data: st.DataObject) -> None:
    dtype, ignore_index = data.draw(st.sampled_from(LABEL_DTYPES))
    labels = label_map(data.draw(st.integers(0, 99)), (2, 6, 5), 3, "mixed", dtype, ignore_index)
    logits = normal(0, (2, 3, 2, 5), torch.float32)
    narrow, wide = (
        upsampled_cross_entropy(logits, labels.to(kind), ignore_index=ignore_index, backend=backend)
        for kind in (dtype, torch.int64)
    )
    assert torch.equal(narrow, wide)


def test_gradcheck() -> None:
    for align_corners in (False, True):
        for size in ((3, 4), (5, 9)):
            call = Case(
                size=size, dtype=torch.float64, align_corners=align_corners, reduction="none"
            ).call()
            logits = call.pop("logits").requires_grad_()

            def loss(x: Tensor, call: dict[str, Any] = call) -> Tensor:
                return upsampled_cross_entropy(x, **call)

            assert torch.autograd.gradcheck(loss, logits)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_the_gradient_has_the_logits_memory_format(
    layout: str, dtype: torch.dtype, reduction: str, backend: str = "eager"
) -> None:
    call = Case(dtype=dtype, layout=layout, reduction=reduction).call()
    logits = call.pop("logits").requires_grad_()
    loss = upsampled_cross_entropy(logits, **call, backend=backend)
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert loss.dtype == torch.float32
    assert (gradient.dtype, gradient.stride()) == (dtype, logits.stride())


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_loss_scale_saves_small_half_precision_gradients(
    reduction: str, backend: str = "eager"
) -> None:
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


@pytest.mark.parametrize("layout", ["expanded", "transposed", "NaN where ignored"])
def test_upstream_gradients_of_any_kind(layout: str, backend: str = "eager") -> None:
    call = Case(reduction="none").call()
    logits, labels = call.pop("logits").requires_grad_(), call["labels"]
    upstream = torch.tensor(0.7).expand(labels.shape)
    if layout == "transposed":
        upstream = normal(1, (2, 9, 7), torch.float32).transpose(1, 2)
    plain = upstream.clone(memory_format=torch.contiguous_format)
    if layout == "NaN where ignored":
        upstream = torch.where(labels == 255, torch.nan, upstream)
    loss = upsampled_cross_entropy(logits, **call, backend=backend)
    (found,) = torch.autograd.grad(loss, logits, upstream, retain_graph=True)
    (expected,) = torch.autograd.grad(loss, logits, plain)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)
