"""The code of docs/extending.md runs; what needs other packages does in tests/integrations/."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import protocontrast
from tests.extending_blocks import (
    BLOCKS,
    IN_PACKAGES,
    half_ignored,
    install,
    loaded,
    run,
    scenes,
    sections,
)
from tests.reference.method_steps import advance, given, optimiser_of, step_of, toy

CLASSES = 19


def assert_trained(backbone: nn.Module) -> None:
    """A finite gradient, other than zero, has reached every parameter."""
    for name, parameter in backbone.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_every_block_of_the_document_is_run() -> None:
    assert list(BLOCKS) == [
        "From a formula to a method",
        "Volumes",
        "Is a new loss right?",
        "Add an operator",
        *IN_PACKAGES,
        "DAFormer and what is built on it",
    ]


def test_the_method_of_the_document_trains() -> None:
    network = toy()
    start = [parameter.clone() for parameter in network.parameters()]
    method = run("From a formula to a method")["NearestPrototype"](given(network))
    optimiser = optimiser_of(method, network)
    for index in range(4):
        (losses,) = advance(method, network, optimiser, [step_of(network, index)])
        assert set(losses.terms) == {"source_cross_entropy", "contrast"}
        assert all(term.isfinite() and term > 0 for term in losses.terms.values())
    assert method.bank.present.any()
    assert not all(map(torch.equal, start, network.parameters()))


def test_the_step_on_volumes() -> None:
    torch.manual_seed(0)
    names = run("Volumes")
    assert_trained(names["encoder"])
    assert_trained(names["classify"])
    assert names["bicl"].source_bank.present.all()
    assert names["bicl"].target_bank.present.any()
    assert names["grid"].shape == (2, 8, 16, 16)


def test_the_comparison_of_the_document_can_fail() -> None:
    heading = "Is a new loss right?"
    known = {"torch": torch, "pc": protocontrast}
    run(heading, known)
    wrong = BLOCKS[heading][0].replace("row.logsumexp(0) - row[y]", "row.logsumexp(0) + row[y]")
    assert wrong != BLOCKS[heading][0]
    with pytest.raises(AssertionError, match="Scalars are not close"):
        exec(compile(wrong, "wrong", "exec"), dict(known))


@pytest.fixture(scope="module")
def operator() -> Iterator[dict[str, Any]]:
    """The names of the blocks, of a module that the compiler can import."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        module = loaded("Add an operator")
        install(monkeypatch, {module.__name__: module})
        yield vars(module)


def pixels_and_centres() -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    features = torch.randn(2, 3, 4, 5, generator=random, dtype=torch.float64)
    labels = torch.randint(4, (2, 4, 5), generator=random)
    labels[0, 0], features[0, :, 0] = 255, math.nan
    return features, labels, torch.randn(4, 3, generator=random, dtype=torch.float64)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_the_operator_of_the_document_is_its_formula(
    operator: dict[str, Any], reduction: str
) -> None:
    features, labels, centres = pixels_and_centres()
    found = []
    for backend in ("naive", "eager", "auto"):
        leaf = features.clone().requires_grad_()
        loss = operator["centre_loss"](leaf, labels, centres, reduction=reduction, backend=backend)
        (gradient,) = torch.autograd.grad(loss.sum(), leaf)
        assert gradient[0, :, 0].abs().sum() == 0
        found.append((loss.detach(), gradient))
    torch.testing.assert_close(found[1], found[0])
    torch.testing.assert_close(found[2], found[0])
    valid = labels != 255
    gaps = features.movedim(1, -1)[valid] - centres[labels[valid]]
    torch.testing.assert_close(found[0][0].sum(), {
        "mean": gaps.square().sum(dim=1).mean() / 2, "sum": gaps.square().sum() / 2,
        "none": gaps.square().sum() / 2,
    }[reduction])  # fmt: skip


def test_what_follows_from_the_declaration(operator: dict[str, Any]) -> None:
    features, labels, centres = pixels_and_centres()
    features = features.nan_to_num().requires_grad_()
    loss = operator["centre_loss"]

    def summed(features: Tensor, labels: Tensor) -> Tensor:
        return loss(features, labels, centres, reduction="sum")

    assert torch.autograd.gradcheck(lambda f: summed(f, labels), features)
    leaf = features.detach().flatten(2).requires_grad_()
    flat = leaf, labels.flatten(1), centres, 255
    results = torch.library.opcheck(torch.ops.mine.centre_loss.default, flat)
    assert set(results.values()) == {"SUCCESS"}
    (expected,) = torch.autograd.grad(summed(features, labels), features)
    compiled = torch.compile(summed, fullgraph=True, backend="aot_eager")(features, labels)
    torch.testing.assert_close(torch.autograd.grad(compiled, features)[0], expected)
    torch.testing.assert_close(torch.func.grad(summed)(features.detach(), labels), expected)
    (gradient,) = torch.autograd.grad(summed(features, labels), features, create_graph=True)
    with pytest.raises(RuntimeError, match="got a derivative of a gradient"):
        gradient.sum().backward()
    labels[1, 1, 1] = 4
    with pytest.raises(
        ValueError, match=r"^centre_loss: expected labels in 0\.\.3 or ignore_index"
    ):
        summed(features, labels)
    with pytest.raises(ValueError, match=r"^centre_loss: expected centres of shape \(C, D\)"):
        loss(features, labels, centres[:, :2])


def test_the_contrast_of_a_daformer() -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 12, 4, stride=4)
    mix = run("DAFormer and what is built on it")["MixContrast"](layer, CLASSES, 12)
    (images, labels), (mixed, guess) = scenes(1), scenes(2, shift=0.1)
    labels, guess = half_ignored(labels), half_ignored(guess)
    layer(images)
    mix.see_source(labels)
    known = torch.zeros(CLASSES, dtype=torch.bool)
    known[labels[labels != 255].unique()] = True
    assert torch.equal(mix.bank.present, known)
    mixed.requires_grad_()
    layer(mixed)
    trust = torch.ones(guess.shape)
    trust[0, :, 16:] = 0
    mix(guess, trust).backward()
    # The upper half of the first image and all of the second have no label, the right no trust.
    assert mixed.grad[0, :, 16:, :16].abs().sum() > 0
    assert mixed.grad[0, :, 16:, 16:].abs().sum() == 0
    assert mixed.grad[0, :, :16].abs().sum() == 0
    assert mixed.grad[1].abs().sum() == 0
    assert {"bank.prototypes", "bank.count"} <= set(mix.state_dict())


def test_a_block_is_found_below_its_heading() -> None:
    text = (
        "# A\n```python\nx = 1\n```\n## B\nnone\n### C\n```python\ny = 2\n```\n```python\nz\n```\n"
    )
    assert sections(text) == {"A": ["x = 1\n"], "C": ["y = 2\n", "z\n"]}
