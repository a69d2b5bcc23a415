"""`python -m benchmarks.tune`: find tiles for protocontrast/kernels/configs.py on this GPU.

Every candidate must compute what the table's own row computes; the fastest are printed as rows of
that table, to be put before the rows that fit now. Nothing is tuned at run time.
"""

import argparse
import itertools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch

import protocontrast as pc
from benchmarks.gpu.cases import matmul_precision
from benchmarks.gpu.gate import error_of
from protocontrast.kernels import configs
from protocontrast.kernels.configs import Config, Row

NO_DEVICE = "benchmarks.tune: expected a CUDA device, got none; nothing was tuned."
NO_TRITON = "benchmarks.tune: expected triton to be installed, got none; nothing was tuned."
PIXELS = (16, 32, 64, 128)
CHANNELS = (16, 32, 64, 128, 256)
WARPS = (4, 8)
STAGES = (1, 2, 3, 4)
LARGEST = 16384
"""Elements of a tile, or of its logits, beyond which every program spills."""
SMALLEST_PER_WARP = 64
DIFFERENCE = 1e-2
"""Largest error over largest value against the table's own row: another order of sums, rounded."""
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
TEMPERATURE = 0.1
KEYS = 4096
"""Pixels that pairs are made with, at most."""


class Job(NamedTuple):
    """A kernel on one kind of input."""

    kernel: str
    dtype: str
    channels: int
    classes: int

    @property
    def width(self) -> int:
        """Bytes per element."""
        return DTYPES[self.dtype].itemsize


def candidates(job: Job) -> list[Config]:
    """Configurations that may fit, smaller tiles first."""
    depth = configs.power_of_two(job.channels)
    block_c = configs.power_of_two(job.classes)
    found = []
    for block_p, block_d, warps, stages in itertools.product(PIXELS, CHANNELS, WARPS, STAGES):
        tile = block_p * block_d
        if block_d > depth or max(tile, block_p * block_c) > LARGEST:
            continue
        if tile < SMALLEST_PER_WARP * warps or configs.LARGEST_TILE % block_p:
            continue
        found.append(Config(block_p, block_d, warps, stages))
    return found


def row_for(job: Job, family: str, config: Config) -> Row:
    """A row of the table for inputs up to this many channels and classes."""
    block_c = configs.power_of_two(job.classes)
    return Row((family,), (job.kernel,), (job.width,), job.channels, block_c, config)


def written(row: Row) -> str:
    """The row as the table spells it."""
    where = f'("{row.families[0]}",), ("{row.kernels[0]}",), {row.widths!r}'
    config = ", ".join(map(repr, row.config))
    return f"Row({where}, {row.channels}, {row.classes}, Config({config})),"


def like(own: Config, config: Config, kernel: str) -> Config:
    """The configuration with what is not searched for of the table's own: how float32 products are
    taken and, of logits that were left, that sums keep a tile, since others leave none."""
    programs = own.programs if kernel in configs.LEFT else config.programs
    return config._replace(programs=programs, exact=own.exact)


@contextmanager
def using(row: Row) -> Iterator[None]:
    """The table with a row before all others."""
    before = configs.ROWS
    left = {*configs.LEFT}
    # Where a contrast left its logits, another kernel would run.
    others = (each for each in before if left & {*row.kernels} or not left & {*each.kernels})
    configs.exchange((row, *others))
    try:
        yield
    finally:
        configs.exchange(before)


def call_of(job: Job, features: torch.Tensor, labels: torch.Tensor) -> Callable[[], list[Any]]:
    """A call of the library in which the job's kernel runs, and its results."""
    classes = job.classes
    random = torch.Generator(features.device).manual_seed(1)
    prototypes = torch.randn(classes, job.channels, generator=random, device=features.device)
    wants = job.kernel.endswith(("_backward", "_both", *configs.LEFT))
    leaf = features.detach().requires_grad_(wants)
    of_rows = (*configs.BOTH, *configs.DISTRIBUTION_BOTH, *configs.LEFT[1:])
    rows = prototypes.requires_grad_(job.kernel in of_rows)
    operators = {
        "contrast": lambda: pc.pixel_prototype_contrast(
            leaf, labels, rows, temperature=TEMPERATURE, backend="triton"
        ),
        "logits": lambda: pc.prototype_logits(leaf, rows, backend="triton"),
        "class_sums": lambda: pc.class_prototypes(leaf, labels, classes, backend="triton").mean,
        "class_sums_normalize": lambda: (
            pc.class_prototypes(leaf, labels, classes, normalize=True, backend="triton").mean
        ),
        "transfer": lambda: pc.transfer_labels(leaf, rows, backend="triton").confidence,
        "distribution_contrast": lambda: pc.distribution_contrast(
            leaf, labels, rows, rows.square(), temperature=1.0, backend="triton"
        ),
        "pair_contrast": lambda: pairs_loss(leaf[0].t(), labels[0]),
        "target_pass": lambda: step_loss(leaf[..., None], labels[..., None], rows),
    }
    (operator,) = (f for name, f in operators.items() if job.kernel in kernels_of(name))

    def call() -> list[Any]:
        result = operator()
        if not wants:
            return [result]
        leaves = [value for value in (leaf, rows) if value.requires_grad]
        return list(torch.autograd.grad(result, leaves, torch.ones_like(result)))

    return call


