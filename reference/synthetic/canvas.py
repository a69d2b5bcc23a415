"""A pinhole camera that looks along a street, and what a scene is painted on."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Final, NamedTuple

from PIL import Image, ImageDraw

Point = tuple[float, float]
Corner = tuple[float, float, float]
Colour = tuple[int, int, int]

SUPERSAMPLE: Final = 2
# Distance code of pixels that lie on the ground plane: their distance follows from the row.
ON_GROUND: Final = 0
FARTHEST: Final = 255


class Camera(NamedTuple):
    """Projects street coordinates, metres, to pixels.

    u = centre + focal ((x - lateral) / z + curve z), v = horizon + focal (height - y) / z.

    Args:
        focal, centre, horizon: pixels; the latter are column and row of the vanishing point.
        height: metres above the road.
        lateral: metres right of the road's middle line.
        curve: 1/metre; the street drifts sideways by curve z^2.
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

    def points(self, *corners: Corner) -> list[Point]:
        """Return the pixels of several points."""
        return [self.point(*corner) for corner in corners]

    def pixels(self, metres: float, z: float) -> float:
        """Return the length in pixels of `metres` seen face-on at distance `z`."""
        return self.focal * metres / z


class Material(IntEnum):
    """What a surface is made of; decides its texture."""

    SMOOTH, ASPHALT, PAVING, GRASS, FOLIAGE, MASONRY, GLASS, SKY = range(8)


@dataclass(frozen=True)
class Stamp:
    """What a painted pixel is: train id, material, distance in whole metres (0 = on the ground)."""

    train_id: int
    material: Material = Material.SMOOTH
    distance: int = ON_GROUND

    def at(self, z: float) -> "Stamp":
        """Return this stamp at `z` metres (kept within 1..254)."""
        return replace(self, distance=int(min(max(z, 1), FARTHEST - 1)))

    def of(self, material: Material) -> "Stamp":
        """Return this stamp with another material."""
        return replace(self, material=material)

    @property
    def code(self) -> Colour:
        """The stamp as one RGB pixel of the code image."""
        return (self.train_id, int(self.material), self.distance)


class Lamp(NamedTuple):
    """A lamp that shines after dark: its pixel, that of the road below, its distance `z`.

    A metre there is `metre` pixels; it lights what stands within `reach` metres, or is only seen.
    """

    at: Point
    foot: Point
    metre: float
    z: float
    colour: Colour
    reach: float


class Canvas:
    """Colours, codes, shade and lamps of one scene, in canvas pixels, painted back to front."""

    def __init__(self, height: int, width: int) -> None:
        self.height, self.width = height, width
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

    def relabel(self, middle: Point, radius: float, train_id: int) -> None:
        """Give a disc another class and leave its colours, materials and distances."""
        u, v = middle
        box = (u - radius, v - radius, u + radius, v + radius)
        classes, *others = self.codes.split()
        ImageDraw.Draw(classes).ellipse(box, fill=train_id)
        self.codes.paste(Image.merge("RGB", (classes, *others)))

    def cast_shadow(self, corners: Sequence[Point]) -> None:
        """Mark a polygon of the ground as lying in shadow."""
        self._shade_pen.polygon(corners, fill=255)
