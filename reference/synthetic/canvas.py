"""A pinhole camera that looks along a street, and what a scene is painted on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Final

from PIL import Image, ImageDraw

Point = tuple[float, float]


@dataclass(frozen=True)
class Camera:
    """Projects street coordinates to pixels.

    u = u0 + f ((x - x_cam) / z + k z), v = v0 + f (h - y) / z.

    Args:
        focal: f, pixels.
        centre: u0, column of the vanishing point, pixels.
        horizon: v0, row of the horizon, pixels.
        height: h, metres above the road.
        lateral: x_cam, metres right of the road's middle line.
        curve: k, 1/metre; the street drifts sideways by k z^2.
    """

    focal: float
    centre: float
    horizon: float
    height: float
    lateral: float
    curve: float

    def point(self, x: float, y: float, z: float) -> Point:
        """Return the pixel (u, v) of a point ahead of the camera (z > 0)."""
        return (
            self.centre + self.focal * ((x - self.lateral) / z + self.curve * z),
            self.horizon + self.focal * (self.height - y) / z,
        )

    def points(self, *corners: tuple[float, float, float]) -> list[Point]:
        """Return the pixels of several points."""
        return [self.point(x, y, z) for x, y, z in corners]

    def pixels(self, metres: float, z: float) -> float:
        """Return the length in pixels of `metres` seen face-on at distance `z`."""
        return self.focal * metres / z


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
