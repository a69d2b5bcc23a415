"""Runs that are compared: trained side by side, and read back from their folders."""

import multiprocessing
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from reference.data.sets import Sets
from reference.data.settings import require
from reference.experiments.rows import CONTROL, ORACLE, SOURCE, settings_of
from reference.run.files import read_json
from reference.run.folder import CHECKPOINTS, LAST, SETTINGS, as_plain, differences, flat
from reference.settings import Settings, phases

if TYPE_CHECKING:
    from reference.pictures.recorded_run import RecordedRun

# As many as give the ends of an interval of 95 % to about a tenth of its length.
RESAMPLES: Final = 400


@dataclass(frozen=True)
class Run:
    """One row of one seed; beside its folder lie the other rows of the seed."""

    row: str
    settings: Settings
    folder: Path

    @property
    def begin(self) -> Path | None:
        """Folder of the run that this one starts from."""
        return self.settings.begin and self.settings.begin.parent


class _Here(Executor):
    """A pool of this process alone, which calls at once."""

    def submit(self, function: Any, /, *arguments: Any, **named: Any) -> Future[Any]:
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
    """Train runs in `jobs` processes, each as soon as the one it starts from is complete.

    Yields every run that ended, and why it failed, None if it did not. What starts from one that
    failed is left out.
    """
    # First what others wait for, then the longest; the control is the shortest.
    order = {SOURCE: 0, ORACLE: 1, CONTROL: 3}
    waiting = sorted(runs, key=lambda run: order.get(run.row, 2))
    context = multiprocessing.get_context("spawn")
    # Large maps are kept between steps; glibc otherwise gives each back, a page fault per page.
    os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", str(2**29))
    os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(2**25))
    pool = ProcessPoolExecutor(jobs, mp_context=context) if jobs > 1 else _Here()
    running: dict[Future[str | None], Run] = {}
    try:
        while waiting or running:
            unfinished = {run.folder for run in [*waiting, *running.values()]}
            ready = [run for run in waiting if run.begin not in unfinished]
            for run in ready[: jobs - len(running)]:
                waiting.remove(run)
                running[pool.submit(train_run, run.settings, run.folder)] = run
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                run, problem = running.pop(future), future.result()
                if problem is not None:
                    waiting = [other for other in waiting if other.begin != run.folder]
                yield run, problem
    finally:
        pool.shutdown(cancel_futures=True)


def take_over(run: Run, runs: Path) -> Path | None:
    """Take the network of a complete source run that differs by its target alone, and score it.

    The run is of the row "source_only", in which the target's training images play no part; `runs`
    holds those of all targets. Returns where it was taken from; None where the run has checkpoints.
    """
    wanted, unread = as_plain(run.settings), ("adaptation.", "data.target", "data.val")
    if any((run.folder / CHECKPOINTS).glob("*.pth")) or run.settings.data.sequence:
        return None
    for folder in sorted(runs.glob(f"*/{run.folder.parent.name}/{SOURCE}")):
        if (found := _complete(folder)) is None:
            continue
        if all(other.startswith(unread) for other in differences(found.held["settings"], wanted)):
            _score(run, found.held)
            return folder
    return None


def _score(run: Run, held: Mapping[str, Any]) -> None:
    """Make the folder of a complete run from a checkpoint of another target."""
    from reference.evaluation.validation import validate
    from reference.run.folder import RunFolder
    from reference.run.ranks import joined
    from reference.run.report import Report
    from reference.run.state import State

    sets, end = Sets(run.settings.data, run.settings.seed), phases(run.settings)[-1]
    with (
        joined(run.settings.machine) as ranks,
        RunFolder(run.folder, as_plain(run.settings), ranks, resume=True) as folder,
        Report(run.folder, sets.classes.names, ranks, total=end.stop, quiet=True) as report,
    ):
        state = State(run.settings, sets, ranks, held)
        folder.record(0)
        score = validate(run.folder, run.settings, sets, state)
        report.scores(end.stop, end.name, score.student, score.teacher, name=score.name)
        state.best = score.student
        folder.save(state.iteration, state.state(folder.plain))


