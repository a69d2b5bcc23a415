"""Make a page about runs of reference.train, finished or not.

    python -m reference.report runs/gta5
    python -m reference.report runs/source runs/bicl runs/dacs --out beside.html

writes one HTML file that needs nothing but itself: scores, images, classes, confusion, curves,
prototypes, settings. Several folders, or one that holds several, stand beside each other; for
several folders say where the page goes. The runs are only read.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import tyro

from reference.commands import answer, read

PAGE: Final = "report.html"


@dataclass(frozen=True)
class Options:
    """Make a page about runs of reference.train."""

    # of runs, or with run folders inside
    folders: Annotated[tuple[Path, ...], tyro.conf.Positional]
    # the file to write, needed for several folders; of one: report.html in it. An older page is
    # replaced
    out: Path | None = None


def write_report(options: Options) -> Path:
    """Read the runs and write their page; return where it lies."""
    # Late, so that --help answers at once.
    from reference.pictures.page import render
    from reference.pictures.recorded_run import read_comparison
    from reference.run.files import write_atomically

    if not options.folders:
        raise ValueError(
            "report: expected the folder of a run, got none. Hint: give what --folder of "
            "reference.train named, such as runs/toy."
        )
    if options.out is None and len(options.folders) > 1:
        raise ValueError(
            f"report: expected out for a page about {len(options.folders)} folders, got none. "
            "Hint: give --out beside.html; the page of one run lies in its folder."
        )
    page = options.out or options.folders[0] / PAGE
    if page.is_dir() or page.suffix.lower() not in {".html", ".htm"}:
        kind = "a folder" if page.is_dir() else f'a name that ends in "{page.suffix}"'
        raise ValueError(
            f"report: expected out to be a file that ends in .html, got {page}, which is {kind}."
        )
    write_atomically(page, render(read_comparison(options.folders)))
    return page


def main(arguments: Sequence[str] | None = None) -> None:
    options = read(Options, "report", arguments)
    print(f"Open {answer(lambda: write_report(options))}")


if __name__ == "__main__":
    main()
