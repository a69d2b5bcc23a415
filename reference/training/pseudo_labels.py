"""Static pseudo labels: once per round, the network's own most confident target pixels.

Selection is class-balanced: of the pixels predicted as a class, the most confident share is kept,
so that frequent classes do not crowd out rare ones. A class the network wrongly sees everywhere
keeps its share as well; that is how static labels harden an error (docs/results.md).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reference.data.classes import IGNORE
from reference.networks.toy import unit_range
from reference.progress import track


def select_class_balanced(predictions: Tensor, confidence: Tensor, share: float) -> Tensor:
    """Keep, for every class, its most confident share of pixels, rounded up.

    The share counts over all images together. Ties are broken by position, so exactly the
    promised number is kept even where confidences saturate at 1.

    Args:
        predictions: predicted train ids.
        confidence: anything that grows with the certainty of the prediction.
        share: in [0, 1]; 0 keeps nothing, 1 everything.

    Shape:
        predictions and confidence of one shape. Result: that shape, uint8, 255 where not kept.

    Raises:
        ValueError: `share` outside [0, 1], or shapes that differ.

    Source:
        The class-balanced part of the selection of Lee et al., ECCV 2022, as released; the
        release adds a per-image share, which is left out.

    Example:
        >>> predictions = torch.tensor([3, 3, 3, 3, 7])
        >>> confidence = torch.tensor([0.9, 0.2, 0.8, 0.1, 0.3])
        >>> select_class_balanced(predictions, confidence, 0.5).tolist()
        [3, 255, 3, 255, 7]
    """
    if not 0 <= share <= 1:
        raise ValueError(f"select_class_balanced: expected share in [0, 1], got {share}.")
    if predictions.shape != confidence.shape:
        raise ValueError(
            "select_class_balanced: expected confidence of the shape of predictions "
            f"{tuple(predictions.shape)}, got {tuple(confidence.shape)}."
        )
    flat = predictions.flatten()
    kept = torch.full_like(flat, IGNORE, dtype=torch.uint8)
    for label in torch.unique(flat):
        positions = (flat == label).nonzero().squeeze(1)
        count = int(torch.ceil(torch.tensor(share * len(positions), dtype=torch.float64)))
        order = confidence.flatten()[positions].argsort(descending=True, stable=True)
        kept[positions[order[:count]]] = label.to(torch.uint8)
    return kept.view(predictions.shape)


@torch.no_grad()
def static_pseudo_labels(
    network: nn.Module,
    images: Tensor,
    *,
    share: float,
    batch_size: int = 8,
    progress: bool = False,
) -> Tensor:
    """Predict all target images and keep the most confident share of every class.

    Args:
        network: gives `Output` for a batch of float images.
        images: the target training images; no labels are involved.
        share: share of the pixels predicted as a class that is kept, in [0, 1].
        batch_size: images per forward pass.
        progress: show a bar.

    Shape:
        images (N, 3, H, W), uint8. Result: (N, H / 4, W / 4), uint8, 255 where not kept.
    """
    predictions, confidence = [], []
    batches = images.split(batch_size)
    for index in track(len(batches), "static pseudo labels", show=progress):
        # The log-probability orders pixels that all round to a probability of 1.
        best, label = F.log_softmax(network(unit_range(batches[index])).logits, dim=1).max(dim=1)
        predictions.append(label)
        confidence.append(best)
    return select_class_balanced(torch.cat(predictions), torch.cat(confidence), share)
