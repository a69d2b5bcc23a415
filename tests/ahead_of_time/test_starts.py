"""A kernel that is started again gets what triton would hand it, and only the kernel that fits."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from hypothesis import given
from hypothesis import strategies as st
from triton.runtime import driver

import protocontrast as pc
from protocontrast import kernels
from protocontrast.functional.labels import labels_are_known
from protocontrast.kernels import starts
from protocontrast.kernels.launch import Launch, recorded
from protocontrast.kernels.meta import Meta
from tests.ahead_of_time.host import NoDevice

handed: list[tuple[Any, ...]] = []


class Told(NoDevice):
    """A driver that loads nothing and keeps what it would hand to the GPU."""

    def __init__(self) -> None:
        self.utils = SimpleNamespace(
            load_binary=lambda name, *_: (0, name, 1, 0, 1024),
            unload_module=lambda module: None,
            get_device_properties=lambda device: {"max_shared_mem": 1 << 20},
        )

    def launcher_cls(self, source: Any, metadata: Any) -> Any:
        return lambda *values: handed.append(values)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Triton believes that there is an sm_90, on which nothing runs."""
    monkeypatch.setattr(driver, "_active", Told())
    yield
    handed.clear()


class Pair(NamedTuple):
    first: Any
    second: Any


class Other(NamedTuple):
    first: Any
    second: Any


@triton.jit
def kernel_of_two(one, other, meta: tl.constexpr):
    pass


def launches(monkeypatch: pytest.MonkeyPatch) -> list[Launch]:
    """Those of a contrast and its gradients."""
    monkeypatch.setattr(kernels, "INTERPRETED", True)
    features, rows = (torch.ones(2, 32, 16), torch.ones(3, 32))
    features.requires_grad_()
    with labels_are_known(), recorded("sm90") as found:
        labels = torch.zeros(2, 16, dtype=torch.int64)
        loss = pc.pixel_prototype_contrast(features, labels, rows, backend="triton")
        torch.autograd.grad(loss, features)
    return found


@pytest.mark.usefixtures("told")
def test_a_second_start_hands_over_what_the_first_did(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starts, "compiled", {})
    asked = []
    for launch in launches(monkeypatch):
        run = launch.kernel.run
        monkeypatch.setattr(
            launch.kernel, "run", lambda *a, run=run, **k: asked.append(a) or run(*a, **k)
        )
        for _ in range(2):
            starts.start(*launch, 0)
        first, second = handed[-2:]
        assert first[:3] == second[:3] == (launch.programs, 1, 1)
        # Launch metadata are made for each start, for those who listen.
        assert first[3:6] == second[3:6] and first[7:9] == second[7:9]
        given = launch.arguments
        assert len(first) == len(second) == 10 + len(given)
        assert all(a is b is c for a, b, c in zip(first[9:-1], second[9:-1], given, strict=True))
        assert first[-1] == second[-1] == launch.meta
        launch.kernel.device_caches.pop(0)
    assert len(asked) == len(starts.compiled) == len(handed) // 2 >= 4


numbers = st.sampled_from(
    [-1, 0, 1, 2, 15, 16, 17, 2**31 - 1, 2**31, 2**31 + 16, True, False, 0.5, None]
)
tensors = st.sampled_from([
    torch.zeros(64, dtype=dtype)[start:]
    for dtype in (torch.float32, torch.bfloat16, torch.int64, torch.bool)
    for start in (0, 1, 16)
])  # fmt: skip
leaves = numbers | tensors
arguments = st.recursive(
    leaves,
    lambda inner: (
        st.builds(Pair, inner, inner) | st.builds(Other, inner, inner) | st.tuples(inner, inner)
    ),
    max_leaves=4,
)


def described(*values: Any) -> list[Any]:
    key: list[Any] = []
    starts.describe(values, key)
    return key


