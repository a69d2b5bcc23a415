"""How right pseudo labels are: measured by someone who owns the target labels, for reports only.

Training never sees target labels; nothing that is measured here flows back.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reference.data.classes import IGNORE, ByteArray


@dataclass
class LabelAccuracy:
    """Counts over all images that were added.

    Args:
        right: pixels with a pseudo label that is the true one.
        labelled: pixels with a pseudo label, where there is a true one.
        scored: pixels with a true label.
    """

    right: int = 0
    labelled: int = 0
    scored: int = 0

    def add(self, guess: ByteArray, truth: ByteArray) -> None:
        """Compare the pseudo labels of one image with the truth.

        Args:
            guess: class numbers or 255.
            truth: likewise; at the middle pixel of every cell of `guess`, whose size may differ.

        Shape:
            guess (h, w), truth (H, W).
        """
        rows, columns = (
            ((np.arange(cells) + 0.5) * (side / cells)).astype(np.int64)
            for cells, side in zip(guess.shape, truth.shape, strict=True)
        )
        there = truth[rows[:, None], columns]
        scored = there != IGNORE
        given = scored & (guess != IGNORE)
        self.scored += int(scored.sum())
        self.labelled += int(given.sum())
        self.right += int((guess[given] == there[given]).sum())

    @property
    def percent(self) -> float | None:
        """Share of the pseudo labels that are right, 0..100; None where there are none."""
        return 100 * self.right / self.labelled if self.labelled else None

    @property
    def coverage_percent(self) -> float | None:
        """Share of the pixels with a true label that have a pseudo label, 0..100."""
        return 100 * self.labelled / self.scored if self.scored else None
