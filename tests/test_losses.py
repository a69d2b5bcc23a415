"""The loss modules: settings stored, the function of the same name called, and nothing else."""

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import protocontrast as pc
from tests.agreement import values_and_gradients
from tests.bad_arguments import calls

WEIGHT = torch.tensor([0.5, 1.0, 2.0])
ALONE = {"backend": "naive", "reduction": "none"}
FUNCTIONS: dict[str, Any] = {
    "PixelPrototypeContrastLoss": pc.pixel_prototype_contrast,
    "BidirectionalContrastLoss": pc.bidirectional_contrast,
    "PairContrastLoss": pc.pair_contrast,
    "UpsampledCrossEntropyLoss": pc.upsampled_cross_entropy,
}
SETTINGS: dict[str, list[dict[str, Any]]] = {
    "PixelPrototypeContrastLoss": [
        {"similarity": "dot", "temperature": 1.0},
        {"similarity": "euclidean", "temperature": 2, "class_weight": WEIGHT},
        {"absent": "floor", "reduction": "sum", "label_smoothing": 0.25},
        {**ALONE, "ignore_index": 3, "class_weight": WEIGHT},
    ],
    "BidirectionalContrastLoss": [
        {"num_classes": 3},
        {"num_classes": 3, "pairwise": np.False_, "temperature": 0.5},
        {"num_classes": 3, "absent": "floor", "backend": "naive", "ignore_index": -1},
        {"num_classes": 3, "balance": "class"},
    ],
    "PairContrastLoss": [
        {"similarity": "dot", "temperature": 1.0, "reduction": "sum", "denominator": "all"},
        {"similarity": "euclidean", "exclude_self": True},
        {**ALONE, "ignore_index": 3},
    ],
    "UpsampledCrossEntropyLoss": [
        {"align_corners": True, "reduction": "sum"},
        {"label_smoothing": 0.25, "class_weight": WEIGHT},
        {**ALONE, "ignore_index": 7, "class_weight": WEIGHT},
    ],
}
CASES = [
    pytest.param(name, {**settings, **more}, id=f"{name}-{number}-{more}")
    for name, several in SETTINGS.items()
    for number, settings in enumerate(several)
    for more in ([{}] if name == "PairContrastLoss" else [{}, {"validate": True}])
]
SHOWN = [
    "PixelPrototypeContrastLoss(similarity='dot', temperature=0.5, absent='mask', "
    "ignore_index=255, label_smoothing=0.0, reduction='mean', validate=False, backend='auto')",
    "BidirectionalContrastLoss(3, pairwise=True, temperature=0.1, absent='mask', "
    "balance='pixel', ignore_index=255, validate=False, backend='auto')",
    "PairContrastLoss(similarity='cosine', temperature=0.1, denominator='all', "
    "exclude_self=True, ignore_index=255, reduction='mean', backend='auto')",
    "UpsampledCrossEntropyLoss(ignore_index=255, align_corners=True, label_smoothing=0.25, "
    "reduction='mean', validate=False, backend='auto')",
]


def given(name: str, settings: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call of the module, the ignored pixels as the settings have them."""
    ignored = settings.get("ignore_index", 255)
    arguments = {
        key: torch.where(value == 255, ignored, value) if key.endswith("labels") else value
        for key, value in calls()[f"{name}.forward"].arguments.items()
    }
    if name == "BidirectionalContrastLoss" and settings.get("pairwise", True):
        arguments = {key: arguments[key] for key in arguments if "prototypes" not in key}
        arguments = {key: arguments[key] for key in arguments if "present" not in key}
    return arguments


@pytest.mark.parametrize(("name", "settings"), CASES)
def test_it_is_the_function_with_the_settings(name: str, settings: dict[str, Any]) -> None:
    plain = {key: value for key, value in settings.items() if key != "validate"}
    module, arguments = getattr(pc, name)(**settings), given(name, settings)
    ends = "features", "anchors", "keys", "logits"
    wanted = [key for key in arguments if key.endswith(ends) or key == "prototypes"]
    expected = values_and_gradients(FUNCTIONS[name], {**arguments, **plain}, wanted, 0)
    for twin in (module, copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert repr(twin) == repr(module)
        found = values_and_gradients(twin, arguments, wanted, 0)
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert list(module.state_dict()) == (["class_weight"] if "class_weight" in settings else [])


@pytest.mark.parametrize("text", SHOWN)
def test_repr_is_the_constructor_call(text: str) -> None:
    assert repr(eval(text, vars(pc).copy())) == text


@pytest.mark.parametrize("validate", [False, True])
@pytest.mark.parametrize(
    "name",
    ["PixelPrototypeContrastLoss", "BidirectionalContrastLoss", "UpsampledCrossEntropyLoss"],
)
def test_validation_reads_the_labels_on_any_device(
    name: str, validate: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Operators on a GPU check no values, so there the modules must."""
    read: list[Any] = []

    def note(labels: Tensor, num_classes: int, *, ignore_index: int) -> None:
        read.append((labels.sum().item(), num_classes, ignore_index))

    monkeypatch.setattr("protocontrast.losses.check_labels", note)
    place = (3,) if name == "BidirectionalContrastLoss" else ()
    module = getattr(pc, name)(*place, validate=validate, ignore_index=-100)
    arguments = given(name, {"ignore_index": -100})
    for key in [key for key in arguments if key == "source_labels"]:
        arguments[key] = arguments[key].roll(1, 2).clamp(max=1)
    module(**arguments)
    labels = [value for key, value in arguments.items() if key.endswith("labels")]
    assert read == ([(value.sum().item(), 3, -100) for value in labels] if validate else [])


@pytest.mark.parametrize("validate", [False, True])
def test_soft_labels_pass_the_validation(validate: bool) -> None:
    arguments = given("PixelPrototypeContrastLoss", {})
    soft = {**arguments, "labels": torch.rand(2, 3, 2, 3)}
    expected = pc.pixel_prototype_contrast(**soft)
    assert torch.equal(pc.PixelPrototypeContrastLoss(validate=validate)(**soft), expected)


def test_the_class_weight_is_a_buffer() -> None:
    loss, arguments = pc.PixelPrototypeContrastLoss(WEIGHT), given("PixelPrototypeContrastLoss", {})
    expected = loss(**arguments)
    assert copy.deepcopy(loss).to("meta").class_weight.is_meta
    assert loss.half().class_weight.dtype == torch.float16
    assert torch.equal(loss(**arguments), expected)


def test_without_keys_the_anchors_are_the_keys() -> None:
    arguments = given("PairContrastLoss", {})
    rows = arguments["anchors"], arguments["anchor_labels"]
    expected = pc.pair_contrast(*rows, *rows, exclude_self=True)
    assert torch.equal(pc.PairContrastLoss(exclude_self=True)(*rows), expected)
