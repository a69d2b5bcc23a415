"""Sequences of one set of photographs as domains of their own, such as a drive at dusk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from reference.data.classes import ByteArray
from reference.data.readers import FileReader


class Part:
    """Some images of a reader, in its order.

    Args:
        reader: of the whole set.
        indices: which images.

    Raises:
        ValueError: there are none.
    """

    def __init__(self, reader: FileReader, indices: Sequence[int]) -> None:
        if not indices:
            raise ValueError(f"Part: expected images of {reader.root}, got none.")
        self._reader = reader
        self._indices = tuple(indices)
        self.root = reader.root
        self.has_labels = reader.has_labels
        self.stems = tuple(reader.stems[index] for index in indices)
        self.image_files = self._chosen(reader.image_files)
        self.label_files = self._chosen(reader.label_files)

    def _chosen(self, files: tuple[Path, ...]) -> tuple[Path, ...]:
        return tuple(files[index] for index in self._indices) if files else ()

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._indices)

    def image(self, index: int) -> ByteArray:
        """Return image `index` of the part, uint8 (H, W, 3), RGB."""
        return self._reader.image(self._indices[index])

    def labels(self, index: int) -> ByteArray:
        """Return the train ids of image `index` of the part, uint8 (H, W)."""
        return self._reader.labels(self._indices[index])


def sequence_of(path: Path) -> str:
    """Return the sequence, or city, of an image file: the folder it lies in."""
    return path.parent.name


def part_where(reader: FileReader, wanted: Callable[[str], bool]) -> Part:
    """Take the images of some sequences.

    Args:
        reader: of the whole set.
        wanted: whether a sequence is taken.

    Raises:
        ValueError: no image is left.
    """
    chosen = [i for i, path in enumerate(reader.image_files) if wanted(sequence_of(path))]
    if not chosen:
        found = ", ".join(sorted({sequence_of(path) for path in reader.image_files}))
        raise ValueError(
            f"part_where: expected one of the wanted sequences in {reader.root}, got {found}."
        )
    return Part(reader, chosen)


def halves(reader: FileReader) -> tuple[Part, Part]:
    """Cut a sequence in the middle: neighbouring images are alike, so they stay on one side.

    Args:
        reader: at least two images.

    Raises:
        ValueError: fewer than two images.
    """
    middle = (len(reader) + 1) // 2
    return Part(reader, range(middle)), Part(reader, range(middle, len(reader)))
