"""`PrototypeBank` and `DomainBias`: what is refused, in which sentence, and that nothing moves."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from protocontrast import ClassPrototypes, ClassStatistics, DomainBias, PrototypeBank
from tests.sentences import assert_raises

FEATURES, LABELS = torch.ones(6, 4), torch.tensor([0, 1, 2, 0, 1, 255])
ROWS, COUNT = torch.ones(3, 4), torch.ones(3)
PRESENT = torch.ones(3, dtype=torch.bool)
META = torch.device("meta")
BANK_SHAPE = "for a bank of 3 classes and dim 4"
BIAS_SHAPE = "for 3 classes and dim 4"
OWN_BANK = "Hint: use the bank built for these features."


@pytest.mark.parametrize("module", ["PrototypeBank", "DomainBias"])
@pytest.mark.parametrize("argument", ["num_classes", "dim"])
@pytest.mark.parametrize("value", [0, -1, 3.0, True, None, "3"])
def test_sizes(module: str, argument: str, value: Any) -> None:
    sizes = {"num_classes": 3, "dim": 4, argument: value}
    constructor = {"PrototypeBank": PrototypeBank, "DomainBias": DomainBias}[module]
    text = f"{module}: expected {argument} to be an integer >= 1, got {value!r}."
    assert_raises(ValueError, text, lambda: constructor(**sizes))


@pytest.mark.parametrize("module", ["PrototypeBank", "DomainBias"])
@pytest.mark.parametrize(
    "value", [-0.1, 1.1, math.nan, math.inf, True, None, "0.9", torch.tensor(0.9)]
)
def test_momentum(module: str, value: Any) -> None:
    constructor = {"PrototypeBank": PrototypeBank, "DomainBias": DomainBias}[module]
    text = f"{module}: expected momentum to be a number in [0, 1], got {value!r}."
    assert_raises(ValueError, text, lambda: constructor(3, 4, momentum=value))


@pytest.mark.parametrize("value", [0, 1, 0.5, np.float32(0.5), np.float64(0.5), np.int64(1)])
def test_any_number_is_a_momentum(value: Any) -> None:
    bank = PrototypeBank(1, 1, momentum=value)
    for mean in (2.0, 4.0):
        bank.update_from(ClassPrototypes(torch.tensor([[mean]]), torch.ones(1)))
    assert bank.prototypes.item() == 4 - 2 * float(value)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda: PrototypeBank(3, 4, rule="mean"),
            "PrototypeBank: expected rule to be 'ema' or 'cumulative' or 'replace', got 'mean'.",
        ),
        (
            lambda: PrototypeBank(3, 4, normalize=True),
            "PrototypeBank: expected normalize to be False or 'features' or 'prototypes', "
            "got True.",
        ),
        (
            lambda: PrototypeBank(3, 4, variance=True, normalize="prototypes"),
            'PrototypeBank: expected variance to be False with normalize="prototypes", got True. '
            'Hint: rows of unit length are no means; normalize="features" has a variance.',
        ),
        (
            lambda: DomainBias(3, 4, warmup="linear"),
            "DomainBias: expected warmup to be 'zero' or 'copy', got 'linear'.",
        ),
    ],
)
def test_choices(call: Callable[[], object], text: str) -> None:
    assert_raises(ValueError, text, call)


def test_variance_is_a_flag() -> None:
    text = "PrototypeBank: expected variance to be True or False, got 2.0."
    assert_raises(TypeError, text, lambda: PrototypeBank(3, 4, variance=2.0))  # type: ignore[arg-type]


PAIRS = "PrototypeBank: expected batches to be an iterable of (features, labels) pairs, got"


@pytest.mark.parametrize(
    ("batches", "got"),
    [
        (None, "NoneType"),
        (3, "int"),
        (FEATURES, "Tensor"),
        ("ab", "str"),
        (np.array(0.1), "ndarray"),
        ([FEATURES], "Tensor"),
        ([(FEATURES, LABELS), (FEATURES, LABELS, LABELS)], "tuple of 3"),
        ([(FEATURES, LABELS), None], "NoneType"),
    ],
)
def test_what_a_bank_is_fitted_to(batches: Any, got: str) -> None:
    bank = PrototypeBank(3, 4)
    bank.update(FEATURES, LABELS)
    before = {name: value.clone() for name, value in bank.named_buffers()}
    assert_raises(TypeError, f"{PAIRS} {got}.", lambda: bank.fit(batches))
    assert all(torch.equal(value, before[name]) for name, value in bank.named_buffers())


STATISTICS: list[tuple[Any, type[Exception], str]] = [
    (None, TypeError, "expected stats to be ClassPrototypes(mean, count), got NoneType."),
    (ROWS, TypeError, "expected stats to be ClassPrototypes(mean, count), got Tensor."),
    ((ROWS,), TypeError, "expected stats to be ClassPrototypes(mean, count), got tuple."),
    ((ROWS.tolist(), COUNT), TypeError, "expected stats.mean to be a torch.Tensor, got list."),
    ((ROWS, [1.0]), TypeError, "expected stats.count to be a torch.Tensor, got list."),
    ((ROWS.long(), COUNT), TypeError, "expected stats.mean of a floating dtype, got torch.int64."),
    ((ROWS, COUNT.long()), TypeError, "expected stats.count of a floating dtype, got torch.int64."),
    (
        (ROWS[:, :2], COUNT),
        ValueError,
        f"expected stats.mean of shape (3, 4) {BANK_SHAPE}, got (3, 2). {OWN_BANK}",
    ),
    (
        (ROWS[:2], COUNT[:2]),
        ValueError,
        f"expected stats.mean of shape (3, 4) {BANK_SHAPE}, got (2, 4). {OWN_BANK}",
    ),
    (
        (ROWS[0], COUNT),
        ValueError,
        f"expected stats.mean of shape (3, 4) {BANK_SHAPE}, got (4,). {OWN_BANK}",
    ),
    (
        (ROWS.expand(2, 3, 4)[:, :2], COUNT.expand(2, 3)),
        ValueError,
        f"expected stats.mean of shape (2, 3, 4) {BANK_SHAPE}, got (2, 2, 4). {OWN_BANK}",
    ),
    (
        (ROWS, COUNT[:2]),
        ValueError,
        "expected stats.count of shape (3,) like stats.mean, got (2,).",
    ),
    (
        (ROWS.expand(2, 3, 4), COUNT),
        ValueError,
        "expected stats.count of shape (2, 3) like stats.mean, got (3,).",
    ),
    ((ROWS.to(META), COUNT), ValueError, "expected stats.mean on cpu like the bank, got meta."),
    ((ROWS, COUNT.to(META)), ValueError, "expected stats.count on cpu like the bank, got meta."),
]


WITH_VARIANCE: list[tuple[Any, type[Exception], str]] = [
    (
        ClassPrototypes(ROWS, COUNT),
        TypeError,
        "expected stats to be ClassStatistics(mean, count, variance), got ClassPrototypes.",
    ),
    (
        (ROWS, COUNT, ROWS[:, :2]),
        ValueError,
        "expected stats.variance of shape (3, 4) like stats.mean, got (3, 2).",
    ),
    (
        (ROWS, COUNT, ROWS.long()),
        TypeError,
        "expected stats.variance of a floating dtype, got torch.int64.",
    ),
    (
        (ROWS, COUNT, ROWS.to(META)),
        ValueError,
        "expected stats.variance on cpu like the bank, got meta.",
    ),
]


@pytest.mark.parametrize(("stats", "error", "text"), WITH_VARIANCE)
def test_statistics_with_variance(stats: Any, error: type[Exception], text: str) -> None:
    bank = PrototypeBank(3, 4, variance=True)
    assert_raises(error, f"PrototypeBank: {text}", lambda: bank.update_from(stats))
    assert not bank.present.any()


def test_a_plain_bank_takes_no_variance() -> None:
    text = "expected stats to be ClassPrototypes(mean, count), got ClassStatistics."
    stats = ClassStatistics(ROWS, COUNT, ROWS)
    refused = PrototypeBank(3, 4).update_from
    assert_raises(TypeError, f"PrototypeBank: {text}", lambda: refused(stats))


@pytest.mark.parametrize("method", ["update_from", "accumulate"])
@pytest.mark.parametrize(("stats", "error", "text"), STATISTICS)
def test_statistics(method: str, stats: Any, error: type[Exception], text: str) -> None:
    bank = PrototypeBank(3, 4)
    bank.update(FEATURES, LABELS)
    before = {name: value.clone() for name, value in bank.named_buffers()}
    assert_raises(error, f"PrototypeBank: {text}", lambda: getattr(bank, method)(stats))
    assert all(torch.equal(value, before[name]) for name, value in bank.named_buffers())


@pytest.mark.parametrize(
    ("features", "labels", "error", "text"),
    [
        (
            FEATURES[:, :2],
            LABELS,
            ValueError,
            f"PrototypeBank: expected stats.mean of shape (3, 4) {BANK_SHAPE}, got (3, 2). "
            f"{OWN_BANK}",
        ),
        (
            FEATURES,
            LABELS + 2,
            ValueError,
            "class_prototypes: expected labels in 0..2 or ignore_index = 255, got value 3 "
            "(first of 4 wrong among 6 pixels). Hint: is num_classes (the number of prototypes) "
            "too small by one? the usual ignore values are 255 and -100; is ignore_index the one "
            "of these labels?",
        ),
        (
            [1.0],
            LABELS,
            TypeError,
            "class_prototypes: expected features to be a torch.Tensor, got list.",
        ),
        (
            FEATURES.to(META),
            LABELS.to(META),
            ValueError,
            "PrototypeBank: expected stats.mean on cpu like the bank, got meta.",
        ),
    ],
)
def test_batches(features: Any, labels: Any, error: type[Exception], text: str) -> None:
    bank = PrototypeBank(3, 4)
    bank.update(FEATURES, LABELS)
    before = {name: value.clone() for name, value in bank.named_buffers()}
    assert_raises(error, text, lambda: bank.update(features, labels))
    assert all(torch.equal(value, before[name]) for name, value in bank.named_buffers())


DIFFERENCES: list[tuple[tuple[Any, Any, Any], type[Exception], str]] = [
    (([1.0], ROWS, PRESENT), TypeError, "expected source to be a torch.Tensor, got list."),
    ((ROWS, None, PRESENT), TypeError, "expected target to be a torch.Tensor, got NoneType."),
    (
        (ROWS.long(), ROWS, PRESENT),
        TypeError,
        "expected source of a floating dtype, got torch.int64.",
    ),
    (
        (ROWS, ROWS[:2], PRESENT),
        ValueError,
        f"expected target of shape (3, 4) {BIAS_SHAPE}, got (2, 4).",
    ),
    (
        (ROWS.to(META), ROWS, PRESENT),
        ValueError,
        "expected source on cpu like the bias, got meta.",
    ),
    ((ROWS, ROWS, [True] * 3), TypeError, "expected present to be a torch.Tensor, got list."),
    ((ROWS, ROWS, COUNT), TypeError, "expected present of dtype torch.bool, got torch.float32."),
    ((ROWS, ROWS, PRESENT[:2]), ValueError, "expected present of shape (3,) = (C,), got (2,)."),
    (
        (ROWS, ROWS, PRESENT.to(META)),
        ValueError,
        "expected present on cpu like the bias, got meta.",
    ),
]


@pytest.mark.parametrize(("arguments", "error", "text"), DIFFERENCES)
def test_differences(arguments: tuple[Any, ...], error: type[Exception], text: str) -> None:
    bias = DomainBias(3, 4)
    bias.update(ROWS, 2 * ROWS, PRESENT)
    before = {name: value.clone() for name, value in bias.named_buffers()}
    assert_raises(error, f"DomainBias: {text}", lambda: bias.update(*arguments))
    assert all(torch.equal(value, before[name]) for name, value in bias.named_buffers())


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        (([1.0],), TypeError, "expected prototypes to be a torch.Tensor, got list."),
        (
            (ROWS[:, :2],),
            ValueError,
            f"expected prototypes of shape (3, 4) {BIAS_SHAPE}, got (3, 2).",
        ),
        ((ROWS.to(META),), ValueError, "expected prototypes on cpu like the bias, got meta."),
        ((ROWS, "1"), ValueError, "expected strength to be a number, got '1'."),
        ((ROWS, math.nan), ValueError, "expected strength to be a number, got nan."),
        ((ROWS, COUNT), ValueError, f"expected strength to be a number, got {COUNT!r}."),
    ],
)
def test_calibration(arguments: tuple[Any, ...], error: type[Exception], text: str) -> None:
    assert_raises(error, f"DomainBias: {text}", lambda: DomainBias(3, 4).calibrate(*arguments))
