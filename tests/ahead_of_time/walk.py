"""What a warp executes of a compiled kernel: how often each instruction.

A thread's integers and predicates are followed from the kernel's parameters on; what was loaded
from memory or computed in floating point is not known. Where such a value decides a branch the
shorter way is taken, which in these kernels is the one on which nothing is to be mended. A loop
whose end is not known is an error, never a guess.
"""

import re
import struct
from collections import Counter
from collections.abc import Callable, Mapping
from typing import NamedTuple

from tests.ahead_of_time.machine_code import (
    COMPARISONS,
    CONSTANT,
    MEMORY,
    REGISTER,
    Instruction,
    consecutive,
    destinations,
    sources,
    spilled,
    written,
    written_predicates,
)

PARAMETER = re.compile(r"c\[0x0\]\[(0x[0-9a-f]+)\]$")
WORD = 0xFFFFFFFF
MOST = 20_000_000
"""Instructions after which a walk is given up."""
CALL_COST = 50
"""Instructions that a subroutine stands for when ways are compared."""
GUARDED = ("BRA", "EXIT", *MEMORY)

Value = int | None


class Bits(NamedTuple):
    """A word of which only the bits of `known` are."""

    word: int
    known: int


State = dict[str, Value | Bits]
Words = Mapping[int, int]


class Walk(NamedTuple):
    """Executions by index of the instruction, and those without effect."""

    executed: Counter[int]
    idle: Counter[int]


def distances(code: list[Instruction]) -> list[float]:
    """Instructions from each to the end by the shortest way."""
    far = [float("inf")] * (len(code) + 1)
    changed = True
    while changed:
        changed = False
        for index in range(len(code) - 1, -1, -1):
            each = code[index]
            ways = [far[index + 1]]
            if each.name == "EXIT":
                ways = [0.0] if each.guard is None else [0.0, *ways]
            elif each.name == "BRA":
                always = each.guard is None and not each.operands
                ways = [far[each.target]] if always else [far[each.target], *ways]
            elif each.name == "RET":
                ways = [0.0]
            cost = min(ways) + (CALL_COST if each.name == "CALL" else 1)
            if cost < far[index]:
                far[index], changed = cost, True
    return far


def decisive(code: list[Instruction]) -> list[set[str]]:
    """What each instruction writes that has a part in what is executed."""
    needed: set[str] = set()
    for each in code:
        if each.name in GUARDED:
            needed.update(name.strip("!") for name in each.conditions)
    results = [written(each) for each in code]
    before = -1
    while len(needed) > before:
        before = len(needed)
        for each, names in zip(code, results, strict=True):
            if names & needed and each.name in COMPUTED:
                needed |= sources(each)
    return [names & needed for names in results]


def walk(code: list[Instruction], thread: int, parameters: Words) -> Walk:
    """What the first program's warp of this thread executes.

    `parameters` are 32-bit words by their offset in the constant bank; some may be missing.
    """
    far, counts = distances(code), decisive(code)
    state: State = {"RZ": 0, "URZ": 0, "SRZ": 0, "PT": 1, "UPT": 1, "SR_TID.X": thread}
    state["SR_CTAID.X"] = 0
    executed: Counter[int] = Counter()
    idle: Counter[int] = Counter()
    index = 0
    for _ in range(MOST):
        each = code[index]
        executed[index] += 1
        holds: Value = 1
        if counts[index] or each.name in GUARDED:
            for name in each.conditions:
                holds = both(holds, value_of(name, state, parameters))
            idle[index] += holds == 0
        if each.name == "EXIT" and holds != 0:
            return Walk(executed, idle)
        if each.name == "BRA":
            if "DIV" in each.flags:
                holds = 0
            if holds is None:
                if each.target <= index:
                    raise RuntimeError(f"walk: expected a loop of known length, got {each}.")
                holds = int(far[each.target] < far[index + 1])
            index = each.target if holds else index + 1
            continue
        if counts[index] and holds != 0:
            if each.name in COMPUTED:
                write(each, holds, state, parameters)
            else:
                state.update(dict.fromkeys(counts[index]))
        index += 1
    raise RuntimeError(f"walk: expected an end within {MOST} instructions, got none.")


def value_of(operand: str, state: State, parameters: Words) -> Value:
    """An operand's 32 bits, or a predicate's truth; None where it is not known."""
    if operand[:1] in "-~!":
        value = value_of(operand[1:], state, parameters)
        if value is None:
            return None
        return {"-": -value & WORD, "~": ~value & WORD, "!": 1 - value}[operand[0]]
    if operand.startswith("0x"):
        return int(operand, 16) & WORD
    parameter = PARAMETER.match(operand)
    if parameter:
        return parameters.get(int(parameter[1], 16))
    found = state.get(operand)
    return None if isinstance(found, Bits) else found


