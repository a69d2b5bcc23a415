"""Machine code is walked as a GPU would: loops of known length to their end, and no guesses."""

import subprocess
from pathlib import Path

import pytest
import torch
import triton
import triton.language as tl

from protocontrast.kernels.launch import Launch, options
from tests.ahead_of_time.machine_code import destinations, read
from tests.ahead_of_time.resources import TOOLS, compiled
from tests.ahead_of_time.roofline import executed, parameters
from tests.ahead_of_time.walk import walk


def code_of(*lines: str) -> str:
    """A listing, from instructions and labels."""
    numbered = (
        line if line.endswith(":") else f"        /*{16 * number:04x}*/   {line} ;"
        for number, line in enumerate(lines)
    )
    return "\n".join(["", ".text.kernel:", *numbered])


LOOP = (
    "IMAD.MOV.U32 R0, RZ, RZ, -0x10",
    ".L_x_0:",
    "IADD3 R0, P0, R0, 0x10, RZ",
    "FADD R9, R9, R8",
    "ISETP.LT.U32.AND P1, PT, R0, c[0x0][0x210], PT",
    "@P1 BRA `(.L_x_0)",
    "EXIT",
)


@pytest.mark.parametrize(("end", "trips"), [(0, 1), (1, 2), (160, 11)])
def test_a_loop_runs_as_often_as_its_counter_says(end: int, trips: int) -> None:
    found = walk(read(code_of(*LOOP)), 0, {0x210: end})
    assert [found.executed[index] for index in range(6)] == [1, *[trips] * 4, 1]


def test_a_loop_of_two_trips_may_be_a_predicate_of_the_whole_warp() -> None:
    loop = (
        "UPLOP3.LUT UP0, UPT, UPT, UPT, UPT, 0x80, 0x0",
        ".L_x_0:",
        "PLOP3.LUT P2, PT, PT, PT, UP0, 0x80, 0x0",
        "UPLOP3.LUT UP0, UPT, UPT, UPT, UPT, 0x40, 0x0",
        "@P2 BRA `(.L_x_0)",
        "EXIT",
    )
    found = walk(read(code_of(*loop)), 0, {})
    assert [found.executed[index] for index in range(5)] == [1, 2, 2, 2, 1]


def test_a_loop_without_a_known_end_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="expected a loop of known length, got"):
        walk(read(code_of(*LOOP)), 0, {})


def test_a_loop_without_an_end_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.ahead_of_time.walk.MOST", 100)
    with pytest.raises(RuntimeError, match="expected an end within 100 instructions, got none"):
        walk(read(code_of(".L_x_0:", "BRA `(.L_x_0)", "EXIT")), 0, {})


def test_the_shorter_way_is_taken_where_memory_decides() -> None:
    mended = ("@P0 BRA `(.L_x_1)", "FADD R1, R1, R1", "CALL.REL.NOINC `($mend)", ".L_x_1:", "EXIT")
    loaded = ("LDG.E R1, desc[UR4][R2.64]", "FSETP.GT.AND P0, PT, R1, 1, PT")
    found = walk(read(code_of(*loaded, *mended)), 0, {})
    assert [found.executed[index] for index in range(6)] == [1, 1, 1, 0, 0, 1]


@pytest.mark.parametrize("width", ["", ".64"])
def test_a_counter_on_the_stack_is_followed(width: str) -> None:
    """Where registers are spilled; what another word of the stack holds is no counter."""
    spilled = (
        "IMAD.MOV.U32 R4, RZ, RZ, RZ",
        ".L_x_0:",
        f"STL{width} [R1+0x8], R4",
        "STL [R1+0x10], R9",
        "LDG.E R4, desc[UR4][R2.64]",
        f"LDL{width} R6, [R1+0x8]",
        "IADD3 R4, P0, R6, 0x1, RZ",
        "ISETP.LT.U32.AND P1, PT, R4, 0x5, PT",
        "@P1 BRA `(.L_x_0)",
        "EXIT",
    )
    assert walk(read(code_of(*spilled)), 0, {}).executed[7] == 5


