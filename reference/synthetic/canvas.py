"""What a scene is painted on: colours, and beside them what each pixel is.

Every stroke writes its colour and a `Stamp` (class, material, distance), so image and labels
cannot drift apart. The canvas is larger than the final image by `SUPERSAMPLE`; the image is
averaged down, which gives the soft edges of a photograph.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Final

from PIL import Image, ImageDraw

from reference.synthetic.camera import Point

Colour = tuple[int, int, int]

SUPERSAMPLE: Final = 2
# Distance code of pixels that lie on the ground plane: their distance follows from the row.
ON_GROUND: Final = 0
FARTHEST: Final = 255


class Material(IntEnum):
    """What a surface is made of; decides its texture."""

    SMOOTH = 0
    ASPHALT = 1
    PAVING = 2
    GRASS = 3
    FOLIAGE = 4
    MASONRY = 5
    GLASS = 6
    SKY = 7


@dataclass(frozen=True)
class Stamp:
    """What a painted pixel is: train id, material, distance in whole metres (0 = on the ground)."""

    train_id: int
    material: Material = Material.SMOOTH
    distance: int = ON_GROUND

    def at(self, z: float) -> Stamp:
        """Return this stamp at `z` metres (kept within 1..254)."""
        return replace(self, distance=int(min(max(z, 1), FARTHEST - 1)))

    def of(self, material: Material) -> Stamp:
        """Return this stamp with another material."""
        return replace(self, material=material)

    @property
    def code(self) -> Colour:
        """The stamp as one RGB pixel of the code image."""
        return (self.train_id, int(self.material), self.distance)


@dataclass(frozen=True)
class Lamp:
    """A lamp that shines after dark.

    Args:
        at: its pixel (u, v).
        foot: the pixel of the road below it.
        metre: length of one metre at its distance, pixels.
        z: its distance, metres.
        colour: of its light, RGB 0..255.
        reach: how far it lights what stands around, metres; 0 for a lamp that is only seen.
    """

    at: Point
    foot: Point
    metre: float
    z: float
    colour: Colour
    reach: float


class Canvas:
    """Colour image, code image and shade mask and lamps of one scene, painted back to front.

    Args:
        height: rows of the canvas, pixels.
        width: columns of the canvas, pixels.
    """

    def __init__(self, height: int, width: int) -> None:
        self.height = height
        self.width = width
        self.colours = Image.new("RGB", (width, height))
        self.codes = Image.new("RGB", (width, height))
        self.shade = Image.new("L", (width, height))
        self.lamps: list[Lamp] = []
        self._colour_pen = ImageDraw.Draw(self.colours)
        self._code_pen = ImageDraw.Draw(self.codes)
        self._shade_pen = ImageDraw.Draw(self.shade)

    def polygon(self, corners: Sequence[Point], colour: Colour, stamp: Stamp) -> None:
        """Fill a polygon."""
        self._colour_pen.polygon(corners, fill=colour)
        self._code_pen.polygon(corners, fill=stamp.code)

    def ellipse(self, middle: Point, rx: float, ry: float, colour: Colour, stamp: Stamp) -> None:
        """Fill an axis-aligned ellipse with half-axes `rx`, `ry` pixels."""
        u, v = middle
        box = (u - rx, v - ry, u + rx, v + ry)
        self._colour_pen.ellipse(box, fill=colour)
        self._code_pen.ellipse(box, fill=stamp.code)

    def line(self, points: Sequence[Point], width: float, colour: Colour, stamp: Stamp) -> None:
        """Draw a line at least one canvas pixel wide."""
        thickness = max(1, round(width))
        self._colour_pen.line(points, fill=colour, width=thickness)
        self._code_pen.line(points, fill=stamp.code, width=thickness)

    def relabel(self, middle: Point, rx: float, ry: float, train_id: int) -> None:
        """Give an ellipse another class and leave its colours, materials and distances."""
        u, v = middle
        left, top = max(int(u - rx), 0), max(int(v - ry), 0)
        right, bottom = min(int(u + rx) + 1, self.width), min(int(v + ry) + 1, self.height)
        if left >= right or top >= bottom:
            return
        part = (left, top, right, bottom)
        classes, *others = self.codes.crop(part).split()
        pen = ImageDraw.Draw(classes)
        pen.ellipse((u - rx - left, v - ry - top, u + rx - left, v + ry - top), fill=train_id)
        self.codes.paste(Image.merge("RGB", (classes, *others)), part)

    def cast_shadow(self, corners: Sequence[Point]) -> None:
        """Mark a polygon of the ground as lying in shadow."""
        self._shade_pen.polygon(corners, fill=255)
