"""Two ranks equal one process on the union of their batches, and share banks and bias."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch import distributed as dist

from protocontrast import (
    BiCL,
    ClassQueue,
    ClassThresholds,
    LogitBalance,
    PrototypeBank,
    class_prototypes,
    class_statistics,
)
from tests.bicl_steps import CLASSES, DIM, assert_state_is, batch
from tests.strategies import normal
from tests.two_ranks import on_two_ranks

pytestmark = pytest.mark.skipif(not dist.is_gloo_available(), reason="torch without gloo")
BANKS: list[dict[str, Any]] = [
    {},
    {"rule": "cumulative"},
    {"rule": "replace"},
    {"normalize": "features"},
    {"normalize": "prototypes"},
    {"variance": True},
    {"variance": True, "rule": "cumulative", "normalize": "features"},
]


def pixels(seed: int, kind: str = "full") -> tuple[Tensor, Tensor]:
    """Another number of pixels for every seed, so that a mean of means is not the mean."""
    random = torch.Generator().manual_seed(seed)
    number = 0 if kind == "empty" else 8 + 11 * (seed % 3)
    features = torch.randn(number, DIM, generator=random) * 2 + seed % 5
    labels = torch.randint(0, 4, (number,), generator=random)
    if kind == "ignored":
        labels = torch.full_like(labels, 255)
    elif kind == "nan":
        features[labels == 1] = math.nan
    return features, labels


KINDS = [
    ("full", "full"),
    ("full", "ignored"),
    ("empty", "full"),
    ("nan", "full"),
    ("full", "nan"),
    ("ignored", "empty"),
    ("full", "full"),
]


def noted(bank: PrototypeBank, stats: Any = ()) -> tuple[dict[str, Tensor], list[Tensor]]:
    """A copy of the state, and what the update returned."""
    state = {name: value.clone() for name, value in bank.state_dict().items()}
    return state, [value.clone() for value in stats]


def bank_rank(rank: int) -> list[Any]:
    seen = []
    for settings in BANKS:
        bank = PrototypeBank(CLASSES, DIM, momentum=0.6, **settings)
        for step, kinds in enumerate(KINDS):
            seen.append(noted(bank, bank.update(*pixels(2 * step + rank, kinds[rank]))))
        for step in range(2):
            part = pixels(50 + 2 * step + rank, "full" if step else ["empty", "full"][rank])
            units = bank.normalize == "features"
            take = class_prototypes if bank.variance is None else class_statistics
            bank.accumulate(take(*part, CLASSES, normalize=units))
        seen.append(noted(bank, bank.commit()))
        bank.fit(pixels(70 + 2 * part + rank) for part in range(2 + rank))
        seen.append(noted(bank))
    return seen


def union(parts: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    features, labels = (torch.cat(column) for column in zip(*parts, strict=True))
    return features, labels


def bank_alone() -> list[Any]:
    seen = []
    for settings in BANKS:
        bank = PrototypeBank(CLASSES, DIM, momentum=0.6, **settings)
        for step, kinds in enumerate(KINDS):
            both = union([pixels(2 * step + r, kinds[r]) for r in range(2)])
            seen.append(noted(bank, bank.update(*both)))
        seen.append(noted(bank, bank.update(*union([pixels(51), pixels(52), pixels(53)]))))
        bank.fit([pixels(seed) for seed in (70, 72, 71, 73, 75)])
        seen.append(noted(bank))
    return seen


def assert_near(one: Any, other: Any) -> None:
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5, equal_nan=True)


def test_two_ranks_equal_one_process_on_the_union(ranks: list[Any]) -> None:
    first, second = (seen["bank"] for seen in ranks)
    alone = bank_alone()
    assert len(first) == len(second) == len(alone) == len(BANKS) * (len(KINDS) + 2)
    for mine, theirs, whole in zip(first, second, alone, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0, equal_nan=True)
        state, stats = mine
        assert torch.equal(state["skipped"], whole[0]["skipped"])
        assert torch.equal(state["present"], whole[0]["present"])
        assert torch.equal(state["count"], whole[0]["count"])
        assert_near(state["prototypes"], whole[0]["prototypes"])
        if "variance" in state:
            assert_near(state["variance"], whole[0]["variance"])
        for value, expected in zip(stats, whole[1], strict=True):
            assert_near(value.double(), expected.double())
    assert any(state["skipped"][1] > 0 for state, _ in first)
    assert not first[-1][0]["pending_sum"].any()


def test_a_mean_of_means_would_differ() -> None:
    parts = [pixels(0), pixels(1)]
    means = [class_prototypes(*part, CLASSES) for part in parts]
    both = means[0].present & means[1].present
    pooled = class_prototypes(*union(parts), CLASSES).mean
    assert not torch.allclose(((means[0].mean + means[1].mean) / 2)[both], pooled[both], rtol=1e-3)


SETTINGS: list[dict[str, Any]] = [{}, {"bank_update": "after"}, {"prototypes": "batch"}]
BALANCED: list[dict[str, Any]] = [
    {"balance": "class"},
    {"balance": "class", "bank_update": "after"},
    {"balance": "class", "absent": "floor", "bank_update": "after", "weights": (0.3, 1.0)},
]


def halves(seed: int, rank: int | None) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """One image of each domain per rank, or both; the second step's rank 1 has no label at all."""
    source, labels, target, static = batch(seed, "grid without static" if seed == 2 else "image")
    if seed == 1:
        labels[1] = 255
        if static is not None:
            static[1] = 255
    part = slice(None) if rank is None else slice(rank, rank + 1)
    return source[part], labels[part], target[part], None if static is None else static[part]


