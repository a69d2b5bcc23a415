"""Everything that sets the two domains apart, and one dial between them."""

import csv
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

Variants = npt.NDArray[np.float64]


def _colours() -> dict[str, tuple[Variants, Variants]]:
    """Surface colours of every thing in source and target, a row per variant, from colours.csv.

    RGB, 0..255, before light, haze and camera.
    """
    lines = Path(__file__).with_name("colours.csv").read_text(encoding="utf-8").splitlines()[1:]
    things: dict[str, list[list[float]]] = {}
    for thing, *channels in csv.reader(lines):
        things.setdefault(thing, []).append([float(channel) for channel in channels])
    tables = {thing: np.array(rows) for thing, rows in things.items()}
    return {thing: (table[:, :3], table[:, 3:]) for thing, table in tables.items()}


COLOURS: Final = _colours()
Domain = Literal["source", "target"]
DOMAINS: Final[tuple[Domain, ...]] = ("source", "target")


class Setting(SimpleNamespace):
    """The numbers of a domain; every one is interpolated by the dial.

    Camera: `camera_height` metres; `horizon` and `focal` as shares of image height and width.
    Light: `sun` 0 (overcast) .. 1 (hard shadows); `light` colour factor per channel;
    `haze_range` metres until 63 % of a colour is haze; `haze` RGB 0..255.
    Sensor: `saturation` (1 = as is), `blur` pixels, `noise` RGB units, `vignette` share lost in
    the corners, `flicker` and `cast` spread of exposure and of white balance between images.
    Texture: `grain` and `patches` factors on fine and coarse texture, `tile` metres per slab.
    Street: `built` share of lots with a house, `setback` share of houses behind a strip of
    grass, `storeys` mean number, `fenced` and `planted` shares of parks, `road_width` metres.
    Things: mean number per image of `cars`, `trucks`, `buses`, `persons`, traffic `lights`,
    traffic `signs`, lamp `poles` and `street_trees`; some of them lie outside the view.
    Night: `lamps` brightness of lamps and lit windows, 0 (day) .. 1.
    """


# Field -> (source, target).
NUMBERS: Final[Mapping[str, tuple[Any, Any]]] = {
    "camera_height": (2.0, 1.64), "horizon": (0.42, 0.49), "focal": (0.72, 0.82), "sun": (1.0, 0.0),
    "light": ((1.05, 1.0, 0.93), (0.76, 0.96, 1.24)), "haze_range": (400.0, 140.0),
    "haze": ((206, 218, 232), (203, 212, 226)), "saturation": (1.12, 0.38), "blur": (0.0, 0.43),
    "noise": (3.0, 8.7), "vignette": (0.0, 0.17), "flicker": (0.1, 0.1), "cast": (0.03, 0.03),
    "grain": (1.0, 1.3), "patches": (1.0, 1.36), "tile": (1.6, 0.89), "built": (0.55, 0.68),
    "fenced": (0.65, 0.55), "planted": (0.5, 0.71), "setback": (0.45, 0.31), "storeys": (3.2, 4.06),
    "road_width": (9.5, 8.07), "cars": (4.0, 5.43), "trucks": (0.7, 0.56), "buses": (0.6, 0.46),
    "persons": (3.5, 4.5), "lights": (1.6, 1.74), "signs": (2.0, 2.71), "poles": (3.0, 3.57),
    "street_trees": (1.2, 1.91), "lamps": (0.0, 0.0),
}  # fmt: skip

# What differs from the target's day after dark. Chosen by eye on two dozen drawn images, never by
# a score on night labels.
_AFTER_DARK: Final[Mapping[str, Any]] = {
    "sun": 0.0, "light": (0.17, 0.19, 0.27), "haze": (38, 34, 40), "haze_range": 90.0, "blur": 0.6,
    "noise": 10.0, "vignette": 0.3, "flicker": 0.15, "lamps": 1.0,
}  # fmt: skip


class Look(NamedTuple):
    """A `Setting` with the surface colours that go with it."""

    setting: Setting
    colours: Mapping[str, Variants]


def _between(source: Any, target: Any, shift: float) -> Any:
    if isinstance(source, tuple):
        return tuple(_between(s, t, shift) for s, t in zip(source, target, strict=True))
    return source + shift * (target - source)


@lru_cache(maxsize=16)
def look_of(domain: Domain, shift: float, night: bool = False) -> Look:
    """The look of a domain; at shift 0 both share one, and the source's own never moves.

    `shift`, 0..1, is how far the target's look has moved from the source's; only the target has a
    night.
    """
    amount = shift if domain == "target" else 0.0
    numbers = {name: _between(*ends, amount) for name, ends in NUMBERS.items()}
    numbers |= _AFTER_DARK if night and domain == "target" else {}
    colours = {
        thing: (1 - amount) * source + amount * target
        for thing, (source, target) in COLOURS.items()
    }
    return Look(Setting(**numbers), colours)
