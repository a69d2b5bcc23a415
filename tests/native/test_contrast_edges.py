"""`pixel_prototype_contrast` in C where pixels, classes or weights drop out."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from protocontrast import pixel_prototype_contrast
from protocontrast.native.calls import SIMILARITIES
from tests import test_contrast_autograd as guests
from tests import test_contrast_edges as edges
from tests.native.variants import NAMES, variant
from tests.strategies import NAN, ContrastCase, contrast_cases, normal, pixel_mass

WITHOUT_PIXELS = [
    ContrastCase(0, (2, 5, 3, 4), 3, label_kind="all_ignored", spoilt=NAN),
    ContrastCase(0, (2, 5, 3, 4), 3, label_kind="all_ignored", soft=True, spoilt=NAN),
    ContrastCase(0, (2, 5, 3, 4), 3, presence="none", label_kind="full"),
    ContrastCase(0, (0, 5, 3, 4), 3),
    ContrastCase(0, (0, 5, 3, 4), 3, soft=True),
    ContrastCase(0, (2, 5, 0, 4), 3),
    ContrastCase(0, (0, 5), 3, similarity="dot"),
]


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
def test_ignored_pixels_and_absent_rows_are_never_read(name: str, data: st.DataObject) -> None:
    similarity = data.draw(st.sampled_from(SIMILARITIES))
    spoilt = data.draw(st.sampled_from([NAN, float("inf")]))
    fixed = {"similarity": similarity, "spoilt": spoilt, "presence": "given"}
    case = data.draw(contrast_cases(**fixed))
    call = case.tensors()
    ignored = pixel_mass(call, case.settings) == 0
    call["features"].requires_grad_()
    call["prototypes"].requires_grad_()
    with variant(name):
        loss = pixel_prototype_contrast(**call, **case.settings, backend="native")
        found = torch.autograd.grad(loss.sum(), (call["features"], call["prototypes"]))
    assert torch.isfinite(loss).all()
    assert all(torch.isfinite(gradient).all() for gradient in found)
    columns = found[0] if found[0].dim() == 2 else found[0].movedim(1, -1)
    assert (columns[ignored] == 0).all()
    assert (found[1][~call["present"]] == 0).all()


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("case", WITHOUT_PIXELS)
def test_no_valid_pixel_is_zero_and_connected(case: ContrastCase, reduction: str) -> None:
    edges.test_no_valid_pixel_is_zero_and_connected(case, reduction, "native")


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize(
    "check",
    [
        edges.test_weight_zero_is_ignored_to_the_bit,
        edges.test_a_pixel_without_mass_may_have_any_weight,
    ],
)
def test_weights_of_zero(check: Callable[[bool, str], None], soft: bool) -> None:
    check(soft, "native")


@pytest.mark.parametrize("settings", [{"class_weight": torch.tensor([1.0, 0.0])}, {}])
def test_soft_targets_of_classes_without_weight_are_never_read(settings: dict[str, Any]) -> None:
    edges.test_soft_targets_of_classes_without_weight_are_never_read(settings, "native")


def test_every_integer_dtype_gives_the_same_bits() -> None:
    edges.test_every_integer_dtype_gives_the_same_bits(backend="native")


@pytest.mark.parametrize("present", [4, 1])
def test_a_pixel_of_zero_length_is_equally_far_from_all(present: int) -> None:
    edges.test_a_pixel_of_zero_length_is_equally_far_from_all(present, "native")


def test_absent_classes_under_mask_and_floor() -> None:
    edges.test_absent_classes_under_mask_and_floor("native")


@pytest.mark.parametrize(("similarity", "is_absent"), [("cosine", True), ("dot", False)])
def test_a_zero_row_is_absent_under_cosine_only(similarity: str, is_absent: bool) -> None:
    edges.test_a_zero_row_is_absent_under_cosine_only(similarity, is_absent, "native")


@pytest.mark.parametrize("temperature", [1e-3, 2.0**-20])
def test_logits_too_large_for_exp(temperature: float) -> None:
    """Above 60 the largest logit is taken off, and what falls below -60 is nothing beside it."""
    case = ContrastCase(4, (2, 16, 70), 5, temperature=temperature, reduction="none")
    call = {**case.tensors(), **case.settings}
    found, truth = (
        pixel_prototype_contrast(**call, backend=backend).double()
        for backend in ("native", "naive")
    )
    torch.testing.assert_close(found, truth, rtol=1e-5, atol=1e-5 / temperature)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_a_class_alone_loses_nothing_whatever_it_weighs(
    similarity: str, soft: bool, dtype: torch.dtype, name: str
) -> None:
    """Exactly 0, and no gradient: a weight times what a logit is rounded to is rounded again."""
    case = ContrastCase(
        1, (2, 33, 65), 1, dtype=dtype, similarity=similarity, temperature=0.07, soft=soft,
        reduction="none", pixel_weight=torch.float32, class_weight=torch.float32,
    )  # fmt: skip
    call = {**case.tensors(), **case.settings, "class_weight": torch.tensor([0.7])}
    leaves = call["features"].requires_grad_(), call["prototypes"].requires_grad_()
    with variant(name):
        loss = pixel_prototype_contrast(**call, backend="native")
        gradients = torch.autograd.grad(loss.sum(), leaves)
    assert not loss.any()
    assert not any(gradient.any() for gradient in gradients)


@pytest.mark.parametrize("soft", [False, True])
def test_nor_does_it_where_it_stands_at_the_floor(soft: bool) -> None:
    case = ContrastCase(
        1, (2, 5, 70), 1, temperature=0.07, soft=soft, reduction="none", absent="floor",
        presence="none", pixel_weight=torch.float32,
    )  # fmt: skip
    call = {**case.tensors(), **case.settings}
    for name in NAMES:
        with variant(name):
            assert not pixel_prototype_contrast(**call, backend="native").any()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("soft", [False, True])
def test_a_small_loss_of_large_logits_keeps_its_digits(soft: bool, name: str) -> None:
    """log(1 + e^-8) of logits about 1000, a unit in the last place of which is a fifth of it."""
    features = torch.linspace(1, 1.1, 70)[:, None]
    labels = torch.zeros(70, dtype=torch.int64)
    rows = torch.tensor([[1000.0], [992.0]])
    weight = torch.linspace(0.1, 3, 70)
    if soft:
        labels = torch.nn.functional.one_hot(labels, 2).float()
    with variant(name):
        found = pixel_prototype_contrast(
            features, labels, rows, pixel_weight=weight, similarity="dot", temperature=1.0,
            reduction="none", backend="native",
        )  # fmt: skip
    expected = weight.double() * torch.log1p(torch.exp(-8 * features[:, 0].double()))
    torch.testing.assert_close(found.double(), expected, rtol=2e-3, atol=0)


@pytest.mark.parametrize("layout", ["expanded", "transposed", "strided", "reversed"])
def test_upstream_gradients_of_any_stride(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def native(**call: Any) -> torch.Tensor:
        return pixel_prototype_contrast(**call, backend="native")

    monkeypatch.setattr(guests, "pixel_prototype_contrast", native)
    guests.test_upstream_gradients_of_any_stride(layout)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_the_gradient_has_the_features_memory_format(
    layout: str, dtype: torch.dtype, reduction: str
) -> None:
    for shape in ((2, 7, 3, 5), (2, 7, 15), (15, 7)):
        case = ContrastCase(0, shape, 4, dtype=dtype, layout=layout, reduction=reduction)
        features = case.tensors()["features"].requires_grad_()
        call = {**case.tensors(), **case.settings, "features": features, "backend": "native"}
        (gradient,) = torch.autograd.grad(pixel_prototype_contrast(**call).sum(), features)
        assert gradient.stride() == features.stride()
        assert gradient.dtype == dtype


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


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("gap", [0.0, 1e-4, 1e-2, 1.0, 4.0])
def test_gradients_of_distances_keep_their_digits(gap: float, name: str) -> None:
    """Products cancel where a pixel is close to a prototype, and serve where all are apart."""
    prototypes = normal(0, (5, 33)).float()
    labels = torch.arange(200).view(1, -1) % 5
    features = prototypes.t()[:, labels[0]][None] + (gap * normal(1, (1, 33, 200))).float()
    results = []
    for backend, dtype in (("native", torch.float32), ("naive", torch.float64)):
        leaves = [one.to(dtype).requires_grad_() for one in (features, prototypes)]
        with variant(name):
            loss = pixel_prototype_contrast(
                leaves[0], labels, leaves[1], similarity="euclidean",
                temperature=8 * max(1.0, gap), reduction="sum", backend=backend,
            )  # fmt: skip
        results.append([one.double() for one in torch.autograd.grad(loss, leaves)])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
