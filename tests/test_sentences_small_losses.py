"""What small losses, `rectify`, `sinkhorn` and `frequency_weights` say: in full."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

import protocontrast as pc
from tests.sentences import assert_raises

LOGITS = torch.zeros(2, 4, 3, 5)
LABELS = torch.zeros(2, 3, 5, dtype=torch.int64)
PROTOTYPES = torch.ones(3, 4)
SHARES = LOGITS.softmax(dim=1)
WEIGHT = torch.ones(2, 3, 5)
COUNTS = torch.ones(3)
META = torch.device("meta")
CALLS: dict[str, Callable[..., Any]] = {
    "entropy": lambda logits=LOGITS, **rest: pc.entropy(logits, **rest),
    "mrkld": lambda logits=LOGITS, **rest: pc.mrkld(logits, **rest),
    "similarity_kl": lambda logits=LOGITS, target_logits=LOGITS, **rest: pc.similarity_kl(
        logits, target_logits, **rest
    ),
    "symmetric_cross_entropy": lambda logits=LOGITS, labels=LABELS, **rest: (
        pc.symmetric_cross_entropy(logits, labels, **rest)
    ),
    "prototype_pull": lambda features=LOGITS, labels=LABELS, prototypes=PROTOTYPES, **rest: (
        pc.prototype_pull(features, labels, prototypes, **rest)
    ),
    "spread": lambda features=LOGITS, labels=None, prototypes=PROTOTYPES, **rest: pc.spread(
        features, labels, prototypes, **{"toward": "uniform", **rest}
    ),
    "rectify": lambda probabilities=SHARES, weights=SHARES: pc.rectify(probabilities, weights),
    "frequency_weights": lambda counts=COUNTS, **rest: pc.frequency_weights(counts, **rest),
    "sinkhorn": lambda scores=LOGITS, prior=None, **rest: pc.sinkhorn(scores, prior, **rest),
}


def assert_says(function: str, error: type[Exception], text: str, **arguments: Any) -> None:
    assert_raises(error, f"{function}: {text}", lambda: CALLS[function](**arguments))


def test_the_calls_are_right_but_for_what_is_changed() -> None:
    for call in CALLS.values():
        call()


READS = [
    ("entropy", "logits"),
    ("mrkld", "logits"),
    ("similarity_kl", "logits"),
    ("symmetric_cross_entropy", "logits"),
    ("prototype_pull", "features"),
    ("spread", "features"),
    ("rectify", "probabilities"),
    ("sinkhorn", "scores"),
]


@pytest.mark.parametrize(("function", "argument"), READS)
@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        ([1.0], TypeError, "to be a torch.Tensor, got list."),
        (LABELS, TypeError, "of a floating dtype, got torch.int64."),
        (
            LOGITS[0, 0, 0],
            ValueError,
            "of shape (B, D, Z, H, W), (B, D, H, W), (B, D, P) or (N, D), got (5,).",
        ),
        (LOGITS[:, :0], ValueError, "with at least one channel, got (2, 0, 3, 5)."),
    ],
)
def test_what_is_read(
    function: str, argument: str, value: Any, error: type[Exception], text: str
) -> None:
    assert_says(function, error, f"expected {argument} {text}", **{argument: value})


WEIGHTED = [
    ("entropy", "logits", "logits"),
    ("mrkld", "logits", "logits"),
    ("similarity_kl", "logits", "logits"),
    ("symmetric_cross_entropy", "logits", "logits"),
    ("prototype_pull", "features", "features and prototypes"),
]


@pytest.mark.parametrize(("function", "argument", "learns"), WEIGHTED)
def test_weights_and_reductions(function: str, argument: str, learns: str) -> None:
    assert_says(
        function,
        ValueError,
        f"expected pixel_weight of shape (2, 3, 5) as in {argument} (2, 4, 3, 5), got (2, 3).",
        pixel_weight=WEIGHT[:, :, 0],
    )
    assert_says(
        function,
        TypeError,
        "expected pixel_weight of a floating dtype, got torch.int64.",
        pixel_weight=LABELS,
    )
    assert_says(
        function,
        TypeError,
        "expected pixel_weight without gradient, got requires_grad=True. Hint: pass "
        f"pixel_weight.detach(); gradients go to {learns} only.",
        pixel_weight=WEIGHT.clone().requires_grad_(),
    )
    assert_says(
        function,
        ValueError,
        "expected reduction to be 'mean' or 'sum' or 'none', got 'max'.",
        reduction="max",
    )


@pytest.mark.parametrize("function", ["symmetric_cross_entropy", "prototype_pull", "spread"])
def test_labels(function: str) -> None:
    argument = "logits" if function == "symmetric_cross_entropy" else "features"
    assert_says(
        function,
        ValueError,
        f"expected labels of shape (2, 3, 5) as in {argument} (2, 4, 3, 5), got (2, 3, 4). Hint: "
        "labels_to_grid brings labels to the features' size.",
        labels=LABELS[:, :, :4],
    )
    assert_says(
        function,
        TypeError,
        "expected labels of an integer dtype, got torch.float32.",
        labels=LABELS.float(),
    )


OTHERS: list[tuple[str, dict[str, Any], type[Exception], str]] = [
    (
        "similarity_kl",
        {"target_logits": LOGITS[:, :3]},
        ValueError,
        "expected target_logits of shape (2, 4, 3, 5) like logits, got (2, 3, 3, 5).",
    ),
    (
        "similarity_kl",
        {"target_logits": LOGITS.to(META)},
        ValueError,
        "expected target_logits on cpu like logits, got meta.",
    ),
    (
        "symmetric_cross_entropy",
        {"labels": LABELS + 4},
        ValueError,
        "expected labels in 0..3 or ignore_index = 255, got value 4 (first of 30 wrong among 30 "
        "pixels). Hint: is num_classes (the number of prototypes) too small by one? the usual "
        "ignore values are 255 and -100; is ignore_index the one of these labels?",
    ),
    (
        "symmetric_cross_entropy",
        {"floor": 0},
        ValueError,
        "expected floor to be a number in (0, 1], got 0.",
    ),
    (
        "symmetric_cross_entropy",
        {"cross_entropy_weight": None},
        ValueError,
        "expected cross_entropy_weight to be a number, got None.",
    ),
    (
        "symmetric_cross_entropy",
        {"reverse_weight": math.nan},
        ValueError,
        "expected reverse_weight to be a number, got nan.",
    ),
    (
        "prototype_pull",
        {"labels": LABELS - 1},
        ValueError,
        "expected labels in 0..2 or ignore_index = 255, got value -1 (first of 30 wrong among 30 "
        "pixels). Hint: the usual ignore values are 255 and -100; is ignore_index the one of "
        "these labels?",
    ),
    (
        "spread",
        {"labels": LABELS - 1},
        ValueError,
        "expected labels in 0..2 or ignore_index = 255, got value -1 (first of 30 wrong among 30 "
        "pixels). Hint: the usual ignore values are 255 and -100; is ignore_index the one of "
        "these labels?",
    ),
    (
        "prototype_pull",
        {"prototypes": PROTOTYPES[:, :2]},
        ValueError,
        "expected prototypes of shape (C, D) with D = 4 as in features (2, 4, 3, 5), got (3, 2). "
        "Hint: use the bank built for these features.",
    ),
    (
        "prototype_pull",
        {"present": torch.ones(3)},
        TypeError,
        "expected present of dtype torch.bool, got torch.float32. Hint: count > 0 says which "
        "classes are present.",
    ),
    (
        "spread",
        {"toward": "away"},
        ValueError,
        "expected toward to be 'uniform' or 'released', got 'away'.",
    ),
    (
        "spread",
        {"similarity": "l1"},
        ValueError,
        "expected similarity to be 'cosine' or 'dot' or 'euclidean', got 'l1'.",
    ),
    (
        "spread",
        {"temperature": 0},
        ValueError,
        "expected temperature to be a finite number > 0, got 0.",
    ),
    (
        "rectify",
        {"weights": SHARES[:1]},
        ValueError,
        "expected weights of shape (2, 4, 3, 5) like probabilities, got (1, 4, 3, 5).",
    ),
    (
        "rectify",
        {"weights": None},
        TypeError,
        "expected weights to be a torch.Tensor, got NoneType.",
    ),
    (
        "rectify",
        {"weights": SHARES.to(META)},
        ValueError,
        "expected weights on cpu like probabilities, got meta.",
    ),
    (
        "sinkhorn",
        {"prior": torch.ones(3)},
        ValueError,
        "expected prior of shape (4,) = (C,), got (3,).",
    ),
    (
        "sinkhorn",
        {"prior": torch.ones(4, dtype=torch.int64)},
        TypeError,
        "expected prior of a floating dtype, got torch.int64.",
    ),
    (
        "sinkhorn",
        {"prior": torch.ones(4, device=META)},
        ValueError,
        "expected prior on cpu like scores, got meta.",
    ),
    (
        "sinkhorn",
        {"epsilon": 0.0},
        ValueError,
        "expected epsilon to be a finite number > 0, got 0.0.",
    ),
    (
        "sinkhorn",
        {"iterations": 0},
        ValueError,
        "expected iterations to be an integer >= 1, got 0.",
    ),
    (
        "frequency_weights",
        {"counts": [1.0]},
        TypeError,
        "expected counts to be a torch.Tensor, got list.",
    ),
    (
        "frequency_weights",
        {"counts": torch.ones(3, dtype=torch.bool)},
        TypeError,
        "expected counts of an integer or floating dtype, got torch.bool.",
    ),
    (
        "frequency_weights",
        {"counts": torch.ones(2, 3)},
        ValueError,
        "expected counts of shape (C,) with at least one class, got (2, 3).",
    ),
    (
        "frequency_weights",
        {"strength": "high"},
        ValueError,
        "expected strength to be a number, got 'high'.",
    ),
]


@pytest.mark.parametrize(("function", "arguments", "error", "text"), OTHERS)
def test_sentences(
    function: str, arguments: dict[str, Any], error: type[Exception], text: str
) -> None:
    assert_says(function, error, text, **arguments)
