"""Loss terms against numbers worked by hand."""

from __future__ import annotations

import math
import re

import pytest
import torch
import torch.nn.functional as F
from reference.training.losses import (
    NonFiniteLossError,
    cell_labels,
    cross_entropy,
    require_finite,
    source_cross_entropy,
)


def test_the_middle_pixel_of_a_cell_is_taken():
    labels = torch.full((1, 8, 12), 255, dtype=torch.uint8)
    labels[0, 2::4, 2::4] = torch.tensor([[1, 2, 3], [4, 5, 6]], dtype=torch.uint8)
    cells = cell_labels(labels)
    assert cells.dtype == torch.int64
    assert cells.tolist() == [[[1, 2, 3], [4, 5, 6]]]


def test_cross_entropy_averages_over_labelled_cells_only():
    logits = torch.tensor([[[[math.log(3.0), 9.0]], [[0.0, 0.0]]]])  # (1, 2, 1, 2)
    loss = cross_entropy(logits, torch.tensor([[[0, 255]]]))
    assert loss.item() == pytest.approx(math.log(4 / 3), abs=1e-6)


def test_cross_entropy_without_labels_is_zero_with_zero_gradient():
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    loss = cross_entropy(logits, torch.full((1, 2, 2), 255))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert logits.grad.abs().max() == 0


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_non_finite_term_is_named(value):
    losses = {"entropy": torch.tensor(1.0), "target_to_source": torch.tensor(value)}
    sentence = (
        f"bicl: expected a finite loss, got target_to_source = {value} at step 37. "
        "Hint: lower the learning rate or the weight of this term."
    )
    with pytest.raises(NonFiniteLossError, match=f"^{re.escape(sentence)}$"):
        require_finite(losses, run="bicl", step=37)


def test_finite_terms_are_read_as_numbers():
    losses = {"entropy": torch.tensor(0.5, requires_grad=True)}
    assert require_finite(losses, run="bicl", step=0) == {"entropy": 0.5}


@pytest.mark.parametrize("full_resolution", [False, True])
def test_source_cross_entropy_sees_every_label_or_one_per_cell(full_resolution):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 19, 3, 4, generator=generator)
    labels = torch.randint(0, 19, (2, 12, 16), generator=generator)
    labels[0, :5] = 255
    if full_resolution:
        large = F.interpolate(logits, (12, 16), mode="bilinear", align_corners=False)
        expected = F.cross_entropy(large, labels, ignore_index=255)
    else:
        expected = F.cross_entropy(logits, labels[:, 2::4, 2::4], ignore_index=255)
    loss = source_cross_entropy(logits, labels, full_resolution=full_resolution)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("full_resolution", [False, True])
def test_source_cross_entropy_weighs_classes_and_divides_by_their_weights(full_resolution):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 19, 3, 4, generator=generator)
    labels = torch.randint(0, 19, (2, 12, 16), generator=generator)
    labels[0, :5] = 255
    weight = torch.rand(19, generator=generator) + 0.5
    seen, chosen = logits, labels[:, 2::4, 2::4]
    if full_resolution:
        seen = F.interpolate(logits, (12, 16), mode="bilinear", align_corners=False)
        chosen = labels
    expected = F.cross_entropy(seen, chosen, weight=weight, ignore_index=255)
    loss = source_cross_entropy(
        logits, labels, full_resolution=full_resolution, class_weight=weight
    )
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
