"""Every public call with right arguments, and what each kind of argument may not be."""

import warnings
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

import protocontrast as pc

FEATURES = torch.linspace(-1, 1, 2 * 4 * 2 * 3).reshape(2, 4, 2, 3)
LABELS = torch.tensor([0, 1, 2, 0, 1, 255] * 2).reshape(2, 2, 3)
PROTOTYPES = torch.eye(3, 4)
LOGITS = FEATURES[:, :3].contiguous()
SHARES = LOGITS.softmax(dim=1)
WEIGHT = torch.ones(2, 2, 3)
PRESENT = torch.ones(3, dtype=torch.bool)
PER_CLASS = torch.ones(3)
ROWS, ROW_LABELS = FEATURES.movedim(1, -1).flatten(0, -2), LABELS.flatten()
ROW_WEIGHT = torch.ones(12)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # nested tensors are called a prototype
    NESTED = torch.nested.nested_tensor([torch.ones(2, 3), torch.ones(4, 3)])
NO_TENSOR: list[Any] = [
    "features", [1.0], np.ones((2, 4, 2, 3)), 3, 1.5, {}, object(), NESTED, FEATURES.to_sparse(),
    FEATURES.to_mkldnn(),
]  # fmt: skip
COMPLEX = torch.ones(2, 4, 2, 3, dtype=torch.complex64)
NO_FEATURES = [
    *NO_TENSOR, COMPLEX, FEATURES.long(), FEATURES > 0, FEATURES.to(torch.float8_e4m3fn),
    FEATURES.sum(), torch.ones(1, 1, 1, 1, 1, 1), torch.ones(2, 0, 2, 3),
]  # fmt: skip
NO_LABELS = [
    *NO_TENSOR, COMPLEX, LABELS > 0, LABELS.sum(), LABELS[0], LABELS[:, None],
    torch.nn.functional.one_hot(LABELS % 5, 6).movedim(-1, 1), LABELS[..., :1].repeat(3, 1, 1),
]  # fmt: skip
NO_NUMBER: list[Any] = [
    "1", True, np.True_, float("nan"), np.float32("nan"), 1j, [1.0], (1.0,), {}, np.ones(1),
    np.array("1"), torch.ones(1), torch.ones(2, 2), 10**400, -(10**400), 10**5000, object(),
]  # fmt: skip
NO_LENGTH = [*NO_NUMBER, 0, -1.0, float("inf"), 1e-320, 1e-40, np.float64(1e-310)]
NO_LENGTH += [np.longdouble("1e400"), np.longdouble("1e-400")]
NO_SHARE = [*NO_NUMBER, -0.5, 1.5, float("inf")]
NO_COUNT = [*NO_NUMBER, 0, -1, 1.0, 1.5, np.float64(2), torch.tensor(2), 2**70]
NO_IGNORE_INDEX = [
    *NO_NUMBER, 255.0, None, np.float64(255), torch.tensor(255), np.array([255]), 2**63, -(2**70),
]  # fmt: skip
NO_CHOICE: list[Any] = [
    "nothing of this", 7, 1.5, ["cosine"], ("cosine",), {"cosine"}, {}, np.array(["cosine", "dot"]),
    np.array(["cosine"]), np.ones(3), torch.ones(3), torch.ones(1), torch.ones(()),
    float("nan"), object(), b"cosine", NESTED,
]  # fmt: skip
NO_SIZE: list[Any] = [
    None, 2, "23", (2,), (2, 3, 4), (0, 3), (2, True), (2, 3.0), (2, float("nan")), {2: 3},
    torch.tensor([2, 3]), np.array([2, 3]), iter((2, 3)), (2**70, 3), object(),
]  # fmt: skip
NO_PRESENT = [
    *NO_TENSOR, PER_CLASS, PRESENT.long(), torch.ones(4, dtype=torch.bool), PRESENT[None],
    PRESENT[0],
]  # fmt: skip
NO_CLASS_WEIGHT = [
    *NO_TENSOR, PRESENT, PER_CLASS.long(), torch.ones(4), PER_CLASS[None], PER_CLASS[0],
    PER_CLASS.to(torch.complex64), torch.ones(3, requires_grad=True),
]  # fmt: skip
NO_PIXEL_WEIGHT = [
    *NO_TENSOR, COMPLEX, WEIGHT.long(), WEIGHT > 0, WEIGHT[0], WEIGHT[:, None], WEIGHT.sum(),
    torch.ones(2, 2, 3, requires_grad=True),
]  # fmt: skip
NO_PROTOTYPES = [
    *NO_TENSOR, COMPLEX, PROTOTYPES.long(), torch.ones(3, 5), torch.ones(0, 4), torch.ones(4),
    torch.ones(1, 1, 1, 3, 4),
]  # fmt: skip
NO_GENERATOR: list[Any] = [0, "seed", np.random.default_rng(0), torch.Generator, object()]
NO_STATISTICS: list[Any] = [
    None, (), 3, "stats", torch.ones(3, 4), [PROTOTYPES, PER_CLASS], (PROTOTYPES,),
    (PROTOTYPES, None), (None, PER_CLASS), (PROTOTYPES.long(), PER_CLASS),
    (PROTOTYPES, PER_CLASS[:2]), (torch.ones(3, 5), PER_CLASS), (PROTOTYPES.sum(), PER_CLASS),
    (PROTOTYPES, np.ones(3)), (COMPLEX, PER_CLASS),
]  # fmt: skip

