"""The hand that paints a scene: canvas, camera, look and one random generator together."""

from dataclasses import dataclass

import numpy as np

from reference.synthetic.canvas import Camera, Canvas, Colour, Corner, Lamp, Stamp
from reference.synthetic.look import Look, Setting

Span = tuple[float, float]


def scaled(colour: Colour, factor: float) -> Colour:
    """A colour made brighter or darker."""
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
        """The numbers of the domain."""
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
        """Fill a polygon."""
        self.canvas.polygon(self.camera.points(*corners), colour, stamp)

    def flat(self, x: Span, z: Span, colour: Colour, stamp: Stamp) -> None:
        """Fill a rectangle on the ground."""
        (x0, x1), (z0, z1) = x, z
        self.shape([(x0, 0.0, z0), (x1, 0.0, z0), (x1, 0.0, z1), (x0, 0.0, z1)], colour, stamp)

    def upright(self, x: Span, y: Span, z: float, colour: Colour, stamp: Stamp) -> None:
        """Fill a rectangle that faces the camera."""
        (x0, x1), (y0, y1) = x, y
        self.shape([(x0, y0, z), (x1, y0, z), (x1, y1, z), (x0, y1, z)], colour, stamp)

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
