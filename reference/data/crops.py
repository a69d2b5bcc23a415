"""What is cut out of an image for training: resize, scale, crop, mirror; the same for its labels.

An image that would be smaller than the crop is enlarged until it covers it, so that no pixel of a
batch is padding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from reference.data.classes import ByteArray
from reference.data.colour import ColourJitter
from reference.data.resizing import Resize, Size, nearest, resize_image

# Half of Cityscapes, and GTA5 at about the same scale: the sizes of AdaptSegNet and DAFormer.
TARGET_SIZE: Final = Resize(size=(512, 1024))
SOURCE_SIZE: Final = Resize(size=(720, 1280))


def _check(caller: str, resize: Resize, scale: tuple[float, float], crop: Size | None) -> None:
    if not 0 < scale[0] <= scale[1]:
        raise ValueError(f"{caller}: expected scale as (low, high) above 0, got {scale}.")
    if crop is not None and min(crop) < 1:
        raise ValueError(f"{caller}: expected a crop of at least 1 pixel a side, got {crop}.")
    if crop is None and (resize.size is None or scale[0] != scale[1]):
        raise ValueError(
            f"{caller}: expected a crop where the size is drawn, got None with {resize} and scale "
            f"{scale}. Hint: the images of a batch must have one size."
        )


@dataclass(frozen=True)
class TargetCrops:
    """How target images are cut.

    Args:
        resize: to which size.
        scale: range of a further factor on both sides, drawn per image, > 0.
        crop: (height, width), pixels; None takes the whole image, which then needs a fixed size.
        flip: probability of mirroring left and right, 0..1.

    Raises:
        ValueError: a number is out of its range, or the images of a batch would differ in size.
    """

    resize: Resize = TARGET_SIZE
    scale: tuple[float, float] = (1.0, 1.0)
    crop: Size | None = (512, 512)
    flip: float = 0.5

    def __post_init__(self) -> None:
        _check(type(self).__name__, self.resize, self.scale, self.crop)
        if not 0 <= self.flip <= 1:
            raise ValueError(f"{type(self).__name__}: expected flip within 0..1, got {self.flip}.")


@dataclass(frozen=True)
class SourceCrops(TargetCrops):
    """How source images are cut and coloured.

    Args:
        resize: to which size.
        scale: range of a further factor on both sides, drawn per image, > 0.
        crop: (height, width), pixels; None takes the whole image, which then needs a fixed size.
        flip: probability of mirroring left and right, 0..1.
        colour: jitter and blur of the crop; None leaves the colours as they are.

    Raises:
        ValueError: a number is out of its range, or the images of a batch would differ in size.
    """

    resize: Resize = SOURCE_SIZE
    colour: ColourJitter | None = None


@dataclass(frozen=True)
class Window:
    """One drawn cut.

    Args:
        size: (height, width) that the whole image is scaled to, pixels.
        top: first row of the crop.
        left: first column of the crop.
        crop: (height, width) of the crop, pixels.
        flipped: whether it is mirrored afterwards.
    """

    size: Size
    top: int
    left: int
    crop: Size
    flipped: bool

    def _mirrored(self, part: ByteArray) -> ByteArray:
        return np.ascontiguousarray(part[:, ::-1] if self.flipped else part)

    def image(self, pixels: ByteArray) -> ByteArray:
        """Cut an image, uint8 (H, W, 3) of any size, to uint8 (*crop, 3)."""
        whole = resize_image(pixels, self.size)
        rows = slice(self.top, self.top + self.crop[0])
        return self._mirrored(whole[rows, self.left : self.left + self.crop[1]])

    def labels(self, labels: ByteArray) -> ByteArray:
        """Cut labels, uint8 (H, W) of any size, to uint8 of the size of the crop."""
        rows, columns = nearest(labels.shape, self.size)
        rows = rows[self.top : self.top + self.crop[0]]
        columns = columns[self.left : self.left + self.crop[1]]
        return self._mirrored(labels[rows[:, None], columns])


def draw_window(shape: Size, crops: TargetCrops, rng: np.random.Generator) -> Window:
    """Draw a cut.

    Args:
        shape: (height, width) of the image, pixels.
        crops: the settings.
        rng: where every number is drawn from.
    """
    height, width = crops.resize.draw(shape, rng)
    factor = rng.uniform(*crops.scale)
    if crops.crop is not None:
        factor = max(factor, crops.crop[0] / height, crops.crop[1] / width)
    size = (max(1, round(height * factor)), max(1, round(width * factor)))
    flipped = bool(rng.random() < crops.flip)
    return _placed(size, crops.crop or size, flipped, rng)


def moved(window: Window, rng: np.random.Generator) -> Window:
    """Draw another place for the crop in the image scaled as before."""
    return _placed(window.size, window.crop, window.flipped, rng)


def _placed(size: Size, crop: Size, flipped: bool, rng: np.random.Generator) -> Window:
    top, left = (
        int(rng.integers(whole - part + 1)) for whole, part in zip(size, crop, strict=True)
    )
    return Window(size, top, left, crop, flipped)
