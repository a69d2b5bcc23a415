"""The kernels of `distribution_contrast` equal `naive`, in value and every gradient."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from protocontrast import distribution_contrast
from protocontrast.calls import DistributionCall
from tests.agreement import assert_agrees, values_and_gradients
from tests.interpreter.small_spans import span_budget
from tests.strategies import LAYOUTS, NAN, ContrastCase, contrast_cases, normal, seeds
from tests.test_distribution_contrast import WANTED, call_of, scales_of


def assert_case_agrees(
    case: ContrastCase, normalize: bool, wanted: tuple[str, ...], upstream_seed: int
) -> None:
    call = call_of(case, normalize)
    assert_agrees(
        distribution_contrast, call, wanted, scales=scales_of(case, call, upstream_seed),
        upstream_seed=upstream_seed, backend="triton",
    )  # fmt: skip


@given(
    case=contrast_cases(similarity="dot"),
    normalize=st.booleans(),
    wanted=st.sampled_from(WANTED),
    upstream_seed=seeds,
)
def test_any_call(
    case: ContrastCase, normalize: bool, wanted: tuple[str, ...], upstream_seed: int
) -> None:
    assert_case_agrees(case, normalize, wanted, upstream_seed)


DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
# Every fourth of these meets each layout and each dtype.
EVERY = [(depth, dtype, layout) for depth in (16, 76) for dtype in DTYPES for layout in LAYOUTS]


@pytest.mark.parametrize(
    ("depth", "dtype", "layout"),
    [
        pytest.param(*one, marks=[] if i % 4 == 1 else pytest.mark.slow)
        for i, one in enumerate(EVERY)
    ],
)
def test_every_layout_and_dtype(depth: int, dtype: torch.dtype, layout: str) -> None:
    """16 channels fit one block, which stays with the program; 76 do not."""
    case = ContrastCase(
        2, (1, depth, 5, 9), 19, dtype=dtype, layout=layout, label_layout=layout,
        similarity="dot", temperature=1.0, reduction="none",
    )  # fmt: skip
    assert_case_agrees(case, depth == 76, WANTED[-1], 3)


@pytest.mark.parametrize("slot_bytes", [0, 2**30])
@pytest.mark.parametrize("channels", [7, 40])
def test_sums_over_one_and_over_many_spans(channels: int, slot_bytes: int) -> None:
    case = ContrastCase(
        0, (2, channels, 131), 5, dtype=torch.float64, prototype_dtype=torch.float64,
        similarity="dot", temperature=1.0, pixel_weight=torch.float32, spoilt=NAN,
    )  # fmt: skip
    with span_budget(slot_bytes):
        assert_case_agrees(case, True, WANTED[-1], 1)


@pytest.mark.parametrize("classes", [1, 17, pytest.param(150, marks=pytest.mark.slow)])
def test_every_width_of_the_class_block(classes: int) -> None:
    case = ContrastCase(4, (1, 33, 5, 9), classes, presence="given", similarity="dot")
    assert_case_agrees(case, True, WANTED[-1], 5)


def test_two_runs_give_the_same_bits() -> None:
    case = ContrastCase(9, (2, 33, 70), 5, presence="given", soft=True, similarity="dot")
    call = {**call_of(case, True), "backend": "triton"}
    runs = [values_and_gradients(distribution_contrast, call, WANTED[-1], 0) for _ in range(2)]
    (first, to_first), (second, to_second) = runs
    assert torch.equal(first[0], second[0])
    assert all(torch.equal(to_first[name], to_second[name]) for name in WANTED[-1])


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_the_gradient_has_the_features_memory_format(layout: str) -> None:
    case = ContrastCase(0, (2, 7, 3, 5), 4, layout=layout, dtype=torch.bfloat16, similarity="dot")
    call = {**call_of(case, True), "backend": "triton"}
    _, gradients = values_and_gradients(distribution_contrast, call, ["features"], 0)
    assert gradients["features"].stride() == call["features"].stride()
    assert gradients["features"].dtype == torch.bfloat16


def test_upstream_gradients_of_any_stride() -> None:
    case = ContrastCase(0, (2, 7, 3, 5), 4, reduction="none", similarity="dot")
    call = {**call_of(case, True), "backend": "triton"}
    leaf = call["features"].requires_grad_()
    loss = distribution_contrast(**call)
    across = normal(0, (2, 5, 3), torch.float32).transpose(1, 2)
    for upstream in (across, torch.ones(1).expand(2, 3, 5)):
        gradients = [
            torch.autograd.grad(loss, leaf, given, retain_graph=True)[0]
            for given in (upstream, upstream.clone(memory_format=torch.contiguous_format))
        ]
        assert torch.equal(*gradients)


def test_a_label_that_is_no_class_turns_its_own_loss_into_nan() -> None:
    """On a GPU labels are compared and never looked up; on CPU the operator refuses them first."""
    from protocontrast.kernels.distribution_contrast import distribution_contrast as on_kernel

    features, means = torch.ones(1, 4, 5), torch.eye(4)[:3]
    labels = torch.tensor([[0, 3, -1, 2**33, 255]])
    call = DistributionCall(features, labels, means, means, None, None, None, True, 1.0, 255)
    loss, weight, _ = on_kernel(call)
    assert torch.isnan(loss).tolist() == [[False, True, True, True, False]]
    assert torch.isnan(weight).tolist() == [[False, True, True, True, False]]
    assert loss[0, 4] == 0


def test_a_valid_pixel_that_is_nan_gives_nan_and_an_ignored_one_nothing() -> None:
    features = torch.ones(1, 4, 3)
    features[0, 2, 1:] = NAN
    labels = torch.tensor([[0, 0, 255]])
    leaves = [value.requires_grad_() for value in (features, torch.eye(4), torch.eye(4))]
    loss = distribution_contrast(leaves[0], labels, *leaves[1:], reduction="none", backend="triton")
    assert torch.isnan(loss).tolist() == [[False, True, False]]
    to_features = torch.autograd.grad(loss.sum(), leaves, retain_graph=True)[0]
    assert torch.isnan(to_features).all(dim=1).tolist() == [[False, True, False]]
    assert (to_features[..., 2] == 0).all()
    loss = distribution_contrast(
        leaves[0], torch.tensor([[0, 255, 255]]), *leaves[1:], reduction="none", backend="triton"
    )
    upstream = torch.tensor([[1.0, NAN, float("inf")]])
    for gradient in torch.autograd.grad(loss, leaves, upstream):
        assert gradient.isfinite().all()
