"""What does not move: sky, road, sidewalks, trees, houses, fences and the skyline."""

import math
from typing import Final, NamedTuple

from reference.synthetic.painter import FARTHEST, Colour, Material, Painter, Span, Stamp, scaled

ROAD: Final = Stamp(0, Material.ASPHALT)
MARKING: Final = Stamp(0)
SIDEWALK: Final = Stamp(1, Material.PAVING)
TERRAIN: Final = Stamp(9, Material.GRASS)
SKY: Final = Stamp(10, Material.SKY, FARTHEST)

NEAR: Final = 1.5
FAR: Final = 160.0
# Distances at which curved edges are sampled, metres.
_STATIONS: Final = (NEAR, 3.0, 5.0, 8.0, 12.0, 17.0, 24.0, 34.0, 48.0, 70.0, 105.0, FAR)


class Street(NamedTuple):
    """Metres from the road's middle line: to the kerbs, and to both outer edges of sidewalks."""

    kerb: float
    walk: tuple[float, float]

    def walk_of(self, side: int) -> float:
        """Return the outer edge of the sidewalk of the left (-1) or right (+1) side."""
        return self.walk[0] if side < 0 else self.walk[1]


def plan_street(painter: Painter) -> Street:
    """Draw the widths of road and sidewalks."""
    kerb = painter.setting.road_width / 2 * painter.between(0.85, 1.2)
    left, right = (painter.between(1.6, 3.4) for _ in range(2))
    return Street(kerb, (kerb + left, kerb + right))


def paint_sky(painter: Painter) -> None:
    """Fill the canvas with sky above the horizon and terrain below it."""
    canvas, horizon = painter.canvas, painter.camera.horizon
    for top, bottom, colour, stamp in (
        (0.0, horizon, painter.colour("sky low", 5), SKY),
        (horizon, canvas.height, painter.colour("grass", 6), TERRAIN),
    ):
        corners = [(0, top), (canvas.width, top), (canvas.width, bottom), (0, bottom)]
        canvas.polygon(corners, colour, stamp)


def _strip(painter: Painter, x0: float, x1: float, colour: Colour, stamp: Stamp) -> None:
    left = [painter.camera.point(x0, 0.0, z) for z in _STATIONS]
    right = [painter.camera.point(x1, 0.0, z) for z in reversed(_STATIONS)]
    painter.canvas.polygon(left + right, colour, stamp)


def paint_ground(painter: Painter, street: Street) -> None:
    """Paint sidewalks, kerbs, road and its markings."""
    for side in (-1, 1):
        edge = side * street.walk_of(side)
        _strip(painter, side * street.kerb, edge, painter.colour("paving", 7), SIDEWALK)
    _strip(painter, -street.kerb, street.kerb, painter.colour("asphalt", 7), ROAD)
    for side in (-1, 1):
        inner = side * street.kerb
        kerb = painter.colour("kerb", 5)
        _strip(painter, inner, inner + side * 0.28, kerb, SIDEWALK.of(Material.SMOOTH))
        if painter.chance(0.5):
            x = inner - side * 0.5
            _strip(painter, x - 0.09, x + 0.09, painter.colour("marking", 4), MARKING)
    x, z = painter.between(-0.4, 0.4), painter.between(NEAR, NEAR + 2.5)
    while z < 70.0:
        painter.flat((x - 0.1, x + 0.1), (z, z + 2.5), painter.colour("marking", 4), MARKING)
        z += 6.0
    if painter.chance(0.3):
        z, x = painter.between(9.0, 26.0), -street.kerb + 0.3
        while x < street.kerb - 0.5:
            painter.flat((x, x + 0.5), (z, z + 3.0), painter.colour("marking", 4), MARKING)
            x += 1.0


VEGETATION: Final = Stamp(8, Material.FOLIAGE)


def _paint_puffs(painter: Painter, x: float, y: float, z: float, radius: float, count: int) -> None:
    stamp = VEGETATION.at(z)
    variant = painter.variant("foliage")
    offsets = painter.rng.normal(0.0, 0.45, (count, 2)).clip(-1, 1).tolist()
    for i, (dx, dy) in enumerate(offsets):
        # Later puffs lie in front; those above the middle catch the light.
        factor = 0.78 + 0.3 * i / count + 0.14 * dy
        middle = (x + dx * radius, max(y + dy * radius * 0.8, 0.25 * radius), z)
        puff = radius * painter.between(0.35, 0.6)
        painter.disc(middle, puff, painter.colour("foliage", 5, variant, factor), stamp)


def paint_bush(painter: Painter, x: float, z: float, size: float, puffs: int) -> None:
    """Paint a bush (or, far away, a wood) of about `size` metres standing on the ground."""
    _paint_puffs(painter, x, 0.45 * size, z, size, puffs)


def paint_tree(painter: Painter, x: float, z: float, height: float) -> None:
    """Paint a tree `height` metres tall; its trunk counts as vegetation."""
    width, bark = 0.035 * height, VEGETATION.of(Material.SMOOTH).at(z)
    trunk = painter.colour("trunk", 6)
    painter.upright((x - width, x + width), (0, 0.6 * height), z, trunk, bark)
    _paint_puffs(painter, x, 0.68 * height, z, 0.34 * height, 16)


