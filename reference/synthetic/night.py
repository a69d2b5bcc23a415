"""A street after dark: what lamps light, and what shines by itself."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from reference.synthetic.canvas import Lamp, Material
from reference.synthetic.painter import Painter

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

# The camera's own head lamps: brightness, metres until it has fallen to 37 %, share of the width.
_OWN: Final = 0.6
_OWN_REACH: Final = 14.0
_OWN_WIDTH: Final = 0.32
_STREET: Final = 0.55
# However many lamps there are, a camera exposes for them.
_BRIGHTEST: Final = 0.7
# A lamp's bright core and the glow around it: brightness, and radius in metres.
_CORE: Final = (230.0, 0.25)
_HALO: Final = (75.0, 0.9)
_SMALLEST: Final = 1.5
_WINDOW: Final = np.array([170.0, 130.0, 70.0], dtype=np.float32)
# How many standard deviations above the mean noise has to lie for windows there to be lit.
_AT_HOME: Final = 0.7


def _grid(shape: tuple[int, ...]) -> tuple[Floats, Floats]:
    rows, columns = shape[:2]
    v, u = np.arange(rows, dtype=np.float32), np.arange(columns, dtype=np.float32)
    return v[:, None] + 0.5, u[None, :] + 0.5


def lamplight(painter: Painter, depth: Floats) -> Floats:
    """Return how strongly lamps light every pixel, as a factor per channel on surface colours.

    Args:
        painter: the hand whose canvas is finished.
        depth: metres, (H, W).

    Returns:
        (H, W, 3), to be added to the light of the sky.
    """
    v, u = _grid(depth.shape)
    camera = painter.camera
    aside = (u - camera.centre) / (_OWN_WIDTH * depth.shape[1])
    above = np.maximum(camera.horizon - v, 0.0) / (0.12 * depth.shape[0])
    own = _OWN * np.exp(-depth / _OWN_REACH - aside**2 - above**2)
    light = np.repeat(own[..., None], 3, axis=-1)
    for lamp in painter.canvas.lamps:
        if lamp.reach > 0:
            tall = abs(lamp.foot[1] - lamp.at[1])
            pixels = lamp.reach * lamp.metre
            across = (u - lamp.at[0]) / pixels
            down = (v - (lamp.foot[1] + lamp.at[1]) / 2) / (0.7 * tall + 0.3 * pixels)
            ahead = (depth - lamp.z) / lamp.reach
            weight = _STREET * np.exp(-(across**2) - down**2 - ahead**2)
            light += weight[..., None] * (np.array(lamp.colour, dtype=np.float32) / 255.0)
    return np.asarray(_BRIGHTEST * (1.0 - np.exp(-light / _BRIGHTEST)), dtype=np.float32)


def _is_seen(lamp: Lamp, codes: Bytes) -> bool:
    """Whether nothing was painted over a lamp."""
    column, row = int(lamp.at[0]), int(lamp.at[1])
    inside = 0 <= row < codes.shape[0] and 0 <= column < codes.shape[1]
    return inside and abs(int(codes[row, column, 2]) - lamp.z) <= 1.0


def shining(painter: Painter, codes: Bytes, noise: Floats) -> Floats:
    """Return the light of lamps and of lit windows themselves, 0..255, (H, W, 3).

    Args:
        painter: the hand whose canvas is finished.
        codes: its stamps, (H, W, 3).
        noise: smooth, of unit spread, (H, W): where it is high somebody is at home.
    """
    v, u = _grid(codes.shape)
    house = (codes[..., 0] == 2) & (codes[..., 1] == Material.GLASS)
    light = np.where((house & (noise > _AT_HOME))[..., None], _WINDOW, np.float32(0.0))
    for lamp in painter.canvas.lamps:
        if _is_seen(lamp, codes):
            squared = (u - lamp.at[0]) ** 2 + (v - lamp.at[1]) ** 2
            for bright, metres in (_CORE, _HALO):
                radius = max(metres * lamp.metre, _SMALLEST)
                weight = bright * np.exp(-squared / radius**2)
                light += weight[..., None] * (np.array(lamp.colour, dtype=np.float32) / 255.0)
    return np.asarray(light, dtype=np.float32)
