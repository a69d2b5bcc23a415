"""C after a fork, and from several threads at once."""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import protocontrast as pc
from protocontrast.calls import ContrastCall
from protocontrast.native import contrast as leaf
from tests.native.variants import EVERY
from tests.shared import on
from tests.strategies import normal
from tests.test_threads import LABELS, MAP, TABLE, bits, same

globals().update(on("native", "threads"))

COVERED = ("mean", "euclidean", "class means", "bidirectional", "logits", "pairs", "upsampled")


@pytest.fixture(autouse=True)
def threads_restored() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@EVERY
@pytest.mark.parametrize("name", COVERED)
def test_every_instruction_set(name: str) -> None:
    with pc.default_backend("native"):
        assert same(bits(name, 1), bits(name, 2))


@EVERY
def test_labels_and_a_step() -> None:
    """What has no gradient, and the target pass."""
    maps = [normal(i, (2, 64, 48, 48)).float().requires_grad_() for i in range(2)]
    given, (features, target), found = LABELS.unflatten(1, (48, 48)), maps, []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        labels = pc.transfer_labels(features, normal(2, TABLE).float(), backend="native")
        loss = pc.BiCL(19, 64, threshold=0.1, backend="native")(features, given, target).loss
        found.append([*labels, loss.detach(), *torch.autograd.grad(loss, (features, target))])
    assert same(found[0], found[1]) and same(found[0], found[2])


@pytest.mark.parametrize("name", COVERED)
def test_several_python_threads_at_once(name: str) -> None:
    with pc.default_backend("native"):
        alone = bits(name, 2)
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda _: bits(name, 2), range(8)))
    assert all(same(one, alone) for one in found)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork")
def test_after_a_fork() -> None:
    """A child has none of its parent's threads: what waits for one would wait for ever."""
    features, prototypes = (normal(i, shape).float() for i, shape in enumerate([MAP, TABLE]))
    call = ContrastCall(features, LABELS, prototypes, None, None, None, "cosine", 0.1, False, 255)
    torch.set_num_threads(2)
    expected = leaf.contrast_with_gradient(call, True, (True, True))
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        found = leaf.contrast_with_gradient(call, True, (True, True))
        torch.set_num_threads(1)  # torch's own pool is what does not survive
        os._exit(0 if same(list(found), list(expected)) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
