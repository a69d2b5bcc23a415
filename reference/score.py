"""Score a trained network on labelled images, as published tables do.

    python -m reference.score /data/cityscapes --weights released/card.json --out scores
    python -m reference.score --weights runs/gta5/last.pth --out scores \\
        --previous runs/gta5/classes.json
    python -m reference.score photographs --weights runs/mine/last.pth --out scores \\
        --set own --labels masks --classes classes.json

prints the score of every class, above published means where there are any, and writes the table
as Markdown, CSV and JSON; the JSON file also holds the confusion matrix. Without a folder, a
checkpoint is scored on the validation images of its run.
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from reference.commands import Use, answer, read


@dataclass(frozen=True, kw_only=True)
class Options(Use):
    """Score a trained network on labelled images."""

    # folder of the set; with --set own, of its images; by default the run's validation images
    root: Annotated[Path | None, tyro.conf.Positional] = None
    # layout of the set, as docs/data.md lists them; by default the target of the run
    set: str = ""
    # split of the set; by default that of the run, else val
    split: str = ""
    # layout own: folder of labels
    labels: Path | None = None
    # layout own: JSON of the classes; by default those of the network
    classes: Path | None = None
    # JSON file of an evaluation before; adds it and the change since
    previous: Path | None = None
    # add published rows, where there are any of these sets and classes and all images are scored
    references: bool = True


# Before torch is imported, so that --help answers at once.
OPTIONS = read(Options, "score") if __name__ == "__main__" else None

from reference.data.classes import CITYSCAPES, ClassList
from reference.data.image_set import ImageSet, looks_like
from reference.data.sets import Sets
from reference.data.settings import DataSettings, refusal, require
from reference.evaluation import class_table as tables
from reference.evaluation.protocol import evaluate, read_for_use
from reference.networks.output import in_words
from reference.networks.release import Release
from reference.run.folder import from_plain


def open_images(options: Options, release: Release) -> tuple[ImageSet, ClassList]:
    """Open the images and labels that are to be scored, and the classes with their means."""
    data = from_plain(DataSettings, release.card.get("data", {}))
    data = replace(data, source_set=release.card.get("source") or data.source_set)
    if options.root is not None:
        root = options.root
        said = {"val_split": options.split, "val_labels": options.labels}
        said |= {"classes": options.classes, "target_set": options.set}
        named: dict[str, Any] = {name: value for name, value in said.items() if value}
        data = replace(data, target=root, val_images=root, sequence="", **named)
    elif "settings" not in release.card:
        hint = "python -m reference.score FOLDER --weights ...; only a checkpoint names its own"
        wanted = f"of labelled images with {options.weights}"
        raise refusal("score", "a folder", "none", wanted, hint)
    # A list of your own travels with the network.
    usual = options.classes or release.classes.names == CITYSCAPES.names
    seed = release.card.get("settings", {}).get("seed", 0)
    sets = Sets(data, seed, classes=None if usual else release.classes)
    own, given = release.classes.names, sets.classes.names
    hint = "give the class list of its run with --classes"
    wanted = f"of the network ({', '.join(own)})"
    require("score", "the classes", ", ".join(given), wanted, own == given, hint)
    try:
        return sets.validation, sets.classes
    except ValueError as error:
        other = options.root and looks_like(options.root, data.val_split)
        if not other or other == data.target_set:
            raise
        wanted, got = f"to lie as layout {data.target_set}", f"one that lies as {other}"
        raise refusal("score", str(options.root), got, wanted, f"give --set {other}") from error


def run_score(options: Options) -> tables.ClassTable:
    previous = None if options.previous is None else tables.read_evaluation(options.previous)
    release, protocol = read_for_use("score", options)
    images, classes = open_images(options, release)
    protocol = replace(protocol, classes=classes)
    header = protocol.describe(len(images), align_corners=release.network.align_corners)
    then, name = header if previous is None else previous.header, "an evaluation before"
    wanted = f"measured as this one, {header!r}"
    require("score", name, repr(then), wanted, then == header)
    found = evaluate(release.network, images, protocol, progress=True)
    method = "" if release.method is None else f" as {release.method['name']} uses it"
    name = f"{release.card.get('which', 'network')}: {in_words(release.trained)}{method}"
    return tables.class_table(found, network=name, previous=previous, references=options.references)


def main(options: Options) -> None:
    table = answer(lambda: run_score(options))
    # Printed first: a full disk must not lose it.
    print(table.markdown())
    sys.stdout.flush()
    answer(lambda: tables.write_class_table(options.out, table))
    print(f"Wrote classes.md, classes.csv and classes.json to {options.out}")


if OPTIONS is not None:
    main(OPTIONS)
