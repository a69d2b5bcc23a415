"""What `check_labels`, `fuse_labels` and `labels_to_grid` say: in full."""

from typing import Any

import pytest
import torch

from protocontrast import check_labels, fuse_labels, labels_to_grid
from tests.sentences import assert_raises

LABELS = torch.zeros(2, 4, 6, dtype=torch.int64)
BOOL_HINT = "Hint: a boolean mask is not a label map; use labels.long()."
IGNORE_HINT = "Hint: the usual ignore values are 255 and -100."


@pytest.mark.parametrize(
    ("labels", "settings", "error", "text"),
    [
        ([0], {}, TypeError, "expected labels to be a torch.Tensor, got list."),
        (LABELS.float(), {}, TypeError, "expected labels of an integer dtype, got torch.float32."),
        (
            LABELS.bool(),
            {},
            TypeError,
            f"expected labels of an integer dtype, got torch.bool. {BOOL_HINT}",
        ),
        (
            LABELS,
            {"num_classes": 0},
            ValueError,
            "expected num_classes to be an integer >= 1, got 0.",
        ),
        (
            LABELS,
            {"ignore_index": "255"},
            TypeError,
            f"expected ignore_index to be an integer, got '255'. {IGNORE_HINT}",
        ),
        (
            LABELS + 9,
            {},
            ValueError,
            "expected labels in 0..2 or ignore_index = 255, "
            "got value 9 (first of 48 wrong among 48 pixels). Hint: the usual ignore values are "
            "255 and -100; is ignore_index the one of these labels?",
        ),
        (
            torch.tensor([2, 3, 9, 255], dtype=torch.uint16),
            {},
            ValueError,
            "expected labels in 0..2 or ignore_index = 255, "
            "got value 3 (first of 2 wrong among 4 pixels). Hint: is num_classes (the number of "
            "prototypes) too small by one? the usual ignore values are 255 and -100; "
            "is ignore_index the one of these labels?",
        ),
    ],
)
def test_check_labels(
    labels: Any, settings: dict[str, Any], error: type[Exception], text: str
) -> None:
    settings = {"num_classes": 3, **settings}
    assert_raises(error, f"check_labels: {text}", lambda: check_labels(labels, **settings))


@pytest.mark.parametrize(
    ("labels", "num_classes", "ignore_index"),
    [
        (LABELS, 1, 255),
        (torch.tensor([0, 2, 255], dtype=torch.uint8), 3, 255),
        (torch.tensor([-100, 2]), 3, -100),
        (torch.tensor([5, 5], dtype=torch.int8), 1, 5),
        (torch.zeros(0, dtype=torch.int32), 1, 255),
        (torch.tensor(1), 2, 255),
    ],
)
def test_right_labels_pass(labels: torch.Tensor, num_classes: int, ignore_index: int) -> None:
    check_labels(labels, num_classes, ignore_index=ignore_index)


@pytest.mark.parametrize(
    ("maps", "settings", "error", "text"),
    [
        ([[0]], {}, TypeError, "expected base to be a torch.Tensor, got list."),
        (
            [LABELS.bool()],
            {},
            TypeError,
            f"expected base of an integer dtype, got torch.bool. {BOOL_HINT}",
        ),
        (
            [LABELS, LABELS, LABELS.float()],
            {},
            TypeError,
            "expected map 2 of others of an integer dtype, got torch.float32.",
        ),
        (
            [LABELS, LABELS[:1]],
            {},
            ValueError,
            "expected map 1 of others of shape (2, 4, 6) like base, got (1, 4, 6).",
        ),
        (
            [LABELS, LABELS.to("meta")],
            {},
            ValueError,
            "expected map 1 of others on cpu like base, got meta.",
        ),
        (
            [LABELS, LABELS],
            {"ignore_index": None},
            TypeError,
            f"expected ignore_index to be an integer, got None. {IGNORE_HINT}",
        ),
    ],
)
def test_fuse_labels(
    maps: list[Any], settings: dict[str, Any], error: type[Exception], text: str
) -> None:
    assert_raises(error, f"fuse_labels: {text}", lambda: fuse_labels(*maps, **settings))


@pytest.mark.parametrize(
    ("labels", "settings", "error", "text"),
    [
        (None, {}, TypeError, "expected labels to be a torch.Tensor, got NoneType."),
        (LABELS.float(), {}, TypeError, "expected labels of an integer dtype, got torch.float32."),
        (
            LABELS[0],
            {},
            ValueError,
            "expected labels of shape (B, Z, H, W) or (B, H, W), got (4, 6).",
        ),
        (
            LABELS[:, :0],
            {},
            ValueError,
            "expected labels with at least one row and one column, got (2, 0, 6).",
        ),
        (
            LABELS,
            {"mode": "mode"},
            ValueError,
            "expected mode to be 'nearest' or 'majority' or 'counts', got 'mode'.",
        ),
        (LABELS, {"size": 2}, ValueError, "expected size to be (height, width), got 2."),
        (
            LABELS,
            {"size": (2, 3, 1)},
            ValueError,
            "expected size to be (height, width), got (2, 3, 1).",
        ),
        (
            LABELS,
            {"size": (0, 3)},
            ValueError,
            "expected height in size to be an integer >= 1, got 0.",
        ),
        (
            LABELS,
            {"size": (2, 1.5)},
            ValueError,
            "expected width in size to be an integer >= 1, got 1.5.",
        ),
        *[
            (
                LABELS,
                {"mode": mode},
                ValueError,
                f'expected num_classes with mode="{mode}", got None. Hint: pass the number of '
                "classes; finding it in the labels would wait for the device.",
            )
            for mode in ("majority", "counts")
        ],
        (
            LABELS,
            {"mode": "counts", "num_classes": 0},
            ValueError,
            "expected num_classes to be an integer >= 1, got 0.",
        ),
        (
            LABELS,
            {"mode": "majority", "num_classes": 3, "min_share": 1.5},
            ValueError,
            "expected min_share to be a number in [0, 1], got 1.5.",
        ),
        (
            LABELS,
            {"mode": "majority", "num_classes": 3, "min_share": float("nan")},
            ValueError,
            "expected min_share to be a number in [0, 1], got nan.",
        ),
        (
            LABELS,
            {"ignore_index": 2.0},
            TypeError,
            f"expected ignore_index to be an integer, got 2.0. {IGNORE_HINT}",
        ),
        *[
            (
                LABELS + 3,
                {"mode": mode, "num_classes": 3},
                ValueError,
                "expected labels in 0..2 or ignore_index = 255, "
                "got value 3 (first of 48 wrong among 48 pixels). Hint: is num_classes (the number "
                "of prototypes) too small by one? the usual ignore values are 255 and -100; "
                "is ignore_index the one of these labels?",
            )
            for mode in ("majority", "counts")
        ],
    ],
)
def test_labels_to_grid(
    labels: Any, settings: dict[str, Any], error: type[Exception], text: str
) -> None:
    settings = {"size": (2, 3), **settings}
    assert_raises(error, f"labels_to_grid: {text}", lambda: labels_to_grid(labels, **settings))
