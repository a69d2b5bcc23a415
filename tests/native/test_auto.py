""" "auto" takes C for tensors of a CPU where C serves the call, and eager for the rest."""

from typing import Any

import pytest
import torch

import protocontrast as pc
from protocontrast.native import OPERATORS
from protocontrast.native.calls import SIMILARITIES
from protocontrast.ops.backend import choose
from tests import test_compile as compiling
from tests import test_gold_facts_transfer as facts
from tests import test_odd_calls as odd
from tests.differentiable import CALLS, ONE_OF_EACH, leaves_of, outcome, scene
from tests.native.variants import EVERY

FEATURES, LABELS, PROTOTYPES = scene(torch.float32)
IN_EAGER_ALONE = ["class_statistics", "distribution_contrast"]


@pytest.mark.parametrize("operator", [*OPERATORS, *IN_EAGER_ALONE])
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_what_is_written_in_c(operator: str, similarity: str) -> None:
    covered = similarity in OPERATORS.get(operator, ())
    found = choose("auto", operator, FEATURES, similarity)
    assert found == ("native" if covered else "eager")
    with pc.default_backend("eager"):
        assert choose("auto", operator, FEATURES, similarity) == "eager"


@pytest.mark.usefixtures("nowhere")
@pytest.mark.parametrize("operator", OPERATORS)
def test_without_a_library(operator: str) -> None:
    assert choose("auto", operator, FEATURES) == "eager"


@pytest.mark.parametrize("name", CALLS)
def test_bits_are_those_of_the_backend_that_is_meant(name: str) -> None:
    given = CALLS[name], scene(torch.float32), leaves_of(name)
    found = outcome(*given)
    with pc.default_backend("eager" if "distribution" in name else "native"):
        expected = outcome(*given)
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_compiled(name: str) -> None:
    torch.compiler.reset()
    compiling.test_forward_and_backward_of_every_call(name, "aot_eager")
    torch.compiler.reset()


@pytest.mark.parametrize("settings", [{}, {"bank_update": "after"}, {"prototypes": "batch"}])
def test_a_step_of_bicl(settings: dict[str, Any]) -> None:
    found = []
    for backend in ("auto", "native", "eager"):
        torch.manual_seed(0)
        source, target = (torch.randn(2, 8, 9, 11, requires_grad=True) for _ in range(2))
        labels = torch.randint(0, 5, (2, 9, 11))
        bicl = pc.BiCL(5, 8, threshold=0.1, backend=backend, **settings)
        for _ in range(2):
            loss = bicl(source, labels, target).loss
        found.append([loss.detach(), *torch.autograd.grad(loss, (source, target))])
    assert all(torch.equal(*pair) for pair in zip(found[0], found[1], strict=True))
    torch.testing.assert_close(found[0], found[2])


@pytest.mark.parametrize(
    "dtypes", [(torch.float32, torch.float64), (torch.bfloat16, torch.float32)]
)
def test_two_domains_of_different_dtypes(dtypes: tuple[torch.dtype, ...]) -> None:
    """In C they meet where they are accumulated alike, and are composed where not."""
    found = []
    for backend in ("auto", "naive"):
        source, target = (
            FEATURES.roll(i, 0).to(dtype).requires_grad_() for i, dtype in enumerate(dtypes)
        )
        domains = source, LABELS, target, LABELS.flip(0)
        loss = pc.bidirectional_contrast(*domains, num_classes=3, backend=backend).loss
        gradients = torch.autograd.grad(loss, (source, target))
        # What a domain says in float32 is no more exact in the other's float64.
        narrow = [g.float() if g.dtype == torch.float64 else g for g in gradients]
        found.append([loss.detach().float(), *narrow])
    torch.testing.assert_close(*found)


@EVERY
@pytest.mark.parametrize("similarity", ["cosine", "dot"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 1, 1), (1, 1, 1, 1)])
def test_a_class_alone_has_a_share_of_exactly_1(shape: tuple[int, ...], similarity: str) -> None:
    odd.test_one_of_everything(shape, similarity)
    facts.test_one_present_class_is_certain()
