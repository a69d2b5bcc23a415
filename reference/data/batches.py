"""Batches of any set, every random choice keyed.

What a batch holds follows from (seed, stream, iteration, slot, image) alone: it is the same with
any number of workers and ranks and after any resume, and no random state is stored or read.
"""

import atexit
import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from reference.data import files
from reference.data.classes import IGNORE, ByteArray, ClassList
from reference.data.colour import change_colours
from reference.data.cuts import Key, Order, Window, draw_window, placed, require_cut
from reference.data.files import DataError, Reading, resize_image, resize_labels, whole_size
from reference.data.image_set import ImageSet
from reference.data.rare_classes import RareClassSampler
from reference.data.settings import Crops, Size

Skip = Callable[[str], None] | None

SOURCE_STREAM: Final = 0
TARGET_STREAM: Final = 1
# So many broken images in a row mean that the whole set is broken.
_ATTEMPTS: Final = 64


class Batch(NamedTuple):
    """Images of one training step."""

    images: Tensor  # float32 (B, 3, h, w) in [0, 1], RGB
    # class numbers int64 (B, h, w), 255 where there is none: of the set where it was opened with
    # labels, else the run's own static labels, else None
    labels: Tensor | None
    indices: Tensor  # int64 (B,), which images of the set these are
    partners: Tensor | None  # day images of the same places, cut alike, as `images`

    def to(self, device: torch.device, *, channels_last: bool = False) -> "Batch":
        """Return the same on a device, its images in a memory format."""
        memory = torch.channels_last if channels_last else torch.contiguous_format

        def moved(images: Tensor) -> Tensor:
            return images.to(device, non_blocking=True, memory_format=memory)

        return Batch(
            moved(self.images),
            None if self.labels is None else self.labels.to(device, non_blocking=True),
            self.indices,
            None if self.partners is None else moved(self.partners),
        )


def to_tensor(pixels: ByteArray) -> Tensor:
    """Return an image, uint8 (H, W, 3), as float32 (3, H, W) in [0, 1]."""
    # A copy, since arrays that a set keeps in memory cannot be written to.
    return torch.tensor(pixels).permute(2, 0, 1).contiguous().float() / 255.0


# What workers hand over: images, what was wrong with others by their number, what ends the run.
_Answer = tuple[Batch | None, dict[int, str], ValueError | None]


@dataclass(frozen=True)
class _Cuts(Dataset[Any]):
    """The images of one batch after another, by their keys."""

    images: ImageSet
    crops: Crops
    order: Order
    static: Path | None

    def __getitem__(self, key: Key) -> _Answer:
        """Return the image of a slot, or the next whole one, and what was wrong with others."""
        bad: dict[int, str] = {}
        for attempt in range(1 + min(len(self.images), _ATTEMPTS)):
            tried = self.order.in_turn(key.iteration, key.slot, attempt) if attempt else key
            if tried.image in bad:
                continue
            try:
                pixels, labels, partner = _files(self.images, tried.image)
                path, shape = self.images.samples[tried.image].image, pixels.shape[:2]
                require_cut(path, (shape[0], shape[1]), self.crops)
            except DataError as error:
                bad[tried.image] = str(error)
                continue
            try:
                if self.static is not None:
                    path = self.static / f"{self.images.stems[tried.image]}.png"
                    labels = read_static(path, self.images.classes)
            except DataError as error:
                # No image of the set: leaving it out would hide that the run's files are gone.
                return None, bad, error
            return self._cut(tried, pixels, labels, partner), bad, None
        return None, bad, None

    def _cut(
        self, key: Key, pixels: ByteArray, labels: ByteArray | None, partner: ByteArray | None
    ) -> Batch:
        rng, colours, cut = self.order.generator(key), self.crops.colours, None
        window = draw_window((pixels.shape[0], pixels.shape[1]), self.crops, rng)
        if labels is not None:
            window, cut = self._with_class(window, labels, key, rng)
        image = to_tensor(window.image(pixels))
        if colours.probability or colours.blur_probability or colours.noise:
            image = change_colours(image, colours, rng)
        return _one(image, cut, key.image, None if partner is None else window.image(partner))

    def _with_class(
        self, window: Window, labels: ByteArray, key: Key, rng: np.random.Generator
    ) -> tuple[Window, ByteArray]:
        """Move the crop until it shows enough of the class that the image was drawn for."""
        cut, rare = window.labels(labels), self.order.rare
        if rare is None or key.number is None:
            return window, cut
        enough = rare.settings.min_crop_share * rare.settings.min_pixels
        for _ in range(rare.settings.max_crops - 1):
            if (cut == key.number).sum() >= enough:
                break
            window = placed(window.size, window.crop, window.flipped, rng)
            cut = window.labels(labels)
        return window, cut


