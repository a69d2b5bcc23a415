"""Volumes whose labels are finer than their features: upsampling, and the whole method."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck

from protocontrast import (
    BiCL,
    UpsampledCrossEntropyLoss,
    bidirectional_contrast,
    labels_to_grid,
    pixel_prototype_contrast,
    upsampled_cross_entropy,
)
from tests.strategies import NAN, label_map, laid_out, layouts, normal, seeds


def test_contrast_on_counts_is_contrast_of_nearest_upsampled_features() -> None:
    features, prototypes = normal(0, (2, 5, 2, 3, 2)), normal(1, (3, 5))
    labels = label_map(2, (2, 5, 7, 4), 3)
    counts = labels_to_grid(labels, (2, 3, 2), mode="counts", num_classes=3)
    fine = F.interpolate(features.float(), size=labels.shape[1:], mode="nearest").double()
    ours = pixel_prototype_contrast(features.float().double(), counts, prototypes)
    torch.testing.assert_close(ours, pixel_prototype_contrast(fine, labels, prototypes))


SCENE: dict[str, Any] = {"shape": (2, 3, 2, 3, 2), "size": (5, 4, 7)}


def composed(logits: Tensor, labels: Tensor, align_corners: bool, **settings: Any) -> Tensor:
    upsampled = F.interpolate(
        logits, labels.shape[1:], mode="trilinear", align_corners=align_corners
    )
    return F.cross_entropy(upsampled, labels.long(), **settings)


@pytest.mark.parametrize("backend", ["eager", "naive"])
@given(
    seed=seeds,
    sides=st.tuples(*[st.integers(1, 7)] * 3),
    more=st.tuples(*[st.one_of(st.just(0), st.integers(0, 9))] * 3),
    align_corners=st.booleans(),
    reduction=st.sampled_from(["mean", "sum", "none"]),
    layout=layouts,
    weighted=st.booleans(),
)
def test_upsampling_is_trilinear(
    backend: Any,
    seed: int,
    sides: tuple[int, int, int],
    more: tuple[int, int, int],
    align_corners: bool,
    reduction: Any,
    layout: str,
    weighted: bool,
) -> None:
    size = [side + extra for side, extra in zip(sides, more, strict=True)]
    labels = label_map(seed, (2, *size), 3, "mixed")
    labels[0, 0, 0, 0] = 1
    weight = torch.tensor([0.5, 1.0, 2.0]).double() if weighted else None
    leaf = laid_out(normal(seed, (2, 3, *sides)), layout).requires_grad_()
    ours = upsampled_cross_entropy(
        leaf, labels, class_weight=weight, align_corners=align_corners, reduction=reduction,
        backend=backend,
    )  # fmt: skip
    theirs = composed(
        leaf, labels, align_corners, weight=weight, ignore_index=255, reduction=reduction
    )
    torch.testing.assert_close(ours, theirs)
    found, expected = (torch.autograd.grad(loss.square().sum(), leaf)[0] for loss in (ours, theirs))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_are_stretched_in_float32(dtype: torch.dtype) -> None:
    logits = normal(0, SCENE["shape"], dtype).requires_grad_()
    labels = label_map(1, (2, *SCENE["size"]), 3)
    wide = logits.detach().double().requires_grad_()
    ours = upsampled_cross_entropy(logits, labels)
    truth = composed(wide, labels, False, ignore_index=255)
    torch.testing.assert_close(ours.double(), truth, rtol=1e-5, atol=1e-6)
    gradient = torch.autograd.grad(ours, logits)[0]
    assert gradient.dtype == dtype
    expected = torch.autograd.grad(truth, wide)[0].to(dtype)
    torch.testing.assert_close(gradient, expected, rtol=2e-2, atol=1e-5)


def test_what_no_labelled_pixel_reads_may_be_anything() -> None:
    logits = normal(0, (1, 3, 4, 2, 2), torch.float32)
    labels = torch.ones(1, 4, 2, 2, dtype=torch.int64)
    labels[:, 3] = 255
    spoilt = logits.clone()
    spoilt[:, :, 3] = NAN
    leaf = spoilt.requires_grad_()
    loss = upsampled_cross_entropy(leaf, labels)
    torch.testing.assert_close(loss, F.cross_entropy(logits[:, :, :3], labels[:, :3]))
    assert torch.autograd.grad(loss, leaf)[0].isfinite().all()


@pytest.mark.parametrize("backend", ["eager", "naive"])
@pytest.mark.parametrize("align_corners", [False, True])
def test_a_class_that_is_not_there_carries_no_mass(align_corners: bool, backend: Any) -> None:
    logits, labels = normal(0, SCENE["shape"]), label_map(1, (2, *SCENE["size"]), 2)
    absent = logits.clone()
    absent[:, 2] = -torch.inf
    settings: dict[str, Any] = {"align_corners": align_corners, "backend": backend}
    found, expected = [], []
    for leaf, results in ((absent, found), (logits[:, :2].clone(), expected)):
        loss = upsampled_cross_entropy(leaf.requires_grad_(), labels, **settings)
        results += [loss, torch.autograd.grad(loss, leaf)[0][:, :2]]
        assert torch.isfinite(loss)
    torch.testing.assert_close(found, expected)


def test_gradcheck_of_upsampling() -> None:
    leaf, labels = normal(0, (1, 3, 2, 2, 3)).requires_grad_(), label_map(1, (1, 4, 3, 5), 3)
    for reduction in ("mean", "none"):
        assert gradcheck(
            lambda logits, reduction=reduction: upsampled_cross_entropy(
                logits, labels, reduction=reduction
            ),
            leaf,
            check_batched_grad=True,
        )


def test_a_second_derivative_of_upsampling_is_refused() -> None:
    leaf, labels = normal(0, (1, 3, 2, 2, 3)).requires_grad_(), label_map(1, (1, 4, 3, 5), 3)
    loss = upsampled_cross_entropy(leaf, labels, reduction="none").square().sum()
    (gradient,) = torch.autograd.grad(loss, leaf, create_graph=True)
    with pytest.raises(RuntimeError, match="double backward"):
        gradient.sum().backward()


def test_upsampling_compiles_and_maps_over_a_batch() -> None:
    logits, labels = normal(0, (3, 1, 3, 2, 2, 3)), label_map(1, (3, 1, 4, 3, 5), 3)

    def gradient(one: Tensor, label: Tensor) -> Tensor:
        return torch.func.grad(lambda z: upsampled_cross_entropy(z, label))(one)

    expected = torch.stack([gradient(*pair) for pair in zip(logits, labels, strict=True)])
    torch.testing.assert_close(torch.func.vmap(gradient)(logits, labels), expected)
    compiled = torch.compile(
        upsampled_cross_entropy, fullgraph=True, backend="aot_eager", dynamic=True
    )
    leaf = logits[0].clone().requires_grad_()
    found = torch.autograd.grad(compiled(leaf, labels[0]), leaf)[0]
    torch.testing.assert_close(found, expected[0])


def test_the_module_checks_volumes() -> None:
    logits, labels = normal(0, SCENE["shape"]), label_map(1, (2, *SCENE["size"]), 3)
    settings: dict[str, Any] = {"align_corners": True, "reduction": "none"}
    found = UpsampledCrossEntropyLoss(**settings, validate=True)(logits, labels)
    assert torch.equal(found, upsampled_cross_entropy(logits, labels, **settings))


def domains() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Two domains of volumes 3 x 2 x 4, their labels twice as high and three times as wide."""
    source, target = normal(0, (2, 2, 5, 3, 2, 4), torch.float32)
    labels = label_map(1, (2, 2, 3, 2, 4), 3)
    fine = labels.repeat_interleave(2, dim=3).repeat_interleave(3, dim=4)
    fine[..., 0] = 255
    return source, fine[0], target, fine[1]


