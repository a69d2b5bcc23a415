"""The code in a hint mends the call it was given for: the result is that of the right call."""

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from protocontrast.functional import hints
from tests.bad_arguments import Call, calls
from tests.test_bad_arguments import parameters, tensors

PIXELWISE = {
    "labels", "source_labels", "target_labels", "predictions", "pixel_weight", "anchor_labels",
    "key_labels", "negative_labels", "anchor_weight",
}  # fmt: skip
LABELS = {name for name in PIXELWISE if "weight" not in name and name != "predictions"}
ANY_SHAPE = {("check_labels", "labels"), ("sample_pixels", "labels")}
"""A volume of one slice is right there."""


def mended(call: Call, arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments after what the hint of the refused call says about one of them."""
    with pytest.raises((TypeError, ValueError), match=r" Hint: ") as caught:
        call.function(**arguments)
    hint = str(caught.value).partition(" Hint: ")[2]
    found = re.search(r"(\w+)(\.\w+\([^()]*(\([^()]*\))?[^()]*\))+", hint)
    assert found is not None, hint
    return {**arguments, found[1]: eval(found[0], {}, arguments)}


def result(name: str, arguments: dict[str, Any]) -> list[Tensor]:
    """Of a fresh call, since banks move."""
    torch.manual_seed(0)
    return tensors(calls()[name].function(**arguments))


def assert_mended(name: str, arguments: dict[str, Any], right: dict[str, Any]) -> None:
    # One sentence names one argument, and two may be wrong.
    for _ in range(2):
        arguments = mended(calls()[name], arguments)
        with contextlib.suppress(TypeError, ValueError):
            found = result(name, arguments)
            break
    else:
        raise AssertionError(f"{name} refuses what the hints made of its arguments")
    torch.testing.assert_close(found, result(name, right), equal_nan=True)


def cases(names: set[str]) -> Iterator[tuple[str, str]]:
    for name, call in calls().items():
        for argument in parameters(call.function):
            if argument in names and argument in call.arguments:
                yield name, argument


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(("name", "argument"), sorted(set(cases(PIXELWISE)) - ANY_SHAPE))
def test_an_axis_of_one(name: str, argument: str, last: bool) -> None:
    right = calls()[name].arguments
    value = right[argument]
    wrong = {**right, argument: value[..., None] if last else value[:, None]}
    assert_mended(name, wrong, right)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(("name", "argument"), sorted(set(cases(LABELS)) - ANY_SHAPE))
def test_one_hot_labels(name: str, argument: str, last: bool) -> None:
    right = dict(calls()[name].arguments)
    right[argument] = torch.where(right[argument] == 255, 0, right[argument])
    one_hot = nn.functional.one_hot(right[argument], 3)
    if not last and one_hot.dim() > 2:
        one_hot = one_hot.movedim(-1, 1)
    assert_mended(name, {**right, argument: one_hot}, right)


OF_MAPS = ("class_mix", "upsampled_cross_entropy")
SOFT = {"pixel_prototype_contrast", "PixelPrototypeContrastLoss.forward", "distribution_contrast"}
HARD = {
    "class_prototypes", "class_statistics", "symmetric_cross_entropy", "prototype_pull", "spread",
    "assign_subclasses", "ClassQueue.push", "LogitBalance.update", "PrototypeBank.update",
    "BiCL.forward", "bidirectional_contrast", "BidirectionalContrastLoss.forward", "class_mix",
    "labels_to_grid", "upsampled_cross_entropy", "UpsampledCrossEntropyLoss.forward",
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "argument"), sorted(one for one in cases(LABELS) if one[0] in SOFT | HARD)
)
def test_one_hot_labels_of_a_floating_dtype(name: str, argument: str) -> None:
    right = dict(calls()[name].arguments)
    right[argument] = torch.where(right[argument] == 255, 0, right[argument])
    last = nn.functional.one_hot(right[argument], 3).float()
    assert_mended(name, {**right, argument: last}, right)
    if name in HARD:
        assert_mended(name, {**right, argument: last.movedim(-1, 1)}, right)


@pytest.mark.parametrize(
    "name",
    [
        "pixel_prototype_contrast", "PixelPrototypeContrastLoss.forward", "distribution_contrast",
        "prototype_logits", "prototype_pull", "spread", "class_prototypes", "class_statistics",
        "transfer_labels", "assign_subclasses", "symmetric_cross_entropy", "entropy", "mrkld",
        "ClassQueue.push", "ClassThresholds.update", "ClassThresholds.select",
        "LogitBalance.forward", "LogitBalance.update", "LogitBalance.delta",
        "PrototypeBank.update", "BiCL.forward", "bidirectional_contrast", *OF_MAPS,
    ],
)  # fmt: skip
@pytest.mark.parametrize("tokens", [False, True])
def test_channels_last(name: str, tokens: bool) -> None:
    if tokens and name in OF_MAPS:
        pytest.skip("which takes no tokens")
    right, wrong = {}, {}
    for argument, value in calls()[name].arguments.items():
        channels = argument.endswith(("features", "logits", "probabilities", "images"))
        pixels = argument in PIXELWISE
        if tokens and (channels or pixels) and "BiCL" not in name:
            value = value.flatten(2 if channels else 1)
        right[argument] = value
        wrong[argument] = value.movedim(1, -1) if channels else value
        if tokens and channels and "BiCL" in name:
            wrong[argument] = value.flatten(2).transpose(1, 2)
    if tokens and "BiCL" in name:
        with pytest.raises(ValueError, match=r"transpose\(1, 2\)\.unflatten\(2, \(h, w\)\)"):
            calls()[name].function(**wrong)
        return
    assert_mended(name, wrong, right)


def test_rows_of_a_map() -> None:
    right = calls()["class_prototypes"].arguments
    rows = {**right, "features": right["features"].flatten(2).transpose(1, 2).flatten(0, 1)}
    assert_mended("class_prototypes", rows, right)
    flat = {**right, "labels": right["labels"].flatten(1)}
    assert_mended("class_prototypes", flat, right)
    long = {**right, "features": right["features"].flatten(2)}
    assert_mended("class_prototypes", long, right)


def test_where_nobody_can_tell_there_is_no_hint() -> None:
    assert hints.one_per_pixel("labels", (2, 7), (2, 3, 5)) == ""
    assert hints.one_per_pixel("labels", (2, 3, 5, 4), (2, 3, 5), 3) == ""
    assert hints.label_map("labels", (2, 4, 5, 6), 2, 3) == ""
    assert "or dim=-1" in hints.label_map("labels", (2, 3, 5, 3), 2, 3)
    assert hints.channels_last("features", (12, 4), 4) == ""
    assert hints.channels_last("features", (2, 12, 4), 5) == ""
    assert hints.map_of_tokens("features", (2, 12, 4), 5) == ""
