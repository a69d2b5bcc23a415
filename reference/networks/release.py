"""A trained network in files that anyone may open: weights in safetensors and a card in JSON.

The card describes the network, its classes, colours and sizes, so that the two files are enough
to run it and nothing in them is executed. Checkpoints of a run are read here as well. A method that
changes the network at test time is named in both, and its state stands beside the weights.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from reference.data.classes import CITYSCAPES, ClassList
from reference.data.settings import refusal, require
from reference.networks.output import Segmenter, build, describe
from reference.networks.tensor_files import read_stored
from reference.networks.weights import require_finite
from reference.run.files import write_atomically, write_json
from reference.run.folder import as_plain, from_plain

_FORMAT: Final = 1
_CARD: Final = "card.json"
_WEIGHTS: Final = "model.safetensors"
_METHOD: Final = "method."
# Entries of a class list beside names and colours.
_LISTED: Final = ("means", "ids", "label_colours", "void")
_ENTRIES: Final = {
    **{"format": int, "description": dict, "weights": str, "sha256": str, "classes": list},
    **{"palette": list, "input_size": list, "source": str},
}


def class_list(held: Mapping[str, Any]) -> ClassList:
    """Read a class list back from what `as_plain` gives; "names" and "colours" are required."""
    names = tuple(held["names"])
    every = {f"miou{len(names)}": tuple(range(len(names)))}
    means = CITYSCAPES.means if names == CITYSCAPES.names else every
    given = {name: value for name, value in held.items() if value}
    given["colours"] = [(int(r), int(g), int(b)) for r, g, b in held["colours"]]
    return from_plain(ClassList, {"name": "own", "means": means} | given)


@dataclass(frozen=True)
class Release:
    """A network that was read from files, in evaluation mode, on the CPU."""

    network: Segmenter  # as its method uses it at test time
    card: Mapping[str, Any]  # everything the card says; of a checkpoint, what its run was set to
    classes: ClassList  # of its outputs
    labelled: tuple[int, ...] | None  # classes that its source labels; None for all
    trained: Segmenter  # the network as it was trained
    # "name" and "state" of a method that changes it at test time; None without
    method: Mapping[str, Any] | None = None


def _assembled(
    card: Mapping[str, Any], state: Mapping[str, Any], path: Path, method: Mapping[str, Any] | None
) -> Release:
    """Put network, weights and method together; weights that do not fit are refused."""
    network = build(card["description"])
    try:
        network.load_state_dict(state)
    except (RuntimeError, AttributeError, TypeError) as error:
        # The first line says nothing, and the list that follows may name every tensor.
        reason = " ".join(str(error).split("\n", 1)[-1].split())[:120]
        wanted, hint = f"in {path} that fit the description", "the file is of another network or "
        got = f"others ({reason} ...)"
        raise refusal("read_trained", "weights", got, wanted, f"{hint}another version") from error
    require_finite("read_trained", state, path)
    classes = CITYSCAPES if card["classes"] is None else class_list(card["classes"])
    count, outputs = len(classes), network.num_classes
    got = f"{count} classes and {outputs} outputs"
    require("read_trained", "one class", got, f"per output in {path}", count == outputs)
    labelled = card.get("labelled") or None
    if not labelled and card.get("source") == "synthia" and classes.names == CITYSCAPES.names:
        # It has no terrain, truck and train.
        labelled = CITYSCAPES.means["miou16"]
    changed = network.eval()
    if method is not None and method["name"] not in (None, "bicl"):
        from reference.methods import at_test

        changed = at_test(method["name"], method["state"], network).eval()
    return Release(
        changed, card, classes, None if labelled is None else tuple(map(int, labelled)),
        network, None if changed is network else method,
    )  # fmt: skip


def write_release(
    folder: Path, release: Release, *, input_size: tuple[int, int],
    facts: Mapping[str, Any] | None = None,
) -> Path:  # fmt: skip
    """Write weights and card, the card last: where it is, both are whole; return the card.

    It is to be run at images of `input_size`, as in `whole_size`; `facts` are further entries of
    the card, such as scores.
    """
    network, classes, method = release.trained, release.classes, release.method
    tensors = dict(network.state_dict())
    if method is not None:
        tensors |= {f"{_METHOD}{name}": value for name, value in method["state"].items()}
    if others := [name for name, value in tensors.items() if not isinstance(value, Tensor)]:
        got, wanted = f"{others[0]} of {method and method['name']}", "whose state is tensors alone"
        hint = "predict and score read the checkpoint itself"
        raise refusal("export", "a method", got, wanted, hint)
    # Tensors that share memory, or are channels-last, would be refused.
    weights = save({n: v.detach().cpu().contiguous().clone() for n, v in tensors.items()})
    card = {
        "format": _FORMAT,
        "description": describe(network),
        "method": None if method is None else method["name"],
        "weights": _WEIGHTS,
        "sha256": hashlib.sha256(weights).hexdigest(),
        "classes": list(classes.names),
        "palette": [f"#{bytes(colour).hex()}" for colour in classes.colours],
        **{name: as_plain(classes)[name] for name in _LISTED},
        "labelled": None if release.labelled is None else list(release.labelled),
        "normalisation": network.normalise.describe(),
        "input_size": list(input_size),
        "stride": network.stride,
        "align_corners": network.align_corners,
        "source": release.card.get("source", ""),
        **(facts or {}),
    }
    write_atomically(folder / _WEIGHTS, weights)
    write_json(folder / _CARD, card)
    return folder / _CARD


def _refuse(path: Path, wanted: str, got: object) -> ValueError:
    return ValueError(
        f"read_release: expected {wanted} in {path}, got {got}. "
        "Hint: python -m reference.export writes cards."
    )


def _read_card(path: Path) -> dict[str, Any]:
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"no JSON ({error})"
        raise _refuse(path, "a card", reason) from error
    for name, kind in _ENTRIES.items():
        value = card.get(name) if isinstance(card, dict) else card
        if not isinstance(value, kind) or not isinstance(card, dict):
            raise _refuse(path, f'"{name}" of type {kind.__name__}', type(value).__name__)
    size = card["input_size"]
    whole = len(size) == 2 and all(isinstance(side, int) and side >= 0 for side in size)
    if not (whole and size[0]):
        raise _refuse(path, "input_size of a height and a width, or a short side and 0", size)
    if card["format"] != _FORMAT:
        raise _refuse(path, f"format {_FORMAT}", f"{card['format']}, of another version")
    # A path could lead anywhere.
    name = card["weights"]
    if Path(name).name != name or not (path.parent / name).is_file():
        raise _refuse(path, f"the name of weights beside it, such as {_WEIGHTS}", card["weights"])
    try:
        colours = [tuple(bytes.fromhex(text[1:])) for text in card["palette"]]
        listed = {"names": card["classes"], "colours": colours}
        listed |= {name: card.get(name) for name in _LISTED}
        card["classes"] = as_plain(class_list(listed))
    except (TypeError, ValueError, AttributeError) as error:
        raise _refuse(path, "classes with a palette and means", type(error).__name__) from error
    return card


def read_release(path: Path) -> Release:
    """Read a card and the weights beside it."""
    card = _read_card(path)
    weights = path.parent / card["weights"]
    content = weights.read_bytes()
    digest, wanted = hashlib.sha256(content).hexdigest(), f"with SHA-256 {card['sha256'][:12]}..."
    ok, hint = digest == card["sha256"], "card and weights are not of one export, or one is damaged"
    require("read_release", str(weights), f"{digest[:12]}...", wanted, ok, hint)
    try:
        tensors = load(content)
    except SafetensorError as error:
        raise _refuse(weights, "safetensors", f"something else ({error})") from error
    own = {n[len(_METHOD) :]: tensors.pop(n) for n in list(tensors) if n.startswith(_METHOD)}
    method = {"name": card["method"], "state": own} if card.get("method") else None
    return _assembled(card, tensors, weights, method)


def read_trained(path: Path, which: str) -> Release:
    """Read a card (``*.json``) with its weights, or one network of a checkpoint (other names)."""
    return read_release(path) if path.suffix == ".json" else read_checkpoint(path, which)


def read_checkpoint(path: Path, which: str, *, plain: bool = False) -> Release:
    """Read one network, "student" or "teacher", out of a checkpoint of a run.

    `plain` leaves it as it was trained, whatever its method makes of it at test time.
    """
    held = read_stored(path)
    if not isinstance(held, Mapping) or not {"description", which} <= set(held):
        raise ValueError(
            f'read_checkpoint: expected a checkpoint with "description" and "{which}" in {path}, '
            f"got {_no_checkpoint(held, which)}"
        )
    said = ("description", "iteration", "labelled", "settings", "classes")
    card: dict[str, Any] = {"classes": None, "which": which}
    card |= {name: held[name] for name in said if name in held}
    if settings := held.get("settings"):
        card["data"] = settings["data"]
        card["source"] = settings["data"]["source_set"]
        card["input_size"] = list(settings["reporting"]["size"])
    return _assembled(card, held[which], path, None if plain else held.get("method"))


def _no_checkpoint(held: Any, which: str) -> str:
    if not isinstance(held, Mapping):
        return f"{type(held).__name__}."
    names = list(map(str, held))
    if "state_dict" in held or any(isinstance(value, Tensor) for value in held.values()):
        return (
            f"weights alone ({len(names)} entries, the first {names[0]}). Hint: a file of weights "
            "is what training begins with (--network.weights); here a checkpoint of a run or a "
            "card is needed."
        )
    if which == "teacher" and {"description", "student"} <= set(held):
        return "a run without a moving average. Hint: use --which student."
    return f"{', '.join(sorted(names)[:6]) or 'an empty table'}."
