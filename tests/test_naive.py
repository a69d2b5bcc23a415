"""The specification, against numbers worked by hand, loops written like the formulas, gradcheck."""

import math
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck

from protocontrast import naive
from protocontrast.calls import ClassSumsCall, ContrastCall, LogitsCall, TransferCall
from tests import slow_loops
from tests.strategies import label_map, normal, prototype_rows, seeds, soft_map, weights

KINDS = ["cosine", "dot", "euclidean"]
SIZES = st.tuples(st.integers(0, 6), st.sampled_from([1, 2, 5]), st.integers(1, 5))


def exact(rows: Any) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def assert_near(found: Tensor, expected: Any) -> None:
    """Equal up to the rounding of a few float64 operations."""
    expected = torch.as_tensor(expected, dtype=torch.float64).reshape(found.shape)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_near_can_fail() -> None:
    with pytest.raises(AssertionError):
        assert_near(exact([1.0, 2.0]), [1.0, 2.0 + 1e-8])
    with pytest.raises(AssertionError):
        assert_near(exact([math.nan]), [0.0])


def test_unit_rows_by_hand() -> None:
    assert_near(naive.unit_rows(exact([[3.0, 4.0], [0.0, 0.0]])), [[0.6, 0.8], [0.0, 0.0]])
    assert torch.isnan(naive.unit_rows(exact([[math.nan, 1.0]]))).all()


def test_similarities_by_hand() -> None:
    features, prototypes = exact([[3.0, 4.0], [0.0, 0.0]]), exact([[2.0, 0.0], [3.0, 4.0]])
    assert_near(naive.similarities(features, prototypes, "cosine"), [[0.6, 1.0], [0.0, 0.0]])
    assert_near(naive.similarities(features, prototypes, "dot"), [[6.0, 25.0], [0.0, 0.0]])
    distances = [[-math.sqrt(17), 0.0], [-2.0, -5.0]]
    assert_near(naive.similarities(features, prototypes, "euclidean"), distances)


def test_presence_by_hand() -> None:
    rows = exact([[0.0, 0.0], [0.0, 1.0], [math.nan, 0.0]])
    mask = torch.tensor([True, False, True])
    assert naive.present_rows(rows, None, "cosine").tolist() == [False, True, True]
    assert naive.present_rows(rows, None, "dot").tolist() == [True, True, True]
    assert naive.present_rows(rows, mask, "cosine") is mask


def test_logits_by_hand() -> None:
    features, prototypes = exact([[3.0, 4.0]]), exact([[1.0, 0.0], [math.nan, 1.0], [0.0, 2.0]])
    present = torch.tensor([True, False, True])
    masked = naive.prototype_logits(LogitsCall(features, prototypes, present, "cosine", 0.5))
    assert_near(masked, [[1.2, -math.inf, 1.6]])
    call = LogitsCall(features, prototypes, present, "cosine", 0.5)
    floored = naive.prototype_logits(call, keep_absent=True)
    assert_near(floored, [[1.2, -2.0, 1.6]])
    # A temperature that is narrower than the features divides them, and is divided by nothing.
    narrow = torch.tensor(0.3)
    exactly = naive.prototype_logits(call._replace(temperature=narrow), keep_absent=True)
    assert exactly[0, 1].item() == -1 / narrow.item()


def contrast(features: Tensor, labels: Tensor, prototypes: Tensor, **given: Any) -> Any:
    call = {
        "present": None,
        "class_weight": None,
        "pixel_weight": None,
        "similarity": "cosine",
        "temperature": 1.0,
        "keep_absent": given.pop("absent", "mask") == "floor",
        "ignore_index": 255,
        **given,
    }
    smoothing = call.pop("label_smoothing", 0.0)
    call = ContrastCall(features, labels, prototypes, **call)
    return naive.pixel_prototype_contrast(call, smoothing)


