"""How published numbers are measured: full-size labels, one matrix, means over named classes.

Images are scaled to the evaluation size, logits upsampled to the labels' own size, and every
labelled pixel of every image enters one confusion matrix. Labels are never shrunk: that inflates
the score. Means over 19, 16 and 13 classes are means of rows of this one matrix.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

import torch
from torch import Tensor

from reference.data.classes import NAMES, NUM_CLASSES, SUBSETS, TOY_CLASSES, ByteArray
from reference.data.readers import Reader
from reference.data.resizing import resize_image
from reference.evaluation.evaluate import Scores, confusion_matrix, upsampled_logits
from reference.networks.output import Segmenter
from reference.networks.toy import unit_range
from reference.progress import track

Source = Literal["gta5", "synthia", "toy"]

# Classes that a source labels, the widest first; a network cannot learn any other.
_MEANS: Final[dict[Source, tuple[tuple[int, ...], ...]]] = {
    "gta5": (SUBSETS["19"], SUBSETS["16"], SUBSETS["13"]),
    "synthia": (SUBSETS["16"], SUBSETS["13"]),
    "toy": (TOY_CLASSES,),
}


@dataclass(frozen=True)
class Protocol:
    """How an evaluation is done; the defaults are those of published tables.

    Args:
        size: height and width of the images that the network sees, pixels.
        source: what it was trained on, which says which classes it can know: "gta5" (19),
            "synthia" (16) or "toy" (14). Outputs of other classes are set to -inf, so that they
            cannot take pixels.
        scales: times `size`; more than one averages the probabilities of all views.
        flip: average with the mirrored image as well.

    Raises:
        ValueError: an unknown source, no scale, or a number that is not positive.
    """

    size: tuple[int, int] = (512, 1024)
    source: Source = "gta5"
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False

    def __post_init__(self) -> None:
        if self.source not in get_args(Source):
            known = ", ".join(f'"{name}"' for name in get_args(Source))
            raise ValueError(f"Protocol: expected source {known}, got {self.source!r}.")
        if min(self.size) < 1 or not self.scales or min(self.scales) <= 0:
            raise ValueError(
                "Protocol: expected a positive size and at least one scale above 0, got size "
                f"{self.size} and scales {self.scales}."
            )

    @property
    def classes(self) -> tuple[int, ...]:
        """Train ids that the source labels."""
        return _MEANS[self.source][0]

    @property
    def masked(self) -> tuple[int, ...]:
        """Train ids whose outputs are set to -inf."""
        return tuple(label for label in range(NUM_CLASSES) if label not in self.classes)

    def means_percent(self, scores: Scores) -> dict[str, float]:
        """Return mean IoU in percent by name, "miou19" and so on, the headline first.

        No mean runs over classes that the source does not label.
        """
        return {
            f"miou{len(classes)}": scores.mean_iou_percent(classes)
            for classes in _MEANS[self.source]
        }

    def describe(self, images: int, *, align_corners: bool) -> str:
        """Say in one line how the numbers below were measured."""
        if self.scales == (1.0,):
            scales = "single scale"
        else:
            scales = "scales " + ", ".join(f"{scale:g}" for scale in self.scales)
        parts = [
            f"{images} images at {self.size[1]}x{self.size[0]}",
            scales,
            "with flip" if self.flip else "no flip",
            f"logits upsampled to full-size labels (align_corners={align_corners})",
        ]
        if self.masked:
            names = ", ".join(NAMES[label] for label in self.masked)
            parts.append(f"outputs without labels in the source masked: {names}")
        return "; ".join(parts)


def protocol_for(
    caller: str,
    weights: Path,
    card: Mapping[str, Any],
    *,
    size: tuple[int, int] | None = None,
    source: Source | None = None,
    scales: tuple[float, ...] = (1.0,),
    flip: bool = False,
) -> Protocol:
    """Return how a trained network is run: as asked for, else as its file says.

    Args:
        caller: begins the sentence when the source is not known.
        weights: the file.
        card: of the network; "input_size" and "source" are looked for.
        size: height and width, pixels; None takes the card's, or that of published tables.
        source: None takes the card's.
        scales, flip: as of `Protocol`.

    Raises:
        ValueError: neither says what the network was trained on.
    """
    height, width = size or card.get("input_size", Protocol.size)
    source = source or card.get("source")
    if source is None:
        raise ValueError(
            f"{caller}: expected the data set that the network was trained on, got no source and "
            f"none in {weights}. Hint: give --source {', '.join(get_args(Source)[:-1])} or "
            f"{get_args(Source)[-1]}; it says which classes the network knows."
        )
    return Protocol((height, width), source, scales, flip)


@dataclass(frozen=True)
class Evaluation:
    """What a network scored, and how that was measured.

    Args:
        scores: the matrix and what follows from it.
        protocol: how.
        images: number of images.
        align_corners: of the network.
    """

    scores: Scores
    protocol: Protocol
    images: int
    align_corners: bool

    @property
    def means_percent(self) -> dict[str, float]:
        """Mean IoU by name, 0..100, the headline first."""
        return self.protocol.means_percent(self.scores)

    @property
    def header(self) -> str:
        """One line that belongs above the numbers."""
        return self.protocol.describe(self.images, align_corners=self.align_corners)


def _as_batch(pixels: ByteArray, size: tuple[int, int], device: torch.device) -> Tensor:
    stored = torch.from_numpy(resize_image(pixels, size).copy()).permute(2, 0, 1).unsqueeze(0)
    return unit_range(stored.to(device))


@torch.no_grad()
def class_scores(
    network: Segmenter, pixels: ByteArray, size: tuple[int, int], protocol: Protocol
) -> Tensor:
    """Score every class at every pixel of one image.

    Args:
        network: in evaluation mode, on any device.
        pixels: the image at any size.
        size: height and width of the result, pixels.
        protocol: how.

    Shape:
        pixels (H, W, 3), uint8 RGB. Result: (C, *size): logits of a single view, the mean of the
        probabilities of several; -inf, or 0 among probabilities, for masked classes.
    """
    device = next(network.parameters()).device
    masked = torch.tensor(protocol.masked, dtype=torch.int64, device=device)
    views = []
    for scale in protocol.scales:
        scaled = (round(protocol.size[0] * scale), round(protocol.size[1] * scale))
        batch = _as_batch(pixels, scaled, device)
        for mirrored in (False, True) if protocol.flip else (False,):
            logits = upsampled_logits(network, batch.flip(-1) if mirrored else batch, size)[0]
            views.append(logits.flip(-1) if mirrored else logits)
            views[-1].index_fill_(0, masked, -torch.inf)
    if len(views) == 1:
        return views[0]
    return torch.stack([view.softmax(dim=0) for view in views]).mean(dim=0)


def evaluate_reader(
    network: Segmenter,
    reader: Reader,
    protocol: Protocol,
    *,
    description: str = "Evaluating",
    progress: bool = False,
) -> Evaluation:
    """Score a network on every image of a data set, one by one, at the labels' own size.

    The network is left in the mode it was in.

    Args:
        network: on the device where the work is to be done.
        reader: with labels.
        protocol: how.
        description: what the bar says.
        progress: show a bar.

    Raises:
        ValueError: the reader has no labels or no images, the network has another number of
            classes, or a file is broken.
    """
    if not reader.has_labels or not len(reader):
        raise ValueError(
            "evaluate_reader: expected a reader with labels and at least one image, got "
            f"{len(reader)} images {'with' if reader.has_labels else 'without'} labels."
        )
    if network.num_classes != NUM_CLASSES:
        raise ValueError(
            f"evaluate_reader: expected a network with {NUM_CLASSES} outputs, got "
            f"{network.num_classes}. Hint: train on all {NUM_CLASSES}; the protocol masks those "
            "without labels."
        )
    device = next(network.parameters()).device
    confusion = torch.zeros(NUM_CLASSES, NUM_CLASSES, dtype=torch.int64, device=device)
    training = network.training
    network.eval()
    try:
        for index in track(len(reader), description, show=progress):
            truth = torch.from_numpy(reader.labels(index).copy()).to(device)
            size = (truth.shape[0], truth.shape[1])
            guess = class_scores(network, reader.image(index), size, protocol).argmax(dim=0)
            confusion += confusion_matrix(guess, truth, NUM_CLASSES)
    finally:
        network.train(training)
    return Evaluation(Scores(confusion.cpu()), protocol, len(reader), network.align_corners)
