"""A run read back from its folder, whole or in the middle, for the report about it."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from reference.engine.checkpoints import LAST
from reference.engine.metrics import FILE
from reference.engine.panels import PROTOTYPES
from reference.engine.presets import PRESETS
from reference.engine.recorded_settings import as_plain, differences
from reference.engine.run_folder import ORIGIN, SETTINGS
from reference.networks.tensor_files import read_stored
from reference.pictures.domain_prototypes import Prototypes, prototypes_of
from reference.pictures.run_facts import RunFacts
from reference.pictures.strip_files import FOLDER, StripFile, read_strip

_ORDER: Final = ("validation", "target", "source")
# They belong to a run, not to its kind.
_OWN: Final = ("seed:", "start:", "network.weights:", "machine.")


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"report: expected JSON in {path}, got something else ({error})."
        ) from error


def nearest_preset(settings: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Find the named settings that a run differs least from.

    Args:
        settings: of the run, as plain tables.

    Returns:
        The name, and what differs, as `recorded_settings.differences` words it; seed, weights and
        machine are left out.
    """
    found = {
        name: [
            change
            for change in differences(as_plain(preset), settings)
            if not change.startswith(_OWN)
        ]
        for name, (_, preset) in PRESETS.items()
    }
    name = min(found, key=lambda name: len(found[name]))
    return name, found[name]


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read the rows of a run's metrics; a torn last row is left out.

    Args:
        path: the CSV file; a missing one has no rows.

    Returns:
        list: column -> number, the phase as a word; empty columns are left out.
    """
    if not path.is_file():
        return []
    rows = []
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if None in row.values() or None in row:
                continue
            try:
                rows.append(
                    {
                        name: value if name == "phase" else _number(name, value)
                        for name, value in row.items()
                        if value
                    }
                )
            except ValueError:
                continue
    return [row for row in rows if {"iteration", "phase"} <= set(row)]


def _number(name: str, value: str) -> float:
    return int(value) if name == "iteration" else float(value)


def _strips(run: Path) -> list[list[StripFile]]:
    found = [
        [read_strip(path) for path in sorted(folder.glob("*.png"))]
        for folder in (run / FOLDER).glob("*")
        if folder.is_dir()
    ]
    whole = [strips for strips in found if strips]
    return sorted(whole, key=lambda strips: (_ORDER.index(strips[0].domain), strips[0].index))


def _moments(run: Path, held: Mapping[str, Any], calibrate: bool) -> list[tuple[int, Prototypes]]:
    found = [
        (int(path.stem), prototypes_of(read_stored(path)))
        for path in sorted((run / PROTOTYPES).glob("*.safetensors"))
    ]
    if not found and held.get("bicl") is not None:
        found = [(held["iteration"], prototypes_of(held["bicl"]))]
    seen = [(iteration, moment) for iteration, moment in found if moment.classes]
    if calibrate:
        return seen
    return [(iteration, replace(moment, calibrated=None)) for iteration, moment in seen]


def read_run(run: Path) -> RunFacts:
    """Read what a run folder says.

    Args:
        run: a folder of `reference.train`; its run may go on meanwhile.

    Raises:
        ValueError: it is no such folder, or a file in it is damaged.
    """
    if not (run / SETTINGS).is_file():
        raise ValueError(
            f"report: expected the folder of a run of reference.train, got {run}, which has no "
            f"{SETTINGS}. Hint: give the folder that --run named."
        )
    settings = _json(run / SETTINGS)
    preset, changes = nearest_preset(settings)
    held = read_stored(run / LAST) if (run / LAST).is_file() else {}
    classes = run / "classes.json"
    rows = read_metrics(run / FILE)
    mode, warmup = settings["mode"], settings["source"]["iterations"]
    first = None if mode == "source-only" else 0 if mode == "adapt" else warmup
    return RunFacts(
        name=run.resolve().name,
        settings=settings,
        preset=preset,
        changes=changes,
        starts=_json(run / ORIGIN)["starts"] if (run / ORIGIN).is_file() else [],
        rows=rows,
        # Every phase ends with a row of its own.
        boundaries=[
            before["iteration"]
            for before, row in itertools.pairwise(rows)
            if before["phase"] != row["phase"]
        ],
        planned=warmup if first is None else first + settings["adaptation"]["iterations"],
        alarms=held.get("monitor", {}).get("told", []),
        table=_json(classes) if classes.is_file() else None,
        strips=_strips(run),
        moments=_moments(run, held, settings["adaptation"]["contrast"]["calibrate"]),
        first_adapted=first,
    )
