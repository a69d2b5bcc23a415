"""What a person sees of a run, and its numbers on disk: CSV always, TensorBoard where installed."""

import contextlib
import csv
import importlib
import io
import resource
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich import progress
from rich.console import Console
from rich.text import Text

from reference.run.files import write_atomically

if TYPE_CHECKING:
    import torch

    from reference.run.ranks import Ranks

METRICS: Final = "metrics.csv"
LOSS: Final = "loss_"
SHARE: Final = "share_"
ESTIMATE_AFTER: Final = 50
_NUMBERS: Final = (
    *("iteration", "phase", "learning_rate", "coverage", "iterations_per_second"),
    *("data_wait_share", "cpu_seconds", "peak_mib", "miou_percent", "teacher_miou_percent"),
)


def peak_mib(device: "torch.device") -> float:
    """Return the largest memory so far, MiB: of a GPU, else of this process."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts in KiB, macOS in bytes.
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read the rows of a run's metrics, none where there is no file; the run may go on meanwhile.

    The phase is a word, the iteration an int. Empty columns are left out.
    """
    if not path.is_file():
        return []
    kinds: dict[str, Any] = {"phase": str, "iteration": int}
    try:
        rows = csv.DictReader(path.read_text(encoding="utf-8").splitlines())
        _ = [*(rows.fieldnames or ())].index("iteration")
        return [{n: kinds.get(n, float)(word) for n, word in row.items() if word} for row in rows]
    except (ValueError, TypeError) as error:
        raise ValueError(f"report: expected metrics in {path}, got others ({error}).") from error


def track(count: int, description: str, *, show: bool = True) -> Iterator[int]:
    """Yield 0 .. count - 1, on a terminal under a progress bar."""
    bar = progress.track(range(count), description, console=Console(stderr=True))
    yield from bar if show and sys.stderr.isatty() else range(count)


