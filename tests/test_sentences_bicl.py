"""`BiCL`: what is refused, in which sentence, and that no state has moved when it is."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from protocontrast import BiCL
from tests.sentences import assert_raises

FEATURES = torch.linspace(-1, 1, 2 * 4 * 6).sin().reshape(2, 4, 2, 3)
LABELS = torch.tensor([0, 1, 2, 0, 1, 255] * 2).reshape(2, 2, 3)
FINE = LABELS.repeat_interleave(3, 1).repeat_interleave(3, 2)
META = torch.device("meta")
IGNORE = "Hint: the usual ignore values are 255 and -100."


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        ({"temperature": 0.0}, ValueError, "temperature to be a finite number > 0, got 0.0."),
        ({"temperature": True}, ValueError, "temperature to be a finite number > 0, got True."),
        ({"threshold": None}, ValueError, "threshold to be a number, got None."),
        ({"threshold": math.nan}, ValueError, "threshold to be a number, got nan."),
        (
            {"threshold": torch.tensor([0.5])},
            ValueError,
            "threshold to be a number, got tensor([0.5000]).",
        ),
        (
            {"threshold": 7.0},
            ValueError,
            "threshold in [0, 1] as a confidence is, got 7.0. "
            "Hint: math.inf keeps no label, -math.inf every one.",
        ),
        (
            {"threshold": -0.5},
            ValueError,
            "threshold in [0, 1] as a confidence is, got -0.5. "
            "Hint: math.inf keeps no label, -math.inf every one.",
        ),
        (
            {"threshold": 1.5, "measure": "similarity"},
            ValueError,
            "threshold in [-1, 1] as a cosine similarity is, got 1.5. "
            "Hint: math.inf keeps no label, -math.inf every one.",
        ),
        (
            {"measure": "cosine"},
            ValueError,
            "measure to be 'confidence' or 'similarity', got 'cosine'.",
        ),
        ({"prototypes": None}, ValueError, "prototypes to be 'bank' or 'batch', got None."),
        ({"bank_update": "now"}, ValueError, "bank_update to be 'before' or 'after', got 'now'."),
        ({"absent": "keep"}, ValueError, "absent to be 'mask' or 'floor', got 'keep'."),
        ({"calibrate": "no"}, TypeError, "calibrate to be True or False, got 'no'."),
        ({"pairwise": "yes"}, TypeError, "pairwise to be True or False, got 'yes'."),
        ({"pairwise": 1}, TypeError, "pairwise to be True or False, got 1."),
        ({"validate": "abc"}, TypeError, "validate to be True or False, got 'abc'."),
        (
            {"pairwise": True},
            ValueError,
            'pairwise to be False with prototypes="bank", got True. '
            "Hint: a bank belongs to no image pair.",
        ),
        ({"weights": 1.0}, ValueError, "weights to be two numbers, got 1.0."),
        ({"weights": (1, 2, 3)}, ValueError, "weights to be two numbers, got (1, 2, 3)."),
        ({"weights": ("1", 2)}, ValueError, "weights to be two numbers, got ('1', 2)."),
        ({"weights": (math.nan, 2)}, ValueError, "weights to be two numbers, got (nan, 2)."),
        ({"ignore_index": 255.0}, TypeError, f"ignore_index to be an integer, got 255.0. {IGNORE}"),
        (
            {"backend": "cuda"},
            ValueError,
            "backend to be 'auto' or 'triton' or 'native' or 'eager' or 'naive', got 'cuda'.",
        ),
    ],
)
def test_settings(settings: Any, error: type[Exception], text: str) -> None:
    assert_raises(error, f"BiCL: expected {text}", lambda: BiCL(3, 4, **settings))


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"num_classes": 0}, "PrototypeBank: expected num_classes to be an integer >= 1, got 0."),
        ({"dim": 4.0}, "PrototypeBank: expected dim to be an integer >= 1, got 4.0."),
        ({"momentum": 2}, "PrototypeBank: expected momentum to be a number in [0, 1], got 2."),
        (
            {"normalize": "rows"},
            "PrototypeBank: expected normalize to be False or 'features' or 'prototypes', "
            "got 'rows'.",
        ),
        ({"bias_momentum": -1}, "DomainBias: expected momentum to be a number in [0, 1], got -1."),
        ({"bias_warmup": "x"}, "DomainBias: expected warmup to be 'zero' or 'copy', got 'x'."),
    ],
)
def test_settings_of_the_parts(settings: Any, text: str) -> None:
    arguments = {"num_classes": 3, "dim": 4, **settings}
    assert_raises(ValueError, text, lambda: BiCL(**arguments))


def test_numbers_of_any_kind_are_taken() -> None:
    settings: Any = {
        "temperature": np.float32(0.5),
        "threshold": np.float64(0.4),
        "momentum": 1,
        "weights": [1, np.float32(0.5)],
        "calibrate": np.True_,
        "pairwise": np.bool_(False),
    }
    plain = BiCL(3, 4, temperature=0.5, threshold=0.4, momentum=1.0, weights=(1.0, 0.5))
    out = BiCL(3, 4, **settings)(FEATURES, LABELS, FEATURES.flip(0))
    assert all(map(torch.equal, out, plain(FEATURES, LABELS, FEATURES.flip(0))))


def replaced(**changed: Any) -> tuple[Any, ...]:
    call = {"source": FEATURES, "labels": LABELS, "target": FEATURES.flip(0), "static": FINE}
    return tuple({**call, **changed}.values())


WRONG_VALUE = (
    "labels_to_grid: expected labels in 0..2 or ignore_index = 255, got value 7 (first of 4 wrong "
    "among 12 pixels). Hint: the usual ignore values are 255 and -100; is ignore_index the one of "
    "these labels?"
)
CALLS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"source": [1.0]}, TypeError, "source_features to be a torch.Tensor, got list."),
    (
        {"target": FEATURES.long()},
        TypeError,
        "target_features of a floating dtype, got torch.int64.",
    ),
    (
        {"source": FEATURES.flatten(2)},
        ValueError,
        "source_features of shape (B, D, z, h, w) or (B, D, h, w), got (2, 4, 6). "
        "Hint: source_features.unflatten(2, (h, w)) is a map.",
    ),
    (
        {"target": FEATURES[:, :2]},
        ValueError,
        "target_features with D = 4 channels, got (2, 2, 2, 3). "
        "Hint: dim is the channel count of the features.",
    ),
    (
        {"target": FEATURES.to(META)},
        ValueError,
        "target_features on cpu like the module's buffers, got meta.",
    ),
    ({"labels": [0, 1]}, TypeError, "source_labels to be a torch.Tensor, got list."),
    (
        {"static": LABELS.float()},
        TypeError,
        "target_labels of an integer dtype, got torch.float32.",
    ),
    (
        {"static": LABELS == 1},
        TypeError,
        "target_labels of an integer dtype, got torch.bool. "
        "Hint: a boolean mask is not a label map; use labels.long().",
    ),
    (
        {"labels": LABELS[:1]},
        ValueError,
        "source_labels of shape (2, H, W) for features (2, 4, 2, 3), got (1, 2, 3).",
    ),
    (
        {"static": LABELS[:, None]},
        ValueError,
        "target_labels of shape (2, H, W) for features (2, 4, 2, 3), got (2, 1, 2, 3). "
        "Hint: target_labels.squeeze(1).",
    ),
    ({"labels": LABELS.to(META)}, ValueError, "source_labels on cpu like its features, got meta."),
]


def assert_refused(bicl: BiCL, call: tuple[Any, ...], error: type[Exception], text: str) -> None:
    bicl(*replaced())
    before = {name: value.clone() for name, value in bicl.state_dict().items()}
    assert_raises(error, text, lambda: bicl(*call))
    assert all(torch.equal(value, before[name]) for name, value in bicl.state_dict().items())


@pytest.mark.parametrize("settings", [{}, {"bank_update": "after"}, {"prototypes": "batch"}])
@pytest.mark.parametrize(("changed", "error", "text"), CALLS)
def test_calls(changed: Any, error: type[Exception], text: str, settings: Any) -> None:
    assert_refused(BiCL(3, 4, **settings), replaced(**changed), error, f"BiCL: expected {text}")


@pytest.mark.parametrize("value", ["False", None, 0])
def test_update_is_a_flag(value: Any) -> None:
    bicl = BiCL(3, 4)
    before = {name: value.clone() for name, value in bicl.state_dict().items()}
    text = f"BiCL: expected update to be True or False, got {value!r}."
    assert_raises(TypeError, text, lambda: bicl(*replaced(), update=value))
    assert all(torch.equal(value, before[name]) for name, value in bicl.state_dict().items())


@pytest.mark.parametrize("validate", [False, True])
@pytest.mark.parametrize("settings", [{}, {"bank_update": "after"}, {"prototypes": "batch"}])
@pytest.mark.parametrize("side", ["labels", "static"])
def test_label_values(side: str, settings: Any, validate: bool) -> None:
    wrong: Tensor = torch.where(LABELS == 1, 7, LABELS)
    text = WRONG_VALUE.replace("labels_to_grid", "check_labels") if validate else WRONG_VALUE
    bicl = BiCL(3, 4, validate=validate, **settings)
    assert_refused(bicl, replaced(**{side: wrong}), ValueError, text)


def test_pairs_of_different_batches() -> None:
    bicl = BiCL(3, 4, prototypes="batch", pairwise=True)
    text = "BiCL: expected target_features of 2 images as in source_features, for pairs, got 1."
    assert_refused(bicl, replaced(target=FEATURES[:1], static=FINE[:1]), ValueError, text)
    alone = BiCL(3, 4, prototypes="batch")
    assert alone(*replaced(target=FEATURES[:1], static=FINE[:1])).loss.isfinite()


@pytest.mark.parametrize("prototypes", ["bank", "batch"])
@pytest.mark.parametrize("empty", ["source", "target", "both"])
def test_batches_without_images(empty: str, prototypes: Any) -> None:
    bicl = BiCL(3, 4, prototypes=prototypes)
    bicl(*replaced())
    changed: dict[str, Any] = {}
    if empty in ("source", "both"):
        changed |= {"source": FEATURES[:0], "labels": LABELS[:0]}
    if empty in ("target", "both"):
        changed |= {"target": FEATURES[:0], "static": FINE[:0]}
    source, labels, target, static = replaced(**changed)
    leaves = source.clone().requires_grad_(), target.clone().requires_grad_()
    out = bicl(leaves[0], labels, leaves[1], static)
    out.loss.backward()
    assert out.loss.isfinite()
    assert out.coverage.isfinite()
    if empty == "both":
        assert out.loss == 0
    for leaf in leaves:
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_pixel_that_is_not_finite_shows_in_the_loss_and_not_in_the_state(value: float) -> None:
    bicl = BiCL(3, 4)
    bicl(*replaced())
    broken = FEATURES.clone()
    broken[0, 1, 0, 0] = value
    out = bicl(*replaced(source=broken))
    assert out.loss.isnan()
    assert bicl.source_bank.skipped.tolist() == [1, 0, 0]
    assert all(value.isfinite().all() for value in bicl.state_dict().values())
    assert bicl(*replaced()).loss.isfinite()
