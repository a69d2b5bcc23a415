"""Volumes: every function of pixels gives what it gives for the same pixels as one long row."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.export import export
from torch.utils._pytree import tree_flatten

import protocontrast as pc
from tests.strategies import laid_out, normal

SPACE = (3, 2, 5)
PIXELS = 30
LAYOUTS = ["contiguous", "channels_last", "strided"]


class Scene(NamedTuple):
    """Two volumes of four channels, three classes, some pixels ignored, or their long rows."""

    features: Tensor
    labels: Tensor
    weight: Tensor
    logits: Tensor
    counts: Tensor

    @property
    def rows(self) -> "Scene":
        """The same pixels as (B, D, P) and (B, P)."""
        start = {"labels": 1, "weight": 1}
        return Scene(*(v.flatten(start.get(k, 2)) for k, v in self._asdict().items()))


def scene(layout: str = "contiguous", dtype: torch.dtype = torch.float32) -> Scene:
    labels = torch.arange(2 * PIXELS).mul(7).remainder(4).reshape(2, *SPACE)
    labels = torch.where(labels == 3, 255, labels)
    volumes = Scene(
        normal(0, (2, 4, *SPACE), dtype),
        labels,
        normal(1, (2, *SPACE), dtype).abs(),
        normal(2, (2, 3, *SPACE), dtype),
        torch.nn.functional.one_hot(labels.clamp_max(2), 3).movedim(-1, 1).to(dtype) * 2.5,
    )
    return Scene(*(laid_out(value, layout) for value in volumes))


PROTOTYPES = normal(3, (3, 4), torch.float32)
SUBCLASSES = normal(4, (3, 2, 4), torch.float32)
VARIANCE = normal(5, (3, 4), torch.float32).square()


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def shares(s: Scene) -> Tensor:
    return s.logits.softmax(dim=1)


def bank_of(s: Scene, **settings: Any) -> Any:
    bank = pc.PrototypeBank(3, 4, **settings)
    bank.update(s.features, s.labels, pixel_weight=s.weight)
    return dict(bank.named_buffers())


def queue_of(s: Scene) -> Any:
    queue = pc.ClassQueue(3, 4, 4)
    queue.push(s.features, s.labels, per_class=3)
    return queue.read()


def thresholds_of(s: Scene) -> Any:
    thresholds = pc.ClassThresholds(3, image_share=0.2)
    thresholds.update(shares(s))
    return thresholds.thresholds(), thresholds.select(shares(s))


def balance_of(s: Scene) -> Any:
    balance = pc.LogitBalance(3, 2, pixels=4)
    balance.update(s.logits, s.labels)
    return balance.delta(s.logits, s.labels), balance(s.logits, s.labels)


def mixed(s: Scene) -> Any:
    other = s.features.flip(0), s.labels.flip(0)
    return pc.class_mix(s.features, s.labels, *other, num_classes=3, generator=seeded())


def both_ways(s: Scene, **settings: Any) -> Any:
    other = s.features.flip(0), s.labels.flip(0)
    return pc.bidirectional_contrast(s.features, s.labels, *other, num_classes=3, **settings)


def both_ways_as_a_module(s: Scene) -> Any:
    return pc.BidirectionalContrastLoss(3, validate=True)(
        s.features, s.labels, s.features.flip(0), s.labels.flip(0)
    )


CALLS: dict[str, Callable[[Scene], Any]] = {
    "pixel_prototype_contrast": lambda s: [
        pc.pixel_prototype_contrast(
            s.features, labels, PROTOTYPES, pixel_weight=s.weight, reduction=reduction
        )
        for reduction in ("mean", "none")
        for labels in (s.labels, s.counts)
    ],
    "PixelPrototypeContrastLoss": lambda s: pc.PixelPrototypeContrastLoss(
        reduction="none", validate=True
    )(s.features, s.labels, PROTOTYPES),
    "distribution_contrast": lambda s: [
        pc.distribution_contrast(s.features, labels, PROTOTYPES, VARIANCE, reduction="none")
        for labels in (s.labels, s.counts)
    ],
    "prototype_logits": lambda s: pc.prototype_logits(s.features, PROTOTYPES),
    "prototype_pull": lambda s: pc.prototype_pull(
        s.features, s.labels, PROTOTYPES, pixel_weight=s.weight, reduction="none"
    ),
    "spread": lambda s: pc.spread(s.features, s.labels, PROTOTYPES, toward="uniform"),
    "class_prototypes": lambda s: [
        pc.class_prototypes(s.features, s.labels, 3, pixel_weight=s.weight, per_image=per_image)
        for per_image in (False, True)
    ],
    "class_statistics": lambda s: pc.class_statistics(s.features, s.labels, 3, normalize=True),
    "transfer_labels": lambda s: pc.transfer_labels(s.features, PROTOTYPES, threshold=0.5),
    "assign_subclasses": lambda s: pc.assign_subclasses(s.features, s.labels, SUBCLASSES),
    "subclass_max": lambda s: pc.subclass_max(s.features, 2),
    "bidirectional_contrast": lambda s: [
        both_ways(s, **settings)
        for settings in ({}, {"pairwise": False}, {"balance": "class"})
    ],
    "BidirectionalContrastLoss": both_ways_as_a_module,
    "entropy": lambda s: pc.entropy(s.logits, pixel_weight=s.weight, reduction="none"),
    "mrkld": lambda s: pc.mrkld(s.logits, pixel_weight=s.weight, reduction="none"),
    "similarity_kl": lambda s: pc.similarity_kl(
        s.logits, s.logits.flip(1), pixel_weight=s.weight, reduction="none"
    ),
    "symmetric_cross_entropy": lambda s: pc.symmetric_cross_entropy(
        s.logits, s.labels, pixel_weight=s.weight, reduction="none"
    ),
    "rectify": lambda s: pc.rectify(shares(s), shares(s).flip(1)),
    "select_labels": lambda s: pc.select_labels(shares(s), 0.6, image_share=0.2),
    "confident_share": lambda s: pc.confident_share(shares(s), 0.6, per_image=True),
    "sinkhorn": lambda s: pc.sinkhorn(s.logits, pixel_weight=s.weight),
    "sample_pixels": lambda s: [
        pc.sample_pixels(s.labels, 12, generator=seeded()),
        pc.sample_pixels(
            s.labels, 12, mode="hard_easy", num_classes=3, predictions=s.labels.flip(0),
            min_pixels=1, generator=seeded(),
        ),
    ],
    "class_mix": lambda s: mixed(s) if s.features.dim() == 5 else mixed(flat_maps(s)),
    "fuse_labels": lambda s: pc.fuse_labels(s.labels, s.labels.flip(0)),
    "check_labels": lambda s: pc.check_labels(s.labels, 3),
    "PrototypeBank": lambda s: [bank_of(s), bank_of(s, variance=True)],
    "ClassQueue": queue_of,
    "ClassThresholds": thresholds_of,
    "LogitBalance": balance_of,
}  # fmt: skip
NOT_OF_PIXELS = {
    "BiCLOutput", "BidirectionalContrast", "ClassMix", "ClassPrototypes", "ClassStatistics",
    "DomainBias", "QueuedKeys", "SampledPixels", "TransferredLabels", "backends",
    "default_backend", "frequency_weights",
}  # fmt: skip
ROWS_ALONE = {"pair_contrast", "PairContrastLoss"}
"""They take (A, D) and say how a map or a volume becomes that."""
BY_THEMSELVES = {"BiCL", "UpsampledCrossEntropyLoss", "labels_to_grid", "upsampled_cross_entropy"}
"""Which axes their pixels lie along matters; tested below and in test_volume_grids.py."""
WITHOUT_GRADIENT = {
    "class_statistics", "transfer_labels", "assign_subclasses", "select_labels",
    "confident_share", "sinkhorn", "sample_pixels", "fuse_labels", "check_labels",
    "PrototypeBank", "ClassQueue", "ClassThresholds",
}  # fmt: skip


def flat_maps(s: Scene) -> Scene:
    """Maps of one row: images have no long rows."""
    return Scene(*(value.unsqueeze(-2) for value in s))


def tensors(result: Any) -> list[Tensor]:
    return [one for one in tree_flatten(result)[0] if isinstance(one, Tensor)]


def assert_same_pixels(volume: Any, rows: Any) -> None:
    """Equal numbers, and (Z, H, W) where the others have P."""
    for ours, theirs in zip(tensors(volume), tensors(rows), strict=True):
        shape = tuple(theirs.shape)
        if shape[-1:] == (PIXELS,):
            kept = shape[:-2] if shape[-2:-1] == (1,) else shape[:-1]
            shape = (*kept, *SPACE)
        assert tuple(ours.shape) == shape
        # Where the rows had to be copied, tiles and so sums may be others.
        torch.testing.assert_close(ours.reshape(theirs.shape), theirs, rtol=1e-5, atol=1e-6)


def test_every_public_name_is_here() -> None:
    named = set(CALLS) | NOT_OF_PIXELS | ROWS_ALONE | BY_THEMSELVES
    assert named == set(pc.__all__)
    assert set(CALLS) >= WITHOUT_GRADIENT


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", CALLS)
def test_a_volume_is_its_pixels(name: str, layout: str) -> None:
    assert_same_pixels(CALLS[name](scene(layout)), CALLS[name](scene().rows))


@pytest.mark.parametrize("name", [name for name in CALLS if name not in WITHOUT_GRADIENT])
def test_gradients_of_a_volume_are_those_of_its_pixels(name: str) -> None:
    found = []
    for layout, flat in (("channels_last", False), ("contiguous", True)):
        given = scene(layout)
        leaves = given.features.requires_grad_(), given.logits.requires_grad_()
        results = tensors(CALLS[name](given.rows if flat else given))
        total = sum(one.double().sum() * (place + 1) for place, one in enumerate(results))
        found.append(torch.autograd.grad(total, leaves, allow_unused=True))
        assert any(gradient is not None for gradient in found[-1])
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_a_volume_is_read_in_place(layout: str) -> None:
    features = scene(layout).features
    pointers = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None):
            result = func(*args, **(kwargs or {}))
            if func is torch.ops.protocontrast.contrast.default:
                pointers.append(args[0].data_ptr())
            return result

    with Watch():
        pc.pixel_prototype_contrast(features, scene().labels, PROTOTYPES)
    assert pointers == [features.data_ptr()]


class Contrast(torch.nn.Module):
    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        grid = pc.labels_to_grid(labels, features.shape[2:], num_classes=3)
        means = pc.class_prototypes(features, grid, 3)
        return pc.pixel_prototype_contrast(features, grid, means.mean, reduction="none")


@pytest.mark.parametrize("how", ["compile", "export"])
def test_traced(how: str) -> None:
    features = scene().features.requires_grad_()
    labels = scene().labels.repeat_interleave(2, dim=1).repeat_interleave(3, dim=3)
    module = Contrast()
    expected = module(features, labels)
    if how == "compile":
        traced: Any = torch.compile(module, fullgraph=True, backend="aot_eager")
    else:
        traced = export(module, (features, labels), strict=False).module()
    found = traced(features, labels)
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad(loss.sum(), features)[0] for loss in (found, expected)]
    torch.testing.assert_close(*gradients)


def test_rows_of_a_volume_as_the_hint_has_them() -> None:
    with pytest.raises(ValueError, match=r"features\.movedim\(1, -1\)\.flatten\(0, -2\)") as caught:
        pc.pair_contrast(scene().features, scene().labels, scene().features, scene().labels)
    hint = str(caught.value).partition(" are rows as ")[2].rstrip(".")
    rows = eval(hint, {"features": scene().features})
    labels = scene().labels.flatten()
    assert pc.pair_contrast(rows, labels, rows, labels, exclude_self=True) > 0
