"""The ingredient matrix: which rows it has, and how one row of one seed becomes one JSON file.

A stored row that was made with the same settings is reused, one made with other settings is
refused, and nothing stored is ever replaced.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from reference.atomic import write_atomically
from reference.data.classes import NAMES
from reference.experiments.row_names import METHOD, ORACLE, SAFER_ROW, SOURCE, STARTS, UNAUGMENTED
from reference.experiments.rows import (
    Row,
    adaptation_of,
    adapted_row,
    new_network,
    on_schedule_of,
    oracle_row,
    source_row,
)
from reference.experiments.scenario import Scenario
from reference.methods.registry import build_method
from reference.networks.toy import SegmentationNetwork
from reference.provenance import code_digest, machine, peak_mib, versions
from reference.training.alarms import class_share, predicted_share
from reference.training.config import ROWS, SAFER, Adaptation, Contrast, Experiment, without


@dataclass(frozen=True)
class Cell:
    """One row of one seed.

    Args:
        row: a key of `LABELS`.
        experiment: the settings, its seed among them.
        target: "toy", "night" or a path, as `load_scenario` takes it.
        folder: where the rows of this target are stored.
        sequence: of the target, where the others of the same set are the source; else "".
    """

    row: str
    experiment: Experiment
    target: str
    folder: Path
    sequence: str = ""

    @property
    def path(self) -> Path:
        """The file of this cell."""
        return self.folder / f"seed{self.experiment.seed}" / f"{self.row}.json"

    @property
    def checkpoint(self) -> Path:
        """The source-only network that every adapted row of this seed starts from."""
        return self.path.with_name(f"{SOURCE}.pt")

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that decides the numbers of this cell, as JSON would return it."""
        whole = asdict(self.experiment)
        target = "/".join([Path(self.target).name, *filter(None, [self.sequence])])
        stages = {name: whole[name] for name in ("seed", "data", "network")} | {"target": target}
        if self.row == ORACLE:
            stages["oracle"] = whole["oracle"]
        else:
            stages["source"] = whole["source"]
        if self.row not in STARTS:
            stages["adaptation"] = asdict(adaptation(self.row, self.experiment))
        if self.row.startswith(METHOD):
            stages["method"] = self.row.removeprefix(METHOD)
        return json.loads(json.dumps(stages))


def adaptation(row: str, experiment: Experiment) -> Adaptation:
    """Return the adaptation settings of a row of the matrix.

    Args:
        row: a key of `LABELS` except those of `STARTS`.
        experiment: its schedule holds for every row; of a method it is all there is.
    """
    if row in ROWS:
        return adaptation_of(row, experiment)
    if row == "contrast_only_uncalibrated":
        base = ROWS["contrast_only"]
        settings = replace(base, contrast=replace(base.contrast or Contrast(), calibrate=False))
    elif row == SAFER_ROW:
        settings = SAFER
    elif row.startswith(METHOD):
        settings = Adaptation()
    else:
        settings = without(row.removeprefix("without_"))
    return on_schedule_of(settings, experiment)


def stored(cell: Cell) -> dict[str, Any] | None:
    """Return a cell's record if there is one made with the same settings, else None.

    A source-only record counts only together with its checkpoint.

    Raises:
        ValueError: there is one made with other settings, or the file is damaged.
    """
    if not cell.path.is_file() or (cell.row == SOURCE and not cell.checkpoint.is_file()):
        return None
    hint = "Hint: move the folder away, or choose another with --runs."
    try:
        record = json.loads(cell.path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"ablate: expected {cell.path} to hold JSON, got a damaged file ({error}). {hint}"
        ) from error
    found, wanted = dict(_leaves(record["settings"])), dict(_leaves(cell.settings))
    for name in sorted({*found, *wanted}):
        if found.get(name) != wanted.get(name):
            raise ValueError(
                f"ablate: expected {cell.path} to be made with {name} = {wanted.get(name)}, "
                f"got {found.get(name)}. {hint}"
            )
    return record


def _leaves(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    leaves: list[tuple[str, Any]] = []
    for name, value in settings.items():
        if isinstance(value, Mapping):
            leaves += _leaves(value, f"{prefix}{name}.")
        else:
            leaves.append((prefix + name, value))
    return leaves


def share_ratios(network: SegmentationNetwork, scenario: Scenario) -> tuple[float, float]:
    """Compare predictions on the target with source labels, class by class.

    Returns:
        (largest, smallest) share of a class among the predictions over its share among source
        labels, for classes that the source has. Perfect predictions need not give 1, because the
        domains differ; no target label is used.

    Raises:
        ValueError: the source has no labels.
    """
    if scenario.source.labels is None:
        raise ValueError("share_ratios: expected a source with labels, got none.")
    expected = class_share(scenario.source.labels)
    seen = predicted_share(network, scenario.target_images)
    ratios = [now / share for now, share in zip(seen, expected, strict=True) if share > 0]
    return max(ratios), min(ratios)


def _trained_row(cell: Cell, scenario: Scenario) -> Row:
    if cell.row in (SOURCE, UNAUGMENTED):
        return source_row(scenario, cell.experiment, name=cell.row, augmented=cell.row == SOURCE)
    if cell.row == ORACLE:
        return oracle_row(scenario, cell.experiment)
    start = new_network(cell.experiment)
    start.load_state_dict(torch.load(cell.checkpoint, weights_only=True))
    settings = adaptation(cell.row, cell.experiment)
    method = None
    if cell.row.startswith(METHOD):
        method = build_method(cell.row.removeprefix(METHOD), start.feature_dim)
    return adapted_row(cell.row, settings, start, scenario, cell.experiment, method=method)


def compute(cell: Cell, scenario: Scenario) -> dict[str, Any]:
    """Train and score one cell and store it.

    Args:
        cell: which; all rows but the source-only one and the oracle need the checkpoint that the
            source-only cell of this seed leaves.
        scenario: the data of this seed.

    Returns:
        dict: the record, as stored.

    Raises:
        NonFiniteLossError: a loss term became NaN or infinite; nothing is stored.
    """
    row = _trained_row(cell, scenario)
    history = row.trained.history
    largest, smallest = share_ratios(row.trained.network, scenario)
    last = history.windows[-1] if history.windows else None
    record = {
        "row": cell.row,
        "seed": cell.experiment.seed,
        "miou": row.miou_percent,
        "iou": dict(
            zip((NAMES[label] for label in row.scores.occurring), row.iou_percent, strict=True)
        ),
        "pixel_accuracy": row.scores.pixel_accuracy_percent,
        "share_ratio_max": largest,
        "share_ratio_min": smallest,
        "coverage_end": last and last.coverage,
        "label_accuracy_end": row.accuracy[-1].pseudo_labels if row.accuracy else None,
        "warnings": list(history.warnings.values()),
        "seconds": history.seconds,
        "evaluation_seconds": row.evaluation_seconds,
        "peak_mib": peak_mib(),
        "split": scenario.split,
        "images": {
            "source": len(scenario.source),
            "target": len(scenario.target_images),
            "test": len(scenario.test),
        },
        "settings": cell.settings,
        "versions": versions(),
        "machine": machine(),
        "code": code_digest(),
    }
    if cell.row == SOURCE:
        weights = io.BytesIO()
        torch.save(row.trained.network.state_dict(), weights)
        write_atomically(cell.checkpoint, weights.getvalue())
    write_atomically(cell.path, json.dumps(record, indent=2) + "\n")
    return record
