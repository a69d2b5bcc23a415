"""Compiles the C sources beside this file into one library: `python -m protocontrast.native`.

It takes about a minute and a C compiler: GCC or Clang; the environment's CC, else cc, gcc or clang.
This file needs the standard library alone, since commands.py runs it before anything is installed.
"""

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
SOURCES = HERE / "sources"
LIBRARY = "kernels.so"
"""Of one name on all systems, beside this file: it is loaded by path and linked to nothing."""

FLAGS = ["-std=gnu11", "-O3", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wno-psabi"]
# Not -ffast-math, which takes out the rounding of exp and every test for NaN.
FLAGS += ["-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"]
ONCE = ("library.c", "spans.c")
HOUR = 3600.0
"""In seconds; no build takes as long."""


class Variant(NamedTuple):
    """One instruction set: its name in C, the bytes of a vector, and what the compiler is told."""

    name: str
    vector_bytes: int
    flags: tuple[str, ...] = ()


BASELINE = Variant("baseline", 16)
AVX512 = ("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mprefer-vector-width=512")
X86 = (
    BASELINE,
    Variant("avx2", 32, ("-mavx2", "-mfma", "-mf16c")),
    Variant("avx512", 64, ("-mavx2", "-mfma", "-mf16c", *AVX512)),
)
"""In the order in which `library.c` numbers them."""


def variants() -> tuple[Variant, ...]:
    """The instruction sets of this kind of machine; NEON is the baseline of arm64."""
    return X86 if platform.machine().lower() in ("x86_64", "amd64") else (BASELINE,)


def digest() -> str:
    """Of all sources and of this recipe: a library of others is not loaded."""
    found = hashlib.sha256()
    for path in sorted([*SOURCES.iterdir(), Path(__file__)], key=lambda path: path.name):
        if path.suffix in {".c", ".h", ".py"}:
            found.update(path.read_bytes())
    return found.hexdigest()[:16]


def compiler() -> list[str]:
    """The C compiler as the start of a command; empty where there is none."""
    if sys.platform == "win32":
        return []
    named = shlex.split(os.environ.get("CC", ""))
    for command in [named] if named else [["cc"], ["gcc"], ["clang"]]:
        if shutil.which(command[0]):
            return command
    return []


def _run(command: list[str]) -> None:
    # What is loaded before this program, such as a sanitizer, is not meant for the compiler.
    clean = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=clean)
    if done.returncode:
        raise RuntimeError(f"{shlex.join(command)}\n{done.stderr}")


def _remove_leftovers(output: Path) -> None:
    """Remove what builds that were killed left beside the library."""
    for left in output.parent.glob(f"{output.name}.*.new"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > HOUR:
                shutil.rmtree(left)


def build(output: Path, extra: tuple[str, ...] = ()) -> None:
    """Compile and link to `output`; RuntimeError says what the compiler said."""
    start = compiler()
    if not start:
        raise RuntimeError("expected a C compiler (cc, gcc, clang or the one in CC), got none.")
    sets = variants()
    common = [*start, *FLAGS, *extra, f"-DDIGEST={digest()}"]
    if len(sets) > 1:
        common.append("-DHAVE_X86")
    _remove_leftovers(output)
    # Beside the library, whose name moves to the new one in one step; two builds share no file.
    with tempfile.TemporaryDirectory(".new", f"{output.name}.", output.parent) as folder:
        jobs = []
        for source in sorted(SOURCES.glob("*.c")):
            if source.name in ONCE:
                jobs.append([*common, "-c", str(source), "-o", f"{folder}/{source.stem}.o"])
                continue
            for variant in sets:
                for precision in ("float", "double"):
                    name = f"{source.stem}_{variant.name}_{precision}.o"
                    words = [f"-DVARIANT={variant.name}", f"-DVECTOR_BYTES={variant.vector_bytes}"]
                    words += ["-DDOUBLE"] if precision == "double" else []
                    words += [*variant.flags, "-c", str(source), "-o", f"{folder}/{name}"]
                    jobs.append([*common, *words])
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(_run, jobs))
        objects = [job[-1] for job in jobs]
        # Renamed at the end: a process that has the old one loaded keeps it.
        linked = f"{folder}/{output.name}"
        _run([*start, *extra, "-shared", "-pthread", *objects, "-o", linked, "-lm"])
        os.replace(linked, output)


def main() -> None:
    """Build beside the sources."""
    build(HERE / LIBRARY, tuple(sys.argv[1:]))
    print(HERE / LIBRARY)