def read_static(path: Path, classes: ClassList) -> ByteArray:
    """Read static labels, which hold class numbers and 255, uint8 (H, W)."""
    known = frozenset((*range(len(classes)), IGNORE))
    return files.read_labels(path, Reading("ids", np.arange(256, dtype=np.uint8), known, {}))


def _files(images: ImageSet, index: int) -> tuple[ByteArray, ByteArray | None, ByteArray | None]:
    """Read an image, its labels and its partner, where the set has them."""
    return *images.pair(index), images.partner(index) if images.has_partners else None


def _one(image: Tensor, labels: ByteArray | None, index: int, partner: ByteArray | None) -> Batch:
    """Return a batch of one image, which lacks the first dimension."""
    numbers = None if labels is None else torch.tensor(labels).long()
    day = None if partner is None else to_tensor(partner)
    return Batch(image, numbers, torch.tensor(index), day)


def _stacked(ones: list[Batch]) -> Batch:
    images, labels, indices, partners = (
        None if each[0] is None else torch.stack(each) for each in zip(*ones, strict=True)
    )
    return Batch(images, labels, indices, partners)  # type: ignore[arg-type]


def _collate(answers: list[_Answer]) -> _Answer:
    bad = {index: sentence for _, several, _ in answers for index, sentence in several.items()}
    fatal = next((error for _, _, error in answers if error is not None), None)
    cuts = [cut for cut, _, _ in answers if cut is not None]
    return (_stacked(cuts) if len(cuts) == len(answers) else None), bad, fatal


def _settle_worker(_: int) -> None:
    """Let the process that started a worker decide when it ends.

    A cluster sends its request to stop to every process. A worker that died from it would take the
    run along in the middle of a step; so it goes on until its loader closes, or `_end_workers`.
    """
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    import cv2

    # There are as many workers as cores are wanted.
    cv2.setNumThreads(0)


