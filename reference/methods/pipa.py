"""PiPa (Chen et al., ACM MM 2023, arXiv 2211.07609): pixels by class, and pixels in two crops."""

from __future__ import annotations

import torch
from torch import Tensor

import protocontrast as pc
from reference.data.classes import IGNORE, NUM_CLASSES
from reference.methods.crops import View, two_views
from reference.methods.dacs import DACS, Seen
from reference.methods.projector import Projector, pixel_rows
from reference.methods.settings import PATCHES
from reference.training.method import Start, Step

KEPT, NONE, OTHER = 512, -1, -2


class PiPa(DACS):
    """DACS + 0.1 (0.1 / 0.07) pixels + 0.1 patches, each -log( e^{s_p} / (e^{s_p} + sum e^{s_n}) ).

    s is the cosine over 0.1; means over anchors and positives p. Pixels, of the source: p are the
    others of the class, n those of another. Patches, of the target, either way: p is the same
    pixel in the surer of two crops, above 0.9, and n are pixels of another class in the crops of
    three steps. Released, but for what a crop is and that 512 of its pixels are kept, which is own.

    Args:
        dim: channels D of the network's features.
        ignored: class of source pixels without a label; `NUM_CLASSES`, one more class: released.
        teacher_views: released: the teacher sees the crops, so patches train a head alone.
    """

    def __init__(self, dim: int, *, ignored: int = IGNORE, teacher_views: bool = False) -> None:
        super().__init__()
        self.dim, self.ignored, self.teacher_views, self.sure = dim, ignored, teacher_views, 0.9
        self.keys, self.classes = (pc.ClassQueue(1, 3 * 2 * KEPT, width) for width in (dim, 1))

    def begin(self, start: Start) -> None:
        """Make a head for each term."""
        super().begin(start)
        self.pixel_head = Projector(self.dim, "cnrc", start.seed)
        self.patch_head = Projector(self.dim, "crc", start.seed + 1)

    def more(self, step: Step, seen: Seen) -> dict[str, Tensor]:
        """Contrast source pixels, and later target pixels where any is sure."""
        labels, random = step.source_labels, step.random()
        drawn, y = pc.sample_pixels(
            torch.where(labels == IGNORE, self.ignored, labels), 1024, mode="hard_easy",
            num_classes=NUM_CLASSES + 1, predictions=seen.source.logits.argmax(dim=1),
            min_pixels=max(2, labels[0].numel() * 101 // 160**2), generator=random,
        )  # fmt: skip
        rows = pixel_rows(self.pixel_head(seen.source.features))[drawn]
        pixels = pc.pair_contrast(rows, y, rows, y, temperature=0.1, exclude_self=True)
        losses = {"pixel_contrast": 0.1 * (0.1 / 0.07) * pixels}
        if step.progress >= PATCHES:
            network = self.teacher if self.teacher_views else step.network
            views = two_views(network, self.patch_head, step.target_batch.images, random)
            for view in views:
                drawn, y = pc.sample_pixels(view.classes, KEPT, generator=random)
                held = torch.where(y == IGNORE, IGNORE, 0)
                self.keys.push(view.rows[drawn], held)
                self.classes.push(y[:, None].float(), held)
            patches = self.patches(*views) + self.patches(*reversed(views))
            losses |= {"patch_contrast": 0.1 * patches} if bool(patches.detach() > 0) else {}
        return losses

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
