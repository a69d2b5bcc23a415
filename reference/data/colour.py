"""Changes of an image's look, never of its geometry, on any device."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from reference.data.settings import Colours


def change_colours(image: Tensor, settings: Colours, rng: np.random.Generator) -> Tensor:
    """Return an image, float32 (3, H, W) in [0, 1], with another look.

    Which numbers are drawn does not depend on the settings, and what is off costs nothing.

    Source:
        Brightness, contrast, saturation and hue as in Hoyer et al., DAFormer, CVPR 2022; the rest
        is our own choice.
    """
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
