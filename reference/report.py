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
from reference.data.settings import require

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

    count = len(options.folders)
    hint = "give what --folder of reference.train named, such as runs/toy"
    require("report", "the folder", "none", "of a run", count > 0, hint)
    ok, wanted = options.out is not None or count == 1, f"for a page about {count} folders"
    hint = "give --out beside.html; the page of one run lies in its folder"
    require("report", "out", "none", wanted, ok, hint)
    page = options.out or options.folders[0] / PAGE
    kind = "a folder" if page.is_dir() else f'a name that ends in "{page.suffix}"'
    ok = not page.is_dir() and page.suffix.lower() in {".html", ".htm"}
    require("report", "out", f"{page}, which is {kind}", "to be a file that ends in .html", ok)
    write_atomically(page, render(read_comparison(options.folders)))
    return page


def main(arguments: Sequence[str] | None = None) -> None:
    options = read(Options, "report", arguments)
    print(f"Open {answer(lambda: write_report(options))}")


if __name__ == "__main__":
    main()
