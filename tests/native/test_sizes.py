"""Sizes of more than one tile, span and block in C, and numbers that lose digits when added up."""

from typing import Any

import pytest
import torch

from protocontrast import (
    class_prototypes,
    pixel_prototype_contrast,
    prototype_logits,
    upsampled_cross_entropy,
)
from tests.agreement import assert_agrees, values_and_gradients, widened
from tests.native.variants import EVERY
from tests.operator_calls import SIMILARITIES, contrast, pairs, upsampled
from tests.pair_cases import Case as Pairs
from tests.strategies import ContrastCase, label_map, laid_out, normal
from tests.upsampled_cases import Case as Upsampled
from tests.upsampled_cases import composed

pytestmark = EVERY

LAYOUTS = ["contiguous", "channels_last"]
DTYPES = [torch.float32, torch.float64, torch.bfloat16]


def map_of(layout: str, dtype: torch.dtype) -> torch.Tensor:
    """More than one span, and tiles that are transposed, and gradients written, as they lie."""
    return laid_out(normal(0, (2, 76, 40, 41), dtype), layout)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("normalize", [False, True])
def test_class_means(normalize: bool, layout: str, dtype: torch.dtype) -> None:
    call = {"features": map_of(layout, dtype), "labels": label_map(1, (2, 40, 41), 19)}
    call |= {"num_classes": 19, "pixel_weight": None, "normalize": normalize}
    sizes = {"value": 1.0, "features": 1.0}
    assert_agrees(class_prototypes, call, ["features"], scales=sizes, backend="native")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_logits(similarity: str, layout: str, dtype: torch.dtype) -> None:
    call: dict[str, Any] = {"similarity": similarity, "temperature": 1.0}
    call |= {"features": map_of(layout, dtype), "prototypes": normal(1, (19, 76), torch.float32)}
    sizes = {"value": 80.0, "features": 80.0, "prototypes": 3e4}
    leaves = ("features", "prototypes")
    assert_agrees(prototype_logits, call, leaves, scales=sizes, backend="native")


@pytest.mark.parametrize("dtype", [*DTYPES, torch.float16])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("channels", "classes"), [(512, 512), (257, 19), (1, 150), (5, 13)])
@pytest.mark.parametrize("similarity", ["cosine", "euclidean"])
def test_channels_and_classes(
    similarity: str, channels: int, classes: int, layout: str, dtype: torch.dtype
) -> None:
    """Every number of rows that a block can have, and tiles that end in a part of one."""
    case = ContrastCase(
        3, (2, channels, 9, 8), classes, similarity=similarity, dtype=dtype, layout=layout,
        label_dtype=(torch.int64, -100),
    )  # fmt: skip
    contrast(case).assert_agrees("native", seed=5)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("denominator", ["negatives", "all"])
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_blocks_of_pairs(similarity: str, denominator: str, dtype: torch.dtype) -> None:
    """Blocks of anchors and tiles of keys that end in a part of one, and classes across them."""
    for change in ({}, {"exclude_self": True, "temperature": 0.01}, {"negatives": 131}):
        case = Pairs(
            3, 211, 333, 37, 5, dtype, dtype, similarity=similarity, denominator=denominator
        )
        pairs(case._replace(**change)).assert_agrees("native")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("size", [(33, 65), (34, 66), (73, 91), (130, 257), (40, 1500)])
def test_strips_and_spans_of_upsampled_logits(
    size: tuple[int, int], aligned: bool, layout: str
) -> None:
    """As large as the logits, where 64 outputs would read 65 inputs; and one input for a strip."""
    shape = (2, 19, 33, 65) if size[1] < 1000 else (1, 3, 40, 5)
    call = Upsampled(shape=shape, size=size, align_corners=aligned, layout=layout).call()
    truth = values_and_gradients(composed, widened(call), ("logits",), 0)
    call["backend"] = "native"
    found = values_and_gradients(upsampled_cross_entropy, call, ("logits",), 0)
    torch.testing.assert_close(found[0][0].double(), truth[0][0], rtol=1e-6, atol=0)
    error = (found[1]["logits"] - truth[1]["logits"]).abs().max()
    assert error <= 1e-6 * truth[1]["logits"].abs().max()


@pytest.mark.parametrize("spread", [30.0, 1000.0])
def test_upsampled_logits_far_apart(spread: float) -> None:
    """exp of a blend less the blended peaks is 0 in float32."""
    case = Upsampled(spread=spread, size=(23, 71), shape=(2, 5, 9, 11))
    upsampled(case).assert_agrees("native")


def test_sums_keep_their_digits() -> None:
    """Of 2^18 equal numbers, which added one after another in float32 lose three of them."""
    features = torch.full((1, 3, 2**18), 1.1)
    labels = torch.zeros(1, 2**18, dtype=torch.int64)
    found = class_prototypes(features, labels, 1, backend="native").mean
    torch.testing.assert_close(found, features[0, :, :1].t(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("gap", [0.0, 1e-4, 1e-2, 1.0, 4.0])
def test_gradients_of_distances_keep_their_digits(gap: float) -> None:
    """Products cancel where a pixel is close to a prototype, and serve where all are apart."""
    prototypes = normal(0, (5, 33)).float()
    labels = torch.arange(200).view(1, -1) % 5
    features = prototypes.t()[:, labels[0]][None] + (gap * normal(1, (1, 33, 200))).float()
    results = []
    for backend, dtype in (("native", torch.float32), ("naive", torch.float64)):
        leaves = [one.to(dtype).requires_grad_() for one in (features, prototypes)]
        loss = pixel_prototype_contrast(
            leaves[0], labels, leaves[1], similarity="euclidean", temperature=8 * max(1.0, gap),
            reduction="sum", backend=backend,
        )  # fmt: skip
        results.append([one.double() for one in torch.autograd.grad(loss, leaves)])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def test_a_view_of_the_other_sign_is_read_as_it_is() -> None:
    """The imaginary part of a conjugate: memory holds the numbers before their sign is changed."""
    pair = torch.complex(torch.zeros(2, 3, 4), torch.randn(2, 3, 4)).conj()
    assert pair.imag.is_neg()
    labels, rows = torch.zeros(2, 4, dtype=torch.int64), torch.eye(3)
    found, expected = (
        pixel_prototype_contrast(features, labels, rows, backend="native")
        for features in (pair.imag, pair.imag.clone().resolve_neg())
    )
    assert torch.equal(found, expected)
