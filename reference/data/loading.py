"""Batches of the real sets, read by worker processes, every random choice keyed.

What a batch holds follows from (seed, stream, iteration, slot, image) alone: starting at any
iteration gives the same batches, with any number of workers, and no random state is stored, read or
changed. Target batches have no ground truth by type: their reader has no labels to give.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from reference.data.classes import ByteArray
from reference.data.colour import change_colours
from reference.data.crops import SourceCrops, TargetCrops, Window, draw_window, moved
from reference.data.faults import Fault, refuse
from reference.data.order import SOURCE_STREAM, TARGET_STREAM, Batching, Key, Order
from reference.data.picture_files import TRAIN_IDS, decode_ids, to_train_ids
from reference.data.rare_classes import RareClassSampler
from reference.data.readers import ImageReader, Reader


class SourceBatch(NamedTuple):
    """Source images of one training step.

    Args:
        images: float32 (B, 3, h, w) in [0, 1], RGB.
        labels: train ids int64 (B, h, w), 255 where not scored.
        indices: int64 (B,), which images of the set these are.
    """

    images: Tensor
    labels: Tensor
    indices: Tensor


class TargetBatch(NamedTuple):
    """Target images of one training step.

    Args:
        images: float32 (B, 3, h, w) in [0, 1], RGB.
        indices: int64 (B,), which images of the set these are.
        static: pseudo labels that the run made, int64 (B, h, w), 255 where there is none; None
            when no folder of them was given.
    """

    images: Tensor
    indices: Tensor
    static: Tensor | None


@dataclass(frozen=True)
class _Refused:
    """What went wrong in a worker, brought whole to the process that can raise it."""

    error: ValueError


def _to_image(pixels: ByteArray) -> Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255.0


class _Source(Dataset[Any]):
    def __init__(self, reader: Reader, crops: SourceCrops, order: Order) -> None:
        self.reader, self.crops, self.order = reader, crops, order

    def __getitem__(self, key: Key) -> tuple[Tensor, Tensor, int] | _Refused:
        rng = self.order.generator(key)
        try:
            labels, pixels = self.reader.labels(key.image), self.reader.image(key.image)
        except ValueError as error:
            return _Refused(error)
        window = draw_window(labels.shape[:2], self.crops, rng)
        window, cut = self._with_class(window, labels, key, rng)
        image = window.image(pixels)
        if self.crops.colour is not None:
            floats = image.astype(np.float32) / np.float32(255)
            floats = change_colours(floats, self.crops.colour, rng)
            shown = torch.from_numpy(floats).permute(2, 0, 1).contiguous()
        else:
            shown = _to_image(image)
        return shown, torch.from_numpy(cut).long(), key.image

    def _with_class(
        self, window: Window, labels: ByteArray, key: Key, rng: np.random.Generator
    ) -> tuple[Window, ByteArray]:
        """Move the crop until it shows enough of the class that the image was drawn for."""
        cut = window.labels(labels)
        rare = self.order.rare
        if rare is None or key.train_id is None:
            return window, cut
        settings = rare.settings
        for _ in range(settings.max_crops - 1):
            if (cut == key.train_id).sum() >= settings.min_crop_share * settings.min_pixels:
                break
            window = moved(window, rng)
            cut = window.labels(labels)
        return window, cut


class _Target(Dataset[Any]):
    def __init__(
        self, reader: ImageReader, crops: TargetCrops, order: Order, static: Path | None
    ) -> None:
        self.reader, self.crops, self.order, self.static = reader, crops, order, static

    def __getitem__(self, key: Key) -> tuple[Tensor, int, Tensor | None] | _Refused:
        try:
            pixels = self.reader.image(key.image)
            stored = None if self.static is None else self._stored(self.static, key.image)
        except ValueError as error:
            return _Refused(error)
        shape = (pixels.shape[0], pixels.shape[1])
        window = draw_window(shape, self.crops, self.order.generator(key))
        cut = None if stored is None else torch.from_numpy(window.labels(stored)).long()
        return _to_image(window.image(pixels)), key.image, cut

    def _stored(self, folder: Path, image: int) -> ByteArray:
        path = folder / f"{self.reader.stems[image]}.png"
        if not path.is_file():
            cause, fix = (
                "the folder is of another set, or not complete",
                "make them for every image",
            )
            fault = Fault("missing", path, "to hold pseudo labels", "none", cause, fix)
            raise refuse("target_batches", fault)
        ids = decode_ids("target_batches", path, ("L",))
        return to_train_ids("target_batches", path, ids, TRAIN_IDS)


def _source_batch(samples: list[Any]) -> SourceBatch | _Refused:
    for sample in samples:
        if isinstance(sample, _Refused):
            return sample
    images, labels, indices = zip(*samples, strict=True)
    return SourceBatch(torch.stack(images), torch.stack(labels), torch.tensor(indices))


def _target_batch(samples: list[Any]) -> TargetBatch | _Refused:
    for sample in samples:
        if isinstance(sample, _Refused):
            return sample
    images, indices, static = zip(*samples, strict=True)
    stacked = None if static[0] is None else torch.stack(static)
    return TargetBatch(torch.stack(images), torch.tensor(indices), stacked)


def _settle_worker(_: int) -> None:
    """Keep a worker to one core, and let the process that trains decide when it ends.

    A cluster sends its request to stop to every process. A worker that died from it would take the
    run along in the middle of a step; so it goes on until its loader closes.
    """
    import cv2

    # There are as many workers as cores are wanted.
    cv2.setNumThreads(0)
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)


def _batches(
    dataset: Dataset[Any], order: Order, collate: Any, batching: Batching
) -> Iterator[Any]:
    loader = DataLoader(
        dataset,
        batch_sampler=order,
        collate_fn=collate,
        num_workers=batching.workers,
        worker_init_fn=_settle_worker,
        pin_memory=batching.pin_memory,
        # Its own generator: a loader without one draws from torch's global stream when it starts,
        # which would shift dropout after a resume.
        generator=torch.Generator(),
    )
    for batch in loader:
        if isinstance(batch, _Refused):
            raise batch.error
        yield batch


def source_batches(
    reader: Reader,
    crops: SourceCrops,
    batching: Batching,
    *,
    rare: RareClassSampler | None = None,
) -> Iterator[SourceBatch]:
    """Yield the source batches of some iterations.

    Without `rare` every image comes once an epoch. The slots of a batch are divided among ranks:
    two ranks with batch size 1 see what one rank with batch size 2 sees.

    Args:
        reader: a set with labels.
        crops: how its images are cut and coloured.
        batching: which batches.
        rare: draws the images by class and the crops so that they show it.

    Yields:
        SourceBatch: one per iteration.

    Raises:
        ValueError: a number is out of its range, or the reader has no labels; at once.
        DataError: a file is broken; when its batch is asked for.
    """
    if not reader.has_labels:
        raise ValueError(
            f"source_batches: expected a reader with labels, got {type(reader).__name__} without."
        )
    order = batching.order(len(reader), SOURCE_STREAM, rare)
    return _batches(_Source(reader, crops, order), order, _source_batch, batching)


def target_batches(
    reader: ImageReader,
    crops: TargetCrops,
    batching: Batching,
    *,
    static: Path | None = None,
) -> Iterator[TargetBatch]:
    """Yield the target batches of some iterations.

    Every image comes once an epoch; slots are divided among ranks as by `source_batches`.

    Args:
        reader: a set without labels.
        crops: how its images are cut.
        batching: which batches.
        static: folder of pseudo labels ``<stem>.png``, uint8 train ids with 255 for none, of any
            size; cut as their images are.

    Yields:
        TargetBatch: one per iteration.

    Raises:
        ValueError: a number is out of its range, or the reader holds labels; at once.
        DataError: a file is broken or missing; when its batch is asked for.
    """
    if getattr(reader, "has_labels", False):
        raise ValueError(
            f"target_batches: expected a reader without labels, got {type(reader).__name__} with "
            "labels. Hint: make it with labels=False, so that no ground truth can be read."
        )
    order = batching.order(len(reader), TARGET_STREAM)
    return _batches(_Target(reader, crops, order, static), order, _target_batch, batching)
