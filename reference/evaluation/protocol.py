"""How published numbers are measured: full-size labels, one matrix, means over named classes.

Images are scaled to the evaluation size, logits upsampled to the labels' own size, and every
labelled pixel of every image enters one confusion matrix. Labels are never shrunk: that inflates
the score. All means are means of rows of this one matrix.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import reduce
from typing import Final

import torch
from torch import Tensor

from reference.commands import Use
from reference.data.batches import to_tensor
from reference.data.classes import CITYSCAPES, IGNORE, ByteArray, ClassList
from reference.data.files import in_pixels, require_whole, resize_image, whole_size
from reference.data.image_set import ImageSet
from reference.data.settings import LONGEST, Size, require
from reference.networks.output import Segmenter, at_rest
from reference.networks.release import Release, read_trained
from reference.networks.tensor_files import require_file
from reference.run.files import require_new_folder, writing
from reference.run.report import track


def confusion_matrix(predictions: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Count pixels by true class (row) and predicted class (column); labels of 255 do not count.

    Shape:
        predictions and labels of one shape, integer class numbers. Result: (C, C), int64.

    Example:
        >>> truth = torch.tensor([0, 0, 1, 255])
        >>> confusion_matrix(torch.tensor([0, 1, 1, 0]), truth, 2).tolist()
        [[1, 1], [0, 1]]
    """
    scored = labels != IGNORE
    truth, guess = labels[scored].long(), predictions[scored].long()
    for name, values in (("labels", truth), ("predictions", guess)):
        strange = values[(values < 0) | (values >= num_classes)].unique().tolist()
        require("confusion_matrix", name, strange, f"in 0..{num_classes - 1}", not strange)
    cells = torch.bincount(truth * num_classes + guess, minlength=num_classes**2)
    return cells.view(num_classes, num_classes)


@dataclass(frozen=True)
class Scores:
    """What a confusion matrix (C, C) says, true class by row."""

    confusion: Tensor

    @property
    def iou_percent(self) -> list[float | None]:
        """TP / (TP + FP + FN) per class, 0..100; None where a class has neither label nor guess."""
        hits = self.confusion.diag()
        union = self.confusion.sum(0) + self.confusion.sum(1) - hits
        pairs = zip(hits.tolist(), union.tolist(), strict=True)
        return [100 * hit / count if count else None for hit, count in pairs]

    @property
    def pixel_accuracy_percent(self) -> float | None:
        """Share of scored pixels that are right, 0..100; None where nothing is scored."""
        total = int(self.confusion.sum())
        return 100 * int(self.confusion.diag().sum()) / total if total else None

    @property
    def occurring(self) -> tuple[int, ...]:
        """Classes with at least one labelled pixel."""
        return tuple(self.confusion.sum(1).nonzero().flatten().tolist())

    def mean_iou_percent(self, classes: Iterable[int]) -> float | None:
        """Average the IoU over some classes, 0..100; None where none of them occurs.

        A class with neither label nor guess is left out; one that is guessed but never true is 0.
        """
        iou = self.iou_percent
        values = [value for value in (iou[label] for label in classes) if value is not None]
        return sum(values) / len(values) if values else None


# That of published tables.
_SIZE: Final = (512, 1024)


