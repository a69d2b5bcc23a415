"""What stands in the street: poles, lights, signs, persons and vehicles."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from reference.synthetic.canvas import Material, Stamp
from reference.synthetic.painter import Painter, scaled

STREET_LIGHT: Final = (255, 196, 120)
STREET_LIGHT_REACH: Final = 9.0
POLE: Final = Stamp(5)
TRAFFIC_LIGHT: Final = Stamp(6)
TRAFFIC_SIGN: Final = Stamp(7)


def _paint_pole(painter: Painter, x: float, z: float, height: float, width: float) -> None:
    variant = painter.variant("pole")
    stamp = POLE.at(z)
    base = painter.colour("pole", 5, variant)
    painter.upright((x - width / 2, x + width / 2), (0, height), z, base, stamp)
    lit = painter.colour("pole", 4, variant, 1.3)
    edge = x + painter.sun_from * width / 4
    painter.upright((edge - width / 6, edge + width / 6), (0, height), z, lit, stamp)


def paint_lamp_post(painter: Painter, x: float, z: float) -> None:
    """Paint a street lamp whose arm reaches over the road."""
    height = painter.between(5.5, 8.0)
    _paint_pole(painter, x, z, height, 0.36)
    reach = -math.copysign(painter.between(1.2, 2.0), x)
    colour = painter.colour("pole", 5)
    span = (min(x, x + reach), max(x, x + reach))
    painter.upright(span, (height - 0.3, height), z, colour, POLE.at(z))
    painter.lamp((x + 0.9 * reach, height - 0.15, z), STREET_LIGHT, STREET_LIGHT_REACH)


def paint_traffic_light(painter: Painter, x: float, z: float) -> None:
    """Paint a pole with a dark box of three lamps, one of them lit."""
    height = painter.between(3.0, 4.0)
    _paint_pole(painter, x, z, height, 0.28)
    stamp = TRAFFIC_LIGHT.at(z)
    box = painter.colour("light box", 4)
    half, tall = 0.42, 1.7
    painter.upright((x - half, x + half), (height - 0.2, height - 0.2 + tall), z, box, stamp)
    lit = painter.variant("lamp")
    for lamp in range(3):
        factor = 1.0 if lamp == lit else 0.28
        y = height - 0.2 + tall * (5 - 2 * lamp) / 6
        colour = painter.colour("lamp", 6, lamp, factor)
        painter.disc((x, y, z), 0.24, colour, stamp)
        if lamp == lit:
            painter.lamp((x, y, z), colour)


def paint_traffic_sign(painter: Painter, x: float, z: float) -> None:
    """Paint a pole with a round, triangular, square or rectangular plate."""
    height = painter.between(2.4, 3.2)
    _paint_pole(painter, x, z, height + 0.4, 0.26)
    stamp = TRAFFIC_SIGN.at(z)
    face = painter.colour("sign face", 5)
    y, size = height, painter.between(0.5, 0.75)
    kind = int(painter.rng.integers(4))
    if kind == 0:
        painter.disc((x, y, z), size, painter.colour("sign", 6, 0), stamp)
        painter.disc((x, y, z), 0.55 * size, face, stamp)
    elif kind == 1:
        rim, inner = painter.colour("sign", 6, 0), 0.5 * size
        painter.shape(
            [(x - size, y - size, z), (x + size, y - size, z), (x, y + size, z)], rim, stamp
        )
        low = y - 0.65 * size
        painter.shape(
            [(x - inner, low, z), (x + inner, low, z), (x, y + 0.4 * size, z)], face, stamp
        )
    elif kind == 2:
        blue = painter.colour("sign", 6, 1)
        painter.upright((x - size, x + size), (y - size, y + size), z, blue, stamp)
        arrow = [(x - 0.4 * size, y, z), (x, y + 0.6 * size, z), (x + 0.4 * size, y, z)]
        painter.shape(arrow, face, stamp)
        painter.upright((x - 0.15 * size, x + 0.15 * size), (y - 0.6 * size, y), z, face, stamp)
    else:
        long = 1.7 * size
        board = painter.colour("sign", 6, 2)
        painter.upright((x - long, x + long), (y - 0.5 * size, y + 0.6 * size), z, face, stamp)
        inside = (x - 0.88 * long, x + 0.88 * long)
        painter.upright(inside, (y - 0.36 * size, y + 0.46 * size), z, board, stamp)


PERSON: Final = Stamp(11)


def paint_person(painter: Painter, x: float, z: float) -> None:
    """Paint a person who stands or walks at (x, z), facing the camera or turned away."""
    tall = painter.between(1.65, 2.0)
    stamp = PERSON.at(z)
    skin = painter.variant("skin")
    trousers = painter.colour("trousers", 6)
    shirt_variant = painter.variant("shirt")
    shirt = painter.colour("shirt", 6, shirt_variant)
    sleeve = painter.colour("shirt", 6, shirt_variant, 0.8)
    stride = painter.between(0.04, 0.26)
    hip, neck = 0.48 * tall, 0.84 * tall
    for leg in (-1, 1):
        foot = x + leg * (stride + 0.05)
        corners = [(foot - 0.12, 0.0, z), (foot + 0.12, 0.0, z)]
        corners += [(x + leg * 0.1 + 0.13, hip, z), (x + leg * 0.1 - 0.13, hip, z)]
        painter.shape(corners, trousers, stamp)
    for arm in (-1, 1):
        shoulder, hand = x + arm * 0.27, x + arm * (0.33 + 0.6 * stride)
        corners = [(shoulder - 0.09, neck, z), (shoulder + 0.09, neck, z)]
        corners += [(hand + 0.08, hip - 0.05, z), (hand - 0.08, hip - 0.05, z)]
        painter.shape(corners, sleeve, stamp)
    torso = [(x - 0.25, hip - 0.05, z), (x + 0.25, hip - 0.05, z)]
    torso += [(x + 0.31, neck, z), (x - 0.31, neck, z)]
    painter.shape(torso, shirt, stamp)
    hair = painter.colour("trunk", 10, factor=0.6)
    painter.disc((x, 0.94 * tall, z), 0.18, hair, stamp, squash=0.85)
    painter.disc((x, 0.91 * tall, z), 0.155, painter.colour("skin", 6, skin), stamp, squash=0.85)


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
    flank = scaled(paint, 0.8)
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
    bumper = scaled(paint, 0.62)
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
    painter.along(body.flank, (1.0, tall), (box_near, box_far), scaled(box, 0.82), stamp)
    for share in (0.25, 0.5, 0.75):
        rib = box_near + share * (box_far - box_near)
        painter.along(body.flank, (1.0, tall), (rib, rib + 0.12), scaled(box, 0.66), stamp)
    painter.along(body.flank, (0.5, 0.8 * tall), (cab_near, cab_far), scaled(cab, 0.85), stamp)
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
        seam = scaled(box, 0.6)
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

    painter.along(body.flank, (0.35, tall), (z, back), scaled(paint, 0.82), stamp)
    painter.along(body.flank, (0.34 * tall, 0.4 * tall), (z, back), scaled(stripe, 0.85), stamp)
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
    painter.upright(across, (0.35, 0.5), z, scaled(paint, 0.6), stamp)
    _lamps(painter, body, 0.72, 0.18, stamp)
    _wheels(painter, body, 0.48, (0.18, 0.78), stamp)
