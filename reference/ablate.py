"""Run the ingredient matrix over seeds and write its tables into docs/results.md.

    python -m reference.ablate
    python -m reference.ablate --target /data/photographs
    python -m reference.ablate --target /data/photographs --varied
    python -m reference.ablate --target /data/photographs --sequence dusk
    python -m reference.ablate --method all
    python -m reference.ablate --method all --target night

Every row of every seed is one JSON file below runs/ablation. A stopped command goes on where it
stopped: rows stored with the same settings are reused, other settings are refused.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Final

import torch
import tyro

from reference.atomic import write_atomically
from reference.experiments import tables
from reference.experiments.matrix import Cell, compute, stored
from reference.experiments.options import Options
from reference.experiments.row_names import (
    LABELS,
    MAIN_ROWS,
    ORACLE,
    SOURCE,
    STARTS,
    TOY_ROWS,
    method_rows,
)
from reference.experiments.scenario import (
    DRAWN,
    NIGHT,
    Scenario,
    data_folder,
    has_training_labels,
    load_scenario,
    load_sequences,
)
from reference.pictures import method_gains
from reference.progress import CONSOLE, track
from reference.provenance import code_digest
from reference.training.config import Experiment
from reference.training.losses import NonFiniteLossError

INTERRUPTED: Final = 130


@dataclass(frozen=True)
class Failure:
    """A row that could not be trained, and why."""

    cell: Cell
    sentence: str


def _cells(
    options: Options, rows: Sequence[str], seeds: Sequence[int], base: Experiment | None
) -> list[Cell]:
    experiments = [
        options.experiment(seed) if base is None else replace(base, seed=seed) for seed in seeds
    ]
    folder = options.folder
    where = options.target, folder, options.sequence
    return [Cell(row, each, *where) for row in rows for each in experiments]


def chosen_cells(options: Options, base: Experiment | None = None) -> list[Cell]:
    """List the cells that a command asks for, row by row, with the source-only rows they need.

    Args:
        options: of the command.
        base: settings but for the seed; None takes the preset of the target.

    Raises:
        ValueError: an unknown row, a seed twice or none, or fewer than one job.
    """
    unknown = [row for row in options.rows if row not in LABELS]
    if unknown:
        raise ValueError(f"ablate: expected rows among {', '.join(LABELS)}, got {unknown[0]}.")
    if not options.seeds or len({*options.seeds}) < len(options.seeds):
        raise ValueError(f"ablate: expected different seeds, at least one, got {options.seeds}.")
    if options.sequence and options.target in DRAWN:
        raise ValueError(
            f"ablate: expected the root of photographs as target beside sequence "
            f"{options.sequence}, got {options.target}. Hint: give --target."
        )
    if options.varied and (options.target in DRAWN or options.sequence):
        raise ValueError(
            f"ablate: expected photographs without a sequence as target beside varied, got "
            f"{options.sequence or options.target}. Hint: give --target alone."
        )
    if options.method and (options.rows or options.sequence or options.varied):
        raise ValueError(
            f"ablate: expected neither rows, sequence nor varied beside method, got "
            f"{options.method[0]} with one of them. Hint: give --method alone."
        )
    if options.jobs < 1:
        raise ValueError(f"ablate: expected jobs of at least 1, got {options.jobs}.")
    usual = TOY_ROWS if options.target in DRAWN else MAIN_ROWS
    if options.methods:
        usual = method_rows(options.methods, day_images=options.target == NIGHT)
    wanted = {SOURCE, *(options.rows or usual)}
    if not has_training_labels(options.target):
        wanted.discard(ORACLE)
    rows = [row for row in LABELS if row in wanted]
    return _cells(options, rows, options.seeds, base)


def stored_cells(options: Options, base: Experiment | None = None) -> dict[Cell, dict[str, Any]]:
    """Find every stored row of this target, whatever rows and seeds the command asks for.

    Raises:
        ValueError: one of them was made with other settings, or is damaged.
    """
    names = (path.name.removeprefix("seed") for path in options.folder.glob("seed*"))
    seeds = sorted(int(name) for name in names if name.isdigit())
    cells = _cells(options, tuple(LABELS), seeds, base)
    return {cell: record for cell in cells if (record := stored(cell)) is not None}


@cache
def _scenario(
    experiment: Experiment, runs: Path, target: str, sequence: str, progress: bool = False
) -> Scenario:
    if sequence:
        return load_sequences(experiment, target, sequence, progress=progress)
    return load_scenario(
        experiment, data_folder(runs, experiment, target), target, progress=progress
    )


def _work(cell: Cell, runs: Path) -> Failure | dict[str, Any]:
    """Compute one cell in this process."""
    # One thread whatever `jobs` is, so that the numbers do not depend on it.
    torch.set_num_threads(1)
    try:
        return compute(cell, _scenario(cell.experiment, runs, cell.target, cell.sequence))
    except NonFiniteLossError as error:
        return Failure(cell, str(error))


def _results(cells: Sequence[Cell], options: Options) -> Iterator[Failure | dict[str, Any]]:
    """Compute cells, here or side by side, in whatever order they end."""
    if options.jobs == 1 or len(cells) < 2:
        for cell in cells:
            yield _work(cell, options.runs)
        return
    pool = ProcessPoolExecutor(options.jobs, mp_context=multiprocessing.get_context("spawn"))
    try:
        for future in as_completed([pool.submit(_work, cell, options.runs) for cell in cells]):
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _compute_all(cells: Sequence[Cell], options: Options, stage: str) -> list[Failure]:
    """Compute cells under one bar and tell each score; return those that failed."""
    failures: list[Failure] = []
    if not cells:
        return failures
    results = _results(cells, options)
    for _ in track(len(cells), stage):
        result = next(results)
        if isinstance(result, Failure):
            failures.append(result)
            CONSOLE.print(f"failed: {result.sentence}")
        else:
            CONSOLE.print(
                f"seed {result['seed']}  {LABELS[result['row']]:<48} "
                f"{result['miou']:5.1f} %  {result['seconds']:4.0f} s"
            )
    return failures


def prepare(options: Options, base: Experiment | None = None) -> list[Cell]:
    """Check everything, tell what is reused, draw and read the images that are needed.

    Args:
        options: of the command.
        base: settings but for the seed; None takes the preset of the target.

    Returns:
        list: the cells that are still to be computed.

    Raises:
        ValueError: bad options, stored rows of other settings, or bad data.
    """
    wanted, found = chosen_cells(options, base), stored_cells(options, base)
    missing = [cell for cell in wanted if cell not in found]
    if len(missing) < len(wanted):
        reused = len(wanted) - len(missing)
        CONSOLE.print(f"{reused} of {len(wanted)} rows are stored with these settings: reused.")
    digest = code_digest()
    if any(record["code"] != digest for record in found.values()):
        CONSOLE.print(
            f"warning: some rows in {options.folder} were made by other code than this; "
            "move them away to make them anew.",
            style="yellow",
        )
    # Here and once, before several processes want the same images.
    for experiment in dict.fromkeys(cell.experiment for cell in missing):
        _scenario(experiment, options.runs, options.target, options.sequence, True)
    return missing


def train_missing(missing: Sequence[Cell], options: Options) -> list[Failure]:
    """Compute cells: source stages and oracles first, then whatever starts from a source stage.

    Returns:
        list: rows that failed. A seed whose source stage failed is left out.
    """
    first = [cell for cell in missing if cell.row in STARTS]
    failures = _compute_all(first, options, "source stages, oracles")
    broken = {failure.cell.experiment.seed for failure in failures if failure.cell.row == SOURCE}
    rest = [c for c in missing if c not in first and c.experiment.seed not in broken]
    return failures + _compute_all(rest, options, "adaptations")


def store_tables(options: Options, base: Experiment | None = None) -> str:
    """Copy the numbers of all stored rows to the documents and write their tables anew.

    Args:
        options: of the command.
        base: settings but for the seed; None takes the preset of the target.

    Returns:
        str: what was done, or why the documents were left alone: numbers that stand there
        already are not replaced by fewer rows or seeds, nor by those of another data set.
    """
    found = stored_cells(options, base)
    fitting = options.fitting_rows
    records = [record for cell, record in found.items() if cell.row in fitting]
    summary = tables.summarise(records, target=options.name, command=options.command)
    path = options.docs / "results" / f"{options.section}.json"
    before = tables.load_summary(options.docs, options.section)
    if before is not None:
        had = {(row["row"], row["seed"]) for row in before["rows"]}
        have = {(row["row"], row["seed"]) for row in summary["rows"]}
        if before["target"] != options.name or not had <= have:
            return (
                f"{path} is left as it is: it holds {len(had)} rows of {before['target']}, "
                f"and the {len(have)} stored rows of {options.name} do not cover them."
            )
    write_atomically(path, json.dumps(summary, indent=1) + "\n")
    tables.main(options.docs)
    method_gains.write(options.docs)
    return f"Wrote {path} and {options.docs / 'results.md'}"


def main() -> None:
    """Read the command line and run; a wrong input ends with one sentence."""
    options = tyro.cli(Options, prog="python -m reference.ablate")
    try:
        try:
            missing = prepare(options)
        except ValueError as error:
            sys.exit(str(error))
        failures = train_missing(missing, options)
    except KeyboardInterrupt:
        print(f"Stopped; finished rows are kept in {options.runs / 'ablation'}.", file=sys.stderr)
        sys.exit(INTERRUPTED)
    if failures:
        sys.exit(f"{len(failures)} rows failed; the documents are left as they are.")
    CONSOLE.print(store_tables(options))


if __name__ == "__main__":
    main()
