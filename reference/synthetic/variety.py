"""A look of its own for every source image, for targets that were not drawn.

A network that has seen many looks has to go by what they share, which photographs share as well:
where things stand, how they are built, what is lighter than what (domain randomisation, Tobin et
al., IROS 2017). The ranges were set by eye beside street photographs, without their labels.
"""

import colorsys
from typing import Final

import numpy as np

from reference.synthetic.look import SOURCE_COLOURS, Look, Setting, Variants

# Field of `Setting` -> (lowest, highest); drawn uniformly, every image anew. What falls below 0
# counts as 0: more than a third of the streets have no parked cars.
RANGES: Final[dict[str, tuple[float, float]]] = {
    "camera_height": (1.2, 2.1), "horizon": (0.38, 0.55), "focal": (0.65, 1.15), "sun": (0.0, 1.0),
    "haze_range": (150.0, 800.0), "saturation": (0.3, 1.1), "blur": (0.0, 0.7), "noise": (1.0, 7.0),
    "vignette": (0.0, 0.3), "flicker": (0.0, 0.15), "cast": (0.0, 0.06), "grain": (0.3, 1.6),
    "patches": (0.5, 2.5), "tile": (0.7, 1.8), "built": (0.35, 1.0), "fenced": (0.1, 0.7),
    "planted": (0.3, 1.0), "setback": (0.0, 0.5), "storeys": (1.6, 4.6), "road_width": (6.0, 20.0),
    "walk_width": (0.8, 2.2), "wander": (0.05, 0.25), "gabled": (0.0, 1.0), "cars": (0.5, 4.0),
    "trucks": (0.0, 0.5), "buses": (0.0, 0.5), "persons": (2.0, 12.0), "lights": (0.2, 1.6),
    "signs": (0.5, 2.5), "poles": (1.0, 5.0), "street_trees": (0.0, 3.0), "parked": (-6.0, 10.0),
    "bare": (0.0, 1.0),
}  # fmt: skip
# Things whose colours tell a class and are varied less.
_LOYAL: Final = frozenset(
    {"lamp", "sign", "tail lamp", "head lamp", "skin", "marking", "foliage", "grass"}
)
_SKY: Final = frozenset({"sky high", "sky low", "cloud"})


def _recoloured(rng: np.random.Generator, colours: Variants, loyal: bool) -> Variants:
    """Turn, pale and darken every variant of a thing by numbers of its own."""
    result = np.empty((len(colours), 3))
    for row, colour in enumerate(np.asarray(colours, dtype=np.float64) / 255.0):
        hue, saturation, value = colorsys.rgb_to_hsv(*colour)
        turn = 0.04 if loyal else 0.5
        hue += turn * rng.uniform(-1, 1) * (1.0 if loyal or rng.random() < 0.5 else 0.1)
        saturation = min(saturation * rng.uniform(0.3, 1.3), 1.0)
        value = min(max(value * rng.uniform(0.6, 1.35) + rng.uniform(-0.1, 0.1), 0.03), 1.0)
        result[row] = colorsys.hsv_to_rgb(hue % 1.0, saturation, value)
    return result * 255.0


def _sky(rng: np.random.Generator, light: float) -> dict[str, Variants]:
    """Blue, white or dark clouds; a camera exposes for the street, so skies are often white."""
    blue = np.array([[rng.uniform(60, 150), rng.uniform(120, 190), rng.uniform(190, 250)]])
    grey = np.full((1, 3), rng.uniform(120, 255)) + rng.uniform(-6, 6, (1, 3))
    share = rng.uniform(0, 1) ** 2 if rng.random() < 0.5 else 0.0
    high = share * blue + (1 - share) * grey
    low = high + rng.uniform(0.2, 1.0) * (245 - high)
    cloud = high + rng.uniform(-0.4, 1.0) * (255 - high)
    over = rng.uniform(1.0, 1.5) / min(light, 1.0)
    return {"sky high": high * over, "sky low": low * over, "cloud": cloud * over}


def varied_look(rng: np.random.Generator) -> Look:
    """Draw the look of one image."""
    numbers = {name: max(float(rng.uniform(*span)), 0.0) for name, span in RANGES.items()}
    light = float(np.exp(rng.uniform(np.log(0.3), np.log(1.15))))
    red, green, blue = (light * (1.0 + 0.08 * float(rng.standard_normal())) for _ in range(3))
    grey = float(rng.uniform(150, 240)) * light
    colours = {
        thing: _recoloured(rng, np.array(rows, dtype=np.float64), thing in _LOYAL)
        for thing, rows in SOURCE_COLOURS.items()
        if thing not in _SKY
    }
    setting = Setting(light=(red, green, blue), haze=(grey, grey + 4, grey + 10), **numbers)
    return Look(setting, colours | _sky(rng, light))
