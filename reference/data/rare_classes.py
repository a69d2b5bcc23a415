"""Rare-class sampling: images that show rare classes are drawn more often.

A class is drawn first, then an image that shows enough of it. With f_c the share of class c among
the labelled pixels of the whole set and T the temperature, the probability of class c is

    P(c) = exp((1 - f_c) / T) / sum over k of exp((1 - f_k) / T)

over the classes that can be drawn. Counting pixels reads every label file, which takes minutes for
GTA5; the counts are kept as JSON and taken again as long as no label file changes.

Source:
    Hoyer et al., DAFormer, CVPR 2022, section 3.3; its settings.
"""

import hashlib
import json
import warnings
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from reference.data.image_set import ImageSet
from reference.data.settings import RareClasses, require

Counts = npt.NDArray[np.int64]
Shares = npt.NDArray[np.float64]

FOLDER: Final = Path("runs/index")
_HINT: Final = "lower min_pixels for small images"


def count_pixels(images: ImageSet, index: int) -> list[int]:
    """Return the pixels of every class in one label file; none where it is broken."""
    try:
        labels = images.labels(index)
    except ValueError:
        # The run that draws the image says what is wrong with it.
        return [0] * len(images.classes)
    return np.bincount(labels.ravel(), minlength=256)[: len(images.classes)].tolist()


def counts_path(images: ImageSet, folder: Path = FOLDER) -> Path:
    """The file of a set's counts, named by classes, root, and size and time of every label file."""
    tables = [reading.table.tobytes().hex() for reading in images.readings]
    content = [str(images.root.resolve()), *images.classes.names, *tables]
    for sample in images.samples:
        if sample.labels is not None:
            state = sample.labels.stat()
            content.append(f"{sample.labels} {state.st_size} {state.st_mtime_ns}")
    digest = hashlib.sha256("\n".join(content).encode("utf-8", "surrogateescape")).hexdigest()
    name = "".join(letter for letter in images.name.lower() if letter.isalnum())[:32]
    return folder / f"{name}-{digest[:16]}.json"


def kept_counts(images: ImageSet, folder: Path = FOLDER) -> Counts | None:
    """Return the kept counts of a set, or None where there are none or they are damaged."""
    try:
        stored: Any = json.loads(counts_path(images, folder).read_text(encoding="utf-8"))
        counts = np.array(stored["pixels"], dtype=np.int64)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return counts if counts.shape == (len(images), len(images.classes)) else None


def keep_counts(images: ImageSet, counts: Counts, folder: Path = FOLDER) -> Path | None:
    """Keep counts and return their file; None, with a warning, where it cannot be written."""
    from reference.run.files import write_atomically

    path = counts_path(images, folder)
    content = {"root": str(images.root.resolve()), "classes": images.classes.names}
    content |= {"stems": images.stems, "pixels": counts.tolist()}
    try:
        write_atomically(path, json.dumps(content) + "\n")
    except ValueError as error:
        warnings.warn(f"The counts of classes are not kept: {error}", stacklevel=2)
        return None
    return path


def class_counts(images: ImageSet, folder: Path = FOLDER, *, workers: int = 0) -> Counts:
    """Return the pixels of every class in every label file, (N, C), as long as none changes."""
    kept = kept_counts(images, folder)
    if kept is not None:
        return kept
    from reference.data.batches import over

    work, count = partial(count_pixels, images), len(images)
    pixels = list(over(work, count, "Counting pixels", workers=workers, progress=False))
    counts = np.array(pixels, dtype=np.int64)
    keep_counts(images, counts, folder)
    return counts


def class_probabilities(pixels: Counts, temperature: float) -> Shares:
    """Return how often each class is to be drawn, (C,), from the pixels of each, (C,).

    The sum is 1, and a class without a pixel has 0; at least one class must have a pixel.
    """
    logits = np.where(pixels > 0, (1.0 - pixels / pixels.sum()) / temperature, -np.inf)
    weights = np.exp(logits - logits.max())
    return np.asarray(weights / weights.sum(), dtype=np.float64)


class RareClassSampler:
    """Draws images by class; ValueError where no image holds `min_pixels` of any."""

    def __init__(self, counts: Counts, settings: RareClasses) -> None:
        self.settings = settings
        enough = counts >= settings.min_pixels
        told = f"with {settings.min_pixels} pixels of a class"
        got = f"{counts.max(initial=0)} at most in {len(counts)} images"
        require("RareClassSampler", "an image", got, told, bool(enough.any()), _HINT)
        self._images = [np.flatnonzero(column) for column in enough.T]
        wanted = class_probabilities(counts.sum(axis=0), settings.temperature)
        # A class that no image shows enough of cannot be drawn; the others share its part.
        drawable = np.asarray(enough.any(axis=0), dtype=np.float64)
        shown = wanted * drawable if (wanted * drawable).any() else drawable
        self.probabilities: Shares = shown / shown.sum()

    def draw(self, rng: np.random.Generator) -> tuple[int, int] | None:
        """Draw a class by its probability, then one of its images; None for the other draws."""
        if self.settings.share < 1 and rng.random() >= self.settings.share:
            return None
        number = int(rng.choice(len(self.probabilities), p=self.probabilities))
        images = self._images[number]
        return int(images[rng.integers(len(images))]), number
