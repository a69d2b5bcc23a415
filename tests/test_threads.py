"""Results of operators on a CPU are the same bits for every number of threads."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import protocontrast as pc
from tests.differentiable import CALLS, ONE_OF_EACH
from tests.strategies import label_map, normal
from tests.test_small_losses import LOSSES

pytestmark = pytest.mark.usefixtures("eager")

CLASSES, CHANNELS, PIXELS = 19, 64, 48 * 48
MAP, TABLE = (2, CHANNELS, PIXELS), (CLASSES, CHANNELS)
LABELS = label_map(0, (2, PIXELS), CLASSES)
ROWS = label_map(1, (1100,), CLASSES)
NAMES = [name for name in ONE_OF_EACH if name != "upsampled volume"]
NAMES += ["dot", "euclidean", "class means", "distribution none", "smoothed"]
PLAIN = ["entropy", "symmetric_cross_entropy"]


@pytest.fixture(autouse=True)
def threads_restored() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def bits(name: str, threads: int, channels: int = CHANNELS) -> list[Tensor]:
    """The value and every gradient."""
    torch.set_num_threads(threads)
    map_of = 2, channels, PIXELS * CHANNELS // channels
    shapes = [(len(ROWS), channels)] * 2 if name == "pairs" else [map_of, (CLASSES, channels)]
    leaves = [normal(i, shape, torch.float32).requires_grad_() for i, shape in enumerate(shapes)]
    labels = LABELS[:, : map_of[2]]
    if name == "pairs":
        value = pc.pair_contrast(leaves[0], ROWS, leaves[1], ROWS.flip(0))
    elif name in PLAIN:
        value = LOSSES[name](leaves[0], labels)
    else:
        value = CALLS[name](leaves[0], labels, leaves[1])
    slopes = torch.autograd.grad(value, leaves, torch.ones_like(value), materialize_grads=True)
    return [value.detach(), *slopes]


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(*pair) for pair in zip(one, other, strict=True))


@pytest.mark.parametrize("backend", ["eager"])
@pytest.mark.parametrize(
    ("name", "channels"),
    [
        *((name, CHANNELS) for name in [*NAMES, *PLAIN]),
        ("mean", 1152),
        pytest.param("upsampled volume", CHANNELS, marks=pytest.mark.slow),
    ],
)
def test_values_and_gradients(name: str, channels: int, backend: str) -> None:
    with pc.default_backend(backend):
        one, *others = (bits(name, threads, channels) for threads in (1, 2, 3, 7))
    assert all(same(one, other) for other in others)


@pytest.mark.parametrize(
    "call",
    [
        lambda features, rows: pc.transfer_labels(features, rows),
        lambda features, rows: pc.class_statistics(features, LABELS, CLASSES),
        lambda features, rows: (pc.sinkhorn(features),),
        lambda features, rows: (
            pc.assign_subclasses(features, LABELS, rows[:, None] * torch.arange(3)[:, None]),
        ),
    ],
    ids=["transfer", "statistics", "sinkhorn", "subclasses"],
)
def test_what_has_no_gradient(call: Callable[..., tuple[Any, ...]]) -> None:
    given, found = (normal(0, MAP, torch.float32), normal(1, TABLE, torch.float32)), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append([*call(*given)])
    assert same(*found)
