""" "auto" stands for what a block of code says, for as long as it lasts."""

import pytest
import torch

import protocontrast as pc
from protocontrast.ops.backend import choose

FEATURES, LABELS, PROTOTYPES = torch.eye(3), torch.arange(3), torch.eye(3)


def taken() -> str:
    return choose("auto", "contrast", FEATURES)


def test_the_innermost_block_counts_and_ends_with_an_error() -> None:
    before = taken()
    with pc.default_backend("naive"):
        assert taken() == "naive"
        with pytest.raises(RuntimeError), pc.default_backend("eager"):
            assert taken() == "eager"
            raise RuntimeError
        with pc.default_backend("auto"):
            assert taken() == before
        assert taken() == "naive"
    assert taken() == before


def test_it_begins_with_the_block() -> None:
    before = taken()
    block = pc.default_backend("naive")
    assert taken() == before
    with block:
        assert taken() == "naive"


def test_a_name_keeps_its_meaning() -> None:
    with pc.default_backend("naive"):
        assert choose("eager", "contrast", FEATURES) == "eager"
        assert pc.PixelPrototypeContrastLoss(backend="eager").backend == "eager"


def test_a_backend_that_cannot_run_is_refused_by_the_call() -> None:
    refused = pytest.raises(ValueError, match=r"^class_prototypes: expected backend .*'triton'")
    with pc.default_backend("triton"), refused:
        pc.class_prototypes(FEATURES, LABELS, 3)


def test_backward_takes_the_backend_of_its_forward() -> None:
    leaf = FEATURES.clone().requires_grad_()
    with pc.default_backend("eager"):
        losses = pc.pixel_prototype_contrast(leaf, LABELS, PROTOTYPES, reduction="none")
    with pc.default_backend("naive"):
        losses.sum().backward()
    expected = FEATURES.clone().requires_grad_()
    pc.pixel_prototype_contrast(
        expected, LABELS, PROTOTYPES, reduction="none", backend="eager"
    ).sum().backward()
    assert leaf.grad is not None and expected.grad is not None
    assert torch.equal(leaf.grad, expected.grad)


def test_a_compiled_call_follows_it() -> None:
    torch.compiler.reset()

    def length(x: torch.Tensor) -> torch.Tensor:
        return x + len(choose("auto", "contrast", x))

    compiled = torch.compile(length, fullgraph=True, backend="eager")
    for name in ("eager", "naive", "auto", "eager"):
        with pc.default_backend(name):
            assert compiled(torch.zeros(1)) == len(taken())
    torch.compiler.reset()
