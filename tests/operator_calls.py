"""Every operator as calls of its public function: drawn in any form, or plain."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from hypothesis import strategies as st
from torch import Tensor

from protocontrast import (
    bidirectional_contrast,
    class_prototypes,
    distribution_contrast,
    pair_contrast,
    pixel_prototype_contrast,
    prototype_logits,
    upsampled_cross_entropy,
)
from tests import pair_cases, upsampled_cases
from tests.agreement import assert_agrees, contrast_scales, similarity_scales
from tests.strategies import (
    NAN,
    ContrastCase,
    contrast_cases,
    feature_shapes,
    label_map,
    normal,
    pixel_mass,
    rows_of,
)

SIMILARITIES = ("cosine", "dot", "euclidean")
SHAPE = (2, 7, 3, 5)


class Call(NamedTuple):
    """A public function, its arguments but for the backend, and what holds it to `naive`."""

    function: Callable[..., Any]
    given: dict[str, Any]
    leaves: tuple[str, ...]
    """What can have a gradient, the first of them always."""
    scales: Callable[[int], dict[str, float]]
    """Sizes of the terms of the value and the gradients, by the seed of the upstream gradient."""

    def assert_agrees(
        self, backend: str, wanted: tuple[str, ...] | None = None, seed: int = 1
    ) -> None:
        """AssertionError unless the value and the gradients of what is wanted are naive's."""
        assert_agrees(
            self.function, self.given, wanted or self.leaves, scales=self.scales(seed),
            upstream_seed=seed, backend=backend,
        )  # fmt: skip

    def result(self, backend: str, **changes: Any) -> Tensor:
        """The loss, the logits or the means."""
        found = self.function(**{**self.given, **changes, "backend": backend})
        return found if isinstance(found, Tensor) else found[0]

    def fresh(self) -> dict[str, Tensor]:
        """Leaves with the memory of what is given."""
        return {name: self.given[name].detach().requires_grad_() for name in self.leaves}


def contrast(case: ContrastCase) -> Call:
    given = {**case.tensors(), **case.settings}

    def scales(seed: int) -> dict[str, float]:
        return contrast_scales(given, case.settings, seed)

    return Call(pixel_prototype_contrast, given, ("features", "prototypes"), scales)


def smoothed(case: ContrastCase) -> Call:
    """What weighs nothing may count, smoothed: a NaN there is met, and a mean has no bound."""
    weight = None if case.reduction == "mean" else case.class_weight
    call = contrast(case._replace(spoilt=None, class_weight=weight))
    given = {**call.given, "label_smoothing": (0.1, 0.9)[case.seed % 2]}
    counted = {**call.given, "class_weight": None}
    return call._replace(
        given=given, scales=lambda seed: contrast_scales(counted, case.settings, seed)
    )


SIDES = ("source", "target")


def both_ways(case: ContrastCase, finer: bool = False, **settings: Any) -> Call:
    """Two domains of features of one form; labels of maps may be finer than these."""
    given: dict[str, Any] = {"num_classes": case.num_classes, "pairwise": False, **settings}
    given |= {name: case.settings[name] for name in ("temperature", "absent", "ignore_index")}
    shortest = 1.0
    for offset, side in enumerate(SIDES):
        seed = case.seed + 50 * offset
        drawn = case._replace(seed=seed, presence="all", class_weight=None, pixel_weight=None)
        tensors = drawn.tensors()
        features, labels = tensors["features"], tensors["labels"]
        lengths = rows_of(features).double().norm(dim=1).nan_to_num(posinf=0.0)
        shortest = min([shortest, *lengths[lengths > 0].tolist()])
        if finer:
            size = (2 * side + 1 for side in labels.shape[1:])
            shape = labels.shape[0], *size
            labels = label_map(seed, shape, case.num_classes, case.label_kind, *case.label_dtype)
        given |= {f"{side}_features": features, f"{side}_labels": labels}
    # Class means of few pixels may be shorter still, which magnifies rounding in their gradient.
    leaves = tuple(f"{side}_features" for side in SIDES)
    scales = dict.fromkeys(leaves, 500 / case.temperature / shortest)
    scales |= {"value": 10 + 4 / case.temperature}
    return Call(bidirectional_contrast, given, leaves, lambda seed: scales)