def bits_of(value: Value | Bits) -> Bits:
    """Bits of a word that is known in full, in part or not at all."""
    if isinstance(value, Bits):
        return value
    return Bits(0, 0) if value is None else Bits(value, WORD)


def word_of(bits: Bits) -> Value | Bits:
    """The word again, or None, where nothing or everything is unknown."""
    if bits.known == WORD:
        return bits.word
    return bits if bits.known else None


def either(left: Value | Bits, right: Value | Bits) -> Value | Bits:
    """What is known of a word that is one of two."""
    if left == right:
        return left
    (one, here), (other, there) = bits_of(left), bits_of(right)
    alike = here & there & ~(one ^ other)
    return word_of(Bits(one & alike, alike))


def both(left: Value, right: Value) -> Value:
    """Three-valued and."""
    if left == 0 or right == 0:
        return 0
    return None if left is None or right is None else 1


def signed(value: int) -> int:
    """A word as a signed number."""
    return value - 2**32 if value >> 31 else value


def write(each: Instruction, holds: Value, state: State, parameters: Words) -> None:
    """The destinations of an instruction, known or not."""
    operands = list(each.operands)
    predicates = written_predicates(each.name, operands)
    results: State = dict.fromkeys(predicates)
    if each.name in COMPARISONS:
        values = [value_of(operand, state, parameters) for operand in operands]
        results[predicates[0]] = compared(each.flags, values)
    elif each.name in ("PLOP3", "UPLOP3"):
        values = [value_of(operand, state, parameters) for operand in operands]
        results[predicates[0]] = looked_up(values)
    elif each.name == "STL":
        names = consecutive(operands[-1], each.bits // 32)
        results = {
            place: state.get(name) for place, name in zip(spilled(each, "STL"), names, strict=False)
        }
    else:
        names = destinations(each, operands[0])
        words: list[Value] = [None]
        if each.name == "LDL":
            words = [state.get(place) for place in spilled(each, "LDL")]
        elif each.name in ("LDC", "ULDC"):
            words = constants_of(operands[1], len(names), parameters)
        elif each.name == "HFMA2":
            words = [constant_of_halves(operands)]
        elif each.name == "P2R":
            words = [packed(state, value_of(operands[-1], state, parameters))]
        else:
            values = [value_of(operand, state, parameters) for operand in operands[1:]]
            if each.name in ("LOP3", "ULOP3"):
                values[:3] = [
                    state.get(name, value)
                    for name, value in zip(operands[1:4], values, strict=False)
                ]
            words, carry = ARITHMETIC[each.name](each.flags, values)
            if len(predicates) == 1:
                results[predicates[0]] = carry
        for name, word in zip(names, [*words, None], strict=False):
            results[name] = word & WORD if isinstance(word, int) else word
    for name, value in results.items():
        if name not in CONSTANT:
            state[name] = value if holds == 1 else either(state.get(name), value)


def compared(flags: tuple[str, ...], values: list[Value]) -> Value:
    """A comparison of words, or of the upper words of a pair where the lower ones are compared."""
    left, right, given = values[0], values[1], values[2]
    result: Value = None
    if left is not None and right is not None:
        if "U32" not in flags:
            left, right = signed(left), signed(right)
        relations: dict[str, Callable[[int, int], bool]] = {
            "LT": lambda a, b: a < b, "LE": lambda a, b: a <= b, "GT": lambda a, b: a > b,
            "GE": lambda a, b: a >= b, "EQ": lambda a, b: a == b, "NE": lambda a, b: a != b,
        }  # fmt: skip
        (name,) = (flag for flag in flags if flag in relations)
        result = int(relations[name](left, right))
        if "EX" in flags:
            lower = values[3]
            if name in ("EQ", "NE"):
                equal = both(int(left == right), None if lower is None else lower ^ (name == "NE"))
                result = equal if equal is None or name == "EQ" else 1 - equal
            elif left == right:
                result = lower
    if "OR" in flags:
        reverse = both(None if result is None else 1 - result, None if given is None else 1 - given)
        return None if reverse is None else 1 - reverse
    return both(result, given)


def looked_up(values: list[Value]) -> Value:
    """A function of three predicates, with its table; known if the unknown make no difference."""
    table = values[3]
    if table is None:
        return None
    ways = [[value] if value is not None else [0, 1] for value in values[:3]]
    found = {table >> (4 * a + 2 * b + c) & 1 for a in ways[0] for b in ways[1] for c in ways[2]}
    return found.pop() if len(found) == 1 else None


def packed(state: State, mask: Value) -> Value:
    """Predicates as the bits of a word, which a mask selects."""
    bits = [(number, state.get(f"P{number}")) for number in range(7) if (mask or 0) >> number & 1]
    if any(bit is None for _, bit in bits):
        return None
    return sum(1 << number for number, bit in bits if bit)


def constant_of_halves(operands: list[str]) -> Value:
    """A word that the compiler writes as 0 times 0 and two numbers of 16 bits."""
    if operands[1:3] != ["-RZ", "RZ"] or any(REGISTER.match(operand) for operand in operands[3:]):
        return None
    high, low = (struct.unpack("<H", struct.pack("<e", float(text)))[0] for text in operands[3:5])
    return int(high) << 16 | int(low)


def constants_of(operand: str, words: int, parameters: Words) -> list[Value]:
    """Words of the constant bank."""
    match = PARAMETER.match(operand)
    if match is None:
        return [None] * words
    return [parameters.get(int(match[1], 16) + 4 * word) for word in range(words)]


Flags = tuple[str, ...]
Result = tuple[list[Value], Value]
"""Words that are known, the lowest first, and the carry."""
UNKNOWN: Result = ([None], None)


def known(values: list[Value]) -> list[int] | None:
    """Values none of which is unknown."""
    found = [value for value in values if value is not None]
    return found if len(found) == len(values) else None


def added(flags: Flags, values: list[Value]) -> Result:
    """The sum of three, and what a lower word carried."""
    parts = known(values if "X" in flags else values[:3])
    if parts is None or "64" in flags:
        return UNKNOWN
    return [sum(parts)], int(sum(parts) > WORD)


def multiplied(flags: Flags, values: list[Value]) -> Result:
    """a b + c; the upper word or both of a product of two."""
    parts = known(values if "X" in flags else values[:3])
    if parts is None:
        return UNKNOWN
    left, right, more = parts[0], parts[1], sum(parts[2:])
    if "WIDE" not in flags and "HI" not in flags:
        return [left * right + more], None
    if more:
        return UNKNOWN
    product = left * right if "U32" in flags else signed(left) * signed(right)
    return ([product >> 32] if "HI" in flags else [product, product >> 32]), None


def bitwise(flags: Flags, values: list[Value]) -> Result:
    """A function of three words, bit by bit, and whether any bit is set."""
    table = values[3]
    if not isinstance(table, int):
        return UNKNOWN
    words = [bits_of(value) for value in values[:3]]
    may = {0: 0, 1: 0}
    for entry in range(8):
        bits = WORD
        for (word, known), place in zip(words, (4, 2, 1), strict=True):
            bits &= ~known | (word if entry & place else ~word)
        may[table >> entry & 1] |= bits
    known = may[0] ^ may[1]
    truth = None if may[1] and not may[1] & known else int(may[1] != 0)
    return [word_of(Bits(may[1] & known, known))], truth


def shifted(flags: Flags, values: list[Value]) -> Result:
    """A word to the left, or the upper word of a pair to the right."""
    parts = known(values[:3])
    if parts is None:
        return UNKNOWN
    low, by, high = parts
    if flags[0] == "L" and "HI" not in flags:
        return [low << by], None
    if flags[0] == "R" and "HI" in flags and low == 0:
        return [(high if "U32" in flags else signed(high)) >> by], None
    return UNKNOWN


def scaled(flags: Flags, values: list[Value]) -> Result:
    """a 2^s + b; where it carries, the next instruction is not known."""
    parts = known(values[:3])
    if parts is None or "HI" in flags:
        return UNKNOWN
    return [(parts[0] << parts[2]) + parts[1]], None


def chosen(flags: Flags, values: list[Value]) -> Result:
    """One of two by a predicate."""
    left, right, which = values[:3]
    if which is None:
        return [left if left == right else None], None
    return [left if which else right], None


def extreme(flags: Flags, values: list[Value]) -> Result:
    """The lesser of two by a predicate, else the larger."""
    parts = known(values[:3])
    if parts is None:
        return UNKNOWN
    pair = parts[:2] if "U32" in flags else [signed(value) for value in parts[:2]]
    return [min(pair) if parts[2] else max(pair)], None


def moved(flags: Flags, values: list[Value]) -> Result:
    """A word, or a pair that is the same."""
    return [values[0]] * 2, None


ARITHMETIC: dict[str, Callable[[Flags, list[Value]], Result]] = {
    **dict.fromkeys(("IADD3", "UIADD3"), added),
    **dict.fromkeys(("IMAD", "UIMAD"), multiplied),
    **dict.fromkeys(("LOP3", "ULOP3"), bitwise),
    **dict.fromkeys(("SHF", "USHF"), shifted),
    **dict.fromkeys(("LEA", "ULEA"), scaled),
    **dict.fromkeys(("SEL", "USEL"), chosen),
    **dict.fromkeys(("VIMNMX", "UIMNMX", "IMNMX"), extreme),
    **dict.fromkeys(("MOV", "UMOV", "R2UR", "S2R", "S2UR", "CS2R"), moved),
    "VIADD": lambda flags, values: added(flags, [*values[:2], 0]),
}
COMPUTED = frozenset(
    {*ARITHMETIC, "ISETP", "UISETP", "PLOP3", "UPLOP3", "P2R", "LDC", "ULDC", "HFMA2", "LDL", "STL"}
)
