"""The processes of a run, one or those of torchrun, and how each of them computes."""

import contextlib
import os
import platform
import signal
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.rendezvous import rendezvous

import protocontrast as pc
from reference.data.settings import refusal, require
from reference.settings import Machine

T = TypeVar("T")
# The others wait while one process evaluates.
_PATIENCE: Final = timedelta(hours=2)
_STOPPING: Final = (signal.SIGTERM, signal.SIGUSR1)
_CPU: Final = torch.device("cpu")
_DTYPES: Final = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Ranks:
    """Which process this is, of 0 .. world - 1; the default trains alone on the CPU."""

    rank: int = 0
    world: int = 1
    device: torch.device = _CPU

    @property
    def is_main(self) -> bool:
        """Whether this process prints and writes."""
        return self.rank == 0

    @property
    def shared(self) -> bool:
        """Whether there are others."""
        return self.world > 1

    def wait(self) -> None:
        """Wait until every process has come here."""
        if self.shared:
            dist.barrier()

    def broadcast(self, value: T) -> T:
        """Return the main process's value, any that pickle can hold, on every process."""
        values = [value]
        if self.shared:
            dist.broadcast_object_list(values)
        return values[0]

    def total(self, values: Tensor) -> Tensor:
        """Sum a tensor over all processes; the argument is not changed."""
        if not self.shared:
            return values
        summed = values.clone()
        dist.all_reduce(summed)
        return summed

    def own(self, count: int) -> range:
        """Which of 0 .. count - 1 this process does, of work that all share."""
        return range(self.rank, count, self.world)

    def evenly(self, own: Iterable[T]) -> Iterator[T | None]:
        """Yield what is this process's own, then None until the last process is through.

        For what adds up over processes each time, which all of them must then do equally often.
        """
        waiting = iter(own)
        while True:
            one = next(waiting, None)
            if not int(self.total(torch.tensor(int(one is not None), device=self.device))):
                return
            yield one

    def share(self, batch_size: int, accumulate: int) -> int:
        """Images of a batch that one part of one process sees; refuses a rest."""
        parts = self.world * accumulate
        if batch_size % parts:
            wanted = f"that {self.world} processes times accumulate {accumulate} divide"
            hint = "a batch counts images of all processes and parts together"
            raise refusal("train", "a batch_size", batch_size, wanted, hint)
        return batch_size // parts

    @contextmanager
    def one_first(self) -> Iterator[None]:
        """Let the main process do something before the others, which then find it done."""
        if not self.is_main:
            self.wait()
        yield
        if self.is_main:
            self.wait()

    def mean_of_terms(
        self, terms: Mapping[str, float], *, asked: bool
    ) -> tuple[dict[str, float], bool]:
        """Average loss terms, 0 where a process lacks one; say whether any was asked to stop."""
        if not self.shared:
            return dict(terms), asked
        every: list[Any] = [None] * self.world
        dist.all_gather_object(every, (dict(terms), asked))
        names = dict.fromkeys(name for each, _ in every for name in each)
        means = {name: sum(each.get(name, 0.0) for each, _ in every) / self.world for name in names}
        return means, any(stop for _, stop in every)

    def share_buffers(self, module: nn.Module) -> None:
        """Give every process the main one's buffers, such as the statistics of BatchNorm."""
        if self.shared:
            for buffer in module.buffers():
                dist.broadcast(buffer, src=0)

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Average gradients over all processes, for modules that stand beside the DDP network.

        A parameter without gradient counts as 0 where another process has one, and is left alone
        where none has, as in one process.
        """
        if not self.shared:
            return
        trained = [value for value in parameters if value.requires_grad]
        have = torch.tensor([float(p.grad is not None) for p in trained], device=self.device)
        for parameter, count in zip(trained, self.total(have).tolist(), strict=True):
            if count:
                own = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                parameter.grad = self.total(own) / self.world


def chosen_device(machine: Machine, local_rank: int = 0) -> torch.device:
    """Return where a process computes."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if machine.device == "cpu" or (machine.device == "auto" and not count):
        return torch.device("cpu")
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    hint = f"give torchrun --nproc-per-node {count}" if count else "leave the device at auto"
    wanted, got = "for every process of this machine", f"{count} for {processes}"
    require("train", "a GPU", got, wanted, processes <= count, hint)
    return torch.device("cuda", local_rank)


@contextmanager
def joined(machine: Machine) -> Iterator[Ranks]:
    """Join the processes that torchrun started, or stay alone; set up torch as the run wants it."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    rank, local = (int(os.environ.get(name, "0")) for name in ("RANK", "LOCAL_RANK"))
    device = chosen_device(machine, local)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    threads, repeatable = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    if machine.threads:
        torch.set_num_threads(machine.threads)
    if machine.deterministic:
        # cuBLAS repeats its sums only with a workspace of a fixed size.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    if world > 1:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        with pc.default_backend(machine.backend):
            yield Ranks(rank, world, device) if world > 1 else Ranks(device=device)
    finally:
        if world > 1:
            dist.destroy_process_group()
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(repeatable)


def is_news(sentence: str) -> bool:
    """Whether no other process of torchrun has refused with this sentence before."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        # torchrun keeps a store for its processes, whatever becomes of them.
        with contextlib.suppress(RuntimeError, ValueError):
            store, _, _ = next(rendezvous("env://", timeout=timedelta(seconds=5)))
            return int(store.add(sentence, 1)) == 1
    return True


@dataclass
class StopRequest:
    """Whether this process was asked to stop."""

    yes: bool = False


@contextmanager
def asked_to_stop() -> Iterator[StopRequest]:
    """Take note of SIGTERM and SIGUSR1, which clusters send, instead of dying from them."""
    request = StopRequest()

    def note(*_: object) -> None:
        request.yes = True

    before = {number: signal.signal(number, note) for number in _STOPPING}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Precision:
    """Numbers of the forward pass, and the scale of the loss where they are float16."""

    def __init__(self, machine: Machine, device: torch.device) -> None:
        self.device, name = device, str(machine.precision)
        if name == "auto":
            fast = device.type == "cuda" and torch.cuda.is_bf16_supported()
            name = "bf16" if fast else "fp32"
        if name == "fp16" and device.type != "cuda":
            raise refusal("train", "a GPU", "the CPU", "for precision fp16", "use fp32 or bf16")
        self.dtype = _DTYPES.get(name)
        self.scaler = torch.amp.GradScaler(device.type, enabled=name == "fp16")

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Run the network inside this; losses and prototypes stay outside, in float32."""
        if self.dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)


def versions() -> dict[str, str]:
    """Return the version of everything that can change a number."""
    first = {"protocontrast": pc.__version__, "torch": torch.__version__}
    return {**first, "numpy": np.__version__, "python": platform.python_version()}


def machine(backend: str) -> dict[str, str | int | None]:
    """Return the processor, its cores, the system, and how many threads and ranks compute.

    "backend" is what the library's operators take on the processor, the setting being `backend`.
    """
    native = pc.backends()["native"]
    if backend in ("auto", "native"):
        backend = native.replace("usable:", "native") if native.startswith("usable") else "eager"
    table = Path("/proc/cpuinfo")
    lines = table.read_text(encoding="utf-8").splitlines() if table.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "cores": os.cpu_count() or 1,
        "system": f"{platform.system()} {platform.machine()}",
        "backend": backend,
        "threads": torch.get_num_threads(),
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
        "ranks": int(os.environ.get("WORLD_SIZE", "1")),
    }
