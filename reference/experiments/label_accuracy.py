"""How right the static labels of a run were: a diagnosis that opens target labels, afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from reference.data.classes import IGNORE
from reference.experiments.runs import Run
from reference.experiments.targets import sets_of


def label_accuracy(run: Run) -> list[dict[str, Any]]:
    """Compare the labels that every round began with, with the truth.

    Args:
        run: a complete one; its target needs labels of its training images.

    Returns:
        list: per round with static labels its "round", "coverage" (share of labelled pixels that
        have a static label) and "accuracy" (share of those that are right), 0..1. Empty where the
        run has no static labels, or its target no truth.
    """
    folders = sorted((run.folder / "labels").glob("round-*"), key=_round)
    try:
        truth = sets_of(run.settings).oracle
    except ValueError:
        return []
    found = []
    for folder in folders:
        counts = np.zeros(3, dtype=np.int64)
        for index, stem in enumerate(truth.stems):
            with Image.open(folder / f"{stem}.png") as file:
                labels = np.asarray(file)
            true = truth.labels(index)
            if true.shape != labels.shape:
                resized = Image.fromarray(true).resize(labels.shape[::-1], Image.Resampling.NEAREST)
                true = np.asarray(resized)
            known, given = true != IGNORE, labels != IGNORE
            both = known & given
            counts += [known.sum(), both.sum(), (both & (true == labels)).sum()]
        known, labelled, right = (int(count) for count in counts)
        found.append(
            {
                "round": _round(folder),
                "coverage": labelled / max(known, 1),
                "accuracy": right / max(labelled, 1),
            }
        )
    return found


def _round(folder: Path) -> int:
    return int(folder.name.rpartition("-")[2])
