"""The hand that paints a scene: camera, canvas, look and one random generator together."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from reference.synthetic.look import Look, Setting

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
    """

    focal: float  # pixels
    centre: float  # column of the vanishing point, pixels
    horizon: float  # its row
    height: float  # metres above the road
    lateral: float  # metres right of the road's middle line
    curve: float  # 1/metre; the street drifts sideways by curve z^2

    def point(self, x: float, y: float, z: float) -> Point:
        """Return the pixel (u, v) of a point ahead of the camera (z > 0)."""
        return (
            self.centre + self.focal * ((x - self.lateral) / z + self.curve * z),
            self.horizon + self.focal * (self.height - y) / z,
        )

    def points(self, *corners: Corner) -> list[Point]:
        return [self.point(*corner) for corner in corners]

    def pixels(self, metres: float, z: float) -> float:
        """Return the length in pixels of `metres` seen face-on at distance `z`."""
        return self.focal * metres / z


class Material(IntEnum):
    """What a surface is made of; decides its texture."""

    SMOOTH, ASPHALT, PAVING, GRASS, FOLIAGE, MASONRY, GLASS, SKY = range(8)


class Stamp(NamedTuple):
    """What a painted pixel is: train id, material, distance in whole metres (0 = on the ground)."""

    train_id: int
    material: Material = Material.SMOOTH
    distance: int = ON_GROUND

    def at(self, z: float) -> "Stamp":
        """Return this stamp at `z` metres (kept within 1..254)."""
        return self._replace(distance=int(min(max(z, 1), FARTHEST - 1)))

    def of(self, material: Material) -> "Stamp":
        return self._replace(material=material)


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
        self._colour_pen.polygon(corners, fill=colour)
        self._code_pen.polygon(corners, fill=stamp)

    def ellipse(self, middle: Point, rx: float, ry: float, colour: Colour, stamp: Stamp) -> None:
        """Fill an axis-aligned ellipse with half-axes `rx`, `ry` pixels."""
        u, v = middle
        box = (u - rx, v - ry, u + rx, v + ry)
        self._colour_pen.ellipse(box, fill=colour)
        self._code_pen.ellipse(box, fill=stamp)

    def cast_shadow(self, corners: Sequence[Point]) -> None:
        """Mark a polygon of the ground as lying in shadow."""
        self._shade_pen.polygon(corners, fill=255)


Span = tuple[float, float]
Edge = tuple[Span, float, float]


def scaled(colour: Colour, factor: float) -> Colour:
    r, g, b = (int(min(channel * factor, 255.0)) for channel in colour)
    return (r, g, b)


@dataclass(frozen=True)
class Painter:
    """Paints street-space shapes, in metres; everything random comes from `rng`.

    The sun stands on the left of the street where `sun_from` is -1, on the right where it is +1.
    """

    canvas: Canvas
    camera: Camera
    look: Look
    rng: np.random.Generator
    sun_from: int

    @property
    def setting(self) -> Setting:
        return self.look.setting

    def between(self, low: float, high: float) -> float:
        """Draw a number uniformly from [low, high)."""
        return low + (high - low) * float(self.rng.random())

    def chance(self, probability: float) -> bool:
        """Draw True with a probability."""
        return float(self.rng.random()) < probability

    def side(self) -> int:
        """Draw the left (-1) or the right (+1) side."""
        return -1 if self.chance(0.5) else 1

    def count(self, mean: float) -> int:
        """Draw a Poisson number."""
        return int(self.rng.poisson(mean))

    def variant(self, thing: str) -> int:
        """Draw one of the colour variants of a thing."""
        return int(self.rng.integers(len(self.look.colours[thing])))

    def colour(
        self, thing: str, spread: float = 8.0, variant: int | None = None, factor: float = 1.0
    ) -> Colour:
        """Draw a colour of a thing, of one variant or any.

        `spread` is the standard deviation of its brightness, RGB units; `factor` is for sides
        turned from or to the light.
        """
        chosen = self.variant(thing) if variant is None else variant
        offset = spread * float(self.rng.standard_normal())
        r, g, b = (
            int(min(max((channel + offset) * factor, 0.0), 255.0))
            for channel in self.look.colours[thing][chosen].tolist()
        )
        return (r, g, b)

    def facing(self, side: int) -> float:
        """Return the brightness of a wall of the left (-1) or right (+1) street side."""
        return 1.0 - 0.2 * self.setting.sun * side * self.sun_from

    def lamp(self, at: Corner, colour: Colour, reach: float = 0.0) -> None:
        """Note a lamp that shines after dark and lights what stands within its reach."""
        x, _, z = at
        point, foot = self.camera.points(at, (x, 0.0, z))
        self.canvas.lamps.append(Lamp(point, foot, self.camera.pixels(1.0, z), z, colour, reach))

    def shape(self, corners: list[Corner], colour: Colour, stamp: Stamp) -> None:
        self.canvas.polygon(self.camera.points(*corners), colour, stamp)

    def between_edges(self, low: Edge, high: Edge, colour: Colour, stamp: Stamp) -> None:
        """Fill what lies between two edges that run across the street, ((x0, x1), y, z) each."""
        ((x0, x1), y, z), ((x2, x3), top, behind) = low, high
        self.shape([(x0, y, z), (x1, y, z), (x3, top, behind), (x2, top, behind)], colour, stamp)

    def flat(self, x: Span, z: Span, colour: Colour, stamp: Stamp) -> None:
        """Fill a rectangle on the ground."""
        self.between_edges((x, 0.0, z[0]), (x, 0.0, z[1]), colour, stamp)

    def upright(self, x: Span, y: Span, z: float, colour: Colour, stamp: Stamp) -> None:
        """Fill a rectangle that faces the camera."""
        self.between_edges((x, y[0], z), (x, y[1], z), colour, stamp)

    def along(self, x: float, y: Span, z: Span, colour: Colour, stamp: Stamp) -> None:
        """Fill a rectangle that runs along the street."""
        (y0, y1), (z0, z1) = y, z
        self.shape([(x, y0, z0), (x, y0, z1), (x, y1, z1), (x, y1, z0)], colour, stamp)

    def disc(
        self, middle: Corner, radius: float, colour: Colour, stamp: Stamp, squash: float = 1.0
    ) -> None:
        """Fill a disc that faces the camera; `squash` narrows it sideways."""
        pixels = self.camera.pixels(radius, middle[2])
        self.canvas.ellipse(self.camera.point(*middle), pixels * squash, pixels, colour, stamp)
