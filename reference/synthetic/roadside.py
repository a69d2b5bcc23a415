"""What lines the street: buildings with windows, parks with fences, and the distant skyline."""

from __future__ import annotations

from typing import Final

from reference.synthetic.canvas import Colour, Material, Stamp
from reference.synthetic.greenery import paint_bush, paint_tree
from reference.synthetic.ground import FAR, Street
from reference.synthetic.painter import Painter

BUILDING: Final = Stamp(2, Material.MASONRY)
FENCE: Final = Stamp(4)

_STOREY: Final = 3.1
# Windows beyond this distance are smaller than a pixel.
_WINDOWS_TO: Final = 60.0


def _scale(colour: Colour, factor: float) -> Colour:
    r, g, b = (int(min(channel * factor, 255.0)) for channel in colour)
    return (r, g, b)


def paint_skyline(painter: Painter) -> None:
    """Paint woods and houses that close the view at the horizon."""
    for _ in range(14):
        x, z = painter.between(-150, 150), painter.between(120, FAR)
        if painter.chance(0.35):
            width, height = painter.between(12, 30), painter.between(8, 20)
            wall = painter.colour("building", 8)
            painter.upright((x, x + width), (0, height), z, wall, BUILDING.at(z))
        else:
            paint_bush(painter, x, z, painter.between(6, 13), puffs=5)


def _window_spans(length: float, pitch: float, share: float) -> list[tuple[float, float]]:
    count = max(int(length / pitch), 1)
    step = length / count
    return [((i + 0.5 - share / 2) * step, (i + 0.5 + share / 2) * step) for i in range(count)]


def _paint_house(painter: Painter, side: int, x: float, near: float, far: float) -> None:
    storeys = max(1, round(painter.setting.storeys + painter.between(-1.4, 1.6)))
    height = storeys * _STOREY + painter.between(0.4, 1.2)
    variant = painter.variant("building")
    base = painter.colour("building", 9, variant)
    stamp = BUILDING.at((near + min(far, near + 15)) / 2)
    depth = side * painter.between(9, 14)

    # The end wall looks at the camera; the street front looks across the road.
    end = _scale(base, 0.9)
    painter.upright((x, x + depth), (0, height), near, end, stamp.at(near))
    front = _scale(base, painter.facing(side))
    painter.along(x, (0, height), (near, far), front, stamp)
    roof = _scale(base, 0.7)
    painter.along(x, (height - 0.35, height), (near, far), roof, stamp)
    if painter.setting.gabled > 0 and painter.chance(painter.setting.gabled):
        _paint_gable(painter, (x, x + depth), height, (near, far), stamp)
    if near < _WINDOWS_TO:
        _paint_front(painter, side, x, (near, far), storeys, stamp)
        _paint_end_windows(painter, (x, depth), near, storeys, stamp.at(near))


def _paint_gable(
    painter: Painter,
    wall: tuple[float, float],
    height: float,
    z: tuple[float, float],
    stamp: Stamp,
) -> None:
    """Paint a pitched roof whose ridge runs along the street."""
    (x0, x1), (near, far) = wall, z
    ridge, top = (x0 + x1) / 2, height + painter.between(2.0, 4.0)
    tiles = painter.colour("trunk", 14, factor=painter.between(0.7, 1.5))
    painter.shape(
        [(x0, height, near), (x1, height, near), (ridge, top, near)], tiles, stamp.at(near)
    )
    slope = [(x0, height, near), (x0, height, far), (ridge, top, far), (ridge, top, near)]
    painter.shape(slope, _scale(tiles, 1.15), stamp)


