"""Everything that sets the two domains apart, and one dial between them."""

from collections.abc import Mapping
from functools import lru_cache
from types import SimpleNamespace
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

# Surface colours of both domains, RGB 0..255 before light, haze and camera, one row per variant of
# a thing. A thing has as many variants in the target as in the source, so that a colour half-way
# between the domains is defined.
Variants = npt.NDArray[np.float64]

SOURCE_COLOURS: Final = {
    "sky high": [(92, 146, 214)], "sky low": [(198, 216, 234)], "cloud": [(244, 244, 246)],
    "asphalt": [(86, 86, 92), (104, 102, 102), (122, 118, 114)], "marking": [(232, 230, 220)],
    "paving": [(184, 162, 138), (166, 150, 138), (196, 180, 160)], "kerb": [(204, 198, 188)],
    "grass": [(142, 154, 74), (156, 150, 84)],
    "foliage": [(56, 104, 44), (76, 122, 48), (46, 88, 50)], "trunk": [(92, 70, 52)],
    "building": [(178, 108, 84), (206, 182, 148), (152, 142, 138), (198, 148, 106), (126, 96, 90)],
    "shop": [(92, 66, 58), (74, 84, 92), (120, 96, 70)], "window": [(62, 78, 100), (84, 104, 128)],
    "fence": [(206, 200, 188), (164, 118, 78), (196, 180, 140)],
    "pole": [(62, 72, 70), (78, 82, 80)], "light box": [(28, 32, 30)],
    "lamp": [(236, 44, 36), (246, 186, 40), (40, 214, 120)],
    "sign": [(206, 36, 38), (28, 78, 190), (244, 204, 44)], "sign face": [(242, 240, 236)],
    "skin": [(226, 180, 150), (168, 116, 86)],
    "shirt": [(206, 44, 52), (236, 176, 40), (228, 112, 36), (128, 62, 150), (232, 96, 130)],
    "trousers": [(42, 50, 92), (56, 52, 60)],
    "car": [(186, 34, 36), (34, 66, 150), (210, 212, 214), (36, 38, 42), (132, 138, 144)],
    "glass": [(40, 50, 62)], "tyre": [(26, 26, 28)], "tail lamp": [(214, 30, 26)],
    "head lamp": [(250, 246, 222)], "plate": [(240, 238, 226)],
    "truck": [(224, 222, 214), (196, 204, 212), (214, 196, 160)],
    "truck cab": [(176, 44, 40), (40, 84, 150), (52, 120, 80)],
    "bus": [(232, 146, 36), (206, 62, 44)], "bus stripe": [(246, 240, 224)],
}  # fmt: skip

TARGET_COLOURS: Final = {
    "sky high": [(119, 161, 211)], "sky low": [(206, 219, 232)], "cloud": [(245, 245, 245)],
    "asphalt": [(89, 88, 93), (106, 104, 103), (123, 119, 115)], "marking": [(227, 225, 217)],
    "paving": [(213, 159, 118), (197, 150, 118), (222, 180, 140)], "kerb": [(193, 189, 182)],
    "grass": [(128, 145, 71), (142, 142, 78)],
    "foliage": [(64, 104, 46), (82, 119, 47), (53, 89, 52)], "trunk": [(86, 68, 54)],
    "building": [(169, 103, 86), (200, 180, 144), (145, 138, 137), (192, 146, 111), (121, 93, 91)],
    "shop": [(88, 65, 60), (72, 82, 89), (115, 95, 73)], "window": [(60, 74, 93), (85, 101, 119)],
    "fence": [(203, 198, 186), (159, 116, 80), (191, 176, 139)],
    "pole": [(61, 70, 69), (76, 80, 79)], "light box": [(30, 33, 32)],
    "lamp": [(237, 51, 40), (245, 187, 49), (49, 216, 131)],
    "sign": [(201, 37, 43), (30, 78, 181), (240, 202, 49)], "sign face": [(239, 238, 235)],
    "skin": [(223, 178, 149), (165, 115, 87)],
    "shirt": [(199, 45, 54), (229, 173, 46), (220, 111, 42), (125, 63, 145), (223, 97, 128)],
    "trousers": [(43, 50, 89), (55, 52, 59)],
    "car": [(174, 35, 38), (37, 65, 139), (209, 211, 212), (37, 39, 43), (127, 133, 139)],
    "glass": [(43, 52, 63)], "tyre": [(28, 28, 29)], "tail lamp": [(209, 33, 30)],
    "head lamp": [(248, 245, 226)], "plate": [(237, 235, 225)],
    "truck": [(218, 216, 207), (191, 199, 204), (209, 191, 157)],
    "truck cab": [(169, 46, 45), (43, 85, 144), (56, 117, 81)],
    "bus": [(227, 147, 45), (200, 65, 50)], "bus stripe": [(242, 237, 223)],
}  # fmt: skip

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
        thing: (1 - amount) * np.array(rows, dtype=np.float64)
        + amount * np.array(TARGET_COLOURS[thing])
        for thing, rows in SOURCE_COLOURS.items()
    }
    return Look(Setting(**numbers), colours)
