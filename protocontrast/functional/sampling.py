"""A fixed number of pixels from a label map: `sample_pixels`."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from protocontrast.checks import (
    check_choice,
    check_count,
    check_device,
    check_ignore_index,
    check_integer,
    check_shape,
    public,
    sentence,
)
from protocontrast.functional import hints
from protocontrast.ops.labels import checked_labels


def uniform(shape: tuple[int, ...], like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Numbers in [0, 1), drawn where the generator lives, on the device of `like`."""
    if generator is None:
        return torch.rand(shape, dtype=torch.float32, device=like.device)
    if not isinstance(generator, torch.Generator):
        requirement = "to be a torch.Generator"
        raise TypeError(sentence("generator", requirement, type(generator).__name__))
    drawn = torch.rand(shape, dtype=torch.float32, generator=generator, device=generator.device)
    return drawn.to(like.device)


MODES = ("random", "per_class", "hard_easy")

SampleMode = Literal["random", "per_class", "hard_easy"]


class SampledPixels(NamedTuple):
    """Which pixels were drawn.

    Attributes:
        positions: (number,), int64, in the flattened label map; 0 in a place without a pixel.
        labels: (number,), int64, of these pixels; `ignore_index` in a place without a pixel.
    """

    positions: Tensor
    labels: Tensor