def test_contrast_by_hand() -> None:
    # Cosines (1, 0), (0, 1), (-1, 0): loss ln(e^a + e^b) - z_y with temperature 1.
    features = exact([[2.0, 0.0], [0.0, 5.0], [-1.0, 0.0], [1.0, 1.0]])
    loss, weight = contrast(features, torch.tensor([0, 0, 0, 255]), torch.eye(2).double())
    right, wrong = math.log(1 + math.exp(-1)), math.log(1 + math.exp(1))
    assert_near(loss, [right, wrong, wrong, 0.0])
    assert_near(weight, [1.0, 1.0, 1.0, 0.0])


def test_weights_by_hand() -> None:
    features = exact([[2.0, 0.0], [0.0, 5.0], [math.nan, 0.0]])
    loss, weight = contrast(
        features,
        torch.tensor([0, 1, 1]),
        torch.eye(2).double(),
        class_weight=exact([2.0, 3.0]),
        pixel_weight=exact([0.5, 1.0, 0.0]),
    )
    right = math.log(1 + math.exp(-1))
    assert_near(loss, [right, 3 * right, 0.0])
    assert_near(weight, [1.0, 3.0, 0.0])


def test_soft_targets_by_hand() -> None:
    features = exact([[2.0, 0.0], [1.0, 1.0]])
    targets = exact([[3.0, 1.0], [0.0, 0.0]])
    loss, weight = contrast(features, targets, torch.eye(2).double())
    assert_near(loss, [3 * math.log(1 + math.exp(-1)) + math.log(1 + math.e), 0.0])
    assert_near(weight, [4.0, 0.0])


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_contrast_by_loops(kind: str, data: st.DataObject) -> None:
    pixels, depth, num_classes = data.draw(SIZES)
    seed = data.draw(seeds)
    absent = data.draw(st.sampled_from(["mask", "floor"])) if kind == "cosine" else "mask"
    features = normal(seed, (pixels, depth))
    features[torch.rand(pixels, generator=torch.Generator().manual_seed(seed)) < 0.2] = 0
    presence = data.draw(st.sampled_from(["given", "all", "none"]))
    prototypes, present = prototype_rows(seed, num_classes, depth, torch.float64, presence)
    if data.draw(st.booleans()):
        targets = soft_map(seed, (pixels,), num_classes, "mixed").double()
        labels = targets
    else:
        labels = label_map(seed, (pixels,), num_classes)
        targets = (labels[:, None] == torch.arange(num_classes)).double()
    class_weight = weights(seed, (num_classes,), torch.float64)
    pixel_weight = weights(seed + 1, (pixels,), torch.float64)
    settings = {"similarity": kind, "temperature": 0.3, "absent": absent}
    loss, weight = contrast(
        features, labels, prototypes, present=present, class_weight=class_weight,
        pixel_weight=pixel_weight, **settings,
    )  # fmt: skip
    here = [True] * num_classes if present is None else present.tolist()
    expected = slow_loops.contrast(
        features.tolist(), targets.tolist(), torch.nan_to_num(prototypes).tolist(), here,
        class_weight.tolist(), pixel_weight.tolist(), kind, 0.3, absent,
    )  # fmt: skip
    assert_near(loss, expected[0])
    assert_near(weight, expected[1])


def test_class_sums_by_hand() -> None:
    features = exact([[3.0, 4.0], [0.0, 2.0], [5.0, 0.0], [math.nan, 1.0]])
    labels = torch.tensor([0, 0, 2, 255])
    sums, counts = naive.class_sums(ClassSumsCall(features, labels, None, 3, False, False, 255))
    assert_near(sums, [[3.0, 6.0], [0.0, 0.0], [5.0, 0.0]])
    assert_near(counts, [2.0, 0.0, 1.0])
    weight = exact([0.5, 0.0, 2.0, math.nan])
    sums, counts = naive.class_sums(ClassSumsCall(features, labels, weight, 3, True, False, 255))
    assert_near(sums, [[0.3, 0.4], [0.0, 0.0], [2.0, 0.0]])
    assert_near(counts, [0.5, 0.0, 2.0])


