"""`bidirectional_contrast`: the released step, pairs, overlap and given prototypes."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.released import released_step
from protocontrast import (
    BidirectionalContrast,
    bidirectional_contrast,
    class_prototypes,
    labels_to_grid,
    pixel_prototype_contrast,
)
from tests.strategies import NAN, label_map, normal

pytestmark = pytest.mark.usefixtures("eager")

SIDES = ("source_features", "target_features")
BACKENDS = ["eager", "naive"]


def pair_of(
    seed: int, shape: tuple[int, ...], size: tuple[int, ...], num_classes: int, dtype: torch.dtype
) -> dict[str, Any]:
    """Features of one shape and labels of another size in both domains, and the class count."""
    call: dict[str, Any] = {"num_classes": num_classes}
    for offset, side in enumerate(("source", "target")):
        call[f"{side}_features"] = normal(seed + offset, shape, dtype).requires_grad_()
        labels = label_map(seed + offset, (shape[0], *size), num_classes, "mixed", torch.uint8)
        call[f"{side}_labels"] = labels
    return call


def step_and_gradients(call: dict[str, Any]) -> list[Tensor]:
    """The released step's two directions, and the gradients of their weighted sum."""
    labels = {name: call[name].long() for name in ("source_labels", "target_labels")}
    directions = released_step(**{**call, **labels})
    loss = directions[0] + 0.7 * directions[1]
    return [*directions, *torch.autograd.grad(loss, [call[side] for side in SIDES])]


