"""What a kernel would cost on an H200 and an H100, predicted from its machine code.

`walk` says what a program executes; here that becomes clocks of a multiprocessor per
pixel, pipe by pipe, and the share of the memory's speed that is left when the slowest pipe is
waited for. No GPU has confirmed it: counts of instructions are exact, what they cost is not. Bank
conflicts and dependencies between instructions are not seen, and no pipe is ever quite full, for
which `ATTAINABLE` stands. It serves to compare kernels, and a kernel with itself of yesterday.

`python -m tests.ahead_of_time.roofline` compiles every case of `EVERY` and rewrites its line of
roofline.csv (half an hour; `--missing`: those without a line; names of kernels: theirs; `--daily`:
those that `make test` compiles), then the table of docs/performance.md from that file.
"""

import csv
import math
import re
import subprocess
import sys
from collections import Counter
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from torch import Tensor

from protocontrast.kernels.launch import Launch, leaves
from tests.ahead_of_time.calls import launches_of
from tests.ahead_of_time.cases import DTYPES, TOO_FEW, Case
from tests.ahead_of_time.clocks import pipes
from tests.ahead_of_time.machine_code import Instruction, read
from tests.ahead_of_time.resources import TOOLS, compiled
from tests.ahead_of_time.walk import walk

FILE = Path(__file__).with_name("roofline.csv")
DOCUMENT = Path(__file__).parents[2] / "docs" / "performance.md"
COMMAND = "python -m tests.ahead_of_time.roofline"
PROCESSORS = 132
CLOCK = 1.755e9
DRAM = {"h200": 4.8e12 / PROCESSORS / CLOCK, "h100": 3.35e12 / PROCESSORS / CLOCK}
"""Bytes per clock of a multiprocessor from memory, by the data sheets."""
L2 = 5.5e12 / PROCESSORS / CLOCK
"""The same from the second-level cache, as measured on an H100 by others."""
ATTAINABLE = {"dram": 0.92, "l2": 0.85}
"""Of a pipe's peak what a kernel may reach; of the others 0.75."""
NEEDED = 40 * 1024
"""Bytes that a multiprocessor must have asked for at any time to keep memory busy."""
PARAMETERS = 0x210
"""Where a kernel's parameters begin in the constant bank of sm_90."""


class Size(NamedTuple):
    """Images, pixels of each and channels."""

    images: int
    pixels: int
    channels: int


class Figures(NamedTuple):
    """Programs in all and at once on a multiprocessor, kilobytes asked for; then per pixel, of a
    multiprocessor: instructions of a warp, and clocks by pipe; then predicted percent of the
    bound."""

    programs: int
    registers: int
    resident: int
    in_flight_kb: float
    instructions: float
    issue: float
    alu: float
    fma: float
    mufu: float
    lsu: float
    tensor: float
    l2: float
    dram: float
    binds: str
    h200_percent: float
    h100_percent: float


PIPES = ("issue", "alu", "fma", "mufu", "lsu", "tensor", "l2", "dram")
KERNELS = (
    *("contrast", "contrast_kept", "contrast_backward_features", "contrast_backward_prototypes"),
    *("contrast_backward_both", "transfer"),
    *("class_sums", "class_sums_normalize", "class_sums_backward"),
    *("class_sums_backward_normalize", "target_pass", "target_pass_soft"),
)
ASKED = {kernel: 75 if "backward" in kernel else 80 for kernel in KERNELS}
ASKED |= {"target_pass": 60, "target_pass_soft": 60}
"""Percent of the bound that was asked for up to 720 channels, in 16 bits; of all others 60."""
SIZES = (Size(8, 32768, 256), Size(8, 32768, 720), Size(2, 32768, 2048))
MANY = Size(2, 25600, 256)
"""The map at which 150 classes are looked at."""
UNLEFT = Size(8, 32768, TOO_FEW)
"""That of a contrast which leaves no logits, and of which no program keeps a tile."""
WITHOUT_LOGITS = tuple(k for k in KERNELS if k == "contrast_kept" or "contrast_backward" in k)

