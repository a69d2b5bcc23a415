"""Volumes: every call takes them as maps; labels finer than features, and the whole method."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import export

import protocontrast as pc
from protocontrast import (
    BiCL,
    UpsampledCrossEntropyLoss,
    bidirectional_contrast,
    labels_to_grid,
    pixel_prototype_contrast,
    upsampled_cross_entropy,
)
from tests.bad_arguments import FEATURES, LABELS, PROTOTYPES, calls
from tests.strategies import label_map, laid_out, normal
from tests.test_bad_arguments import parameters, tensors
from tests.test_hints import PIXELWISE

Form = Callable[[Tensor, int], Tensor]
"""From a map, and its first axis of pixels, to the same pixels in another form."""

OF_CHANNELS = ("features", "logits", "probabilities", "scores", "images", "weights")
BY_THEMSELVES = {
    "labels_to_grid", "upsampled_cross_entropy", "UpsampledCrossEntropyLoss.forward",
    "pair_contrast", "PairContrastLoss.forward", "check_labels",
}  # fmt: skip
"""Which axes their pixels lie along matters; or they take rows alone, or give nothing."""
OF_MAPS = {"BiCL.forward", "class_mix"}
OF_IMAGES = {"select_labels", "confident_share", "sample_pixels", "ClassThresholds.select"}
"""To which it matters which image a pixel is of."""


def pixel_axis(argument: str) -> int | None:
    """The first one, of an argument with a value for each pixel, or for its channels."""
    if argument in PIXELWISE or argument == "base":
        return 1
    return 2 if argument.endswith(OF_CHANNELS) else None


NAMES = [
    name
    for name, call in calls().items()
    if (name[0].islower() or "." in name)
    and name not in BY_THEMSELVES
    and any(map(pixel_axis, call.arguments))
]


def as_given(value: Tensor, axis: int) -> Tensor:
    return value


def as_volume(value: Tensor, axis: int, layout: str = "contiguous") -> Tensor:
    return laid_out(value.unflatten(-1, (3, 1)), layout)


def as_rows(value: Tensor, axis: int) -> Tensor:
    return value.flatten(axis)


def of_no_image(value: Tensor, axis: int) -> Tensor:
    return value.flatten() if axis == 1 else value.movedim(1, -1).flatten(0, -2)


FORMS: dict[str, Form] = {
    **{
        f"{layout} volume": partial(as_volume, layout=layout)
        for layout in ("contiguous", "channels_last", "strided", "sliced")
    },
    "rows": as_rows,
    "no image": of_no_image,
}


def outcome(name: str, form: Form) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Results, the state that is left behind, and what may have a gradient."""
    torch.manual_seed(0)
    call, leaves = calls()[name], []
    arguments = dict(call.arguments)
    if "reduction" in parameters(call.function):
        arguments["reduction"] = "none"
    for argument, value in call.arguments.items():
        axis = pixel_axis(argument)
        if axis is not None:
            arguments[argument] = form(value, axis)
        if axis == 2:
            leaves.append(arguments[argument].detach().requires_grad_())
            arguments[argument] = leaves[-1]
    results = tensors(call.function(**arguments))
    owner = getattr(call.function, "__self__", call.function)
    return results, [*owner.buffers()] if isinstance(owner, nn.Module) else [], leaves


def slopes(results: list[Tensor], leaves: list[Tensor]) -> list[Tensor]:
    """The gradients, 0 where there is none, of a sum in which each result has a weight."""
    recorded = [one for one in results if one.requires_grad]
    if not recorded:
        return []
    total = sum(one.double().sum() * (place + 1) for place, one in enumerate(recorded))
    return [*torch.autograd.grad(total, leaves, materialize_grads=True)]  # type: ignore[arg-type]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", NAMES)
def test_pixels_in_another_form(name: str, form: str) -> None:
    """Equal numbers in the form that was given, gradients among them."""
    if ("volume" not in form and name in OF_MAPS) or (form == "no image" and name in OF_IMAGES):
        pytest.skip("which takes no such pixels")
    (found, state, leaves), (maps, expected, given) = (
        outcome(name, one) for one in (FORMS[form], as_given)
    )
    for ours, theirs in zip([*found, *slopes(found, leaves)], [*maps, *slopes(maps, given)],
                            strict=True):  # fmt: skip
        of_these = theirs.dim() > 2 and theirs.shape[-2:] == (2, 3)
        same = FORMS[form](theirs, theirs.dim() - 2) if of_these else theirs
        # Where pixels had to be copied, tiles and so sums may be others.
        torch.testing.assert_close(ours, same, rtol=1e-4, atol=1e-5, equal_nan=True)
    torch.testing.assert_close(state, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("axis", [0, -1])
@pytest.mark.parametrize("name", NAMES)
def test_without_pixels_every_loss_is_zero_and_connected(name: str, axis: int) -> None:
    results, _, leaves = outcome(name, lambda value, _: as_volume(value, 0).narrow(axis, 0, 0))
    assert not any(one.isnan().any() for one in results)
    for one in results:
        if one.requires_grad:
            assert not one.any()
            found = torch.autograd.grad(one.sum(), leaves, retain_graph=True, allow_unused=True)
            assert any(gradient is not None for gradient in found)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_a_volume_is_read_in_place(layout: str) -> None:
    features, labels = as_volume(FEATURES, 2, layout), as_volume(LABELS, 1)
    pointers = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None):
            result = func(*args, **(kwargs or {}))
            if func is torch.ops.protocontrast.contrast.default:
                pointers.append(args[0].data_ptr())
            return result

    with Watch():
        pc.pixel_prototype_contrast(features, labels, PROTOTYPES)
    assert pointers == [features.data_ptr()]


