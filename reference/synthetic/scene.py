"""Draw one street scene with its labels, from four numbers and a domain."""

from typing import Final, get_args

import numpy as np

from reference.synthetic import street
from reference.synthetic.appearance import Bytes, develop
from reference.synthetic.canvas import SUPERSAMPLE, Camera, Canvas
from reference.synthetic.draw import Split
from reference.synthetic.look import DOMAINS, Domain, look_of
from reference.synthetic.painter import Painter
from reference.synthetic.traffic import paint_traffic
from reference.synthetic.variety import varied_look

SPLITS: Final[tuple[Split, ...]] = get_args(Split)


def draw_scene(
    seed: int,
    domain: Domain,
    index: int,
    size: tuple[int, int] = (96, 192),
    shift: float = 0.7,
    split: Split = "train",
    varied: bool = False,
    night: bool = False,
    other_traffic: bool = False,
) -> tuple[Bytes, Bytes]:
    """Draw one street scene, which depends on (seed, domain, split, index) alone.

    Args:
        seed, index: number of the data set, and of the image in it, >= 0.
        domain: "source" (sunny, crisp) or "target" (overcast, bluish, noisy).
        size: (height, width) in pixels, each at least 16.
        shift: how far the target's look has moved from the source's, 0..1.
        split: different images of the same kind.
        varied: draw a look for this source image alone.
        night: draw the target after dark, by the light of lamps.
        other_traffic: put other vehicles and persons into the same street.

    Returns:
        image uint8 (H, W, 3), RGB, and class numbers uint8 (H, W) of the 19 Cityscapes classes.

    Raises:
        ValueError: an unknown domain or split, or a number outside its range.

    Example:
        >>> image, labels = draw_scene(0, "target", 7)
        >>> image.shape, labels.shape
        ((96, 192, 3), (96, 192))
    """
    for wanted, value, ok in (
        ("seed and index >= 0", f"seed {seed} and index {index}", min(seed, index) >= 0),
        (f"domain one of {DOMAINS}", repr(domain), domain in DOMAINS),
        (f"split one of {SPLITS}", repr(split), split in SPLITS),
        ("size of at least 16 pixels each", tuple(size), min(size) >= 16),
        ("shift in [0, 1]", shift, 0.0 <= shift <= 1.0),
    ):
        if not ok:
            raise ValueError(f"draw_scene: expected {wanted}, got {value}.")
    key = [seed, DOMAINS.index(domain), SPLITS.index(split), index]
    rng = np.random.default_rng(key)
    look = varied_look(rng) if varied and domain == "source" else look_of(domain, shift, night)
    height, width = (SUPERSAMPLE * side for side in size)
    setting = look.setting
    camera = Camera(
        focal=setting.focal * width,
        centre=width * (0.5 + setting.wander * float(rng.standard_normal())),
        horizon=height * (setting.horizon + 0.02 * float(rng.standard_normal())),
        height=setting.camera_height * float(rng.uniform(0.92, 1.08)),
        lateral=setting.road_width * float(rng.uniform(0.08, 0.28)),
        curve=0.0006 * float(rng.standard_normal()),
    )
    painter = Painter(Canvas(height, width), camera, look, rng, 1 if rng.random() < 0.5 else -1)
    layout = street.plan_street(painter)
    street.paint_sky(painter)
    street.paint_skyline(painter)
    street.paint_ground(painter, layout)
    for side in (-1, 1):
        street.paint_roadside(painter, layout, side)
    paint_traffic(painter, layout, np.random.default_rng([*key, 1]) if other_traffic else None)
    return develop(painter)
