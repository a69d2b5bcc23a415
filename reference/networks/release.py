"""A trained network in files that anyone may open: weights in safetensors and a card in JSON.

The card describes the network, its classes, colours and sizes, so that the two files are enough
to run it and nothing in them is executed. Checkpoints of a run hold a description too and are
read here as well.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError
from safetensors.torch import load, save

from reference.atomic import write_atomically
from reference.data.classes import NAMES, PALETTE
from reference.networks.card import build, describe
from reference.networks.output import Segmenter
from reference.networks.tensor_files import read_stored

FORMAT: Final = 1
CARD: Final = "card.json"
WEIGHTS: Final = "model.safetensors"
_ENTRIES: Final = {
    "format": int,
    "description": dict,
    "weights": str,
    "sha256": str,
    "classes": list,
    "input_size": list,
    "source": str,
}


@dataclass(frozen=True)
class Release:
    """A network that was read from files, in evaluation mode, on the CPU.

    Args:
        network: with its weights.
        card: everything the card says; of a checkpoint, its description and what its run was set
            to: "source" and "input_size".
    """

    network: Segmenter
    card: Mapping[str, Any]


def write_release(
    folder: Path,
    network: Segmenter,
    *,
    input_size: tuple[int, int],
    source: str,
    facts: Mapping[str, Any] | None = None,
) -> Path:
    """Write weights and card, the card last: where it is, both are whole.

    Args:
        folder: made where missing.
        network: on any device.
        input_size: height and width of the images it is to be run at, pixels.
        source: the data set with labels that it was trained on.
        facts: further entries of the card, such as scores; plain values.

    Returns:
        Path: the card.
    """
    state = {
        name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()
    }
    weights = save(state)
    card = {
        "format": FORMAT,
        "description": describe(network),
        "weights": WEIGHTS,
        "sha256": hashlib.sha256(weights).hexdigest(),
        "classes": list(NAMES),
        "palette": [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in PALETTE.tolist()],
        "normalisation": network.colours(),
        "input_size": list(input_size),
        "stride": network.stride,
        "align_corners": network.align_corners,
        "source": source,
        **(facts or {}),
    }
    write_atomically(folder / WEIGHTS, weights)
    write_atomically(folder / CARD, json.dumps(card, indent=2) + "\n")
    return folder / CARD


def _read_card(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"read_release: expected a card {path}, got none.")
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"read_release: expected JSON in {path}, got something else ({error})."
        ) from error
    for name, kind in _ENTRIES.items():
        if not isinstance(card, dict) or not isinstance(card.get(name), kind):
            found = type(card.get(name)).__name__ if isinstance(card, dict) else type(card).__name__
            raise ValueError(
                f'read_release: expected "{name}" of type {kind.__name__} in {path}, got {found}. '
                "Hint: python -m reference.export writes cards."
            )
    if card["format"] != FORMAT:
        raise ValueError(
            f"read_release: expected a card of format {FORMAT}, got {card['format']} in {path}. "
            "Hint: it was written by another version."
        )
    if card["classes"] != list(NAMES):
        raise ValueError(
            f"read_release: expected the {len(NAMES)} classes of Cityscapes in {path}, got "
            f"{len(card['classes'])}, the first {card['classes'][:1]}."
        )
    size = card["input_size"]
    if len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
        raise ValueError(
            f"read_release: expected input_size of a height and a width in {path}, got {size}."
        )
    if Path(card["weights"]).name != card["weights"]:
        raise ValueError(
            f"read_release: expected weights beside {path}, got the path {card['weights']}."
        )
    return card


def _fill(caller: str, network: Segmenter, state: Mapping[str, Any], path: Path) -> Segmenter:
    try:
        network.load_state_dict(state)
    except (RuntimeError, AttributeError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{caller}: expected weights in {path} that fit the description, got others ({reason})."
        ) from error
    return network.eval()


def read_release(path: Path) -> Release:
    """Read a card and the weights beside it.

    Args:
        path: the card.

    Raises:
        ValueError: the card is missing or incomplete, the weights are not those that it was
            written for, or they do not fit the description.
        ImportError: the network needs timm, which cannot be imported.
    """
    card = _read_card(path)
    weights = path.parent / card["weights"]
    if not weights.is_file():
        raise ValueError(f"read_release: expected weights {weights}, got none.")
    content = weights.read_bytes()
    if (found := hashlib.sha256(content).hexdigest()) != card["sha256"]:
        raise ValueError(
            f"read_release: expected {weights} with SHA-256 {card['sha256'][:12]}..., got "
            f"{found[:12]}.... Hint: card and weights are not of one export, or one is damaged."
        )
    try:
        state = load(content)
    except SafetensorError as error:
        raise ValueError(
            f"read_release: expected safetensors in {weights}, got something else ({error})."
        ) from error
    return Release(_fill("read_release", build(card["description"]), state, weights), card)


def read_trained(path: Path, which: str) -> Release:
    """Read a card (``*.json``) with its weights, or one network of a checkpoint (any other name).

    Args:
        path: the file.
        which: of a checkpoint: "student" or "teacher".

    Raises:
        ValueError: as `read_release` and `read_checkpoint` do.
        ImportError: the network needs timm, which cannot be imported.
    """
    return read_release(path) if path.suffix == ".json" else read_checkpoint(path, which)


def read_checkpoint(path: Path, which: str) -> Release:
    """Read one network out of a checkpoint of a run.

    Args:
        path: a file of `torch.save`: a table with "description", of `describe`, and a state dict
            under each name that `which` may take; perhaps with "settings", of the run.
        which: "student" or "teacher".

    Raises:
        ValueError: the file cannot be read without running code, lacks an entry, or its weights
            do not fit its description.
        ImportError: the network needs timm, which cannot be imported.
    """
    held = read_stored(path)
    entries = sorted(map(str, held)) if isinstance(held, Mapping) else [type(held).__name__]
    if not {"description", which} <= set(entries):
        raise ValueError(
            f'read_checkpoint: expected entries "description" and "{which}" in {path}, got '
            f"{', '.join(entries)}."
        )
    network = _fill("read_checkpoint", build(held["description"]), held[which], path)
    facts = {name: held[name] for name in ("iteration",) if name in held}
    if "settings" in held:
        settings = held["settings"]
        facts["source"] = settings["data"]["source_set"]
        facts["input_size"] = list(settings["reporting"]["size"])
    return Release(network, {"description": held["description"], "which": which, **facts})
