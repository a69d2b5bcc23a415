"""What the four pixel functions say about features, prototypes, presence and settings: in full."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

import protocontrast as pc
from tests.sentences import assert_raises

FEATURES = torch.ones(2, 4, 3, 5)
LABELS = torch.zeros(2, 3, 5, dtype=torch.int64)
PROTOTYPES = torch.ones(3, 4)
SHAPES = "(B, D, Z, H, W), (B, D, H, W), (B, D, P) or (N, D)"
CALLS: dict[str, Callable[..., Any]] = {
    "pixel_prototype_contrast": lambda features=FEATURES, prototypes=PROTOTYPES, **rest: (
        pc.pixel_prototype_contrast(features, LABELS, prototypes, **rest)
    ),
    "prototype_logits": lambda features=FEATURES, prototypes=PROTOTYPES, **rest: (
        pc.prototype_logits(features, prototypes, **rest)
    ),
    "transfer_labels": lambda features=FEATURES, prototypes=PROTOTYPES, **rest: pc.transfer_labels(
        features, prototypes, **rest
    ),
    "class_prototypes": lambda features=FEATURES, num_classes=3, **rest: pc.class_prototypes(
        features, LABELS, num_classes, **rest
    ),
}
WITH_PROTOTYPES = ["pixel_prototype_contrast", "prototype_logits", "transfer_labels"]
WITH_LABELS = ["pixel_prototype_contrast", "class_prototypes", "transfer_labels"]
OPERATORS = {
    "pixel_prototype_contrast": "contrast",
    "prototype_logits": "logits",
    "transfer_labels": "transfer",
    "class_prototypes": "class_prototypes",
}


def assert_says(function: str, error: type[Exception], text: str, **arguments: Any) -> None:
    assert_raises(error, f"{function}: {text}", lambda: CALLS[function](**arguments))


def test_the_calls_are_right_but_for_what_is_changed() -> None:
    for call in CALLS.values():
        call()


@pytest.mark.parametrize("function", CALLS)
@pytest.mark.parametrize(
    ("features", "error", "text"),
    [
        ([1.0], TypeError, "expected features to be a torch.Tensor, got list."),
        (FEATURES.long(), TypeError, "expected features of a floating dtype, got torch.int64."),
        (
            FEATURES.to(torch.float8_e5m2),
            TypeError,
            "expected features of a floating dtype, got torch.float8_e5m2.",
        ),
        (
            torch.ones(4),
            ValueError,
            f"expected features of shape {SHAPES}, got (4,).",
        ),
        (
            torch.ones(1, 2, 3, 4, 5, 6),
            ValueError,
            f"expected features of shape {SHAPES}, got (1, 2, 3, 4, 5, 6).",
        ),
        (
            torch.ones(2, 0, 3, 5),
            ValueError,
            "expected features with at least one channel, got (2, 0, 3, 5).",
        ),
    ],
)
def test_features(function: str, features: Any, error: type[Exception], text: str) -> None:
    assert_says(function, error, text, features=features)


@pytest.mark.parametrize("function", CALLS)
def test_backends(function: str) -> None:
    names = "'auto' or 'triton' or 'native' or 'eager' or 'naive'"
    text = f"expected backend to be {names}, got 'cuda'."
    assert_says(function, ValueError, text, backend="cuda")


@pytest.mark.parametrize("function", CALLS)
def test_a_missing_kernel(function: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pc.kernels, "OPERATORS", frozenset())
    text = (
        f"expected backend for which {OPERATORS[function]} is implemented, got 'triton'. "
        'Hint: backend="auto" takes the fastest implementation there is.'
    )
    assert_says(function, ValueError, text, backend="triton")


@pytest.mark.parametrize("function", WITH_LABELS)
@pytest.mark.parametrize("value", [None, 255.0, True])
def test_ignore_index(function: str, value: Any) -> None:
    text = (
        f"expected ignore_index to be an integer, got {value!r}. "
        "Hint: the usual ignore values are 255 and -100."
    )
    assert_says(function, TypeError, text, ignore_index=value)


@pytest.mark.parametrize("function", WITH_PROTOTYPES)
@pytest.mark.parametrize(
    ("prototypes", "error", "text"),
    [
        (None, TypeError, "expected prototypes to be a torch.Tensor, got NoneType."),
        (
            PROTOTYPES.to(torch.complex64),
            TypeError,
            "expected prototypes of a floating dtype, got torch.complex64.",
        ),
        (
            torch.ones(3, 64),
            ValueError,
            "expected prototypes of shape (C, D) with D = 4 as in features (2, 4, 3, 5), "
            "got (3, 64). Hint: use the bank built for these features.",
        ),
        (
            torch.ones(2, 3, 4),
            ValueError,
            "expected prototypes of shape (C, D) with D = 4 as in features (2, 4, 3, 5), "
            "got (2, 3, 4). Hint: use the bank built for these features.",
        ),
        (
            torch.ones(0, 4),
            ValueError,
            "expected prototypes of shape (C, D) with at least one class, got (0, 4).",
        ),
        (
            PROTOTYPES.to("meta"),
            ValueError,
            "expected prototypes on cpu like features, got meta.",
        ),
    ],
)
def test_prototypes(function: str, prototypes: Any, error: type[Exception], text: str) -> None:
    assert_says(function, error, text, prototypes=prototypes)


@pytest.mark.parametrize("function", WITH_PROTOTYPES)
@pytest.mark.parametrize(
    ("present", "error", "text"),
    [
        ([True] * 3, TypeError, "expected present to be a torch.Tensor, got list."),
        (
            torch.ones(3),
            TypeError,
            "expected present of dtype torch.bool, got torch.float32. "
            "Hint: count > 0 says which classes are present.",
        ),
        (
            torch.ones(4, dtype=torch.bool),
            ValueError,
            "expected present of shape (3,) = (C,), got (4,).",
        ),
        (
            torch.ones(3, dtype=torch.bool, device="meta"),
            ValueError,
            "expected present on cpu like features, got meta.",
        ),
    ],
)
def test_present(function: str, present: Any, error: type[Exception], text: str) -> None:
    assert_says(function, error, text, present=present)


@pytest.mark.parametrize("function", WITH_PROTOTYPES)
def test_similarity(function: str) -> None:
    text = "expected similarity to be 'cosine' or 'dot' or 'euclidean', got 'l2'."
    assert_says(function, ValueError, text, similarity="l2")


@pytest.mark.parametrize("function", WITH_PROTOTYPES)
@pytest.mark.parametrize("value", [0, -0.1, float("nan"), float("inf"), True, "0.1", None])
def test_temperature(function: str, value: Any) -> None:
    text = f"expected temperature to be a finite number > 0, got {value!r}."
    assert_says(function, ValueError, text, temperature=value)


@pytest.mark.parametrize("value", [0, -1, 3.0, True, None])
def test_num_classes(value: Any) -> None:
    text = f"expected num_classes to be an integer >= 1, got {value!r}."
    assert_says("class_prototypes", ValueError, text, num_classes=value)


def test_images_of_rows() -> None:
    text = (
        "expected features of shape (B, D, Z, H, W), (B, D, H, W) or (B, D, P) "
        "with per_image=True, got (30, 4). "
        "Hint: pixels given as rows have no image; pass (B, D, P)."
    )
    assert_says("class_prototypes", ValueError, text, features=torch.ones(30, 4), per_image=True)


def test_measure() -> None:
    text = "expected measure to be 'confidence' or 'similarity', got 'margin'."
    assert_says("transfer_labels", ValueError, text, measure="margin")


@pytest.mark.parametrize(
    ("threshold", "error", "text"),
    [
        ("0.8", TypeError, "expected threshold to be a number or a (C,) tensor, got str."),
        (True, TypeError, "expected threshold to be a number or a (C,) tensor, got bool."),
        (torch.ones(4), ValueError, "expected threshold of shape (3,) = (C,), got (4,)."),
        (
            torch.tensor(1),
            TypeError,
            "expected threshold of a floating dtype, got torch.int64.",
        ),
        (
            torch.tensor(0.8, device="meta"),
            ValueError,
            "expected threshold on cpu like features, got meta.",
        ),
        (
            torch.ones(3, requires_grad=True),
            TypeError,
            "expected threshold without gradient, got requires_grad=True. Hint: pass "
            "threshold.detach(); gradients go to features and prototypes only.",
        ),
    ],
)
def test_threshold(threshold: Any, error: type[Exception], text: str) -> None:
    assert_says("transfer_labels", error, text, threshold=threshold)


def test_the_check_can_fail() -> None:
    def call() -> None:
        pc.transfer_labels(FEATURES, PROTOTYPES, measure="margin")

    text = "transfer_labels: expected measure to be 'confidence' or 'similarity', got 'margin'."
    assert_raises(ValueError, text, call)
    for error, wrong in [(ValueError, text[:-1]), (ValueError, text + " "), (Exception, text)]:
        with pytest.raises(AssertionError, match="got ValueError: transfer_labels"):
            assert_raises(error, wrong, call)
    with pytest.raises(AssertionError, match="got no error"):
        assert_raises(ValueError, text, lambda: None)
