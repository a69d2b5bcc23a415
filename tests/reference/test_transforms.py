"""Batches follow from (seed, stream, iteration, slot) alone; augmentation never moves pixels."""

import random

import numpy as np
import pytest
import torch
from reference.data.arrays import ArrayDomain
from reference.data.transforms import Augmentation, augment, batch, matching, to_float

HEIGHT, WIDTH, COUNT = 6, 8, 12


@pytest.fixture(scope="module")
def domain() -> ArrayDomain:
    """Images and labels in which every pixel tells which image and which column it is."""
    columns = torch.arange(WIDTH, dtype=torch.uint8).expand(HEIGHT, WIDTH)
    labels = torch.stack([columns + 10 * i for i in range(COUNT)])
    images = labels[:, None].expand(COUNT, 3, HEIGHT, WIDTH).contiguous()
    return ArrayDomain(images, labels, tuple(f"{i}" for i in range(COUNT)))


def _choices(domain: ArrayDomain, *args: int, **kwargs: int) -> list[tuple[int, bool]]:
    drawn = batch(domain, *args, **kwargs)
    return list(zip(drawn.indices.tolist(), drawn.flipped.tolist(), strict=True))


def test_the_same_key_gives_the_same_batch(domain: ArrayDomain) -> None:
    first = batch(domain, 3, 17, 4, augmentation=Augmentation())
    again = batch(domain, 3, 17, 4, augmentation=Augmentation())
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.indices, again.indices)


def test_global_random_state_is_neither_read_nor_changed(domain: ArrayDomain) -> None:
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    before = (torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate())
    first = batch(domain, 0, 0, 4, augmentation=Augmentation())
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()
    assert random.getstate() == before[2]
    torch.manual_seed(2)
    np.random.seed(2)
    random.seed(2)
    again = batch(domain, 0, 0, 4, augmentation=Augmentation())
    assert torch.equal(first.images, again.images)


def test_order_of_iterations_does_not_matter(domain: ArrayDomain) -> None:
    forwards = [_choices(domain, 0, step, 3) for step in range(5)]
    backwards = [_choices(domain, 0, step, 3) for step in reversed(range(5))]
    assert forwards == backwards[::-1]


def test_a_smaller_batch_is_the_start_of_a_larger_one(domain: ArrayDomain) -> None:
    assert _choices(domain, 0, 9, 8)[:3] == _choices(domain, 0, 9, 3)


@pytest.mark.parametrize("change", ["seed", "stream", "iteration"])
def test_every_part_of_the_key_counts(domain: ArrayDomain, change: str) -> None:
    key = {"seed": 0, "stream": 0, "iteration": 0}
    plain = _choices(domain, key["seed"], key["iteration"], 16, stream=key["stream"])
    key[change] = 1
    other = _choices(domain, key["seed"], key["iteration"], 16, stream=key["stream"])
    assert plain != other


def test_slots_differ_and_all_images_and_both_directions_occur(domain: ArrayDomain) -> None:
    drawn = batch(domain, 0, 0, 400)
    assert sorted(set(drawn.indices.tolist())) == list(range(COUNT))
    share = drawn.flipped.float().mean().item()
    assert 0.4 < share < 0.6


def test_images_and_labels_are_mirrored_together(domain: ArrayDomain) -> None:
    drawn = batch(domain, 0, 1, 16)
    assert drawn.flipped.any() and not drawn.flipped.all()
    assert drawn.labels is not None
    for slot, (index, flipped) in enumerate(_choices(domain, 0, 1, 16)):
        row = (
            (10 * index + torch.arange(WIDTH)).flip(0) if flipped else 10 * index + torch.arange(8)
        )
        assert torch.equal(drawn.labels[slot, 0], row)
        assert torch.equal(drawn.images[slot, 2, 0] * 255, row.float())


def test_types_and_range(domain: ArrayDomain) -> None:
    drawn = batch(domain, 0, 0, 2)
    assert drawn.images.dtype == torch.float32 and drawn.images.shape == (2, 3, HEIGHT, WIDTH)
    assert drawn.labels is not None and drawn.labels.dtype == torch.int64
    extremes = to_float(torch.tensor([0, 255], dtype=torch.uint8))
    assert extremes.tolist() == [0.0, 1.0]


def test_a_domain_without_labels_gives_none(domain: ArrayDomain) -> None:
    blind = ArrayDomain(domain.images, None, domain.stems)
    drawn, seen = batch(blind, 0, 0, 4), batch(domain, 0, 0, 4)
    assert drawn.labels is None
    assert torch.equal(drawn.images, seen.images)


def test_matching_takes_and_mirrors_stored_maps(domain: ArrayDomain) -> None:
    assert domain.labels is not None
    drawn = batch(domain, 0, 2, 8)
    assert torch.equal(matching(domain.labels, drawn).long(), drawn.labels)


def test_augmentation_changes_colours_but_not_the_choice(domain: ArrayDomain) -> None:
    plain = batch(domain, 0, 3, 6)
    changed = batch(domain, 0, 3, 6, augmentation=Augmentation())
    assert torch.equal(plain.indices, changed.indices)
    assert torch.equal(plain.flipped, changed.flipped)
    assert torch.equal(plain.labels, changed.labels)
    assert not torch.equal(plain.images, changed.images)
    assert changed.images.min() >= 0.0 and changed.images.max() <= 1.0


NEUTRAL = Augmentation(0.0, (1.0, 1.0), 0.0, (1.0, 1.0), 0.0, 0.0, 0.0)


def test_neutral_augmentation_leaves_an_image_as_it_is() -> None:
    image = torch.rand(3, 9, 11, generator=torch.Generator().manual_seed(0))
    same = augment(image, NEUTRAL, np.random.default_rng(0))
    torch.testing.assert_close(same, image, rtol=0, atol=1e-6)


def test_blur_keeps_a_flat_image_and_widens_a_dot() -> None:
    strong = Augmentation(0.0, (1.0, 1.0), 0.0, (1.0, 1.0), 0.0, 1.2, 0.0)
    dot = torch.zeros(3, 15, 15)
    dot[:, 7, 7] = 1.0
    spread = [augment(dot, strong, np.random.default_rng(seed)) for seed in range(8)]
    kept = [torch.equal(image, dot) for image in spread]
    assert any(kept) and not all(kept)
    for image in spread:
        torch.testing.assert_close(image.sum(), dot.sum(), rtol=1e-4, atol=1e-4)
        assert image[0, 7, 7] == image.max()
        flat = augment(torch.full((3, 9, 9), 0.4), strong, np.random.default_rng(3))
        torch.testing.assert_close(flat, torch.full((3, 9, 9), 0.4))


def test_augmentation_does_not_write_to_its_input() -> None:
    image = torch.rand(3, 9, 11, generator=torch.Generator().manual_seed(0))
    copy = image.clone()
    augment(image, Augmentation(), np.random.default_rng(0))
    assert torch.equal(image, copy)


def test_bad_batch_size_is_refused(domain: ArrayDomain) -> None:
    with pytest.raises(ValueError) as caught:
        batch(domain, 0, 0, 0)
    assert str(caught.value) == "batch: expected batch_size of at least 1, got 0."


def test_empty_domain_is_refused() -> None:
    empty = ArrayDomain(torch.zeros(0, 3, 4, 4, dtype=torch.uint8), None, ())
    with pytest.raises(ValueError) as caught:
        batch(empty, 0, 0, 1)
    assert str(caught.value) == "batch: expected a domain of at least 1 image, got 0."