@given(sizes=SIZES, seed=seeds, normalize=st.booleans())
def test_class_means_by_loops(sizes: tuple[int, int, int], seed: int, normalize: bool) -> None:
    pixels, depth, num_classes = sizes
    features, labels = (
        normal(seed, (pixels + 1, depth)),
        label_map(seed, (pixels + 1,), num_classes),
    )
    weight = weights(seed, (pixels + 1,), torch.float64)
    call = ClassSumsCall(features, labels, weight, num_classes, normalize, False, 255)
    sums, counts = naive.class_sums(call)
    means, expected = slow_loops.class_means(
        features.tolist(), labels.tolist(), num_classes, weight.tolist(), normalize
    )
    assert_near(counts, expected)
    assert_near(sums, exact(means) * exact(expected)[:, None])


def test_transfer_by_hand() -> None:
    features = exact([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0], [math.nan, 0.0]])
    prototypes = torch.eye(2).double()
    limits = exact([0.7, 0.7])
    call = TransferCall(features, prototypes, None, limits, 0.0, "confidence", "cosine", 1.0, 255)
    labels, value = naive.transfer_labels(call)
    assert labels.tolist() == [0, 255, 255, 255]
    assert_near(value[:3], [math.e / (1 + math.e), 0.5, 0.5])
    assert math.isnan(value[3])
    call = call._replace(measure="similarity", ignore_index=-100)
    labels, value = naive.transfer_labels(call)
    assert labels.tolist() == [0, 0, -100, -100]
    assert_near(value[:3], [1.0, math.sqrt(0.5), 0.0])


@pytest.mark.parametrize("measure", ["confidence", "similarity"])
@pytest.mark.parametrize("kind", KINDS)
@given(sizes=SIZES, seed=seeds, presence=st.sampled_from(["given", "all", "none"]))
def test_transfer_by_loops(
    kind: str, measure: str, sizes: tuple[int, int, int], seed: int, presence: str
) -> None:
    pixels, depth, num_classes = sizes
    # One channel has the cosines 1 and -1 alone, and rounding would decide between classes.
    assume(kind != "cosine" or depth > 1)
    features = normal(seed, (pixels, depth))
    prototypes, present = prototype_rows(seed, num_classes, depth, torch.float64, presence)
    limits = weights(seed, (num_classes,), torch.float64) - 0.5
    call = TransferCall(features, prototypes, present, limits, 0.0, measure, kind, 0.3, 255)
    labels, value = naive.transfer_labels(call)
    here = [True] * num_classes if present is None else present.tolist()
    rows = torch.nan_to_num(prototypes).tolist()
    expected = [
        slow_loops.transfer(row, rows, here, limits.tolist(), measure, kind, 0.3, 255)
        for row in features.tolist()
    ]
    assert labels.tolist() == [label for label, _ in expected]
    assert_near(value, [value for _, value in expected])


def test_fusion_by_hand() -> None:
    base, other = torch.tensor([0, 255, 255, 2]), torch.tensor([1, 0, 255, 255])
    assert naive.fuse_labels(base, other, 255).tolist() == [0, 0, 255, 2]


@given(
    seed=seeds,
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    grid=st.tuples(st.integers(1, 6), st.integers(1, 6)),
)
def test_label_counts_by_loops(seed: int, size: tuple[int, int], grid: tuple[int, int]) -> None:
    labels = label_map(seed, (2, *size), 3)
    expected = slow_loops.counts(labels, 3, *grid)
    assert naive.label_counts(labels, 3, *grid).tolist() == expected


def test_bank_equations_by_hand() -> None:
    old, batch = exact([[1.0, 2.0], [3.0, 4.0]]), exact([[5.0, 6.0], [math.nan, math.nan]])
    present = torch.tensor([True, False])
    assert_near(naive.moving_average(old, batch, 0.75, present), [[2.0, 3.0], [3.0, 4.0]])
    assert_near(naive.calibrate(old, exact([[1.0, 0.0], [0.0, -2.0]]), 0.5), [[1.5, 2], [3, 3]])


PRESENT = torch.tensor([True, True, False, True])