def logits(case: ContrastCase) -> Call:
    everything = {**case.tensors(), **case.settings}
    names = ("features", "prototypes", "present", "similarity", "temperature")
    given = {name: everything[name] for name in names}

    def scales(seed: int) -> dict[str, float]:
        # Upstream gradients are standard normal: four times their number bounds a pixel's sum.
        slope = torch.full((len(rows_of(given["features"])),), 4.0 * case.num_classes)
        return similarity_scales(given, slope, case.similarity, case.temperature)

    return Call(prototype_logits, given, ("features", "prototypes"), scales)


def class_means(
    case: ContrastCase, normalize: bool = False, per_image: bool = False, more: int = 0
) -> Call:
    """Some classes more than the labels have."""
    tensors = case.tensors()
    given = {
        **{name: tensors[name] for name in ("features", "labels", "pixel_weight")},
        "num_classes": case.num_classes + more,
        "ignore_index": case.label_dtype[1],
        "normalize": normalize,
        "per_image": per_image,
    }

    def scales(seed: int) -> dict[str, float]:
        # The longest feature, and one over the smallest length and count.
        lengths = rows_of(given["features"]).double().norm(dim=1)
        weight = given["pixel_weight"]
        smallest = 1.0
        if weight is not None and (weight > 0).any():
            smallest = float(weight[weight > 0].min())
        lengths = lengths[lengths > 0]
        if not lengths.numel():
            return {"value": 1.0, "features": 1.0}
        reach = 1 / float(lengths.min()) if normalize else 1.0
        return {"value": max(1.0, float(lengths.max())), "features": 10 * reach / smallest}

    return Call(class_prototypes, given, ("features",), scales)


def distribution(case: ContrastCase, normalize: bool = True) -> Call:
    """The case's tensors with a variance beside its prototypes, NaN where a class is absent."""
    tensors = case.tensors()
    prototypes, present = tensors["prototypes"], tensors["present"]
    variance = normal(case.seed + 9, tuple(prototypes.shape), prototypes.dtype).square()
    if present is not None:
        variance = torch.where(present[:, None], variance, NAN)
    settings = {**case.settings, "normalize": normalize}
    del settings["similarity"], settings["absent"]
    given = {**tensors, "variance": variance, **settings}

    def scales(seed: int) -> dict[str, float]:
        return _distribution_scales(case, given, seed)

    leaves = ("features", "prototypes", "variance")
    return Call(distribution_contrast, given, leaves, scales)


def _distribution_scales(case: ContrastCase, call: dict[str, Any], seed: int) -> dict[str, float]:
    """A gradient carries the rounding of the softmax under it."""
    mass = pixel_mass(call, case.settings).flatten()
    reduction, temperature = call["reduction"], call["temperature"]
    shape = tuple(call["labels"].shape)
    if call["labels"].is_floating_point():
        shape = shape[:1] + shape[2:]
    upstream = normal(seed, shape if reduction == "none" else ()).abs().flatten()
    weight = float(mass.max() if reduction == "none" else mass.sum()) if mass.numel() else 0.0
    if reduction == "mean":
        mass = mass / max(float(mass.sum()), 1e-30)
        weight = min(weight, 1.0)
    kept = mass != 0
    lengths = rows_of(call["features"]).double().norm(dim=1)[kept]
    if not lengths.numel():
        return {"value": 1.0, "features": 0.0, "prototypes": 0.0, "variance": 0.0}
    slope = (2 * mass * upstream)[kept]
    here = call["present"] if call["present"] is not None else slice(None)
    means = call["prototypes"].double()[here].norm(dim=1)
    furthest = float(means.max()) if means.numel() else 0.0
    widest = float(call["variance"].double()[here].max()) if means.numel() else 0.0
    reach = torch.ones_like(lengths) if call["normalize"] else lengths
    logit = float((reach * furthest / temperature).max())
    logit += float((reach.square() * widest).max()) / temperature**2
    to_pixel = furthest / temperature + reach * widest / temperature**2
    if call["normalize"]:
        to_pixel = torch.where(lengths > 0, to_pixel / lengths, 0)
    return {
        "value": 2 * (logit + 5) * weight,
        "features": float((slope * to_pixel).max()) * (1 + logit),
        "prototypes": float((slope * reach).sum()) / temperature * (1 + logit),
        "variance": float((slope * reach.square()).sum()) / temperature**2 * (1 + logit),
    }


def pairs(case: pair_cases.Case) -> Call:
    given = case.call()
    return Call(pair_contrast, given, case.wanted, lambda seed: pair_cases.scales(given, seed))


def upsampled(case: upsampled_cases.Case) -> Call:
    scales = upsampled_cases.scales(case)
    return Call(upsampled_cross_entropy, case.call(), ("logits",), lambda seed: scales)


