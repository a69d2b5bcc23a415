"""PiPa says what its release computes: both contrasts, where the views come from, and when."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from reference.data.arrays import ArrayDomain
from reference.data.classes import NUM_CLASSES
from reference.data.transforms import batch
from reference.methods import pipa
from reference.methods.crops import View, two_crops, two_views
from reference.methods.pipa import PiPa
from reference.networks.output import Output
from reference.networks.toy import SegmentationNetwork, build_network
from reference.training.method import Start, Step
from tests.reference.test_stages import blocks

TAU = 0.1
SOURCE = blocks(6)
TARGET = ArrayDomain(blocks(5, shade=0.6, seed=1).images, None, ("",) * 5)


def step_of(network: SegmentationNetwork, index: int, steps: int = 4) -> Step:
    source, target = batch(SOURCE, 0, index, 2), batch(TARGET, 0, index, 2, stream=1)
    return Step(
        network=network, source=source, target=target, index=index, steps=steps, round_index=0,
        starts_round=False, seed=0, full_resolution=False, target_images=TARGET.images,
    )  # fmt: skip


def begun(**released: Any) -> tuple[PiPa, SegmentationNetwork]:
    network = build_network(seed=0, stem_width=8, near_width=8, far_width=8, dilations=(1,))
    method = PiPa(network.feature_dim, **released)
    method.begin(Start(network, SOURCE, TARGET.images, 0))
    return method, network


def released_pixels(rows: Tensor, labels: Tensor) -> Tensor:
    """The release's loss of all rows (N, D) as anchors, by masks over all pairs."""
    exponentials = (rows @ rows.t() / TAU).exp()
    same = labels[:, None] == labels
    positive = same & ~torch.eye(len(labels), dtype=torch.bool)
    rivals = (exponentials * ~same).sum(dim=1, keepdim=True)
    logs = (exponentials / (exponentials + rivals)).log()
    return -(TAU / 0.07) * ((positive * logs).sum(dim=1) / positive.sum(dim=1)).mean()


def with_unlabelled(step: Step) -> Step:
    """The step with a column of cells that have no label."""
    labels = step.image_labels.clone()
    labels[:, :, :4] = 255
    return replace(step, source=replace(step.source, labels=labels))


@pytest.mark.parametrize("ignored", [255, NUM_CLASSES])
def test_the_pixel_term_is_the_released_one(ignored: int) -> None:
    """Of so few pixels that all are drawn; one class more where what has no label is one."""
    method, network = begun(ignored=ignored)
    step = with_unlabelled(step_of(network, 0))
    found = method(step).losses["pixel_contrast"]
    rows = method.pixel_head(network(step.source.images).features).movedim(1, -1).flatten(0, 2)
    labels = torch.where(step.source_labels == 255, ignored, step.source_labels).flatten()
    assert all(
        int(n) >= 2 for image in labels.view(2, -1) for n in image.unique(return_counts=True)[1]
    )
    known = labels != 255
    expected = 0.1 * released_pixels(rows[known], labels[known])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)
    leaves = [*method.pixel_head.parameters(), network.fuse.weight]
    for ours, theirs in zip(
        torch.autograd.grad(found, leaves), torch.autograd.grad(expected, leaves), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6)
        assert bool((theirs.abs() > 1e-5).any())


def some_views(seed: int = 0) -> tuple[PiPa, View, View]:
    """Two views of 40 cells, of which each misses some, and a bank that is not full."""
    random = torch.Generator().manual_seed(seed)
    views = []
    for hidden in (slice(0, 8), slice(30, 40)):
        rows = F.normalize(torch.randn(40, 8, generator=random, dtype=torch.float64), dim=1)
        # 0.8 to 1: many are below the threshold.
        sure = 0.8 + 0.2 * torch.rand(40, generator=random, dtype=torch.float64)
        classes = torch.randint(3, (40,), generator=random)
        rows[hidden], sure[hidden], classes[hidden] = 0, 0, 255
        views.append(View(rows.requires_grad_(), sure, classes))
    method = PiPa(8)
    keys = F.normalize(torch.randn(60, 8, generator=random), dim=1)
    classes = torch.randint(3, (60,), generator=random)
    method.keys.push(keys, torch.zeros_like(classes))
    method.classes.push(classes[:, None].float(), torch.zeros_like(classes))
    return method, views[0], views[1]


