"""Static pseudo labels of a round, one PNG per target training image.

Two passes over the images: the first learns, for every class, how confident the top share of the
pixels predicted as that class is; the second writes. Confidence is the log-odds of the best class,
counted in bins, so that a pass needs no more memory than a table and processes can add theirs up.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from reference.atomic import write_atomically
from reference.data.classes import IGNORE, NUM_CLASSES
from reference.data.readers import ImageReader
from reference.data.resizing import resize_image
from reference.engine.optimisation import Precision
from reference.engine.phases import Phase
from reference.engine.processes import Processes
from reference.engine.stage_settings import StaticLabels
from reference.evaluation.evaluate import upsampled_logits
from reference.networks.output import Segmenter
from reference.networks.toy import unit_range

COMPLETE: Final = "complete.json"
# Log-odds of the best of 19 classes are at least -ln 18. A trained network leads by up to a few
# tens, one whose batch statistics do not fit its weights by millions; pixels beyond the highest
# would share a bin, and a class keeps its last bin whole. So bins are even in asinh of the odds:
# 0.0016 wide near 0, and 0.16 percent of the odds where they are large.
_LOWEST: Final = -math.log(NUM_CLASSES - 1)
_HIGHEST: Final = 1e10
_FIRST: Final = math.asinh(_LOWEST)
_BINS: Final = 16384
_STEP: Final = (math.asinh(_HIGHEST) - _FIRST) / _BINS


def labels_folder(run: Path, phase: Phase) -> Path:
    """Return where the static labels of a round are kept."""
    return run / "labels" / phase.name.replace(" ", "-")


@dataclass(frozen=True)
class RoundLabels:
    """What a round's labels are, for the monitor and for people.

    Args:
        coverage: share of all pixels with a label, 0..1.
        predicted_share: per class, share of the network's predictions, 0..1.
        thresholds: per class, least log-odds that are kept; None where the class was not predicted.
    """

    coverage: float
    predicted_share: list[float]
    thresholds: list[float | None]


def log_odds(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return the best class and how far it is ahead: log p - log(1 - p).

    Args:
        logits: class scores; -inf for classes that must not win.

    Shape:
        logits (C, H, W), float32. Results (H, W): int64 and float32.

    Example:
        >>> best, odds = log_odds(torch.tensor([0.75, 0.25]).log().view(2, 1, 1))
        >>> best.item(), round(odds.exp().item(), 4)
        (0, 3.0)
    """
    top, best = logits.max(dim=0)
    # The others on their own, because 1 - p is 0 in float32 long before they are.
    others = logits.scatter(0, best[None], -torch.inf).logsumexp(dim=0)
    return best, (top - others).clamp(_LOWEST, _HIGHEST)


def _bins(odds: Tensor) -> Tensor:
    return ((odds.asinh() - _FIRST) / _STEP).long().clamp(0, _BINS - 1)


def class_thresholds(counts: Tensor, share: float) -> Tensor:
    """Find, for every class, the bin from which its most confident share is kept.

    Args:
        counts: pixels of every class and bin.
        share: 0..1; rounded up to whole bins.

    Shape:
        counts (C, bins), int64. Result: (C,), int64; the number of bins where nothing is kept.
    """
    above = counts.flip(1).cumsum(1).flip(1)
    wanted = (counts.sum(1).double() * share).ceil()
    enough = above >= wanted[:, None]
    last = enough.long().cumsum(1).argmax(dim=1)
    kept = (wanted > 0) & enough.any(dim=1)
    return torch.where(kept, last, torch.full_like(last, counts.shape[1]))


def keep(best: Tensor, odds: Tensor, thresholds: Tensor, image_share: float) -> Tensor:
    """Label the pixels of one image that are confident enough.

    Args:
        best: predicted classes.
        odds: their log-odds.
        thresholds: first bin that is kept, of every class.
        image_share: share of the image, 0..1, that is kept whatever its class.

    Shape:
        best and odds (H, W); thresholds (C,). Result: (H, W), uint8, 255 where not kept.
    """
    kept = _bins(odds) >= thresholds[best]
    number = int(image_share * odds.numel())
    if number:
        # Strictly above the first that is left out: ties at the edge are dropped.
        order = max(1, odds.numel() - number)
        kept |= odds > odds.flatten().kthvalue(order).values
    return torch.where(kept, best, IGNORE).to(torch.uint8)


