"""`torch.compile(fullgraph=True)`: values, gradients, states and refusals as without it."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import protocontrast as pc
from protocontrast import checks
from tests.differentiable import CALLS, ONE_OF_EACH, leaves_of, outcome, scene

pytestmark = pytest.mark.usefixtures("eager")


@pytest.fixture(autouse=True)
def no_leftovers() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def compiled(function: Callable[..., Any], *, backend: str = "aot_eager", **how: Any) -> Any:
    return torch.compile(function, fullgraph=True, backend=backend, **how)


def both_ways(function: Any, traced: Any, inputs: tuple[Tensor, ...], wanted: list[int]) -> None:
    """Result and wanted gradients agree with and without the compiler."""
    found, expected = (outcome(call, inputs, wanted) for call in (traced, function))
    torch.testing.assert_close(found, expected)


# Asked by torch's compiler itself, of what it resumes with.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
def test_calls_stand_beside_the_program_of_an_older_compiler(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(checks, "TRACEABLE", False)
    torch._dynamo.utils.counters.clear()
    contrast = checks.public(pc.pixel_prototype_contrast)

    def step(features: Tensor, labels: Tensor, prototypes: Tensor) -> Tensor:
        return 2 * contrast(features.sin(), labels, prototypes)

    traced = torch.compile(step, backend="aot_eager")
    for _ in range(2):
        both_ways(step, traced, scene(torch.float32), [0, 2])
    assert torch._dynamo.utils.counters["graph_break"]


def label_maps() -> list[Tensor]:
    """Some, none and all pixels ignored."""
    labels = scene().labels
    return [labels, torch.where(labels == 255, 0, labels), torch.full_like(labels, 255)]


@pytest.mark.parametrize(
    "name", ["mean", "none", "smoothed", "logits", "unit class means", "upsampled"]
)
def test_forward_and_backward(name: str) -> None:
    features, _, prototypes = scene(torch.float32)
    traced = compiled(CALLS[name])
    for labels in label_maps():
        both_ways(CALLS[name], traced, (features, labels, prototypes), leaves_of(name))
    with torch.no_grad():
        quiet = traced(features, label_maps()[0], prototypes)
    torch.testing.assert_close(quiet, CALLS[name](features, label_maps()[0], prototypes))


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@pytest.mark.parametrize("name", CALLS)
def test_forward_and_backward_of_every_call(name: str, backend: str) -> None:
    traced = compiled(CALLS[name], backend=backend)
    both_ways(CALLS[name], traced, scene(torch.float32), leaves_of(name))


def assert_one_graph_for_all_shapes(name: str) -> None:
    traced = compiled(CALLS[name], dynamic=True)
    torch._dynamo.utils.counters.clear()
    for pixels in (6, 5, 4):
        features, labels, prototypes = scene(torch.float32)
        inputs = features[..., :pixels].contiguous(), labels[:, :pixels].contiguous(), prototypes
        both_ways(CALLS[name], traced, inputs, [0])
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


@pytest.mark.parametrize("name", ["none", "unit class means", "upsampled"])
def test_dynamic_shapes(name: str) -> None:
    assert_one_graph_for_all_shapes(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", CALLS)
def test_dynamic_shapes_of_every_call(name: str) -> None:
    assert_one_graph_for_all_shapes(name)


@pytest.mark.parametrize("balance", ["pixel", "class"])
def test_labels_at_image_resolution(balance: Any) -> None:
    features = scene(torch.float32).features.reshape(2, 4, 2, 3)
    labels = (torch.arange(2 * 8 * 6).reshape(2, 8, 6) // 5) % 3

    def loss(f: Tensor) -> Tensor:
        other = features.flip(0), labels.flip(0)
        return pc.bidirectional_contrast(f, labels, *other, num_classes=3, balance=balance).loss

    both_ways(loss, compiled(loss), (features,), [0])


@pytest.mark.parametrize("name", ["mean", "class means"])
@pytest.mark.parametrize("wanted", [False, True])
def test_wrong_labels_are_refused(name: str, wanted: bool) -> None:
    features, labels, prototypes = scene(torch.float32)
    traced = compiled(CALLS[name])
    traced(features.requires_grad_(wanted), labels, prototypes)
    with pytest.raises(ValueError, match=r"in 0\.\.2 or ignore_index = 255, got value 7 "):
        traced(features, torch.where(labels == 1, 7, labels), prototypes)


def test_wrong_labels_are_refused_by_counts() -> None:
    traced = compiled(lambda m: pc.labels_to_grid(m, (1, 1), mode="counts", num_classes=2))
    assert traced(torch.ones(1, 2, 2, dtype=torch.long)).flatten().tolist() == [0, 4]
    with pytest.raises(ValueError, match=r"labels_to_grid: expected labels in 0\.\.1"):
        traced(torch.full((1, 2, 2), 3))


# Without the refusals these give zeros: torch.compile takes no tangent of an operator.
@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_forward_mode_is_refused(name: str) -> None:
    features, labels, prototypes = scene(torch.float32)
    traced = compiled(
        lambda f: torch.func.jvp(lambda x: CALLS[name](x, labels, prototypes), (f,), (f,))
    )
    with pytest.raises(torch._dynamo.exc.Unsupported, match="expected reverse mode"):
        traced(features)


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_a_nested_gradient_is_refused(name: str) -> None:
    features, labels, prototypes = scene(torch.float32)

    def penalty(f: Tensor) -> Tensor:
        gradient = torch.func.grad(lambda x: CALLS[name](x, labels, prototypes).sum())(f)
        return gradient.square().sum()

    traced = compiled(lambda f: torch.func.grad(penalty)(f))
    with pytest.raises(torch._dynamo.exc.Unsupported, match="double backward"):
        traced(features)


def test_a_gradient_penalty_is_refused() -> None:
    features, labels, prototypes = scene(torch.float32)
    leaf = features.requires_grad_()
    loss = compiled(CALLS["mean"])(leaf, labels, prototypes)
    (gradient,) = torch.autograd.grad(loss, leaf, create_graph=True)
    with pytest.raises(RuntimeError, match="does not currently support double backward"):
        (loss + gradient.square().sum()).backward()


@pytest.mark.parametrize(("name", "argument"), [("mean", 0), ("mean", 2), ("class means", 0)])
def test_functional_gradients(name: str, argument: int) -> None:
    inputs = scene(torch.float32)

    def square(*inputs: Tensor) -> Tensor:
        return CALLS[name](*inputs).square().sum()

    gradient = torch.func.grad(square, argnums=argument)
    torch.testing.assert_close(compiled(lambda *i: gradient(*i))(*inputs), gradient(*inputs))


def test_a_bank_may_change_before_backward() -> None:
    features, labels, _ = scene(torch.float32)
    bank = pc.PrototypeBank(3, 4, momentum=0.0)
    bank.update(features, labels)

    def loss(f: Tensor) -> Tensor:
        return pc.pixel_prototype_contrast(f, labels, bank.prototypes, present=bank.present)

    leaf = features.clone().requires_grad_()
    (expected,) = torch.autograd.grad(loss(leaf), leaf)
    value = compiled(loss)(leaf)
    bank.update(features.flip(0) * 3, labels)
    (got,) = torch.autograd.grad(value, leaf)
    torch.testing.assert_close(got, expected)


class Adapted(nn.Module):
    """A model that holds a BiCL, as a training step would."""

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Conv2d(2, 4, 1)
        self.bicl = pc.BiCL(3, 4, threshold=0.4, momentum=0.5, bias_momentum=0.5, **settings)

    def forward(self, source: Tensor, labels: Tensor, target: Tensor) -> pc.BiCLOutput:
        return self.bicl(self.encoder(source), labels, self.encoder(target))


def steps(settings: dict[str, Any], **how: Any) -> None:
    """Loss, labels, gradients and every buffer agree over steps, also where the bank moves last."""
    plain = Adapted(**settings)
    mirror = copy.deepcopy(plain)
    traced = compiled(mirror, **how)
    random = torch.Generator().manual_seed(1)
    labels = torch.randint(0, 3, (2, 8, 8), generator=random)
    for _ in range(3):
        source, target = torch.randn(2, 2, 2, 4, 4, generator=random)
        ours, theirs = plain(source, labels, target), traced(source, labels, target)
        plain.zero_grad()
        mirror.zero_grad()
        ours.loss.backward()
        theirs.loss.backward()
        torch.testing.assert_close(tuple(theirs), tuple(ours))
        torch.testing.assert_close(mirror.state_dict(), plain.state_dict())
        for mine, other in zip(plain.parameters(), mirror.parameters(), strict=True):
            torch.testing.assert_close(other.grad, mine.grad, rtol=1e-4, atol=1e-6)
    assert plain.encoder.weight.grad is not None
    assert plain.encoder.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("balance", ["pixel", "class"])
def test_a_module_that_contains_bicl(balance: str) -> None:
    steps({"bank_update": "after", "balance": balance})


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"bank_update": "after"},
        {"prototypes": "batch", "pairwise": True},
        {"absent": "floor"},
        {"balance": "class"},
        {"balance": "class", "prototypes": "batch"},
    ],
)
def test_every_kind_of_bicl(settings: dict[str, Any], backend: str) -> None:
    steps(settings, backend=backend)


@pytest.mark.slow
def test_bicl_with_dynamic_shapes() -> None:
    steps({}, dynamic=True)
