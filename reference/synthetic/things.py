"""What stands in the street: poles, lights, signs, persons and vehicles."""

import math
from typing import Final, NamedTuple

from reference.synthetic.painter import Material, Painter, Span, Stamp, scaled

STREET_LIGHT: Final = (255, 196, 120)
STREET_LIGHT_REACH: Final = 9.0
POLE: Final = Stamp(5)
TRAFFIC_LIGHT: Final = Stamp(6)
TRAFFIC_SIGN: Final = Stamp(7)


def _around(middle: float, half: float) -> Span:
    return middle - half, middle + half


def _paint_pole(painter: Painter, x: float, z: float, height: float, width: float) -> None:
    variant, stamp = painter.variant("pole"), POLE.at(z)
    base = painter.colour("pole", 5, variant)
    painter.upright(_around(x, width / 2), (0, height), z, base, stamp)
    lit, edge = painter.colour("pole", 4, variant, 1.3), x + painter.sun_from * width / 4
    painter.upright(_around(edge, width / 6), (0, height), z, lit, stamp)


def paint_lamp_post(painter: Painter, x: float, z: float) -> None:
    """Paint a street lamp whose arm reaches over the road."""
    height = painter.between(5.5, 8.0)
    _paint_pole(painter, x, z, height, 0.36)
    reach = -math.copysign(painter.between(1.2, 2.0), x)
    span = (min(x, x + reach), max(x, x + reach))
    painter.upright(span, (height - 0.3, height), z, painter.colour("pole", 5), POLE.at(z))
    painter.lamp((x + 0.9 * reach, height - 0.15, z), STREET_LIGHT, STREET_LIGHT_REACH)


def paint_traffic_light(painter: Painter, x: float, z: float) -> None:
    """Paint a pole with a dark box of three lamps, one of them lit."""
    height = painter.between(3.0, 4.0)
    _paint_pole(painter, x, z, height, 0.28)
    stamp, box, tall = TRAFFIC_LIGHT.at(z), painter.colour("light box", 4), 1.7
    painter.upright(_around(x, 0.42), (height - 0.2, height - 0.2 + tall), z, box, stamp)
    lit = painter.variant("lamp")
    for lamp in range(3):
        y = height - 0.2 + tall * (5 - 2 * lamp) / 6
        colour = painter.colour("lamp", 6, lamp, 1.0 if lamp == lit else 0.28)
        painter.disc((x, y, z), 0.24, colour, stamp)
        if lamp == lit:
            painter.lamp((x, y, z), colour)


def paint_traffic_sign(painter: Painter, x: float, z: float) -> None:
    """Paint a pole with a round, triangular, square or rectangular plate."""
    y = painter.between(2.4, 3.2)
    _paint_pole(painter, x, z, y + 0.4, 0.26)
    stamp, face = TRAFFIC_SIGN.at(z), painter.colour("sign face", 5)
    size = painter.between(0.5, 0.75)
    kind = int(painter.rng.integers(4))
    # Red, red, blue and yellow.
    colour = painter.colour("sign", 6, max(kind - 1, 0))
    if kind == 0:
        painter.disc((x, y, z), size, colour, stamp)
        painter.disc((x, y, z), 0.55 * size, face, stamp)
    elif kind == 1:
        for half, low, top, paint in ((1, 1, 1, colour), (0.5, 0.65, 0.4, face)):
            left, right = _around(x, half * size)
            base = y - low * size
            painter.shape([(left, base, z), (right, base, z), (x, y + top * size, z)], paint, stamp)
    elif kind == 2:
        painter.upright(_around(x, size), _around(y, size), z, colour, stamp)
        arrow = [(x - 0.4 * size, y, z), (x, y + 0.6 * size, z), (x + 0.4 * size, y, z)]
        painter.shape(arrow, face, stamp)
        painter.upright(_around(x, 0.15 * size), (y - 0.6 * size, y), z, face, stamp)
    else:
        long = 1.7 * size
        painter.upright(_around(x, long), (y - 0.5 * size, y + 0.6 * size), z, face, stamp)
        inside = (y - 0.36 * size, y + 0.46 * size)
        painter.upright(_around(x, 0.88 * long), inside, z, colour, stamp)


PERSON: Final = Stamp(11)


