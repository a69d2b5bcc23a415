"""Weights from outside: ImageNet of torchvision or timm, DeepLab files converted from Caffe.

Initial weights decide more than most losses, and a file that does not fit leaves a network that
trains all the same, to half the score. So the family of a file is read off its tensors and sets
colours, strides and corners; every tensor is accounted for; and a backbone that is not wholly
filled stops the run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from reference.networks.heads import SumHead
from reference.networks.output import Segmenter
from reference.networks.settings import DeepLabOptions
from reference.networks.tensor_files import read_stored

_TORCHVISION: Final[Mapping[str, Any]] = {
    **{"normalisation": "imagenet", "align_corners": False},
    **{"stride_in_1x1": False, "ceil_mode": False},
}
# What the files of a family were trained with. Files of this library bring colours and corners.
FAMILIES: Final[Mapping[str, Mapping[str, Any]]] = {
    "caffe": dict.fromkeys(_TORCHVISION, True) | {"normalisation": "caffe"},
    "torchvision": _TORCHVISION,
    "timm": _TORCHVISION,
    "own": {},
}
# Around the weights in files of training loops, and in front of names in those of wrappers.
_NESTS: Final = (
    "state_dict", "model_state_dict", "model_state", "model", "network", "student", "teacher",
)  # fmt: skip
_PREFIXES: Final = (
    "module.", "_orig_mod.", "backbone.", "Scale.", "encoder.", "model.", "body.",
)  # fmt: skip
_COUNTER: Final = "num_batches_tracked"
_OLD_HEAD: Final = re.compile(r"(layer[56])\.conv2d_list\.(\d)\.(weight|bias)")
_TARGET_STEM: Final = re.compile(r"target_(conv1|bn1|layer1)\.")
# What only a file of this library holds: a network keeps its own where the file has none.
_OWN_SETTINGS: Final = ("normalise.", "_extra_state")
# Blocks of layer3 in bottleneck networks, whose names alone do not tell their depth.
_DEPTHS: Final = {6: "resnet50", 23: "resnet101", 36: "resnet152"}
# Squared spread of what a first filter of unit length gives, if it reads colours of spread 1: about
# 1 (0.1 to 2 in EfficientNet-Lite0). Colours of 0..255 have a spread of about 65, so 4000.
_WIDE_COLOURS: Final = 65.0
_SHOWN: Final = 3


@dataclass(frozen=True)
class WeightReport:
    """What became of every tensor of a file and of a network.

    Args:
        path: the file.
        family: a key of `FAMILIES`; "own" is a file of this library.
        matched: names in the network that were filled.
        missing: names in the network that the file does not hold; they keep their random values.
        unexpected: names in the file that the network has no place for.
        mismatched: (name, shape in the network, shape in the file); these keep random values.
        set_options: options of the network that follow from the family.
    """

    path: Path
    family: str
    matched: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]
    set_options: Mapping[str, Any]

    def __str__(self) -> str:
        """Lay out counts, and the first names of what did not match."""
        differing = [f"{name} {there} in the file, {here} here" for name, here, there in
                     self.mismatched]  # fmt: skip
        options = ", ".join(f"{name} {value}" for name, value in self.set_options.items())
        lines = [
            f"weights {self.path}, family {self.family}" + (f": {options}" if options else ""),
            f"  filled {len(self.matched)}; random {_listed(self.missing)}",
        ]
        if self.unexpected:
            lines.append(f"  not used {_listed(self.unexpected)}")
        if differing:
            lines.append(f"  of another shape, random {_listed(differing)}")
        return "\n".join(lines)


def _listed(names: tuple[str, ...] | list[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    rest = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{len(names)} ({shown}{rest})" if names else "0"


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a file by name; tables around them, such as "state_dict", are opened.

    Raises:
        ValueError: the file is missing, damaged or refused (see `read_stored`), or holds none.
    """
    held = read_stored(path)
    while isinstance(held, Mapping):
        tensors = {str(name): v for name, v in held.items() if isinstance(v, Tensor)}
        if tensors:
            return tensors
        inner = next((held[name] for name in _NESTS if isinstance(held.get(name), Mapping)), None)
        if inner is None:
            break
        held = inner
    table = isinstance(held, Mapping)
    found = f"a table of {', '.join(map(str, list(held)[:5]))}" if table else type(held).__name__
    raise ValueError(
        f"read_weights: expected a table of tensors in {path}, or one inside "
        f"{', '.join(_NESTS)}, got {found}."
    )


def _bare(name: str) -> str:
    """Cut every prefix off that wrappers put before a name."""
    while found := next((prefix for prefix in _PREFIXES if name.startswith(prefix)), None):
        name = name.removeprefix(found)
    return name


def family_of(state: Mapping[str, Tensor]) -> str:
    """Tell from the tensors of a file which family it belongs to, a key of `FAMILIES`.

    torchvision and timm name a resnet alike and train it alike. A file converted from Caffe is
    known by the names of its wrapper or head, else by BatchNorm statistics of wide colours.
    """
    bare = {_bare(name): value for name, value in state.items()}
    if any(name.startswith(_OWN_SETTINGS) for name in bare):
        return "own"
    if any("Scale." in name or _OLD_HEAD.search(name) for name in state):
        return "caffe"
    filters, spread = bare.get("conv1.weight"), bare.get("bn1.running_var")
    if filters is None or spread is None:
        return "timm"
    if len(filters) == len(spread) and filters.ndim > 1:
        ratio = spread.double() / filters.double().flatten(1).square().sum(1)
        if float(ratio.nanmedian()) > _WIDE_COLOURS:
            return "caffe"
    return "torchvision"


