"""What is said about class distributions, queues, sub-classes and logit balance: in full."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

import protocontrast as pc
from tests.sentences import assert_raises

FEATURES = torch.ones(2, 4, 3, 5)
LABELS = torch.zeros(2, 3, 5, dtype=torch.int64)
ROWS = torch.ones(3, 4)
SEVERAL = torch.ones(3, 2, 4)
LOGITS = torch.ones(2, 3, 3, 5)
GRID_HINT = "Hint: labels_to_grid brings labels to the features' size."
IGNORE_HINT = "Hint: the usual ignore values are 255 and -100."
AUTO = 'Hint: backend="auto" takes the fastest implementation there is.'


def distribution(**given: Any) -> Any:
    call = {"features": FEATURES, "labels": LABELS, "prototypes": ROWS, "variance": ROWS, **given}
    return pc.distribution_contrast(**call)


def statistics(**given: Any) -> Any:
    return pc.class_statistics(
        **{"features": FEATURES, "labels": LABELS, "num_classes": 3, **given}
    )


def subclasses(**given: Any) -> Any:
    call = {"features": FEATURES, "labels": LABELS, "prototypes": SEVERAL, **given}
    return pc.assign_subclasses(**call)


def pushed(**given: Any) -> Any:
    queue = pc.ClassQueue(3, 2, 4)
    try:
        queue.push(**{"features": FEATURES, "labels": LABELS, **given})
    except Exception:
        assert not any(buffer.any() for buffer in queue.buffers())
        raise


def updated(**given: Any) -> Any:
    balance = pc.LogitBalance(3)
    try:
        balance.update(**{"logits": LOGITS, "labels": LABELS, **given})
    except Exception:
        assert not any(buffer.any() for buffer in balance.buffers())
        raise


CALLS: dict[str, tuple[str, Callable[..., Any]]] = {
    "distribution_contrast": ("distribution_contrast", distribution),
    "class_statistics": ("class_statistics", statistics),
    "assign_subclasses": ("assign_subclasses", subclasses),
    "push": ("ClassQueue", pushed),
    "update": ("LogitBalance", updated),
}


def assert_says(call: str, error: type[Exception], text: str, **given: Any) -> None:
    name, function = CALLS[call]
    assert_raises(error, f"{name}: {text}", lambda: function(**given))


@pytest.mark.parametrize("call", CALLS)
def test_the_calls_are_right_but_for_what_is_changed(call: str) -> None:
    CALLS[call][1]()


@pytest.mark.parametrize("call", CALLS)
def test_features_labels_and_ignore_index(call: str) -> None:
    first = "logits" if call == "update" else "features"
    given = {first: [1.0]}
    assert_says(call, TypeError, f"expected {first} to be a torch.Tensor, got list.", **given)
    given = {first: torch.ones(4)}
    shapes = "of shape (B, D, Z, H, W), (B, D, H, W), (B, D, P) or (N, D)"
    assert_says(call, ValueError, f"expected {first} {shapes}, got (4,).", **given)
    text = "expected labels of an integer dtype, got torch.bool. "
    text += "Hint: a boolean mask is not a label map; use labels.long()."
    assert_says(call, TypeError, text, labels=LABELS.bool())
    size = (2, 3, 3, 5) if call == "update" else (2, 4, 3, 5)
    text = f"expected labels of shape (2, 3, 5) as in {first} {size}, got (2, 6, 10). {GRID_HINT}"
    assert_says(call, ValueError, text, labels=torch.zeros(2, 6, 10).long())
    text = f"expected ignore_index to be an integer, got 255.0. {IGNORE_HINT}"
    assert_says(call, TypeError, text, ignore_index=255.0)


@pytest.mark.parametrize("call", CALLS)
def test_label_values(call: str) -> None:
    wrong = LABELS.clone()
    wrong[0, 0, :2] = 7
    text = (
        "expected labels in 0..2 or ignore_index = 255, got value 7 (first of 2 wrong among "
        "30 pixels). Hint: the usual ignore values are 255 and -100; is ignore_index the one of "
        "these labels?"
    )
    name = "class_prototypes" if call == "class_statistics" else CALLS[call][0]
    assert_raises(ValueError, f"{name}: {text}", lambda: CALLS[call][1](labels=wrong))


def test_there_is_no_kernel() -> None:
    text = f"expected backend for which class_statistics is implemented, got 'triton'. {AUTO}"
    assert_says("class_statistics", ValueError, text, backend="triton")


@pytest.mark.parametrize("call", ["distribution_contrast", "class_statistics", "assign_subclasses"])
def test_backends(call: str) -> None:
    names = "'auto' or 'triton' or 'native' or 'eager' or 'naive'"
    text = f"expected backend to be {names}, got 'cuda'."
    assert_says(call, ValueError, text, backend="cuda")


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ({"variance": [1.0]}, TypeError, "expected variance to be a torch.Tensor, got list."),
        (
            {"variance": ROWS.long()},
            TypeError,
            "expected variance of a floating dtype, got torch.int64.",
        ),
        (
            {"variance": ROWS[:2]},
            ValueError,
            "expected variance of shape (3, 4) like prototypes, got (2, 4).",
        ),
        (
            {"variance": ROWS.to("meta")},
            ValueError,
            "expected variance on cpu like features, got meta.",
        ),
        (
            {"prototypes": torch.ones(3, 64)},
            ValueError,
            "expected prototypes of shape (C, D) with D = 4 as in features (2, 4, 3, 5), "
            "got (3, 64). Hint: use the bank built for these features.",
        ),
        ({"normalize": 2}, TypeError, "expected normalize to be True or False, got 2."),
        (
            {"temperature": 0},
            ValueError,
            "expected temperature to be a finite number > 0, got 0.",
        ),
        (
            {"reduction": "avg"},
            ValueError,
            "expected reduction to be 'mean' or 'sum' or 'none', got 'avg'.",
        ),
        (
            {"present": torch.ones(3)},
            TypeError,
            "expected present of dtype torch.bool, got torch.float32. "
            "Hint: count > 0 says which classes are present.",
        ),
        (
            {"class_weight": torch.ones(4)},
            ValueError,
            "expected class_weight of shape (3,) = (C,), got (4,).",
        ),
        (
            {"pixel_weight": torch.ones(2, 3, 5, requires_grad=True)},
            TypeError,
            "expected pixel_weight without gradient, got requires_grad=True. Hint: pass "
            "pixel_weight.detach(); gradients go to features and prototypes only.",
        ),
    ],
)
def test_distribution_contrast(given: Any, error: type[Exception], text: str) -> None:
    assert_says("distribution_contrast", error, text, **given)


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ({"num_classes": 0}, ValueError, "expected num_classes to be an integer >= 1, got 0."),
        ({"normalize": None}, TypeError, "expected normalize to be True or False, got None."),
        (
            {"features": torch.ones(30, 4), "per_image": True},
            ValueError,
            "expected features of shape (B, D, Z, H, W), (B, D, H, W) or (B, D, P) "
            "with per_image=True, "
            "got (30, 4). Hint: pixels given as rows have no image; pass (B, D, P).",
        ),
    ],
)
def test_class_statistics(given: Any, error: type[Exception], text: str) -> None:
    assert_says("class_statistics", error, text, **given)


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        (
            {"prototypes": None},
            TypeError,
            "expected prototypes to be a torch.Tensor, got NoneType.",
        ),
        *(
            (
                {"prototypes": torch.ones(shape)},
                ValueError,
                "expected prototypes of shape (C, M, D) with D = 4 as in features (2, 4, 3, 5), "
                f"got {shape}. Hint: prototypes[:, None] is one prototype per class.",
            )
            for shape in [(3, 4), (3, 2, 6), (0, 2, 4), (3, 0, 4)]
        ),
        ({"epsilon": -1.0}, ValueError, "expected epsilon to be a finite number > 0, got -1.0."),
        ({"iterations": 0}, ValueError, "expected iterations to be an integer >= 1, got 0."),
        (
            {"ignore_index": 5},
            ValueError,
            "expected ignore_index outside 0..5, the labels of 2 x 3 sub-classes, got 5.",
        ),
    ],
)
def test_assign_subclasses(given: Any, error: type[Exception], text: str) -> None:
    assert_says("assign_subclasses", error, text, **given)


@pytest.mark.parametrize(
    ("logits", "num_classes", "error", "text"),
    [
        (None, 2, TypeError, "expected logits to be a torch.Tensor, got NoneType."),
        (torch.ones(2, 6), 0, ValueError, "expected num_classes to be an integer >= 1, got 0."),
        *(
            (
                torch.ones(shape),
                4,
                ValueError,
                "expected logits of shape (B, C * M, Z, H, W), (B, C * M, H, W), (B, C * M, P) "
                f"or (N, C * M) with C = 4, got {shape}.",
            )
            for shape in [(2, 6), (2, 0), (8,), (2, 8, 1, 1, 1, 1)]
        ),
    ],
)
def test_subclass_max(logits: Any, num_classes: int, error: type[Exception], text: str) -> None:
    assert_raises(error, f"subclass_max: {text}", lambda: pc.subclass_max(logits, num_classes))


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (
            {"features": torch.ones(2, 5, 3, 5)},
            "expected features with D = 4 channels, got (2, 5, 3, 5). "
            "Hint: dim is the channel count of the features.",
        ),
        ({"features": FEATURES.to("meta")}, "expected features on cpu like the queue, got meta."),
        ({"per_class": 0}, "expected per_class to be an integer >= 1, got 0."),
    ],
)
def test_push(given: Any, text: str) -> None:
    assert_says("push", ValueError, text, **given)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (
            {"logits": torch.ones(2, 4, 3, 5)},
            "expected logits with C = 3 channels, got (2, 4, 3, 5).",
        ),
        ({"logits": LOGITS.to("meta")}, "expected logits on cpu like the tables, got meta."),
        ({"domain": "test"}, "expected domain to be 'source' or 'target', got 'test'."),
    ],
)
def test_balance(given: Any, text: str) -> None:
    assert_says("update", ValueError, text, **given)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_sizes_of_a_queue(place: int) -> None:
    sizes: list[Any] = [3, 2, 4]
    sizes[place] = 1.5
    name = ("num_classes", "length", "dim")[place]
    text = f"ClassQueue: expected {name} to be an integer >= 1, got 1.5."
    assert_raises(ValueError, text, lambda: pc.ClassQueue(*sizes))


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"num_classes": 0}, "expected num_classes to be an integer >= 1, got 0."),
        ({"components": 0}, "expected components to be an integer >= 1, got 0."),
        ({"ramp": 0}, "expected ramp to be an integer >= 1, got 0."),
        ({"pixels": True}, "expected pixels to be an integer >= 1, got True."),
        ({"momentum": 1.5}, "expected momentum to be a number in [0, 1], got 1.5."),
        ({"strength": "1"}, "expected strength to be a number, got '1'."),
        ({"seed": None}, "expected seed to be an integer of 64 bits, got None."),
    ],
)
def test_settings_of_a_balance(given: Any, text: str) -> None:
    call = {"num_classes": 3, **given}
    assert_raises(ValueError, f"LogitBalance: {text}", lambda: pc.LogitBalance(**call))
