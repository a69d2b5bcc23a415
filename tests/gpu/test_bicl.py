"""The whole method on the device: it never waits, and a graph of a step replays."""

import pytest
import torch
from torch import Tensor

import protocontrast as pc
from tests.gpu.scenes import make
from tests.gpu.test_contracts import waiting_is_an_error

SHAPE = (2, 76, 92, 92)
CLASSES = 19
KINDS = ("bank", "batch")


def stepped(prototypes: str) -> tuple[pc.BiCL, tuple[Tensor, ...]]:
    """A BiCL with banks that hold something, and the inputs of its next step."""
    source = make(SHAPE, CLASSES, torch.float32)
    target = make(SHAPE, CLASSES, torch.float32, seed=1)
    method = pc.BiCL(CLASSES, SHAPE[1], prototypes=prototypes, threshold=0.1).cuda()
    inputs = source.features, source.labels, target.features
    for _ in range(3):
        gradients_of(method, inputs)
    return method, inputs


def gradients_of(method: pc.BiCL, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    out = method(*inputs)
    leaves = inputs[0], inputs[2]
    found = torch.autograd.grad(out.loss, leaves, allow_unused=True)
    return [out.loss.detach(), out.target_labels, *(g for g in found if g is not None)]


@pytest.mark.parametrize("prototypes", KINDS)
def test_a_step_never_waits(prototypes: str) -> None:
    method, inputs = stepped(prototypes)
    with waiting_is_an_error():
        gradients_of(method, inputs)


@pytest.mark.parametrize("prototypes", KINDS)
def test_a_graph_of_a_step_goes_on_as_steps_do(prototypes: str) -> None:
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        method, inputs = stepped(prototypes)
        other, same = stepped(prototypes)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        found = gradients_of(method, inputs)
    for _ in range(3):
        graph.replay()
        expected = gradients_of(other, same)
        torch.cuda.synchronize()
        for value, again in zip(expected, found, strict=True):
            assert torch.equal(value, again)
    for name, buffer in other.state_dict().items():
        assert torch.equal(buffer, method.state_dict()[name]), name


@pytest.mark.parametrize("prototypes", KINDS)
def test_a_step_equals_the_step_on_the_host(prototypes: str) -> None:
    method, inputs = stepped(prototypes)
    host = pc.BiCL(CLASSES, SHAPE[1], prototypes=prototypes, threshold=0.1)
    host.load_state_dict(method.state_dict())
    there = tuple(v.detach().cpu().requires_grad_(v.requires_grad) for v in inputs)
    loss, labels, *to_features = gradients_of(method, inputs)
    host_loss, host_labels, *to_host_features = gradients_of(host, there)
    torch.testing.assert_close(loss.cpu(), host_loss, rtol=1e-4, atol=1e-5)
    # A pixel whose confidence is at the threshold may fall on either side.
    assert (labels.cpu() != host_labels).float().mean() < 1e-3
    for found, expected in zip(to_features, to_host_features, strict=True):
        error = (found.cpu() - expected).norm() / expected.norm()
        assert error < 1e-2
