"""What selection, sampling, mixing and `ClassThresholds` say: in full."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

import protocontrast as pc
from tests.sentences import assert_raises

LOGITS = torch.zeros(2, 4, 3, 5)
LABELS = torch.zeros(2, 3, 5, dtype=torch.int64)
SHARES = LOGITS.softmax(dim=1)
IMAGES = torch.zeros(2, 3, 3, 5)
META = torch.device("meta")
ALL_CLASSES = torch.ones(4, dtype=torch.bool)


def mixed(**changed: Any) -> pc.ClassMix:
    call = {
        "source_images": IMAGES,
        "source_labels": LABELS,
        "target_images": IMAGES,
        "target_labels": LABELS,
        "num_classes": 4,
    }
    return pc.class_mix(**{**call, **changed})


CALLS: dict[str, Callable[..., Any]] = {
    "select_labels": lambda probabilities=SHARES, threshold=0.5, **rest: pc.select_labels(
        probabilities, threshold, **rest
    ),
    "confident_share": lambda probabilities=SHARES, threshold=0.5, **rest: pc.confident_share(
        probabilities, threshold, **rest
    ),
    "sample_pixels": lambda labels=LABELS, number=4, **rest: pc.sample_pixels(
        labels, number, **rest
    ),
    "class_mix": mixed,
    "ClassThresholds": lambda num_classes=4, probabilities=SHARES, **rest: pc.ClassThresholds(
        num_classes, **rest
    ).update(probabilities),
}


def assert_says(function: str, error: type[Exception], text: str, **arguments: Any) -> None:
    assert_raises(error, f"{function}: {text}", lambda: CALLS[function](**arguments))


def test_the_calls_are_right_but_for_what_is_changed() -> None:
    for call in CALLS.values():
        call()


READS = [
    ("select_labels", "probabilities"),
    ("confident_share", "probabilities"),
    ("ClassThresholds", "probabilities"),
]


@pytest.mark.parametrize(("function", "argument"), READS)
@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        ([1.0], TypeError, "to be a torch.Tensor, got list."),
        (LABELS, TypeError, "of a floating dtype, got torch.int64."),
        (
            LOGITS[0, 0, 0],
            ValueError,
            "of shape (B, D, Z, H, W), (B, D, H, W), (B, D, P) or (N, D), got (5,).",
        ),
        (LOGITS[:, :0], ValueError, "with at least one channel, got (2, 0, 3, 5)."),
    ],
)
def test_what_is_read(
    function: str, argument: str, value: Any, error: type[Exception], text: str
) -> None:
    assert_says(function, error, f"expected {argument} {text}", **{argument: value})


OTHERS: list[tuple[str, dict[str, Any], type[Exception], str]] = [
    (
        "select_labels",
        {"threshold": torch.ones(3)},
        ValueError,
        "expected threshold of shape (4,) = (C,), got (3,).",
    ),
    (
        "select_labels",
        {"threshold": "0.5"},
        TypeError,
        "expected threshold to be a number or a (C,) tensor, got str.",
    ),
    (
        "select_labels",
        {"measure": "similarity"},
        ValueError,
        "expected measure to be 'confidence' or 'log_odds', got 'similarity'.",
    ),
    (
        "select_labels",
        {"image_share": 10},
        ValueError,
        "expected image_share to be a number in [0, 1], got 10.",
    ),
    (
        "select_labels",
        {"ignore_index": None},
        TypeError,
        "expected ignore_index to be an integer, got None. Hint: the usual ignore values are 255 "
        "and -100.",
    ),
    (
        "confident_share",
        {"threshold": 1.5},
        ValueError,
        "expected threshold to be a number in [0, 1], got 1.5.",
    ),
    (
        "confident_share",
        {"per_image": "yes"},
        TypeError,
        "expected per_image to be True or False, got 'yes'.",
    ),
    (
        "sample_pixels",
        {"labels": LABELS[0, 0, 0]},
        ValueError,
        "expected labels of shape (B, Z, H, W), (B, H, W), (B, P) or (N,), got ().",
    ),
    (
        "sample_pixels",
        {"number": 0},
        ValueError,
        "expected number to be an integer >= 1, got 0.",
    ),
    (
        "sample_pixels",
        {"mode": "hard"},
        ValueError,
        "expected mode to be 'random' or 'per_class' or 'hard_easy', got 'hard'.",
    ),
    (
        "sample_pixels",
        {"mode": "per_class"},
        ValueError,
        'expected num_classes with mode="per_class", got None. Hint: pass the number of classes; '
        "finding it in the labels would wait for the device.",
    ),
    (
        "sample_pixels",
        {"mode": "hard_easy", "num_classes": 4},
        ValueError,
        'expected predictions with mode="hard_easy", got None.',
    ),
    (
        "sample_pixels",
        {"mode": "hard_easy", "num_classes": 4, "predictions": LABELS[:1]},
        ValueError,
        "expected predictions of shape (2, 3, 5) like labels, got (1, 3, 5).",
    ),
    (
        "sample_pixels",
        {"per_class": 2.5},
        ValueError,
        "expected per_class to be an integer >= 1, got 2.5.",
    ),
    (
        "sample_pixels",
        {"min_pixels": 0},
        ValueError,
        "expected min_pixels to be an integer >= 1, got 0.",
    ),
    (
        "sample_pixels",
        {"generator": 3},
        TypeError,
        "expected generator to be a torch.Generator, got int.",
    ),
    (
        "class_mix",
        {"source_images": IMAGES[0]},
        ValueError,
        "expected source_images of shape (B, K, Z, H, W) or (B, K, H, W), got (3, 3, 5).",
    ),
    (
        "class_mix",
        {"target_images": IMAGES[:1]},
        ValueError,
        "expected target_images of shape (2, 3, 3, 5) like source_images, got (1, 3, 3, 5).",
    ),
    (
        "class_mix",
        {"target_images": IMAGES.double()},
        TypeError,
        "expected target_images of dtype torch.float32 like source_images, got torch.float64.",
    ),
    (
        "class_mix",
        {"target_labels": LABELS[:, :2]},
        ValueError,
        "expected target_labels of shape (2, 3, 5) for these images, got (2, 2, 5). Hint: mix at "
        "the labels' resolution.",
    ),
    (
        "class_mix",
        {"source_labels": LABELS.bool()},
        TypeError,
        "expected source_labels of an integer dtype, got torch.bool. Hint: a boolean mask is not "
        "a label map; use labels.long().",
    ),
    (
        "class_mix",
        {"source_labels": LABELS + 9},
        ValueError,
        "expected labels in 0..3 or ignore_index = 255, got value 9 (first of 30 wrong among 30 "
        "pixels). Hint: the usual ignore values are 255 and -100; is ignore_index the one of "
        "these labels?",
    ),
    (
        "class_mix",
        {"candidates": "all"},
        ValueError,
        "expected candidates to be 'image' or 'batch', got 'all'.",
    ),
    (
        "class_mix",
        {"classes": ALL_CLASSES[:3]},
        ValueError,
        "expected classes of shape (4,) or (2, 4), got (3,).",
    ),
    (
        "class_mix",
        {"classes": ALL_CLASSES.long()},
        TypeError,
        "expected classes of dtype torch.bool, got torch.int64.",
    ),
    (
        "class_mix",
        {"classes": ALL_CLASSES.to(META)},
        ValueError,
        "expected classes on cpu like source_images, got meta.",
    ),
    (
        "class_mix",
        {"generator": "seed"},
        TypeError,
        "expected generator to be a torch.Generator, got str.",
    ),
    *[
        (
            "ClassThresholds",
            {name: 1.1},
            ValueError,
            f"expected {name} to be a number in [0, 1], got 1.1.",
        )
        for name in ("share", "cap", "image_share", "momentum")
    ],
    (
        "ClassThresholds",
        {"num_classes": 0},
        ValueError,
        "expected num_classes to be an integer >= 1, got 0.",
    ),
    (
        "ClassThresholds",
        {"probabilities": SHARES[:, :3]},
        ValueError,
        "expected probabilities with 4 classes, got (2, 3, 3, 5).",
    ),
    (
        "ClassThresholds",
        {"probabilities": SHARES.to(META)},
        ValueError,
        "expected probabilities on cpu like the counts, got meta.",
    ),
]


@pytest.mark.parametrize(("function", "arguments", "error", "text"), OTHERS)
def test_sentences(
    function: str, arguments: dict[str, Any], error: type[Exception], text: str
) -> None:
    assert_says(function, error, text, **arguments)


def test_thresholds_stay_where_a_batch_is_refused() -> None:
    thresholds = pc.ClassThresholds(4)
    thresholds.update(SHARES)
    before = thresholds.mass.clone()
    for call in (thresholds.update, thresholds.select):
        assert_raises(
            ValueError,
            "ClassThresholds: expected probabilities with 4 classes, got (30, 3).",
            lambda call=call: call(torch.ones(30, 3)),
        )
    assert torch.equal(thresholds.mass, before)
