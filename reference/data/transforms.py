"""Training batches whose every random choice follows from (seed, stream, iteration, slot).

No global random state is read or changed: iteration 400 of a run that was resumed sees the same
images as iteration 400 of one that was not, whatever ran before. Normalisation belongs to the
model, so images leave here in [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from reference.data.arrays import ArrayDomain

Range = tuple[float, float]


@dataclass(frozen=True)
class Augmentation:
    """How strongly source images are changed; every number is drawn per image (own choice).

    Args:
        gamma: spread of log2 of the exponent; 0.5 gives exponents of about 0.7..1.4.
        saturation: range of the factor on the distance from grey.
        channel_gain: spread of the factor on each channel around 1.
        contrast: range of the factor on the distance from the image's mean.
        brightness: spread of the offset, in units of the full range 0..1.
        blur: largest standard deviation of a Gaussian blur, pixels; half of the images keep
            their sharpness.
        noise: largest standard deviation of white noise, in units of the full range 0..1.
    """

    gamma: float = 0.5
    saturation: Range = (0.3, 1.3)
    channel_gain: float = 0.08
    contrast: Range = (0.6, 1.3)
    brightness: float = 0.08
    blur: float = 1.2
    noise: float = 0.04


@dataclass(frozen=True)
class Batch:
    """Images of one training step.

    Args:
        images: float32 (B, 3, H, W) in [0, 1].
        labels: train ids int64 (B, H, W), 255 where not scored; None without labels.
        indices: int64 (B,), which images of the domain these are.
        flipped: bool (B,), which of them are mirrored.
    """

    images: Tensor
    labels: Tensor | None
    indices: Tensor
    flipped: Tensor


def to_float(images: Tensor) -> Tensor:
    """Return uint8 images as float32 in [0, 1]."""
    return images.float() / 255.0


def _generator(seed: int, stream: int, iteration: int, slot: int) -> np.random.Generator:
    return np.random.default_rng([seed, stream, iteration, slot])


def _blurred(image: Tensor, sigma: float) -> Tensor:
    reach = max(1, round(2.5 * sigma))
    taps = torch.arange(-reach, reach + 1, dtype=image.dtype)
    kernel = torch.exp(-0.5 * (taps / sigma) ** 2)
    kernel = (kernel / kernel.sum()).expand(3, 1, 1, -1)
    padded = F.pad(image[None], (reach, reach, reach, reach), mode="replicate")
    across = F.conv2d(padded, kernel, groups=3)
    return F.conv2d(across, kernel.transpose(2, 3), groups=3)[0]


def augment(image: Tensor, settings: Augmentation, rng: np.random.Generator) -> Tensor:
    """Change the look of an image, never its geometry.

    Args:
        image: float32 (3, H, W) in [0, 1]; not changed.
        settings: how strongly.
        rng: where every number is drawn from.

    Returns:
        float32 (3, H, W) in [0, 1].
    """
    gamma = 2.0 ** (settings.gamma * rng.standard_normal())
    saturation = rng.uniform(*settings.saturation)
    gains = 1.0 + settings.channel_gain * rng.standard_normal(3)
    contrast = rng.uniform(*settings.contrast)
    brightness = settings.brightness * rng.standard_normal()
    sigma = settings.blur * max(0.0, rng.uniform(-1.0, 1.0))
    noise = settings.noise * rng.random()

    changed = image**gamma
    grey = changed.mean(dim=0, keepdim=True)
    changed = grey + saturation * (changed - grey)
    changed = changed * torch.from_numpy(gains).to(image.dtype)[:, None, None]
    mean = changed.mean()
    changed = mean + contrast * (changed - mean) + brightness
    # A narrower blur would leave the image as it is.
    if sigma > 0.2:
        changed = _blurred(changed, sigma)
    grain = torch.from_numpy(rng.standard_normal(image.shape, dtype=np.float32))
    return (changed + noise * grain.to(image.dtype)).clamp(0.0, 1.0)


def batch(
    domain: ArrayDomain,
    seed: int,
    iteration: int,
    batch_size: int,
    *,
    stream: int = 0,
    augmentation: Augmentation | None = None,
) -> Batch:
    """Draw the images of one training step, with replacement, half of them mirrored.

    Args:
        domain: the set.
        seed: number of the run, >= 0.
        iteration: number of the step, >= 0.
        batch_size: B, at least 1. The first images of a larger batch are those of a smaller one.
        stream: tells apart several batches of one step, such as source 0 and target 1.
        augmentation: changes the look of the images; the choice of images and mirroring does
            not depend on it. None leaves them as they are.

    Returns:
        The batch.

    Raises:
        ValueError: the set is empty, or `batch_size` is below 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch: expected batch_size of at least 1, got {batch_size}.")
    if len(domain) == 0:
        raise ValueError("batch: expected a domain of at least 1 image, got 0.")
    generators = [_generator(seed, stream, iteration, slot) for slot in range(batch_size)]
    indices = torch.tensor([int(rng.integers(len(domain))) for rng in generators])
    flipped = torch.tensor([bool(rng.random() < 0.5) for rng in generators])
    images = to_float(_mirrored(domain.images[indices], flipped))
    if augmentation is not None:
        pairs = zip(images, generators, strict=True)
        images = torch.stack([augment(image, augmentation, rng) for image, rng in pairs])
    labels = None
    if domain.labels is not None:
        labels = _mirrored(domain.labels[indices], flipped).long()
    return Batch(images, labels, indices, flipped)


def _mirrored(maps: Tensor, flipped: Tensor) -> Tensor:
    shape = (-1,) + (1,) * (maps.dim() - 1)
    return torch.where(flipped.view(shape), maps.flip(-1), maps)


def matching(stored: Tensor, drawn: Batch) -> Tensor:
    """Return the rows of a per-image map that belong to a batch, mirrored as its images are.

    Args:
        stored: one map for every image of the domain, (N, ..., W), such as pseudo labels.
        drawn: the batch.

    Returns:
        (B, ..., W), of the dtype of `stored`.
    """
    return _mirrored(stored[drawn.indices], drawn.flipped)
