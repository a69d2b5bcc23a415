"""`BiCL` is the step written by hand: values, gradients and state over steps, every setting."""

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch

from protocontrast import BiCL
from tests.bicl_by_hand import HandBiCL, Settings
from tests.bicl_steps import CLASSES, DIM, assert_state_is, batch, made, run, state
from tests.sentences import assert_raises

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


def assert_close(ours: Any, hand: Any, room: float = 1e-8) -> None:
    torch.testing.assert_close(ours.double(), hand.double(), rtol=room, atol=room)


def assert_state(bicl: BiCL, hand: HandBiCL, room: float = 1e-8) -> None:
    for bank, by_hand in ((bicl.source_bank, hand.source), (bicl.target_bank, hand.target)):
        assert_close(bank.prototypes, by_hand.prototypes, room)
        assert torch.equal(bank.present, by_hand.present)
    assert_close(bicl.domain_bias.bias, hand.bias, room)
    assert torch.equal(bicl.domain_bias.present, hand.biased)


def compare(
    settings: dict[str, Any],
    kinds: list[str],
    lacking: bool = False,
    dtype: torch.dtype = torch.float64,
    **how: Any,
) -> list[float]:
    """Run both over the steps, one more without an update, compare all, return the losses.

    By hand it is float64, also for features of another dtype, of which both read the same numbers.
    Where something is `lacking`, no source pixel is labelled with class 0 and no target with 1.
    """
    chosen = Settings(**settings)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    room, of_gradients = 1e-8, 1e-8
    if wide == torch.float32:
        room, of_gradients = 2e-5, max(2e-5, 4 * torch.finfo(dtype).eps)
    bicl = BiCL(CLASSES, DIM, **chosen._asdict(), **how).to(wide)
    hand = HandBiCL(CLASSES, DIM, chosen)
    losses = []
    for seed, kind in enumerate([*kinds, kinds[0]]):
        source, source_labels, target, static = batch(seed, kind)
        source, target = source.to(dtype), target.to(dtype)
        if lacking:
            source_labels = torch.where(source_labels == 0, 255, source_labels)
            static = None if static is None else torch.where(static == 1, 255, static)
        results = []
        for step, given in ((bicl, dtype), (hand.step, torch.float64)):
            leaves = [one.to(given, copy=True).requires_grad_() for one in (source, target)]
            out = step(leaves[0], source_labels, leaves[1], static, update=seed < len(kinds))
            gradients = torch.autograd.grad(out.loss, leaves)
            results.append((out, gradients))
        (ours, our_gradients), (theirs, hand_gradients) = results
        assert torch.equal(ours.target_labels, theirs.target_labels)
        assert_close(ours.loss.detach(), theirs.loss.detach(), room)
        for name in ("target_to_source", "source_to_target", "coverage", "class_share"):
            mine, other = (getattr(found, name).detach() for found in (ours, theirs))
            assert_close(mine, other, max(room, 1e-6))
        for mine, other in zip(our_gradients, hand_gradients, strict=True):
            assert mine.dtype == dtype
            assert_close(mine, other, of_gradients)
        assert_state(bicl, hand, room)
        losses.append(ours.loss.item())
    return losses


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", SETTINGS)
def test_the_step_is_the_step_by_hand(name: str, dtype: torch.dtype) -> None:
    losses = compare(SETTINGS[name], KINDS, dtype=dtype)
    assert all(math.isfinite(loss) for loss in losses)
    assert max(losses) > 0


@pytest.mark.parametrize("name", ["default", "after", "batch", "floor", "nothing accepted"])
def test_classes_that_one_domain_lacks(name: str) -> None:
    compare(SETTINGS[name], KINDS, lacking=True)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_labels_from_the_first_step(kind: str) -> None:
    compare({}, [kind] * 3)


@pytest.mark.parametrize("backend", ["eager", "naive"])
def test_backends(backend: str) -> None:
    compare({}, KINDS, dtype=torch.float32, backend=backend)


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


FEATURES = torch.linspace(-1, 1, 2 * 4 * 6).sin().reshape(2, 4, 2, 3)
LABELS = torch.tensor([0, 1, 2, 0, 1, 255] * 2).reshape(2, 2, 3)
FINE = LABELS.repeat_interleave(3, 1).repeat_interleave(3, 2)


