"""The kernels' room without a GPU: choice of a backend, what a launch is, what is banned."""

import ast
import subprocess
import sys
from functools import partial
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
import torch

from protocontrast import kernels
from protocontrast.calls import ContrastCall
from protocontrast.kernels import compilers, configs
from protocontrast.ops.backend import choose
from tests.bad_arguments import calls
from tests.launching import needs_triton
from tests.sentences import assert_raises

ROOT = Path(__file__).resolve().parents[1]
FEATURES = torch.ones(2, 4, 6)

# The host waits for a value, or the order of a sum depends on timing, or speed on the first calls.
BANNED_ATTRIBUTES = {
    *("item", "tolist", "nonzero", "argwhere", "masked_select", "equal", "cpu", "numpy"),
    *("atomic_add", "atomic_cas", "atomic_xchg", "atomic_max", "atomic_min"),
    *("autotune", "wrap_triton", "triton_op", "inline_asm_elementwise", "libdevice"),
}
CONVERSIONS = {"float", "int", "bool"}


def banned(path: Path) -> list[str]:
    """Banned attributes, and conversions of anything but a literal to a host number.

    What triton evaluates while it compiles sees constants alone, and may convert those.
    """
    found, tree = [], ast.parse(path.read_text("utf-8"))
    compiles = {
        id(inside)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        and any("constexpr_function" in ast.unparse(each) for each in node.decorator_list)
        for inside in ast.walk(node)
    }
    for node in (node for node in ast.walk(tree) if id(node) not in compiles):
        if isinstance(node, ast.Attribute) and node.attr in BANNED_ATTRIBUTES:
            found.append(f"{path.name}:{node.lineno} .{node.attr}")
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in CONVERSIONS:
            literal = all(isinstance(argument, ast.Constant) for argument in node.args)
            if not literal:
                found.append(f"{path.name}:{node.lineno} {node.func.id}()")
    return found


def launch_code() -> list[Path]:
    operators = [ROOT / "protocontrast" / "ops" / f"{stem}.py" for stem in kernels.OPERATORS]
    return [*sorted((ROOT / "protocontrast" / "kernels").glob("*.py")), *operators]


def test_launch_code_never_waits_and_never_races() -> None:
    assert len(launch_code()) > 10
    assert [use for path in launch_code() for use in banned(path)] == []


@pytest.mark.parametrize(
    "line", ["x.item()", "float(x)", "bool(x.any())", "tl.atomic_add(p, x)", "@triton.autotune\nf"]
)
def test_a_banned_use_is_found(tmp_path: Path, line: str) -> None:
    source = tmp_path / "kernel.py"
    constant = "\nfloat('nan')\n@triton.constexpr_function\ndef g(meta): return int(meta.C)\n"
    source.write_text(line.replace("\nf", "\ndef f(): ...") + constant)
    assert len(banned(source)) == 1


