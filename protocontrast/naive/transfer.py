"""Labels of the nearest prototype (M6) and their fusion with given ones (M7)."""

import torch
from einops import rearrange
from torch import Tensor

from protocontrast.calls import LogitsCall, TransferCall
from protocontrast.naive.similarity import present_rows, prototype_logits, similarities


def first_of_equals(prototypes: Tensor, present: Tensor) -> Tensor:
    """(C,) the lowest present class with the same prototype, so that rounding breaks no tie."""
    pairs = rearrange(prototypes, "c d -> c 1 d") == rearrange(prototypes, "k d -> 1 k d")
    same = pairs.all(dim=2) & present
    return same.fill_diagonal_(True).long().argmax(dim=1)


def transfer_labels(call: TransferCall) -> tuple[Tensor, Tensor]:
    """(M6) nearest present prototype, kept where the measure reaches the class's threshold."""
    features, prototypes, similarity = call.features, call.prototypes, call.similarity
    present = present_rows(prototypes, call.present, similarity)
    limits = torch.full_like(prototypes[:, 0], call.threshold)
    if call.class_threshold is not None:
        limits = call.class_threshold
    read = LogitsCall(features, prototypes, present, similarity, call.temperature)
    logits = prototype_logits(read)
    nearest = first_of_equals(prototypes, present)[logits.argmax(dim=1)]
    if call.measure == "confidence":
        value = torch.softmax(logits, dim=1).amax(dim=1)
    else:
        readable = torch.where(present[:, None], prototypes, 0).to(features.dtype)
        scores = similarities(features, readable, similarity)
        value = scores.gather(1, nearest[:, None])[:, 0]
    unread = torch.isnan(features).any(dim=1)
    value = torch.where(unread, torch.nan, torch.where(present.any(), value, 0))
    kept = (value >= limits[nearest]) & present.any() & ~unread
    return torch.where(kept, nearest, call.ignore_index), value


def fuse_labels(base: Tensor, other: Tensor, ignore_index: int) -> Tensor:
    """(M7) the base label where there is one, else the other."""
    return torch.where(base != ignore_index, base, other)
