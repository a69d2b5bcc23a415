"""The gate: nothing is timed that does not compute the same thing."""

import time
from typing import NamedTuple

from torch import Tensor

from benchmarks.cases import Case
from benchmarks.inputs import Inputs, asking
from benchmarks.operators import OPERATORS, OURS, Operator, Outputs, evaluated


class Disagreement(ValueError):
    """A contender whose result differs from the reference."""


class Tolerance(NamedTuple):
    """Largest error over the largest value, and the share of values that may stray from it."""

    error: float
    strays: float = 0.0


class Agreement(NamedTuple):
    """Seconds on the clock of a contender's first call, compiling included, and its error."""

    first_call_s: float
    error: float


ROUNDED = Tolerance(8e-3)
"""The library's results in bfloat16: one rounding, of a step's gradients their sum's as well."""
COMPOSED = Tolerance(3e-2, 2e-2)
"""Compositions in bfloat16 round in between; where a label differs, so does a pixel's gradient."""


def tolerance_of(case: Case, who: str) -> Tolerance:
    """How far a contender may be from the reference."""
    if case.dtype == "float32":
        return Tolerance(OPERATORS[case.operator].tolerance)
    return ROUNDED if who in OURS else COMPOSED


def reference(case: Case, inputs: Inputs) -> Outputs:
    """Results of the operator's reference in float64, on the same rounded inputs."""
    operator = OPERATORS[case.operator]
    exact = Inputs(*(v.double() if v.is_floating_point() else v for v in inputs))
    return evaluated(operator, operator.truth, asking(case, exact))


def _error(value: Tensor, truth: Tensor, tolerance: Tolerance) -> tuple[float, bool]:
    """The largest error over the largest value, and whether it is tolerated."""
    errors = (value.double() - truth).abs()
    largest = truth.abs().max()
    allowed = tolerance.error * largest
    if tolerance.strays == 0 or not truth.dim():
        # Written so that NaN on either side fails.
        tolerated = bool(errors.max() <= allowed)
    else:
        beyond = (~(errors <= allowed)).double().mean()
        tolerated = bool(beyond <= tolerance.strays) and not bool(errors.isnan().any())
    return float(errors.max() / largest) if float(largest) else float(errors.max()), tolerated


def check(results: Outputs, expected: Outputs, who: str, tolerance: Tolerance) -> float:
    """The largest error over the largest value of an output.

    Raises:
        Disagreement: names or shapes differ, or labels or numbers beyond `tolerance`.
    """
    if results.keys() != expected.keys():
        raise Disagreement(f"{who}: expected {sorted(expected)}, got {sorted(results)}.")
    worst = 0.0
    for name, truth in expected.items():
        value = results[name]
        if value.shape != truth.shape:
            shapes = f"{tuple(truth.shape)}, got {tuple(value.shape)}"
            raise Disagreement(f"{who}: expected {name} of shape {shapes}.")
        if not truth.is_floating_point():
            differing = int((value != truth).sum())
            if differing > tolerance.strays * truth.numel():
                raise Disagreement(f"{who}: expected equal {name}, got {differing} others.")
            continue
        error, tolerated = _error(value, truth, tolerance)
        if not tolerated:
            limit = f"within {tolerance.error:.0e}, got an error of {error:.2e}"
            raise Disagreement(f"{who}: expected {name} {limit}.")
        worst = max(worst, error)
    return worst


def check_all(case: Case, inputs: Inputs, operator: Operator) -> dict[str, Agreement]:
    """What the first call of every contender took and how far it is from the reference.

    Raises:
        Disagreement: the first contender that does not equal the reference.
    """
    expected = reference(case, inputs)
    found = {}
    for name, contender in operator.contenders.items():
        start = time.perf_counter()
        results = evaluated(operator, contender, inputs)
        taken = time.perf_counter() - start
        error = check(results, expected, f"{case}, {name}", tolerance_of(case, name))
        found[name] = Agreement(taken, error)
    return found
