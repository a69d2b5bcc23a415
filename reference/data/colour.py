"""Colour jitter and blur of one image: its look changes, its geometry never does."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

import numpy as np
import numpy.typing as npt

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


def change_colours(pixels: Pixels, settings: ColourJitter, rng: np.random.Generator) -> Pixels:
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
