"""Contrast in both directions between two domains: `bidirectional_contrast`."""

from typing import NamedTuple

import torch
from torch import Tensor

from protocontrast.calls import BidirectionalCall, ClassSumsCall, ContrastCall, Domain
from protocontrast.checks import check_device, check_floating, check_shape, public, sentence
from protocontrast.functional import hints
from protocontrast.functional.class_prototypes import class_means
from protocontrast.functional.contrast import contrast_of
from protocontrast.functional.labels import labels_to_grid
from protocontrast.functional.maps import WHOLE_CLASS, check_classes, equal_weights, target_counts
from protocontrast.functional.pixels import (
    Pixels,
    check_per_class,
    check_prototypes,
    read_features,
    read_labels,
    read_targets,
)
from protocontrast.functional.settings import (
    Absent,
    Backend,
    Balance,
    BidirectionalSettings,
    placed_temperature,
)
from protocontrast.ops import bidirectional as operator


class BidirectionalContrast(NamedTuple):
    """The summed loss and its two directions, each ()."""

    loss: Tensor
    target_to_source: Tensor
    source_to_target: Tensor


class _Side(NamedTuple):
    """One domain, and the prototypes (C, D) and presence (C,) that were given with it."""

    domain: Domain
    prototypes: Tensor | None
    present: Tensor | None


class _Means(NamedTuple):
    """Prototypes (G, C, D), presence and pixels (G, C) of a domain's classes; G pairs, or 1."""

    prototypes: Tensor
    present: Tensor
    counts: Tensor | None


def _grid_labels(
    pixels: Pixels, labels: Tensor, side: str, num_classes: int, ignore_index: int
) -> tuple[Tensor, Tensor]:
    """Labels on the grid, and the loss's targets: those, or counts of full-resolution labels."""
    features = pixels.original
    check_classes(f"{side}_labels", labels, features.dim() - 2, num_classes)
    check_device(f"{side}_labels", labels, features, f"{side}_features")
    if features.dim() not in (4, 5) or labels.dim() != features.dim() - 1:
        hint = "labels are (B, H, W) at any resolution for features (B, D, H, W)."
        if features.dim() == 5:
            hint = hint.replace("H,", "Z, H,")
        got, meant = tuple(labels.shape), ""
        if features.dim() in (4, 5):
            meant = hints.label_map(f"{side}_labels", got, features.dim() - 2, num_classes)
        elif got == features.shape[:-1] != pixels.shape:
            meant = hints.channels_last(f"{side}_features", features.shape, features.shape[-1])
        elif got != pixels.shape:
            meant = hints.one_per_pixel(f"{side}_labels", got, pixels.shape, num_classes)
        reason = f"as in {side}_features {tuple(features.shape)}"
        check_shape(f"{side}_labels", labels, pixels.shape, reason, meant or hint)
        return labels, labels
    if labels.shape[0] != features.shape[0]:
        requirement = f"with {features.shape[0]} images as in {side}_features"
        raise ValueError(sentence(f"{side}_labels", requirement, tuple(labels.shape)))
    if labels.shape[1:] == features.shape[2:]:
        return labels, labels
    size = tuple(features.shape[2:])
    grid = labels_to_grid(labels, size, ignore_index=ignore_index)
    counts = labels_to_grid(
        labels, size, mode="counts", num_classes=num_classes, ignore_index=ignore_index
    )
    return grid, counts


def _side(
    side: str,
    features: Tensor,
    labels: Tensor,
    prototypes: Tensor | None,
    present: Tensor | None,
    known: tuple[int, int],
) -> _Side:
    """A checked domain; `known` are the number of classes and `ignore_index`."""
    pixels = read_features(features, f"{side}_features")
    grid, targets = _grid_labels(pixels, labels, side, *known)
    if prototypes is None and present is not None:
        hint = "presence of this batch's own prototypes comes from the labels."
        requirement = f"only beside {side}_prototypes"
        raise ValueError(sentence(f"{side}_present", requirement, "it alone", hint))
    if prototypes is not None:
        check_prototypes(pixels, prototypes, f"{side}_prototypes")
        reason = "= (num_classes, D)"
        check_shape(f"{side}_prototypes", prototypes, (known[0], pixels.channels), reason)
        check_per_class(pixels, f"{side}_present", present, known[0], boolean=True)
        present = (prototypes != 0).any(dim=1) if present is None else present
    grid, targets = read_labels(pixels, grid, *known), read_targets(pixels, targets, *known)
    return _Side(Domain(pixels.features, grid, targets), prototypes, present)


