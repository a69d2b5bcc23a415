"""The loss modules: settings stored, the function of the same name called, and nothing else."""

import copy
import math
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
    UpsampledCrossEntropyLoss,
    bidirectional_contrast,
    pixel_prototype_contrast,
)
from tests.differentiable import scene
from tests.sentences import assert_raises

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

    monkeypatch.setattr("protocontrast.losses.contrast.check_labels", note)
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
        "ignore_index=255, validate=False, backend='auto')"
    )
    assert repr(eval(repr(both))) == repr(both)


NAMES = {
    "PixelPrototypeContrastLoss": PixelPrototypeContrastLoss,
    "BidirectionalContrastLoss": lambda **settings: BidirectionalContrastLoss(3, **settings),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        ({"temperature": 0}, ValueError, "temperature to be a finite number > 0, got 0."),
        ({"temperature": math.nan}, ValueError, "temperature to be a finite number > 0, got nan."),
        ({"temperature": "1"}, ValueError, "temperature to be a finite number > 0, got '1'."),
        ({"absent": "drop"}, ValueError, "absent to be 'mask' or 'floor', got 'drop'."),
        (
            {"backend": "cpu"},
            ValueError,
            "backend to be 'auto' or 'triton' or 'native' or 'eager' or 'naive', got 'cpu'.",
        ),
        (
            {"ignore_index": None},
            TypeError,
            "ignore_index to be an integer, got None. "
            "Hint: the usual ignore values are 255 and -100.",
        ),
    ],
)
def test_settings(name: str, settings: Any, error: type[Exception], text: str) -> None:
    assert_raises(error, f"{name}: expected {text}", lambda: NAMES[name](**settings))


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        (
            {"similarity": "cos"},
            ValueError,
            "similarity to be 'cosine' or 'dot' or 'euclidean', got 'cos'.",
        ),
        ({"reduction": "avg"}, ValueError, "reduction to be 'mean' or 'sum' or 'none', got 'avg'."),
        (
            {"similarity": "dot", "absent": "floor"},
            ValueError,
            'similarity to be "cosine" with absent="floor", got \'dot\'.',
        ),
        ({"class_weight": [1.0]}, TypeError, "class_weight to be a torch.Tensor, got list."),
        (
            {"class_weight": torch.ones(3).long()},
            TypeError,
            "class_weight of a floating dtype, got torch.int64.",
        ),
        (
            {"class_weight": torch.ones(3, requires_grad=True)},
            TypeError,
            "class_weight without gradient, got requires_grad=True. Hint: pass "
            "class_weight.detach(); gradients go to features and prototypes only.",
        ),
    ],
)
def test_settings_of_the_contrast(settings: Any, error: type[Exception], text: str) -> None:
    text = f"PixelPrototypeContrastLoss: expected {text}"
    assert_raises(error, text, lambda: PixelPrototypeContrastLoss(**settings))


@pytest.mark.parametrize("value", [0, 3.0, True, None])
def test_num_classes(value: Any) -> None:
    text = f"BidirectionalContrastLoss: expected num_classes to be an integer >= 1, got {value!r}."
    assert_raises(ValueError, text, lambda: BidirectionalContrastLoss(value))


@pytest.mark.parametrize("value", ["abc", 1, None])
@pytest.mark.parametrize(
    "loss", [PixelPrototypeContrastLoss, BidirectionalContrastLoss, UpsampledCrossEntropyLoss]
)
def test_validate_is_a_bool(loss: Any, value: Any) -> None:
    first = (3,) if loss is BidirectionalContrastLoss else ()
    text = f"{loss.__name__}: expected validate to be True or False, got {value!r}."
    assert_raises(TypeError, text, lambda: loss(*first, validate=value))


def test_pairwise_is_a_bool() -> None:
    text = "BidirectionalContrastLoss: expected pairwise to be True or False, got 'no'."
    refused: Any = "no"
    assert_raises(TypeError, text, lambda: BidirectionalContrastLoss(3, pairwise=refused))
    taken: Any = np.False_
    assert BidirectionalContrastLoss(3, pairwise=taken)(FEATURES, LABELS, OTHER, LABELS).loss > 0


@pytest.mark.parametrize("validate", [False, True])
@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (
            (FEATURES, [0], PROTOTYPES),
            TypeError,
            "pixel_prototype_contrast: expected labels to be a torch.Tensor, got list.",
        ),
        (
            (FEATURES, LABELS, None),
            TypeError,
            "pixel_prototype_contrast: expected prototypes to be a torch.Tensor, got NoneType.",
        ),
        (
            (FEATURES, LABELS, torch.ones(())),
            ValueError,
            "pixel_prototype_contrast: expected prototypes of shape (C, D) with D = 4 as in "
            "features (2, 4, 6), got (). Hint: use the bank built for these features.",
        ),
    ],
)
def test_bad_calls(call: Any, error: type[Exception], text: str, validate: bool) -> None:
    assert_raises(error, text, lambda: PixelPrototypeContrastLoss(validate=validate)(*call))


@pytest.mark.parametrize("validate", [False, True])
def test_wrong_labels(validate: bool) -> None:
    loss = BidirectionalContrastLoss(2, validate=validate)
    with pytest.raises(ValueError, match=r"got value 2 \(first of 3 wrong among 12 pixels\)"):
        loss(FEATURES, LABELS, OTHER, LABELS)
