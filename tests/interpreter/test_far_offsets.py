"""Offsets beyond 2^31 elements, in a sparse file of which a few pages exist."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

import protocontrast as pc
from tests.strategies import label_map, normal

FAR = 2**31


@pytest.fixture(params=["image", "channel", "pixel"])
def far(request: pytest.FixtureRequest, tmp_path: Path) -> Tensor:
    """Features (2, 5, 8) in bfloat16 whose last image, channel or pixel lies beyond 2^31."""
    strides = {
        "image": (FAR + 64, 8, 1),
        "channel": (8, FAR // 4 + 64, 1),
        "pixel": (40, 1, FAR // 7 + 64),
    }[request.param]
    size = 1 + sum((n - 1) * stride for n, stride in zip((2, 5, 8), strides, strict=True))
    assert size > FAR
    storage = torch.from_file(
        str(tmp_path / "sparse"), shared=True, size=size, dtype=torch.bfloat16
    )
    return storage.as_strided((2, 5, 8), strides).copy_(normal(0, (2, 5, 8)))


def test_every_operator_reads_far_features(far: Tensor) -> None:
    near, labels = far.contiguous(), label_map(1, (2, 8), 3)
    prototypes = normal(2, (3, 5), torch.float32)

    def results(features: Tensor) -> list[Tensor]:
        leaf = features.detach().requires_grad_()
        rows = prototypes.clone().requires_grad_()
        loss = pc.pixel_prototype_contrast(leaf, labels, rows, backend="triton")
        stats = pc.class_prototypes(leaf, labels, 3, normalize=True, backend="triton")
        logits = pc.prototype_logits(leaf, rows, backend="triton")
        total = loss + stats.mean.square().sum() + logits.square().sum()
        found = pc.transfer_labels(features, prototypes, backend="triton")
        return [total, *torch.autograd.grad(total, (leaf, rows)), *found]

    for ours, expected in zip(results(far), results(near), strict=True):
        assert torch.equal(ours, expected)
