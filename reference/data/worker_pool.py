"""One function over many files, in this process or in several."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any, Final, TypeVar

from reference.progress import track

Result = TypeVar("Result")
# What a worker calls. It is handed over once, since to pickle a reader of 25 000 files takes as
# long as to read one of them.
_WORK: list[Callable[[int], Any]] = []
# Files of one errand to a worker; one by one, handing them over would cost as much as the work.
_CHUNK: Final = 8


def _adopt(work: Callable[[int], Any]) -> None:
    _WORK[:] = [work]


def _call(number: int) -> Any:
    return _WORK[0](number)


def over_files(
    work: Callable[[int], Result], count: int, description: str, *, workers: int, progress: bool
) -> Iterator[Result]:
    """Call a function for 0 .. count - 1 and yield its results in this order.

    Args:
        work: takes the number of a file; it must be picklable when there are workers.
        count: number of files.
        description: what is done, in a few words, for the progress bar.
        workers: processes beside this one; 0 works in this one.
        progress: show a bar.

    Yields:
        The results.

    Raises:
        ValueError: `workers` is negative.
    """
    if workers < 0:
        raise ValueError(f"over_files: expected workers of at least 0, got {workers}.")
    steps = track(count, description, show=progress)
    if workers == 0 or count <= _CHUNK:
        yield from (work(number) for number in steps)
        return
    # Spawned, not forked: this process may have threads, and a fork would copy their locks.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=_adopt, initargs=(work,))
    try:
        results = pool.map(_call, range(count), chunksize=_CHUNK)
        yield from (result for _, result in zip(steps, results, strict=True))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