@atexit.register
def _end_workers() -> None:
    """End those whose loader an error has kept; Python would wait for them, and they for work."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for worker in multiprocessing.active_children():
        if worker.daemon:
            worker.kill()


def batches(
    images: ImageSet, crops: Crops, *, seed: int, stream: int, start: int, stop: int,
    batch_size: int, rank: int = 0, world: int = 1, workers: int = 0, pin_memory: bool = False,
    rare: RareClassSampler | None = None, static: Path | None = None, skip: Skip = None,
    max_bad: int = 100,
) -> Iterator[Batch]:  # fmt: skip
    """Yield the batches of iterations `start` .. `stop` - 1.

    The slots of a batch are divided among ranks: two ranks with batch size 1 see what one rank
    with batch size 2 sees. A broken image is named once and replaced by the next of the order.

    Args:
        stream: `SOURCE_STREAM` or `TARGET_STREAM`; another gives other draws.
        batch_size: images of a batch on this rank.
        rare: draws images by class, and cuts them so that they show it.
        static: folder of static labels ``<stem>.png`` for a set without labels, class numbers
            with 255 for none, of any size.
        skip: called with one sentence for every image that is left out.
        max_bad: number of images that may be left out; one more is a DataError.
    """
    order = Order(len(images), seed, stream, start, stop, batch_size, rank, world, rare)
    loader = DataLoader(
        _Cuts(images, crops, order, static), batch_sampler=order, collate_fn=_collate,
        num_workers=workers, worker_init_fn=_settle_worker, pin_memory=pin_memory,
        # Its own generator: a loader without one draws from torch's global stream when it starts,
        # which would shift dropout after a resume.
        generator=torch.Generator(),
    )  # fmt: skip
    return _whole(loader, images, skip, max_bad)


def _whole(loader: Any, images: ImageSet, skip: Skip, max_bad: int) -> Iterator[Batch]:
    for batch, bad, fatal in loader:
        for index, sentence in bad.items():
            _note_bad(images, index, sentence, skip, max_bad)
        if fatal is not None:
            raise fatal
        if batch is None:
            raise DataError(f"{next(iter(bad.values()))} No whole image followed it.")
        yield batch


def _note_bad(images: ImageSet, index: int, sentence: str, skip: Skip, max_bad: int) -> None:
    """Count an image that is left out and say so, once; more than `max_bad` are an error."""
    if index in images.bad:
        return
    images.bad[index] = sentence
    count = len(images.bad)
    if count > max_bad:
        raise DataError(
            f"{sentence} With it {count} images of {images.name} are broken, and data.max_bad is "
            f"{max_bad}. Run python -m reference.check_data."
        )
    if skip is not None:
        skip(f"left out, {count} so far: {sentence}")


def passes(
    images: ImageSet, size: Size, which: Iterable[int], *, skip: Skip = None, max_bad: int = 100
) -> Iterator[Batch]:
    """Yield some images of a set one by one, each whole, with its labels where the set has them.

    They are scaled to `whole_size`. A broken one is left out, with `skip` and `max_bad` as in
    `batches`.
    """
    for index in which:
        try:
            pixels, labels, partner = _files(images, index)
            shape = pixels.shape[0], pixels.shape[1]
            seen = whole_size(shape, size)
            files.require_short(images.samples[index].image, shape, seen, str(size[0]))
        except DataError as error:
            _note_bad(images, index, str(error), skip, max_bad)
            continue
        labels = None if labels is None else resize_labels(labels, seen)
        partner = None if partner is None else resize_image(partner, seen)
        yield _stacked([_one(to_tensor(resize_image(pixels, seen)), labels, index, partner)])


@dataclass(frozen=True)
class _Work(Dataset[Any]):
    work: Callable[[int], Any]

    def __getitem__(self, index: int) -> tuple[Any, Exception | None]:
        try:
            return self.work(index), None
        except (ValueError, OSError) as error:
            # Raised here it would arrive as the text of a traceback.
            return None, error


def over(
    work: Callable[[int], Any], count: int, title: str, *, workers: int, progress: bool
) -> Iterator[Any]:
    """Call a function for 0 .. count - 1 in some processes and yield its results in this order.

    0 workers call it in this process; an error of the function is raised here.
    """
    from reference.run.report import track

    # Files of one errand to a worker: one by one, handing them over would cost as much as the work.
    errand = 8
    # A loader, since its workers end where the process that started them is killed.
    loader = DataLoader(
        _Work(work), errand, sampler=range(count), num_workers=workers if count > errand else 0,
        collate_fn=list, worker_init_fn=_settle_worker, generator=torch.Generator(),
    )  # fmt: skip
    # Workers start before the bar does: a fork copies no thread of its.
    answers = (answer for several in iter(loader) for answer in several)
    try:
        for _ in track(count, title, show=progress):
            result, error = next(answers)
            if error is not None:
                raise error
            yield result
    finally:
        # A traceback would keep the workers alive, and a later fork would inherit them.
        answers.close()