@dataclass(frozen=True)
class Protocol:
    """How an evaluation is done; the defaults are those of published tables.

    `scales`, `flip`, `window` and `stride` are as in `Use`. Probabilities of views are averaged,
    logits where windows overlap; a window that covers the image, or None, sees it whole.
    """

    classes: ClassList = CITYSCAPES  # of the network's outputs
    # Height and width of the images that the network sees, pixels; a width of 0 keeps their shape.
    size: Size = _SIZE
    # Classes that the source labels, None for all; a network cannot know any other, so their
    # outputs are set to -inf and take no pixels.
    labelled: tuple[int, ...] | None = None
    source: str = ""  # name of the labelled set, for the table
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    window: Size | None = None
    stride: Size | None = None

    def __post_init__(self) -> None:
        me, scales, size, last = "Protocol", self.scales, self.size, len(self.classes) - 1
        # NaN is not within either.
        ok = bool(scales) and all(0 < scale <= 8 for scale in scales)
        require(me, "scales", scales, "above 0 and at most 8, at least one", ok)
        ok = min(size[0], size[1] or size[0]) * min(scales) >= 1
        ok = ok and max(size) * max(scales) <= LONGEST
        require(me, f"size times {scales}", size, f"within 1..{LONGEST} pixels a side", ok)
        (h, w), (down, right) = self.window or (1, 1), self.stride or (1, 1)
        ok = 1 <= down <= h and 1 <= right <= w and bool(self.window or not self.stride)
        pair = self.window, self.stride
        require(me, "window and stride", pair, "of positive sides, the stride within", ok)
        ok = bool(self.known) and 0 <= min(self.known) <= max(self.known) <= last
        require(me, "labelled", self.labelled, f"of classes within 0..{last}", ok)

    @property
    def known(self) -> tuple[int, ...]:
        """Class numbers that the source labels."""
        return tuple(range(len(self.classes))) if self.labelled is None else self.labelled

    @property
    def masked(self) -> tuple[int, ...]:
        """Class numbers whose outputs are set to -inf."""
        return tuple(label for label in range(len(self.classes)) if label not in self.known)

    @property
    def means(self) -> dict[str, tuple[int, ...]]:
        """Classes of every mean by its name, the headline first.

        No mean runs over a class that the source does not label.
        """
        known = set(self.known)
        held = {name: m for name, m in self.classes.means.items() if known.issuperset(m)}
        return held or {f"miou{len(known)}": self.known}

    @property
    def steps(self) -> Size:
        """The stride of the window, chosen or by default."""
        height, width = self.window or (1, 1)
        return self.stride or (max(1, 2 * height // 3), max(1, 2 * width // 3))

    def describe(self, images: int, *, align_corners: bool) -> str:
        """Say in one line how the numbers below were measured."""
        scales = ", ".join(f"{scale:g}" for scale in self.scales)
        parts = [
            f"{images} images at {in_pixels(self.size)}",
            "single scale" if self.scales == (1.0,) else f"scales {scales}",
            "with flip" if self.flip else "no flip",
        ]
        if self.window is not None:
            (h, w), (down, right) = self.window, self.steps
            parts.append(f"windows of {w}x{h} every {right}x{down}")
        parts.append(f"logits upsampled to full-size labels (align_corners={align_corners})")
        if self.masked:
            names = ", ".join(self.classes.names[label] for label in self.masked)
            parts.append(f"outputs without labels in the source masked: {names}")
        return "; ".join(parts)


@dataclass(frozen=True)
class Evaluation:
    """What a network scored on so many images of the set `target`, and how it was measured.

    `each`: a confusion matrix for every image, (images, C, C); None where it was read from a table.
    """

    scores: Scores
    protocol: Protocol
    images: int
    align_corners: bool
    target: str = ""
    each: Tensor | None = None

    @property
    def means_percent(self) -> dict[str, float | None]:
        """Mean IoU by name, 0..100, the headline first; None where no class has a pixel."""
        means = self.protocol.means.items()
        return {name: self.scores.mean_iou_percent(classes) for name, classes in means}

    @property
    def header(self) -> str:
        """One line that belongs above the numbers."""
        return self.protocol.describe(self.images, align_corners=self.align_corners)


def _starts(length: int, window: int, step: int) -> list[int]:
    """Places of a window along one axis; the last one ends where the image does."""
    last = length - window
    return [*range(0, last, step), last]


def _view(network: Segmenter, image: Tensor, size: Size, protocol: Protocol) -> Tensor:
    """Logits of one view, (1, 3, H, W), at the size asked for, known classes alone: (C, *size)."""
    height, width = image.shape[-2:]
    window = protocol.window or (height, width)
    h, w = min(window[0], height), min(window[1], width)
    if (h, w) == (height, width):
        return network.upsampled(network(image).logits.float(), size, protocol.masked)[0]
    total = image.new_zeros(1, network.num_classes, height, width)
    count = image.new_zeros(1, 1, height, width)
    down, right = protocol.steps
    for top in _starts(height, h, down):
        for left in _starts(width, w, right):
            place = (..., slice(top, top + h), slice(left, left + w))
            total[place] += network.upsampled(network(image[place]).logits.float(), (h, w))
            count[place] += 1
    return network.upsampled(total / count, size, protocol.masked)[0]


def _views(
    network: Segmenter, pixels: ByteArray, size: Size, protocol: Protocol
) -> Iterator[Tensor]:
    device = next(network.parameters()).device
    for scale in protocol.scales:
        scaled = whole_size((pixels.shape[0], pixels.shape[1]), protocol.size, scale)
        image = to_tensor(resize_image(pixels, scaled))[None].to(device)
        for mirrored in (False, True) if protocol.flip else (False,):
            logits = _view(network, image.flip(-1) if mirrored else image, size, protocol)
            yield logits.flip(-1) if mirrored else logits


@torch.no_grad()
def class_scores(network: Segmenter, pixels: ByteArray, size: Size, protocol: Protocol) -> Tensor:
    """Score every class at every pixel of one image.

    Shape:
        pixels (H, W, 3), uint8 RGB, at any size. Result: (C, *size): logits of a single view, the
        mean of the probabilities of several; -inf, or 0 among them, for masked classes.
    """
    views = _views(network, pixels, size, protocol)
    count = len(protocol.scales) * (2 if protocol.flip else 1)
    # One by one: a view is as large as the image times its classes.
    shares = (view.softmax(dim=0) for view in views)
    return next(views) if count == 1 else reduce(torch.add, shares) / count


def evaluate(
    network: Segmenter, images: ImageSet, protocol: Protocol, *, progress: bool = False
) -> Evaluation:
    """Score a network on every image of a set, one by one, at the labels' own size.

    The work is done on the network's device, and it is left in the mode it was in.
    """
    device, matrices = next(network.parameters()).device, []
    require_whole((each.image for each in images.samples), protocol.size, max(protocol.scales))
    with at_rest(network):
        for index in track(len(images), "Evaluating", show=progress):
            truth = torch.from_numpy(images.labels(index).copy()).to(device)
            size = (truth.shape[0], truth.shape[1])
            guess = class_scores(network, images.image(index), size, protocol).argmax(dim=0)
            matrices.append(confusion_matrix(guess, truth, network.num_classes))
    each = torch.stack(matrices).cpu()
    scores = Scores(each.sum(dim=0))
    got = f"pixels of {len(scores.occurring)} other classes" if scores.occurring else "none"
    wanted = f"with a class that the source labels in the {len(images)} images of {images.name}"
    hint = "labels of a test split are placeholders; score on the split val"
    ok = not {*protocol.known}.isdisjoint(scores.occurring)
    require("evaluate", "pixels labelled", got, wanted, ok, hint)
    return Evaluation(scores, protocol, len(images), network.align_corners, images.name, each)


def read_for_use(caller: str, use: Use) -> tuple[Release, Protocol]:
    """Check the settings of a command and read its network, on the device where it is to work."""
    require_new_folder(caller, use.out, "choose another one with --out", argument="out")
    require(caller, "threads", use.threads, "of at least 1", use.threads >= 1)
    torch.set_num_threads(use.threads)
    gpu = torch.cuda.is_available()
    require(caller, "a GPU", "none", 'for device "cuda"', gpu or use.device != "cuda")
    require_file(caller, use.weights)
    release = read_trained(use.weights, use.which)
    height, width = use.size if any(use.size) else release.card.get("input_size", _SIZE)
    window, stride = (pair if any(pair) else None for pair in (use.window, use.stride))
    protocol = Protocol(
        release.classes, (height, width), labelled=release.labelled,
        source=release.card.get("source", ""), scales=use.scales, flip=use.flip,
        window=window, stride=stride,
    )  # fmt: skip
    # Before hours of work, not after them.
    with writing(use.out):
        use.out.mkdir(parents=True, exist_ok=True)
    network = release.network.to("cuda" if gpu and use.device != "cpu" else "cpu").eval()
    return replace(release, network=network), protocol
