"""Nothing is timed on a GPU before its values and gradients agree with float64."""

import torch
from torch import Tensor

from benchmarks.agreement import Disagreement
from benchmarks.gpu.cases import (
    DIFFERENTIATED,
    EAGER_FUNCTIONS,
    LIBRARY,
    Case,
    Function,
    Inputs,
    Outputs,
    asking,
    upstream_of,
)

# Largest error over largest value.
EXACT = 1e-4
ROUNDED = 8e-3
"""Results in 16 bits: a rounding of bfloat16."""
ASKED = 2e-2
"""The library where torch was asked for less than float32, "medium"."""
COMPOSED = 5e-2
"""Compositions that normalise or multiply in less than float32."""


def allowed(who: str, case: Case, result: torch.dtype) -> float:
    """Largest error over largest value that a result of a contender may have."""
    wide = case.dtype == "float32" and case.precision == "highest"
    if wide:
        return EXACT
    if who != LIBRARY:
        return COMPOSED
    if case.precision == "medium":
        return ASKED
    return ROUNDED if result.itemsize == 2 else EXACT


def outcome(function: Function, operator: str, inputs: Inputs) -> Outputs:
    """Outputs and, for each input that requires one, its gradient."""
    found = function(inputs)
    leaves = {name: value for name, value in inputs._asdict().items() if value.requires_grad}
    if leaves:
        top = found[DIFFERENTIATED[operator]]
        gradients = torch.autograd.grad(top, list(leaves.values()), upstream_of(top))
        found |= {f"gradient of {k}": v for k, v in zip(leaves, gradients, strict=True)}
    return {name: value.detach() for name, value in found.items()}


def reference(case: Case, inputs: Inputs, direction: str) -> Outputs:
    """Results of the plain composition in float64, on the same rounded inputs."""
    exact = Inputs(*(v.double() if v.is_floating_point() else v for v in inputs))
    return outcome(EAGER_FUNCTIONS[case.operator], case.operator, asking(exact, direction))


def error_of(value: Tensor, truth: Tensor) -> float:
    """Largest error over largest value; of labels, the share that differs."""
    if not truth.is_floating_point():
        return float((value != truth).double().mean())
    largest = truth.abs().max().clamp_min(torch.finfo(torch.float32).tiny)
    return float((value.double() - truth).abs().max() / largest)


def check(results: Outputs, expected: Outputs, who: str, case: Case) -> float:
    """The largest error; Disagreement unless names and shapes agree and errors are small."""
    if results.keys() != expected.keys():
        raise Disagreement(f"{case}, {who}: expected {sorted(expected)}, got {sorted(results)}.")
    worst = 0.0
    for name, truth in expected.items():
        value = results[name]
        if value.shape != truth.shape:
            shapes = f"{tuple(truth.shape)}, got {tuple(value.shape)}"
            raise Disagreement(f"{case}, {who}: expected {name} of shape {shapes}.")
        error, limit = error_of(value, truth), allowed(who, case, value.dtype)
        # Written so that NaN fails.
        if not error <= limit:
            sentence = f"expected {name} within {limit:.0e}, got an error of {error:.2e}"
            raise Disagreement(f"{case}, {who}: {sentence}.")
        worst = max(worst, error)
    return worst