@pytest.mark.usefixtures("told")
def test_what_has_one_key_is_one_kernel_to_triton() -> None:
    binder = kernel_of_two.device_caches[0][-1]
    met: dict[tuple[Any, ...], str] = {}

    @given(arguments, arguments)
    def check(one: Any, other: Any) -> None:
        specialised = binder(one, other, Meta(tl.float32), debug=False)[1]
        key = tuple(described(one, other))
        assert met.setdefault(key, str(specialised)) == str(specialised)

    check()
    assert len(met) > 20
    kernel_of_two.device_caches.pop(0)


def test_layouts_and_dtypes_have_keys_of_their_own() -> None:
    aligned, odd = torch.zeros(64), torch.zeros(64)[1:]
    keys = [
        described(value)
        for value in (aligned, odd, aligned.double(), 1, 2, 16, 2**31, 2**31 + 1, None, 0.5,
                      Pair(1, 2), Other(1, 2), (1, 2), (1, (2, 3)), ((1, 2), 3))
    ]  # fmt: skip
    assert all(one != other for at, one in enumerate(keys) for other in keys[:at])
    assert described(Pair(aligned, 32)) == described(Pair(torch.ones(64), 48))


class Counted:
    """A kernel that counts what triton is asked for, and is what triton compiled, too."""

    asked, started = 0, 0
    given: tuple[Any, ...] = ()

    def run(self, *arguments: Any, **options: Any) -> "Counted":
        self.asked, self.given = self.asked + 1, arguments
        return self

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        self.started += 1
        return lambda *arguments: None


def test_triton_is_asked_once_for_each_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starts, "compiled", {})
    kernel, meta, options = Counted(), Meta(tl.float32), {"num_warps": 4, "num_stages": 2}
    kinds = [
        (1, (torch.zeros(8), 3), meta, options, 0),
        (1, (torch.zeros(8), 3), meta._replace(C=19), options, 0),
        (1, (torch.zeros(8), 3), meta, options | {"num_stages": 3}, 0),
        (1, (torch.zeros(8), 3), meta, options, 1),
        (1, (torch.zeros(8), 1), meta, options, 0),
    ]
    for _ in range(3):
        for kind in kinds:
            starts.start(kernel, *kind)
    assert (kernel.asked, kernel.started) == (len(kinds), 2 * len(kinds))
    other = Counted()
    # As many programs as there are tiles run of one and the same kernel.
    for programs in (1, 7):
        starts.start(other, programs, *kinds[0][1:])
    assert (other.asked, other.started) == (1, 1)
    monkeypatch.setattr(torch.version, "hip", "7")
    amd = Counted()
    for _ in range(2):
        starts.start(amd, *kinds[0])
    assert (amd.asked, amd.started) == (2, 0)


def test_numbers_of_numpy_are_those_of_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starts, "compiled", {})
    kernel = Counted()
    meta = Meta(tl.float32, C=np.int64(19), IGNORE_INDEX=np.int64(254), NORMALIZE=np.bool_(True))
    starts.start(kernel, 1, (torch.zeros(8),), meta, {}, 0)
    assert kernel.given[-1] == meta
    assert {type(one).__module__ for one in kernel.given[-1][1:]} == {"builtins"}
    plain = Meta(tl.float32, C=19, IGNORE_INDEX=254, NORMALIZE=True)
    starts.start(kernel, 1, (torch.zeros(8),), plain, {}, 0)
    assert (kernel.asked, kernel.started) == (1, 1)


class Aside:
    """A kernel that triton still compiles, in a thread of its own: it cannot be started so."""

    asked = 0

    def run(self, *arguments: Any, **options: Any) -> object:
        self.asked += 1
        return object()


def test_what_triton_compiles_aside_is_started_by_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starts, "compiled", {})
    kernel = Aside()
    for _ in range(2):
        starts.start(kernel, 1, (torch.zeros(8),), Meta(tl.float32), {}, 0)
    assert kernel.asked == 2
