"""Turn a checkpoint of a run into files to hand out: safetensors, a card, a program.

    python -m reference.export runs/gta5/last.pth --out released
    python -m reference.export runs/gta5/last.pth --out released --which teacher \\
        --scores runs/gta5/classes.json

writes ``model.safetensors``, ``model.pt2`` (for `torch.export.load`) and ``card.json``, which
`python -m reference.predict` reads.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import tyro

from reference.atomic import require_new_folder
from reference.evaluation.class_table import LAST
from reference.evaluation.protocol import Source, protocol_for
from reference.networks.program import write_program
from reference.networks.release import read_checkpoint, write_release

PROGRAM: Final = "model.pt2"


@dataclass(frozen=True)
class Options:
    """Turn a checkpoint of a run into weights, a card and a program.

    Args:
        checkpoint: file of a run.
        out: folder for the files; must be new or empty.
        which: the trained network, or its moving average.
        source: the data set with labels that it was trained on, which says which classes it knows;
            by default that of the checkpoint's run.
        size: height and width at which images are to be seen, pixels; by default those at which
            the run evaluated.
        scores: JSON file of an evaluation of this checkpoint, for the card.
        program: write the torch.export program as well.
    """

    checkpoint: Annotated[Path, tyro.conf.Positional]
    out: Path
    which: Literal["student", "teacher"] = "student"
    source: Source | None = None
    size: tuple[int, int] | None = None
    scores: Path | None = None
    program: bool = True


def read_scores(path: Path) -> dict[str, Any]:
    """Take the headline out of a file that `write_class_table` wrote.

    Args:
        path: the JSON file.

    Returns:
        dict: "header", how it was measured; "means" and "iou", in percent.

    Raises:
        ValueError: there is no such file, or it holds something else.
    """
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        row = next(row for row in held["rows"] if row["name"] == LAST)
        return {"header": held["header"], "means": row["means"], "iou": row["iou"]}
    except (OSError, ValueError, KeyError, TypeError, StopIteration) as error:
        raise ValueError(
            f"export: expected scores of an evaluation in {path}, got none there "
            f"({type(error).__name__}). Hint: use the JSON file beside the table per class."
        ) from error


def run_export(options: Options) -> Path:
    """Write the files; nothing is written where an input is wrong.

    Args:
        options: of the command.

    Returns:
        Path: the card.

    Raises:
        ValueError: the output folder is not empty, an input is not what it should be, or nothing
            says what the network was trained on.
        ImportError: the network needs timm, which cannot be imported.
    """
    hint = "Hint: choose another one with --out."
    require_new_folder("export", options.out, hint, argument="out")
    if options.size is not None and min(options.size) < 1:
        raise ValueError(f"export: expected a positive size, got {options.size}.")
    scores = None if options.scores is None else read_scores(options.scores)
    release = read_checkpoint(options.checkpoint, options.which)
    protocol = protocol_for(
        "export", options.checkpoint, release.card, size=options.size, source=options.source
    )
    if options.program:
        write_program(options.out / PROGRAM, release.network, protocol.size)
    return write_release(
        options.out,
        release.network,
        input_size=protocol.size,
        source=protocol.source,
        facts={
            "which": options.which,
            "iteration": release.card.get("iteration"),
            "scores_percent": scores,
        },
    )


def main() -> None:
    """Read the command line, export, print; a wrong input ends with one sentence."""
    options = tyro.cli(Options, prog="python -m reference.export")
    try:
        card = run_export(options)
    except (ValueError, ImportError) as error:
        sys.exit(str(error))
    print(
        f"Wrote {', '.join(sorted(path.name for path in card.parent.iterdir()))} to {card.parent}"
    )
    print(f"Try: python -m reference.predict FOLDER --weights {card} --out predictions")


if __name__ == "__main__":
    main()
