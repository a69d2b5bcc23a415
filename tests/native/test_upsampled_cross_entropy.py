"""`upsampled_cross_entropy` in C equals `naive` and the composition, also where pixels drop out."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from protocontrast import upsampled_cross_entropy
from tests import test_absent_logits as absent
from tests import test_upsampled_cross_entropy as any_backend
from tests import test_upsampled_edges as edges
from tests.agreement import assert_agrees, values_and_gradients, widened
from tests.native.variants import NAMES, variant
from tests.strategies import normal, seeds
from tests.upsampled_cases import Case, cases, composed, scales

NOT_FINITE = (float("nan"), float("inf"), float("-inf"))


@pytest.mark.parametrize("name", NAMES)
@given(case=cases(), upstream_seed=seeds)
def test_any_call(name: str, case: Case, upstream_seed: int) -> None:
    with variant(name):
        assert_agrees(
            upsampled_cross_entropy, case.call(), ("logits",), scales=scales(case),
            upstream_seed=upstream_seed, backend="native",
        )  # fmt: skip


@given(data=st.data())
def test_the_composition(data: st.DataObject) -> None:
    any_backend.test_the_composition.hypothesis.inner_test(backend="native", data=data)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("size", [(33, 65), (34, 66), (73, 91), (130, 257), (40, 1500)])
def test_sizes_of_several_strips_and_spans(
    size: tuple[int, int], aligned: bool, layout: str
) -> None:
    """As large as the logits, where 64 outputs would read 65 inputs; and one input for a strip."""
    shape = (2, 19, 33, 65) if size[1] < 1000 else (1, 3, 40, 5)
    case = Case(shape=shape, size=size, align_corners=aligned, layout=layout)
    call = case.call()
    truth = values_and_gradients(composed, widened(call), ("logits",), 0)
    for name in NAMES:
        with variant(name):
            found = values_and_gradients(
                upsampled_cross_entropy, {**call, "backend": "native"}, ("logits",), 0
            )
        torch.testing.assert_close(found[0][0].double(), truth[0][0], rtol=1e-6, atol=0)
        error = (found[1]["logits"] - truth[1]["logits"]).abs().max()
        assert error <= 1e-6 * truth[1]["logits"].abs().max()


@pytest.mark.parametrize("name", NAMES)
@given(seed=seeds, least=st.sampled_from([0.0, 1.0, 2.0]), aligned=st.booleans())
def test_absent_classes(name: str, seed: int, least: float, aligned: bool) -> None:
    with variant(name):
        for size in ((3, 4), (6, 8), (7, 9)):
            absent.assert_absent_where_a_cell_is(seed, least, size, aligned, "native")


def test_a_pixel_without_any_class_is_ignored() -> None:
    absent.test_a_pixel_without_any_class_is_ignored("native")


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_what_is_ignored_is_not_read(reduction: str) -> None:
    for change in (
        {"label_kind": "all_ignored"}, {"shape": (0, 5, 3, 4)}, {"class_weight": torch.float32}
    ):  # fmt: skip
        edges.test_no_valid_pixel_is_zero_and_connected(change, reduction, "native")
    for value in NOT_FINITE:
        edges.test_what_ignored_pixels_read_is_not_read(value, reduction, "native")


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("value", NOT_FINITE)
@given(data=st.data())
def test_what_is_not_finite_stays_where_it_is_read(
    value: float, smoothing: float, data: st.DataObject
) -> None:
    fixed = {"dtype": torch.float64, "layout": "contiguous", "spread": 1.0}
    call = data.draw(cases(**fixed, label_smoothing=smoothing)).call()
    if call["logits"].numel():
        call["logits"].view(-1)[data.draw(seeds) % call["logits"].numel()] = value
    edges.assert_not_finite_where_naive_is_not(call, "native")


@pytest.mark.parametrize("weight", [(1.0, 0.0, float("nan")), (float("inf"), 0.0, 2.0)])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_weights_that_are_not_finite(smoothing: float, weight: tuple[float, ...]) -> None:
    call = Case(shape=(2, 3, 3, 4), dtype=torch.float64, label_smoothing=smoothing).call()
    call |= {"class_weight": torch.tensor(weight), "reduction": "none"}
    edges.assert_not_finite_where_naive_is_not(call, "native")


@pytest.mark.parametrize("spread", [30.0, 1000.0])
def test_logits_far_apart(spread: float) -> None:
    """exp of a blend less the blended peaks is 0 in float32."""
    edges.test_a_pixel_between_two_certain_cells("native")
    case = Case(spread=spread, size=(23, 71), shape=(2, 5, 9, 11))
    for name in NAMES:
        with variant(name):
            assert_agrees(
                upsampled_cross_entropy, case.call(), ("logits",), scales=scales(case),
                backend="native",
            )  # fmt: skip


@given(data=st.data())
def test_every_integer_dtype_gives_the_same_bits(data: st.DataObject) -> None:
    edges.test_every_integer_dtype_gives_the_same_bits.hypothesis.inner_test("native", data)


@pytest.mark.parametrize("layout", ["expanded", "transposed", "NaN where ignored"])
def test_upstream_gradients_of_any_kind(layout: str) -> None:
    edges.test_upstream_gradients_of_any_kind(layout, "native")


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_the_gradient_has_the_logits_memory_format(
    layout: str, dtype: torch.dtype, reduction: str
) -> None:
    edges.test_the_gradient_has_the_logits_memory_format(layout, dtype, reduction, "native")


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_loss_scale_saves_small_half_precision_gradients(reduction: str) -> None:
    edges.test_a_loss_scale_saves_small_half_precision_gradients(reduction, "native")


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_gradcheck(smoothing: float) -> None:
    for aligned in (False, True):
        call = Case(
            size=(5, 9), dtype=torch.float64, align_corners=aligned, label_smoothing=smoothing,
            class_weight=torch.float32, reduction="none",
        ).call()  # fmt: skip
        logits = call.pop("logits").requires_grad_()
        assert torch.autograd.gradcheck(
            lambda x, call=call: upsampled_cross_entropy(x, **call, backend="native"), logits
        )


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_volumes(reduction: str) -> None:
    logits = normal(0, (2, 3, 2, 3, 4))
    labels = torch.randint(3, (2, 4, 7, 9), generator=torch.Generator().manual_seed(0))
    call = {"logits": logits, "labels": labels, "reduction": reduction}
    found, expected = (
        values_and_gradients(upsampled_cross_entropy, {**call, "backend": one}, ("logits",), 0)
        for one in ("native", "naive")
    )
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
