"""The loss modules: settings stored, the function of the same name called, and nothing else."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from protocontrast import (
    BidirectionalContrastLoss,
    PixelPrototypeContrastLoss,
    bidirectional_contrast,
    pixel_prototype_contrast,
)
from tests.differentiable import scene

FEATURES, LABELS, PROTOTYPES = scene(torch.float32)
OTHER = scene(torch.float32, seed=1).features
WEIGHT = torch.tensor([0.5, 1.0, 2.0])
PRESENT = torch.tensor([True, True, False])

CONTRAST: list[dict[str, Any]] = [
    {},
    {"similarity": "dot", "temperature": 1.0},
    {"similarity": "euclidean", "temperature": 2},
    {"absent": "floor", "reduction": "sum"},
    {"reduction": "none", "ignore_index": 3, "backend": "naive"},
]
BOTH: list[dict[str, Any]] = [
    {},
    {"pairwise": False, "temperature": 0.5},
    {"absent": "floor", "backend": "naive", "ignore_index": -1},
    {"balance": "class"},
]


def without_255(labels: Tensor, settings: dict[str, Any]) -> Tensor:
    return torch.where(labels == 255, settings.get("ignore_index", 255), labels)


@pytest.mark.parametrize("validate", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("settings", CONTRAST)
def test_contrast(settings: dict[str, Any], weighted: bool, validate: bool) -> None:
    class_weight = WEIGHT if weighted else None
    loss = PixelPrototypeContrastLoss(class_weight, validate=validate, **settings)
    labels = without_255(LABELS, settings)
    call = {"present": PRESENT, "pixel_weight": torch.rand(2, 6)}
    expected = pixel_prototype_contrast(
        FEATURES, labels, PROTOTYPES, class_weight=class_weight, **settings, **call
    )
    assert torch.equal(loss(FEATURES, labels, PROTOTYPES, **call), expected)
    plain = pixel_prototype_contrast(
        FEATURES, labels, PROTOTYPES, class_weight=class_weight, **settings
    )
    assert torch.equal(loss(FEATURES, labels, PROTOTYPES), plain)


@pytest.mark.parametrize("validate", [False, True])
@pytest.mark.parametrize("settings", BOTH)
def test_both_directions(settings: dict[str, Any], validate: bool) -> None:
    loss = BidirectionalContrastLoss(3, validate=validate, **settings)
    labels = without_255(LABELS, settings)
    call = FEATURES, labels, OTHER, labels.flip(0)
    expected = bidirectional_contrast(*call, num_classes=3, **settings)
    assert all(map(torch.equal, loss(*call), expected))


def test_both_directions_with_given_prototypes() -> None:
    loss = BidirectionalContrastLoss(3, pairwise=False)
    given = {
        "source_prototypes": PROTOTYPES,
        "target_prototypes": PROTOTYPES.flip(0),
        "source_present": PRESENT,
        "target_present": ~PRESENT,
    }
    call = FEATURES, LABELS, OTHER, LABELS
    expected = bidirectional_contrast(*call, num_classes=3, pairwise=False, **given)
    assert all(map(torch.equal, loss(*call, **given), expected))


@pytest.mark.parametrize("validate", [False, True])
def test_validation_reads_the_labels_on_any_device(
    validate: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Operators on a GPU check no values, so there the modules must.
    read: list[Any] = []

    def note(labels: Tensor, num_classes: int, *, ignore_index: int) -> None:
        read.append((labels.sum().item(), num_classes, ignore_index))

    monkeypatch.setattr("protocontrast.losses.check_labels", note)
    labels = torch.where(LABELS == 255, -100, LABELS)
    PixelPrototypeContrastLoss(validate=validate, ignore_index=-100)(FEATURES, labels, PROTOTYPES)
    both = BidirectionalContrastLoss(3, validate=validate, ignore_index=-100)
    both(FEATURES, labels, OTHER, labels[:1].expand(2, 6))
    sums = [labels.sum().item(), labels.sum().item(), 2 * labels[0].sum().item()]
    assert read == ([(value, 3, -100) for value in sums] if validate else [])


@pytest.mark.parametrize("validate", [False, True])
def test_soft_labels_pass_the_validation(validate: bool) -> None:
    loss = PixelPrototypeContrastLoss(validate=validate)
    soft = torch.rand(2, 3, 6)
    expected = pixel_prototype_contrast(FEATURES, soft, PROTOTYPES)
    assert torch.equal(loss(FEATURES, soft, PROTOTYPES), expected)


@pytest.mark.parametrize("validate", [False, True])
def test_gradients_reach_features_and_prototypes(validate: bool) -> None:
    leaves = FEATURES.clone().requires_grad_(), PROTOTYPES.clone().requires_grad_()
    PixelPrototypeContrastLoss(validate=validate)(leaves[0], LABELS, leaves[1]).backward()
    expected = FEATURES.clone().requires_grad_(), PROTOTYPES.clone().requires_grad_()
    pixel_prototype_contrast(expected[0], LABELS, expected[1]).backward()
    for mine, theirs in zip(leaves, expected, strict=True):
        assert mine.grad is not None
        assert theirs.grad is not None
        assert torch.equal(mine.grad, theirs.grad)


def test_the_class_weight_is_a_buffer() -> None:
    loss = PixelPrototypeContrastLoss(WEIGHT)
    assert list(loss.state_dict()) == ["class_weight"]
    assert loss.to("meta").class_weight.is_meta
    assert list(PixelPrototypeContrastLoss().state_dict()) == []
    narrow = PixelPrototypeContrastLoss(WEIGHT).half()
    assert narrow.class_weight.dtype == torch.float16
    expected = pixel_prototype_contrast(FEATURES, LABELS, PROTOTYPES, class_weight=WEIGHT)
    assert torch.equal(narrow(FEATURES, LABELS, PROTOTYPES), expected)


@pytest.mark.parametrize("how", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_copies_and_pickles(how: Callable[[Any], Any]) -> None:
    one = PixelPrototypeContrastLoss(WEIGHT, temperature=0.3, absent="floor")
    twin = how(one)
    assert repr(twin) == repr(one)
    inputs = FEATURES, LABELS, PROTOTYPES
    assert torch.equal(twin(*inputs), one(*inputs))
    both = BidirectionalContrastLoss(3, pairwise=False)
    assert repr(how(both)) == repr(both)


def test_repr_is_the_constructor_call() -> None:
    loss = PixelPrototypeContrastLoss(temperature=0.5, similarity="dot")
    assert repr(loss) == (
        "PixelPrototypeContrastLoss(similarity='dot', temperature=0.5, absent='mask', "
        "ignore_index=255, label_smoothing=0.0, reduction='mean', validate=False, "
        "backend='auto')"
    )
    assert repr(eval(repr(loss))) == repr(loss)
    both = BidirectionalContrastLoss(3)
    assert repr(both) == (
        "BidirectionalContrastLoss(3, pairwise=True, temperature=0.1, absent='mask', "
        "balance='pixel', ignore_index=255, validate=False, backend='auto')"
    )
    assert repr(eval(repr(both))) == repr(both)


def test_flags_of_numpy_are_flags() -> None:
    taken: Any = np.False_
    assert BidirectionalContrastLoss(3, pairwise=taken)(FEATURES, LABELS, OTHER, LABELS).loss > 0