def rows_of(rows: Sequence[str], preset: Settings, folder: Path) -> list[Run]:
    """Runs of rows, keys of `rows.LABELS`, in folders beside that of the row "source_only"."""
    begin = folder / SOURCE / LAST
    return [Run(row, settings_of(row, preset, begin), folder / row) for row in rows]


def refuse_other_settings(run: Run, caller: str, hint: str) -> None:
    """Refuse a folder in which a run of other settings lies."""
    stored, wanted = read_json(caller, run.folder / SETTINGS), as_plain(run.settings)
    # Where the folders lie may change, but not the size at which a score is taken.
    other = [d for d in differences(stored or wanted, wanted) if not d.startswith("begin:")]
    sizes = [flat(held).get("reporting.size") for held in (stored or wanted, wanted)]
    if sizes[0] != sizes[1]:
        other.append(f"reporting.size: {sizes[0]} -> {sizes[1]}")
    got, told = f"other ones: {''.join(other[:1])}", "to hold a run of these settings"
    require(caller, str(run.folder), got, told, not other, hint)


def record_of(run: Run) -> dict[str, Any] | None:
    """The numbers of a run; None where it is not complete.

    All rows have the classes of the row "source_only", of which an oracle may know more. Share
    ratios of classes: of the predictions on the scored images over the source labels that this row
    was trained on; the truth plays no part in them.
    """
    held = _complete(run.folder)
    if held is None or held.confusion is None:
        return None
    # A class without a labelled pixel has no score.
    labelled = dict(zip(held.classes, map(sum, held.confusion), strict=True))
    scored = {name: iou for name, iou in held.iou.items() if labelled[name] and iou is not None}
    ratios: list[float] = []
    if begun := _complete(run.folder.with_name(SOURCE)):
        scored = {name: iou for name, iou in scored.items() if begun.iou.get(name) is not None}
        now, before = np.sum(held.confusion, axis=0), begun.held["monitor"]["source"].numpy()
        shown = before > 0
        ratios = (now[shown] / now.sum() / (before[shown] / before.sum())).tolist()
    # Drawn seeds have images of their own, which cannot be resampled together.
    drawn = run.settings.data.target_set.startswith("toy")
    classes = [number for number, name in enumerate(held.classes) if name in scored]
    return {
        "row": run.row,
        "seed": run.settings.seed,
        "miou": sum(scored.values()) / len(scored),
        "iou": scored,
        "resampled": None if drawn else resampled_scores(run.folder, classes),
        "share_ratio_max": max(ratios, default=None),
        "share_ratio_min": min(ratios, default=None),
        "coverage_end": next((value for _, value in held.column("coverage")[::-1]), None),
        # Of the processor in all steps, which other work on the machine does not change.
        "seconds": sum(seconds for _, seconds in held.column("cpu_seconds")),
        "warnings": len(held.alarms),
        **{name: held.starts[-1][name] for name in ("versions", "machine", "commit")},
    }


def resampled_scores(folder: Path, classes: Sequence[int]) -> str | None:
    """Mean IoU of resamples of the scored images, in hundredths of a percent; None without them.

    The images of a resample follow from their number alone, so that resamples of two rows pair.
    """
    from reference.evaluation.validation import EACH

    path = folder / EACH
    if not path.is_file():
        return None
    each = np.load(path)["confusions"].astype(np.float64)
    count = len(each)
    drawn = np.random.default_rng(0).multinomial(count, [1 / count] * count, size=RESAMPLES)
    total = np.einsum("rn,ncd->rcd", drawn, each)
    hits = np.diagonal(total, axis1=1, axis2=2)
    union = total.sum(axis=1) + total.sum(axis=2) - hits
    # A class that no image of a resample shows, and none is given, has no score there.
    iou = np.divide(hits, union, out=np.full_like(union, np.nan), where=union > 0)
    return " ".join(f"{10_000 * mean:.0f}" for mean in np.nanmean(iou[:, classes], axis=1))


def _complete(folder: Path) -> "RecordedRun | None":
    """What a folder holds of a run that has reached its end, if it does."""
    from reference.pictures.recorded_run import read_run

    held = read_run(folder) if (folder / LAST).is_file() else None
    return held if held and held.reached >= held.planned else None
