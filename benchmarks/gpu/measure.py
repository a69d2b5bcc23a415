"""Rows of numbers: a case's passes, each contender after it agrees; and the bidirectional step."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from benchmarks import cases as cpu_cases
from benchmarks import inputs as cpu_inputs
from benchmarks import operators as cpu_operators
from benchmarks.agreement import Disagreement
from benchmarks.gpu import bounds
from benchmarks.gpu.cases import (
    COMPILED,
    DIFFERENTIATED,
    EAGER,
    LIBRARY,
    PASSES,
    Case,
    Function,
    Inputs,
    asking,
    build,
    functions,
    matmul_precision,
    upstream_of,
)
from benchmarks.gpu.gate import check, outcome, reference

MIB = 1024 * 1024
STEP_IMAGES, STEP_CHANNELS, STEP_SIDE = 2, 76, 92
"""The released BiCL feature map."""

Row = dict[str, Any]


def bound_of(case: Case, direction: str, limits: dict[str, Any]) -> bounds.Bound:
    """The least time of a pass on a device with these limits."""
    mix = bounds.TRAFFIC[case.operator, direction].mix
    moved = bounds.floor_bytes(
        case.operator, direction, case.pixels, case.channels, case.dtype, math.prod(case.labels)
    )
    flops = bounds.padded_flops(
        case.operator, direction, case.pixels, case.channels, case.classes, case.dtype,
        case.precision,
    )  # fmt: skip
    mode = bounds.dot_mode(case.dtype, case.precision)
    return bounds.bound(
        moved, flops, limits["bytes_per_second"][mix], limits["flops_per_second"][mode]
    )


def timed_call(
    clock: Any, function: Function, operator: str, inputs: Inputs, direction: str
) -> Callable[[], Any]:
    """What is timed: the outputs alone, or the gradients of outputs that exist already."""
    if direction == "forward":
        return partial(_without_gradient, function, inputs)
    top = clock.run(partial(function, inputs))[DIFFERENTIATED[operator]]
    leaves = [value for value in inputs if value.requires_grad]
    return partial(torch.autograd.grad, top, leaves, upstream_of(top), retain_graph=True)


def _without_gradient(function: Function, inputs: Inputs) -> Any:
    with torch.no_grad():
        return function(inputs)


def _rounded(value: float | None, digits: int = 2) -> float | None:
    return None if value is None else round(value, digits)


def pass_row(
    clock: Any, case: Case, direction: str, contenders: dict[str, Function], inputs: Inputs,
    limits: dict[str, Any],
) -> Row:  # fmt: skip
    """One row: times of all contenders, and more of the library's own call."""
    inputs = asking(inputs, direction)
    expected = reference(case, inputs, direction)
    errors, times = {}, {}
    row: Row = {}
    for name, function in contenders.items():
        try:
            results = clock.run(partial(outcome, function, case.operator, inputs))
            errors[name] = check(results, expected, name, case)
            del results
            call = timed_call(clock, function, case.operator, inputs, direction)
            times[name] = clock.graph_us(call)
            if name == LIBRARY:
                profile = clock.profile(call)
                row = {
                    "launch_us": _rounded(clock.host_us(call)),
                    "launches": profile.launches,
                    "longest_kernel": profile.longest,
                    "longest_kernel_us": _rounded(profile.longest_us),
                }
            del call
            # A call and its backward, so that what the forward keeps counts.
            whole = partial(outcome, function, case.operator, inputs)
            if direction == "forward":
                whole = partial(_without_gradient, function, inputs)
            row[f"peak_mib_{name}"] = _rounded(clock.peak_bytes(whole) / MIB)
        except (Disagreement, torch.OutOfMemoryError) as error:
            if name == LIBRARY:
                raise
            # One that computes something else, or does not fit, has no time.
            row[f"failure_{name}"] = sentence_of(error)
    return _completed(row, case, direction, times, errors, limits)


def sentence_of(error: Exception) -> str:
    """The first line of what an exception says."""
    return str(error).partition("\n")[0]


def _completed(
    row: Row, case: Case, direction: str, times: dict[str, float], errors: dict[str, float],
    limits: dict[str, Any],
) -> Row:  # fmt: skip
    own = times[LIBRARY]
    least = bound_of(case, direction, limits)
    gains = {name: times[name] / own for name in (EAGER, COMPILED) if name in times}
    gradient = case.pixels * case.channels * bounds.ELEMENT_BYTES[case.dtype] / MIB
    return {
        **described(case, direction),
        "time_us": _rounded(own),
        "bound_us": _rounded(least.time_us),
        "binds": least.binds,
        "fraction_of_bound": _rounded(least.time_us / own, 3),
        "gradient_mib": _rounded(0.0 if direction == "forward" else gradient),
        "peak_mib": row.pop(f"peak_mib_{LIBRARY}"),
        **row,
        "eager_us": _rounded(times.get(EAGER)),
        "compiled_us": _rounded(times.get(COMPILED)),
        "speedup_over_eager": _rounded(gains.get(EAGER)),
        "speedup_over_compiled": _rounded(gains.get(COMPILED)),
        "errors": {name: float(f"{error:.2e}") for name, error in errors.items()},
    }


def described(case: Case, direction: str) -> Row:
    """What identifies a row."""
    return {
        "operator": case.operator,
        "pass": direction,
        "N": case.pixels,
        "D": case.channels,
        "C": case.classes,
        "images": list(case.images),
        "labels": list(case.labels),
        "dtype": case.dtype,
        "precision": case.precision,
        "layout": case.layout,
        "goal": case.goal,
    }


def rows(
    clock: Any, case: Case, device: torch.device, limits: dict[str, Any], compiled: bool
) -> list[Row]:
    """A row per pass of the case; one that disagrees or does not fit says so instead of a time."""
    found = []
    with matmul_precision(case.precision):
        inputs = build(case, device)
        contenders = functions(case.operator, compiled)
        for direction in PASSES[case.operator]:
            try:
                row = pass_row(clock, case, direction, contenders, inputs, limits)
            except (Disagreement, torch.OutOfMemoryError) as error:
                row = {**described(case, direction), "failure": sentence_of(error)}
            found.append(row)
    return found


def step_rows(
    clock: Any, device: torch.device, limits: dict[str, Any], side: int = STEP_SIDE
) -> list[Row]:
    """The bidirectional step with its backward at the BiCL size, in graphs and eagerly."""
    found = []
    size = side, side
    case = cpu_cases.Case("bidirectional step", "both features", STEP_CHANNELS, size=size)
    inputs = cpu_inputs.Inputs(*(value.detach().to(device) for value in cpu_inputs.build(case)))
    inputs = cpu_inputs.asking(case, inputs)
    operator = cpu_operators.OPERATORS[case.operator]
    for name in (cpu_operators.LIBRARY, "eager"):
        call = partial(cpu_operators.run, operator, name, inputs)
        clock.warm_up(call)
        profile = clock.profile(call)
        replay = clock.replay_us(call)
        empty = profile.launches * limits["empty_launch_us"]
        found.append(
            {
                "contender": name,
                "shape": [STEP_IMAGES, STEP_CHANNELS, *size],
                "launches": profile.launches,
                "replay_us": _rounded(replay),
                "empty_launches_us": _rounded(empty),
                "over_empty_launches": _rounded(replay / empty) if empty else None,
                "host_us": _rounded(clock.host_us(call)),
            }
        )
    return found
