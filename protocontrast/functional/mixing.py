"""Images of two domains in one: `class_mix`."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from protocontrast.checks import (
    check_choice,
    check_count,
    check_device,
    check_ignore_index,
    check_shape,
    check_tensor,
    public,
    sentence,
)
from protocontrast.functional import hints
from protocontrast.functional.maps import check_classes
from protocontrast.functional.sampling import uniform
from protocontrast.ops.labels import checked_labels

CANDIDATES = ("image", "batch")

Candidates = Literal["image", "batch"]


class ClassMix(NamedTuple):
    """Mixed images and labels, and where they come from the source.

    Attributes:
        images: like the source images, which they are where `mask`, else the target's.
        labels: int64, the pixels' shape, likewise.
        mask: bool, the pixels' shape.
    """

    images: Tensor
    labels: Tensor
    mask: Tensor


def _half(candidates: Tensor, order: Tensor) -> Tensor:
    """The first ceil(n / 2) of each image's n candidates (B, K) in a random order, bool."""
    place = torch.where(candidates, order, torch.inf).argsort(dim=1, stable=True).argsort(dim=1)
    wanted = (candidates.sum(dim=1, keepdim=True) + 1) // 2
    return candidates & (place < wanted)


@public
def class_mix(
    source_images: Tensor,
    source_labels: Tensor,
    target_images: Tensor,
    target_labels: Tensor,
    *,
    num_classes: int,
    classes: Tensor | None = None,
    candidates: Candidates = "image",
    generator: torch.Generator | None = None,
    ignore_index: int = 255,
) -> ClassMix:
    """Paste the pixels of some source classes, with their labels, onto target images.

    Of the n classes that an image shows, ceil(n / 2) are drawn, each set of them equally likely.

    Args:
        source_images: any dtype; image b is pasted onto target image b.
        source_labels: classes 0..C-1 or `ignore_index`, any integer dtype.
        target_images: of the source images' shape and dtype.
        target_labels: pseudo labels, any values; they are passed on.
        num_classes: C.
        classes: which classes are pasted, in place of the drawing.
        candidates: what is drawn from. "image": the classes of that image. "batch": those of the
            whole batch and, where some pixel is unlabelled, `ignore_index` as one more, as a family
            of released trainers has it; an image may then receive few of its own classes.
        generator: repeats the drawing; one of the CPU does so on every device, at the price of a
            copy that a GPU waits for. None: torch's own of the device, which compiled code needs.
        ignore_index: label of pixels without a class; never pasted under "image".

    Shape:
        images (B, K, H, W) with any K channels and labels (B, H, W), or (B, K, Z, H, W) and
        (B, Z, H, W); classes (C,) or (B, C), bool.

    Returns:
        `ClassMix`, differentiable in both images. An image without any label is the target's. For a
        confidence weight of the target's pixels: `torch.where(mix.mask, 1.0, share)`.

    Raises:
        ValueError: shapes or devices disagree, or (CPU) a source label is no class.
        TypeError: a wrong dtype.

    Source:
        Tranheden et al., WACV 2021, arXiv 2007.08702; (P9) of docs/parts.md.

    Example:
        >>> import torch
        >>> labels = torch.tensor([[[0, 1, 1, 255]]])
        >>> images = torch.tensor([[[[5, 6, 7, 8]]]])
        >>> blank, none = torch.zeros_like(images), torch.full_like(labels, 255)
        >>> ones = torch.tensor([False, True])
        >>> mix = class_mix(images, labels, blank, none, num_classes=2, classes=ones)
        >>> mix.images.flatten().tolist(), mix.labels.flatten().tolist()
        ([0, 6, 7, 0], [255, 1, 1, 255])
    """
    check_tensor("source_images", source_images)
    shape = tuple(source_images.shape)
    if source_images.dim() not in (4, 5):
        requirement = "of shape (B, K, Z, H, W) or (B, K, H, W)"
        raise ValueError(sentence("source_images", requirement, shape))
    check_count("num_classes", num_classes)
    check_tensor("target_images", target_images)
    hint = hints.channels_last("target_images", tuple(target_images.shape), shape[1])
    check_shape("target_images", target_images, shape, "like source_images", hint)
    check_device("target_images", target_images, source_images, "source_images")
    if target_images.dtype != source_images.dtype:
        requirement = f"of dtype {source_images.dtype} like source_images"
        raise TypeError(sentence("target_images", requirement, target_images.dtype))
    for argument, labels in (("source_labels", source_labels), ("target_labels", target_labels)):
        check_classes(argument, labels, len(shape) - 2, num_classes)
        expected = (shape[0], *shape[2:])
        got = tuple(labels.shape)
        if got != expected:
            hint = hints.one_per_pixel(argument, got, expected, num_classes)
            if not hint and got == shape[:-1]:
                hint = hints.channels_last(argument.replace("labels", "images"), shape, shape[-1])
            hint = hint or "mix at the labels' resolution."
            requirement = f"of shape {expected} for these images"
            raise ValueError(sentence(argument, requirement, got, hint))
        check_device(argument, labels, source_images, "source_images")
    check_choice("candidates", candidates, CANDIDATES)
    check_ignore_index(ignore_index, num_classes)
    wide = checked_labels(source_labels.long(), num_classes, ignore_index, "class_mix")
    # Unlabelled pixels have a column of their own; wrong values, on a GPU, share it.
    labelled = (wide >= 0) & (wide < num_classes) & (wide != ignore_index)
    column = torch.where(labelled, wide, num_classes).flatten(1)
    if classes is not None:
        chosen = _given(classes, shape[0], num_classes, source_images)
    else:
        shown = torch.zeros(shape[0], num_classes + 1, dtype=torch.bool, device=wide.device)
        shown = shown.scatter(1, column, True)
        if candidates == "batch":
            shown = shown.any(dim=0).expand(shape[0], -1)
        else:
            shown = shown & (torch.arange(num_classes + 1, device=wide.device) < num_classes)
        order = uniform((shape[0], num_classes + 1), wide, generator)
        chosen = _half(shown, order)
    mask = chosen.gather(1, column).reshape(wide.shape)
    images = torch.where(mask[:, None], source_images, target_images)
    return ClassMix(images, torch.where(mask, wide, target_labels.long()), mask)


def _given(classes: Tensor, images: int, num_classes: int, reference: Tensor) -> Tensor:
    """Given classes as (B, C + 1): what has no class is not pasted."""
    check_tensor("classes", classes)
    if classes.dtype != torch.bool:
        raise TypeError(sentence("classes", "of dtype torch.bool", classes.dtype))
    if tuple(classes.shape) not in ((num_classes,), (images, num_classes)):
        requirement = f"of shape ({num_classes},) or ({images}, {num_classes})"
        raise ValueError(sentence("classes", requirement, tuple(classes.shape)))
    check_device("classes", classes, reference, "source_images")
    rows = classes.expand(images, num_classes)
    return torch.cat([rows, torch.zeros_like(rows[:, :1])], dim=1)