@st.composite
def _any_class_means(draw: st.DrawFn, normalize: bool, per_image: bool) -> Call:
    shape = draw(feature_shapes("BPV" if per_image else "BPNV"))
    case = draw(contrast_cases(features_shape=shape, soft=False, spoilt=None, presence="all"))
    return class_means(case, normalize, per_image, draw(st.integers(0, 2)))


@st.composite
def _any_two_domains(draw: st.DrawFn, balance: str) -> Call:
    pairwise = draw(st.booleans())
    shape = draw(feature_shapes("BV" if pairwise else "BPNV"))
    case = draw(contrast_cases(features_shape=shape, similarity="cosine", soft=False))
    # Labels that hold a pixel belong to no map without one.
    finer = len(shape) > 3 and 0 not in shape and draw(st.booleans())
    spoilt = None if finer else case.spoilt
    how = {"finer": finer, "pairwise": pairwise, "balance": balance}
    return both_ways(case._replace(spoilt=spoilt), **how)


ANY: dict[str, st.SearchStrategy[Call]] = {
    **{
        f"{similarity} contrast{' of soft targets' * soft}": (
            contrast_cases(similarity=similarity, soft=soft).map(contrast)
        )
        for similarity in SIMILARITIES
        for soft in (False, True)
    },
    **{
        f"contrast, {presence} presence, {absent}": contrast_cases(
            similarity="cosine", presence=presence, absent=absent, label_kind="mixed"
        ).map(contrast)
        for presence in ("given", "implied")
        for absent in ("mask", "floor")
    },
    "smoothed contrast": contrast_cases().map(smoothed),
    **{f"both ways by {balance}": _any_two_domains(balance) for balance in ("pixel", "class")},
    **{
        f"{similarity} logits": contrast_cases(similarity=similarity, spoilt=None).map(logits)
        for similarity in SIMILARITIES
    },
    **{
        f"class means{', unit' * normalize}{', per image' * per_image}": (
            _any_class_means(normalize, per_image)
        )
        for normalize in (False, True)
        for per_image in (False, True)
    },
    **{
        f"{'unit' if normalize else 'raw'} distribution{' of soft targets' * soft}": contrast_cases(
            similarity="dot", soft=soft
        ).map(lambda case, normalize=normalize: distribution(case, normalize))
        for normalize in (False, True)
        for soft in (False, True)
    },
    "pairs": pair_cases.cases().map(pairs),
    "pairs by distance": pair_cases.cases(similarity="euclidean").map(pairs),
    "upsampled": upsampled_cases.cases().map(upsampled),
}


def _of_pixels(build: Callable[..., Call], **fixed: Any) -> Callable[..., Call]:
    return lambda **how: build(ContrastCase(**{"seed": 0, "features_shape": SHAPE,
                                               "num_classes": 4, **fixed, **how}))  # fmt: skip


def _pairs(layout: str = "contiguous", dtype: torch.dtype = torch.float32, **how: Any) -> Call:
    laid = "transposed" if layout == "channels_last" else layout
    both = {"layout": laid, "key_layout": laid, "dtype": dtype, "key_dtype": dtype}
    return pairs(pair_cases.Case(**{**both, **how}))


MEANS = st.one_of([calls for name, calls in ANY.items() if "means" in name])
"""Of any form, normalised or not."""


PLAIN: dict[str, Callable[..., Call]] = {
    "contrast": _of_pixels(contrast),
    "contrast of soft targets": _of_pixels(contrast, soft=True),
    "smoothed contrast": _of_pixels(smoothed),
    "logits": _of_pixels(logits),
    "class means": _of_pixels(lambda case: class_means(case, more=1)),
    "unit class means": _of_pixels(lambda case: class_means(case, normalize=True, more=1)),
    "distribution": _of_pixels(distribution, similarity="dot", temperature=1.0),
    "both ways": _of_pixels(both_ways),
    "balanced pairs of images": _of_pixels(
        lambda case: both_ways(case, pairwise=True, balance="class")
    ),
    "pairs": _pairs,
    "upsampled": lambda **how: upsampled(upsampled_cases.Case(**how)),
}
"""By dtype, layout, reduction and whatever else the case of the operator has."""
OF_PIXELS = [name for name in PLAIN if name not in ("pairs", "upsampled")]
OF_LABELS = [name for name in PLAIN if name not in ("logits", "contrast of soft targets")]
OF_DOMAINS = ["both ways", "balanced pairs of images"]
REDUCED = [name for name in PLAIN if "means" not in name and name not in ("logits", *OF_DOMAINS)]