@public
def sample_pixels(
    labels: Tensor,
    number: int,
    *,
    mode: SampleMode = "random",
    num_classes: int | None = None,
    predictions: Tensor | None = None,
    per_class: int = 100,
    min_pixels: int = 100,
    generator: torch.Generator | None = None,
    ignore_index: int = 255,
) -> SampledPixels:
    """Draw labelled pixels without replacement.

    "random": any, all equally likely. "per_class": of every class of every image as many as of the
    others. "hard_easy": those again, half of them predicted wrongly and half rightly, or more of
    one kind where the other has too few.

    Args:
        labels: classes 0..C-1 or `ignore_index`, any integer dtype.
        number: of places in the result; where fewer pixels are drawn, the rest stays empty.
        mode: "random", "per_class" or "hard_easy".
        num_classes: C, needed but by "random".
        predictions: predicted classes, any integer dtype, needed by "hard_easy".
        per_class: most pixels of one class of one image. With G of them that are large enough, each
            gives min(per_class, number // G) pixels, so none where G is above `number`.
        min_pixels: a class of an image with fewer pixels gives none. The released trainers ask for
            more than `per_class`: 101.
        generator: repeats the drawing; one of the CPU does so on every device, at the price of a
            copy that a GPU waits for. None: torch's own of the device, which compiled code needs.
        ignore_index: label of pixels without a class, outside 0..C-1.

    Shape:
        labels, predictions (B, Z, H, W), (B, H, W), (B, P), or (N,), which is one image.

    Returns:
        `SampledPixels`, of one size whatever the labels hold. The drawn
        rows of features (B, D, H, W) or (B, D, Z, H, W) are
        `features.movedim(1, -1).flatten(0, -2)[sample.positions]`; with `sample.labels` they go
        into a contrast, which ignores the empty places. Where no class of an image has `min_pixels`
        pixels, as 19 equally frequent ones on a grid of 24 x 24, all places are empty under
        "per_class" and "hard_easy", and the contrast is 0.

    Raises:
        ValueError: shapes or settings disagree, something needed is missing, or (CPU) a label is no
            class.
        TypeError: a wrong dtype.

    Source:
        Wang et al., ICCV 2021, arXiv 2101.11939 (hard and easy anchors); (P10) of docs/parts.md.

    Example:
        >>> import torch
        >>> labels = torch.tensor([[255, 4, 255, 4, 4, 255]])
        >>> sample = sample_pixels(labels, 4)
        >>> sorted(sample.positions[:3].tolist()), sample.labels.tolist()
        ([1, 3, 4], [4, 4, 4, 255])
    """
    check_integer("labels", labels)
    if labels.dim() not in (1, 2, 3, 4):
        requirement = "of shape (B, Z, H, W), (B, H, W), (B, P) or (N,)"
        raise ValueError(sentence("labels", requirement, tuple(labels.shape)))
    check_count("number", number)
    check_choice("mode", mode, MODES)
    check_count("per_class", per_class)
    check_count("min_pixels", min_pixels)
    check_ignore_index(ignore_index)
    wide = labels.long().flatten()
    if mode == "random":
        if num_classes is not None:
            check_count("num_classes", num_classes)
            check_ignore_index(ignore_index, num_classes)
            wide = checked_labels(wide, num_classes, ignore_index, "sample_pixels")
        drawn = uniform((wide.shape[0],), wide, generator)
        # 2 is above every number drawn, so unlabelled pixels come last.
        order = torch.where(wide == ignore_index, 2.0, drawn).argsort(stable=True)[:number]
        return _placed(order, wide[order], number, ignore_index)
    if num_classes is None:
        hint = "pass the number of classes; finding it in the labels would wait for the device."
        raise ValueError(sentence("num_classes", f'with mode="{mode}"', "None", hint))
    check_count("num_classes", num_classes)
    check_ignore_index(ignore_index, num_classes)
    right = torch.ones_like(wide, dtype=torch.bool)
    if mode == "hard_easy":
        if predictions is None:
            raise ValueError(sentence("predictions", f'with mode="{mode}"', "None"))
        check_integer("predictions", predictions)
        wanted, got = tuple(labels.shape), tuple(predictions.shape)
        hint = "" if got == wanted else hints.one_per_pixel("predictions", got, wanted, num_classes)
        check_shape("predictions", predictions, wanted, "like labels", hint)
        check_device("predictions", predictions, labels, "labels")
        right = predictions.long().flatten() == wide
    wide = checked_labels(wide, num_classes, ignore_index, "sample_pixels")
    drawn = uniform((wide.shape[0],), wide, generator)
    images = labels.shape[0] if labels.dim() > 1 else 1
    groups = images * num_classes
    image = torch.arange(images, device=wide.device).repeat_interleave(
        wide.shape[0] // max(images, 1)
    )
    valid = (wide != ignore_index) & (wide >= 0) & (wide < num_classes)
    # Two kinds per group, the wrongly predicted first; one more for pixels without a class.
    kind = torch.where(valid, 2 * (image * num_classes + wide) + right, 2 * groups)
    sizes = torch.zeros(2 * groups + 1, dtype=torch.int64, device=wide.device)
    sizes = sizes.scatter_add(0, kind, torch.ones_like(kind))
    quota = _quota(sizes[:-1].view(groups, 2), number, per_class, min_pixels)
    shuffled = drawn.argsort(stable=True)
    order = shuffled[kind[shuffled].argsort(stable=True)]
    ordered = kind[order]
    rank = torch.arange(len(order), device=wide.device) - (sizes.cumsum(0) - sizes)[ordered]
    kept = rank < quota[ordered]
    first = (~kept).long().argsort(stable=True)[:number]
    chosen = order[first]
    found = torch.where(kept[first], wide[chosen], ignore_index)
    return _placed(chosen, found, number, ignore_index)


def _quota(sizes: Tensor, number: int, per_class: int, min_pixels: int) -> Tensor:
    """How many of each kind are kept, (2 G + 1,), from the sizes (G, 2) of hard and easy ones."""
    hard, easy = sizes.unbind(dim=1)
    large = hard + easy >= min_pixels
    views = (number // large.sum().clamp_min(1)).clamp_max(per_class) * large
    of_hard = torch.minimum(hard, torch.maximum(views // 2, views - easy))
    of_easy = torch.minimum(easy, views - of_hard)
    return torch.cat([torch.stack([of_hard, of_easy], dim=1).flatten(), sizes.new_zeros(1)])


def _placed(positions: Tensor, labels: Tensor, number: int, ignore_index: int) -> SampledPixels:
    """Pixels in `number` places, the rest empty."""
    missing = number - positions.shape[0]
    labels = pad(labels, (0, missing), value=ignore_index)
    positions = pad(positions, (0, missing))
    return SampledPixels(torch.where(labels == ignore_index, 0, positions), labels)
