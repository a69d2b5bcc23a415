"""What `bidirectional_contrast` says about its two domains: in full."""

from typing import Any

import pytest
import torch

from protocontrast import bidirectional_contrast
from tests.sentences import assert_raises

FEATURES = torch.ones(2, 4, 3, 5)
LABELS = torch.zeros(2, 3, 5, dtype=torch.int64)
PROTOTYPES = torch.ones(3, 4)
PRESENT = torch.ones(3, dtype=torch.bool)
RIGHT = {
    "source_features": FEATURES,
    "source_labels": LABELS,
    "target_features": FEATURES,
    "target_labels": LABELS,
    "num_classes": 3,
}
SIDES = ["source", "target"]


def assert_says(error: type[Exception], text: str, **arguments: Any) -> None:
    call = {**RIGHT, **arguments}
    text = f"bidirectional_contrast: {text}"
    assert_raises(error, text, lambda: bidirectional_contrast(**call))


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(
    ("features", "error", "text"),
    [
        ([1.0], TypeError, "to be a torch.Tensor, got list."),
        (FEATURES.int(), TypeError, "of a floating dtype, got torch.int32."),
        (
            torch.ones(4),
            ValueError,
            "of shape (B, D, Z, H, W), (B, D, H, W), (B, D, P) or (N, D), got (4,).",
        ),
        (torch.ones(2, 0, 15), ValueError, "with at least one channel, got (2, 0, 15)."),
    ],
)
def test_features(side: str, features: Any, error: type[Exception], text: str) -> None:
    arguments = {f"{side}_features": features}
    assert_says(error, f"expected {side}_features {text}", **arguments)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(
    ("labels", "error", "text"),
    [
        ([0], TypeError, "to be a torch.Tensor, got list."),
        (LABELS.float(), TypeError, "of an integer dtype, got torch.float32."),
        (
            LABELS.bool(),
            TypeError,
            "of an integer dtype, got torch.bool. "
            "Hint: a boolean mask is not a label map; use labels.long().",
        ),
        (
            LABELS.flatten(1),
            ValueError,
            "of shape (2, 3, 5) as in {side}_features (2, 4, 3, 5), got (2, 15). "
            "Hint: labels are (B, H, W) at any resolution for features (B, D, H, W).",
        ),
        (
            LABELS[:1],
            ValueError,
            "with 2 images as in {side}_features, got (1, 3, 5).",
        ),
        (LABELS.to("meta"), ValueError, "on cpu like {side}_features, got meta."),
        (
            torch.zeros(2, 30, 50, dtype=torch.int64, device="meta"),
            ValueError,
            "on cpu like {side}_features, got meta.",
        ),
    ],
)
def test_labels(side: str, labels: Any, error: type[Exception], text: str) -> None:
    arguments = {f"{side}_labels": labels}
    assert_says(error, f"expected {side}_labels {text.format(side=side)}", **arguments)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("size", [1, 10])
