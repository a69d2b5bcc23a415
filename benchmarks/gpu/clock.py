"""Times of calls on a CUDA device: in graphs with a cold cache, as replays, and on the host."""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

Call = Callable[[], Any]
WARM_UPS = 3
IN_ONE_GRAPH = 10
ROUNDS = 15
CACHES = 4
"""The flush reads this many times the second-level cache."""
LEAST_FLUSH = 64 << 20
BUSY_CYCLES = 500_000


class Profile(NamedTuple):
    """What a call starts on the device: how many kernels and copies, and its longest kernel."""

    launches: int
    longest: str
    longest_us: float


class Clock:
    """Times calls on the current CUDA device.

    Everything runs on one side stream: a graph is captured there, and autograd runs a backward on
    the stream of its forward.
    """

    def __init__(self) -> None:
        properties = torch.cuda.get_device_properties(torch.cuda.current_device())
        size = max(LEAST_FLUSH, CACHES * int(getattr(properties, "L2_cache_size", 0)))
        self.stream = torch.cuda.Stream()
        self._filler = torch.zeros(size // 4, device="cuda")

    @contextmanager
    def _here(self) -> Iterator[None]:
        """On the clock's stream, after whatever made the call's inputs."""
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            yield

    def flush(self) -> None:
        """Fill the second-level cache, by reading: written lines would have to be evicted later."""
        self._filler.amax()

    def capture(self, call: Call) -> torch.cuda.CUDAGraph:
        """The call's kernels as a graph; it must have run before."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self.stream):
            call()
        return graph

    def warm_up(self, call: Call) -> None:
        """Compile, fill caches of the first call, leave the device idle."""
        with self._here():
            for _ in range(WARM_UPS):
                call()
        torch.cuda.synchronize()

    def _elapsed_us(self, graph: torch.cuda.CUDAGraph) -> float:
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        with self._here():
            # The device is kept busy until the host has launched everything.
            torch.cuda._sleep(BUSY_CYCLES)
            start.record()
            graph.replay()
            stop.record()
        stop.synchronize()
        return 1e3 * start.elapsed_time(stop)

    def graph_us(self, call: Call) -> float:
        """Median time of one call with a cold cache, without any launch from the host.

        A graph of flushes and calls against one of as many flushes.
        """
        self.warm_up(call)
        self.warm_up(self.flush)

        def both() -> None:
            for _ in range(IN_ONE_GRAPH):
                self.flush()
                call()

        def alone() -> None:
            for _ in range(IN_ONE_GRAPH):
                self.flush()

        busy, idle = self.capture(both), self.capture(alone)
        for graph in (busy, idle):
            self._elapsed_us(graph)
        taken = [self._elapsed_us(busy) - self._elapsed_us(idle) for _ in range(ROUNDS)]
        return statistics.median(taken) / IN_ONE_GRAPH

    def replay_us(self, call: Call) -> float:
        """Median time of one replay of the call's graph, with a warm cache."""
        self.warm_up(call)
        graph = self.capture(call)
        self._elapsed_us(graph)
        return statistics.median(self._elapsed_us(graph) for _ in range(ROUNDS))

    def host_us(self, call: Call) -> float:
        """Median time until the host is free again: what launching the call eagerly costs."""
        self.warm_up(call)
        taken = []
        with self._here():
            for _ in range(ROUNDS):
                torch.cuda.synchronize()
                start = time.perf_counter()
                call()
                taken.append(1e6 * (time.perf_counter() - start))
        torch.cuda.synchronize()
        return statistics.median(taken)

    def peak_bytes(self, call: Call) -> int:
        """Growth of allocated device memory during one call, results included."""
        self.warm_up(call)
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        with self._here():
            result = call()
        torch.cuda.synchronize()
        peak = torch.cuda.max_memory_allocated() - before
        del result
        return peak

    def profile(self, call: Call) -> Profile:
        """Launches of one call with a cold cache; of all its kernels the longest."""
        self.warm_up(call)
        with self._here():
            self.flush()
            torch.cuda.synchronize()
            activities = [torch.profiler.ProfilerActivity.CUDA]
            with torch.profiler.profile(activities=activities) as profiler:
                call()
                torch.cuda.synchronize()
        cuda = torch.autograd.DeviceType.CUDA
        events = [event for event in profiler.events() if event.device_type == cuda]
        if not events:
            return Profile(0, "", 0.0)
        longest = max(events, key=lambda event: event.time_range.elapsed_us())
        return Profile(len(events), longest.name, longest.time_range.elapsed_us())

    def run(self, call: Call) -> Any:
        """The result of one call on the clock's stream, whose backward can then be captured."""
        with self._here():
            result = call()
        torch.cuda.synchronize()
        return result
