"""Static pseudo labels of a round: once, the network's own most confident target pixels.

Two passes over the target's training images: the first learns, for every class, how confident the
top share of the pixels predicted as that class is; the second writes one PNG per image. A class
that the network wrongly sees everywhere keeps its share as well; that is how static labels harden
an error (docs/results.md).
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import torch
from PIL import Image
from torch import Tensor

import protocontrast as pc
from reference.data.batches import passes, read_static
from reference.data.classes import IGNORE
from reference.data.image_set import ImageSet
from reference.data.settings import require
from reference.networks.output import Output, Segmenter, at_rest
from reference.run.files import write_json, write_picture
from reference.run.ranks import Ranks
from reference.settings import StaticLabels

COMPLETE: Final = "complete.json"


class AskedToStop(Exception):
    """Ends the making of static labels, which are then made anew."""


@torch.no_grad()
def write_static_labels(
    folder: Path, network: Segmenter, images: ImageSet, settings: StaticLabels, *,
    masked: tuple[int, ...], see: Callable[..., Output], ranks: Ranks,
    class_weight: Tensor | None = None,
    skip: Callable[[str], None] | None = None, max_bad: int = 100,
    advance: Callable[[int, int], None] = lambda done, count: None,
) -> float:  # fmt: skip
    """Label the target's training images as ``<stem>.png``; return the labelled share, 0..1.

    Labels that a stopped run left in the folder are replaced one by one; the file that says the
    folder is complete is written last.

    `masked` classes, which the source does not label, cannot win. `class_weight`, (C,), is of the
    cross-entropy that the network learnt from; None: all alike. `see` reads images in the run's
    precision, `skip` and `max_bad` are as in `reference.data.batches`, and `advance` is called with
    how many images are done, of both passes, and their count.
    """
    if ranks.is_main:
        (folder / COMPLETE).unlink(missing_ok=True)
    ranks.wait()
    if settings.given is not None:
        return _take_over(settings.given, folder, images, ranks)
    share, image_share = settings.class_share, settings.image_share
    thresholds = pc.ClassThresholds(network.num_classes, share=share, image_share=image_share)
    thresholds.to(ranks.device)
    # Pixels that have a label, and all of them.
    counts = torch.zeros(2, dtype=torch.float64, device=ranks.device)
    # Weighted cross-entropy teaches weight times posterior (Menon et al., ICLR 2021).
    taught = class_weight.log() if settings.unweighted and class_weight is not None else None
    nothing = torch.ones(1, network.num_classes, 0, 1, device=ranks.device)

    def probabilities(before: int) -> Iterator[tuple[int, Tensor]]:
        own = ranks.own(len(images))
        for batch in passes(images, settings.size, own, skip=skip, max_bad=max_bad):
            logits = see(network, batch.images.to(ranks.device)).logits
            logits = network.upsampled(logits, batch.images.shape[-2:], masked)
            if taught is not None:
                logits = logits - taught.to(logits)[:, None, None]
            yield int(batch.indices), logits.softmax(dim=1)
            advance(before + int(batch.indices) + 1, 2 * len(images))

    with at_rest(network):
        for one in ranks.evenly(probabilities(0)):
            thresholds.update(nothing if one is None else one[1])
        for index, shares in probabilities(len(images)):
            labels = thresholds.select(shares).labels[0]
            counts[0] += (labels != IGNORE).sum()
            counts[1] += labels.numel()
            painted = Image.fromarray(labels.byte().cpu().numpy())
            write_picture(folder / f"{images.stems[index]}.png", painted)
    labelled, pixels = ranks.total(counts).tolist()
    coverage = labelled / max(1.0, pixels)
    predicted, edges = thresholds.mass.sum(dim=1), thresholds.confidence().tolist()
    summary: dict[str, Any] = {
        "coverage": coverage,
        "predicted_share": (predicted / predicted.sum()).tolist(),
        "thresholds": [e if n else None for e, n in zip(edges, predicted, strict=True)],
    }
    ranks.wait()
    if ranks.is_main:
        write_json(folder / COMPLETE, summary)
    ranks.wait()
    return coverage


def _take_over(given: Path, folder: Path, images: ImageSet, ranks: Ranks) -> float:
    """Copy labels that were made elsewhere; each process reads them all, the first one writes."""
    counts = torch.zeros(2)
    for stem in images.stems:
        labels = read_static(given / f"{stem}.png", images.classes)
        counts += torch.tensor([(labels != IGNORE).sum(), labels.size])
        if ranks.is_main:
            write_picture(folder / f"{stem}.png", Image.fromarray(labels))
    coverage = float(counts[0] / counts[1])
    if ranks.is_main:
        write_json(folder / COMPLETE, {"coverage": coverage, "given": str(given)})
    ranks.wait()
    return coverage


def require_complete(folder: Path) -> Path:
    """Return a folder of labels that an earlier part of the run has finished, or refuse."""
    wanted, ok = f"that the checkpoint was trained with in {folder}", (folder / COMPLETE).is_file()
    hint = "restore the folder, or remove the checkpoints of this round so that it begins anew"
    require("train", "the static labels", "none or a part", wanted, ok, hint)
    return folder
