"""What torch and CUDA ask of the operators: no waiting, graphs, compilers, the same bits."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

import protocontrast as pc
from tests.differentiable import scene
from tests.gpu.scenes import CALLS, DTYPES, Call, Scene, gradients, make
from tests.interpreter.test_operators import KERNEL_CASES
from tests.tempered import CALLS as TEMPERED

RUNS = 20


@contextmanager
def waiting_is_an_error() -> Iterator[None]:
    """torch raises where the host would wait for the device."""
    # torch's own deterministic forms are nothing that a training run uses unasked.
    torch.use_deterministic_algorithms(False)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize(
    ("name", "arguments"),
    KERNEL_CASES,
    ids=[f"{i}-{name}" for i, (name, _) in enumerate(KERNEL_CASES)],
)
def test_opcheck(name: str, arguments: tuple[Any, ...]) -> None:
    there = [
        v.detach().cuda().requires_grad_(v.requires_grad) if isinstance(v, Tensor) else v
        for v in arguments
    ]
    operator = getattr(torch.ops.protocontrast, name).default
    assert set(torch.library.opcheck(operator, tuple(there)).values()) == {"SUCCESS"}


@pytest.mark.parametrize("similarity", ["cosine", "dot", "euclidean"])
def test_gradcheck(similarity: str) -> None:
    features, labels, prototypes = (value.cuda() for value in scene(torch.float64))

    def loss(features: Tensor, prototypes: Tensor) -> Tensor:
        return pc.pixel_prototype_contrast(
            features, labels, prototypes, similarity=similarity, temperature=0.5
        )

    leaves = features.requires_grad_(), prototypes.requires_grad_()
    assert torch.autograd.gradcheck(loss, leaves)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_same_bits_every_time(name: str, dtype: torch.dtype) -> None:
    given = make((4, 76, 91, 93), 19, dtype)
    first = gradients(CALLS[name], given)
    for _ in range(RUNS):
        for value, again in zip(first, gradients(CALLS[name], given), strict=True):
            torch.testing.assert_close(again, value, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("name", CALLS)
def test_the_host_never_waits(name: str) -> None:
    given = make((2, 76, 24, 25), 19, torch.bfloat16)
    # Compiling a kernel waits; running it must not.
    gradients(CALLS[name], given)
    with waiting_is_an_error():
        gradients(CALLS[name], given)


@pytest.mark.parametrize("learnt", [False, True])
@pytest.mark.parametrize("name", TEMPERED)
def test_a_temperature_on_the_device(name: str, learnt: bool) -> None:
    """It gives what its number gives, and nobody asks for that number."""
    features, labels, prototypes = (value.cuda() for value in scene(torch.float32))
    leaf = features.requires_grad_()
    temperature = torch.tensor(0.3, device="cuda", requires_grad=learnt)

    def found(given: object) -> list[Tensor]:
        value = TEMPERED[name](leaf, labels, prototypes, given)
        return [value.detach(), *torch.autograd.grad(value.sum(), leaf)]

    expected = found(0.3)
    found(temperature)  # compiles
    with waiting_is_an_error():
        ours = found(temperature)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


def test_waiting_would_be_found() -> None:
    with waiting_is_an_error(), pytest.raises(RuntimeError, match="synchronizing"):
        torch.ones(1, device="cuda").item()


def replayed(call: Call, given: Scene) -> Callable[[], list[Tensor]]:
    """The call with its backward captured as a CUDA graph."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            gradients(call, given)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        results = gradients(call, given)

    def replay() -> list[Tensor]:
        graph.replay()
        torch.cuda.synchronize()
        return results

    return replay


@pytest.mark.parametrize("name", CALLS)
def test_a_cuda_graph_replays_on_new_values(name: str) -> None:
    given = make((2, 76, 24, 25), 19, torch.float32)
    other = make((2, 76, 24, 25), 19, torch.float32, seed=1)
    replay = replayed(CALLS[name], given)
    for values in (given, other):
        expected = gradients(CALLS[name], values)
        with torch.no_grad():
            for place, value in zip(given, values, strict=True):
                place.copy_(value)
        for found, value in zip(replay(), expected, strict=True):
            torch.testing.assert_close(found, value, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_in_one_graph(name: str, backend: str) -> None:
    given = make((2, 76, 24, 25), 19, torch.float32)
    torch.compiler.reset()
    compiled = torch.compile(CALLS[name], fullgraph=True, backend=backend)
    results = gradients(compiled, given), gradients(CALLS[name], given)
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected)


def test_autocast_leaves_the_operators_alone() -> None:
    given = make((2, 76, 24, 25), 19, torch.bfloat16)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        inside = gradients(CALLS["contrast"], given)
    for value, other in zip(inside, gradients(CALLS["contrast"], given), strict=True):
        assert torch.equal(value, other)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one device alone is always current")
@pytest.mark.parametrize("name", CALLS)
def test_a_device_that_is_not_current(name: str) -> None:
    given = make((2, 76, 24, 25), 19, torch.float32)
    there = Scene(*(v.detach().to("cuda:1").requires_grad_(v.requires_grad) for v in given))
    for value, other in zip(
        gradients(CALLS[name], there), gradients(CALLS[name], given), strict=True
    ):
        assert value.device == torch.device("cuda", 1)
        torch.testing.assert_close(value.to(other.device), other)


def test_a_label_that_is_no_class_turns_its_own_loss_into_nan() -> None:
    labels = torch.tensor([[0, 3, -1, 2**33, 255]], device="cuda")
    features = torch.ones(1, 4, 5, device="cuda")
    loss = pc.pixel_prototype_contrast(
        features, labels, torch.eye(4, device="cuda")[:3], reduction="none"
    )
    assert torch.isnan(loss).tolist() == [[False, True, True, True, False]]
    assert loss[0, 4] == 0


@pytest.mark.parametrize("layout", ["of one number", "across"])
def test_upstream_gradients_of_any_stride(layout: str) -> None:
    given = make((2, 76, 24, 25), 19, torch.float32)
    loss = pc.pixel_prototype_contrast(*given, reduction="none")
    upstream = torch.ones(1, device="cuda").expand(loss.shape)
    if layout == "across":
        upstream = torch.randn(2, 25, 24, device="cuda").transpose(1, 2)
    dense = upstream.clone(memory_format=torch.contiguous_format)
    leaves = given.features, given.prototypes
    for found, expected in zip(
        torch.autograd.grad(loss, leaves, upstream, retain_graph=True),
        torch.autograd.grad(loss, leaves, dense),
        strict=True,
    ):
        assert torch.equal(found, expected)
