"""What a person sees of a run: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from reference.engine.metrics import TERMS

_SHORT: Final = {
    "source_cross_entropy": "ce_s",
    "static_cross_entropy": "ce_t",
    "source_entropy": "ent_s",
    "entropy": "ent_t",
    "target_to_source": "t->s",
    "source_to_target": "s->t",
}


def summary(row: Mapping[str, Any]) -> str:
    """Write a row of metrics as a few words."""
    parts = [f"{_SHORT[name]} {row[name]:.3f}" for name in TERMS if name in row]
    if row.get("coverage") is not None:
        parts.append(f"cover {row['coverage']:.0%}")
    parts.append(f"lr {row['learning_rate']:.1e}")
    parts.append(f"{row['iterations_per_second']:.2f} it/s")
    parts.append(f"data {row['data_wait_share']:.0%}")
    return "  ".join(parts)


class RunConsole:
    """Progress of one run; silent on all ranks but the first.

    Args:
        leads: whether to print at all.
        count: iterations of the run.
        done: iterations that lie behind it.
    """

    def __init__(self, leads: bool, count: int, done: int) -> None:
        self.leads = leads
        self.count = count
        self.console = Console(stderr=True)
        self._bar: Progress | None = None
        if leads and self.console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description:<10}"),
                BarColumn(bar_width=20),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("ETA"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[numbers]}"),
                console=self.console,
            )
            self._task = self._bar.add_task("", total=count, completed=done, numbers="")

    def __enter__(self) -> RunConsole:
        """Show the bar."""
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()

    def say(self, sentence: str, style: str = "") -> None:
        """Print a line above the bar."""
        if not self.leads:
            return
        if self._bar is not None:
            self.console.print(Text(sentence, style=style))
        else:
            print(sentence, file=sys.stderr, flush=True)

    def warn(self, sentence: str) -> None:
        """Print a warning above the bar."""
        self.say(f"warning: {sentence}", "yellow")

    def at(self, iteration: int, phase: str) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.update(self._task, completed=iteration, description=phase)

    def row(self, row: Mapping[str, Any]) -> None:
        """Show a row of metrics."""
        text = summary(row)
        if self._bar is not None:
            self._bar.update(self._task, numbers=text)
        else:
            self.say(f"{row['phase']}  {row['iteration']}/{self.count}  {text}")

    def advance(self, done: int, count: int) -> None:
        """Show how many images have been labelled."""
        if self._bar is not None:
            self._bar.update(self._task, numbers=f"static labels {done}/{count}")
