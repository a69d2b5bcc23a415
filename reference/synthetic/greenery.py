"""Trees and bushes: trunks under clusters of leafy puffs."""

from __future__ import annotations

import math
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


def _paint_branches(painter: Painter, x: float, z: float, height: float) -> None:
    bark = VEGETATION.of(Material.SMOOTH).at(z)
    colour = painter.colour("trunk", 12, factor=painter.between(0.5, 1.0))
    height *= 1.5
    middle = (x, 0.66 * height, z)
    radius = painter.camera.pixels(0.36 * height, z)
    # The crown is a veil: sky and walls show through it and count as vegetation.
    painter.canvas.relabel(painter.camera.point(*middle), radius, radius, VEGETATION.train_id)
    fork = (x, 0.3 * height, z)
    for _ in range(int(painter.between(7, 14))):
        angle, reach = painter.between(-1.25, 1.25), painter.between(0.4, 0.72) * height
        tip = (x + reach * math.sin(angle), fork[1] + reach * math.cos(angle), z)
        thickness = painter.camera.pixels(0.008 * height, z)
        painter.canvas.line(painter.camera.points(fork, tip), thickness, colour, bark)
        for _ in range(9):
            along, bend = painter.between(0.2, 1.0), angle + painter.between(-0.8, 0.8)
            root = (
                fork[0] + along * (tip[0] - fork[0]),
                fork[1] + along * (tip[1] - fork[1]),
                z,
            )
            twig = (
                root[0] + 0.4 * reach * math.sin(bend),
                root[1] + 0.4 * reach * math.cos(bend),
                z,
            )
            painter.canvas.line(painter.camera.points(root, twig), thickness / 2, colour, bark)


def paint_tree(painter: Painter, x: float, z: float, height: float) -> None:
    """Paint a tree `height` metres tall; its trunk counts as vegetation."""
    bare = painter.setting.bare > 0 and painter.chance(painter.setting.bare)
    width = 0.035 * height
    bark = VEGETATION.of(Material.SMOOTH).at(z)
    trunk = painter.colour("trunk", 6)
    painter.upright((x - width, x + width), (0, 0.6 * height), z, trunk, bark)
    if bare:
        _paint_branches(painter, x, z, height)
    else:
        _paint_puffs(painter, x, 0.68 * height, z, 0.34 * height, 16)
