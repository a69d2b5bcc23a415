"""No `ignore_index` may be a class: its pixels would be lost without a word."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import protocontrast as pc
from tests.sentences import assert_raises

MAPS = torch.linspace(-1, 1, 2 * 300 * 6).sin().reshape(2, 300, 2, 3)
ROWS = torch.linspace(-1, 1, 300 * 300).cos().reshape(300, 300)
LABELS = torch.tensor([0, 1, 2, 0, 1, 255] * 2).reshape(2, 2, 3)
IMAGES = MAPS[:, :1]
FINE = LABELS.repeat_interleave(2, 1).repeat_interleave(2, 2)


def queue(**how: Any) -> Any:
    return pc.ClassQueue(300, 1, 300).push(MAPS, LABELS, **how)


CALLS: dict[str, Callable[..., Any]] = {
    "pixel_prototype_contrast": lambda **how: pc.pixel_prototype_contrast(
        MAPS, LABELS, ROWS, **how
    ),
    "distribution_contrast": lambda **how: pc.distribution_contrast(
        MAPS, LABELS, ROWS, ROWS.square(), **how
    ),
    "class_prototypes": lambda **how: pc.class_prototypes(MAPS, LABELS, 300, **how),
    "class_statistics": lambda **how: pc.class_statistics(MAPS, LABELS, 300, **how),
    "transfer_labels": lambda **how: pc.transfer_labels(MAPS, ROWS, **how),
    "labels_to_grid": lambda **how: pc.labels_to_grid(FINE, (2, 3), num_classes=300, **how),
    "labels_to_grid counts": lambda **how: pc.labels_to_grid(
        FINE, (2, 3), mode="counts", num_classes=300, **how
    ),
    "labels_to_grid majority": lambda **how: pc.labels_to_grid(
        FINE, (2, 3), mode="majority", num_classes=300, **how
    ),
    "bidirectional_contrast": lambda **how: pc.bidirectional_contrast(
        MAPS, LABELS, MAPS, LABELS, num_classes=300, **how
    ),
    "BidirectionalContrastLoss": lambda **how: pc.BidirectionalContrastLoss(300, **how),
    "upsampled_cross_entropy": lambda **how: pc.upsampled_cross_entropy(MAPS, FINE, **how),
    "check_labels": lambda **how: pc.check_labels(LABELS, 300, **how),
    "class_mix": lambda **how: pc.class_mix(IMAGES, LABELS, IMAGES, LABELS, num_classes=300, **how),
    "sample_pixels": lambda **how: pc.sample_pixels(LABELS, 3, num_classes=300, **how),
    "sample_pixels per class": lambda **how: pc.sample_pixels(
        LABELS, 3, mode="per_class", num_classes=300, **how
    ),
    "select_labels": lambda **how: pc.select_labels(MAPS.softmax(1), 0.5, **how),
    "select_labels of thresholds": lambda **how: pc.ClassThresholds(300).select(
        MAPS.softmax(1), **how
    ),
    "symmetric_cross_entropy": lambda **how: pc.symmetric_cross_entropy(MAPS, LABELS, **how),
    "prototype_pull": lambda **how: pc.prototype_pull(MAPS, LABELS, ROWS, **how),
    "spread": lambda **how: pc.spread(MAPS, LABELS, ROWS, toward="uniform", **how),
    "class_prototypes of a bank": lambda **how: pc.PrototypeBank(300, 300).update(
        MAPS, LABELS, **how
    ),
    "class_prototypes of a fit": lambda **how: pc.PrototypeBank(300, 300).fit(
        [(MAPS, LABELS)], **how
    ),
    "ClassQueue": queue,
    "ClassQueue read": lambda **how: pc.ClassQueue(300, 1, 300).read(**how),
    "LogitBalance": lambda **how: pc.LogitBalance(300, 1).update(MAPS, LABELS, **how),
    "LogitBalance delta": lambda **how: pc.LogitBalance(300, 1).delta(MAPS, LABELS, **how),
    "BiCL": lambda **how: pc.BiCL(300, 300, **how),
}


@pytest.mark.parametrize("how", [{}, {"ignore_index": 0}, {"ignore_index": 299}])
@pytest.mark.parametrize("name", CALLS)
def test_a_class_is_not_ignored(name: str, how: dict[str, int]) -> None:
    text = (
        f"{name.split()[0]}: expected ignore_index outside 0..299, the classes, got "
        f"{how.get('ignore_index', 255)}. Hint: pixels of that class would be lost; the usual "
        "ignore value below 0 is -100."
    )
    assert_raises(ValueError, text, lambda: CALLS[name](**how))


def test_numbers_of_classes_of_numpy() -> None:
    text = (
        "BiCL: expected ignore_index outside 0..299, the classes, got 255. Hint: pixels of that "
        "class would be lost; the usual ignore value below 0 is -100."
    )
    assert_raises(ValueError, text, lambda: pc.BiCL(np.int64(300), 4))  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [-100, 300])
@pytest.mark.parametrize("name", [name for name in CALLS if "LogitBalance" not in name])
def test_any_other_integer_is(name: str, value: int) -> None:
    CALLS[name](ignore_index=value)


def test_without_hard_labels_nothing_is_ignored() -> None:
    """Soft targets have no ignore value, pairs no number of classes."""
    soft = MAPS.softmax(dim=1)
    assert pc.pixel_prototype_contrast(MAPS, soft, ROWS) > 0
    rows = MAPS.movedim(1, -1).flatten(0, -2)
    assert pc.pair_contrast(rows, LABELS.flatten(), rows, LABELS.flatten(), ignore_index=0) > 0
    assert pc.fuse_labels(LABELS, LABELS, ignore_index=0).shape == LABELS.shape
    assert pc.labels_to_grid(LABELS, (1, 1), ignore_index=0).shape == (2, 1, 1)
