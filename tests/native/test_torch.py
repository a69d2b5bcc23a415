"""The C backend as a guest of torch: opcheck, compile, export, transforms, one derivative only."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch

import protocontrast as pc
from tests import test_compile as compiling
from tests import test_double_backward as twice
from tests import test_export as exporting
from tests import test_operators as operators
from tests.differentiable import CALLS, READS_PROTOTYPES, scene

COVERED = [
    *("mean", "sum", "none", "soft mean", "soft none", "weighted mean", "weighted none"),
    *("floor", "dot", "euclidean", "class means", "unit class means"),
    *("logits", "euclidean logits"),
    *("pairs", "pairs none", "upsampled", "upsampled none"),
]
OPERATORS = (
    *("contrast", "contrast_backward", "contrast_with_gradient"),
    *("class_sums", "class_sums_backward", "transfer", "logits", "logits_backward"),
    *("pair_contrast", "pair_contrast_backward"),
    *("target_pass", "target_pass_backward"),
    *("upsampled_cross_entropy", "upsampled_cross_entropy_backward"),
    "upsampled_cross_entropy_with_gradient",
)


@pytest.fixture(autouse=True)
def native(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every call that C serves is its own within these tests."""
    for name in COVERED:
        monkeypatch.setitem(CALLS, name, partial(CALLS[name], backend="native"))
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def cases() -> list[Any]:
    """The operators' own calls, with this backend in the place of eager."""
    return [
        pytest.param(
            name, tuple("native" if one == "eager" else one for one in arguments), id=f"{i}"
        )
        for i, (name, arguments) in enumerate(operators.CASES)
        if name in OPERATORS
        and (
            name != "transfer"
            or "euclidean" not in [one for one in arguments if isinstance(one, str)]
        )
    ]


@pytest.mark.parametrize(("name", "arguments"), cases())
def test_opcheck(name: str, arguments: tuple[Any, ...]) -> None:
    assert "native" in [one for one in arguments if isinstance(one, str)]
    operators.test_opcheck(name, arguments)


@pytest.mark.parametrize("name", COVERED)
def test_gradcheck(name: str) -> None:
    features, labels, prototypes = scene()
    leaves = features.requires_grad_(), prototypes.requires_grad_(name in READS_PROTOTYPES)
    assert torch.autograd.gradcheck(lambda f, p: CALLS[name](f, labels, p), leaves)


@pytest.mark.parametrize("name", COVERED)
def test_compiled(name: str) -> None:
    compiling.test_forward_and_backward_of_every_call(name, "aot_eager")


def test_one_graph_for_all_shapes() -> None:
    compiling.assert_one_graph_for_all_shapes("none")


@exporting.both_ways
def test_exported(strict: bool) -> None:
    for name in ("mean", "unit class means", "logits", "upsampled"):
        exporting.test_an_exported_program_back_propagates(name, strict)
        exporting.test_other_sizes(name, strict)


@pytest.mark.parametrize("name", COVERED)
def test_a_derivative_of_a_gradient_raises(name: str) -> None:
    twice.test_a_gradient_penalty(name)
    twice.test_a_derivative_by_the_upstream_gradient(name)
    if name in READS_PROTOTYPES:
        twice.test_a_penalty_on_the_gradient_of_the_prototypes(name)


@pytest.mark.parametrize("name", ["mean", "none", "floor"])
def test_gradients_image_by_image(name: str) -> None:
    """vmap of grad is a loop over images."""
    features, labels, prototypes = scene()

    def loss(image: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        return CALLS[name](image[None], label[None], prototypes).sum()

    found = torch.func.vmap(torch.func.grad(loss))(features, labels)
    for i, image in enumerate(features):
        torch.testing.assert_close(found[i], torch.func.grad(loss)(image, labels[i]))


def test_a_kept_graph_gives_the_same_gradient_again() -> None:
    features, labels, prototypes = scene(torch.float32)
    leaf = features.requires_grad_()
    loss = 3 * CALLS["mean"](leaf, labels, prototypes)
    first = torch.autograd.grad(loss, leaf, retain_graph=True)[0]
    copy = first.clone()
    first.zero_()
    assert torch.equal(torch.autograd.grad(loss, leaf)[0], copy)


def test_tensors_on_paper_need_no_library() -> None:
    features, labels, prototypes = (one.to("meta") for one in scene())
    assert CALLS["none"](features, labels, prototypes).shape == (2, 6)


def test_a_wrong_label_is_refused_before_c_reads_it() -> None:
    features, labels, prototypes = scene()
    for wrong in (3, -1, 2**40):
        with pytest.raises(ValueError, match=f"value {wrong}"):
            pc.pixel_prototype_contrast(
                features, torch.full_like(labels, wrong), prototypes, backend="native"
            )
