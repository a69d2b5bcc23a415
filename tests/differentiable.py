"""Every differentiable public call on one small scene, for the tests of torch's contracts."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

import protocontrast as pc
from tests.target_passes import target_pass

SIMILARITIES = ("cosine", "dot", "euclidean")


class Scene(NamedTuple):
    """Two images of four channels and six pixels, three classes, some pixels ignored."""

    features: Tensor
    labels: Tensor
    prototypes: Tensor


def scene(dtype: torch.dtype = torch.float64, seed: int = 0) -> Scene:
    """The same numbers for the same seed, in any dtype."""
    random = torch.Generator().manual_seed(seed)
    features = torch.randn(2, 4, 6, generator=random, dtype=torch.float64).to(dtype)
    prototypes = torch.randn(3, 4, generator=random, dtype=torch.float64).to(dtype)
    labels = torch.tensor([[0, 1, 2, 255, 1, 0], [2, 2, 0, 1, 255, 255]])
    return Scene(features, labels, prototypes)


def soft_labels(labels: Tensor, classes: int = 3) -> Tensor:
    """Class counts (B, C, P) that add up differently per pixel; all-zero rows where ignored."""
    hard = torch.nn.functional.one_hot(labels.clamp(max=classes - 1), classes).double()
    spread = 2 * hard + 0.5 * hard.roll(1, dims=2)
    return torch.where(labels[..., None] == 255, 0, spread).transpose(1, 2)


Function = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From features, labels and prototypes to something with a gradient."""


def _contrast(features: Tensor, labels: Tensor, prototypes: Tensor, **settings: object) -> Tensor:
    return pc.pixel_prototype_contrast(features, labels, prototypes, **settings)


def _soft(features: Tensor, labels: Tensor, prototypes: Tensor, **settings: object) -> Tensor:
    return pc.pixel_prototype_contrast(
        features, soft_labels(labels, len(prototypes)), prototypes, **settings
    )


def _weighted(features: Tensor, labels: Tensor, prototypes: Tensor, **settings: object) -> Tensor:
    weight = torch.arange(labels.numel(), device=labels.device).reshape(labels.shape) / 6
    class_weight = torch.tensor([0.5, 0.0, 2.0], device=labels.device)
    return pc.pixel_prototype_contrast(
        features, labels, prototypes, class_weight=class_weight, pixel_weight=weight, **settings
    )


def _logits(features: Tensor, labels: Tensor, prototypes: Tensor, **settings: object) -> Tensor:
    return pc.prototype_logits(features, prototypes, **settings)


def _means(features: Tensor, labels: Tensor, prototypes: Tensor, **settings: object) -> Tensor:
    return pc.class_prototypes(features, labels, len(prototypes), **settings).mean


def _bidirectional(
    features: Tensor, labels: Tensor, prototypes: Tensor, **settings: object
) -> Tensor:
    fixed = (torch.arange(features.numel(), device=features.device) * 0.7).sin()
    other = fixed.reshape(features.shape).to(features.dtype)
    domains = features, labels, other, labels.flip(0)
    return pc.bidirectional_contrast(*domains, num_classes=len(prototypes), **settings).loss


def _directions(features: Tensor, labels: Tensor, prototypes: Tensor, **settings: object) -> Tensor:
    """Both directions between whole batches, each with a gradient of its own."""
    domains = features, labels, features.flip(0, 2).square(), labels.roll(1, 1)
    settings = {"num_classes": len(prototypes), "pairwise": False, **settings}
    found = pc.bidirectional_contrast(*domains, **settings)
    return torch.stack([found.target_to_source, found.source_to_target])


def _passed(features: Tensor, labels: Tensor, prototypes: Tensor, **settings: object) -> Tensor:
    """The losses of a target pass, which transfers labels to the pixels without one."""
    present = torch.ones_like(prototypes[:, 0], dtype=torch.bool)
    settings = {"counted": present, "present": present, "threshold": 0.4, **settings}
    return target_pass(features, prototypes, static=labels, **settings).losses


def _pairs(features: Tensor, labels: Tensor, prototypes: Tensor, **settings: object) -> Tensor:
    """Pixels of one image against those of the other and the prototypes."""
    keys = torch.cat([prototypes, features[0].t()])
    key_labels = torch.cat([torch.arange(len(prototypes), device=labels.device), labels[0]])
    return pc.pair_contrast(features[-1].t(), labels[-1], keys, key_labels, **settings)


def _opposed(features: Tensor, labels: Tensor, prototypes: Tensor, **settings: object) -> Tensor:
    """Pixels of one image pulled together and pushed from prototypes of other classes."""
    rows, own = features[0].t(), labels[0]
    return pc.pair_contrast(
        rows, own, rows, own, negatives=prototypes, exclude_self=True,
        negative_labels=torch.arange(len(prototypes), device=labels.device),
        anchor_weight=torch.arange(1, len(own) + 1, device=labels.device) / 4, **settings,
    )  # fmt: skip


