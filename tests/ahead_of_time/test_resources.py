"""Every kernel compiles for every target, within registers, memory and instructions."""

from collections.abc import Callable, Iterable
from itertools import product

import pytest

from protocontrast.kernels import configs
from protocontrast.kernels.configs import power_of_two
from tests.ahead_of_time import budget
from tests.ahead_of_time.calls import launch_of
from tests.ahead_of_time.cases import (
    CHANNELS,
    CLASSES,
    DAILY,
    FAST,
    KERNELS,
    LAYOUTS,
    LESSER,
    ON_AMD,
    SLOW,
    SOFT,
    TABLE,
    TARGETS,
    Case,
    everything,
    in_runs,
    row,
)
from tests.ahead_of_time.gate import NAMED, REASONS, objections, reason_to_spill
from tests.ahead_of_time.resources import Resources

BUDGET = budget.read()
OTHER = budget.of_another_triton()
CASES = [
    pytest.param(case, id=str(case), marks=[] if case in DAILY else pytest.mark.slow)
    for case in SLOW
]


@pytest.mark.skipif(OTHER is not None, reason=OTHER or "")
@pytest.mark.parametrize("case", CASES)
def test_a_kernel_fits_its_target(case: Case, resources: Callable[[Case], Resources]) -> None:
    assert objections(case, resources(case), BUDGET.get(case)) == []


def test_fast_holds_every_kernel_on_every_target_and_daily_on_one() -> None:
    assert {(case.target, case.kernel) for case in FAST} == set(product(TARGETS, KERNELS))
    daily = {(case.target, case.kernel) for case in DAILY}
    assert daily == {*product(("sm90",), KERNELS), *product(("gfx942",), ON_AMD)}


def test_slow_holds_every_row_that_a_call_reaches() -> None:
    """The interpreter's row apart, that is every row of the table."""
    reached = {
        (case.target, TABLE[case.kernel], id(row(case)))
        for target in TARGETS
        for kernel in TABLE
        for case in everything(target, kernel)
        if target != "sm86" or case.dtype in ("bf16", "fp32")
    }
    held = {(case.target, TABLE[case.kernel], id(row(case))) for case in SLOW if row(case)}
    assert reached == held
    rows = {id(each) for each in configs.ROWS if each.families != ("interpreter",)}
    assert {identity for _, _, identity in held} == rows


def test_a_launch_has_the_row_of_its_case() -> None:
    """Which `launch.plan` looks up; those that keep prototypes have no use for it by distances."""
    cases = {(case.target, case.kernel, row(case), in_runs(case)): case for case in SLOW}
    for case in cases.values():
        found = row(case)
        if found is not None:
            launch, config = launch_of(case), found.config
            block_d = min(config.block_d, power_of_two(case.channels))
            asked = config._replace(block_d=block_d)[:4]
            meta, how = launch.meta, launch.options
            given = meta.BLOCK_P, meta.BLOCK_D, how["num_warps"], how["num_stages"]
            assert given[2] == 4 or case.target != "gfx942"
            # Of a tile that products alone read, or beside soft targets, one less is on its way.
            fewer = (*asked[:3], asked[3] - (config.programs > 0))
            assert case.target == "gfx942" or given in (asked, fewer), str(case)


@pytest.mark.parametrize("kernel", [kernel for kernel in TABLE if kernel not in LESSER])
@pytest.mark.parametrize("target", [target for target in TARGETS if target != "sm86"])
def test_slow_turns_every_axis(target: str, kernel: str) -> None:
    """On sm86, compiled in fewer ways, not every number of channels gets its turn."""
    cases = [case for case in SLOW if (case.target, case.kernel) == (target, kernel)]
    assert {case.channels for case in cases} >= set(CHANNELS)
    # Pairs compare labels, whatever the number of classes: one number stands for all.
    classes = CLASSES[:1] if kernel.startswith("pair_") else CLASSES[:3]
    assert {case.classes for case in cases} >= set(classes)
    assert {case.layout for case in cases} >= set(LAYOUTS)
    assert {case.soft for case in cases} == ({False, True} if kernel in SOFT else {False})


def test_the_budget_is_that_of_the_pinned_triton() -> None:
    lines = (budget.FILE.parents[2] / "constraints.txt").read_text("utf-8").splitlines()
    (pinned,) = (line.removeprefix("triton==") for line in lines if line.startswith("triton=="))
    assert budget.of_another_triton(pinned) is None
    assert budget.of_another_triton(f"{pinned}+rocm") is None
    assert budget.of_another_triton("3.6.0") == (
        f"the budget holds the registers of triton {pinned}, and 3.6.0 is installed"
    )


def names(cases: Iterable[Case]) -> set[tuple[str, str, str]]:
    return {(case.target, case.kernel, case.name) for case in cases}


def test_the_budget_names_every_case_and_no_other() -> None:
    """A row that is changed, added or taken back moves cases: `--missing` measures those."""
    assert names(SLOW) == budget.names()


def test_a_spill_that_is_named_is_in_the_budget() -> None:
    named = {case for case in SLOW if str(case) in NAMED}
    assert len(named) == len(NAMED)
    assert all(BUDGET[case].stack > 0 for case in named)
    assert {reason_to_spill(case) for case in named} == {REASONS["named"]}
