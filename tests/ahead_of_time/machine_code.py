"""NVIDIA machine code as `nvdisasm -c` prints it: instructions, and what each reads and writes."""

import re
from collections.abc import Mapping
from typing import NamedTuple

LINE = re.compile(r"^\s+/\*([0-9a-f]+)\*/\s+(?:@(!?U?P\w+)\s+)?([A-Z]\w*(?:\.\w+)*)\s*(.*?)\s*;")
LABEL = re.compile(r"^(\.L_x_\d+):")
PREDICATE = re.compile(r"!?U?P(?:\d+|T)$")
REGISTER = re.compile(r"(U?R)(\d+)$")
SPILLED = re.compile(r"\[R1(?:\+0x([0-9a-f]+))?\]$")
"""A place on the stack, whose pointer no kernel moves once it has begun."""

CONSTANT = frozenset({"RZ", "URZ", "PT", "UPT"})
"""Registers and predicates that are always the same."""
MEMORY = ("LDG", "LDGSTS", "STG", "LDS", "LDSM", "STS", "STSM", "LDL", "STL", "RED", "ATOMG")
COMPARISONS = ("ISETP", "UISETP", "FSETP", "DSETP")
PREDICATES_ALONE = (*COMPARISONS, "PLOP3", "UPLOP3")
WITH_CARRY = ("IADD3", "UIADD3", "LEA", "ULEA")
NO_RESULT = ("STG", "STS", "STL", "STSM", "LDGSTS", "RED", "BAR", "CALL", "RET", "DEPBAR", "R2P")


class Instruction(NamedTuple):
    """One instruction; `guard` is the predicate under which it has an effect."""

    guard: str | None
    name: str
    flags: tuple[str, ...]
    operands: tuple[str, ...]
    target: int = -1

    @property
    def bits(self) -> int:
        """Width of what a thread loads, stores or computes."""
        if self.name in ("LDSM", "STSM"):
            return 32 * int(self.flags[-1]) if self.flags[-1] in ("2", "4") else 32
        widths = {"128": 128, "64": 64, "U16": 16, "S16": 16, "U8": 8, "S8": 8}
        found = [widths[flag] for flag in self.flags if flag in widths]
        return found[-1] if found else 32

    @property
    def conditions(self) -> tuple[str, ...]:
        """Predicates that must hold, for a copy or a branch one more among the operands."""
        inner = self.operands if self.name == "BRA" else ()
        if self.name == "LDGSTS" and PREDICATE.match(self.operands[-1]):
            inner = self.operands[-1:]
        return inner if self.guard is None else (self.guard, *inner)


def read(text: str) -> list[Instruction]:
    """The kernel, and the subroutines behind it."""
    found: list[Instruction] = []
    labels: dict[str, int] = {}
    for line in text[text.index("\n.text.") :].splitlines():
        label = LABEL.match(line)
        if label:
            labels[label[1]] = len(found)
        match = LINE.match(line)
        if match:
            name, *flags = match[3].split(".")
            operands = re.split(r",\s*(?![^\[]*\])", match[4]) if match[4] else []
            clean = tuple(operand.replace(".reuse", "") for operand in operands)
            found.append(Instruction(match[2], name, tuple(flags), clean))
    return [_with_target(each, labels) for each in found]


def _with_target(instruction: Instruction, labels: Mapping[str, int]) -> Instruction:
    label = re.search(r"`\((\.L_x_\d+)\)", " ".join(instruction.operands))
    if instruction.name != "BRA" or label is None:
        return instruction
    return instruction._replace(target=labels[label[1]], operands=instruction.operands[:-1])


def sources(each: Instruction) -> set[str]:
    """Registers and predicates that an instruction reads, if not only these."""
    words = [*each.operands, each.guard or ""]
    found = {name for word in words for name in re.findall(r"\bU?[RP]\d+\b", word)}
    if each.name == "STL":
        found.update(consecutive(each.operands[-1], each.bits // 32))
    return found | set(spilled(each, "LDL"))


def spilled(each: Instruction, name: str) -> list[str]:
    """Words of the stack that an instruction of this name reads or writes."""
    match = SPILLED.match(each.operands[name == "LDL"]) if each.name == name else None
    if match is None or each.bits < 32:
        return []
    first = int(match[1] or "0", 16)
    return [f"stack{first + 4 * word}" for word in range(each.bits // 32)]


def written(each: Instruction) -> set[str]:
    """Those that it writes."""
    operands = list(each.operands)
    found = set(written_predicates(each.name, operands))
    if operands and each.name not in (*NO_RESULT, *PREDICATES_ALONE):
        found.update(destinations(each, operands[0]))
    return (found | set(spilled(each, "STL"))) - CONSTANT


def written_predicates(name: str, operands: list[str]) -> list[str]:
    """Predicates that are written, before the register or behind it, taken off the list."""
    found = []
    while operands and len(found) < 2 and PREDICATE.match(operands[0]):
        found.append(operands.pop(0))
    while name in WITH_CARRY and len(operands) > 1 and PREDICATE.match(operands[1]):
        found.append(operands.pop(1))
    return found


def destinations(each: Instruction, first: str) -> list[str]:
    """Registers that are written, one word each."""
    if each.name == "HGMMA":
        (columns,) = re.findall(r"\d+x(\d+)x", ".".join(each.flags))
        words = int(columns) // 2
    elif each.name in ("HMMA", "IMMA", "DMMA"):
        words = 4
    elif each.name == "CS2R" or "WIDE" in each.flags:
        words = 1 if "32" in each.flags else 2
    else:
        words = max(1, each.bits // 32)
    return consecutive(first, words)


def consecutive(first: str, words: int) -> list[str]:
    """Registers from the first on."""
    match = REGISTER.match(first)
    if match is None:
        return [first]
    return [f"{match[1]}{int(match[2]) + offset}" for offset in range(words)]