class _Predictor:
    """Best class and log-odds of this process's share of the images."""

    def __init__(
        self,
        network: Segmenter,
        reader: ImageReader,
        settings: StaticLabels,
        masked: tuple[int, ...],
        precision: Precision,
        processes: Processes,
    ) -> None:
        self.network, self.reader, self.size = network, reader, settings.size
        self.precision, self.processes = precision, processes
        self.masked = torch.tensor(masked, dtype=torch.int64, device=processes.device)

    def __iter__(self) -> Iterator[tuple[int, Tensor, Tensor]]:
        for index in range(self.processes.rank, len(self.reader), self.processes.world):
            pixels = resize_image(self.reader.image(index), self.size)
            images = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None]
            images = unit_range(images.to(self.processes.device))
            with self.precision.autocast():
                logits = upsampled_logits(self.network, images, self.size)[0]
            yield index, *log_odds(logits.index_fill(0, self.masked, -torch.inf))


def _png(labels: Tensor) -> bytes:
    file = io.BytesIO()
    Image.fromarray(labels.cpu().numpy().astype(np.uint8)).save(file, format="png")
    return file.getvalue()


@torch.no_grad()
def write_static_labels(
    folder: Path,
    network: Segmenter,
    reader: ImageReader,
    settings: StaticLabels,
    *,
    masked: tuple[int, ...],
    precision: Precision,
    processes: Processes,
    advance: Callable[[int, int], None] = lambda done, count: None,
) -> RoundLabels:
    """Label the target training images with a network, and keep the labels as files.

    Labels that a stopped run left in the folder are replaced one by one; the file that says the
    folder is complete is written last.

    Args:
        folder: for ``<stem>.png`` and ``complete.json``.
        network: is left in the mode it was in.
        reader: the images, without labels.
        settings: shares and size.
        masked: train ids without labels in the source; they cannot win.
        precision: of the forward pass.
        processes: share the images.
        advance: called with the number of images that are done, of both passes, and their count.

    Raises:
        ValueError: an image is broken.
    """
    if processes.leads:
        (folder / COMPLETE).unlink(missing_ok=True)
    processes.wait()
    training = network.training
    network.eval()
    try:
        predict = _Predictor(network, reader, settings, masked, precision, processes)
        shape = (NUM_CLASSES, _BINS)
        counts = torch.zeros(NUM_CLASSES * _BINS, dtype=torch.int64, device=processes.device)
        for index, best, odds in predict:
            cells = best.flatten() * _BINS + _bins(odds).flatten()
            counts += torch.bincount(cells, minlength=counts.numel())
            advance(index + 1, 2 * len(reader))
        counts = processes.total(counts).view(shape)
        thresholds = class_thresholds(counts, settings.class_share)
        labelled = torch.zeros((), dtype=torch.int64, device=processes.device)
        for index, best, odds in predict:
            labels = keep(best, odds, thresholds, settings.image_share)
            labelled += (labels != IGNORE).sum()
            write_atomically(folder / f"{reader.stems[index]}.png", _png(labels))
            advance(len(reader) + index + 1, 2 * len(reader))
    finally:
        network.train(training)
    total = max(1, int(counts.sum()))
    edges = [math.sinh(_FIRST + int(bin) * _STEP) for bin in thresholds]
    seen = counts.sum(1)
    found = RoundLabels(
        coverage=int(processes.total(labelled)) / total,
        predicted_share=(seen.double() / total).tolist(),
        thresholds=[
            edge if int(number) else None for edge, number in zip(edges, seen, strict=True)
        ],
    )
    processes.wait()
    if processes.leads:
        write_atomically(folder / COMPLETE, json.dumps(asdict(found), indent=2) + "\n")
    processes.wait()
    return found


def require_complete(folder: Path) -> Path:
    """Return a folder of labels that an earlier part of the run has finished.

    Args:
        folder: of the round.

    Raises:
        ValueError: it is missing or was not finished.
    """
    if not (folder / COMPLETE).is_file():
        raise ValueError(
            f"train: expected the static labels that the checkpoint was trained with in {folder}, "
            "got none or a part. Hint: restore the folder, or remove the checkpoints of this round "
            "so that it begins anew."
        )
    return folder
