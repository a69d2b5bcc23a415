"""Calls with their pixels as rows, which the naive backend reads, and results on the way back."""

from collections.abc import Callable
from typing import Any, TypeVar

from torch import Tensor

from protocontrast.calls import accumulation_dtype
from protocontrast.ops.gradient import private_copy, private_temperature
from protocontrast.ops.labels import checked_labels

Call = TypeVar("Call", bound=tuple[Any, ...])


def in_rows(call: Call, function: str, num_classes: int) -> Call:
    """Features (N, D) in the accumulation dtype, hard labels (N,) checked, soft ones (N, C).

    What belongs to classes is copied: a bank may change it before backward.
    """
    features = call.features  # type: ignore[attr-defined]
    changed: dict[str, Any] = {}
    for name, value in call._asdict().items():  # type: ignore[attr-defined]
        if name == "temperature":
            changed[name] = private_temperature(value)
        elif not isinstance(value, Tensor):
            continue
        elif name in ("features", "pixel_weight"):
            changed[name] = feature_rows(value) if value.dim() == 3 else value.flatten()
        elif name == "filling":
            changed[name] = value.repeat(features.shape[0])
        elif name in ("labels", "static") and not value.is_floating_point():
            given = checked_labels(value, num_classes, call.ignore_index, function)  # type: ignore[attr-defined]
            changed[name] = given.flatten()
        elif name in ("labels", "targets"):
            changed[name] = value.transpose(1, 2).reshape(-1, value.shape[1])
        else:
            own = value if value.requires_grad else private_copy(value)
            floating = own.is_floating_point()
            changed[name] = own.to(accumulation_dtype(features)) if floating else own
    return call._replace(**changed)  # type: ignore[attr-defined]


def by_rows(
    specification: Callable[..., Any], function: str, rows: str = "prototypes"
) -> Callable[..., Any]:
    """What a specification makes of the calls of an operator, with a row of `rows` per class."""

    def results(call: Any, *settings: Any) -> Any:
        num_classes = getattr(call, rows).shape[0]
        found = specification(in_rows(call, function, num_classes), *settings)
        if isinstance(found, Tensor):
            return per_image(found, call.features)
        return tuple([per_image(one, call.features) for one in found])

    return results


def images_of(call: Call) -> list[Call]:
    """One call for each image of features and what has a value per pixel."""

    def one(image: int) -> Call:
        pixelwise = ("features", "labels", "pixel_weight")
        given = {name: getattr(call, name) for name in pixelwise}
        some = {n: None if v is None else v[image : image + 1] for n, v in given.items()}
        return call._replace(**some)  # type: ignore[attr-defined]

    return [one(image) for image in range(call.features.shape[0])]  # type: ignore[attr-defined]


def feature_rows(features: Tensor) -> Tensor:
    """(B, D, P) as (N, D), in the accumulation dtype."""
    rows = features.transpose(1, 2).reshape(-1, features.shape[1])
    return rows.to(accumulation_dtype(features))


def per_image(rows: Tensor, features: Tensor) -> Tensor:
    """Values of rows (N,) as (B, P), and (N, C) as (B, C, P)."""
    values = rows.reshape(features.shape[0], features.shape[2], *rows.shape[1:])
    return values if rows.dim() == 1 else values.transpose(1, 2)
