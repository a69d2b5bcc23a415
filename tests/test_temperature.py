"""A temperature given as a tensor: the numbers of a float, and one compiled program for all."""

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import protocontrast as pc
from protocontrast import eager
from protocontrast.calls import ContrastCall, TransferCall
from tests.bicl_steps import batch, made, run
from tests.differentiable import outcome, scene
from tests.sentences import assert_raises
from tests.tempered import CALLS

COMPILED = ["contrast", pytest.param("opposed", marks=pytest.mark.slow)]


@pytest.fixture(autouse=True)
def no_leftovers() -> Any:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def gradients(call: Any, temperature: object, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Value and gradient of the features."""
    return outcome(lambda f, y, p: call(f, y, p, temperature), scene(dtype), [0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", CALLS)
def test_a_tensor_gives_what_its_number_gives(name: str, dtype: torch.dtype) -> None:
    temperature = torch.tensor(0.3, dtype=dtype)
    expected = gradients(CALLS[name], float(temperature))
    for given in (temperature, nn.Parameter(temperature, requires_grad=False)):
        torch.testing.assert_close(gradients(CALLS[name], given), expected, rtol=0, atol=0)


def annealed(name: str, steps: int, **how: Any) -> int:
    """Graphs compiled while the temperature falls; values and gradients are those of floats."""
    call = CALLS[name]
    traced = torch.compile(call, fullgraph=True, backend="aot_eager", **how)
    torch._dynamo.utils.counters.clear()
    for step in range(steps):
        number = 1.0 - 0.04 * step
        ours = gradients(traced, torch.tensor(number))
        torch.testing.assert_close(ours, gradients(call, number))
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


@pytest.mark.parametrize("name", COMPILED)
def test_annealing_compiles_once(name: str) -> None:
    assert annealed(name, 20) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", CALLS)
def test_annealing_any_call_compiles_once(name: str) -> None:
    assert annealed(name, 5, dynamic=True) == 1


def test_annealing_labels_compiles_once() -> None:
    features, _, prototypes = scene(torch.float32)
    traced = torch.compile(
        lambda t: tuple(pc.transfer_labels(features, prototypes, temperature=t, threshold=0.5)),
        fullgraph=True, backend="aot_eager",
    )  # fmt: skip
    torch._dynamo.utils.counters.clear()
    for step in range(1, 20):
        expected = pc.transfer_labels(features, prototypes, temperature=step / 10, threshold=0.5)
        labels, confidence = traced(torch.tensor(step / 10, dtype=torch.float64))
        assert torch.equal(labels, expected.labels)
        torch.testing.assert_close(confidence, expected.confidence)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


@pytest.mark.slow
def test_a_float_is_compiled_in() -> None:
    """What the count above would show, were the tensor read on the way in."""
    features, labels, prototypes = scene(torch.float32)
    traced = torch.compile(CALLS["contrast"], backend="aot_eager")
    torch._dynamo.utils.counters.clear()
    for number in (0.1, 0.2, 0.3):
        traced(features, labels, prototypes, number)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 1


AWAITED = ["contrast", "dot", "logits", "pairs", "distribution", "spread"]


@pytest.mark.parametrize(
    ("name", "compiled"), [*((name, False) for name in AWAITED), *((n, True) for n in AWAITED[:2])]
)
def test_backward_takes_the_temperature_of_forward(name: str, compiled: bool) -> None:
    call = CALLS[name]
    traced = torch.compile(call, fullgraph=True, backend="aot_eager") if compiled else call
    temperature = torch.tensor(0.3)

    def changing(*inputs: Tensor) -> Tensor:
        value = traced(*inputs, temperature)
        temperature.fill_(5.0)
        return value

    found = outcome(changing, scene(torch.float32), [0])
    torch.testing.assert_close(found, gradients(call, 0.3))


def test_a_transform_around_it() -> None:
    features, labels, prototypes = scene()

    def loss(f: Tensor, t: object) -> Tensor:
        return pc.pixel_prototype_contrast(f, labels[0], prototypes, temperature=t)

    rows = features.transpose(1, 2)
    temperature = torch.tensor(0.3, dtype=torch.float64)
    each = torch.func.vmap(torch.func.grad(lambda f: loss(f, temperature)))(rows)
    alone = torch.stack([torch.func.grad(lambda f: loss(f, 0.3))(f) for f in rows])
    torch.testing.assert_close(each, alone)
    several = torch.tensor([0.2, 0.3, 1.0], dtype=torch.float64)
    found = torch.func.vmap(lambda t: loss(rows[0], t))(several)
    torch.testing.assert_close(found, torch.stack([loss(rows[0], float(t)) for t in several]))


class Annealed(nn.Module):
    def forward(self, f: Tensor, y: Tensor, p: Tensor, t: Tensor) -> Tensor:
        return pc.pixel_prototype_contrast(f, y, p, temperature=t)


def test_an_exported_program_takes_another_temperature() -> None:
    inputs = scene(torch.float32)
    given = (*inputs, torch.tensor(0.1))
    exported = torch.export.export(Annealed(), given, strict=False).module()
    expected = pc.pixel_prototype_contrast(*inputs, temperature=0.7)
    torch.testing.assert_close(exported(*inputs, torch.tensor(0.7)), expected)


LOSSES = {
    "prototypes": lambda t: pc.PixelPrototypeContrastLoss(temperature=t),
    "pairs": lambda t: pc.PairContrastLoss(temperature=t),
    "both ways": lambda t: pc.BidirectionalContrastLoss(3, temperature=t),
}


def inputs_of(name: str) -> tuple[Tensor, ...]:
    features, labels, prototypes = scene(torch.float32)
    if name == "prototypes":
        return features, labels, prototypes
    if name == "pairs":
        return features[0].t(), labels[0]
    return features, labels, features.flip(0) + 1, labels.flip(0)


def value_of(name: str, module: nn.Module) -> Tensor:
    found = module(*inputs_of(name))
    return found if isinstance(found, Tensor) else found.loss


@pytest.mark.parametrize("name", LOSSES)
def test_modules_hold_a_tensor(name: str) -> None:
    temperature = torch.tensor(0.5)
    module = LOSSES[name](temperature)
    assert not module.state_dict()
    for number in (0.5, 0.25):
        temperature.fill_(number)
        assert torch.equal(value_of(name, module), value_of(name, LOSSES[name](number)))
    module.temperature = torch.tensor(2.0)
    assert torch.equal(value_of(name, module), value_of(name, LOSSES[name](2.0)))
    assert "temperature=2.0" in repr(module)


@pytest.mark.parametrize("name", LOSSES)
def test_modules_learn_a_parameter(name: str) -> None:
    module = LOSSES[name](nn.Parameter(torch.tensor(0.5)))
    assert list(module.state_dict()) == ["temperature"]
    for twin in (module, copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        (parameter,) = twin.parameters()
        optimizer = torch.optim.SGD([parameter], lr=0.01)
        before = value_of(name, twin)
        before.backward()
        optimizer.step()
        assert 0 < value_of(name, twin) < before
    with torch.no_grad():
        assert not value_of(name, module).requires_grad


def test_bicl_between_steps() -> None:
    plain, tensors = (
        made(prototypes="bank"),
        made(temperature=torch.tensor(0.2, dtype=torch.float64)),
    )
    for step, number in enumerate([0.2, 0.5, 0.1]):
        plain.temperature = number
        tensors.temperature = torch.tensor(number, dtype=torch.float64)
        ours, theirs = run(tensors, step), run(plain, step)
        assert torch.equal(ours[0].loss, theirs[0].loss)
        assert torch.equal(ours[0].target_labels, theirs[0].target_labels)
        assert all(torch.equal(*pair) for pair in zip(ours[1], theirs[1], strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"bank_update": "after"}, {"prototypes": "batch"}])
def test_a_step_of_bicl_is_compiled_once(settings: dict[str, Any]) -> None:
    plain = made(**settings)
    mirror = copy.deepcopy(plain)
    traced = torch.compile(mirror, fullgraph=True, backend="aot_eager")
    counts = []
    for step in range(1, 5):
        source, labels, target, static = batch(step, "grid")
        plain.temperature = 0.1 * step
        mirror.temperature = torch.tensor(0.1 * step, dtype=torch.float64)
        torch.testing.assert_close(
            tuple(traced(source, labels, target, static)),
            tuple(plain(source, labels, target, static)),
        )
        counts.append(int(torch._dynamo.utils.counters["stats"]["unique_graphs"]))
    assert counts[-1] == counts[0]


@pytest.mark.parametrize("kind", ["grid", "image", "image without static"])
@pytest.mark.parametrize("update", ["before", "after"])
@pytest.mark.parametrize("prototypes", ["bank", "batch"])
def test_bicl_learns_its_temperature(prototypes: str, update: str, kind: str) -> None:
    settings = {"prototypes": prototypes, "bank_update": update, "threshold": 0.0}
    learnt = made(temperature=nn.Parameter(torch.tensor(0.3, dtype=torch.float64)), **settings)
    run(learnt, 0)
    losses, twin = {}, made(temperature=0.3, **settings)
    run(twin, 0)
    for number in (0.3 - 1e-4, 0.3, 0.3 + 1e-4):
        one = copy.deepcopy(twin)
        one.temperature = number
        losses[number] = one(*batch(1, kind)).loss
    loss = learnt(*batch(1, kind)).loss
    (slope,) = torch.autograd.grad(loss, learnt.temperature)
    low, middle, high = losses.values()
    torch.testing.assert_close(loss.detach(), middle)
    torch.testing.assert_close(slope, (high - low) / 2e-4, rtol=1e-4, atol=1e-6)


def test_a_refused_step_changes_no_bank() -> None:
    bicl = made()
    run(bicl, 0)
    before = copy.deepcopy(bicl.state_dict())
    bicl.temperature = torch.tensor(1.0)
    bicl.temperature.fill_(-1.0)
    text = "BiCL: expected temperature to be a finite number > 0, got -1.0."
    assert_raises(ValueError, text, lambda: bicl(*batch(1, "grid")))
    for name, value in bicl.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("similarity", ["cosine", "dot", "euclidean"])
def test_tensors_elsewhere_are_not_asked_for_values(similarity: str) -> None:
    """On the meta device a question for a value raises, where on a GPU the host would wait."""
    features, _, prototypes = (value.to("meta") for value in scene(torch.float32))
    temperature = torch.tensor(0.1, device="meta")
    labels = torch.zeros(2, 6, dtype=torch.int64, device="meta")
    present = torch.ones(3, dtype=torch.bool, device="meta")
    settings = similarity, temperature, similarity == "cosine", 255
    call = ContrastCall(features, labels, prototypes, present, None, None, *settings)
    loss, _, lse = eager.contrast.contrast(call)
    gradients = eager.contrast.contrast_backward(loss, call, (True, True), lse)
    assert [value.shape for value in gradients] == [features.shape, prototypes.shape]
    settings = 0.5, "confidence", similarity, temperature, 255
    found = eager.transfer.transfer(TransferCall(features, prototypes, present, None, *settings))
    assert [value.shape for value in found] == [labels.shape] * 2