def test_import_and_cpu_calls_leave_the_kernels_alone() -> None:
    """torch imports triton for itself when an operator first runs, but not before.

    One whose compiler cannot follow a call does so on import, by `torch.compiler.disable`.
    """
    code = (
        "import sys, torch, protocontrast as pc\n"
        "assert 'triton' not in sys.modules or not pc.checks.TRACEABLE\n"
        "pc.class_prototypes(torch.ones(3, 2), torch.tensor([0, 0, 1]), 2)\n"
        "assert 'protocontrast.kernels.launch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_everything_but_the_kernels_works_without_triton() -> None:
    """`None` in sys.modules is how Python says that a module cannot be imported."""
    code = (
        "import sys; sys.modules['triton'] = None\n"
        "import torch, protocontrast as pc\n"
        "features, labels = torch.ones(3, 2), torch.tensor([0, 0, 1])\n"
        "assert pc.class_prototypes(features, labels, 2).count.tolist() == [2, 1]\n"
        "try:\n"
        "    pc.class_prototypes(features, labels, 2, backend='triton')\n"
        "except ValueError as error:\n"
        "    assert 'backend that is installed' in str(error), error\n"
        "else:\n"
        "    raise SystemExit('no error')"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


NOWHERE = {
    True: "that runs where the features are, got 'triton' for features on cpu. Hint: "
    'backend="auto" takes the fastest implementation there is. '
    "TRITON_INTERPRET=1 before the import runs kernels on CPU, slowly.",
    False: "that is installed, got 'triton'. Hint: install triton (Linux: pip install triton), "
    'or backend="auto" takes the fastest implementation there is.',
}


@pytest.mark.parametrize("available", NOWHERE)
@pytest.mark.parametrize(
    "function",
    [
        *("pixel_prototype_contrast", "prototype_logits", "class_prototypes", "transfer_labels"),
        *("pair_contrast", "distribution_contrast", "upsampled_cross_entropy"),
    ],
)
def test_kernels_on_cpu_tensors_and_without_triton(
    function: str, available: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "AVAILABLE", available)
    assert not kernels.INTERPRETED
    call, text = calls()[function], f"{function}: expected backend {NOWHERE[available]}"
    given = {**call.arguments, "backend": "triton"}
    assert_raises(ValueError, text, lambda: call.function(**given))


class _OnGpu:
    """What `choose` asks of a tensor, answered as a CUDA tensor would."""

    is_cuda = True
    device = torch.device("cuda", 0)


@pytest.mark.parametrize("available", [True, False])
@pytest.mark.parametrize("operator", ["contrast", "label_counts"])
def test_auto_takes_a_kernel_where_there_is_one(
    operator: str, available: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "AVAILABLE", available)
    monkeypatch.setattr(compilers, "RELEASE", (3, 7, 1))
    monkeypatch.setattr(compilers, "capability", lambda index: (9, 0))
    expected = "triton" if available and operator in kernels.OPERATORS else "eager"
    assert choose("auto", operator, _OnGpu()) == expected  # type: ignore[arg-type]


OLD_GPU = (
    "expected backend made for the GPU, which is one of capability 8.0 or higher, got 'triton' "
    '3.7.1 on a GPU of capability 7.5. Hint: backend="eager" runs on every GPU, whatever the '
    "release of triton."
)
OLD_TRITON = (
    "expected backend that triton 3.6 or later compiles, got 'triton' 3.5.1 on {gpu}. "
    'Hint: pip install "triton>=3.6", or take backend="eager".'
)


@pytest.mark.parametrize(
    ("gpu", "release", "text"),
    [
        ((7, 5), (3, 7, 1), OLD_GPU),
        ((9, 0), (3, 5, 1), OLD_TRITON.format(gpu="a GPU of capability 9.0")),
        ((7, 5), (3, 5, 1), OLD_TRITON.format(gpu="a GPU of capability 7.5")),
        (None, (3, 5, 1), OLD_TRITON.format(gpu="a GPU")),
        *(((8, minor), (3, 6, 0), None) for minor in (0, 6, 9)),
        *(((9, 0), (3, release, 0), None) for release in (6, 7, 8, 9, 10)),
        *((gpu, (3, 7, 1), None) for gpu in ((10, 0), (10, 3), (12, 0), None)),
        ((9, 0), None, None),
    ],
)
def test_a_gpu_or_a_triton_that_the_kernels_do_not_know_is_refused(
    gpu: tuple[int, int] | None,
    release: tuple[int, int, int] | None,
    text: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By name in a sentence; "auto" takes eager there."""
    monkeypatch.setattr(kernels, "AVAILABLE", True)
    monkeypatch.setattr(compilers, "RELEASE", release)
    monkeypatch.setattr(compilers, "capability", lambda index: gpu)

    def chosen(backend: str, operator: str = "contrast") -> str:
        return choose(backend, operator, _OnGpu())  # type: ignore[arg-type]

    assert chosen("auto") == ("triton" if text is None else "eager")
    assert chosen("eager") == "eager"
    if text is None:
        assert chosen("triton") == "triton"
    else:
        assert_raises(ValueError, text, lambda: chosen("triton"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [("3.7.1", (3, 7, 1)), ("3.10.0+rocm7.1", (3, 10, 0)), ("3.6", (3, 6, 0)), ("main", None)],
)
def test_the_release_of_triton_is_read_from_its_version(
    text: str, expected: tuple[int, int, int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(name: str) -> str:
        if name != "pytorch-triton":
            raise PackageNotFoundError
        return text

    monkeypatch.setattr(compilers, "version", version)
    assert compilers.installed_release() == expected


def test_the_capability_of_a_gpu_is_a_constant_of_a_compiled_graph(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def asked(index: int) -> tuple[int, int]:
        assert sys._getframe(0).f_code.co_name == "asked"  # which no graph could hold
        return 9, index

    def number(x: torch.Tensor) -> torch.Tensor:
        return x + sum(compilers.capability(3) or ())

    monkeypatch.setattr(compilers, "read_capability", asked)
    compiled = torch.compile(number, fullgraph=True, backend="eager")
    assert compiled(torch.zeros(1)).tolist() == [12.0]


def test_a_tensor_on_paper_has_no_capability() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert compilers.capability(None) is None


@pytest.mark.parametrize("family", configs.FAMILIES)
@pytest.mark.parametrize("kernel", configs.KERNELS)
def test_every_call_has_a_configuration(kernel: str, family: str) -> None:
    for width in (2, 4, 8):
        for channels in (1, 16, 64, 76, 256, 720, 2048):
            for classes in (1, 19, 150, 256):
                config = configs.configuration(kernel, family, width, channels, classes)
                whole = configs.LARGEST_TILE % config.block_p == 0
                assert whole or kernel in configs.SUM_NOTHING
                assert 16 <= config.block_d <= configs.power_of_two(channels)
                for size in (config.block_p, config.block_d, config.num_warps):
                    assert size & (size - 1) == 0


def test_every_row_of_the_table_is_used() -> None:
    used = {
        id(row.config)
        for family in configs.FAMILIES
        for kernel in (*configs.KERNELS, *configs.LEFT)
        for width in (2, 4, 8)
        for channels in (16, 64, 128, 256, 720, 2048)
        for classes in (19, 64, 100, 150, 256)
        for keeps in (True, False)
        for row in [configs.find_row(kernel, family, width, channels, classes, keeps)]
        if row is not None
    }
    assert used == {id(row.config) for row in configs.ROWS}


@pytest.mark.parametrize("family", configs.FAMILIES[1:])
def test_many_channels_without_aligned_runs_are_walked_in_blocks(family: str) -> None:
    """Where every element has its own address, a tile of all of them has no registers."""
    slopes = partial(configs.configuration, "class_sums_backward", family, 2)
    assert slopes(256, 19).block_d == 256
    assert slopes(256, 19, keeps=False) == slopes(512, 19)
    assert slopes(128, 19, keeps=False) == slopes(128, 19)


def test_a_missing_row_is_an_error() -> None:
    text = "configuration: expected a row for contrast on sm70, got none."
    assert_raises(RuntimeError, text, lambda: configs.configuration("contrast", "sm70", 4, 64, 19))


@needs_triton
def test_a_recorded_call_tells_its_launches() -> None:
    from protocontrast.kernels.contrast import contrast
    from protocontrast.kernels.launch import recorded

    features = torch.empty(2, 256, 8192, dtype=torch.bfloat16, device="meta")
    labels = torch.empty(2, 8192, dtype=torch.int64, device="meta")
    prototypes = torch.empty(19, 256, device="meta")
    with recorded("sm90") as launches:
        loss, _, _ = contrast(
            ContrastCall(features, labels, prototypes, None, None, None, "cosine", 0.1, False, 255)
        )
    assert loss.is_meta and loss.shape == (2, 8192)
    assert [launch.kernel.__name__ for launch in launches] == ["prepare_kernel", "contrast_kernel"]
    launch = launches[1]
    assert launch.arguments[-2:] == (2 * 8192 // launch.meta.BLOCK_P, launch.programs)
    signature, constants, attributes = launch.specialised()
    assert list(signature) == list(launch.kernel.arg_names)
    features, targets = signature["features"], signature["targets"]
    assert features.pointer == "*bf16" and targets.labels.pointer == "*i64"
    assert features.stride_d == "i32"
    # Unit strides and absent tensors are constants, as triton's launcher makes them.
    assert features.stride_p == "constexpr" and constants[0, 3] == 1
    assert targets.weight == "constexpr" and constants[1, 1] is None
    assert constants[6,] == launch.meta
    # Address, strides and pixels of the features, address of the labels.
    assert {(0, 0), (0, 1), (0, 2), (0, 4), (1, 0, 0)} <= set(attributes)


@needs_triton
@pytest.mark.parametrize("images", [1, 2, 8])
@pytest.mark.parametrize("pixels", [1, 128, 129, 8464, 262144])
@pytest.mark.parametrize(("channels", "classes"), [(76, 19), (256, 19), (2048, 150)])
def test_partial_sums_stay_small(images: int, pixels: int, channels: int, classes: int) -> None:
    from protocontrast.kernels.launch import ENOUGH, FEW_MAY, SLOT_BYTES, span_of, tile_count

    span = span_of(images, channels, pixels, 2, classes)
    assert span % configs.LARGEST_TILE == 0
    slots = images * tile_count(pixels, span)
    slot_bytes = slots * classes * channels * 4
    held = images * channels * pixels * 2
    assert slot_bytes <= max(FEW_MAY * SLOT_BYTES, held) or slots == images
    if slot_bytes > max(SLOT_BYTES, held // 10) and slots > images:
        assert images * tile_count(pixels, 2 * span) < ENOUGH


@needs_triton
@pytest.mark.parametrize(
    ("span", "images", "pixels", "groups", "long"),
    [
        *((512, 8, 32768, 1, 1024), (128, 2, 8464, 1, 128), (128, 1, 262144, 1, 1024)),
        *((128, 200, 300, 1, 512), (128, 2, 8464, 3, 128), (128, 8, 32768, 3, 2048)),
    ],
)
def test_a_long_span_leaves_enough_programs(
    span: int, images: int, pixels: int, groups: int, long: int
) -> None:
    from protocontrast.kernels.launch import long_span

    assert long_span(span, images, pixels, groups) == long


@needs_triton
def test_a_float64_number_survives_the_way_into_a_kernel() -> None:
    from protocontrast.kernels.launch import halves

    for number in (0.1, 1 / 0.07, 1e-12, 12345.678):
        high, low = (torch.tensor(part, dtype=torch.float32).double() for part in halves(number))
        assert float(high + low) == pytest.approx(number, rel=1e-14)
    assert halves(float("-inf")) == (float("-inf"), 0.0)


@needs_triton
def test_halves_of_a_schedule_are_not_kept_for_ever() -> None:
    from protocontrast.kernels.launch import NUMBERS, halves

    for step in range(2 * NUMBERS):
        halves(0.1 + step / 1024)
    assert halves.cache_info().currsize <= NUMBERS
