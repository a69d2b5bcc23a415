"""`bidirectional_contrast` is one node of autograd on the CPU, where it is not composed."""

import pytest
import torch

from protocontrast import bidirectional_contrast
from tests.operator_calls import OF_DOMAINS, PLAIN

pytestmark = pytest.mark.usefixtures("eager")


@pytest.mark.parametrize("backend", ["eager"])
@pytest.mark.parametrize("name", OF_DOMAINS)
def test_it_is_one_node(name: str, backend: str) -> None:
    call = PLAIN[name]()
    leaves = {key: value.requires_grad_() for key, value in call.fresh().items()}
    halves = {key: value.detach().half().requires_grad_() for key, value in leaves.items()}
    for other, alone in (({}, True), ({"backend": "naive"}, False), (halves, False)):
        found = bidirectional_contrast(**{**call.given, **leaves, "backend": backend, **other})
        one = found.target_to_source.grad_fn is found.source_to_target.grad_fn
        assert one == alone


@pytest.mark.parametrize("backend", ["eager"])
@pytest.mark.parametrize("factors", [(1.0, 0.0), (0.0, -1.0), (0.3, 2.0)])
@pytest.mark.parametrize("name", OF_DOMAINS)
def test_each_direction_has_a_gradient_of_its_own(
    name: str, factors: tuple[float, float], backend: str
) -> None:
    """Of both domains, or of one that alone wants it."""
    call = PLAIN[name](dtype=torch.float64)
    for wanted in (call.leaves, call.leaves[:1], call.leaves[1:]):
        leaves, found = {key: call.fresh()[key] for key in wanted}, []
        for one in (backend, "naive"):
            given = bidirectional_contrast(**{**call.given, **leaves, "backend": one})
            loss = factors[0] * given.target_to_source + factors[1] * given.source_to_target
            found.append(torch.autograd.grad(loss, [*leaves.values()]))
        torch.testing.assert_close(*found)
