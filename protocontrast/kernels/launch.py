"""How kernels are started: on the right device, with the precision torch asks for, or on paper.

A launcher hands `run` a `Launch`. Within `recorded(family)` launches are collected instead of run,
so that any call, also on meta tensors and without a GPU, tells exactly what it would launch:

    with recorded("sm90") as launches:
        contrast(features, ...)                       # features.is_meta is enough
    source = ASTSource(launches[0].kernel, *launches[0].specialised())
    triton.compile(source, target, launches[0].options)
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import c_float
from functools import cache, lru_cache
from typing import Any, NamedTuple

import torch
import triton.language as tl
from torch import Tensor

from protocontrast.kernels import INTERPRETED
from protocontrast.kernels.configs import LARGEST_TILE, Config, configuration, power_of_two
from protocontrast.kernels.meta import Meta
from protocontrast.kernels.starts import start

ELEMENTS = {
    torch.float64: "fp64",
    torch.float32: "fp32",
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.int64: "i64",
    torch.int32: "i32",
    torch.uint32: "u32",
    torch.int16: "i16",
    torch.uint16: "u16",
    torch.int8: "i8",
    torch.uint8: "u8",
    torch.bool: "u1",
}

SLOT_BYTES = 4 * 2**20
"""Partial sums may always take this much, however small the features; `FEW_MAY` times as much where
fewer than `ENOUGH` programs would run."""

FEW_MAY = 8

SLOT_SHARES = (10, 1)
"""Else a tenth of the features' memory; as much as they where there would be few programs."""

ENOUGH = 132
"""Programs that occupy the largest GPUs in the table, one for each of their multiprocessors."""

NUMBERS = 256
"""So many are remembered in halves; a temperature that is annealed is another one in every step."""

Place = tuple[int, ...]
"""Where something is among arguments that are tuples of tuples."""


def leaves(value: Any, place: Place = ()) -> Iterator[tuple[Place, Any]]:
    """What stands in such arguments, and where."""
    if not isinstance(value, tuple):
        yield place, value
        return
    for index, part in enumerate(value):
        yield from leaves(part, (*place, index))


class Launch(NamedTuple):
    """One start of a kernel: run-time arguments, compile-time constants and launch options."""

    kernel: Any
    programs: int
    arguments: tuple[Any, ...]
    meta: Meta
    options: dict[str, Any]

    def specialised(self) -> tuple[dict[str, Any], dict[Place, Any], dict[Place, Any]]:
        """Signature, constants and attributes as triton's own launcher would derive them.

        An integer of 1 and None become constants; pointers and integers that 16 divides are marked.
        """
        *names, last = self.kernel.arg_names
        constants: dict[Place, Any] = {(len(names),): self.meta}
        attributes: dict[Place, Any] = {}

        def kind(value: Any, place: Place) -> Any:
            if isinstance(value, tuple):
                kinds = [kind(part, (*place, index)) for index, part in enumerate(value)]
                return type(value)(*kinds) if hasattr(value, "_fields") else tuple(kinds)
            if value is None or (type(value) is int and value == 1):
                constants[place] = value
                return "constexpr"
            number = value.data_ptr() if isinstance(value, Tensor) else value
            if isinstance(number, int) and number % 16 == 0:
                attributes[place] = [["tt.divisibility", 16]]
            return _kind(value)

        kinds = kind(self.arguments, ())
        return {**dict(zip(names, kinds, strict=True)), last: "constexpr"}, constants, attributes


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return "*" + ELEMENTS[value.dtype]
    if isinstance(value, float):
        return "fp32"
    return "i32" if -(2**31) <= value < 2**31 else "i64"


_record: list[Launch] | None = None
_family = ""


@contextmanager
def recorded(family: str) -> Iterator[list[Launch]]:
    """Collect the launches inside, as for an architecture of `configs.FAMILIES`; none runs."""
    global _record, _family
    before = _record, _family
    _record, _family = [], family
    try:
        yield _record
    finally:
        _record, _family = before


