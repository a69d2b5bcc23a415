"""The contrast kernels equal `naive`, in value and every gradient, for calls of any form."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from protocontrast import pixel_prototype_contrast
from protocontrast.calls import ContrastCall
from tests.agreement import assert_agrees, contrast_scales, values_and_gradients, widened
from tests.interpreter.small_spans import span_budget
from tests.strategies import LAYOUTS, ContrastCase, contrast_cases, seeds

WANTED = [("features",), ("prototypes",), ("features", "prototypes")]
SIMILARITIES = ["cosine", "dot", "euclidean"]


def assert_case_agrees(case: ContrastCase, wanted: tuple[str, ...], upstream_seed: int) -> None:
    call = {**case.tensors(), **case.settings}
    scales = contrast_scales(call, case.settings, upstream_seed)
    assert_agrees(
        pixel_prototype_contrast, call, wanted, scales=scales, upstream_seed=upstream_seed,
        backend="triton",
    )  # fmt: skip


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("similarity", SIMILARITIES)
@given(data=st.data())
def test_any_call(similarity: str, soft: bool, data: st.DataObject) -> None:
    case = data.draw(contrast_cases(similarity=similarity, soft=soft))
    assert_case_agrees(case, data.draw(st.sampled_from(WANTED)), data.draw(seeds))


@pytest.mark.parametrize("absent", ["mask", "floor"])
@given(data=st.data())
def test_absent_classes(absent: str, data: st.DataObject) -> None:
    presence = data.draw(st.sampled_from(["given", "implied"]))
    fixed = {"similarity": "cosine", "presence": presence, "absent": absent}
    case = data.draw(contrast_cases(**fixed, label_kind="mixed"))
    assert_case_agrees(case, WANTED[-1], data.draw(seeds))


@pytest.mark.parametrize("slot_bytes", [0, 2**30])
@pytest.mark.parametrize("channels", [7, 76])
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_sums_over_one_and_over_many_spans(similarity: str, channels: int, slot_bytes: int) -> None:
    """7 channels fit one block, which stays with the program; 76 do not."""
    case = ContrastCase(
        0, (2, channels, 259), 5, dtype=torch.float64, prototype_dtype=torch.float64,
        similarity=similarity, temperature=1.0, pixel_weight=torch.float32, spoilt=float("nan"),
    )  # fmt: skip
    with span_budget(slot_bytes):
        assert_case_agrees(case, WANTED[-1], 1)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("channels", [16, 76, pytest.param(720, marks=pytest.mark.slow)])
def test_every_layout_and_dtype(channels: int, dtype: torch.dtype, layout: str) -> None:
    case = ContrastCase(
        2, (1, channels, 5, 9), 19, dtype=dtype, layout=layout, label_layout=layout,
        reduction="none",
    )  # fmt: skip
    assert_case_agrees(case, WANTED[-1], 3)


@pytest.mark.parametrize("classes", [1, 16, 17, 150, 256])
def test_every_width_of_the_class_block(classes: int) -> None:
    case = ContrastCase(
        4, (1, 33, 5, 9), classes, presence="given", label_dtype=(torch.int64, -100)
    )
    assert_case_agrees(case, WANTED[-1], 5)


@pytest.mark.parametrize(
    ("precision", "low", "high"),
    [("highest", 0, 1e-6), ("high", 0, 1e-6), ("medium", 1e-5, 1e-2)],
)
def test_16_bit_operands_lose_nothing_unless_asked(precision: str, low: float, high: float) -> None:
    """float16 products of two halves are as exact as float32 ones; the upper half alone is not."""
    case = ContrastCase(6, (2, 33, 40), 5, dtype=torch.float16)
    call = {**case.tensors(), **case.settings}
    truth = pixel_prototype_contrast(**widened(call), backend="naive")
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        loss = pixel_prototype_contrast(**call, backend="triton")
    finally:
        torch.set_float32_matmul_precision(before)
    assert low <= abs(float(loss) / float(truth) - 1) <= high


def test_float16_products_survive_tiny_and_huge_numbers() -> None:
    """A mean over many pixels has gradients, and a long prototype entries, outside float16."""
    case = ContrastCase(8, (1, 16, 9), 3, dtype=torch.float16, similarity="dot", temperature=1e5)
    call = {**case.tensors(), **case.settings}
    call["prototypes"] = call["prototypes"] * 1e5
    call["pixel_weight"] = torch.full((1, 9), 1e-6)
    call["reduction"] = "sum"
    _, ours = values_and_gradients(
        pixel_prototype_contrast, {**call, "backend": "triton"}, ["prototypes"], 0
    )
    _, plain = values_and_gradients(
        pixel_prototype_contrast, {**call, "backend": "naive"}, ["prototypes"], 0
    )
    torch.testing.assert_close(ours["prototypes"], plain["prototypes"], rtol=1e-5, atol=0)


def test_two_runs_give_the_same_bits() -> None:
    case = ContrastCase(9, (2, 33, 140), 5, presence="given", soft=True)
    call = {**case.tensors(), **case.settings, "backend": "triton"}
    runs = [values_and_gradients(pixel_prototype_contrast, call, WANTED[-1], 0) for _ in range(2)]
    (first, to_first), (second, to_second) = runs
    assert torch.equal(first[0], second[0])
    assert all(torch.equal(to_first[name], to_second[name]) for name in WANTED[-1])


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_the_gradient_has_the_features_memory_format(layout: str) -> None:
    case = ContrastCase(0, (2, 7, 3, 5), 4, layout=layout, dtype=torch.bfloat16)
    call = case.tensors()
    leaf = call["features"].requires_grad_()
    loss = pixel_prototype_contrast(**call, **case.settings, backend="triton")
    (gradient,) = torch.autograd.grad(loss, leaf)
    assert gradient.stride() == leaf.stride()
    assert gradient.dtype == torch.bfloat16


def test_upstream_gradients_of_any_stride() -> None:
    case = ContrastCase(0, (2, 7, 3, 5), 4, reduction="none")
    call = case.tensors()
    leaf = call["features"].requires_grad_()
    loss = pixel_prototype_contrast(**call, **case.settings, backend="triton")
    dense = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    for upstream in (dense.movedim(0, 2).contiguous().movedim(2, 0), torch.ones(1).expand(2, 3, 5)):
        gradients = [
            torch.autograd.grad(loss, leaf, given, retain_graph=True)[0]
            for given in (upstream, upstream.clone(memory_format=torch.contiguous_format))
        ]
        assert torch.equal(*gradients)


def test_a_label_that_is_no_class_turns_its_own_loss_into_nan() -> None:
    """On a GPU none is looked up as it is; on CPU the operator refuses them first."""
    from protocontrast.kernels.contrast import contrast

    features, prototypes = torch.ones(1, 4, 5), torch.eye(4)[:3]
    labels = torch.tensor([[0, 3, -1, 2**33, 255]])
    loss, weight, _ = contrast(
        ContrastCall(features, labels, prototypes, None, None, None, "cosine", 0.1, False, 255)
    )
    assert torch.isnan(loss).tolist() == [[False, True, True, True, False]]
    assert torch.isnan(weight).tolist() == [[False, True, True, True, False]]
    assert loss[0, 4] == 0


def test_a_valid_pixel_that_is_nan_gives_nan() -> None:
    features = torch.ones(1, 4, 3)
    features[0, 2, 1] = float("nan")
    leaf, rows = features.requires_grad_(), torch.eye(4).requires_grad_()
    loss = pixel_prototype_contrast(
        leaf, torch.zeros(1, 3, dtype=torch.int64), rows, reduction="none", backend="triton"
    )
    assert torch.isnan(loss).tolist() == [[False, True, False]]
    to_features, to_prototypes = torch.autograd.grad(loss.sum(), (leaf, rows))
    assert torch.isnan(to_features).all(dim=1).tolist() == [[False, True, False]]
    assert torch.isnan(to_prototypes).any()
