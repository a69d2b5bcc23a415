"""How right the static labels of a run were: a diagnosis that opens target labels, afterwards."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from reference.data.classes import IGNORE
from reference.experiments.runs import Run
from reference.experiments.targets import sets_of


def label_accuracy(run: Run) -> list[dict[str, Any]]:
    """Hold the static labels that every round of a complete run began with against the truth.

    Returns:
        list: per round its number, "coverage" (share of labelled pixels that have a static label)
        and "accuracy" (share of those that are right), 0..1. Empty where the run has no static
        labels, or its target no truth.
    """
    try:
        truth = sets_of(run.settings).oracle
    except ValueError:
        return []
    rounds = []
    numbers = [int(p.name.removeprefix("round-")) for p in run.folder.glob("labels/round-*")]
    for number in sorted(numbers):
        known = labelled = right = 0
        for index, stem in enumerate(truth.stems):
            labels = np.asarray(Image.open(run.folder / f"labels/round-{number}" / f"{stem}.png"))
            whole = Image.fromarray(truth.labels(index))
            true = np.asarray(whole.resize(labels.shape[::-1], Image.Resampling.NEAREST))
            both = (true != IGNORE) & (labels != IGNORE)
            known += int((true != IGNORE).sum())
            labelled += int(both.sum())
            right += int((both & (true == labels)).sum())
        accuracy = {"coverage": labelled / max(known, 1), "accuracy": right / max(labelled, 1)}
        rounds.append({"round": number, **accuracy})
    return rounds
