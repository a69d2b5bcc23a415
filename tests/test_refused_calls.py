"""A call that fails on its way leaves every buffer of every module with state bit-identical.

What refused arguments leave is asked in test_sentences.py, beside what is said of them.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch import distributed as dist

import protocontrast as pc
from protocontrast.functional import maps
from tests.bicl_steps import CLASSES, batch, made
from tests.stateful import STATES, warm

MAPS = torch.linspace(-2, 2, 2 * 4 * 6).sin().reshape(2, 4, 2, 3)
LABELS = torch.tensor([0, 1, 2, 0, 1, 255] * 2).reshape(2, 2, 3)
WRONG = torch.where(LABELS == 1, 7, LABELS)
ROWS, COUNT, PRESENT = torch.ones(3, 4), torch.ones(3), torch.ones(3, dtype=torch.bool)
LOGITS = MAPS[:, :3]
SURE = LOGITS.softmax(dim=1)
MEANS = pc.ClassPrototypes(ROWS, COUNT)


def state(module: torch.nn.Module) -> dict[str, Tensor]:
    """All buffers, those that are not saved among them."""
    return {name: value.clone() for name, value in module.named_buffers()}


def assert_refused(module: torch.nn.Module, call: Callable[[], Any]) -> None:
    before = state(module)
    with pytest.raises((ValueError, TypeError, RuntimeError, OSError)):
        call()
    after = state(module)
    assert [*after] == [*before]
    for name, value in after.items():
        assert value.dtype == before[name].dtype
        assert torch.equal(value, before[name]), name


def bank(**settings: Any) -> pc.PrototypeBank:
    module = pc.PrototypeBank(3, 4, **settings)
    module.update(MAPS, LABELS)
    take = pc.class_prototypes if module.variance is None else pc.class_statistics
    module.accumulate(take(MAPS, LABELS, 3))
    return module


def broken(good: int) -> Iterator[Any]:
    """Batches of which one fails after some good ones."""
    for _ in range(good):
        yield MAPS, LABELS
    raise OSError("the disk is gone")


BANK: dict[str, Callable[[Any], Any]] = {
    "a fit that ends early": lambda bank: bank.fit(broken(2)),
    "a fit with a wrong label": lambda bank: bank.fit([(MAPS, LABELS), (MAPS, WRONG)]),
    "a fit to other channels": lambda bank: bank.fit([(MAPS, LABELS), (MAPS[:, :2], LABELS)]),
    "a fit to triples": lambda bank: bank.fit([(MAPS, LABELS), (MAPS, LABELS, LABELS)]),
    "a fit that ignores a class": lambda bank: bank.fit([(MAPS, LABELS)], ignore_index=0),
}


@pytest.mark.parametrize(
    "settings", [{}, {"rule": "cumulative", "variance": True}, {"normalize": "prototypes"}]
)
@pytest.mark.parametrize("name", BANK)
def test_bank(name: str, settings: dict[str, Any]) -> None:
    module = bank(**settings)
    assert_refused(module, lambda: BANK[name](module))


HELD = {text.partition("(")[0]: partial(warm, text) for text in STATES if "BiCL" not in text}
bias, queue, thresholds, balance = (
    HELD[name] for name in ("DomainBias", "ClassQueue", "ClassThresholds", "LogitBalance")
)


BICL: list[dict[str, Any]] = [
    {},
    {"bank_update": "after"},
    {"prototypes": "batch"},
    {"prototypes": "batch", "bank_update": "after", "pairwise": True},
    {"balance": "class"},
    {"balance": "class", "bank_update": "after"},
]
AFTER = [BICL[1], BICL[-1]]
EVERY = [*HELD.values(), *(lambda s=s: stepped(**s) for s in BICL[:2])]


def stepped(**settings: Any) -> pc.BiCL:
    module = made(**settings)
    source, labels, target, static = batch(0, "image")
    module(source.float(), labels, target.float(), static)
    return module


@given(settings=st.sampled_from(BICL), data=st.data())
def test_any_wrong_label_at_any_pixel(settings: dict[str, Any], data: st.DataObject) -> None:
    """Whether or not the grid samples the pixel, on either side, at either resolution."""
    kind = data.draw(st.sampled_from(["image", "grid"]))
    source, labels, target, static = batch(1, kind)
    assert static is not None
    side = data.draw(st.sampled_from([labels, static]))
    place = tuple(data.draw(st.integers(0, size - 1)) for size in side.shape)
    side[place] = data.draw(st.sampled_from([77, CLASSES, -1]))
    module = stepped(**settings)
    assert_refused(module, lambda: module(source.float(), labels, target.float(), static))


@pytest.mark.parametrize("settings", BICL)
@pytest.mark.parametrize("step", ["_means", "_pass_target", "_moved_target", "contrast", "shares"])
def test_a_step_that_fails_half_way(
    step: str, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Out of memory, or a rank that is gone: nothing has moved."""
    module = stepped(**settings)
    source, labels, target, static = batch(1, "image")
    owner: Any = module
    names, calls = [step], []
    if step in ("shares", "contrast"):
        import protocontrast.bicl.module as owner

        assert owner.shares is maps.shares
    if step == "contrast":  # of the source, which comes second, in each of three ways
        names = ["pass_over", "contrast_of", "contrast_of_batch"]

    def failing(fine: Any, *given: Any, **named: Any) -> Any:
        calls.append(step)
        if len(calls) > 1 or step != "contrast":
            raise RuntimeError("half way")
        return fine(*given, **named)

    for name in names:
        monkeypatch.setattr(owner, name, partial(failing, getattr(owner, name)))
    if step == "_means" and settings in AFTER:
        # Its means come from the pass that takes the contrast.
        module(source.float(), labels, target.float(), static)
        assert not calls
        return
    assert_refused(module, lambda: module(source.float(), labels, target.float(), static))