def as_maps(*volumes: Tensor) -> tuple[Tensor, ...]:
    """The slices below each other; where the labels' height is a multiple, cells stay the same."""
    return tuple(volume.flatten(-3, -2) for volume in volumes)


@pytest.mark.parametrize("pairwise", [False, True])
def test_both_directions_with_labels_at_image_resolution(pairwise: bool) -> None:
    volumes = domains()
    found = bidirectional_contrast(*volumes, num_classes=3, pairwise=pairwise)
    expected = bidirectional_contrast(*as_maps(*volumes), num_classes=3, pairwise=pairwise)
    torch.testing.assert_close(found, expected)
    deeper = [v if i % 2 == 0 else v.repeat_interleave(2, dim=1) for i, v in enumerate(volumes)]
    again = bidirectional_contrast(*deeper, num_classes=3, pairwise=pairwise)
    torch.testing.assert_close(again, expected)


@pytest.mark.parametrize("settings", [{}, {"prototypes": "batch"}, {"bank_update": "after"}])
@pytest.mark.parametrize("fine", [False, True])
def test_a_step_of_the_method(settings: Any, fine: bool) -> None:
    source, source_labels, target, target_labels = domains()
    if not fine:
        source_labels, target_labels = source_labels[..., ::2, ::3], target_labels[..., ::2, 1::3]
    volumes = source.requires_grad_(), source_labels, target.requires_grad_(), target_labels
    results = []
    for step in (volumes, as_maps(*volumes)):
        bicl = BiCL(3, 5, threshold=0.4, **settings)
        for _ in range(2):
            out = bicl(*step)
        gradients = torch.autograd.grad(out.loss, (source, target))
        results.append((out, gradients, dict(bicl.named_buffers())))
    ours, theirs = results
    assert ours[0].loss > 0
    assert ours[0].target_labels.shape == (2, 3, 2, 4)
    assert torch.equal(ours[0].target_labels.flatten(1, 2), theirs[0].target_labels)
    torch.testing.assert_close(
        ours[0]._replace(target_labels=None), theirs[0]._replace(target_labels=None)
    )
    torch.testing.assert_close(ours[1:], theirs[1:])
