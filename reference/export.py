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
_NEEDED: Final = ("onnx", "onnxscript")
_SIZE: Final = (512, 1024)


@dataclass(frozen=True)
class Options:
    """Turn a checkpoint of a run into weights, a card and programs."""

    # file of a run, such as runs/gta5/last.pth
    checkpoint: Annotated[Path, tyro.conf.Positional]
    # folder for the files; must be new or empty
    out: Path
    # the trained network, or its moving average
    which: Literal["student", "teacher"] = "student"
    # (height, width) of the images that programs take, pixels; 0 0: that at which the run evaluated
    size: tuple[int, int] = (0, 0)
    # JSON file of an evaluation of this checkpoint, for the card
    scores: Path | None = None
    # write the torch.export program as well
    program: bool = True
    # write an ONNX file as well, where onnx and onnxscript are installed
    onnx: bool = True


# Before torch is imported, so that --help answers at once.
OPTIONS = read(Options, "export") if __name__ == "__main__" else None

import logging
import sys
import warnings
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from reference.data.settings import LONGEST, require
from reference.evaluation.class_table import class_table, read_evaluation
from reference.networks.output import Segmenter, at_rest, in_words
from reference.networks.release import read_checkpoint, write_release
from reference.networks.tensor_files import require_file
from reference.run.files import durable_file, entries, require_new_folder, write_atomically


class _Plain(nn.Module):
    """Give a tuple, which needs no class of this code where the program is loaded."""

    def __init__(self, network: Segmenter) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits, features = self.network(images)
        return logits, features


def exported(network: Segmenter, size: tuple[int, int]) -> Any:
    """Trace a network on the CPU, in evaluation mode, as a program; its own mode stays.

    The program takes images (B, 3, *size), float in [0, 1], RGB, with any B, and returns logits
    and features.
    """
    # With one example the batch size would be taken for a constant.
    example, any_batch = torch.zeros(2, 3, *size), {"images": {0: torch.export.Dim("batch")}}
    with at_rest(network):
        return torch.export.export(_Plain(network).eval(), (example,), dynamic_shapes=any_batch)


def write_onnx(path: Path, program: Any) -> str:
    """Write a program as ONNX, outputs "logits" and "features"; else say why not in a sentence."""
    if any(find_spec(name) is None for name in _NEEDED):
        hint = "Hint: pip install 'protocontrast[onnx]'."
        return f"No {path.name}: it needs {' and '.join(_NEEDED)}. {hint}"
    # The exporter tells of operators of torchvision, which no network here has.
    logger = logging.getLogger("torch.onnx._internal.exporter")
    level = logger.level
    logger.setLevel(logging.ERROR)
    names: dict[str, Any] = {"input_names": ["images"], "output_names": ["logits", "features"]}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made: Any = torch.onnx.export(program, **names, verbose=False, external_data=False)
            content = made.model_proto.SerializeToString()
    # The exporter wraps whatever went wrong in a class of its own.
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        return f"No {path.name}: ONNX does not allow this network ({reason[-1].strip()})."
    finally:
        logger.setLevel(level)
    write_atomically(path, content)
    return ""


def run_export(options: Options) -> tuple[Path, list[str]]:
    """Write the files; return the card, and a sentence for every file that could not be made."""
    require_new_folder("export", options.out, "choose another one with --out", argument="out")
    ok = not any(options.size) or 1 <= min(options.size) <= max(options.size) <= LONGEST
    require("export", "a size", options.size, f"within 1..{LONGEST}", ok)
    require_file("export", options.checkpoint)
    release, scores = read_checkpoint(options.checkpoint, options.which), None
    if options.scores is not None:
        evaluation, words = read_evaluation(options.scores), in_words(release.trained)
        table = class_table(evaluation, network=words, references=False).as_dict()
        row = table["rows"][0]
        scores = {"header": table["header"], "means": row["means"], "iou": row["iou"]}
    said = release.card
    seen = said.get("input_size", _SIZE)
    height, width = options.size if any(options.size) else seen
    notes: list[str] = []
    programs = []
    if release.method is not None:
        notes.append(
            f"No {_PROGRAM}, no {_ONNX}: {release.method['name']} changes the network at test "
            "time, which programs do not hold. Hint: use the card."
        )
    elif (options.program or options.onnx) and not width:
        notes.append(
            f"No {_PROGRAM}, no {_ONNX}: the run keeps the shape of every image, and programs take "
            f"images of one size. Hint: give it, such as --size {height} {2 * height}."
        )
    elif options.program or options.onnx:
        program = exported(release.network, (height, width))
        if options.program:
            with durable_file(options.out / _PROGRAM, sync=False) as file:
                torch.export.save(program, file)
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
        "programs": programs
        and {
            "files": programs,
            "input": f"float32 (B, 3, {height}, {width}), RGB in [0, 1]; any B, this size alone",
            "outputs": "logits and features; upsample the logits bilinearly to the image's size "
            f"(align_corners {release.network.align_corners})",
        },
    }
    size = (height, width) if seen[1] else seen
    return write_release(options.out, release, input_size=size, facts=facts), notes


def main(options: Options) -> None:
    card, notes = answer(lambda: run_export(options))
    for note in notes:
        print(note, file=sys.stderr)
    names = ", ".join(entries(card.parent))
    print(f"Wrote {names} to {card.parent}")
    print(f"Try: python -m reference.predict FOLDER --weights {card} --out predictions")


if OPTIONS is not None:
    main(OPTIONS)
