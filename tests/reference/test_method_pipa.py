"""PiPa says what its release computes: both contrasts, where the views come from, and when."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from reference.methods import pipa
from reference.methods.pipa import PiPa, View, two_crops, two_views
from reference.networks.output import Output
from tests.reference.given_outputs import assert_same
from tests.reference.method_steps import given, step_of, toy
from tests.test_pair_contrast import released_by_pipa

TAU = 0.1


@pytest.mark.parametrize("ignored", [255, 3])
def test_the_pixel_term_is_the_released_one(ignored: int) -> None:
    """Of so few pixels that all are drawn; one class more where what has no label is one."""
    network = toy(dim=16)
    method, step = PiPa(given(network), ignored=ignored), step_of(network, 0)
    step = replace(step, source=step.source._replace(labels=step.source_labels.clone()))
    step.source_labels[:, :, :4] = 255
    ours = method(step).terms["pixel_contrast"]
    rows = method.pixel_head(network(step.source.images).features).movedim(1, -1).flatten(0, 2)
    labels = step.source_labels[:, ::4, ::4]
    labels = torch.where(labels == 255, ignored, labels)
    # Every class gives all of its pixels: at most 100 of an image, at least 2.
    assert all(2 <= int(n) <= 100 for y in labels for n in y.unique(return_counts=True)[1])
    known = labels.flatten() != 255
    expected = 0.1 * released_by_pipa(rows[known], labels.flatten()[known])
    leaves = [*method.pixel_head.parameters(), network.fuse.weight]
    assert_same(ours, expected, leaves, 1e-3, 1e-6)


def some_views() -> tuple[PiPa, View, View]:
    """Two views of 40 cells, of which each misses some, and a bank that is not full."""
    random = torch.Generator().manual_seed(0)
    views = []
    for hidden in (slice(0, 8), slice(30, 40)):
        rows = F.normalize(torch.randn(40, 8, generator=random, dtype=torch.float64), dim=1)
        # 0.8 to 1: many are below the threshold.
        sure = 0.8 + 0.2 * torch.rand(40, generator=random, dtype=torch.float64)
        classes = torch.randint(3, (40,), generator=random)
        rows[hidden], sure[hidden], classes[hidden] = 0, 0, 255
        views.append(View(rows.requires_grad_(), sure, classes))
    method = PiPa(given(toy()))
    keys = F.normalize(torch.randn(60, 8, generator=random), dim=1)
    classes = torch.randint(3, (60,), generator=random)
    method.keys.push(keys, torch.zeros_like(classes))
    method.classes.push(classes[:, None].float(), torch.zeros_like(classes))
    return method, views[0], views[1]


def released_patches(method: PiPa, view: View, other: View) -> Tensor:
    """The release's loss of one direction, cell by cell; the other view and the bank are fixed."""
    bank = F.normalize(method.keys.keys[0, :60].double(), dim=1)
    classes, losses = method.classes.keys[0, :60, 0], []
    for i in range(40):
        if view.sure[i] == 0 or other.sure[i] <= 0.9 or other.sure[i] <= view.sure[i]:
            continue
        positive = (view.rows[i] @ other.rows[i].detach() / TAU).exp()
        rivals = (bank[classes != view.classes[i]] @ view.rows[i] / TAU).exp().sum()
        losses.append(-(positive / (positive + rivals)).log())
    assert 5 < len(losses) < 25
    return torch.stack(losses).mean()


def test_the_patch_term_is_the_released_one_and_0_without_a_sure_pixel() -> None:
    method, one, other = some_views()
    for view, key in ((one, other), (other, one)):
        # The library normalises what is of unit length already.
        units = view._replace(rows=F.normalize(view.rows))
        expected = released_patches(method, units, key)
        assert_same(method.patches(view, key), expected, (view.rows, key.rows), 1e-8)
    method.sure = 1.0
    nothing = method.patches(one, other)
    assert nothing == 0
    assert not torch.autograd.grad(nothing, one.rows)[0].any()


