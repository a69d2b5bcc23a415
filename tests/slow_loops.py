"""Expected values from loops over plain numbers, written like the formulas of docs/maths.md."""

import math

import numpy as np
from torch import Tensor

Rows = list[list[float]]


def similarity(feature: list[float], prototype: list[float], kind: str) -> float:
    """Cosine (0 where a length is 0), dot product, or minus the distance."""
    dot = sum(f * p for f, p in zip(feature, prototype, strict=True))
    if kind == "dot":
        return dot
    if kind == "euclidean":
        return -math.dist(feature, prototype)
    lengths = math.hypot(*feature) * math.hypot(*prototype)
    return dot / lengths if lengths else 0.0


def logits(
    feature: list[float],
    prototypes: Rows,
    present: list[bool],
    kind: str,
    temperature: float,
    absent: str = "mask",
) -> list[float]:
    """(M2) one pixel's logits."""
    missing = -math.inf if absent == "mask" else -1 / temperature
    return [
        similarity(feature, prototype, kind) / temperature if here else missing
        for prototype, here in zip(prototypes, present, strict=True)
    ]


def logsumexp(values: list[float]) -> float:
    peak = max(values)
    return peak + math.log(sum(math.exp(value - peak) for value in values))


def contrast(
    features: Rows,
    targets: Rows,
    prototypes: Rows,
    present: list[bool],
    class_weight: list[float],
    pixel_weight: list[float],
    kind: str,
    temperature: float,
    absent: str,
) -> tuple[list[float], list[float]]:
    """(M3), (M5) loss and weight of every pixel; a hard label is a one-hot row of `targets`."""
    losses, masses = [], []
    for feature, target, weight in zip(features, targets, pixel_weight, strict=True):
        scores = logits(feature, prototypes, present, kind, temperature, absent)
        loss = mass = 0.0
        for c, share in enumerate(target):
            amount = weight * share * class_weight[c]
            if amount == 0 or (absent == "mask" and not present[c]):
                continue
            loss += amount * (logsumexp(scores) - scores[c])
            mass += amount
        losses.append(loss)
        masses.append(mass)
    return losses, masses


def class_means(
    features: Rows, labels: list[int], num_classes: int, weights: list[float], normalize: bool
) -> tuple[Rows, list[float]]:
    """(M1) weighted mean and weight of every class; a label outside 0..C-1 is ignored."""
    means, counts = [], []
    for c in range(num_classes):
        total = [0.0] * len(features[0])
        count = 0.0
        for feature, label, weight in zip(features, labels, weights, strict=True):
            if label != c:
                continue
            length = math.hypot(*feature) if normalize else 1.0
            total = [t + weight * f / length for t, f in zip(total, feature, strict=True)]
            count += weight
        means.append([t / count if count else 0.0 for t in total])
        counts.append(count)
    return means, counts


def transfer(
    feature: list[float],
    prototypes: Rows,
    present: list[bool],
    thresholds: list[float],
    measure: str,
    kind: str,
    temperature: float,
    ignore_index: int,
) -> tuple[int, float]:
    """(M6) one pixel's label and measure; the first of equal classes wins."""
    if not any(present):
        return ignore_index, 0.0
    scores = logits(feature, prototypes, present, kind, temperature)
    nearest = scores.index(max(scores))
    if measure == "confidence":
        value = math.exp(scores[nearest] - logsumexp([s for s in scores if s > -math.inf]))
    else:
        value = similarity(feature, prototypes[nearest], kind)
    return (nearest if value >= thresholds[nearest] else ignore_index), value


def cell_of(position: int, positions: int, cells: int) -> int:
    """The cell that torch's nearest upsampling reads at a position: its scale is a float32."""
    scale = np.float32(cells) / np.float32(positions)
    return min(int(np.float32(position) * scale), cells - 1)


def counts(labels: Tensor, num_classes: int, height: int, width: int) -> list[list[Rows]]:
    """(M8) pixels of every class in every cell, by nested lists (B, C, height, width)."""
    found = [[[[0.0] * width for _ in range(height)] for _ in range(num_classes)] for _ in labels]
    for b, image in enumerate(labels.tolist()):
        for y, row in enumerate(image):
            for x, label in enumerate(row):
                if 0 <= label < num_classes:
                    cell = cell_of(y, len(image), height), cell_of(x, len(row), width)
                    found[b][label][cell[0]][cell[1]] += 1
    return found
