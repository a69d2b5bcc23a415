"""Two processes that share banks over gloo, meeting in a file; each returns what it saw."""

import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist
from torch import multiprocessing

from tests.forked import CONTEXT

WORLD = 2
SERVER = CONTEXT.get_start_method()


def _enter(rank: int, function: Callable[..., Any], folder: str) -> None:
    torch.set_num_threads(1)
    meeting = f"file://{folder}/meeting"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=WORLD)
    try:
        torch.save(function(rank), f"{folder}/rank{rank}.pt")
    except BaseException:
        traceback.print_exc(file=sys.stderr)
        raise
    finally:
        dist.destroy_process_group()


def on_two_ranks(function: Callable[[int], Any], folder: Path) -> list[Any]:
    """What `function(rank)` returned on each rank."""
    given = function, str(folder)
    multiprocessing.start_processes(_enter, given, nprocs=WORLD, start_method=SERVER)
    return [torch.load(folder / f"rank{rank}.pt", weights_only=False) for rank in range(WORLD)]