class Meetings:
    """Stands in for torch.distributed with two ranks, whose n-th meeting fails."""

    def __init__(self, fails: int) -> None:
        self.fails, self.held = fails, 0

    def meet(self, *_: Any, **__: Any) -> None:
        self.held += 1
        if self.held == self.fails:
            raise RuntimeError("connection closed by peer")

    def gather(self, parts: list[Tensor], own: Tensor, **_: Any) -> None:
        self.meet()
        for part in parts:
            part.copy_(own)


STEPS: list[tuple[Callable[[], Any], Callable[[Any], Any], int]] = [
    (bank, lambda bank: bank.update(MAPS, LABELS), 1),
    (bank, lambda bank: bank.commit(), 1),
    (bank, lambda bank: bank.fit([(MAPS, LABELS)]), 1),
    (queue, lambda queue: queue.push(MAPS, LABELS), 2),
    (thresholds, lambda thresholds: thresholds.update(SURE), 1),
    (balance, lambda balance: balance.update(LOGITS, LABELS), 8),
    (balance, lambda balance: balance.update(LOGITS, LABELS, domain="target"), 4),
    *((lambda s=s: stepped(**s), lambda bicl: bicl(*step()), 2 + ("balance" in s)) for s in BICL),
    (lambda: stepped(balance="class", prototypes="batch"), lambda bicl: bicl(*step()), 2),
]


def step() -> tuple[Any, ...]:
    source, labels, target, static = batch(1, "image")
    return source.float(), labels, target.float(), static


@pytest.mark.parametrize("case", range(len(STEPS)))
def test_a_rank_whose_meeting_fails_has_moved_nothing(
    case: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    build, call, meetings = STEPS[case]
    for fails in [*range(1, meetings + 1), 0]:
        module, world = build(), Meetings(fails)
        with monkeypatch.context() as patch:
            patch.setattr(dist, "is_initialized", lambda: True)
            patch.setattr(dist, "get_world_size", lambda group: 2)
            patch.setattr(dist, "all_reduce", world.meet)
            patch.setattr(dist, "all_gather", world.gather)
            if fails:
                assert_refused(module, lambda m=module: call(m))
            else:
                call(module)
        assert world.held == (fails or meetings)


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("spoil", ["shape", "missing", "unexpected"])
@pytest.mark.parametrize("build", EVERY)
def test_a_state_that_does_not_fit(build: Callable[[], Any], spoil: str, assign: bool) -> None:
    """The last buffer is wrong, so that those before it have been read."""
    module = build()
    other = {name: torch.zeros_like(value) for name, value in module.state_dict().items()}
    name = [*other][-1]
    if spoil == "shape":
        other[name] = other[name].new_zeros(9, *other[name].shape)
    elif spoil == "missing":
        del other[name]
    else:
        other["else"] = other[name]
    assert_refused(module, lambda: module.load_state_dict(other, assign=assign))
    whole = {name: torch.ones_like(value) for name, value in module.state_dict().items()}
    module.load_state_dict(whole, assign=assign)
    assert all(torch.equal(value, whole[name]) for name, value in module.state_dict().items())


def test_the_check_can_fail() -> None:
    module = bank()

    def moves() -> None:
        module.update(MAPS, LABELS)
        raise ValueError("too late")

    with pytest.raises(AssertionError):
        assert_refused(module, moves)
