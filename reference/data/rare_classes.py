"""Rare-class sampling: images that show rare classes are drawn more often.

A class is drawn first, then an image that shows enough of it. With f_c the share of class c among
the labelled pixels of the whole set and T the temperature, the probability of class c is

    P(c) = exp((1 - f_c) / T) / sum over k of exp((1 - f_k) / T)

over the classes that can be drawn.

Source:
    Hoyer et al., DAFormer, CVPR 2022, section 3.3; its settings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from reference.data.index import Counts, SetIndex

Shares = npt.NDArray[np.float64]

# Pixels of every train id in the whole of GTA5, where no index was made (as in the loader of
# microsoft/ProDA).
GTA5_PIXELS: Final[Counts] = np.array(
    [
        16139327127,
        4158369631,
        8495419275,
        927064742,
        318109335,
        532432540,
        67453231,
        40526481,
        3818867486,
        1081467674,
        6800402117,
        182228033,
        15360044,
        1265024472,
        567736474,
        184854135,
        32542442,
        15832619,
        2721193,
    ],
    dtype=np.int64,
)
GTA5_PIXELS.setflags(write=False)


@dataclass(frozen=True)
class RareClasses:
    """Settings of rare-class sampling.

    Args:
        temperature: T > 0; the smaller, the more often the rarest classes come.
        min_pixels: pixels of the class that an image must hold to be drawn for it, at the size of
            its label file, at least 1.
        min_crop_share: share of `min_pixels` that the crop must hold, 0..1.
        max_crops: crops that are tried for it, at least 1; the last one is taken as it is.

    Raises:
        ValueError: a number is out of its range.
    """

    temperature: float = 0.01
    min_pixels: int = 3000
    min_crop_share: float = 0.5
    max_crops: int = 10

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"RareClasses: expected temperature > 0, got {self.temperature}.")
        if not 0 <= self.min_crop_share <= 1:
            raise ValueError(
                f"RareClasses: expected min_crop_share within 0..1, got {self.min_crop_share}."
            )
        for name in ("min_pixels", "max_crops"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"RareClasses: expected {name} of at least 1, got {getattr(self, name)}."
                )


def class_probabilities(pixels: Counts, temperature: float) -> Shares:
    """Return how often each class is to be drawn.

    Args:
        pixels: of every train id in the whole set, (19,), such as `GTA5_PIXELS`.
        temperature: T > 0.

    Returns:
        float64 (19,), summing to 1; 0 for classes without a pixel.

    Raises:
        ValueError: no class has a pixel.
    """
    total = pixels.sum()
    if total <= 0:
        raise ValueError("class_probabilities: expected a pixel of at least 1 class, got none.")
    logits = np.where(pixels > 0, (1.0 - pixels / total) / temperature, -np.inf)
    weights = np.exp(logits - logits.max())
    return np.asarray(weights / weights.sum(), dtype=np.float64)


class Drawn(NamedTuple):
    """A class, and an image that shows it."""

    number: int
    image: int

    @property
    def train_id(self) -> int:
        # Old callers.
        return self.number


class RareClassSampler:
    """Draws images by class.

    Args:
        index: of the set.
        settings: temperature and least numbers of pixels.

    Raises:
        ValueError: no image holds `min_pixels` of any class.
    """

    def __init__(self, index: SetIndex, settings: RareClasses | None = None) -> None:
        self.settings = settings or RareClasses()
        enough = index.pixels >= self.settings.min_pixels
        if not enough.any():
            raise ValueError(
                f"RareClassSampler: expected an image with {self.settings.min_pixels} pixels of a "
                f"class, got {index.pixels.max(initial=0)} at most in {len(index.stems)} images. "
                "Hint: lower min_pixels for small images."
            )
        self._images = [np.flatnonzero(enough[:, train_id]) for train_id in range(enough.shape[1])]
        wanted = class_probabilities(index.pixels.sum(axis=0), self.settings.temperature)
        # A class that no image shows enough of cannot be drawn; the others share its part.
        drawable = np.asarray(enough.any(axis=0), dtype=np.float64)
        shown = wanted * drawable
        if shown.sum() == 0:
            shown = drawable
        self.probabilities: Shares = np.asarray(shown / shown.sum(), dtype=np.float64)

    def draw(self, rng: np.random.Generator) -> Drawn | None:
        """Draw a class by its probability, then one of its images, all alike.

        Args:
            rng: where both are drawn from.

        Returns:
            The class and the image; None for the share of draws that is not made by class.
        """
        share = getattr(self.settings, "share", 1.0)
        if share < 1 and rng.random() >= share:
            return None
        train_id = int(rng.choice(len(self.probabilities), p=self.probabilities))
        images = self._images[train_id]
        return Drawn(train_id, int(images[rng.integers(len(images))]))
