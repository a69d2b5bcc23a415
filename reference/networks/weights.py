"""Weights from outside: ImageNet of torchvision or timm, DeepLab files converted from Caffe.

Initial weights decide more than most losses, and a file that does not fit leaves a network that
trains all the same, to half the score. So the family of a file is read off its tensors and sets
colours, strides and corners; every tensor is accounted for; and a backbone that is not wholly
filled stops the run.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from reference.data.settings import refusal, require
from reference.networks.output import Segmenter
from reference.networks.settings import DeepLabOptions
from reference.networks.tensor_files import read_stored, require_file

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
_LAYER3: Final = re.compile(r"(?:^|\.)layer3\.(\d+)\.")
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

    `matched` were filled; `missing`, and `mismatched` with both shapes, the network's first, keep
    their random values; `unexpected` have no place. Options of the network follow from the family.
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
        options = ", ".join(f"{name} {value}" for name, value in self.set_options.items())
        lines = [
            f"weights {self.path}, family {self.family}" + (f": {options}" if options else ""),
            f"  filled {len(self.matched)}; random {_listed(self.missing)}",
        ]
        if self.unexpected:
            lines.append(f"  not used {_listed(self.unexpected)}")
        if self.mismatched:
            shapes = [
                f"{name} {file} in the file, {own} here" for name, own, file in self.mismatched
            ]
            lines.append(f"  of another shape, random {_listed(shapes)}")
        return "\n".join(lines)


def _listed(names: Sequence[str]) -> str:
    rest = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{len(names)} ({', '.join(names[:_SHOWN])}{rest})" if names else "0"


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a file by name; tables around them, such as "state_dict", are opened."""
    require_file("train", path)
    held = read_stored(path)
    while isinstance(held, Mapping):
        if tensors := {str(name): v for name, v in held.items() if isinstance(v, Tensor)}:
            return tensors
        nested = [held[name] for name in _NESTS if isinstance(held.get(name), Mapping)]
        if not nested:
            break
        held = nested[0]
    table = isinstance(held, Mapping)
    got = f"a table of {', '.join(map(str, list(held)[:5]))}" if table else type(held).__name__
    wanted = f"in {path}, or one inside {', '.join(_NESTS)}"
    raise refusal("read_weights", "a table of tensors", got, wanted)


def _bare(name: str) -> str:
    """Cut every prefix off that wrappers put before a name."""
    while prefix := next((each for each in _PREFIXES if name.startswith(each)), None):
        name = name.removeprefix(prefix)
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
            wanted, flag = f"with {path}, which is of the family {family}", name.replace("_", "-")
            hint = f"leave --network.deeplab.{flag} out, or insist on it by naming the family with "
            hint += "--network.family"
            raise refusal("train", f"{name} {value!r}", repr(now), wanted, hint)
    return replace(options, **changes)


def _chosen_head(bare: Mapping[str, Tensor], network: Segmenter) -> str:
    """Pick the head on the last feature map: multi-level files keep another on the one before."""
    own = network.state_dict().get("head.branches.0.weight")
    for layer in ("layer5", "layer6"):
        weight = bare.get(f"{layer}.conv2d_list.0.weight")
        if own is not None and weight is not None and weight.shape[1:] == own.shape[1:]:
            return layer
    return "layer5"


def translate(state: Mapping[str, Tensor], network: Segmenter) -> dict[str, Tensor]:
    """Give the tensors of a file the names that they have in a DeepLab, where they have a place.

    A target stem that the file does not hold is the shared one once more.
    """
    places = {_bare(name): name for name in network.state_dict()}
    chosen = _chosen_head({_bare(name): value for name, value in state.items()}, network)
    renamed: dict[str, Tensor] = {}
    for name, value in state.items():
        short = _TARGET_STEM.sub(r"target.\1.", _bare(name))
        if (old := _OLD_HEAD.fullmatch(short)) and old[1] == chosen:
            short = f"head.branches.{old[2]}.{old[3]}"
        renamed[places.get(short, name)] = value
    for short, name in places.items():
        if short.startswith("target.") and name not in renamed:
            shared = places[short.removeprefix("target.")]
            renamed |= {name: renamed[shared]} if shared in renamed else {}
    return renamed


def _other_network(state: Mapping[str, Tensor]) -> str:
    """Say what a file that does not fill the backbone seems to be."""
    if blocks := {found[1] for name in state if (found := _LAYER3.search(name))}:
        depth = _DEPTHS.get(len(blocks), f"a resnet with {len(blocks)} blocks in layer3")
        return f"by its names the file is of {depth}"
    names = ", ".join(list(state)[:2])
    return f"the file belongs to another network, or holds a head alone; it begins with {names}"


def fill_backbone(
    network: Segmenter, state: Mapping[str, Tensor], path: Path, *, family: str
) -> WeightReport:
    """Fill a network from tensors that carry its own names, and account for every one.

    The backbone must be filled whole and with finite numbers, else the network stays as it was; a
    head is filled where it fits.
    """
    own = network.state_dict()
    shapes = {n: (tuple(own[n].shape), tuple(state[n].shape)) for n in own if n in state}
    fits = {name: state[name] for name, (here, there) in shapes.items() if here == there}
    # Caffe has no counter of batches, and nothing here reads it.
    backbone = [n for n in own if n.startswith("backbone.") and not n.endswith(_COUNTER)]
    unfilled = [name for name in backbone if name not in fits]
    got = f"{len(backbone) - len(unfilled)}; the first unfilled is {''.join(unfilled[:1])}"
    wanted = f"to fill all {len(backbone)} tensors of the backbone"
    require("load_weights", str(path), got, wanted, not unfilled, _other_network(state))
    require_finite("load_weights", fits, path)
    network.load_state_dict(fits, strict=False)
    absent = (name for name in own if name not in state and _COUNTER not in name)
    missing = tuple(name for name in absent if not name.startswith(_OWN_SETTINGS))
    unexpected = tuple(name for name in state if name not in own)
    mismatched = tuple((n, *both) for n, both in shapes.items() if n not in fits)
    return WeightReport(path, family, tuple(fits), missing, unexpected, mismatched, {})


def require_finite(caller: str, state: Mapping[str, Any], path: Path) -> None:
    """Refuse weights with NaN or infinity in a sentence that names the first such tensor."""
    hint = "the run that wrote the file has diverged; take an earlier checkpoint"
    for name, value in state.items():
        ok = not isinstance(value, Tensor) or bool(torch.isfinite(value).all())
        require(caller, "finite weights", f"NaN or infinity in {name}", f"in {path}", ok, hint)
