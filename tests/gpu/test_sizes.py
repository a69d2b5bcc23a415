"""Sizes that fill the chip, elements beyond 2^31, and the memory that calls take."""

import pytest
import torch
from torch import Tensor

import protocontrast as pc
from tests.agreement import similarity_scales
from tests.gpu.scenes import IGNORE_INDEX, Scene, make
from tests.tolerance import assert_within

LAYOUTS = ("NCHW", "channels_last")
SHAPES = [(8, 76, 128, 256), (8, 256, 128, 256), (4, 720, 128, 256), (2, 2048, 128, 256)]
MANY_CLASSES = [150, 190, 255]
FAR = 2**31
SOME = 1000
"""Pixels at either end of a far map that are looked at."""


def enough_memory(needed: int) -> None:
    free, _ = torch.cuda.mem_get_info()
    if free < needed:
        pytest.skip(f"expected {needed / 2**30:.0f} GiB of free device memory, got less")


def on_rows(given: Scene, dtype: torch.dtype) -> dict[str, list[Tensor]]:
    """Loss, means, confidence and gradients by the specification in `dtype`."""
    wide = Scene(
        given.features.detach().to(dtype).requires_grad_(),
        given.labels,
        given.prototypes.detach().to(dtype).requires_grad_(),
    )
    return results(wide, "naive")


def results(given: Scene, backend: str) -> dict[str, list[Tensor]]:
    """Results and gradients of a backend by name."""
    # The specification may use what torch has no deterministic form of.
    torch.use_deterministic_algorithms(backend == "triton")
    loss = pc.pixel_prototype_contrast(*given, backend=backend)
    to_loss = torch.autograd.grad(loss, (given.features, given.prototypes))
    classes = len(given.prototypes)
    stats = pc.class_prototypes(given.features, given.labels, classes, backend=backend)
    signs = torch.linspace(-1, 1, stats.mean.numel(), device="cuda", dtype=stats.mean.dtype)
    (to_means,) = torch.autograd.grad(stats.mean, given.features, signs.reshape(stats.mean.shape))
    found = pc.transfer_labels(given.features, given.prototypes, backend=backend)
    return {
        "value": [loss.detach()],
        "features": [to_loss[0]],
        "prototypes": [to_loss[1]],
        "means": [stats.mean.detach(), stats.count, to_means],
        "confidence": [found.confidence],
    }


def assert_scene_agrees(given: Scene) -> None:
    # The specification in float64 holds about a dozen copies.
    enough_memory(12 * 8 * given.features.numel())
    valid = (given.labels != IGNORE_INDEX).flatten()
    slope = 2.0 * valid.double() / valid.sum()
    call = {"features": given.features.detach(), "prototypes": given.prototypes.detach()}
    scales = similarity_scales(call, slope, "cosine", 0.1)
    scales |= {"value": 25.0, "means": 5.0, "confidence": 10.0}
    ours = results(given, "triton")
    plain = results(given, "naive")
    truth = on_rows(given, torch.float64)
    for name, scale in scales.items():
        for triple in zip(ours[name], plain[name], truth[name], strict=True):
            assert_within(*triple, scale=scale, name=name)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_sizes_that_fill_the_chip(
    shape: tuple[int, int, int, int], dtype: torch.dtype, layout: str
) -> None:
    assert_scene_agrees(make(shape, 19, dtype, layout=layout))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("classes", MANY_CLASSES)
def test_many_classes(classes: int, dtype: torch.dtype) -> None:
    assert_scene_agrees(make((2, 256, 160, 160), classes, dtype))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_more_elements_than_an_int32_counts(layout: str) -> None:
    """More tiles than 65535 too, the most that a grid's other axes have."""
    channels = 240
    side = 3008
    assert channels * side * side > FAR
    enough_memory(4 * 2 * channels * side * side)
    far = make((1, channels, side, side), 19, torch.bfloat16, layout=layout)
    weight = torch.zeros(1, side, side, device="cuda")
    weight.view(-1)[:SOME] = weight.view(-1)[-SOME:] = 1
    loss = pc.pixel_prototype_contrast(
        far.features, far.labels, far.prototypes, pixel_weight=weight, reduction="none"
    )
    ends = [slice(0, SOME), slice(side * side - SOME, None)]
    (gradient,) = torch.autograd.grad(loss.sum(), far.features)
    found = pc.transfer_labels(far.features.detach(), far.prototypes.detach())
    flat, labels = far.features.detach().flatten(2), far.labels.flatten(1)
    for end in ends:
        near = flat[..., end].clone(memory_format=torch.contiguous_format).requires_grad_()
        expected = pc.pixel_prototype_contrast(
            near, labels[:, end], far.prototypes, reduction="none"
        )
        torch.testing.assert_close(loss.detach().flatten(1)[:, end], expected.detach())
        (to_near,) = torch.autograd.grad(expected.sum(), near)
        torch.testing.assert_close(gradient.flatten(2)[..., end], to_near)
        again = pc.transfer_labels(near.detach(), far.prototypes.detach())
        torch.testing.assert_close(found.confidence.flatten(1)[:, end], again.confidence)
    del gradient, loss
    stats = pc.class_prototypes(
        far.features.detach(), far.labels, 19, pixel_weight=weight, normalize=True
    )
    rows = torch.cat([flat[..., end] for end in ends], dim=2)
    picked = torch.cat([labels[:, end] for end in ends], dim=1)
    expected = pc.class_prototypes(rows, picked, 19, normalize=True)
    torch.testing.assert_close(stats.mean, expected.mean)
    assert torch.equal(stats.count, expected.count)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_a_call_and_its_backward_take_little_more_than_the_gradient(dtype: torch.dtype) -> None:
    given = make((8, 256, 128, 256), 19, dtype)

    def peak() -> int:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        loss = pc.pixel_prototype_contrast(*given)
        torch.autograd.grad(loss, (given.features, given.prototypes))
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before

    peak()
    gradient = given.features.numel() * given.features.element_size()
    assert gradient <= peak() <= 1.1 * gradient