class Contrast(nn.Module):
    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        grid = pc.labels_to_grid(labels, features.shape[2:], num_classes=3)
        means = pc.class_prototypes(features, grid, 3)
        return pc.pixel_prototype_contrast(features, grid, means.mean, reduction="none")


@pytest.mark.parametrize("how", ["compile", "export"])
def test_traced(how: str) -> None:
    features = as_volume(FEATURES, 2).clone().requires_grad_()
    labels = as_volume(LABELS, 1).repeat_interleave(2, dim=1).repeat_interleave(3, dim=3)
    module = Contrast()
    expected = module(features, labels)
    if how == "compile":
        traced: Any = torch.compile(module, fullgraph=True, backend="aot_eager")
    else:
        traced = export(module, (features, labels), strict=False).module()
    found = traced(features, labels)
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad(loss.sum(), features)[0] for loss in (found, expected)]
    torch.testing.assert_close(*gradients)


def test_rows_of_a_volume_as_the_hint_has_them() -> None:
    features, labels = as_volume(FEATURES, 2), as_volume(LABELS, 1)
    with pytest.raises(ValueError, match=r"features\.movedim\(1, -1\)\.flatten\(0, -2\)") as caught:
        pc.pair_contrast(features, labels, features, labels)
    hint = str(caught.value).partition(" are rows as ")[2].rstrip(".")
    rows = eval(hint, {"features": features})
    assert pc.pair_contrast(rows, labels.flatten(), rows, labels.flatten(), exclude_self=True) > 0


def test_contrast_on_counts_is_contrast_of_nearest_upsampled_features() -> None:
    features, prototypes = normal(0, (2, 5, 2, 3, 2)), normal(1, (3, 5))
    labels = label_map(2, (2, 5, 7, 4), 3)
    counts = labels_to_grid(labels, (2, 3, 2), mode="counts", num_classes=3)
    fine = F.interpolate(features.float(), size=labels.shape[1:], mode="nearest").double()
    ours = pixel_prototype_contrast(features.float().double(), counts, prototypes)
    torch.testing.assert_close(ours, pixel_prototype_contrast(fine, labels, prototypes))


def test_the_module_checks_volumes() -> None:
    logits, labels = normal(0, (2, 3, 2, 3, 2)), label_map(1, (2, 5, 4, 7), 3)
    settings: dict[str, Any] = {"align_corners": True, "reduction": "none"}
    found = UpsampledCrossEntropyLoss(**settings, validate=True)(logits, labels)
    assert torch.equal(found, upsampled_cross_entropy(logits, labels, **settings))


def domains() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Two domains of volumes 3 x 2 x 4, their labels twice as high and three times as wide."""
    source, target = normal(0, (2, 2, 5, 3, 2, 4), torch.float32)
    labels = label_map(1, (2, 2, 3, 2, 4), 3)
    fine = labels.repeat_interleave(2, dim=3).repeat_interleave(3, dim=4)
    fine[..., 0] = 255
    return source, fine[0], target, fine[1]


def as_maps(*volumes: Tensor) -> tuple[Tensor, ...]:
    """The slices below each other; where the labels' height is a multiple, cells stay the same."""
    return tuple(volume.flatten(-3, -2) for volume in volumes)


@pytest.mark.parametrize("pairwise", [False, True])
def test_both_directions_with_labels_at_image_resolution(pairwise: bool) -> None:
    volumes = domains()
    found = bidirectional_contrast(*volumes, num_classes=3, pairwise=pairwise)
    expected = bidirectional_contrast(*as_maps(*volumes), num_classes=3, pairwise=pairwise)
    torch.testing.assert_close(found, expected)
    deeper = [v if i % 2 == 0 else v.repeat_interleave(2, dim=1) for i, v in enumerate(volumes)]
    again = bidirectional_contrast(*deeper, num_classes=3, pairwise=pairwise)
    torch.testing.assert_close(again, expected)


@pytest.mark.parametrize("settings", [{}, {"prototypes": "batch"}, {"bank_update": "after"}])
@pytest.mark.parametrize("fine", [False, True])
def test_a_step_of_the_method(settings: Any, fine: bool) -> None:
    source, source_labels, target, target_labels = domains()
    if not fine:
        source_labels, target_labels = source_labels[..., ::2, ::3], target_labels[..., ::2, 1::3]
    volumes = source.requires_grad_(), source_labels, target.requires_grad_(), target_labels
    results = []
    for step in (volumes, as_maps(*volumes)):
        bicl = BiCL(3, 5, threshold=0.4, **settings)
        for _ in range(2):
            out = bicl(*step)
        gradients = torch.autograd.grad(out.loss, (source, target))
        results.append((out, gradients, dict(bicl.named_buffers())))
    ours, theirs = results
    assert ours[0].loss > 0
    assert ours[0].target_labels.shape == (2, 3, 2, 4)
    assert torch.equal(ours[0].target_labels.flatten(1, 2), theirs[0].target_labels)
    torch.testing.assert_close(
        ours[0]._replace(target_labels=None), theirs[0]._replace(target_labels=None)
    )
    torch.testing.assert_close(ours[1:], theirs[1:])
