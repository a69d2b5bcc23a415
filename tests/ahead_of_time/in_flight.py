"""Products that run on beside the program, and what touches their memory before they have ended.

The tensor cores of sm_90 and sm_100 multiply while the program goes on: its next copies from
memory, its next read of the result. Whether a compiled kernel waits first is written in triton's
last intermediate language (TTGIR), whose scalar part is walked here with its numbers: indices of
buffers, phases of barriers, the trips of loops. Tensors are not computed.
"""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

TRIPS = 3
"""Of an outer loop: what one trip leaves behind meets the start of the next, and again."""

NAME = r"%[\w$.-]+(?:#\d+)?"
DEFINITION = re.compile(r"^(?:(%[\w$., %:-]+?) = )?\"?([a-z_]+[\w.]*)\"?(.*)$")
LOOP = re.compile(rf"^({NAME}) = ({NAME}) to ({NAME}) step ({NAME})(?: iter_args\((.*?)\) ->)?")
COMPARED: dict[str, Callable[[int, int], bool]] = {
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "slt": lambda a, b: a < b,
    "sle": lambda a, b: a <= b,
    "sgt": lambda a, b: a > b,
    "sge": lambda a, b: a >= b,
}
COMPUTED: dict[str, Callable[[int, int], int]] = {
    "arith.addi": lambda a, b: a + b,
    "arith.subi": lambda a, b: a - b,
    "arith.muli": lambda a, b: a * b,
    "arith.divsi": lambda a, b: a // b if a * b >= 0 else -(-a // b),
    "arith.remsi": lambda a, b: int(math.fmod(a, b)),
    "arith.andi": lambda a, b: a & b,
    "arith.ori": lambda a, b: a | b,
    "arith.xori": lambda a, b: a ^ b,
    "arith.minsi": min,
    "arith.maxsi": max,
}
TRUTH = {"false": "0", "true": "1"}
KEEP = {"arith.extsi", "arith.extui", "arith.trunci", "arith.index_cast"}
VIEWS = re.compile(r"ttg\.memdesc_(?:trans|reinterpret|subslice|reshape)|ttng\.tmem_subslice")
PRODUCT = re.compile(r"ttng\.(?:warp_group_dot|tc_gen5_mma)")
WRITES = re.compile(r"ttg\.async_copy_global_to_local|ttng\.async_tma_copy_global_to_local")


class Operation(NamedTuple):
    """One line; a loop or a branch also has what stands in it."""

    results: tuple[str, ...]
    name: str
    rest: str
    body: tuple["Operation", ...] = ()


class Buffer(NamedTuple):
    """Memory of an allocation, and which of its copies."""

    allocation: str
    index: int


class Product(NamedTuple):
    """A product on its way: what it reads, what it writes, and the arrival that says it is done."""

    reads: frozenset[Buffer]
    result: Buffer | None
    arrival: tuple[Buffer, int] | None


Value = int | Buffer | None


def parse(ttgir: str) -> tuple[Operation, ...]:
    """The operations of the kernel, without what is inside reductions."""
    lines = (line.split(" loc(")[0].strip() for line in ttgir.splitlines())
    return _block(line for line in lines if line and not line.startswith(("#", "module")))


def _block(lines: Iterator[str]) -> tuple[Operation, ...]:
    """Operations up to the end of a region; an `else` region goes on where the first one ends."""
    found = []
    for line in lines:
        if line.startswith("} else"):
            continue
        if line.startswith("}"):
            break
        if line.startswith("^"):
            continue
        if line.endswith("({"):
            _skip(lines)
            continue
        match = DEFINITION.match(line)
        if match is None:
            raise ValueError(f"in_flight: expected an operation, got {line!r}.")
        if match[2] == "tt.func":
            return _block(lines)
        results = _names(match[1] or "")
        body = _block(lines) if line.endswith("{") else ()
        if body and match[2] not in ("scf.for", "scf.if"):
            raise ValueError(f"in_flight: expected a loop or a branch, got {line!r}.")
        found.append(Operation(results, match[2], match[3].strip(), body))
    return tuple(found)


def _skip(lines: Iterator[str]) -> None:
    for line in lines:
        if line.startswith("})"):
            return


