"""What the commands share that use a trained network; torch is imported after the command line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeVar

if TYPE_CHECKING:
    from reference.evaluation.protocol import Protocol
    from reference.networks.release import Release

T = TypeVar("T")

INTERRUPTED: Final = 130
# That of published tables.
_SIZE: Final = (512, 1024)


@dataclass(frozen=True, kw_only=True)
class Use:
    """How a trained network is used; a comment above a field is its help."""

    # the card of a trained network, whose weights lie beside it, or a checkpoint of a run
    weights: Path
    # folder for the results; must be new or empty
    out: Path
    # of a checkpoint: the trained network, or its moving average
    which: Literal["student", "teacher"] = "student"
    # (height, width) at which the network sees the images, pixels; 0 0: as its file says
    size: tuple[int, int] = (0, 0)
    # name of the labelled set that it was trained on, such as gta5, where its file does not say it
    source: str = ""
    # times the size; several are averaged. Published single-scale rows use 1
    scales: tuple[float, ...] = (1.0,)
    # average with the mirrored image
    flip: bool = False
    # (height, width) of a window that slides over the scaled image, pixels; 0 0: see it as a whole
    window: tuple[int, int] = (0, 0)
    # (down, right) steps of the window, pixels; 0 0: two thirds of it
    stride: tuple[int, int] = (0, 0)
    # auto takes a GPU where there is one
    device: Literal["auto", "cpu", "cuda"] = "auto"
    # of torch, on the CPU
    threads: int = 2


def read_for_use(caller: str, use: Use) -> tuple[Release, Protocol]:
    """Check the settings and read the network, on the device where it is to work."""
    from reference.run.files import require_new_folder, writing

    hint = "Hint: choose another one with --out."
    require_new_folder(caller, use.out, hint, argument="out")
    if use.threads < 1:
        raise ValueError(f"{caller}: expected threads of at least 1, got {use.threads}.")

    import torch

    from reference.evaluation.protocol import Protocol
    from reference.networks.release import read_trained, renamed_source
    from reference.networks.tensor_files import require_file

    if use.device == "cuda" and not torch.cuda.is_available():
        raise ValueError(f'{caller}: expected a GPU for device "cuda", got none.')
    require_file(caller, use.weights)
    release = read_trained(use.weights, use.which)
    if use.source:
        release = renamed_source(release, use.source)
    height, width = use.size if any(use.size) else release.card.get("input_size", _SIZE)
    window, stride = (pair if any(pair) else None for pair in (use.window, use.stride))
    protocol = Protocol(
        release.classes, (height, width), labelled=release.labelled,
        source=release.card.get("source", ""), scales=use.scales, flip=use.flip,
        window=window, stride=stride,
    )  # fmt: skip
    # Before hours of work, not after them.
    with writing(use.out):
        use.out.mkdir(parents=True, exist_ok=True)
    gpu = use.device != "cpu" and torch.cuda.is_available()
    network = release.network.to("cuda" if gpu else "cpu").eval()
    return replace(release, network=network), protocol


def answer(work: Callable[[], T], stopped: str = "Stopped.") -> T:
    """Do the work of a command; a wrong input, or Ctrl-C, ends it with one sentence."""
    try:
        return work()
    except (ValueError, ImportError, FloatingPointError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        print(stopped, file=sys.stderr)
        sys.exit(INTERRUPTED)