Key = tuple[Case, Size]


def _usual(kernel: str, dtype: str, precision: str, channels: int) -> Case:
    """The case of a cell of the document's tables."""
    return Case("sm90", kernel, dtype, precision, channels, 19, "nchw", False, "cosine")


def _every() -> list[Key]:
    found = []
    for kernel, size, dtype, layout in product(
        KERNELS, SIZES, ("bf16", "fp32"), ("nchw", "channels_last")
    ):
        case = Case("sm90", kernel, dtype, "highest", size.channels, 19, layout, False, "cosine")
        found.append((case, size))
    for kernel, dtype in product(KERNELS, ("bf16", "fp32")):
        case = Case("sm90", kernel, dtype, "highest", 256, 150, "nchw", False, "cosine")
        found.append((case, MANY))
    for kernel in KERNELS:
        found.append((_usual(kernel, "fp32", "high", 256), SIZES[0]))
    for kernel in WITHOUT_LOGITS:
        found.append((_usual(kernel, "bf16", "highest", TOO_FEW), UNLEFT))
    return found


EVERY = tuple(_every())
DAILY = tuple(
    (case, size)
    for case, size in EVERY
    if case.kernel in ("contrast", "class_sums", "target_pass")
    and (case.dtype, case.layout, case.classes, size) == ("bf16", "nchw", 19, SIZES[0])
)


