"""Progress of long loops: a bar with steps, steps per second and remaining time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

CONSOLE: Final = Console(stderr=True)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("-- it/s" if speed is None else f"{speed:.1f} it/s")


def track(count: int, description: str, *, show: bool = True) -> Iterator[int]:
    """Yield 0 .. count - 1 under a progress bar.

    Args:
        count: number of steps.
        description: what is counted, in a few words.
        show: False yields the numbers without a bar.

    Yields:
        int: the index of the step.
    """
    columns = (
        TextColumn("{task.description:<24}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=CONSOLE, disable=not show) as bar:
        task = bar.add_task(description, total=count)
        for index in range(count):
            yield index
            bar.advance(task)


def warn(sentence: str) -> None:
    """Print a warning above a running bar, on the error stream."""
    CONSOLE.print(Text(f"warning: {sentence}", style="yellow"))
