"""torch's default dtype belongs to the caller: no number of ours, and no buffer, follows it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

import protocontrast as pc
from tests.bad_arguments import calls
from tests.differentiable import CALLS, leaves_of, outcome, scene
from tests.stateful import STATES, made, moved
from tests.test_bad_arguments import tensors

MAPS = scene(torch.float32).features.reshape(2, 4, 3, 2)
LABELS = scene().labels.reshape(2, 3, 2)
FINE = LABELS.repeat_interleave(2, 1).repeat_interleave(2, 2)
ROWS = scene(torch.float32).prototypes
LOGITS = MAPS[:, :3]
SURE = LOGITS.softmax(dim=1)


DEFAULTS_OF_THEIR_OWN = (
    *("weighted mean", "weighted none", "pairs none", "bidirectional", "balanced"),
)
"""Calls whose weights or features are written in the default dtype by the tests themselves."""


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def public(name: str) -> list[Tensor]:
    """The results of a public call, and the state it leaves behind."""
    torch.manual_seed(3)
    call = calls()[name]
    results = tensors(call.function(**call.arguments))
    owner = getattr(call.function, "__self__", None)
    return [*results, *(owner.buffers() if isinstance(owner, torch.nn.Module) else ())]


def drawn(call: Callable[[torch.Generator | None], Any]) -> Any:
    """What is drawn from a generator, and from the global one."""
    torch.manual_seed(3)
    return *call(torch.Generator().manual_seed(3)), *call(None)


FUNCTIONS: dict[str, Callable[[], Any]] = {
    **{name: (lambda name=name: public(name)) for name in calls()},
    "transfer per class": lambda: pc.transfer_labels(
        MAPS, ROWS, threshold=torch.tensor([0.1, 0.5, 0.9], dtype=torch.float32), backend="naive"
    ),
    "counts": lambda: pc.labels_to_grid(FINE, (2, 3), mode="counts", num_classes=3),
    "statistics naive": lambda: pc.class_statistics(MAPS, LABELS, 3, backend="naive"),
    "pairs of images": lambda: pc.bidirectional_contrast(MAPS, FINE, MAPS, LABELS, num_classes=3),
    "mix": lambda: drawn(
        lambda random: pc.class_mix(
            MAPS, LABELS, MAPS.flip(0), LABELS.flip(0), num_classes=3, generator=random
        )
    ),
    "random pixels": lambda: drawn(
        lambda random: pc.sample_pixels(LABELS.expand(60, 2, 3, 2)[:, 0], 20, generator=random)
    ),
    "selection": lambda: pc.select_labels(SURE, 0.6, measure="log_odds", image_share=0.3),
    "confident share of all": lambda: pc.confident_share(SURE, 0.5),
    "spread of all": lambda: pc.spread(MAPS, None, ROWS, toward="uniform", backend="naive"),
    "no frequencies": lambda: pc.frequency_weights(torch.tensor([0, 0, 0])),
}


def of_each_function(name: str, **settings: Any) -> list[Tensor]:
    inputs = MAPS.flatten(2), LABELS.flatten(1), ROWS
    return outcome(CALLS[name], inputs, leaves_of(name), **settings)


def picked_queue() -> tuple[torch.nn.Module, list[Tensor]]:
    """More picks than bfloat16 can number."""
    made = pc.ClassQueue(1, 400, 1)
    features = torch.arange(1000, dtype=torch.float32)[:, None]
    made.push(features, torch.zeros(1000, dtype=torch.int64), per_class=400)
    return made, [*made.read()]


def stepped(text: str) -> tuple[torch.nn.Module, list[Tensor]]:
    """A module after two steps, and their results."""
    module = made(text)
    results = [one for seed in range(2) for one in moved(module, seed)]
    if isinstance(module, pc.ClassThresholds):
        results += [module.thresholds(), module.confidence(), *module.select(SURE)]
    return module, results


MODULES: dict[str, Callable[[], tuple[torch.nn.Module, list[Tensor]]]] = {
    **{text: partial(stepped, text) for text in STATES},
    "queue of picks": picked_queue,
}


def assert_same(found: list[Tensor], expected: list[Tensor]) -> None:
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.dtype == theirs.dtype
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
class TestDefault:
    @pytest.mark.parametrize("name", FUNCTIONS)
    def test_functions(self, name: str, dtype: torch.dtype) -> None:
        found = FUNCTIONS[name]()
        expected = [found] if isinstance(found, Tensor) else [*found]
        with default_dtype(dtype):
            again = FUNCTIONS[name]()
        assert_same([again] if isinstance(again, Tensor) else [*again], expected)

    @pytest.mark.parametrize("backend", ["eager", "naive"])
    @pytest.mark.parametrize("name", [name for name in CALLS if name not in DEFAULTS_OF_THEIR_OWN])
    def test_gradients(self, name: str, backend: str, dtype: torch.dtype) -> None:
        expected = of_each_function(name, backend=backend)
        with default_dtype(dtype):
            found = of_each_function(name, backend=backend)
        assert_same(found, expected)

    @pytest.mark.parametrize("name", MODULES)
    def test_modules(self, name: str, dtype: torch.dtype) -> None:
        module, results = MODULES[name]()
        with default_dtype(dtype):
            twin, again = MODULES[name]()
        assert [*twin.state_dict()] == [*module.state_dict()]
        assert_same([*twin.state_dict().values()], [*module.state_dict().values()])
        assert_same(again, results)
