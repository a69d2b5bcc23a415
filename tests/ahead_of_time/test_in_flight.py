"""Nothing touches the memory of a product that may still run, and what does is found."""

import pytest
import torch
import triton
import triton.language as tl

from protocontrast.kernels.launch import Launch, options
from protocontrast.kernels.meta import Meta, constants
from protocontrast.kernels.scores import waited_for
from tests.ahead_of_time import budget
from tests.ahead_of_time.calls import launch_of
from tests.ahead_of_time.cases import COSINE_AT_MOST, LAYOUTS, TABLE, Case
from tests.ahead_of_time.gate import Budget, objections
from tests.ahead_of_time.in_flight import touched_early
from tests.ahead_of_time.resources import Resources, in_ttgir

OTHER = budget.of_another_triton()

# A tile of two copies, filled two trips ahead; the product of a trip runs on into the next.
HOPPER = """
tt.func public @kernel(%source: !tt.ptr<f16>) {
  %c0 = arith.constant 0 : i32
  %c1 = arith.constant 1 : i32
  %c2 = arith.constant 2 : i32
  %copies = arith.constant {copies} : i32
  %c64 = arith.constant 64 : i32
  %c256 = arith.constant 256 : i32
  %zero = arith.constant dense<0.0> : tensor<64x64xf32, #mma>
  %tile = ttg.local_alloc : () -> !ttg.memdesc<{copies}x64x64xf16, #shared, #smem, mutable>
  %total:3 = scf.for %start = %c0 to %c256 step %c64 iter_args(%sum = %zero, %full = %c0, %free = %c2) -> (tensor<64x64xf32, #mma>, i32, i32)  : i32 {
    %read = ttg.memdesc_index %tile[%full] : !ttg.memdesc<{copies}x64x64xf16> -> !ttg.memdesc<64x64xf16>
    %turned = ttg.memdesc_trans %read {order = array<i32: 1, 0>} : !ttg.memdesc<64x64xf16> -> !ttg.memdesc<64x64xf16>
    %product = ttng.warp_group_dot %read, %turned, %sum {isAsync = true} : !ttg.memdesc<64x64xf16> * !ttg.memdesc<64x64xf16> -> tensor<64x64xf32, #mma>
    %done:2 = ttng.warp_group_dot_wait %product, %read {pendings = {pendings} : i32} : tensor<64x64xf32, #mma>, !ttg.memdesc<64x64xf16>
    %wraps = arith.remsi %free, %copies : i32
    %write = ttg.memdesc_index %tile[%wraps] : !ttg.memdesc<{copies}x64x64xf16> -> !ttg.memdesc<64x64xf16>
    %copy = ttg.async_copy_global_to_local %pointers, %write : tensor<64x64x!tt.ptr<f16>, #blocked> -> <64x64xf16, #shared, #smem, mutable>
    %next = arith.addi %full, %c1 : i32
    %back = arith.cmpi sge, %next, %copies : i32
    %after = arith.select %back, %c0, %next : i32
    %later = arith.addi %free, %c1 : i32
    scf.yield %done#0, %after, %later : tensor<64x64xf32, #mma>, i32, i32
  }
  tt.return
}
"""  # noqa: E501

# Two products with one result; the second's barrier is waited for, or not, before it is read.
BLACKWELL = """
tt.func public @kernel(%source: !tt.ptr<f16>) {
  %c0 = arith.constant 0 : i32
  %c1 = arith.constant 1 : i32
  %c2 = arith.constant 2 : i32
  %true = arith.constant true
  %left = ttg.local_alloc : () -> !ttg.memdesc<128x64xf16, #shared, #smem, mutable>
  %right = ttg.local_alloc : () -> !ttg.memdesc<64x64xf16, #shared1, #smem, mutable>
  %result = ttng.tmem_alloc : () -> !ttg.memdesc<128x64xf32, #tmem, #ttng.tensor_memory, mutable>
  %bars = ttg.local_alloc : () -> !ttg.memdesc<2xi64, #shared2, #smem, mutable>
  %first = ttg.memdesc_index %bars[%c0] : !ttg.memdesc<2xi64> -> !ttg.memdesc<1xi64>
  ttng.init_barrier %first, 1 : !ttg.memdesc<1xi64>
  %second = ttg.memdesc_index %bars[%c1] : !ttg.memdesc<2xi64> -> !ttg.memdesc<1xi64>
  ttng.init_barrier %second, 1 : !ttg.memdesc<1xi64>
  scf.for %start = %c0 to %c2 step %c1  : i32 {
    %phase = arith.andi %start, %c1 : i32
    ttng.tc_gen5_mma %left, %right, %result, %true, %true, %first[%true] {is_async} : !ttg.memdesc<128x64xf16>
    ttng.tc_gen5_mma %left, %right, %result, %true, %true, %second[%true] {is_async} : !ttg.memdesc<128x64xf16>
    ttng.wait_barrier {barrier}, {phase}, {whether} deps %left, %right : !ttg.memdesc<1xi64>
    %number = ttng.tmem_load %result : !ttg.memdesc<128x64xf32> -> tensor<128x64xf32, #blocked>
    scf.yield
  }
  tt.return
}
"""  # noqa: E501


