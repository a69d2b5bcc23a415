"""Everything that sets the two domains apart, and one dial between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Final, Literal

from reference.synthetic.palette import Variants, blend

Domain = Literal["source", "target"]
DOMAINS: Final = ("source", "target")

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Setting:
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
    traffic `signs`, lamp `poles`, `street_trees` and cars `parked` at the kerb; some of them lie
    outside the view. `bare`: share of trees without leaves.
    Night: `lamps` brightness of lamps and lit windows, 0 (day) .. 1.
    """

    camera_height: float
    horizon: float
    focal: float
    sun: float
    light: Triple
    haze_range: float
    haze: Triple
    saturation: float
    blur: float
    noise: float
    vignette: float
    flicker: float
    cast: float
    grain: float
    patches: float
    tile: float
    built: float
    fenced: float
    planted: float
    setback: float
    storeys: float
    road_width: float
    cars: float
    trucks: float
    buses: float
    persons: float
    lights: float
    signs: float
    poles: float
    street_trees: float
    parked: float = 0.0
    bare: float = 0.0
    gabled: float = 0.0
    walk_width: float = 1.0
    wander: float = 0.05
    lamps: float = 0.0


SOURCE: Final = Setting(
    camera_height=2.0,
    horizon=0.42,
    focal=0.72,
    sun=1.0,
    light=(1.05, 1.0, 0.93),
    haze_range=400.0,
    haze=(206, 218, 232),
    saturation=1.12,
    blur=0.0,
    noise=3.0,
    vignette=0.0,
    flicker=0.1,
    cast=0.03,
    grain=1.0,
    patches=1.0,
    tile=1.6,
    built=0.55,
    fenced=0.65,
    planted=0.5,
    setback=0.45,
    storeys=3.2,
    road_width=9.5,
    cars=4.0,
    trucks=0.7,
    buses=0.6,
    persons=3.5,
    lights=1.6,
    signs=2.0,
    poles=3.0,
    street_trees=1.2,
)

TARGET: Final = Setting(
    camera_height=1.64,
    horizon=0.49,
    focal=0.82,
    sun=0.0,
    light=(0.76, 0.96, 1.24),
    haze_range=140.0,
    haze=(203, 212, 226),
    saturation=0.38,
    blur=0.43,
    noise=8.7,
    vignette=0.17,
    flicker=0.1,
    cast=0.03,
    grain=1.3,
    patches=1.36,
    tile=0.89,
    built=0.68,
    fenced=0.55,
    planted=0.71,
    setback=0.31,
    storeys=4.06,
    road_width=8.07,
    cars=5.43,
    trucks=0.56,
    buses=0.46,
    persons=4.5,
    lights=1.74,
    signs=2.71,
    poles=3.57,
    street_trees=1.91,
)


# What differs from the target's day after dark. Chosen by eye on two dozen drawn images, never by
# a score on night labels.
_AFTER_DARK: Final[Mapping[str, float | Triple]] = {
    "sun": 0.0,
    "light": (0.17, 0.19, 0.27),
    "haze": (38, 34, 40),
    "haze_range": 90.0,
    "blur": 0.6,
    "noise": 10.0,
    "vignette": 0.3,
    "flicker": 0.15,
    "lamps": 1.0,
}


@dataclass(frozen=True)
class Look:
    """A `Setting` with the surface colours that go with it."""

    setting: Setting
    colours: Mapping[str, Variants]


def _between(source: float | Triple, target: float | Triple, shift: float) -> float | Triple:
    if isinstance(source, tuple) and isinstance(target, tuple):
        r, g, b = (s + shift * (t - s) for s, t in zip(source, target, strict=True))
        return (r, g, b)
    if isinstance(source, tuple) or isinstance(target, tuple):
        raise TypeError(f"_between: expected two numbers or two triples, got {source}, {target}.")
    return source + shift * (target - source)


@lru_cache(maxsize=16)
def look_of(domain: Domain, shift: float, night: bool = False) -> Look:
    """Return the look of a domain.

    Args:
        domain: "source" or "target".
        shift: 0..1; how far the target's look has moved from the source's. The source's own
            look does not depend on it.
        night: take the target after dark.

    Returns:
        The look; at shift 0 both domains share one.
    """
    amount = shift if domain == "target" else 0.0
    numbers = {
        field.name: _between(getattr(SOURCE, field.name), getattr(TARGET, field.name), amount)
        for field in fields(Setting)
    }
    setting = Setting(**numbers)  # type: ignore[arg-type]
    if night and domain == "target":
        setting = replace(setting, **_AFTER_DARK)  # type: ignore[arg-type]
    return Look(setting, blend(amount))