def replaced(**changed: Any) -> tuple[Any, ...]:
    call = {"source": FEATURES, "labels": LABELS, "target": FEATURES.flip(0), "static": FINE}
    return tuple({**call, **changed}.values())


def test_numbers_of_any_kind_are_taken() -> None:
    settings: Any = {
        "temperature": np.float32(0.5),
        "threshold": np.float64(0.4),
        "momentum": 1,
        "weights": [1, np.float32(0.5)],
        "calibrate": np.True_,
        "pairwise": np.bool_(False),
    }
    plain = BiCL(3, 4, temperature=0.5, threshold=0.4, momentum=1.0, weights=(1.0, 0.5))
    out = BiCL(3, 4, **settings)(FEATURES, LABELS, FEATURES.flip(0))
    assert all(map(torch.equal, out, plain(FEATURES, LABELS, FEATURES.flip(0))))


def test_pairs_of_different_batches() -> None:
    text = "BiCL: expected target_features of 2 images as in source_features, for pairs, got 1."
    bicl = BiCL(3, 4, prototypes="batch", pairwise=True)
    before = {name: value.clone() for name, value in bicl.state_dict().items()}
    few = replaced(target=FEATURES[:1], static=FINE[:1])
    assert_raises(ValueError, text, lambda: bicl(*few))
    assert all(torch.equal(value, before[name]) for name, value in bicl.state_dict().items())
    assert BiCL(3, 4, prototypes="batch")(*few).loss.isfinite()


@pytest.mark.parametrize("prototypes", ["bank", "batch"])
@pytest.mark.parametrize("empty", ["source", "target", "both"])
def test_batches_without_images(empty: str, prototypes: Any) -> None:
    bicl = BiCL(3, 4, prototypes=prototypes)
    bicl(*replaced())
    changed: dict[str, Any] = {}
    if empty in ("source", "both"):
        changed |= {"source": FEATURES[:0], "labels": LABELS[:0]}
    if empty in ("target", "both"):
        changed |= {"target": FEATURES[:0], "static": FINE[:0]}
    source, labels, target, static = replaced(**changed)
    leaves = source.clone().requires_grad_(), target.clone().requires_grad_()
    out = bicl(leaves[0], labels, leaves[1], static)
    out.loss.backward()
    assert out.loss.isfinite()
    assert out.coverage.isfinite()
    if empty == "both":
        assert out.loss == 0
    for leaf in leaves:
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_pixel_that_is_not_finite_shows_in_the_loss_and_not_in_the_state(value: float) -> None:
    bicl = BiCL(3, 4)
    bicl(*replaced())
    broken = FEATURES.clone()
    broken[0, 1, 0, 0] = value
    out = bicl(*replaced(source=broken))
    assert out.loss.isnan()
    assert bicl.source_bank.skipped.tolist() == [1, 0, 0]
    assert all(value.isfinite().all() for value in bicl.state_dict().values())
    assert bicl(*replaced()).loss.isfinite()


@pytest.mark.parametrize("bank_update", ["before", "after"])
def test_a_class_whose_first_mean_is_not_finite_takes_no_part(bank_update: Any) -> None:
    """The only target pixel of the class is NaN: as if it had no label."""
    source, labels, target, static = batch(0, "grid")
    static = torch.where(static == 0, 255, static)
    leaves = source.float().requires_grad_(), target.float().requires_grad_()
    results = []
    for spoilt in (True, False):
        given, known = leaves[1].clone(), static.clone()
        if spoilt:
            given[0, 1, 0, 0] = math.nan
        known[0, 0, 0] = 0 if spoilt else 255
        bicl = made(threshold=math.inf, bank_update=bank_update)
        out = bicl(leaves[0], labels, given, known)
        gradients = torch.autograd.grad(out.loss, leaves)
        assert bicl.target_bank.skipped.tolist() == [spoilt, 0, 0, 0, 0]
        results.append([*out[:3], *gradients, bicl.target_bank.prototypes])
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("absent", ["mask", "floor"])
def test_with_empty_banks_the_loss_is_zero_and_connected(absent: Any) -> None:
    bicl = made(absent=absent).eval()
    out, gradients = run(bicl, 0, "grid without static")
    assert out.loss.item() == out.target_to_source.item() == out.source_to_target.item() == 0.0
    assert out.coverage == 0
    assert out.target_labels.eq(255).all()
    assert out.class_share.eq(0).all()
    assert not any(gradient.any() for gradient in gradients)


