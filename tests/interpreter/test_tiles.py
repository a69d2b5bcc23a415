"""Kernels on tiles and spans of every kind: sums, widths of classes, layouts and dtypes."""

import pytest
import torch

from tests.interpreter.small_spans import span_budget
from tests.operator_calls import (
    SIMILARITIES,
    Call,
    class_means,
    contrast,
    distribution,
    logits,
    pairs,
)
from tests.pair_cases import Case as Pairs
from tests.strategies import LAYOUTS, NAN, ContrastCase

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
WIDE = {"dtype": torch.float64, "prototype_dtype": torch.float64}
SLOW = pytest.mark.slow


def spanned(name: str, kind: str, channels: int) -> Call:
    """A few channels fit one block, which stays with the program; 40 and more do not."""
    case = ContrastCase(0, (2, channels, 259), 5, temperature=1.0)
    weighted = case._replace(**WIDE, pixel_weight=torch.float32)
    if name == "logits":
        return logits(case._replace(similarity=kind))
    if name == "class means":
        return class_means(weighted, normalize=kind == "unit")
    if name == "distribution":
        shape = (2, channels, 131)
        return distribution(weighted._replace(features_shape=shape, similarity="dot", spoilt=NAN))
    return contrast(weighted._replace(similarity=kind, spoilt=NAN))


@pytest.mark.parametrize("slot_bytes", [0, 2**30])
@pytest.mark.parametrize(
    ("name", "kind", "channels"),
    [
        *(("contrast", kind, channels) for kind in SIMILARITIES for channels in (7, 76)),
        *(("logits", kind, 76) for kind in SIMILARITIES),
        *(("class means", kind, channels) for kind in ("raw", "unit") for channels in (7, 76)),
        *(
            pytest.param("class means", kind, 720, marks=SLOW) for kind in ("raw", "unit")
        ),
        *(("distribution", "unit", channels) for channels in (7, 40)),
    ],
)  # fmt: skip
def test_sums_over_one_and_over_many_spans(
    name: str, kind: str, channels: int, slot_bytes: int
) -> None:
    with span_budget(slot_bytes):
        spanned(name, kind, channels).assert_agrees("triton")


@pytest.mark.parametrize("programs", [1, 4096])
@pytest.mark.parametrize(("similarity", "depth"), [("dot", 7), ("cosine", 76), ("euclidean", 7)])
@pytest.mark.parametrize("denominator", ["negatives", "all"])
def test_pairs_over_one_and_over_many_spans(
    denominator: str, similarity: str, depth: int, programs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from protocontrast.kernels import pairs as spans

    monkeypatch.setattr(spans, "PROGRAMS", programs)
    assert spans.span_of_pairs(20, 150) == (256 if programs == 1 else 128)
    far = similarity == "euclidean"
    case = Pairs(
        4, 20, 150, depth, 5, torch.float64, torch.float64, denominator=denominator,
        temperature=0.1 if far else 0.01, similarity=similarity, zero_rows=far,
    )  # fmt: skip
    pairs(case).assert_agrees("triton")


def laid_out_call(name: str, depth: int, dtype: torch.dtype, layout: str) -> Call:
    """16 channels fit one block, which stays with the program; 76 do not."""
    if name == "pairs":
        laid = "transposed" if layout == "channels_last" else layout
        return pairs(
            Pairs(
                2, 18, 33, depth, 5, dtype, dtype, laid, laid, spoilt=NAN,
                anchor_weight=torch.float32, reduction="none",
            )
        )  # fmt: skip
    case = ContrastCase(
        2, (1, depth, 5, 9), 19, dtype=dtype, layout=layout, label_layout=layout, reduction="none"
    )
    if name == "distribution":
        raised = case._replace(similarity="dot", temperature=1.0)
        return distribution(raised, normalize=depth == 76)
    return contrast(case)


def every_layout() -> list[object]:
    """All of the contrast; of the others a fourth, which meets each layout and each dtype."""
    each = [(depth, dtype, layout) for depth in (16, 76) for dtype in DTYPES for layout in LAYOUTS]
    large = [(720, dtype, layout) for dtype in DTYPES for layout in LAYOUTS]
    return [
        *(pytest.param("contrast", *one) for one in each),
        *(pytest.param("contrast", *one, marks=SLOW) for one in large),
        *(
            pytest.param(name, *one, marks=[] if i % 4 == 1 else SLOW)
            for name in ("distribution", "pairs")
            for i, one in enumerate(each)
        ),
    ]


@pytest.mark.parametrize(("name", "depth", "dtype", "layout"), every_layout())
def test_every_layout_and_dtype(name: str, depth: int, dtype: torch.dtype, layout: str) -> None:
    laid_out_call(name, depth, dtype, layout).assert_agrees("triton", seed=3)


@pytest.mark.parametrize(
    ("name", "classes"),
    [
        *(("contrast", classes) for classes in (1, 16, 17, 150, 256)),
        *(("distribution", classes) for classes in (1, 17)),
        pytest.param("distribution", 150, marks=SLOW),
    ],
)
def test_every_width_of_the_class_block(name: str, classes: int) -> None:
    case = ContrastCase(
        4, (1, 33, 5, 9), classes, presence="given", label_dtype=(torch.int64, -100)
    )
    call = contrast(case)
    if name == "distribution":
        call = distribution(case._replace(similarity="dot"))
    call.assert_agrees("triton", seed=5)