def bicl_rank(rank: int | None) -> list[Any]:
    """Of each setting and step: the state, the output, and gradients of both domains.

    Behind the last step there is an evaluation, in which nobody meets.
    """
    seen = []
    for settings in SETTINGS + BALANCED:
        bicl = BiCL(CLASSES, DIM, threshold=0.6, temperature=0.2, momentum=0.6, **settings)
        bicl.double()
        for seed in range(4):
            source, labels, target, static = halves(seed, rank)
            leaves = [source.clone().requires_grad_(), target.clone().requires_grad_()]
            out = bicl(leaves[0], labels, leaves[1], static)
            gradients = torch.autograd.grad(out.loss, leaves)
            state = {name: value.clone() for name, value in bicl.state_dict().items()}
            seen.append((state, tuple(value.detach() for value in out), gradients))
        seen.append(bicl.eval()(source, labels, target, static)[:3])
    return seen


EACH = 4 + 1
"""What a setting has to show, the evaluation last."""
PIXELWISE = len(SETTINGS) * EACH


def steps_of(seen: list[Any]) -> list[Any]:
    return [one for place, one in enumerate(seen) if place % EACH != EACH - 1]


def test_bicl_shares_state_and_keeps_its_loss(ranks: list[Any]) -> None:
    given = *(seen["bicl"][:PIXELWISE] for seen in ranks), bicl_rank(None)[:PIXELWISE]
    differing = 0
    for mine, theirs, whole in zip(*map(steps_of, given), strict=True):
        torch.testing.assert_close(mine[0], theirs[0], rtol=0, atol=0)
        torch.testing.assert_close(mine[0], whole[0], rtol=1e-9, atol=1e-9)
        assert torch.equal(torch.cat([mine[1][3], theirs[1][3]]), whole[1][3])
        coverage = (mine[1][4] + theirs[1][4]) / 2
        torch.testing.assert_close(coverage, whole[1][4])
        differing += int(mine[1][0] != theirs[1][0])
    assert differing >= len(SETTINGS) * 2


def test_a_loss_is_that_of_the_rank_alone_given_the_shared_banks(ranks: list[Any]) -> None:
    for rank, seen in enumerate(each["bicl"] for each in ranks):
        # Of the second setting, "after": the state that the last of four steps started from.
        before, _, _ = seen[EACH + 2]
        bicl = BiCL(CLASSES, DIM, threshold=0.6, temperature=0.2, bank_update="after").double()
        bicl.load_state_dict(before)
        source, labels, target, static = halves(3, rank)
        out = bicl.eval()(source, labels, target, static)
        torch.testing.assert_close(out, seen[EACH + 3][1])
        assert_state_is(bicl, before)


def test_balanced_losses_of_two_ranks_have_the_mean_of_their_union(ranks: list[Any]) -> None:
    given = *(seen["bicl"][PIXELWISE:] for seen in ranks), bicl_rank(None)[PIXELWISE:]
    steps, differing = [*zip(*map(steps_of, given), strict=True)], 0
    for mine, theirs, alone in steps:
        for one, other, whole in zip(mine[1][:3], theirs[1][:3], alone[1][:3], strict=True):
            torch.testing.assert_close((one + other) / 2, whole, rtol=1e-9, atol=1e-9)
            differing += int((one - other).abs() > 1e-3)
        for one, other, whole in zip(mine[2], theirs[2], alone[2], strict=True):
            # As DistributedDataParallel does, whose parameters see the sum of all images.
            torch.testing.assert_close(torch.cat([one, other]) / 2, whole, rtol=1e-9, atol=1e-9)
    assert differing > len(steps)
    # In an evaluation each rank balances its own pixels.
    for mine, theirs, whole in zip(*(seen[EACH - 1 :: EACH] for seen in given), strict=True):
        assert abs((mine[0] + theirs[0]) / 2 - whole[0]) > 1e-3