def _means(side: _Side, settings: BidirectionalSettings, per_pair: bool) -> _Means:
    """What pixels of the other domain are contrasted with."""
    domain, num_classes, counts = side.domain, settings.num_classes, None
    if side.prototypes is None or side.present is None:
        members = ClassSumsCall(
            domain.features, domain.labels, None, num_classes, False, per_pair,
            settings.ignore_index,
        )  # fmt: skip
        stats = class_means(members, settings.backend)
        prototypes, present, counts = stats.mean, stats.present, stats.count
    else:
        prototypes, present = side.prototypes[None], side.present[None]
    if settings.balance == "pixel":
        return _Means(prototypes, present, None)
    if counts is None or domain.targets.is_floating_point():
        counts = target_counts(domain.targets, num_classes, domain.features)
        counts = counts if per_pair else counts.sum(dim=0, keepdim=True)
    return _Means(prototypes, present, counts)


@public
def bidirectional_contrast(
    source_features: Tensor,
    source_labels: Tensor,
    target_features: Tensor,
    target_labels: Tensor,
    *,
    num_classes: int,
    source_prototypes: Tensor | None = None,
    target_prototypes: Tensor | None = None,
    source_present: Tensor | None = None,
    target_present: Tensor | None = None,
    pairwise: bool = True,
    temperature: float | Tensor = 0.1,
    absent: Absent = "mask",
    balance: Balance = "pixel",
    ignore_index: int = 255,
    backend: Backend = "auto",
) -> BidirectionalContrast:
    """Target pixels against source prototypes, and source pixels against target prototypes.

        loss = target_to_source + source_to_target

    each a `pixel_prototype_contrast` under cosine, in which only classes present in both domains
    carry loss (a class weight of 0 or 1), while the denominator holds the classes of the
    prototypes' own domain ("mask") or all C, absent ones at cosine -1 ("floor"). With n_c pixels of
    class c among the targets, or what their counts add up to, a direction is

        sum_c cw_c loss_c / sum_c cw_c n_c,     loss_c summed over the pixels of class c,

    for shared classes with cw_c = 1, every pixel alike ("pixel"), or cw_c = 1 / max(n_c, 20), every
    class alike ("class"). A class of fewer than 20 pixels counts by its pixels, so that no single
    one, which may be labelled wrongly, is more than a twentieth of a class.

    Args:
        source_features: pixels of the labelled domain.
        source_labels: its labels, on the features' grid or at image resolution. At image
            resolution, prototypes and presence come from "nearest" labels on the grid and the loss
            from "counts" of the full-resolution labels.
        target_features: pixels of the other domain.
        target_labels: its (pseudo) labels, likewise.
        num_classes: C.
        source_prototypes: given, for instance from a bank; else the class means of this batch, with
            gradient through them. Needs `pairwise=False`.
        target_prototypes: likewise.
        source_present: which given source prototypes count, in the overlap in place of the label
            map. None: rows that are not all zero.
        target_present: likewise.
        pairwise: image b against image b of the other domain, averaged over b; a pair without a
            common class adds 0 and counts in the average. False: the batches against each other.
        temperature: divides the cosine, > 0: a number or a tensor (), as in
            `pixel_prototype_contrast`.
        absent: "mask" or "floor", see above.
        balance: "pixel" or "class", see above; with `pairwise` n_c are those of the image.
        ignore_index: label of pixels without a class, outside 0..C-1.
        backend: "auto", or an implementation by name.

    Shape:
        features (B, D, h, w) with labels (B, H, W), (B, D, z, h, w) with labels (B, Z, H, W), or
        (B, D, P) or (N, D) with labels of the same pixels; prototypes (C, D); presence (C,). Every
        result ().

    Returns:
        `BidirectionalContrast`, in nats; exactly 0 with connected gradients where no class is
        shared.

    Raises:
        ValueError: shapes or settings disagree, batch sizes differ or prototypes are given under
            `pairwise`, a presence without its prototypes, or (CPU) a label is no class.
        TypeError: a wrong dtype.

    Source:
        Lee et al., ECCV 2022, arXiv 2207.10892; (M12) and (M18) of docs/maths.md. With
        `pairwise=True` and `absent="floor"` on image-resolution labels this is the step of the
        authors' released trainer.

    Example:
        >>> import torch
        >>> maps = torch.eye(2).reshape(1, 2, 1, 2)
        >>> out = bidirectional_contrast(
        ...     maps, torch.tensor([[[0, 1]]]), maps, torch.tensor([[[0, 1]]]), num_classes=2
        ... )
        >>> f"{out.target_to_source.item():.6f}", f"{out.loss.item():.6f}"
        ('0.000046', '0.000092')
    """
    settings = BidirectionalSettings(
        num_classes, pairwise, temperature, absent, balance, ignore_index, backend
    )
    given = source_prototypes is not None or target_prototypes is not None
    if pairwise and given:
        hint = "given prototypes belong to no image pair."
        requirement = "to be False with given prototypes"
        raise ValueError(sentence("pairwise", requirement, "True", hint))
    for side, features in (("source", source_features), ("target", target_features)):
        check_floating(f"{side}_features", features)
        if pairwise and features.dim() == 2:
            hint = "pixels given as rows have no image; use pairwise=False."
            requirement = "of shape (B, D, Z, H, W), (B, D, H, W) or (B, D, P) with pairwise=True"
            got = tuple(features.shape)
            raise ValueError(sentence(f"{side}_features", requirement, got, hint))
    temperature = placed_temperature(temperature, source_features, "source_features")
    known = num_classes, ignore_index
    source = _side(
        "source", source_features, source_labels, source_prototypes, source_present, known
    )
    target = _side(
        "target", target_features, target_labels, target_prototypes, target_present, known
    )
    shapes = tuple(source_features.shape), tuple(target_features.shape)
    if shapes[0][1] != shapes[1][1]:
        requirement = f"with D = {shapes[0][1]} as in source_features {shapes[0]}"
        hint = hints.channels_last("target_features", shapes[1], shapes[0][1])
        hint = hint or hints.channels_last("source_features", shapes[0], shapes[1][1])
        raise ValueError(sentence("target_features", requirement, shapes[1], hint))
    if pairwise and shapes[0][0] != shapes[1][0]:
        hint = "use pairwise=False for batches of different size."
        requirement = f"of {shapes[0][0]} images as in source_features with pairwise=True"
        raise ValueError(sentence("target_features", requirement, shapes[1][0], hint))

    return _between(source, target, settings, temperature)


