"""What the device can do: bandwidth at a mix of reads and writes, products per second, launches.

The best of torch's own kernel and of a plain Triton one over block sizes counts, so that a bound is
not low because a probe was slow.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from benchmarks.gpu.cases import matmul_precision
from benchmarks.gpu.clock import Clock

STREAM_BYTES = 1 << 30
BLOCKS = (1024, 4096, 16384)
WARPS = 8
MIXES = ("read", "write", "copy")
MATRIX = 8192
DOT_MODES = {
    "16-bit": (torch.bfloat16, "highest"),
    "tf32": (torch.float32, "medium"),
    "ieee": (torch.float32, "highest"),
}
EMPTY_LAUNCHES = 100


@triton.jit
def stream_kernel(
    from_ptr, into_ptr, count, READS: tl.constexpr, WRITES: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """Reads or writes a block, or copies it; of what is only read one number is written."""
    first = tl.program_id(0).to(tl.int64) * BLOCK
    offs = first + tl.arange(0, BLOCK)
    mask = offs < count
    if READS:
        value = tl.load(from_ptr + offs, mask=mask, other=0.0)
    else:
        value = tl.full([BLOCK], 1.0, tl.float32)
    if WRITES:
        tl.store(into_ptr + offs, value, mask=mask)
    else:
        # Without a use of the values the compiler would leave the loads out.
        tl.store(into_ptr + tl.program_id(0), tl.sum(value, axis=0))


@triton.jit
def empty_kernel(any_ptr):
    """Nothing: what a launch itself costs."""


def stream(mix: str, source: Tensor, into: Tensor, block: int) -> None:
    """One pass of the Triton kernel over float32 numbers."""
    count = source.numel()
    stream_kernel[(triton.cdiv(count, block),)](
        source, into, count, READS=mix != "write", WRITES=mix != "read", BLOCK=block,
        num_warps=WARPS,
    )  # fmt: skip


def streams(mix: str, source: Tensor, into: Tensor) -> Iterator[Callable[[], Any]]:
    """Every way to move the numbers that is tried."""
    torches = {
        "read": partial(torch.sum, source),
        "write": into.zero_,
        "copy": partial(into.copy_, source),
    }
    yield torches[mix]
    for block in BLOCKS:
        yield partial(stream, mix, source, into, block)


def bandwidths(clock: Clock, device: torch.device) -> dict[str, float]:
    """Bytes per second of each mix, reads and writes counted."""
    found = {}
    count = STREAM_BYTES // 4
    source, into = (torch.ones(count, device=device) for _ in range(2))
    for mix in MIXES:
        moved = STREAM_BYTES * (2 if mix == "copy" else 1)
        fastest = min(clock.graph_us(call) for call in streams(mix, source, into))
        found[mix] = 1e6 * moved / fastest
    return found


def matmul_peaks(clock: Clock, device: torch.device) -> dict[str, float]:
    """FLOPs per second of square products, by dot mode."""
    found = {}
    for mode, (dtype, precision) in DOT_MODES.items():
        # Random numbers: zeros draw less power, and so run at a clock that real data never sees.
        left, right = (torch.randn(MATRIX, MATRIX, device=device, dtype=dtype) for _ in range(2))
        with matmul_precision(precision):
            found[mode] = 1e6 * 2 * MATRIX**3 / clock.graph_us(partial(torch.mm, left, right))
    return found


def empty_launch_us(clock: Clock, device: torch.device) -> float:
    """Time of one empty kernel inside a CUDA graph of many."""
    anything = torch.zeros(1, device=device)

    def launches() -> None:
        for _ in range(EMPTY_LAUNCHES):
            empty_kernel[(1,)](anything)

    return clock.replay_us(launches) / EMPTY_LAUNCHES


def limits(clock: Clock, device: torch.device) -> dict[str, Any]:
    """All probes, as they are stored."""
    return {
        "bytes_per_second": bandwidths(clock, device),
        "flops_per_second": matmul_peaks(clock, device),
        "empty_launch_us": empty_launch_us(clock, device),
    }