def leaf(seed: int, *shape: int) -> Tensor:
    return normal(seed, shape).requires_grad_()


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize(
    ("kind", "absent"),
    [("cosine", "mask"), ("cosine", "floor"), ("dot", "mask"), ("euclidean", "mask")],
)
def test_contrast(kind: str, absent: str, soft: bool) -> None:
    labels = soft_map(2, (7,), 4, "mixed").double() if soft else label_map(2, (7,), 4)
    weight = weights(3, (7,), torch.float64)

    def loss(features: Tensor, prototypes: Tensor) -> Tensor:
        call = ContrastCall(
            features, labels, prototypes, PRESENT, torch.tensor([1.0, 2.0, 3.0, 0.5]), weight,
            kind, 0.4, absent == "floor", 255,
        )  # fmt: skip
        return naive.pixel_prototype_contrast(call)[0]

    assert gradcheck(loss, (leaf(0, 7, 3), leaf(1, 4, 3)))


@pytest.mark.parametrize("kind", KINDS)
def test_logits(kind: str) -> None:
    def present_columns(features: Tensor, prototypes: Tensor) -> Tensor:
        call = LogitsCall(features, prototypes, PRESENT, kind, 0.4)
        return naive.prototype_logits(call)[:, PRESENT]

    assert gradcheck(present_columns, (leaf(0, 5, 3), leaf(1, 4, 3)))


@pytest.mark.parametrize("normalize", [False, True])
def test_class_sums(normalize: bool) -> None:
    labels, weight = label_map(0, (9,), 3), weights(1, (9,), torch.float64)

    def sums(features: Tensor) -> Tensor:
        call = ClassSumsCall(features, labels, weight, 3, normalize, False, 255)
        return naive.class_sums(call)[0]

    assert gradcheck(sums, (leaf(0, 9, 4),))


def test_gradcheck_can_fail() -> None:
    def detached(features: Tensor) -> Tensor:
        return naive.unit_rows(features) * features.detach()

    with pytest.raises(RuntimeError, match="Jacobian mismatch"):
        gradcheck(detached, (leaf(0, 3, 2),))


def test_a_row_of_zero_length_has_gradient_zero() -> None:
    rows = torch.tensor([[0.0, 0.0], [3.0, 4.0]], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(naive.unit_rows(rows)[:, 0].sum(), rows)
    # d(x / |x|)/dx at (3, 4): (1 - 0.36) / 5 and -0.48 / 5.
    expected = torch.tensor([[0.0, 0.0], [0.128, -0.096]], dtype=torch.float64)
    torch.testing.assert_close(gradient, expected)


def test_at_zero_distance_the_gradient_is_zero() -> None:
    features = torch.tensor([[1.0, 1.0], [4.0, 5.0]], dtype=torch.float64, requires_grad=True)
    prototypes = torch.tensor([[1.0, 1.0]], dtype=torch.float64, requires_grad=True)
    found = naive.similarities(features, prototypes, "euclidean")
    assert found.tolist() == [[0.0], [-5.0]]
    gradients = torch.autograd.grad(found.sum(), (features, prototypes))
    expected = torch.tensor([[0.0, 0.0], [-0.6, -0.8]], dtype=torch.float64)
    torch.testing.assert_close(gradients[0], expected)
    torch.testing.assert_close(gradients[1], -expected[1:])


@pytest.mark.parametrize("kind", KINDS)
def test_ignored_pixels_and_absent_rows_have_gradient_zero(kind: str) -> None:
    features = normal(0, (4, 3))
    features[1] = float("nan")
    features[2] = float("inf")
    prototypes = torch.where(PRESENT[:, None], normal(1, (4, 3)), float("nan"))
    features.requires_grad_()
    prototypes.requires_grad_()
    call = ContrastCall(
        features, torch.tensor([0, 255, 2, 3]), prototypes, PRESENT, None, None, kind, 1.0,
        False, 255,
    )  # fmt: skip
    loss, _ = naive.pixel_prototype_contrast(call)
    to_features, to_prototypes = torch.autograd.grad(loss.sum(), (features, prototypes))
    assert (to_features[1:3] == 0).all()
    assert (to_features[[0, 3]] != 0).any(dim=1).all()
    assert torch.isfinite(to_prototypes).all()
    assert (to_prototypes[2] == 0).all()