def released_patches(method: PiPa, view: View, other: View) -> Tensor:
    """The release's loss of one direction, cell by cell; the other view and the bank are fixed."""
    bank = F.normalize(method.keys.keys[0, :60].double(), dim=1)
    classes = method.classes.keys[0, :60, 0]
    losses = []
    for i in range(40):
        if view.sure[i] == 0 or other.sure[i] <= 0.9 or other.sure[i] <= view.sure[i]:
            continue
        positive = (view.rows[i] @ other.rows[i].detach() / TAU).exp()
        rivals = (bank[classes != view.classes[i]] @ view.rows[i] / TAU).exp().sum()
        losses.append(-(positive / (positive + rivals)).log())
    assert 5 < len(losses) < 25
    return torch.stack(losses).mean()


def test_the_patch_term_is_the_released_one() -> None:
    method, one, other = some_views()
    for view, key in ((one, other), (other, one)):
        found, expected = method.patches(view, key), released_patches(method, view, key)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)
        (ours,), (theirs,) = (torch.autograd.grad(loss, view.rows) for loss in (found, expected))
        # The library normalises what is of unit length already, which takes the part along it away.
        rows = view.rows.detach()
        theirs = theirs - rows * (theirs * rows).sum(dim=1, keepdim=True)
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-12)
        assert float(theirs.abs().max()) > 0.01
        assert torch.autograd.grad(method.patches(view, key), key.rows, allow_unused=True) == (
            None,
        )


def test_without_a_sure_pixel_there_is_no_patch_term() -> None:
    method, network = begun()
    assert "patch_contrast" not in method(step_of(network, 1)).losses
    _, one, other = some_views()
    method.sure = 1.0
    nothing = method.patches(one, other)
    assert float(nothing.detach()) == 0
    assert not torch.autograd.grad(nothing, one.rows)[0].any()


def patch_term(method: PiPa, network: SegmentationNetwork) -> Tensor:
    """The first that some step has, whatever the confidence; its two crops must differ."""
    method.sure = 0.0
    for index in range(10, 30):
        losses = method(step_of(network, index, steps=40)).losses
        if "patch_contrast" in losses:
            return losses["patch_contrast"]
    pytest.fail("no step has a patch term")


def test_the_patch_term_starts_at_a_quarter_of_the_run() -> None:
    method, network = begun()
    for index in range(10):
        method(step_of(network, index, steps=40))
    assert not method.keys.read().valid.any()
    method(step_of(network, 10, steps=40))
    assert method.keys.read().valid.any()


def test_patches_train_the_network_or_as_released_a_head_alone() -> None:
    for released in (False, True):
        method, network = begun(teacher_views=released)
        patch_term(method, network).backward()
        assert all(
            p.grad is not None and bool(p.grad.any()) for p in (method.patch_head[0].weight,)
        )
        assert (network.fuse.weight.grad is None) == released


def test_the_bank_holds_the_pixels_of_three_steps_with_their_classes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pipa, "KEPT", 4)
    method, network = begun()
    width, drawn = network.feature_dim, iter(range(1000))

    def views(*_: object) -> tuple[View, View]:
        """Six cells each, two of them outside, whose class and step stand in their row."""
        made = []
        for number in (next(drawn), next(drawn)):
            classes = torch.tensor([0, 3, 7, 18, 255, 255])
            rows = torch.zeros(6, width)
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


def test_views_lie_on_the_grid_of_the_whole_images() -> None:
    """A network that looks at single cells sees the same in both crops."""
    images = torch.rand(2, 3, 32, 64, generator=torch.Generator().manual_seed(0))

    def network(shown: Tensor) -> Output:
        means = F.avg_pool2d(shown, 4)
        return Output(20 * means, means)

    whole = network(images)
    random = torch.Generator().manual_seed(1)
    for _ in range(5):
        both = torch.ones(2 * 8 * 16, dtype=torch.bool)
        for view in two_views(network, torch.nn.Identity(), images, random):
            inside = view.sure > 0
            assert int(inside.sum()) == 2 * 6 * 12
            rows = whole.features.movedim(1, -1).flatten(0, 2)
            sure, classes = (x.flatten() for x in whole.logits.softmax(dim=1).max(dim=1))
            torch.testing.assert_close(view.rows[inside], rows[inside])
            torch.testing.assert_close(view.sure[inside], sure[inside])
            assert torch.equal(view.classes[inside], classes[inside])
            assert not view.rows[~inside].any() and view.classes[~inside].eq(255).all()
            both &= inside
        assert int(both.sum()) >= 2 * 4 * 8
    starts = {
        (rows.start, columns.start)
        for _ in range(50)
        for rows, columns in two_crops(images.shape[-2:], random)
    }
    assert starts == {(8 * y, 8 * x) for y in range(2) for x in range(3)}