def run(launch: Launch, features: Tensor) -> None:
    """Start a kernel on the device of the features, whichever is the current one."""
    if _record is not None:
        _record.append(launch)
        return
    # Triton launches on the current device, and with another one's pointers it reads rubbish.
    device = features.get_device()
    if features.is_cuda and device != torch.cuda.current_device():
        with torch.cuda.device_of(features):
            start(*launch, device)
    else:
        start(*launch, device)


def family(features: Tensor) -> str:
    """The architecture family of the features' device."""
    if _family:
        return _family
    return family_of(features.device) if features.is_cuda else "interpreter"


@cache
def family_of(device: torch.device) -> str:
    """That of a GPU."""
    if torch.version.hip:
        return "gfx942"
    major, minor = torch.cuda.get_device_capability(device)
    if major in (8, 12):
        return "sm80" if (major, minor) == (8, 0) else "sm86"
    return "sm90" if major == 9 else "sm100"


def arithmetic(features: Tensor, halved: torch.dtype | None = None) -> tuple[Any, str, str]:
    """The constants ACC, OPERANDS and PRECISION of a kernel that reads these features.

    `halved` is the dtype of 16-bit operands where that is not the features' own.

    OPERANDS: "wide" multiplies in the accumulation dtype; "split" multiplies 16-bit features by
    the upper and the lower half of a float32 factor, which loses nothing that float32 holds;
    "narrow", under torch.set_float32_matmul_precision("medium"), by the upper half alone.
    """
    return _arithmetic(*_kind_of(features, halved))


class Kind(NamedTuple):
    """What arithmetic depends on; what triton calls a dtype would take long to look up."""

    dtype: torch.dtype
    halved: torch.dtype | None
    family: str
    wanted: str


def _kind_of(features: Tensor, halved: torch.dtype | None) -> Kind:
    wanted = torch.get_float32_matmul_precision()
    return Kind(features.dtype, halved, family(features), wanted)


@cache
def _arithmetic(
    dtype: torch.dtype, halved: torch.dtype | None, family: str, wanted: str
) -> tuple[Any, str, str]:
    double = dtype == torch.float64
    precision = {
        "highest": "ieee",
        "high": "bf16x6" if family == "gfx942" else "tf32x3",
        "medium": "tf32",
    }
    operands = "wide"
    # The interpreter multiplies bfloat16 operands as raw bits.
    readable = not (INTERPRETED and (halved or dtype) == torch.bfloat16)
    if dtype.itemsize == 2 and readable:
        operands = "narrow" if wanted == "medium" else "split"
    acc = tl.float64 if double else tl.float32
    return acc, operands, "ieee" if double else precision[wanted]


def sizes(
    features: Tensor, classes: int, halved: torch.dtype | None = None, **constants: Any
) -> Meta:
    """The constants that features (B, D, P) and C classes decide, and others; `halved` is for
    `arithmetic`."""
    return _sizes(_kind_of(features, halved), features.shape[1], classes, **constants)


