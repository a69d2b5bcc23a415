"""A network described in JSON, and the network that a description stands for.

A description holds structure only: with the state dict of the same network it is everything that
a checkpoint or a released file needs, and no code or pickle has to be trusted to read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from inspect import signature
from typing import Any, Final

from reference.networks.deeplab import DeepLab, DeepLabOptions, seeded
from reference.networks.output import Segmenter
from reference.networks.toy import SegmentationNetwork

_KINDS: Final[Mapping[str, type[Segmenter]]] = {"toy": SegmentationNetwork, "deeplab": DeepLab}
_OPTIONS: Final = {
    "toy": tuple(signature(SegmentationNetwork).parameters),
    "deeplab": tuple(field.name for field in fields(DeepLabOptions)),
}


def _built(kind: str, options: Mapping[str, Any]) -> Segmenter:
    return DeepLab(DeepLabOptions(**options)) if kind == "deeplab" else _KINDS[kind](**options)


def describe(network: Segmenter) -> dict[str, Any]:
    """Say in JSON what a network is built of.

    Args:
        network: `SegmentationNetwork` or `DeepLab`.

    Returns:
        dict: "network", its kind, and "options"; `build` reads it back.

    Raises:
        TypeError: a network of another class.

    Example:
        >>> describe(SegmentationNetwork(feature_dim=32))["options"]["feature_dim"]
        32
    """
    for name, kind in _KINDS.items():
        if type(network) is kind:
            return {"network": name, "options": network.options()}
    known = " or ".join(kind.__name__ for kind in _KINDS.values())
    raise TypeError(f"describe: expected network to be {known}, got {type(network).__name__}.")


def in_words(network: Segmenter) -> str:
    """Name what a score depends on, for the line above a table.

    Args:
        network: `SegmentationNetwork` or `DeepLab`.

    Returns:
        str: kind, and of a DeepLab backbone, head and place of the features: two heads go by the
        name DeepLab-V2.

    Example:
        >>> in_words(SegmentationNetwork())
        'toy network, 64 features'
    """
    description = describe(network)
    if description["network"] == "toy":
        return f"toy network, {network.feature_dim} features"
    options = description["options"]
    branches = f" of {options['aspp_branches']} branches" if options["head"] == "dlv2" else ""
    return (
        f"DeepLab, backbone {options['backbone']}, head {options['head']}{branches}, "
        f"{network.feature_dim} features ({options['features']}), "
        f"colours {network.colours()['kind']}"
    )


def build(description: Mapping[str, Any], *, seed: int = 0) -> Segmenter:
    """Build the network that a description stands for.

    Args:
        description: of `describe`.
        seed: of the random weights it starts with; torch's own random state is left as it was.

    Returns:
        Segmenter: on the CPU, in training mode.

    Raises:
        ValueError: the description lacks an entry, names an unknown kind or option, or has values
            that do not fit.
        ImportError: it needs timm, which cannot be imported.
    """
    kind, options = description.get("network"), description.get("options")
    if not isinstance(kind, str) or kind not in _KINDS or not isinstance(options, Mapping):
        raise ValueError(
            f'build: expected a description with "network" of {" or ".join(_KINDS)} and a table '
            f"of options, got network {kind!r} and options {type(options).__name__}. "
            "Hint: describe(network) writes one."
        )
    if unknown := sorted(set(options) - set(_OPTIONS[kind])):
        raise ValueError(
            f"build: expected options among {', '.join(_OPTIONS[kind])}, got {unknown[0]}. "
            "Hint: the description was written by another version."
        )
    try:
        return seeded(lambda: _built(kind, options), seed)
    except (TypeError, RuntimeError) as error:
        raise ValueError(
            f"build: expected options of types that fit, got {dict(options)} ({error}). "
            "Hint: describe(network) writes them."
        ) from error
