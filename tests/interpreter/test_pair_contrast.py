"""The kernels of `pair_contrast` equal `naive`, in value and every gradient, for any call."""

import pytest
import torch
from hypothesis import given

from protocontrast import pair_contrast
from tests.agreement import assert_agrees, values_and_gradients
from tests.pair_cases import ROW_LAYOUTS, WANTED, Case, cases, scales
from tests.strategies import seeds


def assert_case_agrees(case: Case, upstream_seed: int) -> None:
    call = case.call()
    assert_agrees(
        pair_contrast, call, case.wanted, scales=scales(call, upstream_seed),
        upstream_seed=upstream_seed, backend="triton",
    )  # fmt: skip


@given(case=cases(), upstream_seed=seeds)
def test_any_call(case: Case, upstream_seed: int) -> None:
    assert_case_agrees(case, upstream_seed)


DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
# With five layouts, every fourth of these meets each layout and each dtype.
EVERY = [(depth, dtype, layout) for depth in (16, 76) for dtype in DTYPES for layout in ROW_LAYOUTS]


@pytest.mark.parametrize(
    ("depth", "dtype", "layout"),
    [
        pytest.param(*one, marks=[] if i % 4 == 1 else pytest.mark.slow)
        for i, one in enumerate(EVERY)
    ],
)
def test_every_layout_and_dtype(depth: int, dtype: torch.dtype, layout: str) -> None:
    """16 channels fit one block, which stays with the program; 76 do not."""
    assert_case_agrees(
        Case(
            2, 18, 33, depth, 5, dtype, dtype, layout, layout,
            spoilt=float("nan"), anchor_weight=torch.float32, reduction="none",
        ),
        3,
    )  # fmt: skip


@pytest.mark.parametrize("programs", [1, 4096])
@pytest.mark.parametrize("depth", [7, 76])
@pytest.mark.parametrize("denominator", ["negatives", "all"])
def test_sums_over_one_and_over_many_spans(
    denominator: str, depth: int, programs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from protocontrast.kernels import pairs

    monkeypatch.setattr(pairs, "PROGRAMS", programs)
    assert pairs.span_of_pairs(20, 150) == (256 if programs == 1 else 128)
    case = Case(
        4, 20, 150, depth, 5, torch.float64, torch.float64, denominator=denominator,
        temperature=0.01, similarity="dot" if depth == 7 else "cosine",
    )  # fmt: skip
    assert_case_agrees(case, 1)


def test_two_runs_give_the_same_bits() -> None:
    call = {**Case(9, 70, 140, 33, reduction="none").call(), "backend": "triton"}
    runs = [values_and_gradients(pair_contrast, call, WANTED, 0) for _ in range(2)]
    assert torch.equal(runs[0][0][0], runs[1][0][0])
    assert all(torch.equal(runs[0][1][name], runs[1][1][name]) for name in WANTED)


@pytest.mark.parametrize("layout", ["contiguous", "transposed"])
def test_gradients_have_the_rows_memory_format(layout: str) -> None:
    case = Case(layout=layout, key_layout=layout, dtype=torch.bfloat16, key_dtype=torch.bfloat16)
    call = {**case.call(), "backend": "triton"}
    _, gradients = values_and_gradients(pair_contrast, call, WANTED, 0)
    for name in WANTED:
        assert gradients[name].stride() == call[name].stride()
        assert gradients[name].dtype == torch.bfloat16


def test_upstream_gradients_of_any_stride() -> None:
    call = {**Case(reduction="none").call(), "backend": "triton"}
    leaf = call["anchors"].requires_grad_()
    loss = pair_contrast(**call)
    for upstream in (torch.arange(18.0)[::2], torch.ones(1).expand(9)):
        gradients = [
            torch.autograd.grad(loss, leaf, given, retain_graph=True)[0]
            for given in (upstream, upstream.contiguous())
        ]
        assert torch.equal(*gradients)


def test_gradcheck() -> None:
    call = Case(3, 6, 8, 4, 3, torch.float64, torch.float64, negatives=5, temperature=0.5).call()
    rows = [call[name].requires_grad_() for name in (*WANTED, "negatives")]

    def loss(*given: torch.Tensor) -> torch.Tensor:
        replaced = dict(zip((*WANTED, "negatives"), given, strict=True))
        return pair_contrast(**{**call, **replaced}, backend="triton")

    # Along one random direction: every entry of a Jacobian costs two calls.
    assert torch.autograd.gradcheck(loss, rows, fast_mode=True)
