"""Runs that are compared: trained side by side, and read back from their folders."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reference.experiments.rows import CONTROL, ORACLE, SOURCE
from reference.run.folder import LAST, SETTINGS, as_plain, differences
from reference.settings import Settings, phases


@dataclass(frozen=True)
class Run:
    """One row of one seed.

    Args:
        row: a key of `rows.LABELS`.
        settings: of the run.
        folder: of the run; beside it lie the other rows of its seed.
    """

    row: str
    settings: Settings
    folder: Path

    @property
    def begin(self) -> Path | None:
        """Folder of the run that this one begins with."""
        return self.settings.begin and self.settings.begin.parent

    @property
    def steps(self) -> int:
        """Iterations of the whole run."""
        return phases(self.settings)[-1].stop


class _Here(Executor):
    """A pool of this process alone."""

    def submit(self, function: Any, /, *arguments: Any, **named: Any) -> Future[Any]:
        """Call at once."""
        future: Future[Any] = Future()
        future.set_result(function(*arguments, **named))
        return future


def train_run(settings: Settings, folder: Path) -> str | None:
    """Train a run to its end; return why it failed, if it did."""
    from reference.train import train

    try:
        complete = train(settings, folder, resume=True, quiet=True)
    except FloatingPointError as error:
        return str(error)
    if not complete:
        raise KeyboardInterrupt
    return None


def train_all(runs: Sequence[Run], jobs: int) -> Iterator[tuple[Run, str | None]]:
    """Train runs side by side, each as soon as the one it begins with is complete.

    Args:
        runs: to train or to go on with; what they begin with is among them or complete.
        jobs: processes. Numbers do not depend on it where settings fix the threads.

    Yields:
        A run that ended, and why it failed, None if it did not. What begins with one that failed
        is left out.
    """
    # First what others wait for, then the longest; the control is the shortest.
    order = {SOURCE: 0, ORACLE: 1, CONTROL: 3}
    waiting = sorted(runs, key=lambda run: order.get(run.row, 2))
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, mp_context=context) if jobs > 1 else _Here()
    running: dict[Future[str | None], Run] = {}
    failed: set[Path | None] = set()
    try:
        while waiting or running:
            waiting = [run for run in waiting if run.begin not in failed]
            unfinished = {run.folder for run in [*waiting, *running.values()]}
            ready = [run for run in waiting if run.begin not in unfinished]
            for run in ready[: jobs - len(running)]:
                waiting.remove(run)
                running[pool.submit(train_run, run.settings, run.folder)] = run
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                run = running.pop(future)
                problem = future.result()
                if problem is not None:
                    failed.add(run.folder)
                yield run, problem
    finally:
        pool.shutdown(cancel_futures=True)


def refuse_other_settings(run: Run, caller: str, hint: str) -> None:
    """Refuse a folder in which a run of other settings lies.

    Args:
        run: that is wanted there.
        caller: begins the sentence.
        hint: ends it.

    Raises:
        ValueError: naming the first setting that differs.
    """
    path = run.folder / SETTINGS
    if not path.is_file():
        return
    stored = json.loads(path.read_text("utf-8"))
    # Where the folders lie may change.
    other = [d for d in differences(stored, as_plain(run.settings)) if not d.startswith("begin:")]
    if other:
        raise ValueError(
            f"{caller}: expected {run.folder} to hold a run of these settings, got other ones: "
            f"{other[0]}. {hint}"
        )


def record_of(run: Run) -> dict[str, Any] | None:
    """The numbers of a run; None where it is not complete.

    Shares of classes are those of the predictions on the scored images over those of the source
    labels that the row "source_only" was trained on; the truth plays no part in them.
    """
    held = _checkpoint(run.folder)
    if held is None or held["iteration"] < run.steps:
        return None
    table = json.loads((run.folder / "classes.json").read_text("utf-8"))
    evaluation, iou = table["evaluation"], table["rows"][0]["iou"]
    confusion, names = evaluation["confusion"], evaluation["protocol"]["classes"]["names"]
    # A class without a labelled pixel has no score.
    occurring = [name for name, truth in zip(names, confusion, strict=True) if sum(truth)]
    scored = {name: iou[name] for name in occurring if name in iou}
    origin = json.loads((run.folder / "origin.json").read_text("utf-8"))["starts"][-1]
    begun = held if run.row == SOURCE else _checkpoint(run.folder.with_name(SOURCE))
    largest, smallest = _share_ratios(confusion, begun)
    return {
        "row": run.row,
        "seed": run.settings.seed,
        "miou": sum(scored.values()) / len(scored),
        "iou": scored,
        "share_ratio_max": largest,
        "share_ratio_min": smallest,
        "coverage_end": _coverage(run.folder),
        "seconds": _seconds(run.folder),
        "warnings": len(held["monitor"]["told"]),
        **{name: origin[name] for name in ("versions", "machine", "commit")},
    }


def _checkpoint(folder: Path) -> dict[str, Any] | None:
    import torch

    path = folder / LAST
    return torch.load(path, map_location="cpu", weights_only=True) if path.is_file() else None


def _share_ratios(
    confusion: Sequence[Sequence[int]], begun: Mapping[str, Any] | None
) -> tuple[float | None, float | None]:
    if begun is None:
        return None, None
    source = begun["monitor"]["source"].tolist()
    predicted = [sum(column) for column in zip(*confusion, strict=True)]
    ratios = [
        (now / sum(predicted)) / (before / sum(source))
        for now, before in zip(predicted, source, strict=True)
        if before
    ]
    return max(ratios), min(ratios)


def _rows(folder: Path) -> list[dict[str, Any]]:
    from reference.run.report import METRICS, read_metrics

    return read_metrics(folder / METRICS)


def _coverage(folder: Path) -> float | None:
    return next((row["coverage"] for row in reversed(_rows(folder)) if "coverage" in row), None)


def _seconds(folder: Path) -> float:
    """Time of all steps, without static labels and evaluations."""
    total, last = 0.0, 0
    for row in _rows(folder):
        if rate := row.get("iterations_per_second"):
            total, last = total + (row["iteration"] - last) / rate, row["iteration"]
    return total
