"""Draw one street scene with its labels, from four numbers and a domain."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Final, get_args

import numpy as np

from reference.synthetic import street as fixed
from reference.synthetic import things
from reference.synthetic.appearance import Bytes, develop
from reference.synthetic.draw import Split
from reference.synthetic.look import DOMAINS, Domain, look_of
from reference.synthetic.painter import SUPERSAMPLE, Camera, Canvas, Painter, Span
from reference.synthetic.street import Street, paint_tree

# Distance and what paints the thing that stands there.
Placed = tuple[float, Callable[[], None]]

_TRIES: Final = 8


def _place_vehicles(painter: Painter, street: Street) -> Iterator[Placed]:
    setting, parking = painter.setting, street.kerb - 1.15
    driving = street.kerb * (0.42 if street.kerb > 4.6 else 0.3)
    middles = (-parking, -driving, driving, parking)
    # Stretches (from, to) of the four lanes that are occupied, metres.
    taken: tuple[list[Span], ...] = ([], [], [], [])

    def place(paint: Callable[..., None], length: float, nearest: float) -> Iterator[Placed]:
        for _ in range(_TRIES):
            lane = int(painter.rng.choice(4, p=(0.3, 0.25, 0.2, 0.25)))
            z = nearest + 46.0 * float(painter.rng.random()) ** 1.4 + (3.0 if lane == 2 else 0.0)
            # Who drives keeps off the parked ones beside.
            beside = {1: taken[0], 2: taken[3]}.get(lane, [])
            if all(z + length + 1.0 < a or z > b + 1.0 for a, b in taken[lane] + beside):
                taken[lane].append((z, z + length))
                x = middles[lane] + painter.between(-0.15, 0.15)
                yield z, partial(paint, painter, x, z, lane < 2)
                return

    for paint, mean, length, nearest in (
        (things.paint_bus, setting.buses, 11.5, 9.0),
        (things.paint_truck, setting.trucks, 9.0, 8.0),
        (things.paint_car, setting.cars, 4.6, 5.0),
    ):
        for _ in range(painter.count(mean)):
            yield from place(paint, length, nearest)


def _place_persons(painter: Painter, street: Street) -> Iterator[Placed]:
    for _ in range(painter.count(painter.setting.persons)):
        z = painter.between(4.5, 17.0)
        if painter.chance(0.15):
            x = painter.between(-street.kerb, street.kerb)
        else:
            side = painter.side()
            x = side * painter.between(street.kerb + 0.7, street.walk_of(side) - 0.2)
        yield z, partial(things.paint_person, painter, x, z)


def _place_furniture(painter: Painter, street: Street) -> Iterator[Placed]:
    setting = painter.setting
    for paint, mean, nearest, farthest in (
        (things.paint_lamp_post, setting.poles, 6.0, 28.0),
        (things.paint_traffic_light, setting.lights, 7.0, 22.0),
        (things.paint_traffic_sign, setting.signs, 6.0, 22.0),
    ):
        for _ in range(painter.count(mean)):
            z = painter.between(nearest, farthest)
            x = painter.side() * (street.kerb + painter.between(0.35, 0.8))
            yield z, partial(paint, painter, x, z)
    for _ in range(painter.count(setting.street_trees)):
        z = painter.between(9.0, 45.0)
        x = painter.side() * (street.kerb + painter.between(0.9, 1.4))
        yield z, partial(paint_tree, painter, x, z, painter.between(4.0, 6.5))


def _place_movable(painter: Painter, street: Street) -> list[Placed]:
    return [*_place_vehicles(painter, street), *_place_persons(painter, street)]


def paint_traffic(
    painter: Painter, street: Street, others: np.random.Generator | None = None
) -> None:
    """Place vehicles, persons and street furniture, then paint them from far to near.

    `others` draws other vehicles and persons for the same street and furniture; without it the
    scene keeps its own.
    """
    if others is None:
        placed = [*_place_movable(painter, street), *_place_furniture(painter, street)]
    else:
        # Its own traffic is still painted, out of sight: the furniture then draws the same numbers.
        unseen = Canvas(painter.canvas.height, painter.canvas.width)
        placed = _place_movable(replace(painter, canvas=unseen), street)
        placed += _place_furniture(painter, street)
        placed += _place_movable(replace(painter, rng=others), street)
    for _, paint in sorted(placed, key=lambda thing: -thing[0]):
        paint()


SPLITS: Final[tuple[Split, ...]] = get_args(Split)


def draw_scene(
    seed: int, domain: Domain, index: int, size: tuple[int, int] = (96, 192),
    shift: float = 0.7, split: Split = "train", night: bool = False,
    other_traffic: bool = False,
) -> tuple[Bytes, Bytes]:  # fmt: skip
    """Draw one street scene, which depends on (seed, domain, split, index) alone.

    The image is uint8 (H, W, 3), RGB; with it come class numbers uint8 (H, W) of Cityscapes. The
    target's look has moved from the source's by `shift`, 0..1; at `night` it is lit by lamps.
    `other_traffic` puts other vehicles and persons into the same street.

    Example:
        >>> image, labels = draw_scene(0, "target", 7)
        >>> image.shape, labels.shape
        ((96, 192, 3), (96, 192))
    """
    key = [seed, DOMAINS.index(domain), SPLITS.index(split), index]
    rng = np.random.default_rng(key)
    look = look_of(domain, shift, night)
    height, width = (SUPERSAMPLE * side for side in size)
    setting = look.setting
    camera = Camera(
        focal=setting.focal * width,
        centre=width * (0.5 + 0.05 * float(rng.standard_normal())),
        horizon=height * (setting.horizon + 0.02 * float(rng.standard_normal())),
        height=setting.camera_height * float(rng.uniform(0.92, 1.08)),
        lateral=setting.road_width * float(rng.uniform(0.08, 0.28)),
        curve=0.0006 * float(rng.standard_normal()),
    )
    painter = Painter(Canvas(height, width), camera, look, rng, 1 if rng.random() < 0.5 else -1)
    layout = fixed.plan_street(painter)
    fixed.paint_sky(painter)
    fixed.paint_skyline(painter)
    fixed.paint_ground(painter, layout)
    for side in (-1, 1):
        fixed.paint_roadside(painter, layout, side)
    paint_traffic(painter, layout, np.random.default_rng([*key, 1]) if other_traffic else None)
    return develop(painter)
