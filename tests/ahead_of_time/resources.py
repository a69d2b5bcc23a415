"""What a launch costs on a target, from the compiled kernel: no GPU is needed.

NVIDIA's `cuobjdump` and `nvdisasm` come with triton; AMD's assembly says it in plain text.
"""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import triton
from torch import Tensor
from triton._C.libtriton import ir, nvidia, passes
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import get_ptx_version_from_options
from triton.compiler import ASTSource
from triton.compiler.compiler import make_backend

from protocontrast.kernels.launch import Launch, Place, leaves
from tests.ahead_of_time.calls import launch_of
from tests.ahead_of_time.cases import Case
from tests.ahead_of_time.in_flight import touched_early
from tests.ahead_of_time.offsets import narrow_products

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
GPU_TARGETS = {
    "sm80": GPUTarget("cuda", 80, 32),
    "sm86": GPUTarget("cuda", 86, 32),
    "sm90": GPUTarget("cuda", 90, 32),
    "sm100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
SHARED_LIMIT = {
    "sm80": 163 * 1024,
    "sm86": 99 * 1024,
    "sm90": 227 * 1024,
    "sm100": 227 * 1024,
    "gfx942": 64 * 1024,
}
"""Bytes that one program may have."""

MATRIX = re.compile(r"\b(?:HMMA|HGMMA|UTC[A-Z]*MMA|v_mfma_\w+)\b")
"""Products of 16-bit or TF32 matrices (AMD: of any); not DMMA, which is float64."""
TWO_BYTES = re.compile(r"\bLDG\.E\.[US]16\b|\b(?:global|buffer)_load_(?:u?short|[dbu]16)\w*")


class Resources(NamedTuple):
    """Per thread: registers (AMD: vector ones of both kinds) and bytes of stack; then per program
    bytes of shared memory; then instructions, products too narrow for a far offset, and what is
    touched while a product may still run."""

    registers: int
    stack: int
    shared: int
    matrix_products: int
    two_byte_loads: int
    narrow_products: tuple[str, ...]
    touched_early: tuple[str, ...] = ()


def specialised(
    launch: Launch, target: str
) -> tuple[dict[str, Any], dict[Place, Any], dict[Place, Any]]:
    """Signature, constants and attributes as triton's launcher derives them on this target.

    On AMD it also marks tensors below 2 GB, whose offsets fit buffer instructions.
    """
    signature, constants, attributes = launch.specialised()
    if GPU_TARGETS[target].backend == "hip":
        for place, value in leaves(launch.arguments):
            if isinstance(value, Tensor) and value.untyped_storage().size() < 2**31:
                attributes[place] = [*attributes.get(place, []), ["tt.pointer_range", 32]]
    return signature, constants, attributes


def compiled(launch: Launch, target: str) -> Any:
    """The kernel as triton compiles it for this launch."""
    source = ASTSource(launch.kernel, *specialised(launch, target))
    return triton.compile(source, target=GPU_TARGETS[target], options=launch.options)


def _in_ttgir(launch: Launch, target: str) -> tuple[Any, Any, Any]:
    """The launch in triton's last intermediate language, its context and options."""
    source = ASTSource(launch.kernel, *specialised(launch, target))
    backend = make_backend(GPU_TARGETS[target])
    options = backend.parse_options(dict(launch.options))
    stages: dict[str, Callable[[Any, dict[str, Any]], Any]] = {}
    backend.add_stages(stages, options, source.language)
    context = ir.context()
    ir.load_dialects(context)
    backend.load_dialects(context)
    generators = backend.get_codegen_implementation(options), backend.get_module_map()
    module = source.make_ir(GPU_TARGETS[target], options, *generators, context)
    metadata = {"target": GPU_TARGETS[target], **options.__dict__}
    for stage in ("ttir", "ttgir"):
        module = stages[stage](module, metadata)
    return module, context, options


def in_ttgir(launch: Launch, target: str) -> str:
    """The same as text, without the slower half of compiling."""
    module, _, _ = _in_ttgir(launch, target)
    return str(module)


def shared_memory(launch: Launch, target: str) -> int:
    """Bytes of shared memory on an NVIDIA target: triton lays it out before the slower half."""
    module, context, options = _in_ttgir(launch, target)
    architecture = GPU_TARGETS[target].arch
    manager = ir.pass_manager(context)
    # Those with which `make_llir` of triton's own backend begins.
    passes.ttgpuir.add_combine_tensor_select_and_if(manager)
    passes.ttgpuir.add_allocate_warp_groups(manager)
    passes.convert.add_scf_to_cf(manager)
    passes.gluon.add_inliner(manager)
    version = get_ptx_version_from_options(options, architecture)
    nvidia.passes.ttgpuir.add_allocate_shared_memory_nv(manager, architecture, version)
    manager.run(module, "shared memory")
    return int(module.get_int_attr("ttg.shared"))


def measured(launch: Launch, target: str) -> Resources:
    """The resources of a launch."""
    kernel = compiled(launch, target)
    far = tuple(narrow_products(kernel.asm["ttir"]))
    if GPU_TARGETS[target].backend == "hip":
        text = kernel.asm["amdgcn"]
        registers, stack = (
            _number(rf"\.{field}:\s+(\d+)", text)
            for field in ("vgpr_count", "private_segment_fixed_size")
        )
    else:
        with TemporaryDirectory() as folder:
            cubin = Path(folder) / "kernel.cubin"
            cubin.write_bytes(kernel.asm["cubin"])
            usage = _output("cuobjdump", "-res-usage", str(cubin))
            text = _output("nvdisasm", "-c", str(cubin))
        registers, stack = (_number(rf"{field}:(\d+)", usage) for field in ("REG", "STACK"))
    return Resources(
        registers,
        stack,
        kernel.metadata.shared,
        len(MATRIX.findall(text)),
        len(TWO_BYTES.findall(text)),
        far,
        tuple(touched_early(kernel.asm["ttgir"])),
    )


def measured_case(case: Case) -> Resources:
    """The resources of a case; at the top of a module, so that another process can be sent here."""
    return measured(launch_of(case), case.target)


def _output(tool: str, *arguments: str) -> str:
    command = [str(TOOLS / tool), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    if found is None:
        raise RuntimeError(f"resources: expected {pattern} in the compiler's report, got none.")
    return int(found.group(1))
