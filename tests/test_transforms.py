"""`torch.func` goes through every function: grad, vmap, jacrev; forward mode raises."""

import re

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

import protocontrast as pc
from tests.differentiable import CALLS, ONE_OF_EACH, READS_PROTOTYPES, scene

pytestmark = pytest.mark.usefixtures("eager")


def weighted_sum(value: Tensor) -> Tensor:
    """One number that every element of the result reaches with a weight of its own."""
    weight = torch.linspace(0.5, 1.5, value.numel(), dtype=value.dtype)
    return (value * weight.reshape(value.shape)).sum()


@pytest.mark.parametrize("name", CALLS)
def test_grad_with_value(name: str) -> None:
    features, labels, prototypes = scene()
    wanted = (0, 1) if name in READS_PROTOTYPES else (0,)

    def loss(f: Tensor, p: Tensor) -> Tensor:
        return weighted_sum(CALLS[name](f, labels, p))

    both, value = torch.func.grad_and_value(loss, argnums=wanted)(features, prototypes)
    leaves = features.clone().requires_grad_(), prototypes.clone().requires_grad_()
    expected = torch.autograd.grad(loss(*leaves), [leaves[place] for place in wanted])
    torch.testing.assert_close(value, loss(features, prototypes))
    torch.testing.assert_close(both, expected)


@pytest.mark.parametrize("name", CALLS)
def test_jacrev(name: str) -> None:
    features, labels, prototypes = scene()
    got = torch.func.jacrev(lambda f: CALLS[name](f, labels, prototypes))(features)
    rows = torch.autograd.functional.jacobian(
        lambda f: CALLS[name](f, labels, prototypes), features
    )
    torch.testing.assert_close(got, rows)


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_vmap_of_a_call_and_of_its_gradient(name: str) -> None:
    _, labels, prototypes = scene()
    batch = torch.stack([scene(seed=seed).features for seed in range(3)])

    def call(f: Tensor) -> Tensor:
        return CALLS[name](f, labels, prototypes)

    for one in (call, torch.func.grad(lambda f: weighted_sum(call(f)))):
        expected = torch.stack([one(features) for features in batch])
        torch.testing.assert_close(torch.func.vmap(one)(batch), expected)


@pytest.mark.parametrize("backend", ["naive", "auto"])
def test_vmap_over_an_empty_dimension_is_refused_in_one_sentence(backend: str) -> None:
    features, labels, prototypes = scene()
    told = "pixel_prototype_contrast: expected {} with an element at least along the dimension of "
    told += "vmap, got shape {}. Hint: leave out empty batches."

    def call(f: Tensor, y: Tensor) -> Tensor:
        return pc.pixel_prototype_contrast(f, y, prototypes, backend=backend)

    none, shape = features.new_empty(0, *features.shape), (0, *features.shape)
    for one in (call, torch.func.grad(call)):
        with pytest.raises(ValueError, match=re.escape(told.format("features", shape))):
            torch.func.vmap(one)(none, labels.expand(0, *labels.shape))
    with pytest.raises(ValueError, match=re.escape(told.format("labels", (0, *labels.shape)))):
        torch.func.vmap(call, in_dims=(None, 0))(features, labels.expand(0, *labels.shape))
    assert torch.func.vmap(call)(features[None], labels[None]).shape == (1,)


def test_vmap_over_labels_and_prototypes_too() -> None:
    scenes = [scene(seed=seed) for seed in range(3)]
    stacked = [torch.stack(parts) for parts in zip(*scenes, strict=True)]
    stacked[1] = torch.stack([scenes[0].labels.roll(shift, 1) for shift in range(3)])
    per_scene = torch.func.grad(pc.pixel_prototype_contrast, argnums=2)

    def one(f: Tensor, y: Tensor, p: Tensor) -> Tensor:
        return per_scene(f, y, p)

    expected = torch.stack([one(*parts) for parts in zip(*stacked, strict=True)])
    torch.testing.assert_close(torch.func.vmap(one)(*stacked), expected)


def test_vmap_of_transfer_and_grid() -> None:
    _, _, prototypes = scene()
    batch = torch.stack([scene(seed=seed).features for seed in range(3)])
    labels = torch.func.vmap(lambda f: pc.transfer_labels(f, prototypes, threshold=0.5).labels)
    expected = [pc.transfer_labels(one, prototypes, threshold=0.5).labels for one in batch]
    assert torch.equal(labels(batch), torch.stack(expected))
    maps = torch.arange(2 * 3 * 4 * 4).reshape(2, 3, 4, 4) % 3
    counted = torch.func.vmap(lambda m: pc.labels_to_grid(m, (2, 2), mode="counts", num_classes=3))
    expected = [pc.labels_to_grid(m, (2, 2), mode="counts", num_classes=3) for m in maps]
    assert torch.equal(counted(maps), torch.stack(expected))


@pytest.mark.parametrize("name", CALLS)
def test_forward_mode_raises(name: str) -> None:
    features, labels, prototypes = scene()
    with pytest.raises(NotImplementedError, match="forward mode AD"):
        torch.func.jvp(lambda f: CALLS[name](f, labels, prototypes), (features,), (features,))
    if name in READS_PROTOTYPES:
        with pytest.raises(NotImplementedError, match="forward mode AD"):
            torch.func.jvp(lambda p: CALLS[name](features, labels, p), (prototypes,), (prototypes,))
    for recorded in (False, True):
        leaf = features.detach().requires_grad_(recorded)
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(leaf, torch.ones_like(features))
            with pytest.raises(NotImplementedError, match="forward mode AD"):
                CALLS[name](dual, labels, prototypes)


def test_naive_has_a_forward_mode() -> None:
    features, labels, prototypes = scene()
    direction = torch.linspace(-1, 1, features.numel(), dtype=features.dtype).reshape(2, 4, 6)
    _, slope = torch.func.jvp(
        lambda f: pc.pixel_prototype_contrast(f, labels, prototypes, backend="naive"),
        (features,),
        (direction,),
    )
    leaf = features.requires_grad_()
    loss = pc.pixel_prototype_contrast(leaf, labels, prototypes)
    (gradient,) = torch.autograd.grad(loss, leaf)
    torch.testing.assert_close(slope, (gradient * direction).sum())
