"""A pinhole camera that looks along a gently curving street.

World axes in metres: ``x`` to the right of the road's middle line, ``y`` up from the road,
``z`` ahead of the camera. Pixels: ``u`` to the right, ``v`` down.
"""

from __future__ import annotations

from dataclasses import dataclass

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
