"""Calls of `pair_contrast`, and its formula as loops over pairs."""

import math
from typing import Any, NamedTuple

import torch
from hypothesis import strategies as st
from torch import Tensor

from tests.agreement import similarity_scales
from tests.strategies import (
    LABEL_DTYPES,
    LABEL_KINDS,
    NAN,
    channels,
    class_counts,
    dtypes,
    label_map,
    laid_out,
    normal,
    seeds,
    weights,
)

ROW_LAYOUTS = ("contiguous", "transposed", "strided", "sliced", "expanded")
WANTED = ("anchors", "keys")


def rows_laid_out(rows: Tensor, layout: str) -> Tensor:
    """The same rows in another memory layout; "expanded" repeats the first."""
    return rows.t().contiguous().t() if layout == "transposed" else laid_out(rows, layout)


class Case(NamedTuple):
    """One call, small enough to print."""

    seed: int = 0
    anchors: int = 9
    keys: int = 12
    depth: int = 5
    num_classes: int = 3
    dtype: torch.dtype = torch.float32
    key_dtype: torch.dtype = torch.float32
    layout: str = "contiguous"
    key_layout: str = "contiguous"
    label_kind: str = "mixed"
    label_dtype: tuple[torch.dtype, int] = (torch.int64, 255)
    similarity: str = "cosine"
    temperature: float = 0.1
    denominator: str = "negatives"
    exclude_self: bool = False
    negatives: int | None = None
    anchor_weight: torch.dtype | None = None
    zero_rows: bool = False
    spoilt: float | None = None
    reduction: str = "mean"

    @property
    def wanted(self) -> tuple[str, ...]:
        """The tensors that can have a gradient."""
        return WANTED if self.negatives is None else (*WANTED, "negatives")

    def _rows(self, offset: int, count: int, dtype: torch.dtype, layout: str) -> Tensor:
        rows = normal(self.seed + offset, (count, self.depth), dtype)
        if self.zero_rows and layout != "expanded":
            rows[::5] = 0
        return rows_laid_out(rows, layout)

    def _labels(self, offset: int, count: int) -> Tensor:
        return label_map(
            self.seed + offset, (count,), self.num_classes, self.label_kind, *self.label_dtype
        )

    def call(self) -> dict[str, Any]:
        """The arguments by name."""
        anchors = self._rows(0, self.anchors, self.dtype, self.layout)
        found = {
            "anchors": anchors,
            "anchor_labels": self._labels(1, self.anchors),
            "keys": self._rows(2, self.keys, self.key_dtype, self.key_layout),
            "key_labels": self._labels(3, self.keys),
        }
        if self.exclude_self:
            found |= {"keys": anchors.clone(), "key_labels": found["anchor_labels"]}
        if self.negatives is not None:
            found |= {
                "negatives": self._rows(4, self.negatives, self.key_dtype, self.key_layout),
                "negative_labels": self._labels(5, self.negatives),
            }
        if self.anchor_weight is not None:
            found["anchor_weight"] = weights(self.seed + 6, (self.anchors,), self.anchor_weight)
        settings = {
            "similarity": self.similarity,
            "temperature": self.temperature,
            "denominator": self.denominator,
            "exclude_self": self.exclude_self,
            "ignore_index": self.label_dtype[1],
            "reduction": self.reduction,
        }
        if self.spoilt is not None and "expanded" not in (self.layout, self.key_layout):
            found["anchors"][mass(found, settings) == 0] = self.spoilt
            for name in ("key", "negative"):
                if f"{name}_labels" in found:
                    ignored = found[f"{name}_labels"].long() == settings["ignore_index"]
                    found[f"{name}s"][ignored] = self.spoilt
        return {**found, **settings}


