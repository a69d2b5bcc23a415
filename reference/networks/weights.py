"""Weights from outside: ImageNet in the naming of torchvision or timm, or old Caffe DeepLab files.

Initial weights decide more than most losses, and a file that does not fit leaves a network that
trains all the same, to half the score. So every tensor is accounted for, and a backbone that is
not wholly filled stops the run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from torch import Tensor

from reference.networks.deeplab import DeepLab
from reference.networks.heads import SumHead
from reference.networks.resnet import ResNet
from reference.networks.tensor_files import read_stored

Naming = Literal["torchvision or timm", "caffe", "own"]

# Around the weights in files of training loops, and in front of names in those of wrappers.
_NESTS: Final = (
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "network",
    "student",
    "teacher",
)
_PREFIXES: Final = (
    "module.", "_orig_mod.", "backbone.", "Scale.", "encoder.", "model.", "body.",
)  # fmt: skip
_COUNTER: Final = "num_batches_tracked"
_OLD_HEAD: Final = re.compile(r"(layer[56])\.conv2d_list\.(\d)\.(weight|bias)")
_TARGET_STEM: Final = re.compile(r"target_(conv1|bn1|layer1)\.")
# What only a file of this library holds: a network keeps its own where the file has none.
_OWN_SETTINGS: Final = ("normalise.", "_extra_state")
_SHOWN: Final = 5


@dataclass(frozen=True)
class WeightReport:
    """What became of every tensor of a file and of a network.

    Args:
        path: the file.
        naming: of its tensors.
        matched: names in the network that were filled.
        missing: names in the network that the file does not hold; they keep their random values.
        unexpected: names in the file that the network has no place for.
        mismatched: (name, shape in the network, shape in the file); these keep random values.
        warnings: settings of the network that do not go with such a file, a sentence each.
    """

    path: Path
    naming: Naming
    matched: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]
    warnings: tuple[str, ...]

    def __str__(self) -> str:
        """Lay out counts, and the first names of what did not match."""
        differing = [f"{name} {there} in the file, {here} here" for name, here, there in
                     self.mismatched]  # fmt: skip
        lines = [
            f"weights {self.path}, named as in {self.naming}",
            f"  matched           {len(self.matched)}",
            f"  missing           {_listed(self.missing)}",
            f"  unexpected        {_listed(self.unexpected)}",
            f"  shape mismatches  {_listed(differing)}",
            *(f"  warning: {sentence}" for sentence in self.warnings),
        ]
        return "\n".join(lines)


def _listed(names: tuple[str, ...] | list[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    rest = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{len(names)}: {shown}{rest}" if names else "0"


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a file by name; nothing in the file is executed.

    Args:
        path: a ``.safetensors`` file, or one that `torch.save` wrote. Tables around the weights,
            such as "state_dict", are opened.

    Raises:
        ValueError: the file is missing, damaged or refused (see `read_stored`), or holds no
            tensors.
    """
    held = read_stored(path)
    while isinstance(held, Mapping):
        tensors = {name: value for name, value in held.items() if isinstance(value, Tensor)}
        if tensors:
            return tensors
        inner = next((held[name] for name in _NESTS if isinstance(held.get(name), Mapping)), None)
        if inner is None:
            break
        held = inner
    table = isinstance(held, Mapping)
    found = f"a table of {', '.join(map(str, held))}" if table else type(held).__name__
    raise ValueError(
        f"read_weights: expected a table of tensors in {path}, or one inside "
        f"{', '.join(_NESTS)}, got {found}."
    )


def _bare(name: str) -> str:
    """Cut every prefix off that wrappers put before a name."""
    while found := next((prefix for prefix in _PREFIXES if name.startswith(prefix)), None):
        name = name.removeprefix(found)
    return name


def _bare_head(bare: str, chosen: str) -> str:
    """Turn ``layer5.conv2d_list.0.weight`` into the name that the sum head has for it."""
    old = _OLD_HEAD.fullmatch(bare)
    if old is None or old[1] != chosen:
        return bare
    return f"head.branches.{old[2]}.{old[3]}"