BY_NAME: dict[str, list[Any]] = {
    "features": NO_FEATURES, "source_features": NO_FEATURES, "target_features": NO_FEATURES,
    "logits": NO_FEATURES, "target_logits": NO_FEATURES, "probabilities": NO_FEATURES,
    "weights": NO_FEATURES, "scores": NO_FEATURES, "source": NO_PROTOTYPES,
    "target": NO_PROTOTYPES, "anchors": NO_FEATURES, "keys": NO_FEATURES,
    "negatives": NO_FEATURES, "labels": NO_LABELS, "source_labels": NO_LABELS,
    "target_labels": NO_LABELS, "anchor_labels": NO_LABELS, "key_labels": NO_LABELS,
    "negative_labels": NO_LABELS, "predictions": NO_LABELS, "base": NO_TENSOR,
    "prototypes": NO_PROTOTYPES, "source_prototypes": NO_PROTOTYPES,
    "target_prototypes": NO_PROTOTYPES, "variance": NO_PROTOTYPES, "present": NO_PRESENT,
    "source_present": NO_PRESENT, "target_present": NO_PRESENT, "class_weight": NO_CLASS_WEIGHT,
    "prior": [one for one in NO_CLASS_WEIGHT if not getattr(one, "requires_grad", False)],
    "pixel_weight": NO_PIXEL_WEIGHT, "anchor_weight": NO_PIXEL_WEIGHT,
    "temperature": NO_LENGTH, "epsilon": NO_LENGTH, "momentum": NO_SHARE,
    "bias_momentum": NO_SHARE, "min_share": NO_SHARE, "image_share": NO_SHARE,
    "label_smoothing": NO_SHARE, "share": NO_SHARE, "cap": NO_SHARE,
    "strength": NO_NUMBER, "cross_entropy_weight": NO_NUMBER,
    "reverse_weight": NO_NUMBER, "floor": [*NO_NUMBER, 0, 1.5, -1.0],
    "seed": [*NO_NUMBER, 0.5, float("inf"), 2**63],
    "num_classes": NO_COUNT, "dim": NO_COUNT, "length": NO_COUNT, "components": NO_COUNT,
    "pixels": NO_COUNT, "ramp": NO_COUNT, "iterations": NO_COUNT, "number": NO_COUNT,
    "per_class": NO_COUNT, "min_pixels": NO_COUNT, "ignore_index": NO_IGNORE_INDEX, "size": NO_SIZE,
    "generator": NO_GENERATOR, "stats": NO_STATISTICS, "counts": [
        *NO_TENSOR, PRESENT, PER_CLASS[None], PER_CLASS[0], PER_CLASS[:0],
        PER_CLASS.to(torch.complex64),
    ],
    "images": NO_TENSOR, "source_images": [*NO_TENSOR, torch.ones(3)],
    "target_images": [*NO_TENSOR, FEATURES.double(), FEATURES[:1]],
    "classes": [*NO_TENSOR, PER_CLASS, PRESENT[:2]],
    "threshold": [one for one in NO_NUMBER if not isinstance(one, Tensor)] + [
        torch.ones(2, 2), torch.ones(4), PRESENT, torch.ones(3, dtype=torch.int64),
    ],
}  # fmt: skip
CHOICES = {
    "similarity", "absent", "reduction", "backend", "mode", "measure", "toward", "denominator",
    "candidates", "rule", "warmup", "bias_warmup", "bank_update", "domain", "normalize",
    "pairwise", "exclude_self", "per_image", "align_corners", "calibrate", "validate", "update",
}  # fmt: skip
"""`normalize` and those after it are True or False, or also that."""
UNCHECKED = {"process_group", "others"}


def has_shape(value: Any, shape: tuple[int, ...]) -> bool:
    return isinstance(value, Tensor) and not value.is_nested and tuple(value.shape) == shape


class Call(NamedTuple):
    """A public call by name, its right arguments, and what may be put in their place."""

    function: Callable[..., Any]
    arguments: dict[str, Any]
    replaced: Mapping[str, list[Any]] = MappingProxyType({})