@st.composite
def cases(draw: st.DrawFn, **fixed: Any) -> Case:
    """Calls of any form; what is named is fixed."""
    counts = st.sampled_from([9, 1, 2, 17, 33, 66, 0])
    dtype = fixed.get("dtype") or draw(dtypes)
    drawn = {
        "seed": draw(seeds),
        "anchors": draw(counts),
        "keys": draw(counts),
        "depth": draw(channels),
        "num_classes": draw(class_counts),
        "dtype": dtype,
        "key_dtype": draw(st.sampled_from([dtype, dtype, torch.float32])),
        "layout": draw(st.sampled_from(ROW_LAYOUTS)),
        "key_layout": draw(st.sampled_from(ROW_LAYOUTS)),
        "label_kind": draw(st.sampled_from(LABEL_KINDS)),
        "label_dtype": draw(st.sampled_from((*LABEL_DTYPES, (torch.int64, 0)))),
        "similarity": draw(st.sampled_from(["cosine", "dot", "euclidean"])),
        "temperature": draw(st.sampled_from([0.01, 0.07, 0.1, 1.0, 20.0])),
        "denominator": draw(st.sampled_from(["negatives", "all"])),
        "exclude_self": draw(st.booleans()),
        "negatives": draw(st.sampled_from([None, None, 0, 5, 34])),
        "anchor_weight": draw(st.sampled_from([None, torch.float32, torch.float16])),
        "zero_rows": draw(st.booleans()),
        "spoilt": draw(st.sampled_from([None, NAN, float("inf")])),
        "reduction": draw(st.sampled_from(["mean", "sum", "none"])),
    }
    return Case(**{**drawn, **fixed})


def positives_of(call: dict[str, Any], anchor: int, settings: dict[str, Any]) -> list[int]:
    """The keys of the anchor's class, in the order of the keys."""
    own = int(call["anchor_labels"][anchor])
    if own == settings["ignore_index"]:
        return []
    found = [k for k, label in enumerate(call["key_labels"].tolist()) if label == own]
    return [k for k in found if not (settings["exclude_self"] and k == anchor)]


def mass(call: dict[str, Any], settings: dict[str, Any]) -> Tensor:
    """w_i of the anchors that count, else 0."""
    own, others = call["anchor_labels"].long()[:, None], call["key_labels"].long()
    positive = (own == others) & (own != settings["ignore_index"])
    if settings["exclude_self"]:
        positive.fill_diagonal_(False)
    weight = call.get("anchor_weight")
    weight = torch.ones(len(own)) if weight is None else weight
    return torch.where(positive.any(dim=1), weight.double(), 0)


def looped(call: dict[str, Any]) -> Tensor:
    """(M17) loss of every anchor, pair by pair."""
    anchors, keys = call["anchors"], call["keys"]
    others, labels = call.get("negatives"), call.get("negative_labels")
    if others is None or labels is None:
        others, labels = keys, call["key_labels"]

    def score(anchor: Tensor, other: Tensor) -> Tensor:
        if call["similarity"] == "euclidean":
            return -(anchor - other).norm() / call["temperature"]
        product = anchor @ other
        if call["similarity"] == "cosine":
            product = product / (anchor.norm() * other.norm())
        return product / call["temperature"]

    losses = []
    for i, weight in enumerate(mass(call, call)):
        total = torch.zeros((), dtype=anchors.dtype)
        positives = positives_of(call, i, call)
        for p in positives:
            denominator = score(anchors[i], keys[p]).exp()
            if call["denominator"] == "all":
                denominator = sum(score(anchors[i], keys[q]).exp() for q in positives)
            for n, label in enumerate(labels.tolist()):
                if label not in (int(call["anchor_labels"][i]), call["ignore_index"]):
                    denominator = denominator + score(anchors[i], others[n]).exp()
            share = score(anchors[i], keys[p]).exp() / denominator
            total = total - share.log() / len(positives)
        losses.append(weight * total)
    return torch.stack(losses)


def scales(call: dict[str, Any], upstream_seed: int) -> dict[str, float]:
    """Sizes of the terms of the value and of the gradients."""
    weight = mass(call, call)
    upstream = normal(upstream_seed, tuple(weight.shape) if call["reduction"] == "none" else ())
    if call["reduction"] == "mean":
        weight = weight / max(float(weight.sum()), 1e-30)
    slope = 2 * weight * upstream.abs()
    total = 0.0
    if len(weight):
        total = float(weight.max() if call["reduction"] == "none" else weight.sum())
    found: dict[str, float] = {"value": 0.0, "anchors": 0.0}
    for name, labels in (("keys", "key_labels"), ("negatives", "negative_labels")):
        rows = call.get(name)
        if rows is None:
            continue
        used = call[labels].long() != call["ignore_index"]
        pair = {"features": call["anchors"], "prototypes": rows[used]}
        size = similarity_scales(pair, slope, call["similarity"], call["temperature"])
        value = (2 * size["value"] + 5 + math.log1p(len(rows))) * total
        found["value"] = max(found["value"], value)
        found["anchors"] = max(found["anchors"], size["features"])
        found[name] = size["prototypes"]
    return found
