"""Adapt a network from a source to a target domain and show what that changed.

    python -m reference.demo
    python -m reference.demo --seed 1 --run runs/seed1
    python -m reference.demo --target /data/photographs --run runs/photographs

Trains the source-only network, then from it the control, entropy alone and BiCL, and the oracle;
prints IoU per class and writes ``results.json``, ``history.json`` and ``report.html``.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

import torch
import tyro
from rich.console import Console
from rich.table import Table

from reference.atomic import require_new_folder, write_atomically
from reference.data.classes import NAMES
from reference.experiments.row_names import CONTROL
from reference.experiments.rows import (
    CAPTIONS,
    Row,
    adaptation_of,
    adapted_row,
    oracle_row,
    source_row,
)
from reference.experiments.scenario import (
    NIGHT,
    TOY,
    Scenario,
    choose_experiment,
    data_folder,
    load_scenario,
)
from reference.experiments.verdict import gain, headline
from reference.pictures.report import prototype_section, render
from reference.pictures.visualise import domain_strips, prediction_strips, pseudo_label_strips
from reference.provenance import code_digest, machine, peak_mib, versions
from reference.training.config import ROWS, Experiment
from reference.training.losses import NonFiniteLossError

INTERRUPTED: Final = 130
_TARGETS: Final = {
    TOY: "drawn street scenes, another look",
    NIGHT: "drawn street scenes, another look, after dark",
}


@dataclass(frozen=True)
class Options:
    """Adapt a segmentation network with BiCL, compare it, write a report.

    Args:
        run: folder for the results; must be new or empty.
        seed: of the drawn images, the initial weights and every batch.
        data: folder of the drawn images, reused if they were drawn with the same settings; by
            default data/ beside the run folder.
        source: the labelled domain: drawn street scenes.
        target: "toy" for drawn street scenes with another look, "night" for them after dark, or the
            root of photographs in the layout of Cityscapes.
        threads: of torch, on the CPU; another number rounds differently and moves scores a little.
    """

    run: Path = Path("runs/demo")
    seed: int = 0
    data: Path | None = None
    source: Literal["toy"] = "toy"
    target: str = TOY
    threads: int = 2


def prepare(
    options: Options, experiment: Experiment | None = None, *, progress: bool = True
) -> tuple[Experiment, Scenario]:
    """Check the run folder, then draw and read both domains.

    Args:
        options: of the command.
        experiment: settings; None takes the preset of the target.
        progress: show bars.

    Raises:
        ValueError: the run folder is not empty, the data are not what they should be, or threads
            is below 1.
    """
    if options.threads < 1:
        raise ValueError(f"demo: expected threads of at least 1, got {options.threads}.")
    hint = f"Hint: choose another one with --run, such as {options.run}-2, or remove it first."
    require_new_folder("demo", options.run, hint)
    experiment = experiment or choose_experiment(options.target, options.seed)
    data = options.data or data_folder(options.run.parent, experiment, options.target)
    return experiment, load_scenario(experiment, data, options.target, progress=progress)


def train_rows(
    experiment: Experiment, scenario: Scenario, *, progress: bool = True
) -> dict[str, Row]:
    """Train and score every row; the oracle only where target labels exist."""
    rows = {"source_only": source_row(scenario, experiment, progress=progress)}
    start = rows["source_only"].trained.network
    for name in CAPTIONS:
        if name in ROWS:
            settings = adaptation_of(name, experiment)
            rows[name] = adapted_row(name, settings, start, scenario, experiment, progress=progress)
    if scenario.target_truth is not None:
        rows["oracle"] = oracle_row(scenario, experiment, progress=progress)
    return rows


def summarise(
    options: Options, experiment: Experiment, scenario: Scenario, rows: Mapping[str, Row]
) -> dict[str, Any]:
    """Collect what results.json holds; IoU in percent, over the classes of the test labels."""
    occurring = rows["source_only"].scores.occurring
    training = {name: row.trained.history.seconds for name, row in rows.items()}
    evaluation = sum(row.evaluation_seconds for row in rows.values())
    return {
        "seed": experiment.seed,
        "num_classes": len(occurring),
        "class_names": [NAMES[label] for label in occurring],
        "train_ids": list(occurring),
        **{name: {"miou": row.miou_percent, "iou": row.iou_percent} for name, row in rows.items()},
        "seconds": {
            **scenario.seconds,
            **training,
            "evaluation": evaluation,
            "training_and_evaluation": sum(training.values()) + evaluation,
        },
        "peak_mib": peak_mib(),
        "warnings": [
            sentence for row in rows.values() for sentence in row.trained.history.warnings.values()
        ],
        "source": "drawn street scenes",
        "target": _TARGETS.get(options.target, Path(options.target).name),
        "split": scenario.split,
        "images": {
            "source": len(scenario.source),
            "target": len(scenario.target_images),
            "test": len(scenario.test),
        },
        "settings": asdict(experiment),
        "versions": versions(),
        "machine": machine(),
        "code": code_digest(),
    }


def table(results: Mapping[str, Any]) -> Table:
    """Lay out IoU per class, the means, and the gain over the control."""
    captions = {name: caption for name, caption in CAPTIONS.items() if name in results}
    view = Table(title=f"IoU in percent, {results['images']['test']} test images")
    view.add_column("class")
    for name, caption in captions.items():
        view.add_column(caption, justify="right", style="bold" if name == "bicl" else "")
    for index, label in enumerate(results["class_names"]):
        view.add_row(label, *(f"{results[name]['iou'][index]:.1f}" for name in captions))
    view.add_section()
    view.add_row("mIoU", *(f"{results[name]['miou']:.1f}" for name in captions), style="bold")
    gains = ["" if name == CONTROL else f"{gain(results, name, CONTROL):+.1f}" for name in captions]
    view.add_row("over continued", *gains)
    return view


def write_results(
    folder: Path, results: Mapping[str, Any], rows: Mapping[str, Row], report: str
) -> None:
    """Write the three files of a run, results.json last: where it is, the run is complete."""
    histories = {
        name: {
            **row.trained.history.as_dict(),
            "accuracy": [asdict(point) for point in row.accuracy],
        }
        for name, row in rows.items()
    }
    write_atomically(folder / "report.html", report)
    write_atomically(folder / "history.json", json.dumps(histories) + "\n")
    write_atomically(folder / "results.json", json.dumps(results, indent=2) + "\n")


def run_demo(
    options: Options, experiment: Experiment, scenario: Scenario, *, progress: bool = True
) -> dict[str, Any]:
    """Train, score, write; nothing is written to the run folder before all of it is done.

    Args:
        options: of the command.
        experiment: the settings.
        scenario: the data.
        progress: show bars.

    Returns:
        dict: what results.json holds.

    Raises:
        ValueError: the run folder was filled meanwhile.
        NonFiniteLossError: a loss term became NaN or infinite.
    """
    rows = train_rows(experiment, scenario, progress=progress)
    networks = {CAPTIONS[name]: rows[name].trained.network for name in ("source_only", "bicl")}
    results = summarise(options, experiment, scenario, rows)
    report = render(
        results,
        rows,
        domains=domain_strips(scenario),
        predictions=prediction_strips(scenario, networks),
        pseudo_labels=pseudo_label_strips(scenario, rows["bicl"].trained),
        space=prototype_section(rows, scenario),
    )
    require_new_folder("demo", options.run, "Hint: another run filled it meanwhile.")
    write_results(options.run, results, rows, report)
    return results


def main() -> None:
    """Read the command line, run, print; a wrong input ends with one sentence."""
    options = tyro.cli(Options, prog="python -m reference.demo")
    console = Console()
    began = time.perf_counter()
    try:
        try:
            experiment, scenario = prepare(options)
        except ValueError as error:
            sys.exit(str(error))
        torch.set_num_threads(options.threads)
        results = run_demo(options, experiment, scenario)
    except NonFiniteLossError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        print(f"Stopped; nothing was written to {options.run}.", file=sys.stderr)
        sys.exit(INTERRUPTED)
    console.print(table(results))
    console.print(headline(results))
    console.print(
        f"{time.perf_counter() - began:.0f} s in all, of which training and evaluation "
        f"{results['seconds']['training_and_evaluation']:.0f} s; "
        f"at most {results['peak_mib']:.0f} MiB."
    )
    console.print(f"Open {options.run / 'report.html'}")


if __name__ == "__main__":
    main()