def filled(text: str, **words: object) -> str:
    for name, word in words.items():
        text = text.replace("{" + name + "}", str(word))
    return text


@pytest.mark.parametrize(
    ("copies", "pendings", "found"), [(2, 1, True), (2, 0, False), (3, 1, False), (3, 2, True)]
)
def test_a_copy_into_what_a_product_reads_is_found(copies: int, pendings: int, found: bool) -> None:
    """Tiles are copied two trips ahead, so every product in flight needs a copy more."""
    sentences = touched_early(filled(HOPPER, copies=copies, pendings=pendings))
    assert bool(sentences) is found
    if found:
        assert sentences[0] == (
            "%tile[0], a factor of a product that may still run, is overwritten"
        )


@pytest.mark.parametrize(("pendings", "found"), [(0, False), (1, True)])
def test_memory_filled_again_while_a_product_reads_it_is_found(pendings: int, found: bool) -> None:
    filling = "%turned = ttg.local_alloc %values : (tensor<64x64xf16>) -> !ttg.memdesc<64x64xf16>"
    lines = filled(HOPPER, copies=4, pendings=pendings).splitlines()
    text = "\n".join(filling if "%turned = " in line else line for line in lines)
    sentence = "%turned[0], a result or factor of a product that may still run, is overwritten"
    assert touched_early(text) == ([sentence] if found else [])


def test_a_wait_on_one_way_of_a_branch_is_none() -> None:
    """And what either way overwrites is overwritten."""
    lines = filled(HOPPER, copies=2, pendings=0).splitlines()
    (wait,) = (line for line in lines if "%done:2 =" in line)
    (copy,) = (line for line in lines if "%copy =" in line)
    for moved, found in ((wait, True), (copy, False)):
        text = "\n".join(lines).replace(moved, f"scf.if %unknown {{\n{moved}\n}} else {{\n}}")
        text = text.replace("scf.yield %done#0", "scf.yield %product")
        assert bool(touched_early(text)) is found


@pytest.mark.parametrize(
    ("barrier", "phase", "whether", "found"),
    [
        ("%second", "%phase", "%true", False),
        ("%first", "%phase", "%true", True),
        ("%second", "%c0", "%true", True),
        ("%second", "%phase", "%c0", True),
    ],
)
def test_a_result_read_before_its_barrier_is_found(
    barrier: str, phase: str, whether: str, found: bool
) -> None:
    """Neither the first product's barrier, nor the last trip's phase, nor a wait left out."""
    text = filled(BLACKWELL, barrier=barrier, phase=phase, whether=whether)
    sentence = "%result[0], a result of a product that may still run, is read"
    assert touched_early(text) == ([sentence] if found else [])


def test_what_cannot_be_followed_is_no_pass() -> None:
    text = filled(HOPPER, copies=4, pendings=1).replace("[%full]", "[%unknown]")
    with pytest.raises(ValueError, match="in_flight: expected a"):
        touched_early(text)


def test_a_loop_of_any_length_may_stand_beside_products() -> None:
    loop = "%far = scf.for %at = %c0 to %unknown step %c1 iter_args(%sum = %c0) -> (i32)  : i32 {"
    lines = filled(HOPPER, copies=4, pendings=0).splitlines()
    end = lines.index("  tt.return")

    def around(inside: str) -> str:
        added = [loop, inside, "scf.yield %sum : i32", "}"]
        return "\n".join([*lines[:end], *added, *lines[end:]])

    assert touched_early(around("%more = arith.addi %sum, %c1 : i32")) == []


@pytest.mark.parametrize("pendings", [0, 1])
@pytest.mark.parametrize("copies", [2, 3, 4])
def test_of_a_loop_whose_length_a_launch_decides_some_trips_show_all(
    copies: int, pendings: int
) -> None:
    text = filled(HOPPER, copies=copies, pendings=pendings)
    assert touched_early(text.replace("to %c256", "to %unknown")) == touched_early(text)


