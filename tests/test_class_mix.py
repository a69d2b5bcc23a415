"""`class_mix`: what is pasted, how many classes are drawn, and from which."""

import math
from itertools import combinations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from protocontrast import ClassMix, class_mix
from tests.strategies import label_map, normal, seeds


def scene(seed: int, classes: int, images: int = 3) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    shape = (images, 3, 6, 5)
    return (
        normal(seed, shape, torch.float32),
        label_map(seed, (images, 6, 5), classes),
        normal(seed + 1, shape, torch.float32),
        label_map(seed + 1, (images, 6, 5), classes),
    )


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def assert_mixed(call: tuple[Tensor, Tensor, Tensor, Tensor], mix: ClassMix) -> None:
    """Source where the mask is, target elsewhere, pixel by pixel."""
    images, labels, others, other_labels = call
    assert mix.mask.dtype == torch.bool
    assert mix.labels.dtype == torch.int64
    inside = mix.mask[:, None].expand_as(images)
    assert torch.equal(mix.images[inside], images[inside])
    assert torch.equal(mix.images[~inside], others[~inside])
    assert torch.equal(mix.labels[mix.mask], labels[mix.mask].long())
    assert torch.equal(mix.labels[~mix.mask], other_labels[~mix.mask].long())


@given(seed=seeds, classes=st.integers(1, 6), draw=seeds)
def test_half_of_the_classes_of_each_image(seed: int, classes: int, draw: int) -> None:
    call = scene(seed, classes)
    mix = class_mix(*call, num_classes=classes, generator=seeded(draw))
    assert_mixed(call, mix)
    for labels, mask in zip(call[1], mix.mask, strict=True):
        shown = set(labels.unique().tolist()) - {255}
        pasted = set(labels[mask].tolist())
        assert len(pasted) == math.ceil(len(shown) / 2)
        assert pasted <= shown
        # A class is pasted whole or not at all.
        assert all((labels[mask] == c).sum() == (labels == c).sum() for c in pasted)


def test_every_set_is_equally_likely() -> None:
    labels = torch.arange(4).reshape(1, 2, 2)
    images = torch.zeros(1, 1, 2, 2)
    many = labels.expand(3000, 2, 2), images.expand(3000, 1, 2, 2)
    mix = class_mix(many[1], many[0], many[1], many[0], num_classes=4, generator=seeded(0))
    code = (mix.mask.flatten(1) * torch.tensor([1, 2, 4, 8])).sum(dim=1)
    numbers = [(code == (1 << a) + (1 << b)).sum().item() for a, b in combinations(range(4), 2)]
    assert sum(numbers) == 3000
    assert all(420 < number < 580 for number in numbers)


def test_released_candidates_are_those_of_the_batch() -> None:
    labels = torch.tensor([[[0, 0], [1, 2]], [[3, 3], [255, 4]]])
    images = torch.zeros(2, 1, 2, 2)
    shown_less, ignored_pasted = 0, 0
    for seed in range(40):
        mix = class_mix(
            images + 1, labels, images, labels,
            num_classes=5, candidates="batch", generator=seeded(seed),
        )  # fmt: skip
        # Three of the six values 0, 1, 2, 3, 4 and 255 are drawn for each image.
        first, second = labels[0][mix.mask[0]], labels[1][mix.mask[1]]
        shown_less += int(len(first.unique()) < 2)
        ignored_pasted += int((second == 255).any())
    assert 0 < shown_less < 40
    assert 0 < ignored_pasted < 40


def test_given_classes_are_pasted() -> None:
    call = scene(0, 4)
    things = torch.tensor([False, False, True, True])
    mix = class_mix(*call, num_classes=4, classes=things)
    assert_mixed(call, mix)
    assert torch.equal(mix.mask, (call[1] == 2) | (call[1] == 3))
    rows = torch.tensor([[True, False, False, False], [False] * 4, [True] * 4])
    mix = class_mix(*call, num_classes=4, classes=rows)
    assert torch.equal(mix.mask[0], call[1][0] == 0)
    assert not mix.mask[1].any()
    assert torch.equal(mix.mask[2], call[1][2] != 255)


def test_a_seed_repeats_the_drawing_and_another_changes_it() -> None:
    call = scene(3, 6)
    masks = [
        class_mix(*call, num_classes=6, generator=seeded(seed)).mask for seed in (1, 1, 2, 3, 4)
    ]
    assert torch.equal(masks[0], masks[1])
    assert any(not torch.equal(masks[0], other) for other in masks[2:])
    torch.manual_seed(5)
    one = class_mix(*call, num_classes=6).mask
    torch.manual_seed(5)
    assert torch.equal(class_mix(*call, num_classes=6).mask, one)


def test_an_unlabelled_image_is_the_target() -> None:
    images, labels, others, other_labels = scene(0, 4)
    mix = class_mix(images, torch.full_like(labels, 255), others, other_labels, num_classes=4)
    assert not mix.mask.any()
    assert torch.equal(mix.images, others)


@pytest.mark.parametrize(("dtype", "ignore_index"), [(torch.uint8, 255), (torch.int16, -100)])
def test_dtypes_and_ignore_values(dtype: torch.dtype, ignore_index: int) -> None:
    images, _, others, _ = scene(0, 3)
    labels = label_map(0, (3, 6, 5), 3, "mixed", dtype, ignore_index)
    whole = torch.ones(3, dtype=torch.bool)
    mix = class_mix(
        (images * 9).to(torch.uint8), labels, (others * 9).to(torch.uint8), labels,
        num_classes=3, classes=whole, ignore_index=ignore_index,
    )  # fmt: skip
    assert mix.images.dtype == torch.uint8
    assert torch.equal(mix.mask, labels != ignore_index)


def test_gradients_reach_both_images() -> None:
    images, labels, others, other_labels = scene(0, 4)
    leaves = images.requires_grad_(), others.requires_grad_()
    mix = class_mix(images, labels, others, other_labels, num_classes=4)
    first, second = torch.autograd.grad(mix.images.sum(), leaves)
    assert torch.equal(first.bool(), mix.mask[:, None].expand_as(first))
    assert torch.equal(second.bool(), ~mix.mask[:, None].expand_as(second))


def test_compiled() -> None:
    call = scene(0, 4)
    traced = torch.compile(class_mix, fullgraph=True, dynamic=True, backend="aot_eager")
    for some in (call, tuple(value[..., 1:] for value in call)):
        assert_mixed(some, traced(*some, num_classes=4))
