"""What `pixel_prototype_contrast` and `class_prototypes` say about labels and weights: in full."""

from typing import Any

import pytest
import torch

from protocontrast import class_prototypes, pixel_prototype_contrast
from tests.sentences import assert_raises

FEATURES = torch.ones(2, 4, 3, 5)
LABELS = torch.zeros(2, 3, 5, dtype=torch.int64)
PROTOTYPES = torch.ones(3, 4)
SOFT = torch.ones(2, 3, 3, 5)
GRID_HINT = "Hint: labels_to_grid brings labels to the features' size."
GRAD_HINT = "gradients go to features and prototypes only."


def contrast(features: Any = FEATURES, labels: Any = LABELS, **rest: Any) -> Any:
    return pixel_prototype_contrast(features, labels, PROTOTYPES, **rest)


def means(features: Any = FEATURES, labels: Any = LABELS, **rest: Any) -> Any:
    return class_prototypes(features, labels, 3, **rest)


CALLS = {"pixel_prototype_contrast": contrast, "class_prototypes": means}


def assert_says(function: str, error: type[Exception], text: str, **arguments: Any) -> None:
    assert_raises(error, f"{function}: {text}", lambda: CALLS[function](**arguments))


@pytest.mark.parametrize("function", CALLS)
@pytest.mark.parametrize(
    ("labels", "error", "text"),
    [
        ([[0]], TypeError, "expected labels to be a torch.Tensor, got list."),
        (
            LABELS.bool(),
            TypeError,
            "expected labels of an integer dtype, got torch.bool. "
            "Hint: a boolean mask is not a label map; use labels.long().",
        ),
        (
            LABELS.to(torch.complex64),
            TypeError,
            "expected labels of an integer dtype, got torch.complex64.",
        ),
        (
            torch.zeros(2, 6, 10, dtype=torch.uint8),
            ValueError,
            "expected labels of shape (2, 3, 5) as in features (2, 4, 3, 5), "
            f"got (2, 6, 10). {GRID_HINT}",
        ),
        (
            LABELS.flatten(1),
            ValueError,
            "expected labels of shape (2, 3, 5) as in features (2, 4, 3, 5), "
            "got (2, 15). Hint: labels.unflatten(1, (3, 5)).",
        ),
        (LABELS.to("meta"), ValueError, "expected labels on cpu like features, got meta."),
    ],
)
def test_labels(function: str, labels: Any, error: type[Exception], text: str) -> None:
    assert_says(function, error, text, labels=labels)


@pytest.mark.parametrize("function", CALLS)
@pytest.mark.parametrize(("features", "shape"), [((2, 4, 7), (2, 7)), ((7, 4), (7,))])
def test_the_shape_of_labels_follows_the_form(
    function: str, features: tuple[int, ...], shape: tuple[int, ...]
) -> None:
    text = f"expected labels of shape {shape} as in features {features}, got (2, 3, 5)."
    assert_says(function, ValueError, text, features=torch.ones(features))


WRONG_VALUES = [
    (7, 255, 2, ""),
    (3, 255, 1, "is num_classes (the number of prototypes) too small by one? "),
    (255, -100, 3, ""),
    (-100, 255, 30, ""),
    (-1, 255, 1, ""),
]


@pytest.mark.parametrize("function", CALLS)
@pytest.mark.parametrize("backend", ["eager", "naive"])
@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize(
    ("dtype", "value", "ignore_index", "times", "hint"),
    [
        (dtype, *wrong)
        for dtype in (torch.int64, torch.int16, torch.uint8)
        for wrong in WRONG_VALUES
        if torch.iinfo(dtype).min <= wrong[0]
    ],
)
def test_label_values(
    function: str, backend: str, grad: bool, dtype: torch.dtype, value: int, ignore_index: int,
    times: int, hint: str,
) -> None:  # fmt: skip
    labels = LABELS.to(dtype, copy=True).flatten()
    labels[-times:] = value
    text = (
        f"expected labels in 0..2 or ignore_index = {ignore_index}, "
        f"got value {value} (first of {times} wrong among 30 pixels). Hint: {hint}"
        "the usual ignore values are 255 and -100; is ignore_index the one of these labels?"
    )
    assert_says(
        function, ValueError, text, features=FEATURES.clone().requires_grad_(grad),
        labels=labels.reshape(2, 3, 5), ignore_index=ignore_index, backend=backend,
    )  # fmt: skip


