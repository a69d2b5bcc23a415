"""Methods of adaptation by name, for ``--method``; each is imported when it is built.

A file is one method; what several share stands in `teachers` and `heads`, and in `dacs`, which most
of them build on. docs/methods.md explains them all.
"""

from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from reference.data.settings import refusal

if TYPE_CHECKING:
    from reference.method import Given, Method
    from reference.networks.output import Segmenter


class Entry(NamedTuple):
    """What a table calls a method, and where its class is, with options of the constructor."""

    label: str
    module: str
    name: str
    options: Mapping[str, Any] = {}
    uses_partners: bool = False  # whether it wants an image by day of every target image

    def kind(self) -> "type[Method]":
        kind: type[Method] = getattr(import_module(self.module), self.name)
        return kind


def _own(label: str, file: str, name: str, partners: bool = False, **options: Any) -> Entry:
    return Entry(label, f"{__name__}.{file}", name, options, partners)


METHODS: Final[Mapping[str, Entry]] = {
    "control": Entry("source only, continued (control)", "reference.method", "Supervised"),
    "bicl": Entry("BiCL", "reference.bicl", "BiCL"),
    "dacs": _own("DACS (mean teacher, class mix)", "dacs", "DACS"),
    "bicl_dacs": _own("BiCL's contrast on DACS", "dacs", "BiCLOnDACS"),
    "spcl": _own("SPCL (source prototypes, both domains)", "spcl", "SPCL"),
    "sepico_proto": _own("SePiCo, prototypes", "sepico", "SePiCo", contrast="proto"),
    "sepico_dist": _own("SePiCo, distributions", "sepico", "SePiCo", contrast="dist"),
    "sepico_bank": _own("SePiCo, bank", "sepico", "SePiCo", contrast="bank"),
    "confeti": _own("CONFETI (prototypes, translated images)", "confeti", "CONFETI"),
    "blda": _own("BLDA (balanced logits)", "blda", "BLDA"),
    "bi_mix": _own("Bi-Mix (day images, relighting, mixing)", "bi_mix", "BiMix", partners=True),
    "proca": _own("ProCA (prototypes of both domains, two levels)", "proca", "ProCA"),
    "proda": _own("ProDA (rectified labels, mean teacher)", "proda", "ProDA"),
    "pipa": _own("PiPa (pixels and patches)", "pipa", "PiPa"),
    "protoseg": _own("ProtoSeg (ten prototypes per class, source alone)", "protoseg", "ProtoSeg"),
}


def entry(name: str) -> Entry:
    if name not in METHODS:
        near = ", ".join(get_close_matches(name, METHODS, cutoff=0.4) or METHODS)
        raise refusal("methods", "the name", repr(name), "of a method", near)
    return METHODS[name]


def build(name: str, given: "Given") -> "Method":
    """Make a method, on the device of the network."""
    chosen = entry(name)
    # The control reads nothing but labels.
    arguments = () if name == "control" else (given,)
    method = chosen.kind()(*arguments, **chosen.options)
    return method.to(next(given.network.parameters()).device)


def at_test(name: str, state: Mapping[str, Any], network: "Segmenter") -> "Segmenter":
    """A trained network as its method uses it; `state` is the method's state dict."""
    from reference.method import Given, Method
    from reference.settings import AdaptationStage

    if entry(name).kind().at_test is Method.at_test:
        return network
    import torch

    classes = network.num_classes
    # Only sizes matter: everything else is in the state.
    given = Given(network, AdaptationStage(), 0, lambda: torch.ones(classes), ("",) * classes)
    method = build(name, given)
    method.load_state_dict(state)
    return method.at_test(network)
