"""Poles, traffic lights and traffic signs that stand at the kerb."""

from __future__ import annotations

import math
from typing import Final

from reference.synthetic.canvas import Stamp
from reference.synthetic.painter import Painter

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