def calls() -> dict[str, Call]:
    """Every public function, constructor and method that takes arguments."""
    pixels = {"features": FEATURES, "labels": LABELS}
    known = {**pixels, "prototypes": PROTOTYPES}
    per = {"present": PRESENT, "class_weight": PER_CLASS, "pixel_weight": WEIGHT}
    domains = {
        "source_features": FEATURES, "source_labels": LABELS, "target_features": FEATURES.flip(0),
        "target_labels": LABELS.flip(0),
    }  # fmt: skip
    given = {
        "source_prototypes": PROTOTYPES, "target_prototypes": PROTOTYPES,
        "source_present": PRESENT, "target_present": PRESENT, "pairwise": False,
    }  # fmt: skip
    weighted = {"logits": LOGITS, "pixel_weight": WEIGHT}
    pairs = {
        "anchors": ROWS, "anchor_labels": ROW_LABELS, "keys": ROWS, "key_labels": ROW_LABELS,
        "negatives": ROWS, "negative_labels": ROW_LABELS, "anchor_weight": ROW_WEIGHT,
    }  # fmt: skip
    images = {
        "source_images": FEATURES, "source_labels": LABELS, "target_images": FEATURES.flip(0),
        "target_labels": LABELS.flip(0), "num_classes": 3,
    }  # fmt: skip
    samples = {"labels": LABELS, "number": 4, "num_classes": 3, "predictions": LABELS}
    fine = {"logits": LOGITS, "labels": LABELS.repeat_interleave(2, dim=2)}
    bank = pc.PrototypeBank(3, 4)
    spread = pc.PrototypeBank(3, 4, variance=True)
    means = pc.ClassPrototypes(PROTOTYPES, PER_CLASS)
    wide = pc.ClassStatistics(PROTOTYPES, PER_CLASS, PROTOTYPES)
    bias, queue = pc.DomainBias(3, 4), pc.ClassQueue(3, 2, 4)
    thresholds, balance = pc.ClassThresholds(3), pc.LogitBalance(3, 2, pixels=2)
    # What has no gradient takes weights that want one.
    unlearnt = {"pixel_weight": NO_PIXEL_WEIGHT[:-1]}
    any_classes = {"class_weight": [one for one in NO_CLASS_WEIGHT if not has_shape(one, (4,))]}
    any_labels = {"labels": [*NO_TENSOR, COMPLEX, LABELS > 0, LABELS.float()]}
    return {
        "assign_subclasses": Call(
            pc.assign_subclasses, {**known, "prototypes": PROTOTYPES[:, None]},
            {"prototypes": [*NO_PROTOTYPES, PROTOTYPES]},
        ),
        "bidirectional_contrast": Call(
            pc.bidirectional_contrast, {**domains, **given, "num_classes": 3},
        ),
        "backends": Call(pc.backends, {}),
        "check_labels": Call(pc.check_labels, {"labels": LABELS, "num_classes": 3}, any_labels),
        "class_mix": Call(pc.class_mix, images),
        "class_prototypes": Call(
            pc.class_prototypes, {**pixels, "num_classes": 3, "pixel_weight": WEIGHT}
        ),
        "class_statistics": Call(
            pc.class_statistics, {**pixels, "num_classes": 3, "pixel_weight": WEIGHT}, unlearnt
        ),
        "confident_share": Call(
            pc.confident_share, {"probabilities": SHARES, "threshold": 0.5},
            {"threshold": NO_SHARE},
        ),
        "distribution_contrast": Call(
            pc.distribution_contrast, {**known, "variance": PROTOTYPES, **per}
        ),
        "entropy": Call(pc.entropy, weighted),
        "frequency_weights": Call(pc.frequency_weights, {"counts": PER_CLASS}),
        "fuse_labels": Call(pc.fuse_labels, {"base": LABELS}),
        "labels_to_grid": Call(
            pc.labels_to_grid,
            {"labels": LABELS, "size": (1, 2), "mode": "majority", "num_classes": 3},
            {"labels": [one for one in NO_LABELS if not has_shape(one, (6, 2, 1))]},
        ),
        "mrkld": Call(pc.mrkld, weighted),
        "pair_contrast": Call(pc.pair_contrast, pairs),
        "pixel_prototype_contrast": Call(pc.pixel_prototype_contrast, {**known, **per}),
        "prototype_logits": Call(
            pc.prototype_logits,
            {"features": FEATURES, "prototypes": PROTOTYPES, "present": PRESENT},
        ),
        "prototype_pull": Call(
            pc.prototype_pull, {**known, "present": PRESENT, "pixel_weight": WEIGHT}
        ),
        "rectify": Call(pc.rectify, {"probabilities": SHARES, "weights": SHARES}),
        "sample_pixels": Call(pc.sample_pixels, {**samples, "mode": "hard_easy"}),
        "select_labels": Call(pc.select_labels, {"probabilities": SHARES, "threshold": 0.5}),
        "similarity_kl": Call(pc.similarity_kl, {**weighted, "target_logits": LOGITS}),
        "sinkhorn": Call(
            pc.sinkhorn, {"scores": LOGITS, "prior": PER_CLASS, "pixel_weight": WEIGHT}, unlearnt
        ),
        "spread": Call(pc.spread, {**known, "toward": "uniform", "present": PRESENT}),
        "subclass_max": Call(pc.subclass_max, {"logits": FEATURES, "num_classes": 2}),
        "symmetric_cross_entropy": Call(
            pc.symmetric_cross_entropy, {**weighted, "labels": LABELS}
        ),
        "transfer_labels": Call(
            pc.transfer_labels,
            {"features": FEATURES, "prototypes": PROTOTYPES, "present": PRESENT},
        ),
        "upsampled_cross_entropy": Call(
            pc.upsampled_cross_entropy, {**fine, "class_weight": PER_CLASS}
        ),
        "BiCL": Call(pc.BiCL, {"num_classes": 3, "dim": 4}, {
            "weights": [None, 1.0, (1,), (1, 2, 3), ("1", 2), (1, float("nan")), torch.ones(2),
                        np.ones(2), (10**400, 1), (True, 1)],
            "threshold": NO_NUMBER,
            "prototypes": NO_CHOICE,
        }),
        "BiCL.forward": Call(pc.BiCL(3, 4), domains),
        "BidirectionalContrastLoss": Call(pc.BidirectionalContrastLoss, {"num_classes": 3}),
        "BidirectionalContrastLoss.forward": Call(
            pc.BidirectionalContrastLoss(3, pairwise=False),
            {k: v for k, v in {**domains, **given}.items() if k != "pairwise"},
        ),
        "ClassQueue": Call(pc.ClassQueue, {"num_classes": 3, "length": 2, "dim": 4}),
        "ClassQueue.push": Call(queue.push, pixels),
        "ClassQueue.read": Call(queue.read, {}),
        "ClassThresholds": Call(pc.ClassThresholds, {"num_classes": 3}),
        "ClassThresholds.update": Call(thresholds.update, {"probabilities": SHARES}),
        "ClassThresholds.select": Call(thresholds.select, {"probabilities": SHARES}),
        "DomainBias": Call(pc.DomainBias, {"num_classes": 3, "dim": 4}),
        "DomainBias.update": Call(
            bias.update, {"source": PROTOTYPES, "target": PROTOTYPES, "present": PRESENT}
        ),
        "DomainBias.calibrate": Call(bias.calibrate, {"prototypes": PROTOTYPES}),
        "LogitBalance": Call(pc.LogitBalance, {"num_classes": 3, "components": 2}),
        "LogitBalance.forward": Call(balance, {"logits": LOGITS, "labels": LABELS}),
        "LogitBalance.update": Call(balance.update, {"logits": LOGITS, "labels": LABELS}),
        "LogitBalance.delta": Call(balance.delta, {"logits": LOGITS, "labels": LABELS}),
        "PairContrastLoss": Call(pc.PairContrastLoss, {}),
        "PairContrastLoss.forward": Call(pc.PairContrastLoss(), pairs),
        "PixelPrototypeContrastLoss": Call(
            pc.PixelPrototypeContrastLoss, {"class_weight": PER_CLASS}, any_classes
        ),
        "PixelPrototypeContrastLoss.forward": Call(
            pc.PixelPrototypeContrastLoss(),
            {**known, "present": PRESENT, "pixel_weight": WEIGHT},
        ),
        "PrototypeBank": Call(pc.PrototypeBank, {"num_classes": 3, "dim": 4}),
        "PrototypeBank.update": Call(bank.update, {**pixels, "pixel_weight": WEIGHT}, unlearnt),
        "PrototypeBank.update_from": Call(bank.update_from, {"stats": means}),
        "PrototypeBank.fit": Call(bank.fit, {"batches": [(FEATURES, LABELS)]}, {"batches": [
            3, "pairs", FEATURES, [FEATURES], [(FEATURES,)], [(FEATURES, LABELS, LABELS)], [3],
            [None], [(LABELS, FEATURES)], [(FEATURES, None)], object(),
        ]}),
        "PrototypeBank.accumulate": Call(spread.accumulate, {"stats": wide}),
        "UpsampledCrossEntropyLoss": Call(
            pc.UpsampledCrossEntropyLoss, {"class_weight": PER_CLASS}, any_classes
        ),
        "UpsampledCrossEntropyLoss.forward": Call(pc.UpsampledCrossEntropyLoss(), fine),
    }  # fmt: skip
