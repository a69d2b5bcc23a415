"""`UpsampledCrossEntropyLoss`: settings stored, the function of the same name called."""

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor

from protocontrast import UpsampledCrossEntropyLoss, upsampled_cross_entropy
from tests.differentiable import scene

FEATURES, LABELS, _ = scene(torch.float32)
UPSAMPLED: list[dict[str, Any]] = [
    {},
    {"align_corners": True, "reduction": "sum"},
    {"reduction": "none", "ignore_index": 7, "backend": "naive"},
]


@pytest.mark.parametrize("validate", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("settings", UPSAMPLED)
def test_upsampled(settings: dict[str, Any], weighted: bool, validate: bool) -> None:
    class_weight = torch.tensor([0.5, 1.0, 2.0, 0.0]) if weighted else None
    loss = UpsampledCrossEntropyLoss(class_weight, validate=validate, **settings)
    logits = FEATURES.reshape(2, 4, 2, 3)
    labels = LABELS.reshape(2, 2, 3).repeat(1, 2, 2)
    labels = torch.where(labels == 255, settings.get("ignore_index", 255), labels)
    expected = upsampled_cross_entropy(logits, labels, class_weight=class_weight, **settings)
    assert torch.equal(loss(logits, labels), expected)
    twin = pickle.loads(pickle.dumps(copy.deepcopy(loss)))
    assert torch.equal(twin(logits, labels), expected)
    assert list(loss.state_dict()) == (["class_weight"] if weighted else [])


def test_repr_of_upsampled() -> None:
    loss = UpsampledCrossEntropyLoss(align_corners=True)
    assert repr(loss) == (
        "UpsampledCrossEntropyLoss(ignore_index=255, align_corners=True, label_smoothing=0.0, "
        "reduction='mean', validate=False, backend='auto')"
    )
    assert repr(eval(repr(loss))) == repr(loss)


@pytest.mark.parametrize("validate", [False, True])
def test_validation_of_upsampled(validate: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[tuple[int, int]] = []

    def note(labels: Tensor, num_classes: int, *, ignore_index: int) -> None:
        read.append((num_classes, ignore_index))

    monkeypatch.setattr("protocontrast.losses.check_labels", note)
    loss = UpsampledCrossEntropyLoss(validate=validate)
    loss(FEATURES.reshape(2, 4, 2, 3), LABELS.reshape(2, 2, 3))
    assert read == ([(4, 255)] if validate else [])
