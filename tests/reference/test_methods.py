"""Every method of the registry trains on any data, goes on as it was, and is used as it learnt."""

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from reference.method import Losses, Method, shared_by
from reference.methods import METHODS, at_test, build
from reference.methods.teachers import MeanTeacher
from reference.networks.output import Segmenter
from reference.run.ranks import Ranks
from tests.reference.method_steps import (
    SWITCHES,
    advance,
    begin,
    begun,
    bicl_of,
    deeplab,
    drawn,
    given,
    optimiser_of,
    saved,
    step_of,
    toy,
)
from tests.two_ranks import on_two_ranks

SIZE = (40, 56)
# Half of the run is over: every method has begun all of its terms.
LATE = 4
ADJUSTED = {"blda", "bi_mix", "protoseg"}
EVERY = [*METHODS, *(f"bicl {switch}" for switch in SWITCHES)]


def two_steps(
    method: Method, network: Segmenter, optimiser: torch.optim.Optimizer, first: int, parts: int = 1
) -> list[dict[str, float]]:
    """The losses of two steps."""
    done: list[Losses] = []
    for index in (first, first + 1):
        steps = [step_of(network, index, size=SIZE, steps=8, part=p) for p in range(parts)]
        done += advance(method, network, optimiser, steps)
    return [{name: float(term.detach()) for name, term in losses.terms.items()} for losses in done]


def made(name: str, network: Segmenter) -> Method:
    """A method of the registry, or "bicl" with one of its switches."""
    known, _, switch = name.partition(" ")
    return bicl_of(network, **SWITCHES[switch]) if switch else build(known, given(network)).train()


@pytest.mark.parametrize("name", EVERY)
def test_a_resumed_run_has_the_bits_of_one_that_went_on(name: str) -> None:
    network = toy()
    method = begin(made(name, network), network, size=SIZE)
    optimiser = optimiser_of(method, network)
    first = two_steps(method, network, optimiser, LATE, parts=2)
    assert all(torch.tensor([*one.values()]).isfinite().all() for one in first)
    assert "source_cross_entropy" in first[0]
    assert [*first[0]] == [*first[-1]]
    state = saved(network, method, optimiser)
    # As a release needs it, which is read without pickle.
    assert all(isinstance(value, Tensor) for value in state[1].values())
    straight = two_steps(method, network, optimiser, LATE + 2)

    resumed = toy()
    again = made(name, resumed)
    other = optimiser_of(again, resumed)
    for module, values in zip((resumed, again, other), state, strict=True):
        module.load_state_dict(values)
    assert two_steps(again, resumed, other, LATE + 2) == straight
    torch.testing.assert_close(saved(resumed, again), saved(network, method), rtol=0, atol=0)

    images = drawn(7, SIZE, 3).images
    with torch.no_grad():
        used = method.at_test(network)(images).logits
        read = at_test(name.partition(" ")[0], saved(method)[0], network)(images).logits
        assert torch.equal(read, used)
        assert torch.equal(used, network(images).logits) == (name not in ADJUSTED)


@pytest.mark.parametrize("name", METHODS)
def test_on_a_deeplab_with_odd_crops_in_bfloat16(name: str) -> None:
    network = deeplab()
    method = begun(name, network, size=(73, 73))
    optimiser = optimiser_of(method, network)
    cast = {"autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16)}
    for index in (LATE, LATE + 1):
        step = step_of(network, index, size=(73, 73), steps=8, **cast)
        (losses,) = advance(method, network, optimiser, [step])
        terms = torch.stack([*losses.terms.values()]).detach()
        assert terms.isfinite().all() and terms.dtype == torch.float32
    taken = {id(p) for group in optimiser.param_groups for p in group["params"]}
    frozen = [p for m in method.modules() if isinstance(m, MeanTeacher) for p in m.parameters()]
    assert all(p.grad is None and id(p) not in taken for p in frozen)
    # What is not trained by its own is trained by the loop, and by every step.
    assert all(p.grad is not None for p in method.trained())


@pytest.mark.parametrize("size", [(1, 1), (2, 33), (17, 5)])
@pytest.mark.parametrize("name", METHODS)
def test_crops_may_be_as_small_as_a_pixel(name: str, size: tuple[int, int]) -> None:
    network = toy()
    method = begin(build(name, given(network)).train(), network, size=SIZE)
    optimiser = optimiser_of(method, network)
    for index in (0, LATE):
        steps = [step_of(network, index, size=size, steps=8)]
        (losses,) = advance(method, network, optimiser, steps)
        assert all(term.isfinite() for term in losses.terms.values())


@pytest.mark.parametrize("name", METHODS)
def test_tensors_are_made_where_the_network_is(name: str) -> None:
    """What is made on the default device cannot be read together with the network's."""
    network = toy()
    method = build(name, given(network)).train()
    begin(method, network, size=SIZE, device="meta")
    optimiser = optimiser_of(method, network)
    advance(method, network, optimiser, [step_of(network, LATE, size=SIZE, steps=8)])
    step = step_of(network, LATE + 1, size=SIZE, steps=8)
    with torch.device("meta"):
        losses = method(step)
        method.after(network, Ranks())
    assert all(term.isfinite() for term in losses.terms.values())


def on_a_rank(rank: int) -> list[dict[str, Any]]:
    """States of all methods after a step of two parts, where the ranks have different images."""
    ranks, states = Ranks(rank, 2), []
    for name in EVERY:
        network = toy()
        method = made(name, network)
        begin(method, network, size=SIZE, number=2 + rank, ranks=ranks)
        optimiser = optimiser_of(method, network)
        whole = shared_by(ranks, network, method)
        steps = [
            step_of(network, LATE, size=SIZE, steps=8, part=part, ranks=ranks) for part in (0, 1)
        ]
        advance(method, network, optimiser, steps, by=whole)
        states.append(network.state_dict() | method.state_dict())
    return states


def test_two_ranks_keep_one_state(tmp_path: Path) -> None:
    for name, *states in zip(EVERY, *on_two_ranks(on_a_rank, tmp_path), strict=True):
        torch.testing.assert_close(*states, rtol=0, atol=0, msg=name)


def test_ranks_of_fewer_images_wait_for_the_others() -> None:
    others = iter([1, 1, 1, 0])

    class Two(Ranks):
        """Two ranks, of which the other has three batches."""

        def total(self, values: Tensor) -> Tensor:
            return values + next(others)

    batches = [drawn(i, (8, 8), 3, number=1) for i in range(2)]
    shown = list(Two().evenly(batches))
    assert [batch is None for batch in shown] == [False, False, True]


def test_an_unknown_method_is_told_with_the_nearest_names() -> None:
    for name, near in (("bicle", "bicl, "), ("#", ", ".join(METHODS))):
        with pytest.raises(ValueError, match=f"name of a method, got '{name}'. Hint: {near}"):
            build(name, given(toy()))


def test_every_method_says_what_it_is_and_when_it_wants_day_images() -> None:
    for name, entry in METHODS.items():
        assert inspect.getdoc(entry.kind()), name
        assert entry.kind().uses_partners == entry.uses_partners
