"""The gate: nothing is timed that does not compute the same thing."""

from benchmarks.cases import LIBRARY, OPERATORS, Case, Inputs, Operator, Outputs, asking, run


class Disagreement(ValueError):
    """A contender whose result differs from the reference."""


def reference(case: Case, inputs: Inputs) -> Outputs:
    """Results of the first alternative in float64, on the same rounded inputs."""
    operator = OPERATORS[case.operator]
    plain = next(name for name in operator.contenders if name != LIBRARY)
    exact = Inputs(*(v.double() if v.is_floating_point() else v for v in inputs))
    return run(operator, plain, asking(case, exact))


def check(results: Outputs, expected: Outputs, who: str, tolerance: float = 1e-5) -> None:
    """Raise Disagreement unless names, shapes, labels and, within `tolerance`, numbers agree."""
    if results.keys() != expected.keys():
        raise Disagreement(f"{who}: expected {sorted(expected)}, got {sorted(results)}.")
    for name, truth in expected.items():
        value = results[name]
        if value.shape != truth.shape:
            shapes = f"{tuple(truth.shape)}, got {tuple(value.shape)}"
            raise Disagreement(f"{who}: expected {name} of shape {shapes}.")
        if not truth.is_floating_point():
            differing = int((value != truth).sum())
            if differing:
                raise Disagreement(f"{who}: expected equal {name}, got {differing} others.")
            continue
        error = (value.double() - truth).abs().max()
        allowed = tolerance * truth.abs().max()
        # Written so that NaN on either side fails.
        if not bool(error <= allowed):
            limit = f"within {float(allowed):.2e}, got an error of {float(error):.2e}"
            raise Disagreement(f"{who}: expected {name} {limit}.")


def check_all(case: Case, inputs: Inputs, operator: Operator) -> None:
    """Raise Disagreement unless every contender's values and gradients equal the reference."""
    expected = reference(case, inputs)
    for name in operator.contenders:
        check(run(operator, name, inputs), expected, f"{case}, {name}", operator.tolerance)
