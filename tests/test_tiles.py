"""Several tiles, which the tests of any call of an operator have: their sizes, sums and order."""

import pytest
import torch

from protocontrast import class_prototypes, pixel_prototype_contrast
from tests.agreement import assert_agrees, contrast_scales
from tests.small_tiles import count_tiles, small_tiles
from tests.strategies import ContrastCase, laid_out, normal

pytestmark = pytest.mark.usefixtures("eager")

# 76 channels and 4232 pixels: two tiles of the real size.
REAL = (2, 76, 46, 92)


def test_the_tiles_of_these_tests_are_several() -> None:
    assert count_tiles((1, 4, 64)) == 1
    with small_tiles():
        assert [count_tiles((1, 4, pixels)) for pixels in (0, 1, 64, 65, 193)] == [0, 1, 1, 2, 4]
    assert count_tiles((1, 4, 193)) == 1
    assert count_tiles((REAL[0], REAL[1], REAL[2] * REAL[3])) == 4


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_tiles_of_the_real_size(layout: str) -> None:
    case = ContrastCase(0, REAL, 19, layout=layout, spoilt=float("nan"))
    call = {**case.tensors(), **case.settings}
    scales = contrast_scales(call, case.settings, 0)
    assert_agrees(pixel_prototype_contrast, call, ["features", "prototypes"], scales=scales)
    clean = laid_out(normal(0, REAL, torch.float32), layout)
    means = {"features": clean, "labels": call["labels"], "num_classes": 19}
    assert_agrees(class_prototypes, means, ["features"], scales={"value": 10.0, "features": 1.0})


@pytest.mark.parametrize("per_image", [False, True])
@pytest.mark.parametrize("classes", [3, 150])
def test_pixels_that_lie_as_rows(classes: int, per_image: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 6, 14, 15, generator=generator)
    labels = torch.randint(0, classes, (2, 14, 15), generator=generator, dtype=torch.int32)
    labels[torch.rand(labels.shape, generator=generator) < 0.3] = 255
    features = torch.where((labels == 255)[:, None], torch.nan, features)
    features[0, :, 0, 0], labels[0, 0, 0] = torch.inf, 1
    upstream = torch.randn(2 if per_image else 1, classes, 6, generator=generator)
    found = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        leaf = features.contiguous(memory_format=memory_format).requires_grad_()
        means = class_prototypes(leaf, labels, classes, per_image=per_image, backend="eager")
        loss = (means.mean.reshape(upstream.shape) * upstream)[:, 2:].sum()
        (gradient,) = torch.autograd.grad(loss, leaf)
        assert gradient.is_contiguous(memory_format=memory_format)
        found.append((means.mean, means.count, gradient))
    torch.testing.assert_close(found[0], found[1], equal_nan=True)
    mean = found[1][0].reshape(-1, classes, 6)
    assert bool((mean[0, 1] == torch.inf).all())
    assert bool(torch.isfinite(mean[0, torch.arange(classes) != 1]).all())
