"""Calls of `upsampled_cross_entropy`, and the composition it stands for."""

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor

from tests.strategies import (
    LABEL_DTYPES,
    LABEL_KINDS,
    class_counts,
    dtypes,
    label_map,
    laid_out,
    layouts,
    normal,
    seeds,
    weights,
)


class Case(NamedTuple):
    """One call, small enough to print."""

    seed: int = 0
    shape: tuple[int, ...] = (2, 5, 3, 4)
    size: tuple[int, ...] = (7, 9)
    dtype: torch.dtype = torch.float32
    layout: str = "contiguous"
    label_layout: str = "contiguous"
    label_kind: str = "mixed"
    label_dtype: tuple[torch.dtype, int] = (torch.int64, 255)
    class_weight: torch.dtype | None = None
    align_corners: bool = False
    label_smoothing: float = 0.0
    reduction: str = "mean"
    spread: float = 1.0

    def call(self) -> dict[str, Any]:
        """The arguments by name."""
        images, num_classes = self.shape[:2]
        labels = label_map(
            self.seed + 1, (images, *self.size), num_classes, self.label_kind, *self.label_dtype
        )
        weight = None
        if self.class_weight is not None:
            weight = weights(self.seed + 2, (num_classes,), self.class_weight)
        logits = self.spread * normal(self.seed, self.shape)
        return {
            "logits": laid_out(logits.to(self.dtype), self.layout),
            "labels": laid_out(labels, self.label_layout),
            "class_weight": weight,
            "ignore_index": self.label_dtype[1],
            "align_corners": self.align_corners,
            "label_smoothing": self.label_smoothing,
            "reduction": self.reduction,
        }


@st.composite
def cases(draw: st.DrawFn, **fixed: Any) -> Case:
    """Calls of any form, a third of them volumes; what is named is fixed."""
    axes = draw(st.sampled_from([2, 2, 3]))
    grid = [draw(st.sampled_from([1, 2, 3, 4, 7])) for _ in range(axes)]
    more = st.one_of(st.just(0), st.integers(0, 40 if axes == 2 else 6))
    drawn = {
        "seed": draw(seeds),
        "shape": (draw(st.sampled_from([2, 1, 0])), draw(class_counts), *grid),
        "size": tuple(side + draw(more) for side in grid),
        "dtype": draw(dtypes),
        "layout": draw(layouts),
        "label_layout": draw(layouts),
        "label_kind": draw(st.sampled_from(LABEL_KINDS)),
        "label_dtype": draw(st.sampled_from(LABEL_DTYPES)),
        "class_weight": draw(st.sampled_from([None, torch.float32, torch.float16])),
        "align_corners": draw(st.booleans()),
        "label_smoothing": draw(st.sampled_from([0.0, 0.0, 0.1, 1.0])),
        "reduction": draw(st.sampled_from(["mean", "sum", "none"])),
        "spread": draw(st.sampled_from([1.0, 10.0, 300.0])),
    }
    return Case(**{**drawn, **fixed})


def scales(case: Case) -> dict[str, float]:
    """Sizes of the terms of the value and of the gradient, which carries the softmax's rounding."""
    pixels, logit = case.shape[0] * math.prod(case.size), 5 * case.spread
    ratios = (out / side + 1 for out, side in zip(case.size, case.shape[2:], strict=True))
    if case.reduction == "mean":
        return {"value": 2 * logit + 5, "logits": 2 * (1 + logit)}
    counted = pixels if case.reduction == "sum" else 1
    slope = 16 * math.prod(ratios) * (1 + logit)
    return {"value": 2 * (2 * logit + 5) * counted, "logits": slope}


def composed(logits: Tensor, labels: Tensor, **settings: Any) -> Tensor:
    """What a user would write."""
    weight = settings["class_weight"]
    mode, corners = ("bilinear", "trilinear")[logits.dim() - 4], settings["align_corners"]
    upsampled = F.interpolate(logits, labels.shape[1:], mode=mode, align_corners=corners)
    return F.cross_entropy(
        upsampled,
        labels.long(),
        None if weight is None else weight.to(logits.dtype),
        ignore_index=settings["ignore_index"],
        label_smoothing=settings["label_smoothing"],
        reduction=settings["reduction"],
    )