def step_loss(features: torch.Tensor, labels: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """The loss of a BiCL step of a fresh object, so that every call sees the same banks."""
    method = pc.BiCL(*rows.shape, temperature=TEMPERATURE, backend="triton").to(rows.device)
    method.source_bank.update_from(pc.ClassPrototypes(rows, torch.ones_like(rows[:, 0])))
    return method(features, labels, features).loss


def pairs_loss(rows: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Every pixel as an anchor, against the first few as keys."""
    anchors, keys = rows.contiguous(), rows[:KEYS].detach().contiguous()
    return pc.pair_contrast(
        anchors, labels, keys, labels[:KEYS], temperature=TEMPERATURE, backend="triton"
    )


def kernels_of(operator: str) -> tuple[str, ...]:
    """The table's names of an operator's kernels."""
    left = configs.LEFT if operator == "contrast" else ()
    return operator, f"{operator}_backward", f"{operator}_backward_both", *left


def starts(job: Job, family: str) -> bool:
    """Whether a call of the job's size starts its kernel: few contrasts leave their logits."""
    size = family, job.width, job.channels, job.classes
    return job.kernel not in configs.LEFT or configs.may_leave_logits(*size)


def launch_of(job: Job, call: Callable[[], Any], family: str) -> Any:
    """The job's launch in a call, which is recorded instead of run."""
    from protocontrast.kernels.launch import recorded

    stem = job.kernel
    for ending in ("_both", "_normalize", "_left"):
        stem = stem.removesuffix(ending)
    name = f"{stem}_kernel"
    with recorded(family) as launches:
        call()
    (launch,) = (one for one in launches if one.kernel.__name__ == name)
    return launch


def time_us(launch: Any, clock: Any) -> float:
    """The launch alone, with a cold cache."""
    kernel = launch.kernel[(launch.programs,)]
    return clock.graph_us(lambda: kernel(*launch.arguments, launch.meta, **launch.options))


def trials(
    job: Job, family: str, call: Callable[[], list[Any]], time: Callable[[Any], float]
) -> Iterator[tuple[float, Row]]:
    """Time and row of every candidate that runs and computes the same."""
    expected = call()
    own = configs.configuration(job.kernel, family, job.width, job.channels, job.classes)
    for config in candidates(job):
        row = row_for(job, family, like(own, config, job.kernel))
        with using(row):
            try:
                found = call()
                error = max(error_of(a, b) for a, b in zip(found, expected, strict=True))
                taken = time(launch_of(job, call, family)) if error <= DIFFERENCE else None
            except Exception as refused:
                # Triton says in many ways that a tile does not fit this device.
                print(f"  {config}: {type(refused).__name__}", file=sys.stderr)
                continue
        if taken is None:
            print(f"  {config}: off by {error:.1e}", file=sys.stderr)
        else:
            yield taken, row


def parser() -> argparse.ArgumentParser:
    """The command line."""
    options = argparse.ArgumentParser("python -m benchmarks.tune", description=__doc__)
    kernels = (*configs.KERNELS, *configs.LEFT)
    options.add_argument("--kernels", nargs="+", choices=kernels, default=kernels)
    options.add_argument("--dtypes", nargs="+", choices=DTYPES, default=["bfloat16", "float32"])
    options.add_argument("--channels", nargs="+", type=int, default=[76, 256, 720, 2048])
    options.add_argument("--classes", nargs="+", type=int, default=[19, 150])
    options.add_argument("--pixels", type=int, default=65536)
    options.add_argument("--precision", choices=("highest", "high", "medium"), default="highest")
    options.add_argument("--best", type=int, default=3, help="rows printed per kernel and input")
    return options


def jobs(options: argparse.Namespace) -> list[Job]:
    """All that is to be tuned."""
    parts = options.kernels, options.dtypes, options.channels, options.classes
    return [Job(*one) for one in itertools.product(*parts)]


def tune(options: argparse.Namespace) -> None:
    """Every job on the current device."""
    from benchmarks.gpu.clock import Clock
    from protocontrast.kernels.launch import family as family_of

    clock, random = Clock(), torch.Generator("cuda").manual_seed(0)
    for job in jobs(options):
        shape = 1, job.channels, options.pixels
        features = torch.randn(shape, generator=random, device="cuda").to(DTYPES[job.dtype])
        size = 1, options.pixels
        labels = torch.randint(job.classes, size, generator=random, device="cuda")
        family, call = family_of(features), call_of(job, features, labels)
        if not starts(job, family):
            print(f"# {job}: no call of this size starts it")
            continue
        before = time_us(launch_of(job, call, family), clock)
        found = sorted(trials(job, family, call, lambda launch: time_us(launch, clock)))
        print(f"# {job}: the table's row takes {before:.1f} us")
        for taken, row in found[: options.best]:
            print(f"{written(row)}  # {taken:.1f} us")


def main(arguments: list[str] | None = None) -> int:
    """Print the best rows of every job."""
    options = parser().parse_args(arguments)
    if not torch.cuda.is_available() or not find_spec("triton"):
        print(NO_TRITON if torch.cuda.is_available() else NO_DEVICE)
        return 0
    with matmul_precision(options.precision):
        tune(options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
