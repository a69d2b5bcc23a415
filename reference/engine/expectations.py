"""What a source-only network reaches early, and the usual reasons why one does not.

The limits are our own choice, below published end results: a DeepLab-V2 on ResNet-101 that was
trained on GTA5 alone ends at 36.6 % mIoU on Cityscapes, one whose pre-trained weights were not
loaded at 25, one with a learning rate of 1e-5 at 30 (issues 25, 56, 65 and 81 of
wasidennis/AdaptSegNet). Trained on SYNTHIA alone it ends at 33.5 % over 16 classes. Nothing of
this was measured with this code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from reference.engine.settings import Settings

# Source set -> (iterations of warm-up, percent mIoU below which something is likely wrong).
LIMITS: Final = {
    "gta5": ((2000, 20.0), (10_000, 28.0)),
    "synthia": ((2000, 17.0), (10_000, 25.0)),
}
# Labels read with the wrong colours or bits leave a network below this.
_NOTHING_LEARNT: Final = 5.0


@dataclass(frozen=True)
class Band:
    """What to expect of a source network.

    Args:
        iteration: of the warm-up.
        least_percent: mean IoU, 0..100, over the classes that the source labels.
    """

    iteration: int
    least_percent: float

    def verdict(self, miou_percent: float) -> str:
        """Say whether a score is as expected, and if not, where to look.

        Args:
            miou_percent: on the validation images, 0..100.
        """
        begin = (
            f"does it train? mIoU {miou_percent:.1f} after {self.iteration} iterations, expected "
            f"{self.least_percent:g} or more:"
        )
        if miou_percent >= self.least_percent:
            return f"{begin} OK"
        if miou_percent < _NOTHING_LEARNT:
            return (
                f"{begin} LOW. Hint: next to nothing is learnt; labels that were saved again with "
                "other colours or bits do this (python -m reference.check_data)."
            )
        return (
            f"{begin} LOW. Hint: see that the backbone's weights were loaded (the report at the "
            "start of the run), that --source.optimiser.learning-rate is about 2.5e-4, and that "
            "the weights belong to the colour normalisation of the network."
        )


def expected_band(settings: Settings, iteration: int) -> Band | None:
    """Return what to expect after an iteration of the warm-up; None where nothing is known.

    Args:
        settings: of the run. Only what comes from pre-trained weights is judged, as published
            numbers do.
        iteration: steps done.
    """
    if settings.mode == "adapt" or iteration > settings.source.iterations:
        return None
    if settings.network.kind != "deeplab" or settings.network.random_weights:
        return None
    for number, least in LIMITS.get(settings.data.source_set, ()):
        if iteration == number:
            return Band(number, least)
    return None
