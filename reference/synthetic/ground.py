"""Sky, distance, road, markings, sidewalks and terrain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from reference.synthetic.canvas import FARTHEST, Colour, Material, Stamp
from reference.synthetic.painter import Painter

ROAD: Final = Stamp(0, Material.ASPHALT)
MARKING: Final = Stamp(0)
SIDEWALK: Final = Stamp(1, Material.PAVING)
TERRAIN: Final = Stamp(9, Material.GRASS)
SKY: Final = Stamp(10, Material.SKY, FARTHEST)

NEAR: Final = 1.5
FAR: Final = 160.0
# Distances at which curved edges are sampled, metres.
_STATIONS: Final = (NEAR, 3.0, 5.0, 8.0, 12.0, 17.0, 24.0, 34.0, 48.0, 70.0, 105.0, FAR)


@dataclass(frozen=True)
class Street:
    """The cross-section of a street, metres from the road's middle line.

    Args:
        kerb: half the width of the road.
        walk: outer edge of the sidewalk, (left, right), both positive.
    """

    kerb: float
    walk: tuple[float, float]

    def walk_of(self, side: int) -> float:
        """Return the outer edge of the sidewalk of the left (-1) or right (+1) side."""
        return self.walk[0] if side < 0 else self.walk[1]


def plan_street(painter: Painter) -> Street:
    """Draw the widths of road and sidewalks."""
    kerb = painter.setting.road_width / 2 * painter.between(0.85, 1.2)
    wide = painter.setting.walk_width
    left, right = (wide * painter.between(1.6, 3.4) for _ in range(2))
    return Street(kerb, (kerb + left, kerb + right))


def paint_sky(painter: Painter) -> None:
    """Fill the canvas with sky above the horizon and terrain below it."""
    canvas, horizon = painter.canvas, painter.camera.horizon
    sky = painter.colour("sky low", 5)
    canvas.polygon([(0, 0), (canvas.width, 0), (canvas.width, horizon), (0, horizon)], sky, SKY)
    grass = painter.colour("grass", 6)
    below = [(0, horizon), (canvas.width, horizon)]
    below += [(canvas.width, canvas.height), (0, canvas.height)]
    canvas.polygon(below, grass, TERRAIN)


def _strip(painter: Painter, x0: float, x1: float, colour: Colour, stamp: Stamp) -> None:
    left = [painter.camera.point(x0, 0.0, z) for z in _STATIONS]
    right = [painter.camera.point(x1, 0.0, z) for z in reversed(_STATIONS)]
    painter.canvas.polygon(left + right, colour, stamp)


def _dashes(painter: Painter, x: float, width: float, length: float, gap: float) -> None:
    z = painter.between(NEAR, NEAR + length)
    while z < 70.0:
        corners = [(x - width, 0.0, z), (x + width, 0.0, z)]
        corners += [(x + width, 0.0, z + length), (x - width, 0.0, z + length)]
        painter.shape(corners, painter.colour("marking", 4), MARKING)
        z += length + gap


def _crossing(painter: Painter, street: Street) -> None:
    z = painter.between(9.0, 26.0)
    x = -street.kerb + 0.3
    while x < street.kerb - 0.5:
        corners = [(x, 0.0, z), (x + 0.5, 0.0, z), (x + 0.5, 0.0, z + 3.0), (x, 0.0, z + 3.0)]
        painter.shape(corners, painter.colour("marking", 4), MARKING)
        x += 1.0


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
    _dashes(painter, painter.between(-0.4, 0.4), 0.10, 2.5, 3.5)
    if painter.chance(0.3):
        _crossing(painter, street)
