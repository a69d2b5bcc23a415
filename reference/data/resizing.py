"""Scaling of images and labels, one way for training and for scores.

Both are scaled apart, from their own size to one they share: images of a set may differ in size
by a few pixels, and stored maps may be smaller than the images they belong to.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reference.data.classes import ByteArray

Size = tuple[int, int]
Places = npt.NDArray[np.int64]


def resize_image(pixels: ByteArray, size: Size) -> ByteArray:
    """Scale an image: by averaging areas to a smaller size, else bilinearly.

    Args:
        pixels: uint8 (H, W, 3).
        size: (height, width), pixels.

    Returns:
        uint8 (height, width, 3); the input itself where it has this size.
    """
    # The toy needs no other sizes and runs without OpenCV.
    import cv2

    if pixels.shape[:2] == size:
        return pixels
    shrinks = size[0] <= pixels.shape[0] and size[1] <= pixels.shape[1]
    # A bilinear filter of OpenCV looks at 4 pixels only, and aliases when it shrinks.
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(pixels, size[::-1], interpolation=how), dtype=np.uint8)


def nearest(shape: tuple[int, ...], size: Size) -> tuple[Places, Places]:
    """Return which rows and columns a nearest-neighbour scaling takes, centre to centre.

    Args:
        shape: (height, width) before, pixels.
        size: (height, width) afterwards, pixels.

    Returns:
        int64 (height,) and (width,).
    """
    rows, columns = (
        np.minimum(((np.arange(new) + 0.5) * (old / new)).astype(np.int64), old - 1)
        for old, new in zip(shape, size, strict=True)
    )
    return rows, columns


def resize_labels(labels: ByteArray, size: Size) -> ByteArray:
    """Scale labels by nearest neighbour.

    Args:
        labels: uint8 (H, W).
        size: (height, width), pixels.

    Returns:
        uint8 (height, width); the input itself where it has this size.
    """
    if labels.shape == size:
        return labels
    rows, columns = nearest(labels.shape, size)
    return labels[rows[:, None], columns]


@dataclass(frozen=True)
class Resize:
    """To which size images are scaled before they are cropped; one of the two is given.

    Args:
        size: (height, width), pixels; the aspect ratio is not kept.
        short_side: range in which the length of the short side is drawn, pixels; the aspect ratio
            is kept.

    Raises:
        ValueError: both or none is given, or a length is below 1.
    """

    size: Size | None = None
    short_side: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if (self.size is None) == (self.short_side is None):
            raise ValueError(
                f"Resize: expected either size or short_side, got size {self.size} and "
                f"short_side {self.short_side}."
            )
        lengths = self.size or self.short_side or ()
        if min(lengths) < 1:
            raise ValueError(f"Resize: expected lengths of at least 1, got {lengths}.")
        if self.short_side is not None and self.short_side[0] > self.short_side[1]:
            raise ValueError(f"Resize: expected short_side as (low, high), got {self.short_side}.")

    def draw(self, shape: Size, rng: np.random.Generator) -> tuple[float, float]:
        """Return the size an image is scaled to, before rounding.

        Args:
            shape: (height, width) of the image, pixels.
            rng: where the length of the short side is drawn from.
        """
        if self.size is not None:
            return float(self.size[0]), float(self.size[1])
        low, high = self.short_side or (1, 1)
        factor = int(rng.integers(low, high + 1)) / min(shape)
        return shape[0] * factor, shape[1] * factor
