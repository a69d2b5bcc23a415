"""Static pseudo labels: the promised share of every class, the most confident first."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.training.pseudo_labels import select_class_balanced, static_pseudo_labels
from torch import Tensor, nn

from reference.data.classes import IGNORE, NUM_CLASSES
from reference.networks.output import Output


class Stripes(nn.Module):
    """Class = the first colour of a cell's corner; confidence grows with the second colour."""

    def forward(self, images: Tensor) -> Output:
        corners = (images[:, :, ::4, ::4] * 255).round()
        logits = torch.zeros(len(images), NUM_CLASSES, *corners.shape[-2:])
        logits.scatter_(1, corners[:, :1].long(), corners[:, 1:2] / 16)
        return Output(logits, corners)


def test_the_most_confident_share_of_each_class_is_kept():
    predictions = torch.tensor([[0, 0, 0, 0], [5, 5, 5, 18]])
    confidence = torch.tensor([[0.1, 0.9, 0.8, 0.2], [0.3, 0.2, 0.1, 0.01]])
    kept = select_class_balanced(predictions, confidence, 0.5)
    assert kept.dtype == torch.uint8
    assert kept.tolist() == [[255, 0, 0, 255], [5, 5, 255, 18]]


def test_class_0_survives():
    assert select_class_balanced(torch.zeros(3), torch.ones(3), 1.0).tolist() == [0, 0, 0]


def test_saturated_confidences_keep_no_more_than_the_share():
    kept = select_class_balanced(torch.zeros(10), torch.ones(10), 0.3)
    assert kept.tolist() == [0] * 3 + [255] * 7


@given(
    labels=st.lists(st.integers(0, 3), max_size=40),
    share=st.floats(0, 1),
    seed=st.integers(0, 99),
)
@settings(max_examples=50, deadline=None)
def test_the_number_kept_is_the_share_rounded_up_and_labels_never_change(labels, share, seed):
    predictions = torch.tensor(labels, dtype=torch.int64)
    confidence = torch.rand(len(labels), generator=torch.Generator().manual_seed(seed))
    kept = select_class_balanced(predictions, confidence, share)
    for label in set(labels):
        total = labels.count(label)
        number = int((kept == label).sum())
        assert share * total - 1e-9 <= number < share * total + 1 + 1e-9
        chosen = confidence[(predictions == label) & (kept == label)]
        left = confidence[(predictions == label) & (kept == IGNORE)]
        assert not len(chosen) or not len(left) or chosen.min() >= left.max()
    assert bool(((kept == predictions) | (kept == IGNORE)).all())


@pytest.mark.parametrize(
    ("confidence", "share", "sentence"),
    [
        (torch.ones(3), 1.1, "select_class_balanced: expected share in [0, 1], got 1.1."),
        (
            torch.ones(2),
            0.5,
            "select_class_balanced: expected confidence of the shape of predictions (3,), "
            "got (2,).",
        ),
    ],
)
def test_bad_input_is_refused(confidence, share, sentence):
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        select_class_balanced(torch.zeros(3), confidence, share)


def test_the_share_counts_over_all_images_and_batches_do_not_matter():
    images = torch.zeros(3, 3, 8, 8, dtype=torch.uint8)
    images[0, 0] = 7
    # All of class 7 is in the first image; class 0 is surest in the last.
    images[:, 1] = torch.tensor([80, 40, 160], dtype=torch.uint8).view(3, 1, 1)
    labels = static_pseudo_labels(Stripes(), images, share=0.5, batch_size=2)
    assert labels.shape == (3, 2, 2)
    assert labels.dtype == torch.uint8
    assert (labels[0] == 7).sum() == 2
    assert (labels[1] == IGNORE).all()
    assert (labels[2] == 0).all()
    again = static_pseudo_labels(Stripes(), images, share=0.5, batch_size=3)
    assert torch.equal(labels, again)


def test_no_gradient_is_kept():
    network = nn.Conv2d(3, NUM_CLASSES, 4, stride=4)

    class Wrapped(nn.Module):
        def forward(self, images: Tensor) -> Output:
            return Output(network(images), images)

    images = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    static_pseudo_labels(Wrapped(), images, share=1.0)
    assert all(parameter.grad is None for parameter in network.parameters())