@cache
def _sizes(kind: Kind, channels: int, classes: int, **constants: Any) -> Meta:
    row = -(-channels // 16) * 16
    meta = Meta(*_arithmetic(*kind), C=classes, D=channels, ROW=row, BLOCK_C=power_of_two(classes))
    return meta._replace(**constants)


def accumulating(values: Tensor, **constants: Any) -> Meta:
    """The constants of a kernel that reads no features but sums such values, and others."""
    return _accumulating(values.dtype == torch.float64, **constants)


@cache
def _accumulating(double: bool, **constants: Any) -> Meta:
    return Meta(tl.float64 if double else tl.float32, **constants)


def is_aligned(features: Tensor) -> bool:
    """Whether every run of pixels or of channels starts at a multiple of 16 bytes."""
    image, *inner = features.stride()
    if len(inner) == 2 and 1 not in inner:
        return False
    # 16 divides all numbers if it divides them bit by bit.
    steps = image
    for stride in inner:
        if stride != 1:
            steps |= stride
    return (steps * features.element_size() | features.data_ptr()) % 16 == 0


def has_runs(features: Tensor) -> bool:
    """The same, or nothing needs it: the interpreter has no wide loads."""
    return family(features) == "interpreter" or is_aligned(features)


def plan(
    row: str,
    features: Tensor,
    classes: int,
    halved: torch.dtype | None = None,
    keeps: bool = True,
    crowded: bool = False,
    **constants: Any,
) -> tuple[Meta, dict[str, Any]]:
    """Constants and launch options of a kernel that walks features in tiles.

    `row` is that of the table of tile sizes; `keeps` whether programs may keep the prototypes.
    Those that do have one tile fewer on its way where shared memory is `crowded`: if products alone
    read a tile, triton gives it one more, and soft targets take the room of one. Other `constants`
    are added.
    """
    width, channels, kind = features.element_size(), features.shape[1], _kind_of(features, halved)
    keeps = keeps and (kind.family == "interpreter" or is_aligned(features))
    config = configuration(row, kind.family, width, channels, classes, keeps)
    if config.programs and crowded:
        config = config._replace(num_stages=config.num_stages - 1)
    return _planned(kind, channels, classes, width, config, **constants)


@cache
def _planned(
    kind: Kind, channels: int, classes: int, width: int, config: Config, **constants: Any
) -> tuple[Meta, dict[str, Any]]:
    meta = _sizes(kind, channels, classes)
    exactly = config.exact == "thirds" or meta.PRECISION == "ieee"
    meta = meta._replace(
        PRECISION=config.exact if width == 4 and exactly else meta.PRECISION,
        BLOCK_P=config.block_p,
        BLOCK_D=config.block_d,
        PROGRAMS=config.programs,
        **constants,
    )
    return meta, options(config.num_warps, config.num_stages)


@lru_cache(maxsize=NUMBERS)
def halves(number: float) -> tuple[float, float]:
    """A number as the sum of two float32 ones, since kernels take no float64 argument."""
    high = c_float(number).value
    return high, number - high if math.isfinite(high) else 0.0


def span_of(images: int, channels: int, pixels: int, width: int, classes: int) -> int:
    """Pixels over which one program sums, a power of two.

    Every span leaves a (C, D) partial sum, so there may not be many. Shapes alone decide, never
    the device, and so the order of a sum is the same everywhere.
    """
    slot = classes * channels * 4
    held = images * channels * pixels * width
    usual = max(SLOT_BYTES, held // SLOT_SHARES[0])
    most = max(FEW_MAY * SLOT_BYTES, held // SLOT_SHARES[1])
    span = LARGEST_TILE
    while span < pixels:
        fewer = images * tile_count(pixels, 2 * span)
        if images * tile_count(pixels, span) * slot <= (usual if fewer >= ENOUGH else most):
            break
        span *= 2
    return span


def long_span(span: int, images: int, pixels: int, groups: int = 1) -> int:
    """The longest from `span` on that leaves `ENOUGH` programs, of which a span has one for each of
    its `groups` of channels: their first tile costs the most, and the end, when sums are written.
    Of several groups nearly two for each multiprocessor, for half of a second round would idle."""
    enough = ENOUGH if groups == 1 else 7 * ENOUGH // 4
    while span < pixels and images * tile_count(pixels, 2 * span) * groups >= enough:
        span *= 2
    return span


def walkers(features: Tensor, meta: Meta) -> tuple[int, int]:
    """Tiles of these features, and the programs among which they are dealt out.

    One that keeps the prototypes has many, any other a single one; no result depends on it.
    """
    tiles = features.shape[0] * tile_count(features.shape[2], meta.BLOCK_P)
    if meta.PROGRAMS == 0:
        return tiles, tiles
    processors = 1 if family(features) == "interpreter" else ENOUGH
    if features.is_cuda:
        processors = torch.cuda.get_device_properties(features.device).multi_processor_count
    return tiles, min(tiles, meta.PROGRAMS * processors)


@cache
def options(num_warps: int, num_stages: int) -> dict[str, Any]:
    """Launch options; fusion is named because triton's default for it changes between versions."""
    return {"num_warps": num_warps, "num_stages": num_stages, "enable_fp_fusion": True}


def tile_count(pixels: int, block: int) -> int:
    """Tiles of `block` pixels that cover an image."""
    return -(-pixels // block)
