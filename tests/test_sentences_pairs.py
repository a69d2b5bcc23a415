"""What `pair_contrast` says about its arguments: in full."""

from typing import Any

import pytest
import torch

from protocontrast import PairContrastLoss, pair_contrast
from tests.sentences import assert_raises

ANCHORS = torch.ones(5, 4)
LABELS = torch.zeros(5, dtype=torch.int64)
KEYS = torch.ones(7, 4)
KEY_LABELS = torch.zeros(7, dtype=torch.int64)
GIVEN = {"anchors": ANCHORS, "anchor_labels": LABELS, "keys": KEYS, "key_labels": KEY_LABELS}
FORM_HINT = "Hint: features (B, D, H, W) are rows as features.movedim(1, -1).flatten(0, -2)."
MASK_HINT = "Hint: a boolean mask is not a label map; use labels.long()."
NAMES = "'cosine' or 'dot' or 'euclidean'"
GRAD_HINT = "gradients go to anchors, keys and negatives only."


@pytest.mark.parametrize(
    ("argument", "value", "error", "text"),
    [
        ("anchors", [[1.0]], TypeError, "anchors to be a torch.Tensor, got list."),
        ("anchors", ANCHORS.long(), TypeError, "anchors of a floating dtype, got torch.int64."),
        (
            "anchors",
            torch.ones(2, 4, 3, 5),
            ValueError,
            f"anchors of shape (A, D) with at least one channel, got (2, 4, 3, 5). {FORM_HINT}",
        ),
        (
            "anchors",
            torch.ones(5, 0),
            ValueError,
            f"anchors of shape (A, D) with at least one channel, got (5, 0). {FORM_HINT}",
        ),
        ("keys", KEYS.int(), TypeError, "keys of a floating dtype, got torch.int32."),
        (
            "keys",
            torch.ones(7, 3),
            ValueError,
            "keys of shape (K, D) with D = 4 as in anchors (5, 4), got (7, 3).",
        ),
        (
            "keys",
            torch.ones(7),
            ValueError,
            "keys of shape (K, D) with D = 4 as in anchors (5, 4), got (7,).",
        ),
        ("keys", KEYS.to("meta"), ValueError, "keys on cpu like anchors, got meta."),
        (
            "anchor_labels",
            LABELS.bool(),
            TypeError,
            f"anchor_labels of an integer dtype, got torch.bool. {MASK_HINT}",
        ),
        (
            "anchor_labels",
            LABELS[:4],
            ValueError,
            "anchor_labels of shape (5,) as in anchors (5, 4), got (4,).",
        ),
        (
            "key_labels",
            KEY_LABELS[None],
            ValueError,
            "key_labels of shape (7,) as in keys (7, 4), got (1, 7). Hint: key_labels.flatten().",
        ),
        (
            "key_labels",
            KEY_LABELS.to("meta"),
            ValueError,
            "key_labels on cpu like keys, got meta.",
        ),
        ("negatives", KEYS, ValueError, "negative_labels beside negatives, got None."),
        ("negative_labels", LABELS, ValueError, "negatives beside negative_labels, got None."),
        ("anchor_weight", LABELS, TypeError, "anchor_weight of a floating dtype, got torch.int64."),
        (
            "anchor_weight",
            torch.ones(7),
            ValueError,
            "anchor_weight of shape (5,) as in anchors (5, 4), got (7,).",
        ),
        (
            "anchor_weight",
            torch.ones(5).requires_grad_(),
            TypeError,
            "anchor_weight without gradient, got requires_grad=True. "
            f"Hint: pass anchor_weight.detach(); {GRAD_HINT}",
        ),
        ("similarity", "l2", ValueError, f"similarity to be {NAMES}, got 'l2'."),
        ("temperature", 0, ValueError, "temperature to be a finite number > 0, got 0."),
        ("denominator", "each", ValueError, "denominator to be 'negatives' or 'all', got 'each'."),
        ("exclude_self", None, TypeError, "exclude_self to be True or False, got None."),
        (
            "exclude_self",
            True,
            ValueError,
            "keys to be the 5 anchors with exclude_self=True, got 7 rows. "
            "Hint: key i must be anchor i.",
        ),
        ("reduction", "max", ValueError, "reduction to be 'mean' or 'sum' or 'none', got 'max'."),
        (
            "ignore_index",
            None,
            TypeError,
            "ignore_index to be an integer, got None. "
            "Hint: the usual ignore values are 255 and -100.",
        ),
        (
            "backend",
            "cuda",
            ValueError,
            "backend to be 'auto' or 'triton' or 'native' or 'eager' or 'naive', got 'cuda'.",
        ),
    ],
)
def test_arguments(argument: str, value: Any, error: type[Exception], text: str) -> None:
    call = {**GIVEN, argument: value}
    assert_raises(error, f"pair_contrast: expected {text}", lambda: pair_contrast(**call))


def test_negatives_are_checked_as_keys_are() -> None:
    text = (
        "pair_contrast: expected negatives of shape (K, D) with D = 4 as in anchors (5, 4), "
        "got (2, 3)."
    )
    call = {**GIVEN, "negatives": torch.ones(2, 3), "negative_labels": LABELS[:2]}
    assert_raises(ValueError, text, lambda: pair_contrast(**call))
    text = "pair_contrast: expected negative_labels of shape (7,) as in negatives (7, 4), got (5,)."
    call = {**GIVEN, "negatives": KEYS, "negative_labels": LABELS}
    assert_raises(ValueError, text, lambda: pair_contrast(**call))


@pytest.mark.parametrize(
    ("setting", "value", "error", "text"),
    [
        ("similarity", "l2", ValueError, f"similarity to be {NAMES}, got 'l2'."),
        ("temperature", -1, ValueError, "temperature to be a finite number > 0, got -1."),
        ("denominator", "each", ValueError, "denominator to be 'negatives' or 'all', got 'each'."),
        ("exclude_self", "no", TypeError, "exclude_self to be True or False, got 'no'."),
        ("reduction", "max", ValueError, "reduction to be 'mean' or 'sum' or 'none', got 'max'."),
        (
            "backend",
            "cuda",
            ValueError,
            "backend to be 'auto' or 'triton' or 'native' or 'eager' or 'naive', got 'cuda'.",
        ),
    ],
)
def test_the_module(setting: str, value: Any, error: type[Exception], text: str) -> None:
    text = f"PairContrastLoss: expected {text}"
    assert_raises(error, text, lambda: PairContrastLoss(**{setting: value}))


def test_keys_without_labels() -> None:
    text = "pair_contrast: expected key_labels to be a torch.Tensor, got NoneType."
    assert_raises(TypeError, text, lambda: PairContrastLoss()(ANCHORS, LABELS, KEYS))
    text = "pair_contrast: expected keys to be a torch.Tensor, got NoneType."
    assert_raises(
        TypeError, text, lambda: PairContrastLoss()(ANCHORS, LABELS, key_labels=KEY_LABELS)
    )
