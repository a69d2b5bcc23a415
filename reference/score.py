"""Score a trained network on labelled images of Cityscapes, as published tables do.

    python -m reference.score /data/cityscapes --weights released/card.json --out scores
    python -m reference.score /data/cityscapes --weights runs/gta5/last.pth --out scores \\
        --previous runs/gta5/classes.json

prints the table per class beside published rows and writes it as Markdown, CSV and JSON; the JSON
file also holds the confusion matrix.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro

from reference.atomic import require_new_folder
from reference.data.cityscapes import Cityscapes
from reference.evaluation.class_table import (
    ClassTable,
    class_table,
    read_evaluation,
    write_class_table,
)
from reference.evaluation.protocol import Source, evaluate_reader, protocol_for
from reference.networks.card import in_words
from reference.networks.release import read_trained


@dataclass(frozen=True)
class Options:
    """Score a trained network on labelled images of Cityscapes.

    Args:
        root: folder that holds leftImg8bit and gtFine.
        weights: the card of a trained network, whose weights lie beside it, or a checkpoint of a
            run.
        out: folder for the table; must be new or empty.
        split: folder of the images and labels.
        size: height and width at which the network sees the images, pixels; by default those of the
            card, or of the checkpoint's run.
        source: the data set with labels that the network was trained on, which says which classes
            it knows; by default that of the card, or of the checkpoint's run.
        which: of a checkpoint: the trained network, or its moving average.
        scales: times the size; several are averaged. Published single-scale rows use 1.
        flip: average with the mirrored image.
        previous: JSON file of an evaluation before; adds it and the change since.
        references: add published rows.
        device: where to compute; "auto" takes a GPU where there is one.
        threads: of torch, on the CPU.
    """

    root: Annotated[Path, tyro.conf.Positional]
    weights: Path
    out: Path
    split: str = "val"
    size: tuple[int, int] | None = None
    source: Source | None = None
    which: Literal["student", "teacher"] = "student"
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    previous: Path | None = None
    references: bool = True
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = 2


def run_score(options: Options, *, progress: bool = True) -> ClassTable:
    """Evaluate and write the table.

    Args:
        options: of the command.
        progress: show a bar.

    Raises:
        ValueError: an input is not what it should be, nothing says what the network was trained on,
            the evaluation before was measured otherwise, or the output folder is not empty.
        ImportError: the network needs timm, which cannot be imported.
    """
    hint = "Hint: choose another one with --out."
    require_new_folder("score", options.out, hint, argument="out")
    gpu = torch.cuda.is_available()
    if options.device == "cuda" and not gpu:
        raise ValueError('score: expected a GPU for device "cuda", got none.')
    release = read_trained(options.weights, options.which)
    protocol = protocol_for(
        "score",
        options.weights,
        release.card,
        size=options.size,
        source=options.source,
        scales=options.scales,
        flip=options.flip,
    )
    previous = None if options.previous is None else read_evaluation(options.previous)
    reader = Cityscapes(options.root, options.split, labels=True)
    corners = release.network.align_corners
    header = protocol.describe(len(reader), align_corners=corners)
    if previous is not None and previous.header != header:
        raise ValueError(
            f"score: expected an evaluation before measured as this one, {header!r}, got "
            f"{previous.header!r}."
        )
    network = release.network.to("cuda" if gpu and options.device != "cpu" else "cpu")
    evaluation = evaluate_reader(network, reader, protocol, progress=progress)
    which = release.card.get("which", "network")
    table = class_table(
        evaluation,
        network=f"{which}: {in_words(network)}",
        previous=previous,
        references=options.references,
    )
    write_class_table(options.out, table)
    return table


def main() -> None:
    """Read the command line, score, print; a wrong input ends with one sentence."""
    options = tyro.cli(Options, prog="python -m reference.score")
    torch.set_num_threads(max(1, options.threads))
    try:
        table = run_score(options)
    except (ValueError, ImportError) as error:
        sys.exit(str(error))
    print(table.markdown())
    print(f"Wrote classes.md, classes.csv and classes.json to {options.out}")


if __name__ == "__main__":
    main()
