"""Pictures of images, labels and predictions, ready to stand inside one HTML file."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from reference.data.classes import IGNORE, PALETTE, ByteArray
from reference.evaluation.evaluate import predict
from reference.experiments.scenario import Scenario
from reference.networks.toy import STRIDE, SegmentationNetwork, unit_range
from reference.training.losses import cell_labels
from reference.training.stages import Trained

UNLABELLED_COLOUR: Final = (232, 232, 228)
LONGEST_SIDE: Final = 480


@dataclass(frozen=True)
class Panel:
    """One picture.

    Args:
        caption: what it shows, in a few words.
        picture: a PNG file as a data URI.
        pixelated: enlarge it without smoothing, as class maps want.
    """

    caption: str
    picture: str
    pixelated: bool = False


@dataclass(frozen=True)
class Strip:
    """Pictures of one image side by side.

    Args:
        stem: name of the image in its data set.
        panels: from left to right.
    """

    stem: str
    panels: tuple[Panel, ...]


def colourise(labels: ByteArray) -> ByteArray:
    """Paint train ids in the colours of Cityscapes.

    Args:
        labels: train ids 0..18; 255 becomes a light grey.

    Shape:
        labels (H, W). Result: (H, W, 3), uint8 RGB.

    Raises:
        ValueError: a value that is neither a class nor 255.

    Example:
        >>> colourise(np.array([[0, 255]], dtype=np.uint8)).tolist()
        [[[128, 64, 128], [232, 232, 228]]]
    """
    table = np.empty((256, 3), dtype=np.uint8)
    table[:] = UNLABELLED_COLOUR
    table[: len(PALETTE)] = PALETTE
    strange = labels[(labels >= len(PALETTE)) & (labels != IGNORE)]
    if strange.size:
        raise ValueError(
            f"colourise: expected train ids 0..{len(PALETTE) - 1} or {IGNORE}, "
            f"got {int(strange[0])} in {strange.size} pixels."
        )
    return table[labels]


def png_uri(pixels: ByteArray) -> str:
    """Encode uint8 pixels, (H, W, 3) in colour or (H, W) in grey, as a PNG data URI."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _shrunk(pixels: ByteArray, how: Image.Resampling) -> ByteArray:
    height, width = pixels.shape[:2]
    scale = LONGEST_SIDE / max(height, width)
    if scale >= 1:
        return pixels
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(pixels).resize(size, how))


def photograph(caption: str, pixels: ByteArray) -> Panel:
    """Make a panel of an image, (H, W, 3) uint8, scaled to at most 480 pixels on a side."""
    return Panel(caption, png_uri(_shrunk(pixels, Image.Resampling.LANCZOS)))


def label_map(caption: str, labels: Tensor | ByteArray, *, enlarge: int = 1) -> Panel:
    """Make a panel of train ids.

    Args:
        caption: what it shows.
        labels: train ids or 255.
        enlarge: every value becomes a square of this many pixels.

    Shape:
        labels (H, W), integer.
    """
    ids = np.asarray(labels).astype(np.uint8)
    ids = ids.repeat(enlarge, axis=0).repeat(enlarge, axis=1)
    ids = _shrunk(ids, Image.Resampling.NEAREST)
    return Panel(caption, png_uri(colourise(ids)), pixelated=True)


def spread_indices(count: int, wanted: int) -> list[int]:
    """Pick evenly spaced indices: a fixed rule, so that no picture is chosen for its looks.

    Example:
        >>> spread_indices(100, 4)
        [12, 37, 62, 87]
    """
    wanted = min(count, wanted)
    return [(2 * place + 1) * count // (2 * wanted) for place in range(wanted)]


def domain_strips(scenario: Scenario, *, count: int = 4) -> list[Strip]:
    """Show training images of both domains, evenly spaced over each set."""
    sets = {"source": scenario.source.images, "target": scenario.target_images}
    return [
        Strip(
            domain,
            tuple(
                photograph(f"training image {index}", _upright(images[index]))
                for index in spread_indices(len(images), count)
            ),
        )
        for domain, images in sets.items()
    ]


def _upright(image: Tensor) -> ByteArray:
    return image.permute(1, 2, 0).numpy()


def prediction_strips(
    scenario: Scenario, networks: Mapping[str, SegmentationNetwork], *, count: int = 4
) -> list[Strip]:
    """Show test images: image, ground truth, then the prediction of every network.

    Args:
        scenario: the data.
        networks: caption -> network.
        count: number of images, evenly spaced over the split.
    """
    strips = []
    for index in spread_indices(len(scenario.test), count):
        truth = scenario.test_labels(index)
        size = (truth.shape[0], truth.shape[1])
        panels = [
            photograph("image", scenario.test_reader.image(index)),
            label_map("ground truth", truth),
        ]
        for caption, network in networks.items():
            guess = predict(network, scenario.test.images[index : index + 1], size)[0]
            panels.append(label_map(caption, guess))
        strips.append(Strip(scenario.test.stems[index], tuple(panels)))
    return strips


@torch.no_grad()
def pseudo_label_strips(scenario: Scenario, trained: Trained, *, count: int = 4) -> list[Strip]:
    """Show target training images and the pseudo labels they have at the end of adaptation.

    Args:
        scenario: the data.
        trained: of an adaptation with contrast.
        count: number of images, evenly spaced over the set.

    Returns:
        Strips of the image, the static labels (as last made; left out where the run has none),
        the dynamic labels of the final prototypes, and the hybrid of both.

    Raises:
        ValueError: the run had no contrast, so it has no dynamic labels.
    """
    bicl, network = trained.bicl, trained.network
    if bicl is None or scenario.source.labels is None:
        raise ValueError(
            "pseudo_label_strips: expected a run with contrast, got one whose bicl is None."
        )
    # Labels of the target do not depend on which source image stands beside it.
    beside = network(unit_range(scenario.source.images[:1])).features
    beside_labels = cell_labels(scenario.source.labels[:1])
    strips = []
    for index in spread_indices(len(scenario.target_images), count):
        image = scenario.target_images[index : index + 1]
        features = network(unit_range(image)).features
        fixed = None if trained.static_labels is None else trained.static_labels[[index]].long()
        panels = [photograph("image", _upright(image[0]))]
        if fixed is not None:
            panels.append(label_map("static", fixed[0], enlarge=STRIDE))
        for caption, static in (("dynamic", None), ("hybrid", fixed)):
            seen = bicl(beside, beside_labels, features, static, update=False)
            panels.append(label_map(caption, seen.target_labels[0], enlarge=STRIDE))
        truth = scenario.target_truth
        if truth is not None and truth.labels is not None:
            panels.append(label_map("ground truth, not used", truth.labels[index]))
        strips.append(Strip(f"target training image {index}", tuple(panels)))
    return strips
