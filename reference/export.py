"""Turn a checkpoint of a run into files to hand out: safetensors, a card, programs.

    python -m reference.export runs/gta5/last.pth --out released
    python -m reference.export runs/gta5/last.pth --out released --which teacher \\
        --scores runs/gta5/classes.json

writes ``model.safetensors`` and ``card.json``, which `python -m reference.predict` reads, and two
programs that run without this code: ``model.pt2`` (for `torch.export.load`) and ``model.onnx``.
Programs take images of one size alone, which the card names; weights and card take any.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import tyro

from reference.commands import answer, read

_PROGRAM: Final = "model.pt2"
_ONNX: Final = "model.onnx"
_SIZE: Final = (512, 1024)
_MOST: Final = 16384


@dataclass(frozen=True)
class Options:
    """Turn a checkpoint of a run into weights, a card and programs."""

    # file of a run, such as runs/gta5/last.pth
    checkpoint: Annotated[Path, tyro.conf.Positional]
    # folder for the files; must be new or empty
    out: Path
    # the trained network, or its moving average
    which: Literal["student", "teacher"] = "student"
    # name of the labelled set that it was trained on, where the checkpoint does not say it
    source: str = ""
    # (height, width) of the images, pixels; 0 0: that at which the run evaluated
    size: tuple[int, int] = (0, 0)
    # JSON file of an evaluation of this checkpoint, for the card
    scores: Path | None = None
    # write the torch.export program as well
    program: bool = True
    # write an ONNX file as well, where onnx and onnxscript are installed
    onnx: bool = True


# Before torch is imported, so that --help answers at once.
OPTIONS = read(Options, "export") if __name__ == "__main__" else None

import json
import sys

from reference.evaluation.class_table import LAST
from reference.networks.program import exported, write_onnx, write_program
from reference.networks.release import read_checkpoint, renamed_source, write_release
from reference.networks.tensor_files import require_file
from reference.run.files import require_new_folder


def read_scores(path: Path) -> dict[str, Any]:
    """Take the headline out of a JSON file that `write_class_table` wrote, in percent."""
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        row = next(row for row in held["rows"] if row["name"] == LAST)
        return {"header": held["header"], "means": row["means"], "iou": row["iou"]}
    except (OSError, ValueError, KeyError, TypeError, StopIteration) as error:
        raise ValueError(
            f"export: expected scores of an evaluation in {path}, got none there "
            f"({type(error).__name__}). Hint: use the JSON file beside the table per class."
        ) from error


def run_export(options: Options) -> tuple[Path, list[str]]:
    """Write the files; nothing is written where an input is wrong.

    Returns:
        (Path, list): the card, and a sentence for every file that could not be made.
    """
    require_new_folder(
        "export", options.out, "Hint: choose another one with --out.", argument="out"
    )
    if any(options.size) and not 1 <= min(options.size) <= max(options.size) <= _MOST:
        raise ValueError(f"export: expected a size within 1..{_MOST}, got {options.size}.")
    require_file("export", options.checkpoint)
    scores = None if options.scores is None else read_scores(options.scores)
    release = read_checkpoint(options.checkpoint, options.which)
    if options.source:
        release = renamed_source(release, options.source)
    said = release.card
    height, width = options.size if any(options.size) else said.get("input_size", _SIZE)
    notes: list[str] = []
    programs = []
    if release.method is not None:
        notes.append(
            f"No {_PROGRAM}, no {_ONNX}: {release.method['name']} changes the network at test "
            "time, which programs do not hold. Hint: use the card."
        )
    elif options.program or options.onnx:
        program = exported(release.network, (height, width))
        if options.program:
            write_program(options.out / _PROGRAM, program)
            programs.append(_PROGRAM)
        if options.onnx:
            note = write_onnx(options.out / _ONNX, program)
            notes += [note] if note else []
            programs += [] if note else [_ONNX]
    data = said.get("data", {})
    facts = {
        # How scores read labels of this network.
        "data": {name: data[name] for name in ("target_set", "merge") if name in data},
        "which": options.which,
        "iteration": said.get("iteration"),
        "scores_percent": scores,
        "programs": {
            "files": programs,
            "input": f"float32 (B, 3, {height}, {width}), RGB in [0, 1]; any B, this size alone",
            "outputs": "logits and features; upsample the logits bilinearly to the image's size "
            f"(align_corners {release.network.align_corners})",
        },
    }
    return write_release(options.out, release, input_size=(height, width), facts=facts), notes


def main(options: Options) -> None:
    """Export and print; a wrong input ends with one sentence."""
    card, notes = answer(lambda: run_export(options))
    for note in notes:
        print(note, file=sys.stderr)
    names = ", ".join(sorted(path.name for path in card.parent.iterdir()))
    print(f"Wrote {names} to {card.parent}")
    print(f"Try: python -m reference.predict FOLDER --weights {card} --out predictions")


if OPTIONS is not None:
    main(OPTIONS)