def test_coverage_and_class_share_by_hand() -> None:
    bicl = BiCL(3, 2, threshold=math.inf)
    source = torch.tensor([[[0, 0, 0, 1, 255, 255]]])
    target = torch.tensor([[[0, 1, 1, 2, 255, 255, 255, 255]]])
    out = bicl(torch.ones(1, 2, 1, 6), source, torch.ones(1, 2, 1, 8), target)
    assert out.coverage.item() == 0.5
    # Of 4 labelled target pixels 1, 2 and 1; of 4 labelled source pixels 3, 1 and none.
    torch.testing.assert_close(out.class_share, torch.tensor([0.25 / 0.75, 0.5 / 0.25, 0.0]))


def test_one_step_by_hand() -> None:
    eye = torch.eye(2).reshape(1, 2, 1, 2)
    bicl = BiCL(2, 2, temperature=1.0, threshold=0.7, weights=(1.0, 10.0))
    out = bicl(eye, torch.tensor([[[0, 1]]]), 3 * eye)
    # Confidence e / (e + 1) = 0.731 >= 0.7; every cosine is 0 or 1, so each term is log(1 + 1/e).
    term = math.log(1 + math.exp(-1))
    assert out.target_labels.tolist() == [[[0, 1]]]
    assert out.target_to_source.item() == pytest.approx(term, rel=1e-6)
    assert out.source_to_target.item() == pytest.approx(term, rel=1e-6)
    assert out.loss.item() == pytest.approx(11 * term, rel=1e-6)
    assert bicl.target_bank.prototypes.tolist() == [[3.0, 0.0], [0.0, 3.0]]
    torch.testing.assert_close(bicl.domain_bias.bias, 0.01 * 2 * torch.eye(2))
    strict = BiCL(2, 2, temperature=1.0, threshold=0.74)
    assert strict(eye, torch.tensor([[[0, 1]]]), 3 * eye).coverage == 0


@pytest.mark.parametrize("how", ["update=False", "eval"])
@pytest.mark.parametrize(
    "settings", [{}, {"bank_update": "after"}, {"prototypes": "batch"}, {"calibrate": False}]
)
def test_no_state_changes_without_an_update(settings: dict[str, Any], how: str) -> None:
    bicl = made(**settings)
    run(bicl, 0)
    before = state(bicl)
    if how == "eval":
        bicl.eval()
        first, gradients = run(bicl, 1)
        second, again = run(bicl, 1)
    else:
        first, gradients = run(bicl, 1, update=False)
        second, again = run(bicl, 1, update=False)
    assert_state_is(bicl, before)
    assert all(map(torch.equal, first, second))
    assert all(map(torch.equal, gradients, again))
    bicl.train()
    run(bicl, 1)
    changed = [name for name, value in bicl.state_dict().items() if not value.equal(before[name])]
    assert {"source_bank.prototypes", "target_bank.prototypes", "domain_bias.bias"} <= {*changed}


@pytest.mark.parametrize("reduced", [{}, {"bank_update": "after"}])
@pytest.mark.parametrize("backend", ["eager", "naive"])
def test_the_bank_may_move_between_forward_and_backward(
    backend: Any, reduced: dict[str, Any]
) -> None:
    bicl = made(backend=backend, **reduced)
    for seed in range(2):
        run(bicl, seed)
    twin = copy.deepcopy(bicl)
    _, expected = run(twin, 2)
    source, labels, target, static = batch(2, "grid")
    leaves = [value.float().requires_grad_() for value in (source, target)]
    out = bicl(leaves[0], labels, leaves[1], static)
    bicl.source_bank.reset()
    bicl.target_bank.reset()
    bicl.domain_bias.reset()
    assert all(map(torch.equal, torch.autograd.grad(out.loss, leaves), expected))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_features_and_modules_keep_the_state_wide(dtype: torch.dtype) -> None:
    bicl = made().to(dtype)
    source, labels, target, static = batch(0, "grid")
    leaves = [value.to(dtype).requires_grad_() for value in (source, target)]
    with torch.autocast("cpu", dtype):
        out = bicl(leaves[0], labels, leaves[1], static)
    out.loss.backward()
    assert out.loss.dtype == torch.float32
    assert leaves[0].grad is not None
    assert leaves[0].grad.dtype == dtype
    assert {value.dtype for value in bicl.state_dict().values()} == {
        torch.float32, torch.float64, torch.bool, torch.int64,
    }  # fmt: skip