BUILDING: Final = Stamp(2, Material.MASONRY)
FENCE: Final = Stamp(4)

_STOREY: Final = 3.1
# Windows beyond this distance are smaller than a pixel.
_WINDOWS_TO: Final = 60.0


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


def _window_spans(length: float, pitch: float, share: float) -> list[Span]:
    count = max(int(length / pitch), 1)
    step = length / count
    return [((i + 0.5 - share / 2) * step, (i + 0.5 + share / 2) * step) for i in range(count)]


def _paint_house(painter: Painter, side: int, x: float, near: float, far: float) -> None:
    storeys = max(1, round(painter.setting.storeys + painter.between(-1.4, 1.6)))
    height = storeys * _STOREY + painter.between(0.4, 1.2)
    base = painter.colour("building", 9, painter.variant("building"))
    stamp = BUILDING.at((near + min(far, near + 15)) / 2)
    depth = side * painter.between(9, 14)

    # The end wall looks at the camera; the street front looks across the road.
    painter.upright((x, x + depth), (0, height), near, scaled(base, 0.9), stamp.at(near))
    painter.along(x, (0, height), (near, far), scaled(base, painter.facing(side)), stamp)
    painter.along(x, (height - 0.35, height), (near, far), scaled(base, 0.7), stamp)
    if near < _WINDOWS_TO:
        _paint_front(painter, side, x, (near, far), storeys, stamp)
        _paint_end_windows(painter, (x, depth), near, storeys, stamp.at(near))


def _paint_front(
    painter: Painter, side: int, x: float, z: Span, storeys: int, stamp: Stamp
) -> None:
    pane, shop = stamp.of(Material.GLASS), painter.chance(0.45)
    if shop:
        colour = painter.colour("shop", 6, factor=painter.facing(side))
        painter.along(x, (0, 0.9 * _STOREY), z, colour, stamp)
    spans = _window_spans(z[1] - z[0], painter.between(2.4, 3.4), painter.between(0.4, 0.6))
    variant = painter.variant("window")
    for storey in range(storeys):
        glass_band = storey == 0 and shop
        sill = 0.5 if glass_band else storey * _STOREY + 1.0
        top = 2.3 if glass_band else sill + painter.between(1.3, 1.7)
        for start, stop in spans:
            if z[0] + start > _WINDOWS_TO:
                break
            colour = painter.colour("window", 9, variant)
            painter.along(x, (sill, top), (z[0] + start, z[0] + stop), colour, pane)


def _paint_end_windows(painter: Painter, wall: Span, z: float, storeys: int, stamp: Stamp) -> None:
    (x, depth), variant = wall, painter.variant("window")
    sign, pane = math.copysign(1, depth), stamp.of(Material.GLASS)
    for storey in range(storeys):
        sill = storey * _STOREY + 1.0
        for start, stop in _window_spans(abs(depth), 3.2, 0.4):
            colour = painter.colour("window", 6, variant)
            painter.upright(
                (x + sign * start, x + sign * stop), (sill, sill + 1.5), z, colour, pane
            )


def _paint_fence(painter: Painter, x: float, near: float, far: float) -> None:
    height, variant = painter.between(1.5, 2.2), painter.variant("fence")
    stamp = FENCE.at((near + min(far, near + 15)) / 2)
    painter.along(x, (0, height), (near, far), painter.colour("fence", 5, variant, 0.55), stamp)
    picket = painter.colour("fence", 5, variant, 1.1)
    pitch, z = painter.between(0.6, 1.0), near
    while z < min(far, 45.0):
        painter.along(x, (0, height), (z, z + 0.5 * pitch), picket, stamp)
        z += pitch
    painter.along(x, (height - 0.2, height), (near, far), picket, stamp)


def _paint_park(painter: Painter, side: int, street: Street, near: float, far: float) -> None:
    edge, density = street.walk_of(side), painter.setting.planted
    spots = [(painter.between(near, far), painter.between(2.5, 16)) for _ in range(6)]
    for z, away in sorted(spots, reverse=True):
        if painter.chance(density):
            paint_tree(painter, side * (edge + away), z, painter.between(4.5, 9.0))
        elif painter.chance(density):
            paint_bush(painter, side * (edge + away), z, painter.between(1.0, 2.2), puffs=7)
    if painter.chance(painter.setting.fenced):
        _paint_fence(painter, side * (edge + painter.between(0.1, 1.5)), near, far)


def paint_roadside(painter: Painter, street: Street, side: int) -> None:
    """Paint the left (-1) or right (+1) side of the street, from far to near."""
    lots, z = [], painter.between(3.0, 9.0)
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
            edge = x - side * painter.between(4.0, 9.0)
            shade = [(x, 0.0, near), (x, 0.0, far), (edge, 0.0, far), (edge, 0.0, near)]
            painter.canvas.cast_shadow(painter.camera.points(*shade))
        _paint_house(painter, side, x, near, far)
