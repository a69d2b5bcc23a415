"""Which image stands in which slot of a batch, and what is cut out of it.

Both are computed, never remembered: an epoch is a permutation that follows from (seed, stream,
epoch), and a cut from (seed, stream, iteration, slot, image).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from reference.data.classes import ByteArray
from reference.data.files import nearest, require_short, resize_image
from reference.data.rare_classes import RareClassSampler
from reference.data.settings import Crops, Size

# Keeps the choice of an image apart from what is then done with it, whatever the image's number.
_CHOICE: Final = 2**32


class Key(NamedTuple):
    """One image of one batch."""

    iteration: int
    slot: int  # place in the batch of all ranks together
    image: int  # number in the set
    number: int | None = None  # class that it was drawn for; None without rare-class sampling


@lru_cache(maxsize=8)
def _permutation(seed: int, stream: int, epoch: int, count: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng([seed, stream, epoch, _CHOICE]).permutation(count)


@dataclass(frozen=True)
class Order:
    """Which image stands in which slot of iterations `start` .. `stop` - 1."""

    count: int  # images of the set
    seed: int
    stream: int  # tells apart source and target
    start: int
    stop: int
    batch_size: int  # on one rank
    rank: int = 0
    world: int = 1
    rare: RareClassSampler | None = None  # draws by class; None takes every image once an epoch

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[list[Key]]:
        first = self.rank * self.batch_size
        for iteration in range(self.start, self.stop):
            yield [self.key(iteration, first + place) for place in range(self.batch_size)]

    def key(self, iteration: int, slot: int) -> Key:
        """Return the key of one slot of the batch of all ranks."""
        if self.rare is not None:
            rng = np.random.default_rng([self.seed, self.stream, iteration, slot, _CHOICE])
            drawn = self.rare.draw(rng)
            if drawn is not None:
                return Key(iteration, slot, *drawn)
        return self.in_turn(iteration, slot)

    def in_turn(self, iteration: int, slot: int, further: int = 0) -> Key:
        """Return the key of a slot in an epoch's order, or of so many images further on."""
        number = iteration * self.batch_size * self.world + slot + further
        epoch, place = divmod(number, self.count)
        permutation = _permutation(self.seed, self.stream, epoch, self.count)
        return Key(iteration, slot, int(permutation[place]))

    def generator(self, key: Key) -> np.random.Generator:
        """Return where everything that is done with one image is drawn from."""
        return np.random.default_rng([self.seed, self.stream, key.iteration, key.slot, key.image])


@dataclass(frozen=True)
class Window:
    """One drawn cut: scaled to `size`, cropped at (`top`, `left`) to `crop`, perhaps mirrored."""

    size: Size
    top: int
    left: int
    crop: Size
    flipped: bool

    def _mirrored(self, part: ByteArray) -> ByteArray:
        # numpy calls a single mirrored column contiguous, and torch takes no stride below 0.
        return (part[:, ::-1] if self.flipped else part).copy()

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


def cut_size(shape: Size, crops: Crops, short: int, scale: float) -> Size:
    """The size to which an image of (height, width) `shape` is scaled before it is cut."""
    height, width = crops.size or (side * (short / min(shape)) for side in shape)
    factor = max(scale, crops.crop[0] / height, crops.crop[1] / width)
    return max(1, round(height * factor)), max(1, round(width * factor))


def require_cut(path: Path, shape: Size, crops: Crops) -> None:
    """Refuse, by its name, an image of `shape` that a cut may make too long."""
    if crops.short_side is not None:
        short, scale = crops.short_side[1], crops.scale[1]
        scaled = cut_size(shape, crops, short, scale)
        require_short(path, shape, scaled, f"{short}{f' times {scale:g}' * (scale != 1)}")


def draw_window(shape: Size, crops: Crops, rng: np.random.Generator) -> Window:
    """Draw a cut of an image of (height, width) `shape`; one too small for the crop is enlarged."""
    low, high = crops.short_side or (1, 1)
    short = int(rng.integers(low, high + 1)) if crops.short_side else 1
    size = cut_size(shape, crops, short, rng.uniform(*crops.scale))
    return placed(size, crops.crop, bool(rng.random() < crops.flip), rng)


def placed(size: Size, crop: Size, flipped: bool, rng: np.random.Generator) -> Window:
    """Draw a place for the crop in the image scaled to `size`."""
    top, left = (
        int(rng.integers(whole - part + 1)) for whole, part in zip(size, crop, strict=True)
    )
    return Window(size, top, left, crop, flipped)