class Report:
    """Progress and numbers of a run of `total` iterations, `start` of which lie behind it.

    A resumed run first drops the rows after its checkpoint. Ranks but the main one write nothing,
    and print broken images alone; `quiet` prints warnings alone.
    """

    def __init__(
        self, folder: Path, class_names: Sequence[str], ranks: "Ranks", *,
        total: int, start: int = 0, quiet: bool = False,
    ) -> None:  # fmt: skip
        self.path, self.ranks, self.quiet = folder / METRICS, ranks, quiet
        self.total, self.start, self.iteration = total, start, start
        self._shares = [f"{SHARE}{name.replace(' ', '_')}" for name in class_names]
        self._rows: list[dict[str, Any]] = []
        self._board: Any = None
        self._bar: Any = None
        self._sums: dict[str, float] = {}
        self._steps = 0
        self._seconds = self._waited = self._processor = 0.0
        self._began: float | None = None
        # The first iteration also starts workers and chooses algorithms.
        self._later_seconds = 0.0

    def __enter__(self) -> "Report":
        if not self.ranks.is_main:
            return self
        self._rows = [r for r in read_metrics(self.path) if r["iteration"] <= self.start]
        self._write()
        with contextlib.suppress(ImportError):
            board = importlib.import_module("torch.utils.tensorboard").SummaryWriter
            self._board = board(str(self.path.parent / "tensorboard"), purge_step=self.start + 1)
        if sys.stderr.isatty() and not self.quiet:
            numbers = progress.MofNCompleteColumn(), progress.TextColumn("{task.fields[numbers]}")
            columns = (*progress.Progress.get_default_columns(), *numbers)
            self._bar = progress.Progress(*columns, console=Console(stderr=True))
            self._task = self._bar.add_task("", total=self.total, completed=self.start, numbers="")
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()
        if self._board is not None:
            self._board.close()

    def say(self, sentence: str) -> None:
        """Print a line, above the bar where there is one."""
        if self.ranks.is_main and sentence and not self.quiet:
            self._print(sentence)

    def warn(self, sentence: str, *, of_this_rank: bool = False) -> None:
        """Print a warning, of all ranks or, as about an image that no other reads, of this one."""
        if self.ranks.is_main or of_this_rank:
            self._print(f"warning: {sentence}", "yellow")

    def _print(self, sentence: str, style: str = "") -> None:
        if self._bar is not None:
            self._bar.console.print(Text(sentence, style=style))
        else:
            print(sentence, file=sys.stderr, flush=True)

    def labelled(self, done: int, count: int) -> None:
        """Show how many images have static labels, where there is a bar."""
        if self._bar is not None:
            self._bar.update(self._task, numbers=f"static labels {done}/{count}")

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Time what the run waits for data; the first wait of an iteration begins it."""
        before = time.perf_counter()
        if self._began is None:
            self._began = before
            self._processor -= time.process_time()
        yield
        self._waited += time.perf_counter() - before

    def step(self, losses: Mapping[str, float]) -> None:
        """End an iteration; `losses`: term -> weighted value, whose sum was minimised."""
        self.iteration += 1
        self._steps += 1
        for name, value in losses.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        spent = 0.0 if self._began is None else time.perf_counter() - self._began
        if self._began is not None:
            self._processor += time.process_time()
        self._began = None
        self._seconds += spent
        done = self.iteration - self.start
        self._later_seconds += spent if done > 1 else 0.0
        if self._bar is not None:
            self._bar.update(self._task, completed=self.iteration)
        left = self.total - self.iteration
        if done == ESTIMATE_AFTER and left and self._later_seconds:
            each = self._later_seconds / (done - 1)
            where = "GPU" if self.ranks.device.type == "cuda" else "process"
            self.say(
                f"about {_duration(left * each)} for the {left} iterations left at "
                f"{1 / each:.2f} it/s, without evaluations and static labels; peak memory of the "
                f"{where} {peak_mib(self.ranks.device) / 1024:.1f} GiB"
            )

    def row(
        self, iteration: int, phase: str, learning_rate: float,
        coverage: float | None = None, shares: Sequence[float] | None = None,
    ) -> None:  # fmt: skip
        """Write and show what the steps since the row before gave.

        `coverage` is the share of target pixels with a pseudo label, `shares` are those of the
        classes in the predictions on the target, 0..1; the learning rate is the backbone's.
        """
        rate = self._steps / self._seconds if self._seconds else 0.0
        waited = self._waited / self._seconds if self._seconds else 0.0
        processor = self._processor
        losses = {name: total / self._steps for name, total in self._sums.items()}
        self._sums.clear()
        self._steps, self._seconds, self._waited, self._processor = 0, 0.0, 0.0, 0.0
        if not self.ranks.is_main:
            return
        self._add(
            iteration=iteration, phase=phase, learning_rate=float(learning_rate),
            coverage=coverage, iterations_per_second=rate, data_wait_share=waited,
            cpu_seconds=processor, peak_mib=peak_mib(self.ranks.device),
            **{LOSS + name: value for name, value in losses.items()},
            **dict(zip(self._shares, shares or (), strict=False)),
        )  # fmt: skip
        terms = ", ".join(f"{name} {value:.3f}" for name, value in losses.items())
        # A bar has room for the sum alone.
        text = f"loss {sum(losses.values()):.3f}"
        text += f" ({terms})" if len(losses) > 1 and self._bar is None else ""
        text += "" if coverage is None else f"  cover {coverage:.0%}"
        text += f"  lr {learning_rate:.1e}  {rate:.2f} it/s  data {waited:.0%}"
        if self._bar is not None:
            self._bar.update(self._task, description=phase, numbers=text)
        else:
            self.say(f"{phase}  {iteration}/{self.total}  {text}")

    def scores(
        self, iteration: int, phase: str, miou: float, teacher: float | None = None,
        name: str = "mIoU",
    ) -> None:  # fmt: skip
        """Write and show scores on the validation images, in percent."""
        self._add(iteration=iteration, phase=phase, miou_percent=miou, teacher_miou_percent=teacher)
        average = "" if teacher is None else f", moving average {teacher:.2f}"
        self.say(f"iteration {iteration}: {name} {miou:.2f}{average}")

    def _add(self, **row: Any) -> None:
        self._rows.append({name: value for name, value in row.items() if value is not None})
        self._write()
        for name, value in row.items() if self._board is not None else ():
            if isinstance(value, float):
                self._board.add_scalar(name, value, row["iteration"])

    def _write(self) -> None:
        """Write all rows: a term that comes late is a column of those before, too."""
        terms = (name for row in self._rows for name in row)
        columns, text = dict.fromkeys([*_NUMBERS, *self._shares, *terms]), io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows)
        write_atomically(self.path, text.getvalue())


def _duration(seconds: float) -> str:
    if seconds >= 5400:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.1f} min" if seconds >= 90 else f"{seconds:.0f} s"
