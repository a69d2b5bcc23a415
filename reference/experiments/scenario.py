"""The two domains of an experiment, drawn or found on disk, read by the real readers."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from reference.data.arrays import ArrayDomain, load_domain
from reference.data.cityscapes import Cityscapes
from reference.data.gta5 import GTA5
from reference.data.readers import Reader
from reference.data.sequences import halves, part_where
from reference.synthetic import write_domains
from reference.training.config import PRESETS, Experiment

TOY: Final = "toy"
NIGHT: Final = "night"
DRAWN: Final = (TOY, NIGHT)


@dataclass(frozen=True)
class Scenario:
    """What training, evaluation and diagnosis may look at.

    Args:
        source: images with labels.
        target_images: unlabelled target images, uint8 (N, 3, H, W): all that adaptation sees.
        target_truth: the same images with labels, for the oracle and for diagnosis only; None
            where the data set has no training labels.
        test: the test images at the network's size.
        test_reader: reads the test images and labels at their own size, for scores.
        split: name of the split that `test` is.
        seconds: wall time of drawing and of reading.
        day_images: row i shows the street of target image i by day, with other traffic, uint8
            (N, 3, H, W), unlabelled; None where the target has no such images.
    """

    source: ArrayDomain
    target_images: Tensor
    target_truth: ArrayDomain | None
    test: ArrayDomain
    test_reader: Reader
    split: str
    seconds: dict[str, float]
    day_images: Tensor | None = None

    @property
    def test_labels(self) -> Callable[[int], Tensor]:
        """Labels of one test image at full size, uint8 (H, W)."""
        return lambda index: torch.from_numpy(self.test_reader.labels(index))


def has_training_labels(target: str) -> bool:
    """Whether a target offers labels of its training images, which only the oracle needs."""
    return target in DRAWN or (Path(target) / "gtFine" / "train").is_dir()


def choose_experiment(target: str, seed: int, *, varied: bool = False) -> Experiment:
    """Return the preset that belongs to a target.

    Args:
        target: "toy", "night", or the root of a data set of photographs in the Cityscapes layout.
        seed: of the drawn data, the weights and the batches.
        varied: for photographs: a varied source, and a larger network trained longer.
    """
    name = TOY if target in DRAWN else "varied-to-photographs" if varied else "toy-to-photographs"
    return replace(PRESETS[name], seed=seed)


def load_sequences(
    experiment: Experiment, root: str, sequence: str, *, progress: bool = False
) -> Scenario:
    """Read one set of photographs as two domains: a sequence as the target, the others as source.

    The sequence is cut in the middle: its first half is adapted to without labels, its second half
    is the test. Nothing is drawn.

    Args:
        experiment: size of the images.
        root: of a data set in the Cityscapes layout, its split "train" with labels.
        sequence: name of the target sequence, a folder of that split.
        progress: show bars.

    Raises:
        ValueError: there is no such sequence, or no other, or one has fewer than two images.
    """
    size = (experiment.data.height, experiment.data.width)
    began = time.perf_counter()
    labelled = Cityscapes(root, "train", labels=True)
    images = Cityscapes(root, "train", labels=False)
    source = part_where(labelled, lambda name: name != sequence)
    first, last = halves(part_where(labelled, lambda name: name == sequence))
    unlabelled, _ = halves(part_where(images, lambda name: name == sequence))
    return Scenario(
        load_domain(source, size, progress=progress),
        load_domain(unlabelled, size, progress=progress).images,
        load_domain(first, size, progress=progress),
        load_domain(last, size, progress=progress),
        last,
        f"second half of {sequence}",
        {"drawing": 0.0, "reading": time.perf_counter() - began},
    )


def data_folder(runs: Path, experiment: Experiment, target: str = TOY) -> Path:
    """Return the usual place of the drawn images of an experiment, below the folder `runs`."""
    data = experiment.data
    kind = "varied" if data.varied else NIGHT if target == NIGHT else TOY
    return runs / "data" / f"{kind}-{data.width}x{data.height}-seed{experiment.seed}"


def load_scenario(
    experiment: Experiment, data: Path, target: str = TOY, *, progress: bool = False
) -> Scenario:
    """Draw what is missing, then read everything into memory.

    The drawn target is tested on its split "test"; photographs on their split "val", because the
    test labels of Cityscapes are not public.

    Args:
        experiment: sizes, shift and seed of the drawn images.
        data: where the drawn images are, or will be written; see `write_domains`.
        target: "toy" for the drawn target, "night" for the same streets after dark, else the root
            of a Cityscapes-like data set.
        progress: show bars.

    Raises:
        ValueError: `data` holds other images, or a target that the reader refuses.
    """
    drawn = target in DRAWN
    settings = experiment.data
    size = (settings.height, settings.width)
    sizes = settings.sizes
    if not drawn:
        sizes = replace(sizes, target_train=0, target_val=0, target_test=0)
        # A wrong path is told before anything is drawn.
        Cityscapes(target, "train", labels=False)
        Cityscapes(target, "val", labels=True)
    began = time.perf_counter()
    domains = write_domains(
        data,
        experiment.seed,
        sizes,
        size=size,
        shift=settings.shift,
        varied=settings.varied,
        night=target == NIGHT,
        progress=progress,
    )
    drawing = time.perf_counter() - began
    root = domains.target if drawn else Path(target)
    split = "test" if drawn else "val"
    test_reader = Cityscapes(root, split, labels=True)
    source = load_domain(GTA5(domains.source), size, progress=progress).merged(settings.merged)
    unlabelled = load_domain(Cityscapes(root, "train", labels=False), size, progress=progress)
    # Its labels are read here as well, so that a broken file is told before hours of training.
    test = load_domain(test_reader, size, progress=progress)
    truth = None
    if has_training_labels(target):
        truth = load_domain(Cityscapes(root, "train", labels=True), size, progress=progress)
    day = None
    if domains.day is not None:
        reader = Cityscapes(domains.day, "train", labels=False)
        day = load_domain(reader, size, progress=progress).images
    reading = time.perf_counter() - began - drawing
    return Scenario(
        source,
        unlabelled.images,
        truth,
        test,
        test_reader,
        split,
        {"drawing": drawing, "reading": reading},
        day,
    )
