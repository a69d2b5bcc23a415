"""Changes of an image's look, never of its geometry, on any device."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor


def change_colours(image: Any, settings: Any, rng: np.random.Generator) -> Any:
    """Return an image with another look; what is off costs nothing.

    Args:
        image: float32 (3, H, W) in [0, 1], RGB, on any device; not changed.
        settings: how strongly.
        rng: where every number is drawn from; which are drawn does not depend on the settings.

    Returns:
        float32 (3, H, W) in [0, 1].

    Source:
        Brightness, contrast, saturation and hue as in Hoyer et al., DAFormer, CVPR 2022; the rest
        is our own choice.
    """
    if isinstance(image, np.ndarray):
        return _change_pixels(image, settings, rng)
    jittered, blurred = rng.random(2) < (settings.probability, settings.blur_probability)
    strengths = (settings.brightness, settings.contrast, settings.saturation)
    brightness, contrast, saturation = (1.0 + x * rng.uniform(-1.0, 1.0) for x in strengths)
    turn = settings.hue * rng.uniform(-1.0, 1.0)
    gamma = 2.0 ** (settings.gamma * rng.standard_normal())
    gains = 1.0 + settings.channels * rng.standard_normal(3)
    sigma = rng.uniform(*settings.blur_sigma)
    noise = settings.noise * rng.random()
    if jittered:
        if settings.gamma:
            image = image**gamma
        if settings.brightness:
            image = (image * brightness).clamp(0.0, 1.0)
        if settings.contrast:
            mean = _grey(image).mean()
            image = (mean + contrast * (image - mean)).clamp(0.0, 1.0)
        if settings.saturation:
            grey = _grey(image)
            image = (grey + saturation * (image - grey)).clamp(0.0, 1.0)
        if settings.hue:
            image = turn_hue(image, turn)
        if settings.channels:
            factors = torch.tensor(gains, dtype=image.dtype, device=image.device)
            image = (image * factors[:, None, None]).clamp(0.0, 1.0)
    # A narrower blur would leave the image as it is.
    if blurred and sigma > 0.2:
        image = blur(image, sigma)
    if noise:
        grain = torch.from_numpy(rng.standard_normal(tuple(image.shape), dtype=np.float32))
        image = (image + noise * grain.to(image)).clamp(0.0, 1.0)
    return image


def _grey(image: Tensor) -> Tensor:
    # The brightness that an eye sees (ITU-R BT.601).
    return 0.299 * image[:1] + 0.587 * image[1:2] + 0.114 * image[2:]


def turn_hue(image: Tensor, turn: float) -> Tensor:
    """Turn the hue of an image, (3, H, W) in [0, 1], by a share of the full circle."""
    value, brightest = image.max(dim=0)
    chroma = value - image.min(dim=0).values
    red, green, blue = image
    # Hue in sixths of the circle, from the channel that is brightest; grey has none.
    offset = torch.where(
        brightest == 0, green - blue, torch.where(brightest == 1, blue - red, red - green)
    )
    hue = 2.0 * brightest + offset / chroma.clamp(min=1e-12) + 6.0 * turn
    channels = []
    for shift in (5.0, 3.0, 1.0):
        place = (hue + shift) % 6.0
        channels.append(value - chroma * torch.minimum(place, 4.0 - place).clamp(0.0, 1.0))
    return torch.stack(channels)


def blur(image: Tensor, sigma: float) -> Tensor:
    """Blur an image, (3, H, W), by a Gaussian of standard deviation `sigma` pixels."""
    reach = max(1, round(3.0 * sigma))
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    taps /= taps.sum()
    # Sums of shifted images: on a CPU several times as fast as a convolution of three channels.
    for axis, sides in ((1, (0, 0, reach, reach)), (2, (reach, reach, 0, 0))):
        padded = F.pad(image[None], sides, mode="replicate")[0]
        length = image.shape[axis]
        image = padded.narrow(axis, 0, length) * float(taps[0])
        for n, tap in enumerate(taps[1:], 1):
            image.add_(padded.narrow(axis, n, length), alpha=float(tap))
    return image


# Old callers.
Pixels = npt.NDArray[np.float32]

# Weights of red, green and blue in the brightness an eye sees (ITU-R BT.601).
_GREY: Final = np.array([0.299, 0.587, 0.114], dtype=np.float32)
_FULL_TURN: Final = 360.0


@dataclass(frozen=True)
class ColourJitter:
    """How strongly colours change; every number is drawn per image.

    The strengths are DAFormer's, which applies them to its mixed images.

    Args:
        probability: that brightness, contrast, saturation and hue are changed, 0..1.
        brightness: the factor is drawn within 1 - x .. 1 + x, x in 0..1.
        contrast: likewise, of the distance from the mean grey.
        saturation: likewise, of the distance from grey.
        hue: largest turn, as a share of the full circle, 0..0.5.
        blur_probability: that the image is blurred, 0..1.
        blur_sigma: range of the standard deviation of the Gaussian, pixels, > 0.

    Raises:
        ValueError: a number is out of its range.

    Source:
        Hoyer et al., DAFormer, CVPR 2022.
    """

    probability: float = 0.8
    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.2
    hue: float = 0.2
    blur_probability: float = 0.5
    blur_sigma: tuple[float, float] = (0.15, 1.15)

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "blur_sigma":
                if not 0 < value[0] <= value[1]:
                    raise ValueError(
                        f"ColourJitter: expected blur_sigma as (low, high) above 0, got {value}."
                    )
            elif not 0 <= value <= (most := 0.5 if field.name == "hue" else 1.0):
                raise ValueError(
                    f"ColourJitter: expected {field.name} within 0..{most:g}, got {value}."
                )


def _change_pixels(pixels: Pixels, settings: ColourJitter, rng: np.random.Generator) -> Pixels:
    """Return an image with another look.

    Args:
        pixels: float32 (H, W, 3) in [0, 1], RGB; not changed.
        settings: how strongly.
        rng: where every number is drawn from; always the same number of draws.

    Returns:
        float32 (H, W, 3) in [0, 1].
    """
    import cv2

    jittered, blurred = rng.random(2) < (settings.probability, settings.blur_probability)
    strengths = (settings.brightness, settings.contrast, settings.saturation)
    brightness, contrast, saturation = (1.0 + x * rng.uniform(-1.0, 1.0) for x in strengths)
    turn = _FULL_TURN * settings.hue * rng.uniform(-1.0, 1.0)
    sigma = rng.uniform(*settings.blur_sigma)
    if jittered:
        changed = np.clip(pixels * np.float32(brightness), 0.0, 1.0)
        mean = (changed @ _GREY).mean()
        changed = np.clip(mean + np.float32(contrast) * (changed - mean), 0.0, 1.0)
        grey = (changed @ _GREY)[..., None]
        changed = np.clip(grey + np.float32(saturation) * (changed - grey), 0.0, 1.0)
        hsv = cv2.cvtColor(changed, cv2.COLOR_RGB2HSV)
        hsv[..., 0] = (hsv[..., 0] + np.float32(turn)) % np.float32(_FULL_TURN)
        pixels = np.clip(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), 0.0, 1.0).astype(np.float32)
    if blurred:
        pixels = cv2.GaussianBlur(pixels, (0, 0), sigma).astype(np.float32)
    return pixels
