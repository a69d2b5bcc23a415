"""Thresholds that no pixel can reach are refused; infinite ones and those per class say so."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from protocontrast import select_labels, transfer_labels

FEATURES, PROTOTYPES = torch.tensor([[1.0, 0.2], [0.3, 2.0]]), torch.eye(2)
SHARES = torch.tensor([[0.9, 0.1], [0.4, 0.6]])
SIMILAR = {"measure": "similarity"}


def test_odds_may_be_above_one() -> None:
    assert select_labels(SHARES, 1.5, measure="log_odds").labels.tolist() == [0, 255]


@pytest.mark.parametrize(
    ("settings", "threshold"),
    [
        ({}, 0),
        ({}, np.float32(1)),
        (SIMILAR, -1.0),
        # All labels are kept, and none.
        ({}, -3.0),
        ({}, 1.001),
        ({**SIMILAR, "similarity": "dot"}, 12.0),
        ({**SIMILAR, "similarity": "euclidean"}, -3.5),
    ],
)
def test_numbers_in_the_range(settings: dict[str, Any], threshold: Any) -> None:
    found = transfer_labels(FEATURES, PROTOTYPES, threshold=threshold, **settings)
    assert found.labels.shape == (2,)


@pytest.mark.parametrize("settings", [{}, SIMILAR, {**SIMILAR, "similarity": "euclidean"}])
def test_infinity_keeps_all_or_none(settings: dict[str, Any]) -> None:
    for threshold, labels in ((math.inf, [255, 255]), (-math.inf, [0, 1])):
        found = transfer_labels(FEATURES, PROTOTYPES, threshold=threshold, **settings)
        assert found.labels.tolist() == labels
        given = torch.full((2,), threshold)
        assert select_labels(SHARES, threshold).labels.tolist() == labels
        assert select_labels(SHARES, given).labels.tolist() == labels


def test_thresholds_per_class_are_data() -> None:
    """One that is out of reach switches its class off."""
    found = transfer_labels(FEATURES, PROTOTYPES, threshold=torch.tensor([7.0, 0.5]))
    assert found.labels.tolist() == [255, 1]
    assert select_labels(SHARES, torch.tensor([0.5, 7.0])).labels.tolist() == [0, 255]
