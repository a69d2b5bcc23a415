"""What holds of every public call: it only reads what it is given, autocast or compiler around."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.bad_arguments import Call, calls
from tests.test_bad_arguments import parameters, tensors
from tests.test_default_dtype import public

CALLS = calls()
FUNCTIONS = [name for name in CALLS if name[0].islower()]
DIFFERENTIABLE = {
    *("features", "source_features", "target_features", "logits", "anchors", "keys", "negatives"),
    *("prototypes", "variance", "probabilities", "weights", "source_images", "target_images"),
}
OWN_BACKENDS = [
    pytest.param(name, settings, id="-".join([name, *settings.values()]))
    for name in CALLS
    for settings in (
        [{"backend": "eager"}, {"backend": "naive"}]
        if "backend" in parameters(CALLS[name].function)
        else [{}]
    )
]


def given(value: Any) -> list[Tensor]:
    """All tensors in an argument."""
    if isinstance(value, (tuple, list)):
        return [one for part in value for one in given(part)]
    return [value] if isinstance(value, Tensor) else []


def calling(name: str, **settings: Any) -> Call:
    """A fresh call with settings of its own."""
    call = calls()[name]
    return call._replace(arguments={**call.arguments, **settings})


@pytest.mark.parametrize(("name", "settings"), OWN_BACKENDS)
def test_arguments_are_never_written(name: str, settings: dict[str, str]) -> None:
    """Forward or backward, nor through what is returned."""
    call = calling(name, **settings)
    before = [(value, value.clone(), value._version) for value in given([*call.arguments.values()])]
    leaves = {
        key: value.detach().requires_grad_()
        for key, value in call.arguments.items()
        if key in DIFFERENTIABLE
    }
    results = tensors(call.function(**{**call.arguments, **leaves}))
    for result in results:
        if result.requires_grad:
            result.sum().backward(retain_graph=True)
    for result in results if name in FUNCTIONS else ():
        result.detach().fill_(7)
    for value, copy, version in before:
        assert torch.equal(value, copy)
        assert value._version == version


@pytest.mark.parametrize("name", CALLS)
def test_autocast_around_the_call_changes_nothing(name: str) -> None:
    expected = public(name)
    with torch.autocast("cpu", torch.bfloat16):
        found = public(name)
    assert len(found) == len(expected)
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.dtype == theirs.dtype
        assert torch.equal(mine, theirs)


ONE_GRAPH = (
    *("assign_subclasses", "class_statistics", "confident_share", "frequency_weights", "rectify"),
    *("select_labels", "sinkhorn", "transfer_labels", "ClassQueue.push", "ClassThresholds.update"),
)
SETTINGS = {
    "select_labels": {"threshold": torch.tensor([0.4, 0.5, 0.6]), "image_share": 0.3},
    "transfer_labels": {"threshold": float("inf")},
}


@pytest.mark.parametrize("name", ONE_GRAPH)
def test_compiled_in_one_graph(name: str) -> None:
    torch.compiler.reset()
    found = []
    for traced in (False, True):
        function, arguments = calling(name, **SETTINGS.get(name, {}))
        call = function
        if traced:
            call = torch.compile(function, fullgraph=True, backend="aot_eager")
        results = [*tensors(call(**arguments)), *tensors(call(**arguments))]
        found.append([*results, *tensors(getattr(function, "__self__", None))])
    torch.testing.assert_close(found[1], found[0], equal_nan=True)
    torch.compiler.reset()
