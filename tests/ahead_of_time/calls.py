"""The call of the library that a case stands for, on meta tensors, and the launch it ends in."""

from collections.abc import Callable

import torch
from torch import Tensor

from protocontrast.calls import (
    ClassSumsCall,
    ContrastCall,
    DistributionCall,
    Domain,
    LogitsCall,
    PairRolesCall,
    StepCall,
    TargetPassCall,
    TransferCall,
    UpsampledCall,
)
from protocontrast.kernels import (
    bicl_step,
    class_prototypes,
    contrast,
    distribution_contrast,
    logits,
    pair_contrast,
    target_pass,
    target_pass_backward,
    totals,
    transfer,
    upsampled_cross_entropy,
    upsampled_cross_entropy_backward,
)
from protocontrast.kernels import class_prototypes_backward as class_sums_way_back
from protocontrast.kernels import contrast_backward as contrast_way_back
from protocontrast.kernels import prototypes as prototypes_made_ready
from protocontrast.kernels.launch import Launch, recorded
from tests.ahead_of_time.cases import DTYPES, MAP, Case


def _features(case: Case, images: int, pixels: int) -> Tensor:
    pixels += case.layout == "odd"
    shape = {
        "channels_last": (images, pixels, case.channels),
        "strided": (images, case.channels, 3 * pixels),
    }.get(case.layout, (images, case.channels, pixels))
    whole = torch.empty(shape, dtype=DTYPES[case.dtype], device="meta")
    if case.layout == "channels_last":
        return whole.transpose(1, 2)
    return whole[:, :, ::3] if case.layout == "strided" else whole