def _chosen_head(bare: Mapping[str, Tensor], network: DeepLab) -> str:
    """Pick the head on the last feature map: multi-level files keep another on the one before."""
    if not isinstance(network.head, SumHead):
        return "layer5"
    inputs = network.state_dict()["head.branches.0.weight"].shape[1]
    for layer in ("layer5", "layer6"):
        weight = bare.get(f"{layer}.conv2d_list.0.weight")
        if weight is not None and weight.ndim == 4 and weight.shape[1] == inputs:
            return layer
    return "layer5"


def translate(state: Mapping[str, Tensor], network: DeepLab) -> tuple[Naming, dict[str, Tensor]]:
    """Give the tensors of a file the names that they have in a network.

    Args:
        state: of `read_weights`.
        network: the network they are meant for.

    Returns:
        (Naming, dict): how the file names its tensors, and all of its tensors; those without a
        place in the network keep the name that the file gave them. A target stem that the file
        does not hold is the shared one once more.
    """
    bare = {_bare(name): value for name, value in state.items()}
    caffe = any(name.startswith("Scale.") or _OLD_HEAD.search(name) for name in state)
    places = {_bare(name): name for name in network.state_dict()}
    chosen = _chosen_head(bare, network)
    renamed: dict[str, Tensor] = {}
    for name, value in state.items():
        short = _bare_head(_TARGET_STEM.sub(r"target.\1.", _bare(name)), chosen)
        renamed[places.get(short, name)] = value
    for short, name in places.items():
        if short.startswith("target.") and name not in renamed:
            shared = renamed.get(places[short.removeprefix("target.")])
            if shared is not None:
                renamed[name] = shared
    if any(name.startswith(_OWN_SETTINGS) for name in renamed):
        return "own", renamed
    return "caffe" if caffe else "torchvision or timm", renamed


def _warnings(network: DeepLab, naming: Naming) -> tuple[str, ...]:
    if naming == "own":
        return ()
    options = network.options()
    expected = {"normalisation": "imagenet", "stride_in_1x1": False, "ceil_mode": False}
    if naming == "caffe":
        expected = {
            "normalisation": "caffe",
            "align_corners": True,
            "stride_in_1x1": True,
            "ceil_mode": True,
        }
    if not isinstance(network.backbone, ResNet):
        del expected["stride_in_1x1"], expected["ceil_mode"]
    return tuple(
        f"files named as in {naming} usually go with {name}={value!r}, the network has "
        f"{options[name]!r}"
        for name, value in expected.items()
        if options[name] != value
    )


def load_weights(network: DeepLab, path: Path) -> WeightReport:
    """Fill a network from a file of ImageNet or DeepLab weights, and account for every tensor.

    The backbone must be filled whole; a head is filled where the file has a fitting one.

    Args:
        network: changed in place; left as it was where this raises.
        path: a ``.safetensors`` file, or one that `torch.save` wrote.

    Returns:
        WeightReport: print it.

    Raises:
        ValueError: the file is unreadable, or a tensor of the backbone is missing or has another
            shape.
    """
    held = read_weights(path)
    naming, state = translate(held, network)
    own = network.state_dict()
    fits = {name for name in own if name in state and own[name].shape == state[name].shape}
    # Caffe has no counter of batches, and nothing here reads it.
    missing = tuple(
        name
        for name in own
        if name not in state and _COUNTER not in name and not name.startswith(_OWN_SETTINGS)
    )
    mismatched = tuple(
        (name, tuple(own[name].shape), tuple(state[name].shape))
        for name in own
        if name in state and name not in fits
    )
    backbone = [
        name for name in own if name.startswith("backbone.") and not name.endswith(_COUNTER)
    ]
    if unfilled := [name for name in backbone if name not in fits]:
        raise ValueError(
            f"load_weights: expected {path} to fill all {len(backbone)} tensors of the backbone, "
            f"got {len(backbone) - len(unfilled)}; the first unfilled is {unfilled[0]}, and the "
            f"file begins with {next(iter(held))}. Hint: the file belongs to another network; "
            "compare depth and naming."
        )
    network.load_state_dict({name: state[name] for name in fits}, strict=False)
    return WeightReport(
        path=path,
        naming=naming,
        matched=tuple(name for name in own if name in fits),
        missing=missing,
        unexpected=tuple(name for name in state if name not in own),
        mismatched=mismatched,
        warnings=_warnings(network, naming),
    )