@pytest.mark.parametrize("function", CALLS)
@pytest.mark.parametrize(
    ("weight", "error", "text"),
    [
        ([1.0], TypeError, "expected pixel_weight to be a torch.Tensor, got list."),
        (LABELS, TypeError, "expected pixel_weight of a floating dtype, got torch.int64."),
        (
            torch.ones(3),
            ValueError,
            "expected pixel_weight of shape (2, 3, 5) as in features (2, 4, 3, 5), got (3,).",
        ),
        (
            torch.ones(2, 3, 5, device="meta"),
            ValueError,
            "expected pixel_weight on cpu like features, got meta.",
        ),
        (
            torch.ones(2, 3, 5, requires_grad=True),
            TypeError,
            "expected pixel_weight without gradient, got requires_grad=True. "
            f"Hint: pass pixel_weight.detach(); {GRAD_HINT}",
        ),
    ],
)
def test_pixel_weight(function: str, weight: Any, error: type[Exception], text: str) -> None:
    assert_says(function, error, text, pixel_weight=weight)


@pytest.mark.parametrize(
    ("weight", "error", "text"),
    [
        ([1.0], TypeError, "expected class_weight to be a torch.Tensor, got list."),
        (
            torch.ones(3, dtype=torch.int64),
            TypeError,
            "expected class_weight of a floating dtype, got torch.int64.",
        ),
        (
            torch.ones(1, 3),
            ValueError,
            "expected class_weight of shape (3,) = (C,), got (1, 3).",
        ),
        (
            torch.ones(3, device="meta"),
            ValueError,
            "expected class_weight on cpu like features, got meta.",
        ),
        (
            torch.ones(3, requires_grad=True),
            TypeError,
            "expected class_weight without gradient, got requires_grad=True. "
            f"Hint: pass class_weight.detach(); {GRAD_HINT}",
        ),
    ],
)
def test_class_weight(weight: Any, error: type[Exception], text: str) -> None:
    assert_says("pixel_prototype_contrast", error, text, class_weight=weight)


SOFT_HINT = "Hint: hard labels need an integer dtype; soft targets have one channel per prototype."


@pytest.mark.parametrize(
    ("labels", "error", "text"),
    [
        (
            SOFT.to(torch.float8_e4m3fn),
            TypeError,
            "expected labels of a floating dtype, got torch.float8_e4m3fn.",
        ),
        (
            LABELS.float(),
            ValueError,
            "expected soft labels of shape (2, 3, 3, 5) for features (2, 4, 3, 5) and "
            f"3 prototypes, got (2, 3, 5). {SOFT_HINT}",
        ),
        (SOFT.to("meta"), ValueError, "expected labels on cpu like features, got meta."),
        (
            SOFT.clone().requires_grad_(),
            TypeError,
            "expected labels without gradient, got requires_grad=True. "
            f"Hint: pass labels.detach(); {GRAD_HINT}",
        ),
    ],
)
def test_soft_labels(labels: Any, error: type[Exception], text: str) -> None:
    assert_says("pixel_prototype_contrast", error, text, labels=labels)


@pytest.mark.parametrize(
    ("features", "shape"), [((2, 4, 7), (2, 3, 7)), ((7, 4), (7, 3)), ((0, 4), (0, 3))]
)
def test_the_shape_of_soft_labels_follows_the_form(
    features: tuple[int, ...], shape: tuple[int, ...]
) -> None:
    text = (
        f"expected soft labels of shape {shape} for features {features} and 3 prototypes, "
        f"got (2, 3, 3, 5). {SOFT_HINT}"
    )
    assert_says(
        "pixel_prototype_contrast", ValueError, text, features=torch.ones(features), labels=SOFT
    )


def test_weights_that_require_grad_are_fine_without_autograd() -> None:
    with torch.no_grad():
        loss = contrast(pixel_weight=torch.ones(2, 3, 5, requires_grad=True))
    assert loss.item() > 0


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            {"reduction": "average"},
            "expected reduction to be 'mean' or 'sum' or 'none', got 'average'.",
        ),
        ({"absent": "drop"}, "expected absent to be 'mask' or 'floor', got 'drop'."),
        *[
            (
                {"absent": "floor", "similarity": similarity},
                f'expected similarity to be "cosine" with absent="floor", got {similarity!r}. '
                'Hint: only a cosine has a lowest value; use absent="mask".',
            )
            for similarity in ("dot", "euclidean")
        ],
    ],
)
def test_settings(arguments: dict[str, Any], text: str) -> None:
    assert_says("pixel_prototype_contrast", ValueError, text, **arguments)
