"""The authors' released trainer's way of the step, restated slowly from its description.

Every class is a pass of its own: a mask gathers its feature cells, a cosine map compares every
pixel with its mean. `released_step` is the trainer's contrast, for each pair of one source and one
target image, at the label maps' own resolution: class means of one domain's feature cells, cosines
of the other domain's cells to them, exact zeros overwritten by -1, the cosine map upsampled by
nearest, over a temperature of 0.1, a weighted cross-entropy with weight 1 for the classes that both
resized label maps show. The step is half the sum over two pairs, here the mean over any number.
Without a shared class it is 0 / 0, as in the release. `step_by_class` is the step of
`contenders.bidirectional_step` in such passes.
"""

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, cross_entropy, interpolate

from benchmarks.contenders import IGNORE_INDEX, NUM_CLASSES, TEMPERATURE, masked, nearest


def on_grid(labels: Tensor, size: torch.Size) -> Tensor:
    """One label map (H, W) at the features' size."""
    return interpolate(labels[None, None].float(), size=size, mode="nearest")[0, 0].long()


def pooled(features: Tensor, cells: Tensor, num_classes: int) -> Tensor:
    """Mean of the feature cells (D, ...) of every class, 0 where there is none; (C, D)."""
    means = []
    for c in range(num_classes):
        chosen = features[:, cells == c]
        means.append(chosen.mean(dim=1) if chosen.shape[1] else features.new_zeros(len(features)))
    return torch.stack(means)


def upsampled(maps: Tensor, size: torch.Size) -> Tensor:
    """Maps (C, h, w) at the labels' size, by nearest.

    The trainer's maps are float32. For float64 torch's `interpolate` reads other cells, and sends
    the gradient to those of float32 all the same, so the cells are looked up once and indexed.
    """
    if maps.dtype == torch.float32:
        return interpolate(maps[None], size=size, mode="nearest")[0]
    height, width = maps.shape[1:]
    numbers = torch.arange(height * width, dtype=torch.float32).reshape(1, 1, height, width)
    cells = interpolate(numbers, size=size, mode="nearest").long().flatten()
    return maps.flatten(1)[:, cells].reshape(len(maps), *size)


def cosines_by_class(features: Tensor, means: Tensor) -> Tensor:
    """Pixels (D, ...) against every mean, (C, ...)."""
    column = (-1, *[1] * (features.dim() - 1))
    return torch.stack([cosine_similarity(features, mean.view(column), dim=0) for mean in means])


def one_direction(
    features: Tensor, labels: Tensor, means: Tensor, shared: Tensor, temperature: float
) -> Tensor:
    """Pixels (D, h, w) of one domain against the other's class means."""
    cosines = cosines_by_class(features, means)
    cosines = torch.where(cosines == 0, -torch.ones_like(cosines), cosines)
    logits = upsampled(cosines, labels.shape)[None] / temperature
    weight = shared.to(logits.dtype)
    return cross_entropy(logits, labels[None], weight=weight, ignore_index=IGNORE_INDEX)


def released_step(
    source_features: Tensor,
    source_labels: Tensor,
    target_features: Tensor,
    target_labels: Tensor,
    num_classes: int,
    temperature: float = 0.1,
) -> tuple[Tensor, Tensor]:
    """Target pixels against source means, and the reverse, each averaged over the pairs."""
    forward, backward = [], []
    for f_s, y_s, f_t, y_t in zip(
        source_features, source_labels, target_features, target_labels, strict=True
    ):
        cells_s, cells_t = on_grid(y_s, f_s.shape[1:]), on_grid(y_t, f_t.shape[1:])
        classes = range(num_classes)
        shared = torch.tensor(
            [bool((cells_s == c).any() and (cells_t == c).any()) for c in classes]
        )
        means_s, means_t = pooled(f_s, cells_s, num_classes), pooled(f_t, cells_t, num_classes)
        forward.append(one_direction(f_t, y_t, means_s, shared, temperature))
        backward.append(one_direction(f_s, y_s, means_t, shared, temperature))
    return torch.stack(forward).mean(), torch.stack(backward).mean()


def step_by_class(
    source: Tensor, source_labels: Tensor, target: Tensor, num_classes: int = NUM_CLASSES
) -> tuple[Tensor, Tensor]:
    """Loss () and transferred target labels of the whole batch, gradient through all means."""
    source_pixels, target_pixels = source.movedim(1, 0), target.movedim(1, 0)
    classes = range(num_classes)
    source_means = pooled(source_pixels, source_labels, num_classes)
    in_source = torch.stack([(source_labels == c).any() for c in classes])
    with torch.no_grad():
        cosines = cosines_by_class(target_pixels, source_means).movedim(0, 1)
        target_labels, _ = nearest(masked(cosines / TEMPERATURE, in_source))
    target_means = pooled(target_pixels, target_labels, num_classes)
    in_target = torch.stack([(target_labels == c).any() for c in classes])
    weight = (in_source & in_target).to(source.dtype)
    loss = source.new_zeros(())
    for pixels, labels, means, present in (
        (target_pixels, target_labels, source_means, in_source),
        (source_pixels, source_labels, target_means, in_target),
    ):
        logits = masked(cosines_by_class(pixels, means).movedim(0, 1) / TEMPERATURE, present)
        loss = loss + cross_entropy(logits, labels, weight, ignore_index=IGNORE_INDEX)
    return loss, target_labels
