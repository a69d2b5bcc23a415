"""The methods by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from reference.methods.bi_mix import BiMix
from reference.methods.bicl import BiCL
from reference.methods.bicl_dacs import BiCLOnDACS
from reference.methods.blda import BLDA
from reference.methods.confeti import CONFETI
from reference.methods.dacs import DACS
from reference.methods.pipa import PiPa
from reference.methods.proca import ProCA
from reference.methods.proda import ProDA
from reference.methods.protoseg import ProtoSeg
from reference.methods.sepico import SePiCo
from reference.methods.spcl import SPCL
from reference.training.method import Method


class Entry(NamedTuple):
    """What a table calls a method, and how one is made for features of D channels.

    Args:
        label: in tables.
        build: makes one.
        needs_day_images: whether the target has to have a day image of every image.
    """

    label: str
    build: Callable[[int], Method]
    needs_day_images: bool = False


METHODS: Final[Mapping[str, Entry]] = {
    "bicl": Entry("BiCL, published weights", BiCL),
    "dacs": Entry("DACS (mean teacher, class mix)", lambda dim: DACS()),
    "bicl_dacs": Entry("BiCL's contrast on DACS", BiCLOnDACS),
    "spcl": Entry("SPCL (source prototypes, both domains)", SPCL),
    "sepico_proto": Entry("SePiCo, prototypes", lambda dim: SePiCo(dim, "proto")),
    "sepico_dist": Entry("SePiCo, distributions", lambda dim: SePiCo(dim, "dist")),
    "sepico_bank": Entry("SePiCo, bank", lambda dim: SePiCo(dim, "bank")),
    "confeti": Entry("CONFETI (prototypes, translated images)", CONFETI),
    "blda": Entry("BLDA (balanced logits)", lambda dim: BLDA()),
    "bi_mix": Entry("Bi-Mix (day images, relighting, mixing)", lambda dim: BiMix(), True),
    "proca": Entry("ProCA (prototypes of both domains, two levels)", ProCA),
    "proda": Entry("ProDA (rectified labels, mean teacher)", ProDA),
    "pipa": Entry("PiPa (pixels and patches)", PiPa),
    "protoseg": Entry("ProtoSeg (ten prototypes per class, source alone)", ProtoSeg),
}


def build_method(name: str, feature_dim: int) -> Method:
    """Make a method by its name.

    Args:
        name: a key of `METHODS`.
        feature_dim: channels D of the network's features.

    Raises:
        ValueError: no method has this name.
    """
    if name not in METHODS:
        raise ValueError(f"build_method: expected one of {', '.join(METHODS)}, got {name!r}.")
    return METHODS[name].build(feature_dim)
