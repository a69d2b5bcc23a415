"""What `upsampled_cross_entropy` and its module say, in full."""

from typing import Any

import pytest
import torch

from protocontrast import UpsampledCrossEntropyLoss, kernels, upsampled_cross_entropy
from tests.sentences import assert_raises

LOGITS = torch.ones(2, 4, 3, 5)
LABELS = torch.zeros(2, 6, 10, dtype=torch.int64)
WEIGHT = torch.ones(4)
SMALLER = "Hint: labels_to_grid makes smaller labels; logits are never downsampled."
IGNORE_HINT = "Hint: the usual ignore values are 255 and -100."
BACKENDS = "'auto' or 'triton' or 'native' or 'eager' or 'naive'"
GRAD = (
    "expected class_weight without gradient, got requires_grad=True. "
    "Hint: pass class_weight.detach(); gradients go to logits only."
)


def assert_says(error: type[Exception], text: str, **arguments: Any) -> None:
    call = {"logits": LOGITS, "labels": LABELS, **arguments}
    text = f"upsampled_cross_entropy: {text}"
    assert_raises(error, text, lambda: upsampled_cross_entropy(**call))


def test_the_call_is_right_but_for_what_is_changed() -> None:
    assert upsampled_cross_entropy(LOGITS, LABELS).item() == pytest.approx(1.3862944)


@pytest.mark.parametrize(
    ("logits", "error", "text"),
    [
        ([1.0], TypeError, "expected logits to be a torch.Tensor, got list."),
        (LOGITS.long(), TypeError, "expected logits of a floating dtype, got torch.int64."),
        (
            LOGITS[0],
            ValueError,
            "expected logits of shape (B, C, z, h, w) or (B, C, h, w), got (4, 3, 5).",
        ),
        *(
            (
                torch.ones(shape),
                ValueError,
                f"expected logits with at least one class, row and column, got {shape}.",
            )
            for shape in [(2, 0, 3, 5), (2, 4, 0, 5), (2, 4, 3, 0)]
        ),
    ],
)
def test_logits(logits: Any, error: type[Exception], text: str) -> None:
    assert_says(error, text, logits=logits)


@pytest.mark.parametrize(
    ("labels", "error", "text"),
    [
        ([[0]], TypeError, "expected labels to be a torch.Tensor, got list."),
        (LABELS.float(), TypeError, "expected labels of an integer dtype, got torch.float32."),
        (
            LABELS.bool(),
            TypeError,
            "expected labels of an integer dtype, got torch.bool. "
            "Hint: a boolean mask is not a label map; use labels.long().",
        ),
        *(
            (
                torch.zeros(shape, dtype=torch.int64),
                ValueError,
                "expected labels of shape (2, H, W) with H >= 3 and W >= 5 for logits "
                f"(2, 4, 3, 5), got {shape}. {SMALLER}",
            )
            for shape in [(2, 2, 10), (2, 6, 4), (1, 6, 10), (2, 60), (2, 6, 10, 1, 1)]
        ),
        (
            LABELS[:, None],
            ValueError,
            "expected labels of shape (2, H, W) with H >= 3 and W >= 5 for logits "
            f"(2, 4, 3, 5), got {(2, 1, *LABELS.shape[1:])}. Hint: labels.squeeze(1).",
        ),
        (LABELS.to("meta"), ValueError, "expected labels on cpu like logits, got meta."),
    ],
)
def test_labels(labels: Any, error: type[Exception], text: str) -> None:
    assert_says(error, text, labels=labels)


@pytest.mark.parametrize("backend", ["eager", "naive"])
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("dtype", [torch.int64, torch.int16, torch.uint8])
@pytest.mark.parametrize(
    ("value", "ignore_index", "times", "hint"),
    [
        (7, 255, 2, ""),
        (4, 255, 1, "is num_classes (the number of prototypes) too small by one? "),
        (255, -100, 3, ""),
        (-100, 255, 120, ""),
    ],
)
def test_label_values(
    value: int, ignore_index: int, times: int, hint: str, dtype: torch.dtype, grad: bool,
    reduction: str, backend: str,
) -> None:  # fmt: skip
    limits = torch.iinfo(dtype)
    if not limits.min <= value <= limits.max:
        value, times = limits.max, 1
    labels = LABELS.to(dtype, copy=True).flatten()
    labels[-times:] = value
    if value == ignore_index:
        value, ignore_index = value, -100
    text = (
        f"expected labels in 0..3 or ignore_index = {ignore_index}, "
        f"got value {value} (first of {times} wrong among 120 pixels). Hint: {hint}"
        "the usual ignore values are 255 and -100; is ignore_index the one of these labels?"
    )
    assert_says(
        ValueError, text, logits=LOGITS.clone().requires_grad_(grad),
        labels=labels.reshape(2, 6, 10), ignore_index=ignore_index, reduction=reduction,
        backend=backend,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("weight", "error", "text"),
    [
        ([1.0], TypeError, "expected class_weight to be a torch.Tensor, got list."),
        (WEIGHT.long(), TypeError, "expected class_weight of a floating dtype, got torch.int64."),
        (WEIGHT[:3], ValueError, "expected class_weight of shape (4,) = (C,), got (3,)."),
        (WEIGHT.to("meta"), ValueError, "expected class_weight on cpu like logits, got meta."),
        (WEIGHT.clone().requires_grad_(), TypeError, GRAD),
    ],
)
def test_class_weight(weight: Any, error: type[Exception], text: str) -> None:
    assert_says(error, text, class_weight=weight)


SETTINGS = [
    (
        {"reduction": "avg"},
        ValueError,
        "expected reduction to be 'mean' or 'sum' or 'none', got 'avg'.",
    ),
    (
        {"align_corners": None},
        TypeError,
        "expected align_corners to be True or False, got None.",
    ),
    (
        {"ignore_index": 255.0},
        TypeError,
        f"expected ignore_index to be an integer, got 255.0. {IGNORE_HINT}",
    ),
    ({"backend": "cuda"}, ValueError, f"expected backend to be {BACKENDS}, got 'cuda'."),
]


@pytest.mark.parametrize(("settings", "error", "text"), SETTINGS)
def test_settings(settings: dict[str, Any], error: type[Exception], text: str) -> None:
    assert_says(error, text, **settings)
    text = f"UpsampledCrossEntropyLoss: {text}"
    assert_raises(error, text, lambda: UpsampledCrossEntropyLoss(**settings))


@pytest.mark.parametrize(
    ("weight", "error", "text"),
    [
        ([1.0], TypeError, "expected class_weight to be a torch.Tensor, got list."),
        (WEIGHT.clone().requires_grad_(), TypeError, GRAD),
    ],
)
def test_class_weight_of_the_module(weight: Any, error: type[Exception], text: str) -> None:
    text = f"UpsampledCrossEntropyLoss: {text}"
    assert_raises(error, text, lambda: UpsampledCrossEntropyLoss(weight))


def test_a_missing_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "OPERATORS", frozenset())
    text = (
        "expected backend for which upsampled_cross_entropy is implemented, got 'triton'. "
        'Hint: backend="auto" takes the fastest implementation there is.'
    )
    assert_says(ValueError, text, backend="triton")
