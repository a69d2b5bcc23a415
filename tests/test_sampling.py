"""`sample_pixels`: how many of which kind, by loops; all equally likely; repeated by a seed."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from protocontrast import SampledPixels, pixel_prototype_contrast, sample_pixels
from tests.strategies import label_map, normal, seeds


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def assert_drawn(sample: SampledPixels, labels: Tensor, number: int, filled: int) -> Tensor:
    """Places of one size, no pixel twice, right labels, empty places last; the drawn positions."""
    assert sample.positions.shape == sample.labels.shape == (number,)
    assert sample.positions.dtype == sample.labels.dtype == torch.int64
    used = sample.labels != 255
    assert used.sum() == filled
    assert used[:filled].all()
    drawn = sample.positions[used]
    assert len(drawn.unique()) == filled
    assert torch.equal(sample.labels[used], labels.flatten()[drawn].long())
    assert not sample.positions[~used].any()
    return drawn


@given(seed=seeds, number=st.integers(1, 40), draw=seeds, shape=st.sampled_from([(24,), (2, 3, 4)]))
def test_random(seed: int, number: int, draw: int, shape: tuple[int, ...]) -> None:
    labels = label_map(seed, shape, 4, "mixed", torch.uint8)
    sample = sample_pixels(labels, number, generator=seeded(draw))
    assert_drawn(sample, labels, number, min(number, int((labels != 255).sum())))


def test_every_pixel_is_equally_likely() -> None:
    labels = torch.tensor([0, 255, 1, 2, 0, 255, 1])
    hits = torch.zeros(7)
    generator = seeded(0)
    for _ in range(1500):
        hits[sample_pixels(labels, 2, generator=generator).positions] += 1
    assert hits[[1, 5]].sum() == 0
    assert (hits[labels != 255] - 600).abs().max() < 90


def released_numbers(hard: int, easy: int, views: int) -> tuple[int, int]:
    """Hard and easy anchors of one class, with the three cases of ContrastiveSeg and PiPa."""
    if hard >= views / 2 and easy >= views / 2:
        return views // 2, views - views // 2
    if hard >= views / 2:
        return views - easy, easy
    return hard, views - hard


def by_class(labels: Tensor, predictions: Tensor, **settings: int) -> dict[tuple[int, int], Any]:
    """(image, class) -> numbers of hard and easy pixels that must be drawn."""
    sizes = {}
    for b, image in enumerate(labels):
        for c in range(4):
            here = image == c
            wrong = int((here & (predictions[b] != c)).sum())
            if here.sum() >= settings["min_pixels"]:
                sizes[b, c] = wrong, int(here.sum()) - wrong
    views = min(settings["number"] // max(len(sizes), 1), settings["per_class"])
    expected = {}
    for key, (hard, easy) in sizes.items():
        most = min(views, hard + easy)
        expected[key] = released_numbers(hard, easy, most)
    return expected


@given(
    seed=seeds,
    number=st.integers(1, 60),
    per_class=st.integers(1, 9),
    min_pixels=st.integers(1, 9),
    right=st.sampled_from([0.0, 0.2, 0.8, 1.0]),
)
def test_hard_and_easy_by_loops(
    seed: int, number: int, per_class: int, min_pixels: int, right: float
) -> None:
    labels = label_map(seed, (2, 6, 5), 4)
    guessed = torch.rand(labels.shape, generator=seeded(seed)) < right
    predictions = torch.where(guessed, labels, (labels + 1) % 4)
    sizes = {"number": number, "per_class": per_class, "min_pixels": min_pixels}
    sample = sample_pixels(
        labels,
        mode="hard_easy",
        num_classes=4,
        predictions=predictions,
        generator=seeded(seed),
        **sizes,
    )
    expected = by_class(labels, predictions, **sizes)
    filled = sum(hard + easy for hard, easy in expected.values())
    drawn = assert_drawn(sample, labels, number, filled)
    image, found = drawn // 30, labels.flatten()[drawn]
    wrong = predictions.flatten()[drawn] != found
    for (b, c), (hard, easy) in expected.items():
        group = (image == b) & (found == c)
        assert (group & wrong).sum() == hard
        assert (group & ~wrong).sum() == easy


@given(seed=seeds, number=st.integers(8, 60), per_class=st.integers(1, 9))
def test_as_many_of_every_class(seed: int, number: int, per_class: int) -> None:
    labels = label_map(seed, (2, 6, 5), 4)
    sample = sample_pixels(
        labels, number, mode="per_class", num_classes=4, per_class=per_class, min_pixels=1
    )
    sizes = [(image == c).sum().item() for image in labels for c in range(4) if (image == c).any()]
    share = min(per_class, number // len(sizes))
    drawn = assert_drawn(sample, labels, number, sum(min(share, size) for size in sizes))
    numbers = torch.bincount(drawn // 30 * 4 + labels.flatten()[drawn], minlength=8)
    assert sorted(numbers[numbers > 0].tolist()) == sorted(min(share, size) for size in sizes)


def test_hard_pixels_are_drawn_by_chance() -> None:
    labels = torch.zeros(1, 20, dtype=torch.int64)
    predictions = (torch.arange(20) < 10).long()[None]
    hits = torch.zeros(20)
    generator = seeded(0)
    for _ in range(500):
        sample = sample_pixels(
            labels, 8, mode="hard_easy", num_classes=1, predictions=predictions, min_pixels=1,
            generator=generator,
        )  # fmt: skip
        hits[sample.positions] += 1
    assert (hits - 200).abs().max() < 60


def test_pixels_given_as_rows_are_one_image() -> None:
    labels = torch.tensor([0] * 6 + [1] * 6)
    sample = sample_pixels(labels, 4, mode="per_class", num_classes=2, min_pixels=1)
    assert sorted(sample.labels.tolist()) == [0, 0, 1, 1]
    halves = sample_pixels(labels.view(2, 6), 4, mode="per_class", num_classes=2, min_pixels=1)
    assert sorted(halves.labels.tolist()) == [0, 0, 1, 1]


def test_more_classes_than_places_give_nothing() -> None:
    labels = torch.arange(6)[None]
    sample = sample_pixels(labels, 5, mode="per_class", num_classes=6, min_pixels=1)
    assert (sample.labels == 255).all()


@pytest.mark.parametrize("mode", ["random", "per_class", "hard_easy"])
def test_a_seed_repeats_the_drawing(mode: Any) -> None:
    labels = label_map(0, (2, 9, 9), 3)
    call = {
        "mode": mode, "num_classes": 3, "predictions": label_map(1, (2, 9, 9), 3, "full"),
        "min_pixels": 1, "per_class": 4,
    }  # fmt: skip
    first, again, other = (
        sample_pixels(labels, 20, generator=seeded(seed), **call).positions for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_drawn_rows_go_into_a_contrast() -> None:
    features = normal(0, (2, 5, 4, 3)).requires_grad_()
    labels, prototypes = label_map(1, (2, 4, 3), 3), normal(2, (3, 5))
    sample = sample_pixels(labels, 100)
    rows = features.movedim(1, -1).flatten(0, -2)[sample.positions]
    found = pixel_prototype_contrast(rows, sample.labels, prototypes)
    expected = pixel_prototype_contrast(features, labels, prototypes)
    torch.testing.assert_close(found, expected)
    gradients = [
        torch.autograd.grad(loss, features, retain_graph=True) for loss in (found, expected)
    ]
    torch.testing.assert_close(*gradients)


def test_a_small_grid_of_many_classes_gives_no_pixel_by_default() -> None:
    labels = (torch.arange(2 * 24 * 24) % 19).reshape(2, 24, 24)
    rows, prototypes = normal(0, (50, 5)), normal(1, (19, 5))
    for fewest, share in ((100, 0), (20, 1)):
        sample = sample_pixels(labels, 50, mode="per_class", num_classes=19, min_pixels=fewest)
        assert ((sample.labels != 255).sum() > 0) == share
        assert (pixel_prototype_contrast(rows, sample.labels, prototypes) > 0) == share


@pytest.mark.parametrize("mode", ["random", "per_class", "hard_easy"])
def test_compiled(mode: Any) -> None:
    labels = label_map(0, (2, 6, 5), 3)

    def draw(labels: Tensor) -> tuple[Tensor, Tensor]:
        return sample_pixels(
            labels, 9, mode=mode, num_classes=3, predictions=labels, min_pixels=1, per_class=1
        )

    traced = torch.compile(draw, fullgraph=True, dynamic=True, backend="aot_eager")
    for some in (labels, label_map(1, (2, 7, 6), 3)):
        assert_drawn(SampledPixels(*traced(some)), some, 9, 9 if mode == "random" else 6)
