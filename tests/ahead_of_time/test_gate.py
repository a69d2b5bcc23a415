"""The gate can fail: kernels that are wrong in each way, compiled, and what it says of them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import triton
import triton.language as tl

from protocontrast.kernels.launch import Launch, options
from tests.ahead_of_time.calls import launch_of
from tests.ahead_of_time.cases import FAST, Case
from tests.ahead_of_time.gate import REASONS, Budget, objections, reason_to_spill
from tests.ahead_of_time.offsets import narrow_products
from tests.ahead_of_time.resources import Resources, compiled, measured

FORWARD = Case("sm86", "contrast", "bf16", "highest", 256, 19, "nchw", False, "cosine")
WAY_BACK = FORWARD._replace(kernel="contrast_backward_both")
GOOD = Resources(100, 0, 40000, 64, 0, ())
BUDGET = Budget(100, 0)


def changed(case: Case, **constants: Any) -> Resources:
    """A case with other constants or launch options than the table's."""
    launch = launch_of(case)
    given = {name: constants.pop(name) for name in list(constants) if name.isupper()}
    options = {**launch.options, **constants}
    launch = launch._replace(meta=launch.meta._replace(**given), options=options)
    return measured(launch, case.target)


def test_a_good_kernel_is_not_objected_to() -> None:
    assert FORWARD in FAST
    assert objections(FORWARD, GOOD, BUDGET) == []


def test_spills_are_seen() -> None:
    found = changed(FORWARD, maxnreg=64)
    assert found.registers <= 64 and found.stack > 0
    (sentence,) = objections(FORWARD, found, Budget(64, found.stack))
    assert f"expected no stack, got {found.stack} bytes of spilled registers" in sentence


def test_spills_are_seen_on_amd() -> None:
    case = FORWARD._replace(target="gfx942")
    found = changed(case, num_warps=16, BLOCK_P=256)
    assert found.stack > 0
    assert any("expected no stack" in text for text in objections(case, found, None))


def test_too_much_shared_memory_is_seen() -> None:
    found = changed(FORWARD, BLOCK_P=128, BLOCK_D=128, num_stages=5)._replace(stack=0)
    assert found.shared > 99 * 1024
    (sentence,) = objections(FORWARD, found, Budget(found.registers, 0))
    assert f"expected at most 101376 bytes of shared memory, got {found.shared}." in sentence
    larger = FORWARD._replace(target="sm90")
    assert objections(larger, found, Budget(found.registers, 0)) == []


@pytest.mark.parametrize("target", ["sm90", "gfx942"])
def test_two_byte_loads_are_seen(target: str) -> None:
    """The same kernel, where 16 divides neither the pixels nor, with them, the strides."""
    unaligned = measured(launch_of(FORWARD._replace(target=target, layout="odd")), target)
    assert unaligned.two_byte_loads > 0
    case = FORWARD._replace(target=target)
    (sentence,) = objections(case, unaligned._replace(stack=0), Budget(unaligned.registers, 0))
    count = unaligned.two_byte_loads
    assert f"expected no two-byte load of aligned features, got {count}." in sentence


@pytest.mark.parametrize("target", ["sm90", "gfx942"])
def test_missing_tensor_cores_are_seen(target: str) -> None:
    """A distance of pixels and prototypes is no matrix product."""
    case = FORWARD._replace(target=target)
    found = measured(launch_of(case._replace(similarity="euclidean")), target)
    (sentence,) = objections(case, found._replace(stack=0), Budget(found.registers, 0))
    assert "expected tensor-core instructions, got 0." in sentence


def test_rounded_float32_products_are_seen() -> None:
    """TF32 where torch was told "highest"."""
    case = FORWARD._replace(dtype="fp32")
    found = changed(case, PRECISION="tf32")
    (sentence,) = objections(case, found, Budget(found.registers, found.stack))
    assert f"expected no tensor-core instruction, got {found.matrix_products}." in sentence


@triton.jit
def far_kernel(out_ptr, stride_xb, stride_xp, pixels, WIDE: tl.constexpr):
    """The image index, and pixels of any stride, multiplied in 64 bits or not."""
    image = tl.program_id(0) // 4
    offs_p = tl.arange(0, 16)
    if WIDE:
        image = image.to(tl.int64)
        offs_p = offs_p.to(tl.int64)
    tl.store(out_ptr + image * stride_xb + offs_p * stride_xp, 0.0, mask=offs_p < pixels)


@pytest.mark.parametrize("wide", [False, True])
def test_narrow_products_are_seen(wide: bool) -> None:
    arguments = torch.empty(1, device="meta"), 7, 5, 3
    launch = Launch(far_kernel, 1, arguments, wide, options(4, 1))  # type: ignore[arg-type]
    products = tuple(narrow_products(compiled(launch, "sm90").asm["ttir"]))
    assert len(products) == (0 if wide else 2)
    found = objections(FORWARD, GOOD._replace(narrow_products=products), BUDGET)
    assert len(found) == (0 if wide else 1)


SAYS: dict[str, tuple[Callable[[], list[str]], str]] = {
    "no budget": (
        lambda: objections(FORWARD, GOOD, None),
        f"{FORWARD}: expected a line in the budget, got none. "
        "Hint: python -m tests.ahead_of_time.budget writes it.",
    ),
    "registers": (
        lambda: objections(FORWARD, GOOD._replace(registers=111), BUDGET),
        f"{FORWARD}: expected at most 110 registers a thread (100 in the budget), got 111. "
        "Hint: if this is meant, python -m tests.ahead_of_time.budget rewrites the budget.",
    ),
    "stack": (
        lambda: objections(FORWARD, GOOD._replace(stack=8), Budget(100, 8)),
        f"{FORWARD}: expected no stack, got 8 bytes of spilled registers a thread. "
        "Hint: choose a smaller tile in protocontrast/kernels/configs.py.",
    ),
}


@pytest.mark.parametrize("what", SAYS)
def test_a_sentence(what: str) -> None:
    call, text = SAYS[what]
    assert call() == [text]


def test_an_allowed_spill_is_held_to_its_number() -> None:
    case = WAY_BACK._replace(classes=150)
    assert reason_to_spill(case) == REASONS["classes"]
    assert objections(case, GOOD._replace(stack=126), Budget(100, 100)) == []
    (sentence,) = objections(case, GOOD._replace(stack=127), Budget(100, 100))
    assert "expected at most 126 bytes of stack, got 127 bytes" in sentence
    assert reason_to_spill(case._replace(classes=124)) is None
    assert reason_to_spill(case._replace(kernel="contrast")) is None


def test_distances_may_spill_and_products_of_the_same_tile_may_not() -> None:
    assert reason_to_spill(FORWARD) is None
    assert reason_to_spill(FORWARD._replace(similarity="euclidean")) == REASONS["distances"]
    assert reason_to_spill(FORWARD._replace(kernel="class_sums", similarity="euclidean")) is None


def test_both_products_of_distributions_may_spill_earlier() -> None:
    case = WAY_BACK._replace(kernel="distribution_contrast_backward_both", classes=124)
    assert reason_to_spill(case) == REASONS["distributions"]
    assert reason_to_spill(case._replace(classes=64)) is None
    assert reason_to_spill(case._replace(kernel="distribution_contrast_backward_features")) is None