def evaluate_alone(rank: int) -> Tensor:
    """Rank 0 evaluates while rank 1 does not: no update, so nobody waits."""
    source, labels, target, static = halves(0, rank)
    losses = torch.zeros(())
    for balance in ("pixel", "class") if rank == 0 else ():
        bicl = BiCL(CLASSES, DIM, balance=balance).eval()
        losses = losses + bicl(source.float(), labels, target.float(), static, update=False).loss
        bicl.train()(source.float(), labels, target.float(), static, update=False)
    return losses


def test_evaluation_does_not_meet_the_other_rank(ranks: list[Any]) -> None:
    assert ranks[0]["alone"] == 0


def subgroups(rank: int) -> tuple[Tensor, Tensor]:
    """Each rank in a group of its own shares with nobody; the default group shares with all."""
    own = [dist.new_group([member]) for member in range(2)][rank]
    alone = PrototypeBank(1, 1, process_group=own)
    shared = PrototypeBank(1, 1)
    for bank in (alone, shared):
        bank.update(torch.full((1, 1), 2.0 * rank), torch.zeros(1, dtype=torch.long))
    return alone.prototypes, shared.prototypes


def queue_rank(members: list[int]) -> list[dict[str, Tensor]]:
    """The states of a queue that one rank, or one process for several, pushes to."""
    queue, seen = ClassQueue(CLASSES, 5, DIM), []
    for step, kinds in enumerate(KINDS):
        for rank in members:
            queue.push(*pixels(2 * step + rank, kinds[rank]), per_class=(None, 2, 9)[step % 3])
        seen.append({name: value.clone() for name, value in queue.state_dict().items()})
    return seen


def balance_rank(members: list[int]) -> list[dict[str, Tensor]]:
    """Tables of one rank, or of one process for several; rank 1 lacks what rank 0 has at last."""
    balance, seen = LogitBalance(3, 2, pixels=4 * len(members)), []
    for step in range(3):
        # Four rows each of three classes per rank, rank after rank within each class.
        rows = normal(step, (3, 2, 4, 3), torch.float32)[:, members] * 2
        labels = torch.arange(3)[:, None, None].expand(3, len(members), 4).clone()
        if step == 2:
            labels[2, members.index(1) if 1 in members else 0] = 255 if 1 in members else 2
        balance.update(rows.flatten(0, 2), labels.flatten(), domain=("source", "target")[step % 2])
        seen.append({name: value.clone() for name, value in balance.state_dict().items()})
    return seen


def thresholds_rank(rank: int | None) -> list[Tensor]:
    """The mass after each step, of a rank's half of the images or of all of them."""
    seen = []
    for momentum in (None, 0.8):
        thresholds = ClassThresholds(4, momentum=momentum)
        for seed in range(3):
            images = (3 * normal(seed, (2, 4, 60), torch.float32)).softmax(dim=1)
            if seed == 1:
                images[1] = torch.nan
            thresholds.update(images if rank is None else images[rank : rank + 1])
            seen.append(thresholds.mass.clone())
        seen.append(thresholds.thresholds())
    return seen


def everything(rank: int) -> dict[str, Any]:
    """All in one meeting, since starting two processes costs seconds."""
    return {
        "bank": bank_rank(rank),
        "bicl": bicl_rank(rank),
        "alone": evaluate_alone(rank),
        "groups": subgroups(rank),
        "queue": queue_rank([rank]),
        "balance": balance_rank([rank]),
        "thresholds": thresholds_rank(rank),
    }


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    return on_two_ranks(everything, tmp_path_factory.mktemp("ranks"))


def test_queues_of_two_ranks_equal_one_that_takes_turns(ranks: list[Any]) -> None:
    first, second = (seen["queue"] for seen in ranks)
    for mine, theirs, alone in zip(first, second, queue_rank([0, 1]), strict=True):
        for name, value in mine.items():
            assert torch.equal(value, theirs[name])
            assert torch.equal(value, alone[name])
    assert first[-1]["skipped"][1] > 0


def test_two_ranks_fit_the_samples_of_both(ranks: list[Any]) -> None:
    first, second = (seen["balance"] for seen in ranks)
    for step, states in enumerate(zip(first, second, balance_rank([0, 1]), strict=True)):
        for name, value in states[0].items():
            assert torch.equal(value, states[1][name])
            if step < 2:
                torch.testing.assert_close(value, states[2][name])
    # The third class has samples on one rank alone, which is enough.
    assert first[2]["count"].tolist() == [[2, 2, 2], [1, 1, 1]]


def test_two_ranks_hold_the_thresholds_of_both(ranks: list[Any]) -> None:
    first, second = (seen["thresholds"] for seen in ranks)
    for mine, theirs, whole in zip(first, second, thresholds_rank(None), strict=True):
        assert torch.equal(mine, theirs) and torch.equal(mine, whole)


def test_a_process_group_bounds_the_sharing(ranks: list[Any]) -> None:
    first, second = (seen["groups"] for seen in ranks)
    assert (first[0].item(), second[0].item()) == (0.0, 2.0)
    assert (first[1].item(), second[1].item()) == (1.0, 1.0)