def ours_and_gradients(call: dict[str, Any], **settings: Any) -> list[Tensor]:
    """The same of `bidirectional_contrast`."""
    found = bidirectional_contrast(**call, pairwise=True, absent="floor", **settings)
    loss = found.target_to_source + 0.7 * found.source_to_target
    gradients = torch.autograd.grad(loss, [call[side] for side in SIDES])
    return [found.target_to_source, found.source_to_target, *gradients]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("images", "grid", "size", "num_classes"),
    [
        (2, (5, 7), (40, 56), 6),
        (2, (5, 7), (37, 53), 19),
        (3, (6, 6), (6, 6), 4),
        (1, (3, 4), (61, 29), 2),
        (2, (9, 4), (5, 4), 3),
    ],
)
def test_the_released_step(
    images: int, grid: tuple[int, int], size: tuple[int, int], num_classes: int, backend: str
) -> None:
    call = pair_of(1, (images, 8, *grid), size, num_classes, torch.float64)
    ours, released = ours_and_gradients(call, backend=backend), step_and_gradients(call)
    torch.testing.assert_close(ours, released, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_released_step_at_its_own_size(dtype: torch.dtype) -> None:
    call = pair_of(1, (1, 4, 92, 92), (730, 730), 5, dtype)
    tolerance = 1e-9 if dtype == torch.float64 else 2e-6
    torch.testing.assert_close(
        ours_and_gradients(call), step_and_gradients(call), rtol=tolerance, atol=tolerance
    )


def test_a_class_lost_in_the_resize_carries_no_loss() -> None:
    call = pair_of(1, (2, 8, 5, 7), (40, 56), 4, torch.float64)
    for side in ("source", "target"):
        labels = call[f"{side}_labels"] % 2
        # Nearest reads rows 0, 8, 16, ...: row 1 is in the labels and not on the grid.
        labels[:, 1] = 2
        call[f"{side}_labels"] = labels
        grid = labels_to_grid(labels, (5, 7))
        assert not (grid == 2).any()
    ours, released = ours_and_gradients(call), step_and_gradients(call)
    torch.testing.assert_close(ours, released, rtol=1e-9, atol=1e-9)
    without = {**call}
    for side in ("source_labels", "target_labels"):
        without[side] = torch.where(call[side] == 2, 255, call[side])
    assert torch.equal(ours_and_gradients(without)[0], ours[0])


def test_the_released_step_can_be_told_apart() -> None:
    call = pair_of(1, (2, 8, 5, 7), (37, 53), 6, torch.float64)
    expected = step_and_gradients(call)[0].item()
    found = [
        bidirectional_contrast(**{**call, "temperature": 1.0, "pairwise": True, "absent": "floor"}),
        bidirectional_contrast(**{**call, "pairwise": False, "absent": "floor"}),
    ]
    unlabelled = torch.full_like(call["target_labels"], 255)
    wrong = [*found, bidirectional_contrast(**{**call, "target_labels": unlabelled})]
    assert all(abs(one.target_to_source.item() - expected) > 1e-4 for one in wrong)


def manual(call: dict[str, Any], **settings: Any) -> tuple[Tensor, Tensor]:
    """Both directions of grid labels, composed from the other public functions."""
    stats = {
        side: class_prototypes(
            call[f"{side}_features"], call[f"{side}_labels"], call["num_classes"]
        )
        for side in ("source", "target")
    }
    overlap = (stats["source"].present & stats["target"].present).float()
    return tuple(
        pixel_prototype_contrast(
            call[f"{moved}_features"], call[f"{moved}_labels"], stats[fixed].mean,
            present=stats[fixed].present, class_weight=overlap, **settings,
        )
        for moved, fixed in (("target", "source"), ("source", "target"))
    )  # type: ignore[return-value]  # fmt: skip


@pytest.mark.parametrize("absent", ["mask", "floor"])
@pytest.mark.parametrize("shape", [(2, 8, 5, 7), (2, 8, 35), (35, 8)])
def test_batch_against_batch_is_the_composition(shape: tuple[int, ...], absent: str) -> None:
    size = shape[2:]
    call = pair_of(1, shape, size, 6, torch.float64)
    call["target_labels"] = torch.where(call["target_labels"] == 3, 255, call["target_labels"])
    found = bidirectional_contrast(**call, pairwise=False, absent=absent, temperature=0.4)
    expected = manual(call, absent=absent, temperature=0.4)
    torch.testing.assert_close(found.target_to_source, expected[0])
    torch.testing.assert_close(found.source_to_target, expected[1])
    assert torch.equal(found.loss, found.target_to_source + found.source_to_target)
    leaves = [call[side] for side in SIDES]
    gradients = torch.autograd.grad(found.loss, leaves), torch.autograd.grad(sum(expected), leaves)
    torch.testing.assert_close(*gradients)


def test_pairs_are_averaged_and_one_without_overlap_counts() -> None:
    call = pair_of(1, (3, 8, 5, 7), (5, 7), 4, torch.float64)
    call["source_labels"] = call["source_labels"].clone()
    call["source_labels"][1] = 0
    call["target_labels"] = torch.where(call["target_labels"] == 0, 255, call["target_labels"])
    found = bidirectional_contrast(**call)
    singles = [
        bidirectional_contrast(
            **{
                name: value if name == "num_classes" else value[b : b + 1]
                for name, value in call.items()
            }
        )
        for b in range(3)
    ]
    assert singles[1].loss.item() == 0
    assert all(single.loss.item() > 0 for single in (singles[0], singles[2]))
    for direction in BidirectionalContrast._fields:
        mean = sum(getattr(single, direction) for single in singles) / 3
        torch.testing.assert_close(getattr(found, direction), mean)
    gradients = torch.autograd.grad(found.loss, [call[side] for side in SIDES])
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    assert all((gradient[1] == 0).all() for gradient in gradients)
    assert all((gradient[0] != 0).any() for gradient in gradients)


def test_a_batch_of_another_size_without_pairs() -> None:
    call = pair_of(1, (3, 8, 5, 7), (5, 7), 4, torch.float64)
    call.update({f"target_{k}": call[f"target_{k}"][:1] for k in ("features", "labels")})
    found = bidirectional_contrast(**call, pairwise=False)
    torch.testing.assert_close(found.target_to_source, manual(call)[0])


def test_given_prototypes_and_presence() -> None:
    features, labels = torch.eye(3, dtype=torch.float64), torch.tensor([0, 1, 2])
    bank = torch.where(torch.tensor([[True], [True], [False]]), torch.eye(3), NAN).double()
    bank.requires_grad_()
    other = torch.eye(3, dtype=torch.float64)
    found = bidirectional_contrast(
        features, labels, features, labels, num_classes=3, pairwise=False, temperature=1.0,
        source_prototypes=bank, source_present=torch.tensor([True, True, False]),
        target_prototypes=other, target_present=torch.tensor([True, False, True]),
    )  # fmt: skip
    # Shared: class 0 alone. Its pixel sees the prototypes' own domain: classes 0, 1 and 0, 2.
    each = math.log1p(math.exp(-1))
    assert [value.item() for value in found] == pytest.approx([2 * each, each, each])
    (gradient,) = torch.autograd.grad(found.target_to_source, bank)
    assert torch.isfinite(gradient).all()
    assert (gradient[2] == 0).all()


def test_given_presence_replaces_the_label_map_in_the_overlap() -> None:
    features = torch.eye(2, dtype=torch.float64)
    labels, ignored = torch.tensor([0, 1]), torch.tensor([255, 255])
    arguments = {"num_classes": 2, "pairwise": False, "source_prototypes": torch.eye(2)}
    # The source labels show no class, its bank both: target pixels are pulled all the same.
    found = bidirectional_contrast(features, ignored, features, labels, **arguments)
    assert found.target_to_source.item() > 0
    assert found.source_to_target.item() == 0
    zero = {**arguments, "source_prototypes": torch.tensor([[1.0, 0.0], [0.0, 0.0]])}
    present = {**arguments, "source_present": torch.tensor([True, False])}
    for case in (zero, present):
        found = bidirectional_contrast(features, labels, features, labels, **case)
        # Only class 0 is shared, and alone in its own domain's denominator.
        assert found.target_to_source.item() == 0
        assert found.source_to_target.item() > 0


def test_detached_prototypes_send_gradient_to_the_moved_pixels_alone() -> None:
    call = pair_of(1, (2, 8, 5, 7), (5, 7), 4, torch.float64)
    found = bidirectional_contrast(**call, pairwise=False, source_prototypes=normal(9, (4, 8)))
    moved = torch.autograd.grad(
        found.target_to_source, [call[side] for side in SIDES], allow_unused=True, retain_graph=True
    )
    assert moved[0] is None
    assert (moved[1] != 0).any()
    both = torch.autograd.grad(found.source_to_target, [call[side] for side in SIDES])
    assert all((gradient != 0).any() for gradient in both)


def test_domains_may_differ_in_dtype_and_size() -> None:
    call = pair_of(1, (2, 8, 5, 7), (5, 7), 4, torch.float32)
    target = pair_of(5, (2, 8, 3, 4), (6, 8), 4, torch.bfloat16)
    call.update({name: value for name, value in target.items() if name.startswith("target")})
    found = bidirectional_contrast(**call)
    assert found.loss.dtype == torch.float32
    gradients = torch.autograd.grad(found.loss, [call[side] for side in SIDES])
    assert [gradient.dtype for gradient in gradients] == [torch.float32, torch.bfloat16]