def _paint_front(
    painter: Painter, side: int, x: float, z: tuple[float, float], storeys: int, stamp: Stamp
) -> None:
    near, far = z
    facing = painter.facing(side)
    pane = stamp.of(Material.GLASS)
    shop = painter.chance(0.45)
    if shop:
        colour = painter.colour("shop", 6, factor=facing)
        painter.along(x, (0, 0.9 * _STOREY), (near, far), colour, stamp)
    spans = _window_spans(far - near, painter.between(2.4, 3.4), painter.between(0.4, 0.6))
    variant = painter.variant("window")
    for storey in range(storeys):
        glass_band = storey == 0 and shop
        sill = 0.5 if glass_band else storey * _STOREY + 1.0
        top = 2.3 if glass_band else sill + painter.between(1.3, 1.7)
        for start, stop in spans:
            if near + start > _WINDOWS_TO:
                break
            colour = painter.colour("window", 9, variant)
            painter.along(x, (sill, top), (near + start, near + stop), colour, pane)


def _paint_end_windows(
    painter: Painter, wall: tuple[float, float], z: float, storeys: int, stamp: Stamp
) -> None:
    x, depth = wall
    sign = 1 if depth > 0 else -1
    variant = painter.variant("window")
    for storey in range(storeys):
        sill = storey * _STOREY + 1.0
        for start, stop in _window_spans(abs(depth), 3.2, 0.4):
            colour = painter.colour("window", 6, variant)
            span = (x + sign * start, x + sign * stop)
            painter.upright(span, (sill, sill + 1.5), z, colour, stamp.of(Material.GLASS))


def _paint_fence(painter: Painter, x: float, near: float, far: float) -> None:
    height = painter.between(1.5, 2.2)
    variant = painter.variant("fence")
    stamp = FENCE.at((near + min(far, near + 15)) / 2)
    painter.along(x, (0, height), (near, far), painter.colour("fence", 5, variant, 0.55), stamp)
    picket = painter.colour("fence", 5, variant, 1.1)
    pitch = painter.between(0.6, 1.0)
    z = near
    while z < min(far, 45.0):
        painter.along(x, (0, height), (z, z + 0.5 * pitch), picket, stamp)
        z += pitch
    painter.along(x, (height - 0.2, height), (near, far), picket, stamp)


def _paint_park(painter: Painter, side: int, street: Street, near: float, far: float) -> None:
    edge = street.walk_of(side)
    density = painter.setting.planted
    spots = sorted(
        ((painter.between(near, far), painter.between(2.5, 16)) for _ in range(6)), reverse=True
    )
    for z, away in spots:
        if painter.chance(density):
            paint_tree(painter, side * (edge + away), z, painter.between(4.5, 9.0))
        elif painter.chance(density):
            paint_bush(painter, side * (edge + away), z, painter.between(1.0, 2.2), puffs=7)
    if painter.chance(painter.setting.fenced):
        _paint_fence(painter, side * (edge + painter.between(0.1, 1.5)), near, far)


def paint_roadside(painter: Painter, street: Street, side: int) -> None:
    """Paint one side of the street, from far to near.

    Args:
        painter: the hand.
        street: widths of road and sidewalks.
        side: -1 for left, +1 for right.
    """
    lots = []
    z = painter.between(3.0, 9.0)
    while z < 110.0:
        length = painter.between(9.0, 24.0)
        lots.append((z, z + length, painter.chance(painter.setting.built)))
        z += length + painter.between(0.0, 3.0)
    for near, far, built in reversed(lots):
        if not built:
            _paint_park(painter, side, street, near, far)
            continue
        verge = painter.between(1.5, 4.0) if painter.chance(painter.setting.setback) else 0.0
        x = side * (street.walk_of(side) + verge)
        if side == painter.sun_from:
            _shade_street(painter, side, x, near, far)
        _paint_house(painter, side, x, near, far)


def _shade_street(painter: Painter, side: int, x: float, near: float, far: float) -> None:
    reach = x - side * painter.between(4.0, 9.0)
    corners = [(x, 0.0, near), (x, 0.0, far), (reach, 0.0, far), (reach, 0.0, near)]
    painter.canvas.cast_shadow(painter.camera.points(*corners))
