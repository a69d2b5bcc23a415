"""Trees and bushes: trunks under clusters of leafy puffs."""

from __future__ import annotations

from typing import Final

from reference.synthetic.canvas import Material, Stamp
from reference.synthetic.painter import Painter

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


def paint_bush(painter: Painter, x: float, z: float, size: float, puffs: int = 8) -> None:
    """Paint a bush (or, far away, a wood) of about `size` metres standing on the ground."""
    _paint_puffs(painter, x, 0.45 * size, z, size, puffs)


def paint_tree(painter: Painter, x: float, z: float, height: float) -> None:
    """Paint a tree `height` metres tall; its trunk counts as vegetation."""
    width = 0.035 * height
    bark = VEGETATION.of(Material.SMOOTH).at(z)
    trunk = painter.colour("trunk", 6)
    painter.upright((x - width, x + width), (0, 0.6 * height), z, trunk, bark)
    _paint_puffs(painter, x, 0.68 * height, z, 0.34 * height, 16)
