"""Make a page about a run of reference.train, finished or not.

    python -m reference.report runs/toy
    python -m reference.report runs/gta5 --out gta5.html

writes one HTML file that needs nothing but itself: scores, curves, classes, pictures over time,
prototypes, settings. The run is only read.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import tyro

from reference.atomic import write_atomically
from reference.engine.recorded_run import read_run
from reference.pictures.run_page import render_run

PAGE: Final = "report.html"


@dataclass(frozen=True)
class Options:
    """Make a page about a run of reference.train.

    Args:
        run: folder of the run.
        out: the file to write, by default report.html in the run folder; an older page is
            replaced.
    """

    run: Annotated[Path, tyro.conf.Positional]
    out: Path | None = None


def write_report(options: Options) -> Path:
    """Read the run and write its page.

    Args:
        options: of the command.

    Returns:
        Path: the page.

    Raises:
        ValueError: there is no run, a file of it is damaged, or the file to write is a folder or
            no page.
    """
    page = options.out or options.run / PAGE
    if page.is_dir() or page.suffix.lower() not in {".html", ".htm"}:
        kind = "a folder" if page.is_dir() else f'a name that ends in "{page.suffix}"'
        raise ValueError(
            f"report: expected out to be a file that ends in .html, got {page}, which is {kind}."
        )
    write_atomically(page, render_run(read_run(options.run)))
    return page


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, write, print where; a wrong input ends with one sentence.

    Args:
        arguments: words of the command line; None takes those of the process.
    """
    options = tyro.cli(Options, args=arguments, prog="python -m reference.report")
    try:
        page = write_report(options)
    except ValueError as error:
        sys.exit(str(error))
    print(f"Open {page}")


if __name__ == "__main__":
    main()