def _upsampled(features: Tensor, labels: Tensor, prototypes: Tensor, **settings: object) -> Tensor:
    """The features are logits of a single row, of four classes."""
    wide = labels[:, None].repeat_interleave(2, dim=2).repeat(1, 3, 1)
    return pc.upsampled_cross_entropy(features[:, :, None], wide, **settings)


def _volume(features: Tensor, labels: Tensor, prototypes: Tensor, **settings: object) -> Tensor:
    """The features are logits of a single column, of four classes."""
    deep = labels.repeat_interleave(2, dim=1)[..., None, None].expand(-1, -1, 2, 3)
    return pc.upsampled_cross_entropy(features[..., None, None], deep, **settings)


def _learnt(features: Tensor, labels: Tensor, prototypes: Tensor, **settings: object) -> Tensor:
    """The temperature follows the prototypes, too."""
    temperature = prototypes.square().mean()
    return pc.pixel_prototype_contrast(
        features, labels, prototypes, temperature=temperature, **settings
    )


def _distribution(
    features: Tensor, labels: Tensor, prototypes: Tensor, **settings: object
) -> Tensor:
    """The variance follows the prototypes, so that theirs is the gradient of both."""
    variance = prototypes.square().roll(1, dims=0)
    settings = {"temperature": 0.5, **settings}
    return pc.distribution_contrast(features, labels, prototypes, variance, **settings)


CALLS: dict[str, Function] = {
    "mean": _contrast,
    "sum": partial(_contrast, reduction="sum"),
    "none": partial(_contrast, reduction="none"),
    "soft mean": _soft,
    "soft none": partial(_soft, reduction="none"),
    "weighted mean": _weighted,
    "weighted none": partial(_weighted, reduction="none"),
    "floor": partial(_contrast, absent="floor"),
    "dot": partial(_contrast, similarity="dot", temperature=1.0),
    "euclidean": partial(_contrast, similarity="euclidean", temperature=0.5),
    "smoothed": partial(_contrast, label_smoothing=0.2),
    "learnt": _learnt,
    "logits": _logits,
    "euclidean logits": partial(_logits, similarity="euclidean"),
    "class means": _means,
    "unit class means": partial(_means, normalize=True, per_image=True),
    "bidirectional": _bidirectional,
    "balanced": partial(_bidirectional, balance="class"),
    "directions": _directions,
    "target pass": _passed,
    "distribution": _distribution,
    "distribution none": partial(_distribution, reduction="none", normalize=False),
    "pairs": _pairs,
    "distant pairs": partial(_pairs, similarity="euclidean", temperature=0.5),
    "pairs none": partial(_opposed, reduction="none", denominator="all", similarity="dot"),
    "upsampled": _upsampled,
    "upsampled none": partial(_upsampled, reduction="none", align_corners=True),
    "upsampled smoothed": partial(_upsampled, label_smoothing=0.1),
    "upsampled volume": _volume,
}
WITHOUT_PROTOTYPES = (
    *("class means", "unit class means", "bidirectional", "balanced", "directions"),
    "target pass",
)
READS_PROTOTYPES = [
    name for name in CALLS if name not in WITHOUT_PROTOTYPES and "upsampled" not in name
]
ONE_OF_EACH = [
    *("mean", "none", "logits", "unit class means", "bidirectional", "pairs", "upsampled"),
    *("distribution", "target pass", "balanced", "upsampled volume"),
]
READ_AGAIN = ("target pass",)
"""The first gradient scales what the forward sweep wrote, later ones read the features again."""


def leaves_of(name: str) -> list[int]:
    """Which inputs of a call have a gradient: features, and prototypes where they are read."""
    return [0, 2] if name in READS_PROTOTYPES else [0]


def outcome(
    call: Callable[..., Tensor], inputs: Sequence[Tensor], wanted: Sequence[int], **settings: Any
) -> list[Tensor]:
    """The result, and the gradients of a sum that no two of its elements enter alike."""
    leaves = [value.detach().clone() for value in inputs]
    for place in wanted:
        leaves[place].requires_grad_()
    result = call(*leaves, **settings)
    upstream = torch.linspace(
        0.5, 1.5, result.numel(), dtype=result.dtype, device=result.device
    ).reshape(result.shape)
    # As `backward` does it, which is all that a reentrant checkpoint knows.
    result.backward(upstream)
    gradients = [leaves[place].grad for place in wanted]
    return [result.detach(), *(one for one in gradients if one is not None)]
