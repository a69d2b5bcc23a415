"""`ClassQueue`: first in, first out, class by class, against Python's own deque."""

from collections import deque
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from protocontrast import ClassQueue, class_prototypes
from tests.strategies import NAN, label_map, normal, seeds


def contents(queue: ClassQueue, c: int) -> list[list[float]]:
    """The keys of a class from the oldest to the latest."""
    number, length = int(queue.count[c]), queue.length
    places = [n % length for n in range(max(0, number - length), number)]
    return queue.keys[c, places].tolist()


def chosen(number: int, per_class: int | None) -> list[int]:
    """Which of a class's pixels are pushed."""
    picks = number if per_class is None else min(per_class, number)
    return [int((pick + 0.5) * (number / picks)) for pick in range(picks)]


class Model:
    """What a queue should hold, by deques."""

    def __init__(self, num_classes: int, length: int) -> None:
        self.rows: list[deque[list[float]]] = [deque(maxlen=length) for _ in range(num_classes)]

    def push(self, features: Tensor, labels: Tensor, per_class: int | None) -> None:
        for c, row in enumerate(self.rows):
            members = features[labels == c]
            row.extend(members[chosen(len(members), per_class)].tolist())


@given(
    length=st.sampled_from([1, 2, 5, 40]),
    pushes=st.lists(
        st.tuples(seeds, st.sampled_from([0, 1, 7, 33]), st.sampled_from([None, 1, 3, 50])),
        min_size=1,
        max_size=5,
    ),
)
def test_it_is_a_deque_per_class(length: int, pushes: list[tuple[int, int, int | None]]) -> None:
    queue, model = ClassQueue(4, length, 3), Model(4, length)
    for seed, pixels, per_class in pushes:
        features = normal(seed, (pixels, 3), torch.float32)
        labels = label_map(seed, (pixels,), 4)
        queue.push(features, labels, per_class=per_class)
        model.push(features, labels, per_class)
        for c in range(4):
            assert contents(queue, c) == list(model.rows[c])
    keys, labels, valid = queue.read()
    for c in range(4):
        held = keys[labels == c].tolist()
        assert sorted(held) == sorted(model.rows[c])
    assert torch.equal(valid, labels != 255)
    assert not keys[~valid].any()


def test_picks_lie_at_equal_distances() -> None:
    queue = ClassQueue(1, 8, 1)
    queue.push(torch.arange(100.0)[:, None], torch.zeros(100).long(), per_class=4)
    assert queue.keys[0, :4, 0].tolist() == [12, 37, 62, 87]
    queue.push(torch.arange(100.0)[:, None], torch.zeros(100).long(), per_class=10)
    assert sorted(queue.keys[0, :, 0].tolist()) == [25, 35, 45, 55, 65, 75, 85, 95]


def test_class_means_of_a_batch() -> None:
    """A bank of class means: what is absent from the batch is not pushed."""
    features, labels = normal(0, (30, 3), torch.float32), torch.arange(30) % 2
    queue = ClassQueue(3, 2, 3)
    for shift in (0, 1):
        means = class_prototypes(features + shift, labels, 3)
        queue.push(means.mean, torch.where(means.present, torch.arange(3), 255))
    assert queue.count.tolist() == [2, 2, 0]
    assert torch.equal(queue.keys[:2, 1], means.mean[:2])


@pytest.mark.parametrize("value", [NAN, float("inf")])
def test_what_is_not_finite_is_left_out(value: float) -> None:
    features = torch.arange(6.0)[:, None].clone()
    features[[1, 4]] = value
    queue = ClassQueue(2, 4, 1)
    queue.push(features, torch.tensor([0, 0, 0, 1, 255, 0]))
    assert contents(queue, 0) == [[0.0], [2.0], [5.0]]
    assert queue.skipped.tolist() == [1, 0]
    assert queue.count.tolist() == [3, 1]


def test_the_last_features_are_the_last_finite_ones() -> None:
    queue = ClassQueue(1, 2, 1)
    queue.push(torch.tensor([[1.0], [2.0], [NAN], [NAN]]), torch.zeros(4, dtype=torch.long))
    assert contents(queue, 0) == [[1.0], [2.0]]
    assert (queue.count.tolist(), queue.skipped.tolist()) == ([2], [2])


@given(
    values=st.lists(st.sampled_from([1.0, 2.0, 3.0, NAN, float("inf")]), min_size=1, max_size=12),
    length=st.integers(1, 5),
    data=st.data(),
)
def test_a_push_in_pieces_is_one_push(values: list[float], length: int, data: Any) -> None:
    """Also counts: a feature is pushed or skipped, whether or not a later one takes its place."""
    number = len(values)
    classes = data.draw(st.lists(st.sampled_from([0, 1, 255]), min_size=number, max_size=number))
    cuts = data.draw(st.lists(st.integers(0, number), max_size=4))
    features, labels = torch.tensor(values)[:, None], torch.tensor(classes)
    whole, pieces = ClassQueue(2, length, 1), ClassQueue(2, length, 1)
    whole.push(features, labels)
    for begin, end in pairwise(sorted({0, number, *cuts})):
        pieces.push(features[begin:end], labels[begin:end])
    for name, value in pieces.state_dict().items():
        assert torch.equal(whole.state_dict()[name], value), name
    finite = torch.isfinite(features[:, 0])
    for c in range(2):
        assert whole.count[c] == (finite & (labels == c)).sum()
        assert whole.skipped[c] == (~finite & (labels == c)).sum()


def test_reading_is_a_copy_without_gradient() -> None:
    queue = ClassQueue(2, 2, 3)
    features = normal(0, (4, 3), torch.float32).requires_grad_()
    queue.push(features, torch.tensor([0, 1, 0, 1]))
    held = queue.read(ignore_index=-100)
    before = held.keys.clone()
    queue.push(features + 1, torch.tensor([0, 1, 0, 1]))
    assert not held.keys.requires_grad
    assert torch.equal(held.keys, before)
    assert list(queue.parameters()) == []
    assert ClassQueue(1, 2, 3).read(ignore_index=-100).labels.tolist() == [-100, -100]