@pytest.mark.parametrize(("bit", "trips"), [("0x1", 2), ("0x2", None)])
def test_bits_of_a_word_are_known_one_by_one(bit: str, trips: int | None) -> None:
    """Predicates are spilled as bits beside others, of which some depend on memory."""
    kept = (
        "LDG.E R8, desc[UR4][R2.64]",
        "FSETP.GT.AND P0, PT, R8, 1, PT",
        "IMAD.MOV.U32 R0, RZ, RZ, RZ",
        "IMAD.MOV.U32 R5, RZ, RZ, RZ",
        ".L_x_0:",
        "IADD3 R0, P2, R0, 0x1, RZ",
        "ISETP.LT.U32.AND P1, PT, R0, 0x2, PT",
        "LOP3.LUT R5, R5, 0xfffffffc, RZ, 0xc0, !PT",
        "@P0 LOP3.LUT R5, R5, 0x2, RZ, 0xfc, !PT",
        "@P1 LOP3.LUT R5, R5, 0x1, RZ, 0xfc, !PT",
        f"LOP3.LUT P3, RZ, R5, {bit}, RZ, 0xc0, !PT",
        "@P3 BRA `(.L_x_0)",
        "EXIT",
    )
    if trips is None:
        with pytest.raises(RuntimeError, match="expected a loop of known length, got"):
            walk(read(code_of(*kept)), 0, {})
    else:
        assert walk(read(code_of(*kept)), 0, {}).executed[4] == trips


@pytest.mark.parametrize(("thread", "idle"), [(0, 0), (64, 1)])
def test_what_a_thread_does_not_store_has_no_effect(thread: int, idle: int) -> None:
    lines = ("S2R R1, SR_TID.X", "ISETP.LT.AND P0, PT, R1, 0x40, PT")
    found = walk(read(code_of(*lines, "@P0 STG.E desc[UR4][R2.64], R5", "EXIT")), thread, {})
    assert (found.executed[2], found.idle[2]) == (1, idle)


VALUES = {
    "IADD3 R0, R1, -R2, 0x5": 0x10 - 3 + 5,
    "IMAD R0, R1, R2, 0x1": 0x31,
    "IMAD.HI.U32 R0, R3, R1, RZ": 0xF,
    "LOP3.LUT R0, R1, 0x13, RZ, 0xc0, !PT": 0x10,
    "LOP3.LUT R0, R1, 0x3, RZ, 0xfc, !PT": 0x13,
    "SHF.R.U32.HI R0, RZ, 0x3, R1": 2,
    "SHF.R.S32.HI R0, RZ, 0x1f, R3": 0xFFFFFFFF,
    "LEA R0, R1, R2, 0x2": 0x43,
    "SEL R0, R1, R2, !PT": 3,
    "VIMNMX R0, R3, R1, PT": 0xFFFFFFFF,
    "VIADD R0, R3, 0x2": 1,
    "HFMA2.MMA R0, -RZ, RZ, 0, 5.9604644775390625e-08": 1,
    "HFMA2.MMA R0, -RZ, RZ, 1, 0": 0x3C000000,
}
"""With 16, 3 and -1 in R1, R2 and R3."""


@pytest.mark.parametrize("line", VALUES)
def test_integers_are_those_of_the_machine(line: str) -> None:
    """Told by a branch, which is taken where the result is the expected one."""
    given = ("UMOV UR1, 0x10", "R2UR R1, UR1", "MOV R2, 0x3", "IMAD.MOV.U32 R3, RZ, RZ, -0x1")
    asked = (f"ISETP.EQ.AND P0, PT, R0, {VALUES[line]:#x}, PT", "@!P0 BRA `(.L_x_0)")
    code = read(code_of(*given, line, *asked, "EXIT", ".L_x_0:", "FADD R1, R1, R1", "EXIT"))
    found = walk(code, 0, {})
    assert (found.executed[7], found.executed[8]) == (1, 0)


def test_a_product_of_matrices_writes_many_registers() -> None:
    (wide,) = read(code_of("HGMMA.64x32x16.F32.BF16 R24, R88, gdesc[UR20].tnspB, R24"))
    assert destinations(wide, "R24") == [f"R{number}" for number in range(24, 40)]


@triton.jit
def summed_kernel(values, stride, rows, total, meta: tl.constexpr):
    """The sum of `rows` rows of 128 numbers."""
    offs = tl.arange(0, 128)
    found = tl.zeros([128], dtype=tl.float32)
    for row in range(rows):
        found += tl.load(values + row * stride + offs)
    tl.store(total + offs, found)


@pytest.mark.parametrize("rows", [3, 37])
def test_a_compiled_kernel_loads_each_row_once(rows: int, tmp_path: Path) -> None:
    """However often the compiler unrolled the loop."""
    memory = torch.empty(1, device="meta")
    arguments = memory, 130, rows, memory
    launch = Launch(summed_kernel, 1, arguments, None, options(4, 1))  # type: ignore[arg-type]
    assert parameters(launch) == {0x218: 130, 0x21C: rows}
    (tmp_path / "cubin").write_bytes(compiled(launch, "sm90").asm["cubin"])
    command = [str(TOOLS / "nvdisasm"), "-c", str(tmp_path / "cubin")]
    listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert executed(read(listing), launch)["loaded"] == rows * 128 * 4