def _calls(case: Case, images: int, pixels: int) -> dict[str, Callable[[], object]]:
    """Kernel -> the call of a launcher that ends in it."""
    features = _features(case, images, pixels)
    pixels = features.shape[2]
    acc = torch.float64 if case.dtype == "fp64" else torch.float32
    here = {"device": "meta"}
    every = {"dtype": acc, **here}
    labels = torch.empty(images, pixels, dtype=torch.int64, device="meta")
    weight = None
    if case.soft:
        labels = torch.empty(images, case.classes, pixels, **every)
    if case.layout == "strided":
        weight = torch.empty(images, 2 * pixels, **every)[:, ::2]
    prototypes = torch.empty(case.classes, case.channels, **every)
    present = torch.empty(case.classes, dtype=torch.bool, device="meta")
    per_pixel = torch.empty(images, pixels, **every)
    # The gradient of a mean is one number for all pixels.
    upstream = torch.empty((), **every).expand(images, pixels)
    of_logits = torch.empty(images, case.classes, pixels, **every)
    of_losses = upstream[:1, :1, None].expand(images, 736, 736)
    of_sums = torch.empty(1, case.classes, case.channels, **every)
    inputs = features, labels, prototypes, present, None, weight
    whole = ContrastCall(*inputs, case.similarity, 0.1, False, 255)
    found = LogitsCall(features, prototypes, present, case.similarity, 0.1)
    sums = ClassSumsCall(features, labels, weight, case.classes, False, False, 255)
    units = sums._replace(normalize=True)
    near = TransferCall(
        features, prototypes, present, None, 0.8, "confidence", case.similarity, 0.1, 255
    )

    def contrasted(*wants: bool) -> object:
        ready = prototypes_made_ready.ready_for_contrast(whole)
        return contrast_way_back.contrast_backward(upstream, whole, wants, per_pixel, *ready)

    def distributed(*wants: bool) -> object:
        given = *inputs[:3], torch.empty_like(prototypes), *inputs[3:]
        call = DistributionCall(*given, True, 0.1, 255)
        if not wants:
            return distribution_contrast.distribution_contrast(call)
        backward = distribution_contrast.distribution_contrast_backward
        return backward(upstream, call, wants, per_pixel)

    def looked_up(*wants: bool) -> object:
        return logits.logits_backward(of_logits, found, wants)

    def paired(*wants: bool) -> object:
        rows = features[0].t(), labels[0], features[1].t(), labels[1], labels[1]
        call = PairRolesCall(*rows, None, "cosine", 0.1, False, False, 255)
        if not wants:
            return pair_contrast.pair_contrast(call)
        statistics = torch.empty(3, pixels, **every)
        return pair_contrast.pair_contrast_backward(per_pixel[0], call, wants, statistics)

    def upsampled(upstream: Tensor | None = None) -> object:
        rows = columns = 92
        coarse = torch.empty(images, case.classes, rows, columns, dtype=features.dtype, **here)
        if case.layout == "channels_last":
            coarse = coarse.to(memory_format=torch.channels_last)
        fine = torch.empty(images, 8 * rows, 8 * columns, dtype=torch.int64, **here)
        call = UpsampledCall(coarse, fine, present.to(acc), 255, True, 0.0)
        if upstream is None:
            return upsampled_cross_entropy.upsampled_cross_entropy(call)
        module = upsampled_cross_entropy_backward
        return module.upsampled_cross_entropy_backward(upstream, call, (True,))

    def passed(targets: Tensor | None, nearest: Tensor | None) -> object:
        call = TargetPassCall(
            features, labels, targets, None, prototypes, nearest, present, present,
            0.8, "confidence", 0.1, False, False, 255, targets is None, True,
        )  # fmt: skip
        return target_pass.target_pass(call)

    def weighed_back() -> object:
        call = TargetPassCall(
            features, labels, None, None, prototypes, None, present, present,
            0.8, "confidence", 0.1, False, False, 255, True, True,
        )  # fmt: skip
        ready = target_pass_backward.ready_for_target_pass(call)
        saved = labels, per_pixel, per_pixel, *ready
        grad_output = torch.empty(case.classes, **every)
        return target_pass_backward.target_pass_backward(grad_output, call, (True,), *saved)

    def stepped() -> object:
        counts = torch.empty(case.classes, dtype=torch.float64, **here)
        numbers = torch.empty(case.classes, dtype=torch.int64, **here)
        bank = prototypes.float(), counts, present, numbers
        call = StepCall(
            Domain(features, labels, labels), features, None, None, None, bank, bank,
            (prototypes.float(), present, numbers), 0.8, "confidence", 0.1, False, False, 255,
            (0.9, 0.9, 0.9), True, True, 20, (1.0, 1.0), None,
        )  # fmt: skip
        told, _, *kept = bicl_step.bicl_step(call)
        upstream = told.loss, None, None
        return bicl_step.bicl_step_backward(upstream, call, (True, True), *kept)

    return {
        "contrast": lambda: contrast.contrast(whole),
        "contrast_kept": lambda: contrast.contrast(
            whole, *prototypes_made_ready.ready_for_contrast(whole)
        ),
        "contrast_backward_features": lambda: contrasted(True, False),
        "contrast_backward_prototypes": lambda: contrasted(False, True),
        "contrast_backward_both": lambda: contrasted(True, True),
        "distribution_contrast": lambda: distributed(),
        "distribution_contrast_backward_features": lambda: distributed(True, False, False),
        "distribution_contrast_backward_both": lambda: distributed(True, True, True),
        "transfer": lambda: transfer.transfer(near),
        "logits": lambda: logits.logits(found),
        "logits_backward_features": lambda: looked_up(True, False),
        "logits_backward_both": lambda: looked_up(True, True),
        "class_sums": lambda: class_prototypes.class_sums(sums),
        "class_sums_normalize": lambda: class_prototypes.class_sums(units),
        "class_sums_backward": lambda: class_sums_way_back.class_sums_backward(
            of_sums, sums, (True,)
        ),
        "class_sums_backward_normalize": lambda: class_sums_way_back.class_sums_backward(
            of_sums, units, (True,)
        ),
        "target_pass": lambda: passed(None, prototypes),
        "target_pass_soft": lambda: passed(of_logits, None),
        "upsampled_cross_entropy": lambda: upsampled(),
        "upsampled_cross_entropy_backward": lambda: upsampled(of_losses),
        "upsampled_cross_entropy_cells": lambda: upsampled(of_losses),
        "pair_normaliser": lambda: paired(),
        "pair_contrast": lambda: paired(),
        "pair_contrast_backward": lambda: paired(True, False),
        "pair_contrast_backward_keys": lambda: paired(False, True),
        "prepare": lambda: transfer.transfer(near),
        "finish": lambda: contrasted(True, True),
        "reweigh": lambda: weighed_back(),
        "bank_step": lambda: stepped(),
        "equals": lambda: stepped(),
        "step_end": lambda: stepped(),
        "step_back": lambda: stepped(),
        "mean": lambda: totals.mean_of(per_pixel, per_pixel),
    }


def launches_of(case: Case, images: int = MAP[0], pixels: int = MAP[1]) -> list[Launch]:
    """What the launcher of the kernel would start, but for what is of the prototypes' size: mostly
    one; of two banks' steps the last, which does more, and of a small map's two gradients the one
    that sums. Two gradients from logits are two, and so are a target pass and its sums."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(case.precision)
    try:
        with recorded(case.target) as launches:
            _calls(case, images, pixels)[case.kernel]()
    finally:
        torch.set_float32_matmul_precision(before)
    stem = case.kernel
    for ending in ("_features", "_prototypes", "_both", "_normalize", "_soft", "_keys", "_kept"):
        stem = stem.removesuffix(ending)
    follows = {"contrast_backward": "slope_sums", "target_pass": "class_sums"}.get(stem)
    own, behind = (
        [each for each in launches if each.kernel.__name__ == f"{name}_kernel"]
        for name in (stem, follows)
    )
    assert len(own) < 2 or case.kernel in ("bank_step", "contrast_backward_both")
    return own[-1:] + behind


def launch_of(case: Case, images: int = MAP[0], pixels: int = MAP[1]) -> Launch:
    """The kernel's own, or what is in its place."""
    return launches_of(case, images, pixels)[0]
