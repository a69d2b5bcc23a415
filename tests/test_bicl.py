"""`BiCL` is the step written by hand: values, gradients and state over steps, every setting."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from protocontrast import BiCL
from tests.bicl_by_hand import HandBiCL, Settings
from tests.bicl_steps import CLASSES, DIM, batch

SETTINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "after": {"bank_update": "after"},
    "batch": {"prototypes": "batch"},
    "batch after": {"prototypes": "batch", "bank_update": "after"},
    "pairwise": {"prototypes": "batch", "pairwise": True},
    "pairwise floor": {"prototypes": "batch", "pairwise": True, "absent": "floor"},
    "uncalibrated": {"calibrate": False},
    "similarity": {"measure": "similarity", "threshold": 0.4},
    "unit features": {"normalize": "features"},
    "unit prototypes": {"normalize": "prototypes"},
    "unit prototypes after": {"normalize": "prototypes", "bank_update": "after"},
    "floor": {"absent": "floor"},
    "copied bias": {"bias_warmup": "copy", "bias_momentum": 0.9},
    "weighted": {"weights": (0.25, 2.0), "temperature": 0.1},
    "one way": {"weights": (1.0, 0.0)},
    "balanced": {"balance": "class"},
    "balanced after": {"balance": "class", "bank_update": "after", "absent": "floor"},
    "balanced batch": {"balance": "class", "prototypes": "batch"},
    "balanced pairs": {"balance": "class", "prototypes": "batch", "pairwise": True},
    "no memory": {"momentum": 0.0, "bias_momentum": 0.0},
    "everything accepted": {"threshold": 0.0},
    "nothing accepted": {"threshold": math.inf},
}


KINDS = ["grid", "grid without static", "image", "image without static"]


def assert_close(ours: Tensor, hand: Tensor) -> None:
    torch.testing.assert_close(ours.double(), hand.double(), rtol=1e-8, atol=1e-9)


def assert_state(bicl: BiCL, hand: HandBiCL) -> None:
    for bank, by_hand in ((bicl.source_bank, hand.source), (bicl.target_bank, hand.target)):
        assert_close(bank.prototypes, by_hand.prototypes)
        assert torch.equal(bank.present, by_hand.present)
    assert_close(bicl.domain_bias.bias, hand.bias)
    assert torch.equal(bicl.domain_bias.present, hand.biased)


def compare(settings: dict[str, Any], kinds: list[str], update: bool = True) -> list[float]:
    """Run both over the steps, compare everything, return the losses."""
    chosen = Settings(**settings)
    bicl = BiCL(CLASSES, DIM, **chosen._asdict()).double()
    hand = HandBiCL(CLASSES, DIM, chosen)
    losses = []
    for seed, kind in enumerate(kinds):
        source, source_labels, target, static = batch(seed, kind)
        results = []
        for step in (bicl, hand.step):
            leaves = source.clone().requires_grad_(), target.clone().requires_grad_()
            out = step(leaves[0], source_labels, leaves[1], static, update=update)
            gradients = torch.autograd.grad(out.loss, leaves)
            results.append((out, gradients))
        (ours, our_gradients), (theirs, hand_gradients) = results
        assert torch.equal(ours.target_labels, theirs.target_labels)
        assert_close(ours.loss.detach(), theirs.loss.detach())
        for name in ("target_to_source", "source_to_target", "coverage", "class_share"):
            torch.testing.assert_close(
                getattr(ours, name).detach().double(),
                getattr(theirs, name).detach(),
                rtol=1e-6,
                atol=1e-7,
            )
        for mine, other in zip(our_gradients, hand_gradients, strict=True):
            assert_close(mine, other)
        assert_state(bicl, hand)
        losses.append(ours.loss.item())
    return losses


@pytest.mark.parametrize("name", SETTINGS)
def test_the_step_is_the_step_by_hand(name: str) -> None:
    losses = compare(SETTINGS[name], KINDS)
    assert all(math.isfinite(loss) for loss in losses)
    assert max(losses) > 0


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_labels_from_the_first_step(kind: str) -> None:
    compare({}, [kind] * 3)


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_setting_with_every_kind_of_labels(name: str, kind: str) -> None:
    compare(SETTINGS[name], [kind] * 5)


def test_the_comparison_can_fail() -> None:
    source, labels, target, static = batch(0, "grid")
    bicl = BiCL(CLASSES, DIM, **Settings(momentum=0.7)._asdict()).double()
    hand = HandBiCL(CLASSES, DIM, Settings(momentum=0.6))
    for step in (bicl, hand.step):
        step(source, labels, target, static)
        step(source * 2, labels, target, static)
    with pytest.raises(AssertionError):
        assert_state(bicl, hand)