def contrast_of_batch(
    source: Domain, target: Domain, settings: BidirectionalSettings, temperature: float | Tensor
) -> BidirectionalContrast:
    """`bidirectional_contrast` of the batch's own prototypes; what is given has been checked."""
    return _between(_Side(source, None, None), _Side(target, None, None), settings, temperature)


def _between(
    source: _Side, target: _Side, settings: BidirectionalSettings, temperature: float | Tensor
) -> BidirectionalContrast:
    """The contrast of what has been read; the temperature has been, too."""
    backend, keep_absent = settings.backend, settings.absent == "floor"
    domains = source.domain, target.domain
    given = source.prototypes is not None or target.prototypes is not None
    images = len(domains[0].features)
    per_pair = bool(settings.pairwise) and images > 0
    served = None
    if not given:
        served = operator.served_by(domains[0].features, domains[1].features, backend)
    if served is not None and isinstance(temperature, float):
        call = BidirectionalCall(
            *domains, settings.num_classes, temperature, keep_absent, settings.ignore_index,
            per_pair, WHOLE_CLASS if settings.balance == "class" else 0,
        )  # fmt: skip
        to_target, to_source = operator.bidirectional(call, served)
        return BidirectionalContrast(to_source + to_target, to_source, to_target)
    means = [_means(side, settings, per_pair) for side in (source, target)]

    def contrast(moved: int, fixed: int) -> Tensor:
        losses = []
        for group in range(images if per_pair else 1):
            part = domains[moved].of(slice(group, group + 1) if per_pair else slice(None))
            own, other = means[moved], means[fixed]
            weight = (own.present[group] & other.present[group]).float()
            if own.counts is not None:
                weight = weight * equal_weights(own.counts[group])
            call = ContrastCall(
                part.features, part.targets, other.prototypes[group], other.present[group], weight,
                None, "cosine", temperature, keep_absent, settings.ignore_index,
            )  # fmt: skip
            losses.append(contrast_of(call, "mean", backend))
        return torch.stack(losses).mean()

    to_source, to_target = contrast(1, 0), contrast(0, 1)
    return BidirectionalContrast(to_source + to_target, to_source, to_target)