def test_an_operation_that_multiplies_otherwise_is_no_pass() -> None:
    text = filled(HOPPER, copies=4, pendings=0).replace("warp_group_dot ", "warp_group_dot_new ")
    with pytest.raises(
        ValueError, match=r"expected a known operation, got ttng\.warp_group_dot_new"
    ):
        touched_early(text)


@triton.jit
def lengths_and_products_kernel(features_ptr, matrix_ptr, out_ptr, meta: tl.constexpr):
    """A tile that feeds a product and other arithmetic; for cosines it waits."""
    META: tl.constexpr = constants(meta)
    D: tl.constexpr = META.D
    C: tl.constexpr = META.C
    P: tl.constexpr = META.BLOCK_P
    offs_p, offs_c = tl.arange(0, P), tl.arange(0, C)
    total = tl.zeros([P, C], dtype=tl.float32)
    squared = tl.zeros([P], dtype=tl.float32)
    for start in range(0, D, 64):
        offs_d = start + tl.arange(0, 64)
        tile = tl.load(features_ptr + offs_p[:, None] * D + offs_d[None, :])
        squared += tl.sum(tile.to(tl.float32) * tile.to(tl.float32), axis=1)
        upper = tl.load(matrix_ptr + offs_d[:, None] + offs_c[None, :] * D)
        total = tl.dot(tile, upper, total)
        if META.OPERANDS == "split":
            lower = tl.load(matrix_ptr + C * D + offs_d[:, None] + offs_c[None, :] * D)
            total = tl.dot(tile, lower, total)
        if META.SIMILARITY == "cosine":
            total = waited_for(total)
    tl.store(out_ptr + offs_p[:, None] * C + offs_c[None, :], total * squared[:, None])


@pytest.mark.skipif(OTHER is not None, reason=OTHER or "")
@pytest.mark.parametrize(("target", "split"), [("sm90", False), ("sm90", True), ("sm100", True)])
def test_a_kernel_must_wait_for_the_product_of_a_tile_that_it_also_squares(
    target: str, split: bool
) -> None:
    """The pinned triton leaves it to the kernel; on sm_100 it waits for a single product itself."""
    arguments = (
        torch.empty(128 * 512, dtype=torch.bfloat16, device="meta"),
        torch.empty(2 * 32 * 512, dtype=torch.bfloat16, device="meta"),
        torch.empty(128 * 32, device="meta"),
    )
    sizes = Meta(tl.float32, "split" if split else "narrow", D=512, C=32, BLOCK_P=128)
    for waits in (False, True):
        meta = sizes._replace(SIMILARITY="cosine" if waits else "dot")
        launch = Launch(lengths_and_products_kernel, 1, arguments, meta, options(4, 3))
        assert bool(touched_early(in_ttgir(launch, target))) is not waits


def test_the_gate_objects() -> None:
    case = Case("sm90", "contrast", "bf16", "highest", 256, 19, "nchw", False, "cosine")
    found = Resources(100, 0, 40000, 64, 0, (), ("%tile[0], a factor, is overwritten",))
    (sentence,) = objections(case, found, Budget(100, 0))
    assert sentence == (
        f"{case}: expected no memory of a running product to be touched, "
        "got %tile[0], a factor, is overwritten. "
        "Hint: make the loop wait with `waited_for` of protocontrast/kernels/scores.py."
    )


ARITHMETIC = (
    *(("bf16", "medium", "cosine"), ("fp32", "medium", "cosine"), ("fp32", "high", "cosine")),
    *(("bf16", "highest", "dot"), ("bf16", "medium", "dot")),
)
"""What test_resources.py, which asks the same of every case, compiles for few kernels or none."""
USUAL = ("contrast", "contrast_backward_both", "target_pass")
CASES = [
    Case(target, kernel, dtype, precision, 256, 19, layout, False, similarity)
    for target in ("sm90", "sm100")
    for kernel in TABLE
    for dtype, precision, similarity in ARITHMETIC
    if similarity == "cosine" or kernel not in COSINE_AT_MOST
    for layout in LAYOUTS
]
OFTEN = [
    Case(target, kernel, "bf16", "medium", 256, 19, "nchw", False, "cosine")
    for target in ("sm90", "sm100")
    for kernel in USUAL
]


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=str(case), marks=[] if case in OFTEN else pytest.mark.slow)
        for case in CASES
    ],
)
def test_nothing_touches_a_running_product(case: Case) -> None:
    assert touched_early(in_ttgir(launch_of(case), case.target)) == []