def paint_person(painter: Painter, x: float, z: float) -> None:
    """Paint a person who stands or walks at (x, z), facing the camera or turned away."""
    tall = painter.between(1.65, 2.0)
    stamp, skin = PERSON.at(z), painter.variant("skin")
    trousers = painter.colour("trousers", 6)
    variant = painter.variant("shirt")
    shirt = painter.colour("shirt", 6, variant)
    sleeve = painter.colour("shirt", 6, variant, 0.8)
    stride = painter.between(0.04, 0.26)
    hip, neck = 0.48 * tall, 0.84 * tall
    for leg in (-1, 1):
        foot = x + leg * (stride + 0.05)
        low, high = (_around(foot, 0.12), 0.0, z), (_around(x + leg * 0.1, 0.13), hip, z)
        painter.between_edges(low, high, trousers, stamp)
    for arm in (-1, 1):
        shoulder, hand = x + arm * 0.27, x + arm * (0.33 + 0.6 * stride)
        low, high = (_around(shoulder, 0.09), neck, z), (_around(hand, 0.08), hip - 0.05, z)
        painter.between_edges(low, high, sleeve, stamp)
    low, high = (_around(x, 0.25), hip - 0.05, z), (_around(x, 0.31), neck, z)
    painter.between_edges(low, high, shirt, stamp)
    hair = painter.colour("trunk", 10, factor=0.6)
    painter.disc((x, 0.94 * tall, z), 0.18, hair, stamp, squash=0.85)
    painter.disc((x, 0.91 * tall, z), 0.155, painter.colour("skin", 6, skin), stamp, squash=0.85)


CAR: Final = Stamp(13)
TRUCK: Final = Stamp(14)
BUS: Final = Stamp(15)


class Body(NamedTuple):
    """Where a vehicle stands, in metres."""

    x: float  # middle of the face that looks at the camera
    z: float  # its distance
    half: float  # half its width
    length: float  # of the whole vehicle
    oncoming: bool  # whether the front looks at the camera
    flank: float  # x of the side wall that the camera sees

    @property
    def across(self) -> Span:
        return _around(self.x, self.half)


def _stand(
    painter: Painter, x: float, z: float, half: float, length: float, oncoming: bool
) -> Body:
    side = -1 if x > painter.camera.lateral - painter.camera.curve * z * z else 1
    reach = -painter.sun_from * (0.25 + 0.9 * painter.setting.sun)
    left, right = x - half + min(reach, -0.1), x + half + max(reach, 0.1)
    near, far = z - 0.15, z + length
    ground = [(left, 0.0, near), (right, 0.0, near), (right, 0.0, far), (left, 0.0, far)]
    painter.canvas.cast_shadow(painter.camera.points(*ground))
    return Body(x, z, half, length, oncoming, x + side * half)


def _wheels(
    painter: Painter, body: Body, radius: float, axles: tuple[float, ...], stamp: Stamp
) -> None:
    tyre, camera = painter.colour("tyre", 3), painter.camera
    for share in axles:
        z = body.z + share * body.length
        # A wheel on the flank is seen almost edge-on: as narrow as the flank is foreshortened.
        near = camera.point(body.flank, 0.0, z - radius)[0]
        far = camera.point(body.flank, 0.0, z + radius)[0]
        middle, narrow = camera.point(body.flank, radius, z), max(abs(near - far) / 2, 1.0)
        painter.canvas.ellipse(middle, narrow, camera.pixels(radius, z), tyre, stamp)
    for side in (-1, 1):
        x = body.x + side * (body.half - 0.16)
        painter.upright(_around(x, 0.13), (0, radius), body.z, tyre, stamp)


def _lamps(painter: Painter, body: Body, y: float, size: float, stamp: Stamp) -> None:
    colour = painter.colour("head lamp" if body.oncoming else "tail lamp", 5)
    for side in (-1, 1):
        x = body.x + side * (body.half - size * 1.1)
        painter.upright(_around(x, size), _around(y, size * 0.6), body.z, colour, stamp)
        painter.lamp((x, y, body.z), colour, 2.5)