def test_the_patch_term_starts_at_a_quarter_of_the_run() -> None:
    network = toy()
    method = PiPa(given(network))
    assert "patch_contrast" not in method(step_of(network, 9, steps=40)).terms
    assert not method.keys.read().valid.any()
    assert "patch_contrast" in method(step_of(network, 10, steps=40)).terms
    assert method.keys.read().valid.any()


@pytest.mark.parametrize("released", [False, True])
def test_patches_train_the_network_or_as_released_a_head_alone(released: bool) -> None:
    network = toy()
    method = PiPa(given(network), teacher_views=released)
    # Whatever the confidence: some step's crops differ.
    method.sure = 0.0
    for index in range(10, 14):
        method(step_of(network, index, steps=40)).terms["patch_contrast"].backward()
    assert method.patch_head[0].weight.grad.any()
    assert (network.fuse.weight.grad is None) == released


def test_the_bank_holds_the_pixels_of_three_steps_with_their_classes(monkeypatch):
    monkeypatch.setattr(pipa, "KEPT", 4)
    network = toy(19)
    method, numbers = PiPa(given(network)), iter(range(1000))

    def views(*_: object, **__: object) -> tuple[View, View]:
        """Six cells each, two of them outside, whose class and step stand in their row."""
        made = []
        for number in (next(numbers), next(numbers)):
            classes = torch.tensor([0, 3, 7, 18, 255, 255])
            rows = torch.zeros(6, 8)
            rows[:, 0], rows[:, 1] = classes.float(), float(number)
            made.append(View(rows, torch.zeros(6), classes))
        return made[0], made[1]

    monkeypatch.setattr(pipa, "two_views", views)
    for _ in range(5):
        method(step_of(network, 3))
    keys, _, held = method.keys.read()
    assert held.all() and len(keys) == 24
    assert torch.equal(keys[:, 0], method.classes.read().keys[:, 0])
    assert keys[:, 1].unique().tolist() == [4, 5, 6, 7, 8, 9]


@pytest.mark.parametrize(("size", "stride", "starts"), [
    ((32, 64), 4, {(8 * y, 8 * x) for y in range(2) for x in range(3)}),
    # Sides that no stride divides, and one that is shorter than a crop's.
    ((73, 13), 8, {(8 * y, 0) for y in range(3)}),
    ((70, 64), 16, {(16 * y, 16 * x) for y in range(1) for x in range(2)}),
])  # fmt: skip
def test_views_lie_on_the_grid_of_the_whole_images(size, stride, starts):
    """A network that looks at the first pixel of a cell sees the same in both crops."""
    random = torch.Generator().manual_seed(1)
    images = torch.rand(2, 3, *size, generator=random)

    def see(shown: Tensor) -> Output:
        first = shown[..., ::stride, ::stride]
        return Output(20 * first, first)

    whole: Any = see(images)
    grid, rows = whole.logits.shape[-2:], whole.features.movedim(1, -1).flatten(0, 2)
    sure, classes = (x.flatten() for x in whole.logits.softmax(dim=1).max(dim=1))
    for _ in range(5):
        both = torch.ones(len(rows), dtype=torch.bool)
        for view in two_views(see, torch.nn.Identity(), images, random, grid=grid, stride=stride):
            inside = view.sure > 0
            torch.testing.assert_close(view.rows[inside], rows[inside])
            torch.testing.assert_close(view.sure[inside], sure[inside])
            assert torch.equal(view.classes[inside], classes[inside])
            assert not view.rows[~inside].any() and view.classes[~inside].eq(255).all()
            both &= inside
        assert int(both.sum()) >= len(rows) // 4
    multiple = max(8, stride)
    crops = [crop for _ in range(50) for crop in two_crops(images.shape[-2:], random, multiple)]
    assert {(rows.start, columns.start) for rows, columns in crops} == starts