def with_conventions(
    options: DeepLabOptions, family: str, path: Path, *, forced: bool
) -> DeepLabOptions:
    """Set colours, strides and corners to those that a family of weights was trained with.

    An option at its default is free, one that was changed is kept; it may contradict the family
    where that is `forced`, named by the user.

    Raises:
        ValueError: a changed option contradicts the file.
    """
    changes: dict[str, Any] = {}
    defaults = {field.name: field.default for field in fields(DeepLabOptions)}
    resnet = options.backbone.startswith("resnet")
    for name, value in FAMILIES[family].items():
        now = getattr(options, name)
        if now == value or (not resnet and name in ("stride_in_1x1", "ceil_mode")):
            continue
        if now == defaults[name]:
            changes[name] = value
        elif not forced:
            raise ValueError(
                f"train: expected {name} {value!r} with {path}, which is of the family {family}, "
                f"got {now!r}. Hint: leave --network.deeplab.{name.replace('_', '-')} out, or "
                "insist on it by naming the family with --network.family."
            )
    return replace(options, **changes)


def _chosen_head(bare: Mapping[str, Tensor], network: Segmenter) -> str:
    """Pick the head on the last feature map: multi-level files keep another on the one before."""
    if isinstance(getattr(network, "head", None), SumHead):
        inputs = network.state_dict()["head.branches.0.weight"].shape[1]
        for layer in ("layer5", "layer6"):
            weight = bare.get(f"{layer}.conv2d_list.0.weight")
            if weight is not None and weight.ndim == 4 and weight.shape[1] == inputs:
                return layer
    return "layer5"


def translate(state: Mapping[str, Tensor], network: Segmenter) -> dict[str, Tensor]:
    """Give the tensors of a file the names that they have in a DeepLab, where they have a place.

    A target stem that the file does not hold is the shared one once more.
    """
    bare = {_bare(name): value for name, value in state.items()}
    places = {_bare(name): name for name in network.state_dict()}
    chosen = _chosen_head(bare, network)
    renamed: dict[str, Tensor] = {}
    for name, value in state.items():
        short = _TARGET_STEM.sub(r"target.\1.", _bare(name))
        if (old := _OLD_HEAD.fullmatch(short)) and old[1] == chosen:
            short = f"head.branches.{old[2]}.{old[3]}"
        renamed[places.get(short, name)] = value
    for short, name in places.items():
        if short.startswith("target.") and name not in renamed:
            shared = renamed.get(places[short.removeprefix("target.")])
            if shared is not None:
                renamed[name] = shared
    return renamed


def _other_network(state: Mapping[str, Tensor]) -> str:
    """Say what a file that does not fill the backbone seems to be."""
    blocks = {name.split("layer3.")[1].split(".")[0] for name in state if "layer3." in name}
    if any(".layer3." in name or name.startswith("layer3.") for name in state):
        depth = _DEPTHS.get(len(blocks), f"a resnet with {len(blocks)} blocks in layer3")
        return f"by its names the file is of {depth}"
    names = ", ".join(list(state)[:2])
    return f"the file belongs to another network, or holds a head alone; it begins with {names}"


def fill_backbone(
    network: Segmenter, state: Mapping[str, Tensor], path: Path, *, family: str
) -> WeightReport:
    """Fill a network from tensors that carry its own names, and account for every one.

    The backbone must be filled whole, a head is filled where it fits.

    Raises:
        ValueError: a tensor of the backbone is missing or has another shape, or a number is not
            finite; the network is as it was.
    """
    own = network.state_dict()
    fits = {name for name in own if name in state and own[name].shape == state[name].shape}
    # Caffe has no counter of batches, and nothing here reads it.
    backbone = [n for n in own if n.startswith("backbone.") and not n.endswith(_COUNTER)]
    if unfilled := [name for name in backbone if name not in fits]:
        raise ValueError(
            f"load_weights: expected {path} to fill all {len(backbone)} tensors of the backbone, "
            f"got {len(backbone) - len(unfilled)}; the first unfilled is {unfilled[0]}. "
            f"Hint: {_other_network(state)}."
        )
    require_finite("load_weights", {name: state[name] for name in fits}, path)
    network.load_state_dict({name: state[name] for name in fits}, strict=False)
    return WeightReport(
        path=path,
        family=family,
        matched=tuple(name for name in own if name in fits),
        missing=tuple(
            name
            for name in own
            if name not in state and _COUNTER not in name and not name.startswith(_OWN_SETTINGS)
        ),
        unexpected=tuple(name for name in state if name not in own),
        mismatched=tuple(
            (name, tuple(own[name].shape), tuple(state[name].shape))
            for name in own
            if name in state and name not in fits
        ),
        set_options={},
    )


def require_finite(caller: str, state: Mapping[str, Any], path: Path) -> None:
    """Refuse weights with NaN or infinity in a sentence that names the first such tensor."""
    for name, value in state.items():
        if isinstance(value, Tensor) and not bool(torch.isfinite(value).all()):
            raise ValueError(
                f"{caller}: expected finite weights in {path}, got NaN or infinity in {name}. "
                "Hint: the run that wrote the file has diverged; take an earlier checkpoint."
            )
