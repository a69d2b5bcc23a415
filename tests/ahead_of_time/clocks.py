"""What one execution of an instruction by a warp occupies on sm_90, pipe by pipe."""

import re
from collections import Counter

from tests.ahead_of_time.machine_code import MEMORY, Instruction

FLOAT = {"FADD", "FMUL", "FFMA", "MOV", "HADD2", "HMUL2", "HFMA2", "CS2R"}
SPECIAL = {"MUFU", "I2F", "F2I", "F2F", "FRND", "POPC", "FLO", "BREV", "I2I"}
CONTROL = {
    *("BAR", "DEPBAR", "LDGDEPBAR", "WARPGROUP", "MEMBAR", "FENCE", "WARPSYNC", "NOP", "ERRBAR"),
    *("BSSY", "BSYNC", "BRA", "BREAK", "EXIT", "CALL", "RET", "LDC", "S2R", "S2UR", "R2UR"),
    *("HGMMA", "HMMA", "SHFL", "IMAD", "REDUX", *MEMORY),
}


def pipes(each: Instruction, idle: bool) -> Counter[str]:
    """What one execution by a warp occupies: clocks of a multiprocessor, and bytes of cache."""
    found: Counter[str] = Counter(instructions=1.0, issue=0.25)
    name, lanes = each.name, 4.0 * each.bits  # bits of one lane are 4 times as many bytes of 32
    if name in ("HGMMA", "HMMA"):
        _multiply(each, found)
    elif name == "IMAD":
        found["fma"] = 0.5
    elif name in FLOAT:
        found["fma"] = 0.25
    elif name in SPECIAL:
        found["mufu"] = 2.0
    elif name in ("SHFL", "REDUX"):
        found["lsu"] = 1.0
    elif name in MEMORY:
        if not idle:
            found["lsu"] = max(1.0, lanes / 128)
            if name in ("LDGSTS", "STG"):
                found["asked"] = lanes
            elif name == "LDG":
                found["loaded"] = lanes
    elif not name.startswith("U") and name not in CONTROL:
        found["alu"] = 0.5
    return found


def _multiply(each: Instruction, found: Counter[str]) -> None:
    """The tensor cores' clocks, and what a warp's share of a group's operands takes to read."""
    half = "TF32" not in each.flags
    macs = 2048 if half else 1024
    shape = re.search(r"(\d+)x(\d+)x(\d+)", ".".join(each.flags))
    if shape is None:
        rows, columns, inner = 16, 8, 16 if "16816" in each.flags else 8
        found["tensor"] = rows * columns * inner / (0.6 * macs)
        return
    rows, columns, inner = map(int, shape.groups())
    found["tensor"] = rows * columns * inner / 4 / macs
    left = 0 if any(o.startswith("R") for o in each.operands[1:2]) else rows
    found["lsu"] = (left + columns) * inner * (2 if half else 4) / 4 / 128