def paint_car(painter: Painter, x: float, z: float, oncoming: bool) -> None:
    """Paint a car whose near face stands at (x, z)."""
    body = _stand(painter, x, z, 0.92, painter.between(3.8, 4.6), oncoming)
    stamp, tall = CAR.at(z), painter.between(1.4, 1.75)
    paint = painter.colour("car", 8, painter.variant("car"))
    glass, pane = painter.colour("glass", 4), stamp.of(Material.GLASS)
    flank, waist, back = body.flank, 0.58 * tall, z + body.length
    slope, top = 0.22 * body.length, 0.78 * body.half
    roof, left, right = z + 0.5 * slope, *body.across

    painter.along(flank, (0.3, waist), (z, back), scaled(paint, 0.8), stamp)
    inset = x + math.copysign(top, flank - x)
    cabin = [(flank, waist, z), (flank, waist, back - 0.4)]
    cabin += [(inset, tall, back - 0.4 - slope), (inset, tall, roof)]
    painter.shape(cabin, scaled(paint, 0.8), stamp)
    panes = [(flank, waist, z + 0.5), (flank, waist, back - 0.8)]
    panes += [(inset, tall - 0.14, back - 0.7 - slope), (inset, tall - 0.14, roof + 0.5)]
    painter.shape(panes, glass, pane)
    painter.upright((left, right), (0.28, waist), z, paint, stamp)
    low, high = ((left + 0.04, right - 0.04), waist, z), (_around(x, top), tall, roof)
    painter.between_edges(low, high, paint, stamp)
    low = (left + 0.16, right - 0.16), waist + 0.04, z
    high = (x - top + 0.1, x + top - 0.1), tall - 0.12, roof
    painter.between_edges(low, high, glass, pane)
    painter.upright((left, right), (0.28, 0.44), z, scaled(paint, 0.62), stamp)
    painter.upright(_around(x, 0.26), (0.46, 0.58), z, painter.colour("plate", 4), stamp)
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
    flank, across, back = body.flank, body.across, z + body.length
    cab_span = (z, z + 2.0) if oncoming else (back - 2.0, back)
    near, far = (z + 2.2, back) if oncoming else (z, back - 2.2)

    painter.along(flank, (0.35, 1.0), (z, back), under, stamp)
    painter.along(flank, (1.0, tall), (near, far), scaled(box, 0.82), stamp)
    for share in (0.25, 0.5, 0.75):
        rib = near + share * (far - near)
        painter.along(flank, (1.0, tall), (rib, rib + 0.12), scaled(box, 0.66), stamp)
    painter.along(flank, (0.5, 0.8 * tall), cab_span, scaled(cab, 0.85), stamp)
    painter.upright(across, (0.35, 1.0), z, under, stamp)
    if oncoming:
        painter.upright(across, (1.0, tall), z + 2.1, box, stamp)
        painter.upright(across, (0.5, 0.8 * tall), z, cab, stamp)
        glass, pane = painter.colour("glass", 4), stamp.of(Material.GLASS)
        screen = (across[0] + 0.12, across[1] - 0.12)
        painter.upright(screen, (0.48 * tall, 0.74 * tall), z, glass, pane)
    else:
        painter.upright(across, (1.0, tall), z, box, stamp)
        seam = scaled(box, 0.6)
        painter.upright(_around(x, 0.05), (1.0, tall), z, seam, stamp)
        painter.upright(across, (tall - 0.14, tall), z, seam, stamp)
        painter.upright(across, (1.0, 1.22), z, cab, stamp)
    _lamps(painter, body, 0.8, 0.16, stamp)
    _wheels(painter, body, 0.5, (0.14, 0.3, 0.86), stamp)


def paint_bus(painter: Painter, x: float, z: float, oncoming: bool) -> None:
    """Paint a bus: bright, with a row of windows and a pale stripe on every side."""
    body = _stand(painter, x, z, 1.27, painter.between(8.5, 11.5), oncoming)
    stamp, tall = BUS.at(z), painter.between(2.9, 3.2)
    paint = painter.colour("bus", 6, painter.variant("bus"))
    stripe, glass = painter.colour("bus stripe", 5), painter.colour("glass", 4)
    pane, flank, across = stamp.of(Material.GLASS), body.flank, body.across
    back, step = z + body.length, body.length / 7
    band, windows = (0.34 * tall, 0.4 * tall), (0.46 * tall, 0.84 * tall)

    painter.along(flank, (0.35, tall), (z, back), scaled(paint, 0.82), stamp)
    painter.along(flank, band, (z, back), scaled(stripe, 0.85), stamp)
    for i in range(7):
        span = (z + (i + 0.1) * step, z + (i + 0.9) * step)
        painter.along(flank, windows, span, glass, pane)
    painter.upright(across, (0.35, tall), z, paint, stamp)
    painter.upright(across, band, z, stripe, stamp)
    for side in (-1, 1):
        painter.upright(_around(x + side * 0.58, 0.5), windows, z, glass, pane)
    board = painter.colour("light box", 4)
    painter.upright(_around(x, 0.8), (0.87 * tall, 0.95 * tall), z, board, stamp)
    painter.upright(across, (0.35, 0.5), z, scaled(paint, 0.6), stamp)
    _lamps(painter, body, 0.72, 0.18, stamp)
    _wheels(painter, body, 0.48, (0.18, 0.78), stamp)