@pytest.mark.parametrize(
    "given", [{}, {f"{side}_prototypes": PROTOTYPES for side in SIDES}], ids=["own", "given"]
)
def test_label_values(side: str, size: int, given: dict[str, Any]) -> None:
    labels = torch.zeros(2, 3 * size, 5 * size, dtype=torch.int64)
    labels[1, -1, -2:] = 9
    arguments = {f"{side}_labels": labels, "pairwise": not given, **given}
    with pytest.raises(ValueError, match=r"got value 9 \(first of 2 wrong among") as caught:
        bidirectional_contrast(**{**RIGHT, **arguments})
    assert "expected labels in 0..2 or ignore_index = 255" in str(caught.value)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(
    ("prototypes", "error", "text"),
    [
        ([1.0], TypeError, "to be a torch.Tensor, got list."),
        (PROTOTYPES.long(), TypeError, "of a floating dtype, got torch.int64."),
        (
            torch.ones(3, 5),
            ValueError,
            "of shape (C, D) with D = 4 as in {side}_features (2, 4, 3, 5), got (3, 5). "
            "Hint: channels are dimension 1; where they come last, "
            "{side}_features.movedim(-1, 1).",
        ),
        (
            torch.ones(0, 4),
            ValueError,
            "of shape (C, D) with at least one class, got (0, 4).",
        ),
        (
            torch.ones(2, 4),
            ValueError,
            "of shape (3, 4) = (num_classes, D), got (2, 4).",
        ),
        (PROTOTYPES.to("meta"), ValueError, "on cpu like {side}_features, got meta."),
    ],
)
def test_prototypes(side: str, prototypes: Any, error: type[Exception], text: str) -> None:
    arguments = {f"{side}_prototypes": prototypes, "pairwise": False}
    assert_says(error, f"expected {side}_prototypes {text.format(side=side)}", **arguments)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(
    ("present", "error", "text"),
    [
        ([True], TypeError, "to be a torch.Tensor, got list."),
        (
            torch.ones(3),
            TypeError,
            "of dtype torch.bool, got torch.float32. "
            "Hint: count > 0 says which classes are present.",
        ),
        (PRESENT[:2], ValueError, "of shape (3,) = (C,), got (2,)."),
        (PRESENT.to("meta"), ValueError, "on cpu like {side}_features, got meta."),
    ],
)
def test_present(side: str, present: Any, error: type[Exception], text: str) -> None:
    arguments = {
        f"{side}_prototypes": PROTOTYPES,
        f"{side}_present": present,
        "pairwise": False,
    }
    assert_says(error, f"expected {side}_present {text.format(side=side)}", **arguments)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("pairwise", [True, False])
def test_presence_alone(side: str, pairwise: bool) -> None:
    text = (
        f"expected {side}_present only beside {side}_prototypes, got it alone. "
        "Hint: presence of this batch's own prototypes comes from the labels."
    )
    assert_says(ValueError, text, pairwise=pairwise, **{f"{side}_present": PRESENT})


@pytest.mark.parametrize("side", SIDES)
def test_given_prototypes_and_pairs(side: str) -> None:
    text = (
        "expected pairwise to be False with given prototypes, got True. "
        "Hint: given prototypes belong to no image pair."
    )
    assert_says(ValueError, text, **{f"{side}_prototypes": PROTOTYPES})


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"num_classes": 0}, ValueError, "num_classes to be an integer >= 1, got 0."),
        ({"temperature": 0.0}, ValueError, "temperature to be a finite number > 0, got 0.0."),
        ({"absent": "drop"}, ValueError, "absent to be 'mask' or 'floor', got 'drop'."),
        (
            {"ignore_index": None},
            TypeError,
            "ignore_index to be an integer, got None. "
            "Hint: the usual ignore values are 255 and -100.",
        ),
        (
            {"backend": "fast"},
            ValueError,
            "backend to be 'auto' or 'triton' or 'native' or 'eager' or 'naive', got 'fast'.",
        ),
        (
            {"target_features": torch.ones(2, 7, 3, 5)},
            ValueError,
            "target_features with D = 4 as in source_features (2, 4, 3, 5), got (2, 7, 3, 5).",
        ),
        (
            {"target_features": FEATURES[:1], "target_labels": LABELS[:1]},
            ValueError,
            "target_features of 2 images as in source_features with pairwise=True, got 1. "
            "Hint: use pairwise=False for batches of different size.",
        ),
        (
            {"target_features": FEATURES[:0], "target_labels": LABELS[:0]},
            ValueError,
            "target_features of 2 images as in source_features with pairwise=True, got 0. "
            "Hint: use pairwise=False for batches of different size.",
        ),
        (
            {"source_features": FEATURES[:0], "source_labels": LABELS[:0]},
            ValueError,
            "target_features of 0 images as in source_features with pairwise=True, got 2. "
            "Hint: use pairwise=False for batches of different size.",
        ),
        *[
            (
                {
                    f"{side}_features": torch.ones(30, 4),
                    f"{side}_labels": torch.zeros(30, dtype=torch.int64),
                },
                ValueError,
                f"{side}_features of shape (B, D, Z, H, W), (B, D, H, W) or (B, D, P) "
                "with pairwise=True, "
                "got (30, 4). Hint: pixels given as rows have no image; use pairwise=False.",
            )
            for side in SIDES
        ],
    ],
)
def test_the_call(arguments: dict[str, Any], error: type[Exception], text: str) -> None:
    assert_says(error, f"expected {text}", **arguments)
