"""Every public call with right arguments, and values that no argument of a kind may have."""

import warnings
from collections.abc import Callable
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np
import torch

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
COMPLEX = torch.ones(2, 4, 2, 3, dtype=torch.complex64)
SIX_CHANNELS = torch.nn.functional.one_hot(LABELS % 5, 6).movedim(-1, 1)

# What no tensor, number, choice or generator is.
NO_TENSOR: list[Any] = ["features", [1.0], np.ones((2, 4, 2, 3)), 3, 1.5, {}, object()]
NO_NUMBER: list[Any] = [
    "1", True, np.True_, float("nan"), np.float32("nan"), 1j, [1.0], (1.0,), {}, np.ones(1),
    np.array("1"), Decimal(1), object(),
]  # fmt: skip
BEYOND = [10**400, -(10**400), 10**5000]
ONES = [torch.ones(1), torch.ones(2, 2)]
NO_CHOICE: list[Any] = [
    "nothing of this", 7, 1.5, ["cosine"], ("cosine",), {"cosine"}, {}, np.array(["cosine", "dot"]),
    np.array(["cosine"]), np.ones(3), torch.ones(3), torch.ones(1), torch.ones(()),
    float("nan"), object(), b"cosine", NESTED,
]  # fmt: skip
NO_GENERATOR: list[Any] = [0, "seed", np.random.default_rng(0), torch.Generator, object()]

UNCHECKED = {"process_group", "others"}


class Call(NamedTuple):
    """A public call and its right arguments."""

    function: Callable[..., Any]
    arguments: dict[str, Any]


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
    return {
        "assign_subclasses": Call(
            pc.assign_subclasses, {**known, "prototypes": PROTOTYPES[:, None]},
        ),
        "bidirectional_contrast": Call(
            pc.bidirectional_contrast, {**domains, **given, "num_classes": 3},
        ),
        "backends": Call(pc.backends, {}),
        "default_backend": Call(pc.default_backend, {"backend": "eager"}),
        "check_labels": Call(pc.check_labels, {"labels": LABELS, "num_classes": 3}),
        "class_mix": Call(pc.class_mix, images),
        "class_prototypes": Call(
            pc.class_prototypes, {**pixels, "num_classes": 3, "pixel_weight": WEIGHT}
        ),
        "class_statistics": Call(
            pc.class_statistics, {**pixels, "num_classes": 3, "pixel_weight": WEIGHT}
        ),
        "confident_share": Call(
            pc.confident_share, {"probabilities": SHARES, "threshold": 0.5},
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
            pc.sinkhorn, {"scores": LOGITS, "prior": PER_CLASS, "pixel_weight": WEIGHT}
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
        "BiCL": Call(pc.BiCL, {"num_classes": 3, "dim": 4}),
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
            pc.PixelPrototypeContrastLoss, {"class_weight": PER_CLASS}
        ),
        "PixelPrototypeContrastLoss.forward": Call(
            pc.PixelPrototypeContrastLoss(),
            {**known, "present": PRESENT, "pixel_weight": WEIGHT},
        ),
        "PrototypeBank": Call(pc.PrototypeBank, {"num_classes": 3, "dim": 4}),
        "PrototypeBank.update": Call(bank.update, {**pixels, "pixel_weight": WEIGHT}),
        "PrototypeBank.update_from": Call(bank.update_from, {"stats": means}),
        "PrototypeBank.fit": Call(bank.fit, {"batches": [(FEATURES, LABELS)]}),
        "PrototypeBank.accumulate": Call(spread.accumulate, {"stats": wide}),
        "UpsampledCrossEntropyLoss": Call(
            pc.UpsampledCrossEntropyLoss, {"class_weight": PER_CLASS}
        ),
        "UpsampledCrossEntropyLoss.forward": Call(pc.UpsampledCrossEntropyLoss(), fine),
    }  # fmt: skip