def _names(text: str) -> tuple[str, ...]:
    """`%a:2` stands for %a#0 and %a#1."""
    found: list[str] = []
    for name, count in re.findall(r"(%[\w$.-]+)(?::(\d+))?", text):
        found += [f"{name}#{i}" for i in range(int(count))] if count else [name]
    return tuple(found)


def apart(operations: Sequence[Operation]) -> bool:
    """Whether nothing here concerns products or their buffers, however often it runs."""
    return all(
        (one.name == "ttg.convert_layout" or not one.name.startswith(("ttg.", "ttng.")))
        and apart(one.body)
        for one in operations
    )


class Walk:
    """A run of the kernel's scalar part; `found` are sentences about what is touched too early."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        self.values: dict[str, Value] = {}
        self.running: list[Product] = []
        self.arrivals: dict[Buffer, int] = {}
        self.known: dict[Buffer, int] = {}
        self.found: dict[str, None] = {}
        self.run(operations)

    def run(self, operations: Sequence[Operation]) -> None:
        for operation in operations:
            if operation.name == "scf.for":
                self.loop(operation)
            elif operation.name == "scf.if":
                self.branch(operation)
            else:
                self.step(operation)

    def operands(self, text: str) -> list[Value]:
        """Values of the names before the types and before what an operation only keeps alive."""
        names = re.findall(NAME, re.split(r" : | deps ", text)[0])
        return [self.values.get(name) for name in names]

    def loop(self, operation: Operation) -> None:
        match = LOOP.match(operation.rest)
        if match is None:
            raise ValueError(f"in_flight: expected the head of a loop, got {operation.rest!r}.")
        start, stop, step = (self.values.get(match[i]) for i in (2, 3, 4))
        carried = re.findall(rf"({NAME}) = ({NAME})", match[5] or "")
        held = [self.values.get(given) for _, given in carried]
        trips: Sequence[int | None]
        if isinstance(start, int) and isinstance(stop, int) and isinstance(step, int):
            trips = range(start, stop, step)
            if any(inner.name == "scf.for" for inner in operation.body):
                trips = trips[:TRIPS]
        elif apart(operation.body):
            self.values.update(dict.fromkeys(operation.results))
            return
        else:
            # A launch decides how often; every buffer of the pipeline has its turn meanwhile.
            trips = [None] * 2 * TRIPS
        for trip in trips:
            self.values[match[1]] = trip
            self.values.update(zip((name for name, _ in carried), held, strict=True))
            self.run(operation.body)
            last = operation.body[-1]
            held = self.operands(last.rest) if last.name == "scf.yield" else []
        self.values.update(zip(operation.results, held, strict=True))

    def branch(self, operation: Operation) -> None:
        """Both ways, one after the other; neither may lead to less being in flight than before."""
        before = list(self.running)
        self.run(operation.body)
        self.values.update(dict.fromkeys(operation.results))
        self.running += [product for product in before if product not in self.running]

    def step(self, operation: Operation) -> None:
        results, name, rest = operation[:3]
        given = self.operands(rest)
        if name == "ttng.warp_group_dot_wait":
            self.wait_for_all_but(rest)
            self.values.update(zip(results, given, strict=True))
            return
        if name in ("ttg.local_alloc", "ttng.tmem_alloc"):
            outcome: Value = Buffer(results[0], 0)
            if given:  # filled at once, and in a loop again every trip
                self.touch([outcome], "a result or factor", "overwritten")
        elif name == "ttg.memdesc_index":
            outcome = self.indexed(rest, *given)
        elif VIEWS.fullmatch(name):
            outcome = given[0]
        else:
            outcome = computed(name, rest, given)
            self.effect(name, rest, given)
        self.values.update(dict.fromkeys(results, outcome))

    def indexed(self, rest: str, buffer: Value, index: Value) -> Buffer:
        if not (isinstance(buffer, Buffer) and isinstance(index, int)):
            raise ValueError(f"in_flight: expected a buffer and a known index, got {rest!r}.")
        return Buffer(buffer.allocation, index)

    def effect(self, name: str, rest: str, given: list[Value]) -> None:
        """What an operation does to memory; none that multiplies or waits may pass unknown."""
        if name == "ttng.warp_group_dot":
            if "isAsync = true" in rest:
                self.running.append(Product(frozenset(buffers(given[:2])), None, None))
        elif name == "ttng.tc_gen5_mma":
            self.multiply(rest, given)
        elif name == "ttng.init_barrier":
            self.arrivals.update(dict.fromkeys(buffers(given), 0))
            self.known.update(dict.fromkeys(buffers(given), 0))
        elif name == "ttng.wait_barrier":
            self.wait_for_barrier(rest, given)
        elif name == "ttng.tmem_load":
            self.touch(given[:1], "a result", "read")
        elif name == "ttng.tmem_store":
            self.touch(given[1:2], "a result or factor", "overwritten")
        elif name == "ttg.local_store" or WRITES.fullmatch(name):
            self.touch(given, "a factor", "overwritten")
        elif name.startswith(("ttng.warp_group_dot", "ttng.tc_gen5", "ttg.warp_specialize")):
            raise ValueError(f"in_flight: expected a known operation, got {name} {rest!r}.")

    def multiply(self, rest: str, given: list[Value]) -> None:
        """Operands: both factors, the result, whether it is added to, whether the product is taken
        at all, and the barrier at which its end arrives."""
        *factors, result, _, taken, barrier = given[:6]
        if taken == 0:
            return
        if "is_async" not in rest or not isinstance(barrier, Buffer):
            raise ValueError(f"in_flight: expected a product with a barrier, got {rest!r}.")
        self.arrivals[barrier] = self.arrivals.get(barrier, 0) + 1
        into = result if isinstance(result, Buffer) else None
        arrival = barrier, self.arrivals[barrier]
        self.running.append(Product(frozenset(buffers(factors)), into, arrival))

    def wait_for_all_but(self, rest: str) -> None:
        pending = re.search(r"pendings = (\d+)", rest)
        if pending is None:
            raise ValueError(f"in_flight: expected a number of products, got {rest!r}.")
        del self.running[: max(0, len(self.running) - int(pending[1]))]

    def wait_for_barrier(self, rest: str, given: list[Value]) -> None:
        """Arrival n ends phase n - 1 of a barrier; one waits for the next even or odd phase to end.

        Products end in order, and so with one all before it.
        """
        barrier, phase = given[:2]
        if not (isinstance(barrier, Buffer) and isinstance(phase, int)):
            raise ValueError(f"in_flight: expected a known barrier and phase, got {rest!r}.")
        if given[2:] == [0]:
            return
        known = self.known.get(barrier, 0)
        self.known[barrier] = known = known + (known % 2 == phase)
        for number, product in enumerate(self.running):
            if product.arrival == (barrier, known):
                del self.running[: number + 1]
                return

    def touch(self, values: list[Value], part: str, how: str) -> None:
        for buffer in buffers(values):
            for product in self.running:
                factor = how == "overwritten" and buffer in product.reads
                if factor or buffer == product.result:
                    where = f"{buffer.allocation}[{buffer.index}]"
                    self.found[f"{where}, {part} of a product that may still run, is {how}"] = None


def buffers(values: Sequence[Value]) -> list[Buffer]:
    """Those of the values that are memory."""
    return [value for value in values if isinstance(value, Buffer)]


def computed(name: str, rest: str, given: list[Value]) -> Value:
    """The number, or the memory, that an operation on numbers results in; None where unknown."""
    if name == "arith.constant":
        number = re.match(r"(-?\d+|true|false)(?: : (?:i\d+|index))?$", rest)
        return None if number is None else int(TRUTH.get(number[1], number[1]))
    if name == "arith.select":
        return None if given[0] is None else given[1 if given[0] else 2]
    if name in KEEP:
        return given[0]
    numbers = [value for value in given if isinstance(value, int)]
    if len(numbers) == 2 and name in COMPUTED:
        return COMPUTED[name](*numbers)
    if len(numbers) == 2 and name == "arith.cmpi":
        return int(COMPARED[rest.split(",")[0]](*numbers))
    return None


def touched_early(ttgir: str) -> list[str]:
    """What a kernel touches too early, in order; ValueError where its waits cannot be followed."""
    if not PRODUCT.search(ttgir):
        return []
    return list(Walk(parse(ttgir)).found)
