"""Cars, trucks and buses: boxes in perspective with glass, lamps and wheels.

A vehicle shows the face that looks at the camera (its rear, or its front when it comes towards
the camera) and the flank that looks at the camera's path.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from reference.synthetic.canvas import Colour, Material, Stamp
from reference.synthetic.painter import Painter

CAR: Final = Stamp(13)
TRUCK: Final = Stamp(14)
BUS: Final = Stamp(15)


@dataclass(frozen=True)
class Body:
    """Where a vehicle stands.

    Args:
        x: middle, metres.
        z: distance of the face that looks at the camera, metres.
        half: half its width, metres.
        length: metres.
        oncoming: whether the front looks at the camera.
        flank: x of the side wall that the camera sees.
    """

    x: float
    z: float
    half: float
    length: float
    oncoming: bool
    flank: float

    @property
    def left(self) -> float:
        """x of the left edge."""
        return self.x - self.half

    @property
    def right(self) -> float:
        """x of the right edge."""
        return self.x + self.half


def _stand(
    painter: Painter, x: float, z: float, half: float, length: float, oncoming: bool
) -> Body:
    side = -1 if x > painter.camera.lateral - painter.camera.curve * z * z else 1
    shadow = 0.25 + 0.9 * painter.setting.sun
    reach = -painter.sun_from * shadow
    left, right = x - half + min(reach, -0.1), x + half + max(reach, 0.1)
    corners = [(left, 0.0, z - 0.15), (right, 0.0, z - 0.15)]
    corners += [(right, 0.0, z + length), (left, 0.0, z + length)]
    painter.canvas.cast_shadow(painter.camera.points(*corners))
    return Body(x, z, half, length, oncoming, x + side * half)


def _scale(colour: Colour, factor: float) -> Colour:
    r, g, b = (int(min(channel * factor, 255.0)) for channel in colour)
    return (r, g, b)


def _wheels(
    painter: Painter, body: Body, radius: float, axles: tuple[float, ...], stamp: Stamp
) -> None:
    tyre = painter.colour("tyre", 3)
    for share in axles:
        z = body.z + share * body.length
        # A wheel on the flank is seen almost edge-on: as narrow as the flank is foreshortened.
        near = painter.camera.point(body.flank, 0.0, z - radius)
        far = painter.camera.point(body.flank, 0.0, z + radius)
        pixels = painter.camera.pixels(radius, z)
        middle = painter.camera.point(body.flank, radius, z)
        painter.canvas.ellipse(middle, max(abs(near[0] - far[0]) / 2, 1.0), pixels, tyre, stamp)
    for side in (-1, 1):
        x = body.x + side * (body.half - 0.16)
        painter.upright((x - 0.13, x + 0.13), (0, radius), body.z, tyre, stamp)


def _lamps(painter: Painter, body: Body, y: float, size: float, stamp: Stamp) -> None:
    colour = painter.colour("head lamp" if body.oncoming else "tail lamp", 5)
    for side in (-1, 1):
        x = body.x + side * (body.half - size * 1.1)
        painter.upright(
            (x - size, x + size), (y - size * 0.6, y + size * 0.6), body.z, colour, stamp
        )
        painter.lamp((x, y, body.z), colour, 2.5)


def paint_car(painter: Painter, x: float, z: float, oncoming: bool) -> None:
    """Paint a car whose near face stands at (x, z)."""
    body = _stand(painter, x, z, 0.92, painter.between(3.8, 4.6), oncoming)
    stamp, tall = CAR.at(z), painter.between(1.4, 1.75)
    variant = painter.variant("car")
    paint = painter.colour("car", 8, variant)
    flank = _scale(paint, 0.8)
    waist, back = 0.58 * tall, body.z + body.length
    glass, pane = painter.colour("glass", 4), stamp.of(Material.GLASS)
    slope = 0.22 * body.length

    painter.along(body.flank, (0.3, waist), (body.z, back), flank, stamp)
    top, roof_z = 0.78 * body.half, z + 0.5 * slope
    inset = body.x + math.copysign(top, body.flank - body.x)
    cabin = [(body.flank, waist, z), (body.flank, waist, back - 0.4)]
    cabin += [(inset, tall, back - 0.4 - slope), (inset, tall, roof_z)]
    painter.shape(cabin, flank, stamp)
    panes = [(body.flank, waist, z + 0.5), (body.flank, waist, back - 0.8)]
    panes += [(inset, tall - 0.14, back - 0.7 - slope), (inset, tall - 0.14, roof_z + 0.5)]
    painter.shape(panes, glass, pane)
    face = [
        (body.left, 0.28, z),
        (body.right, 0.28, z),
        (body.right, waist, z),
        (body.left, waist, z),
    ]
    painter.shape(face, paint, stamp)
    rear = [(body.left + 0.04, waist, z), (body.right - 0.04, waist, z)]
    rear += [(body.x + top, tall, roof_z), (body.x - top, tall, roof_z)]
    painter.shape(rear, paint, stamp)
    screen = [(body.left + 0.16, waist + 0.04, z), (body.right - 0.16, waist + 0.04, z)]
    screen += [(body.x + top - 0.1, tall - 0.12, roof_z), (body.x - top + 0.1, tall - 0.12, roof_z)]
    painter.shape(screen, glass, pane)
    bumper = _scale(paint, 0.62)
    painter.upright((body.left, body.right), (0.28, 0.44), z, bumper, stamp)
    painter.upright((x - 0.26, x + 0.26), (0.46, 0.58), z, painter.colour("plate", 4), stamp)
    _lamps(painter, body, 0.72, 0.17, stamp)
    _wheels(painter, body, 0.32, (0.2, 0.8), stamp)


def paint_truck(painter: Painter, x: float, z: float, oncoming: bool) -> None:
    """Paint a truck: a plain tall box, and a coloured cab where the front is seen."""
    body = _stand(painter, x, z, 1.25, painter.between(6.5, 9.0), oncoming)
    stamp, tall = TRUCK.at(z), painter.between(3.1, 3.7)
    variant, cab_variant = painter.variant("truck"), painter.variant("truck cab")
    box = painter.colour("truck", 6, variant)
    cab = painter.colour("truck cab", 6, cab_variant)
    under = painter.colour("tyre", 4, factor=1.6)
    back = z + body.length
    cab_near, cab_far = (z, z + 2.0) if oncoming else (back - 2.0, back)
    box_near, box_far = (z + 2.2, back) if oncoming else (z, back - 2.2)

    painter.along(body.flank, (0.35, 1.0), (z, back), under, stamp)
    painter.along(body.flank, (1.0, tall), (box_near, box_far), _scale(box, 0.82), stamp)
    for share in (0.25, 0.5, 0.75):
        rib = box_near + share * (box_far - box_near)
        painter.along(body.flank, (1.0, tall), (rib, rib + 0.12), _scale(box, 0.66), stamp)
    painter.along(body.flank, (0.5, 0.8 * tall), (cab_near, cab_far), _scale(cab, 0.85), stamp)
    across = (body.left, body.right)
    painter.upright(across, (0.35, 1.0), z, under, stamp)
    if oncoming:
        painter.upright(across, (1.0, tall), z + 2.1, box, stamp)
        painter.upright(across, (0.5, 0.8 * tall), z, cab, stamp)
        screen, glass = (0.48 * tall, 0.74 * tall), painter.colour("glass", 4)
        painter.upright(
            (body.left + 0.12, body.right - 0.12), screen, z, glass, stamp.of(Material.GLASS)
        )
    else:
        painter.upright(across, (1.0, tall), z, box, stamp)
        seam = _scale(box, 0.6)
        painter.upright((x - 0.05, x + 0.05), (1.0, tall), z, seam, stamp)
        painter.upright(across, (tall - 0.14, tall), z, seam, stamp)
        painter.upright(across, (1.0, 1.22), z, cab, stamp)
    _lamps(painter, body, 0.8, 0.16, stamp)
    _wheels(painter, body, 0.5, (0.14, 0.3, 0.86), stamp)


def paint_bus(painter: Painter, x: float, z: float, oncoming: bool) -> None:
    """Paint a bus: bright, with a row of windows and a pale stripe on every side."""
    body = _stand(painter, x, z, 1.27, painter.between(8.5, 11.5), oncoming)
    stamp, tall = BUS.at(z), painter.between(2.9, 3.2)
    variant = painter.variant("bus")
    paint = painter.colour("bus", 6, variant)
    stripe, glass = painter.colour("bus stripe", 5), painter.colour("glass", 4)
    pane, back = stamp.of(Material.GLASS), z + body.length
    low, high = 0.46 * tall, 0.84 * tall

    painter.along(body.flank, (0.35, tall), (z, back), _scale(paint, 0.82), stamp)
    painter.along(body.flank, (0.34 * tall, 0.4 * tall), (z, back), _scale(stripe, 0.85), stamp)
    step = body.length / 7
    for i in range(7):
        span = (z + (i + 0.1) * step, z + (i + 0.9) * step)
        painter.along(body.flank, (low, high), span, glass, pane)
    across = (body.left, body.right)
    painter.upright(across, (0.35, tall), z, paint, stamp)
    painter.upright(across, (0.34 * tall, 0.4 * tall), z, stripe, stamp)
    for side in (-1, 1):
        middle = x + side * 0.58
        painter.upright((middle - 0.5, middle + 0.5), (low, high), z, glass, pane)
    board = painter.colour("light box", 4)
    painter.upright((x - 0.8, x + 0.8), (0.87 * tall, 0.95 * tall), z, board, stamp)
    painter.upright(across, (0.35, 0.5), z, _scale(paint, 0.6), stamp)
    _lamps(painter, body, 0.72, 0.18, stamp)
    _wheels(painter, body, 0.48, (0.18, 0.78), stamp)