def parameters(launch: Launch) -> dict[int, int]:
    """32-bit words of the kernel's arguments by their place in the constant bank."""
    _, constants, _ = launch.specialised()
    found: dict[int, int] = {}
    offset = PARAMETERS
    for place, value in leaves(launch.arguments):
        if place in constants:
            continue
        wide = isinstance(value, Tensor) or (type(value) is int and abs(value) >= 2**31)
        size = 8 if wide else 4
        offset = -(-offset // size) * size
        if type(value) is int:
            for word in range(size // 4):
                found[offset + 4 * word] = value >> 32 * word & 0xFFFFFFFF
        offset += size
    return found


def trips(launch: Launch) -> int:
    """How often a program reads a tile's features at most, each time from further than the
    first-level cache, which holds all that the kernels look up."""
    if launch.kernel.__name__ == "class_sums_backward_kernel" and not launch.meta.NORMALIZE:
        return 0  # only their strides are taken
    return 1 if launch.meta.BLOCK_D >= launch.meta.D else 2


def traffic(launches: list[Launch], size: Size, left: bool = False) -> int:
    """Bytes per pixel that must come from memory or go there: every map once. Logits that a forward
    leaves to its gradients are a choice of ours, and count only where `left` is asked for."""
    total = 0
    seen: dict[int, Tensor] = {}
    for launch in launches:
        maps = [value for _, value in leaves(launch.arguments) if isinstance(value, Tensor)]
        ours = [a.logits.pointer for a in launch.arguments if getattr(a, "logits", None)]
        if trips(launch) == 0:
            maps = maps[1:]
        for each in maps:
            if left or not any(each is one for one in ours):
                seen[id(each)] = each
    for each in seen.values():
        if each.shape[0] == size.images and each.shape[-1] == size.pixels:
            held = [n for n, stride in zip(each.shape, each.stride(), strict=True) if stride]
            total += math.prod(held) * each.element_size() if held else 0
    return total // (size.images * size.pixels)


def executed(code: list[Instruction], launch: Launch) -> Counter[str]:
    """What the first program occupies: its first and its last warp stand for all."""
    warps = launch.options["num_warps"]
    words = parameters(launch)
    total: Counter[str] = Counter()
    for thread in (0, 32 * (warps - 1)):
        found = walk(code, thread, words)
        for index, times in found.executed.items():
            idle = found.idle[index]
            for missing, count in ((False, times - idle), (True, idle)):
                for pipe, amount in pipes(code[index], missing).items() if count else ():
                    total[pipe] += amount * count * warps / 2
    return total


def resident(registers: int, shared: int, warps: int) -> int:
    """Programs that a multiprocessor of sm_90 holds at once."""
    per_warp = -(-registers * 32 // 256) * 256
    return min(65536 // (per_warp * warps), 233472 // (shared + 1024), 64 // warps, 32)


def figures_of(launch: Launch, size: Size, width: int) -> Figures:
    """Compiled for sm_90, walked through and weighed."""
    kernel = compiled(launch, "sm90")
    with TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernel.cubin"
        cubin.write_bytes(kernel.asm["cubin"])
        usage, text = (
            subprocess.run(
                [str(TOOLS / tool), option, str(cubin)], capture_output=True, text=True, check=True
            ).stdout
            for tool, option in (("cuobjdump", "-res-usage"), ("nvdisasm", "-c"))
        )
    (registers,) = map(int, re.findall(r"\bREG:(\d+)", usage))
    code = read(text)
    meta, warps, stages = launch.meta, launch.options["num_warps"], launch.options["num_stages"]
    programs, pixels = launch.programs, size.images * size.pixels
    at_once = min(resident(registers, kernel.metadata.shared, warps), -(-programs // PROCESSORS))
    copies = max(1, stages - 1) if any(each.name == "LDGSTS" for each in code) else 1
    depth = min(meta.D, meta.GROUP_D or meta.D if meta.PROGRAMS else meta.BLOCK_D)
    in_flight = at_once * meta.BLOCK_P * depth * width * copies
    own = {name: amount * programs / pixels for name, amount in executed(code, launch).items()}
    needed, moved = traffic([launch], size), traffic([launch], size, left=True)
    # What was loaded before is in the first-level cache, unless it was copied past it.
    read_again = min(own.get("loaded", 0.0), trips(launch) * size.channels * width)
    clocks = {pipe: own.get(pipe, 0.0) for pipe in PIPES}
    clocks["l2"] = (own.get("asked", 0.0) + read_again) / L2
    share = programs / PROCESSORS
    balance = share / math.ceil(share)
    percent = {}
    for gpu, speed in DRAM.items():
        clocks["dram"] = moved / speed
        slowed = {pipe: clocks[pipe] / ATTAINABLE.get(pipe, 0.75) for pipe in PIPES}
        slowed["dram"] /= min(1.0, in_flight / NEEDED)
        percent[gpu] = 100 * balance * needed / speed / max(slowed.values())
        if gpu == "h200":
            binds, of_h200 = max(PIPES, key=lambda pipe: slowed[pipe]), clocks["dram"]
    clocks["dram"] = of_h200
    numbers = (round(clocks[pipe], 1) for pipe in PIPES)
    return Figures(
        programs, registers, at_once, round(in_flight / 1024, 1),
        round(own["instructions"], 1), *numbers, binds,
        round(percent["h200"], 1), round(percent["h100"], 1),
    )  # fmt: skip


def figures(key: Key) -> Figures:
    """Those of a case. Of launches one after the other clocks are added, and what else is told is
    that of the first."""
    case, size = key
    launches = launches_of(case, size.images, size.pixels)
    parts = [figures_of(launch, size, DTYPES[case.dtype].itemsize) for launch in launches]
    alone = [traffic([launch], size) for launch in launches]
    percent = {}
    for name in ("h200_percent", "h100_percent"):
        took = sum(n / getattr(part, name) for n, part in zip(alone, parts, strict=True))
        percent[name] = round(traffic(launches, size) / took, 1)
    sums = {
        name: round(sum(getattr(part, name) for part in parts), 1)
        for name in ("instructions", *PIPES)
    }
    return parts[0]._replace(**sums, **percent)


def objections(key: Key, found: Figures, budget: Figures) -> list[str]:
    """A sentence for each figure that fell by a tenth or more since the file was written."""
    case, size = key
    wrong = []
    for name in ("h200_percent", "h100_percent"):
        least = 0.9 * getattr(budget, name)
        if getattr(found, name) <= least:
            wrong.append(
                f"{case} at {size.images}x{size.pixels}: expected {name} above {least:.1f} "
                f"({getattr(budget, name)} in the file), got {getattr(found, name)}, bound by "
                f"{found.binds}. Hint: if this is meant, {COMMAND} rewrites the file."
            )
    for name in ("instructions", *PIPES):
        most = 1.1 * getattr(budget, name) + 1.0  # a clock is no news where there are few
        if getattr(found, name) >= most:
            wrong.append(
                f"{case} at {size.images}x{size.pixels}: expected {name} below {most:.1f} a pixel "
                f"({getattr(budget, name)} in the file), got {getattr(found, name)}. "
                f"Hint: if this is meant, {COMMAND} rewrites the file."
            )
    return wrong


def table() -> dict[Key, Figures]:
    """The file."""
    found = {}
    with FILE.open(encoding="utf-8", newline="") as lines:
        for line in csv.DictReader(lines):
            size = Size(*(int(line[name]) for name in Size._fields))
            case = Case(
                "sm90", line["kernel"], line["dtype"], line["precision"], size.channels,
                int(line["classes"]), line["layout"], False, "cosine",
            )  # fmt: skip
            kinds = Figures.__annotations__
            found[case, size] = Figures(*(kinds[name](line[name]) for name in Figures._fields))
    return found


def store(rows: dict[Key, Figures]) -> None:
    """Write the file, in the order of `EVERY`; what is no longer in it is dropped."""
    keys = ("kernel", "dtype", "precision", "classes", "layout")
    with FILE.open("w", encoding="utf-8", newline="") as lines:
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow([*keys, *Size._fields, *Figures._fields])
        for case, size in EVERY:
            if (case, size) in rows:
                own = [getattr(case, name) for name in keys]
                writer.writerow([*own, *size, *rows[case, size]])


def _told(found: Figures, asked: int) -> str:
    """A cell: percent of an H200's bound, an H100's in brackets; what misses names its pipe."""
    told = f"{found.h200_percent:.0f} ({found.h100_percent:.0f})"
    return f"{found.binds} {told}" if round(found.h200_percent) < asked else told


def goals(rows: dict[Key, Figures]) -> str:
    """The tables of what is asked and predicted."""
    lines = ["| kernel | asked | D = 256 | D = 720 | asked | D = 2048 | D = 256, float32 |"]
    lines.append("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for kernel, most in ASKED.items():
        cells = [f"`{kernel}`"]
        for number, (size, dtype, precision) in enumerate(
            (*((size, "bf16", "highest") for size in SIZES), (SIZES[0], "fp32", "high"))
        ):
            asked = most if number < 2 else 60
            found = rows[_usual(kernel, dtype, precision, size.channels), size]
            cells += [*([] if number % 2 else [str(asked)]), _told(found, asked)]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", f"| logits not left | asked | D = {TOO_FEW} |", "| --- | ---: | ---: |"]
    for kernel in WITHOUT_LOGITS:
        found = rows[_usual(kernel, "bf16", "highest", TOO_FEW), UNLEFT]
        lines.append(f"| `{kernel}` | {ASKED[kernel]} | {_told(found, ASKED[kernel])} |")
    return "\n".join(lines)


def written(rows: dict[Key, Figures]) -> str:
    """The document with that table."""
    begin, end = "<!-- generated: goals -->\n", "\n<!-- end: goals -->"
    text = DOCUMENT.read_text("utf-8")
    return text[: text.index(begin)] + begin + goals(rows) + text[text.index(end) :]


def main() -> int:
    """Measure the cases that the command line names, store each at once, and write the table."""
    words = sys.argv[1:]
    kernels = {word for word in words if not word.startswith("--")}
    rows = table() if FILE.exists() else {}
    for key in DAILY if "--daily" in words else EVERY:
        known = "--missing" in words and key in rows
        if known or (kernels and key[0].kernel not in kernels):
            continue
        rows[key] = figures(key)
        print(key[0], *key[1], rows[key], flush=True)
        store(rows)
    DOCUMENT.write_text(written(rows), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
