"""PiPa (Chen et al., ACM MM 2023, arXiv 2211.07609): pixels by class, and pixels in two crops."""

from collections.abc import Callable
from math import lcm
from typing import Final, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

import protocontrast as pc
from reference.data.classes import IGNORE
from reference.method import Given, Step
from reference.methods.dacs import DACS, Mixture
from reference.methods.heads import Projector, pixel_rows
from reference.networks.output import Output

PATCHES: Final = 10000 / 40000  # Share of the run before the patch contrast starts; published.
KEPT: Final = 512  # Pixels of a crop that are kept as keys; own (released: 1600).
NONE, OTHER = -1, -2
_MULTIPLE: Final = 8


class View(NamedTuple):
    """What a network sees of a crop, for every cell of the whole images, P = B h w.

    Features (P, D), the probability of the predicted class (P,) and that class (P,), without
    gradient. Outside the crop the class is 255, the rest 0.
    """

    rows: Tensor
    sure: Tensor
    classes: Tensor


class PiPa(DACS):
    """DACS + 0.1 (0.1 / 0.07) pixels + 0.1 patches, each -log( e^{s_p} / (e^{s_p} + sum e^{s_n}) ).

    s is the cosine over 0.1; means over anchors and positives p. Pixels, of the source: p are the
    others of the class, n those of another. Patches, of the target, either way: p is the same
    pixel in the surer of two crops, above 0.9, and n are pixels of another class in the crops of
    three steps. Released, but for what a crop is and that 512 of its pixels are kept, which is own.

    Args:
        ignored: class of source pixels without a label; the number of classes makes them one more:
            released.
        teacher_views: released: the teacher sees the crops, so patches train a head alone.
    """

    def __init__(self, given: Given, *, ignored: int = IGNORE, teacher_views: bool = False) -> None:
        super().__init__(given)
        self.ignored, self.teacher_views, self.sure = ignored, teacher_views, 0.9
        self.keys, self.classes = (pc.ClassQueue(1, 3 * 2 * KEPT, n) for n in (given.dim, 1))
        self.pixel_head = Projector(given.dim, "cnrc", given.seed)
        self.patch_head = Projector(given.dim, "crc", given.seed + 1)

    def more(self, step: Step, seen: Mixture) -> dict[str, Tensor]:
        """Contrast source pixels, and later target pixels."""
        random, features = step.random(), seen.source.features
        labels = step.on_grid(step.source_labels, features)
        drawn, y = pc.sample_pixels(
            torch.where(labels == IGNORE, self.ignored, labels), 1024, mode="hard_easy",
            num_classes=self.num_classes + 1, predictions=seen.source.logits.argmax(dim=1),
            min_pixels=max(2, labels[0].numel() * 101 // 160**2), generator=random,
        )  # fmt: skip
        rows = pixel_rows(self.pixel_head(features))[drawn]
        pixels = pc.pair_contrast(rows, y, rows, y, temperature=0.1, exclude_self=True)
        terms = {"pixel_contrast": 0.1 * (0.1 / 0.07) * pixels}
        if step.progress < PATCHES:
            return terms
        by = self.teacher if self.teacher_views else None
        views = two_views(
            lambda crop: step.see(crop, by=by), self.patch_head, step.target_batch.images, random,
            grid=seen.taught.logits.shape[-2:], stride=step.network.stride,
        )  # fmt: skip
        for view in views:
            drawn, y = pc.sample_pixels(view.classes, KEPT, generator=random)
            held = torch.where(y == IGNORE, IGNORE, 0)
            self.keys.push(view.rows[drawn], held)
            self.classes.push(y[:, None].float(), held)
        patches = self.patches(*views) + self.patches(*reversed(views))
        return terms | {"patch_contrast": 0.1 * patches}

    def patches(self, view: View, other: View) -> Tensor:
        """Pull pixels of a view to what another, surer one sees in their place."""
        chosen = (view.sure > 0) & (other.sure > view.sure) & (other.sure > self.sure)
        (keys, _, held), classes = self.keys.read(), self.classes.read().keys[:, 0]
        loss = view.rows.sum() * 0
        # A row has one label, here its place; so each class is a call of its own, with its rivals.
        for own in view.classes[chosen].unique():
            place = (chosen & (view.classes == own)).nonzero()[:, 0]
            loss = loss + pc.pair_contrast(
                view.rows[place], place, other.rows[place].detach(), place, negatives=keys,
                negative_labels=torch.where(held & (classes != own), OTHER, NONE),
                temperature=0.1, ignore_index=NONE, reduction="sum",
            )  # fmt: skip
        return loss / chosen.sum().clamp(min=1)


def two_crops(
    size: torch.Size, generator: torch.Generator, multiple: int = _MULTIPLE
) -> list[tuple[slice, slice]]:
    """Draw rows and columns, pixels, of two crops of at least three quarters of each side.

    They share half of it. Starts and lengths are multiples of `multiple`, but for the length of an
    image that is shorter than that.

    Example:
        >>> crops = two_crops(torch.Size([32, 8]), torch.Generator().manual_seed(0))
        >>> [(rows.stop - rows.start, columns.stop - columns.start) for rows, columns in crops]
        [(24, 8), (24, 8)]
    """
    sides = []
    for length in size:
        part = min(length, -(-3 * length // (4 * multiple)) * multiple)
        free = (length - part) // multiple + 1
        drawn = torch.randint(free, (2,), generator=generator, device=generator.device)
        starts = [multiple * int(start) for start in drawn]
        sides.append([slice(start, start + part) for start in starts])
    return list(zip(*sides, strict=True))


def two_views(
    see: Callable[[Tensor], Output], head: Callable[[Tensor], Tensor], images: Tensor,
    generator: torch.Generator, *, grid: torch.Size, stride: int,
) -> tuple[View, View]:  # fmt: skip
    """Show two crops of images (B, 3, H, W) to a network, and its features to a head.

    The whole images have `grid` cells (h, w), of `stride` pixels each.
    """
    views = []
    for crop in two_crops(images.shape[-2:], generator, lcm(_MULTIPLE, stride)):
        seen = see(images[..., crop[0], crop[1]])
        sure, classes = seen.logits.detach().softmax(dim=1).max(dim=1)
        margins: list[int] = []
        for side, cells, whole in zip(crop, sure.shape[-2:], grid, strict=True):
            before = side.start // stride
            margins = [before, whole - before - cells, *margins]
        features = pixel_rows(F.pad(head(seen.features), margins))
        classes = F.pad(classes, margins, value=IGNORE).flatten()
        views.append(View(features, F.pad(sure, margins).flatten(), classes))
    return views[0], views[1]
