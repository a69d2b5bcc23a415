"""Results of operators on a CPU are the same bits for every number of threads."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

import protocontrast as pc
from tests.strategies import label_map, normal

pytestmark = pytest.mark.usefixtures("eager")

CLASSES, CHANNELS, SIDE = 19, 64, 48
MAP = (2, CHANNELS, SIDE, SIDE)
LABELS = label_map(0, (2, SIDE, SIDE), CLASSES)
ROWS, ROW_LABELS = (1100, CHANNELS), label_map(1, (1100,), CLASSES)
SCORES, FINE = (2, CLASSES, SIDE, SIDE), label_map(2, (2, 4 * SIDE, 4 * SIDE), CLASSES)
TABLE = (CLASSES, CHANNELS)


@pytest.fixture(autouse=True)
def threads_restored() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def _distribution(features: Tensor, means: Tensor, spread: Tensor, **settings: Any) -> Tensor:
    variance = spread.square()
    return pc.distribution_contrast(features, LABELS, means, variance, temperature=1.0, **settings)


def _pairs(anchors: Tensor, keys: Tensor, **settings: Any) -> Tensor:
    return pc.pair_contrast(anchors, ROW_LABELS, keys, ROW_LABELS.flip(0), **settings)


def _upsampled(logits: Tensor, **settings: Any) -> Tensor:
    return pc.upsampled_cross_entropy(logits, FINE, **settings)


def _contrast(features: Tensor, prototypes: Tensor, **settings: Any) -> Tensor:
    return pc.pixel_prototype_contrast(features, LABELS, prototypes, **settings)


def _bidirectional(one: Tensor, two: Tensor, **settings: Any) -> Tensor:
    known = one, LABELS, two, LABELS
    return pc.bidirectional_contrast(*known, num_classes=CLASSES, **settings).loss


def _few(features: Tensor, prototypes: Tensor) -> Tensor:
    return pc.pixel_prototype_contrast(features, LABELS[:1, :16, :32], prototypes)


def _means(features: Tensor, **settings: Any) -> Tensor:
    return pc.class_prototypes(features, LABELS, CLASSES, **settings).mean


CALLS: dict[str, tuple[Callable[..., Tensor], list[tuple[int, ...]]]] = {
    "contrast": (_contrast, [MAP, TABLE]),
    "contrast none": (partial(_contrast, reduction="none"), [MAP, TABLE]),
    "dot": (partial(_contrast, similarity="dot"), [MAP, TABLE]),
    "euclidean": (partial(_contrast, similarity="euclidean"), [MAP, TABLE]),
    "many channels": (_few, [(1, 1100, 16, 32), (CLASSES, 1100)]),
    "logits": (pc.prototype_logits, [MAP, TABLE]),
    "class means": (_means, [MAP]),
    "unit class means": (partial(_means, normalize=True), [MAP]),
    "distribution": (_distribution, [MAP, TABLE, TABLE]),
    "distribution none": (partial(_distribution, reduction="none"), [MAP, TABLE, TABLE]),
    "raw distribution": (partial(_distribution, normalize=False), [MAP, TABLE, TABLE]),
    "pairs": (_pairs, [ROWS, ROWS]),
    "bidirectional": (_bidirectional, [MAP, MAP]),
    "upsampled": (_upsampled, [SCORES]),
    "entropy": (pc.entropy, [SCORES]),
    "symmetric": (lambda logits: pc.symmetric_cross_entropy(logits, LABELS), [SCORES]),
    "pull": (lambda one, rows: pc.prototype_pull(one, LABELS, rows), [MAP, TABLE]),
    "spread": (lambda one, rows: pc.spread(one, None, rows, toward="uniform"), [MAP, TABLE]),
}


def bits(name: str, threads: int) -> list[Tensor]:
    """The value and every gradient."""
    call, shapes = CALLS[name]
    torch.set_num_threads(threads)
    leaves = [normal(i, shape, torch.float32).requires_grad_() for i, shape in enumerate(shapes)]
    value = call(*leaves)
    return [value.detach(), *torch.autograd.grad(value, leaves, torch.ones_like(value))]


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(*pair) for pair in zip(one, other, strict=True))


@pytest.mark.parametrize("backend", ["eager"])
@pytest.mark.parametrize("name", CALLS)
def test_values_and_gradients(name: str, backend: str) -> None:
    with pc.default_backend(backend):
        one, *others = (bits(name, threads) for threads in (1, 2, 3, 7))
    assert all(same(one, other) for other in others)


@pytest.mark.parametrize(
    "call",
    [
        lambda features, scores: pc.transfer_labels(features, normal(1, TABLE, torch.float32)),
        lambda features, scores: pc.class_statistics(features, LABELS, CLASSES),
        lambda features, scores: (pc.sinkhorn(scores),),
        lambda features, scores: (
            pc.assign_subclasses(features, LABELS, normal(1, (CLASSES, 3, CHANNELS)).float()),
        ),
    ],
    ids=["transfer", "statistics", "sinkhorn", "subclasses"],
)
def test_what_has_no_gradient(call: Callable[..., tuple[Tensor, ...]]) -> None:
    given = normal(0, MAP, torch.float32), normal(1, SCORES, torch.float32)
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append([*call(*given)])
    assert same(*found)
