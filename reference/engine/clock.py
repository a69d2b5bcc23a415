"""Speed, waiting for data, memory, and what they say about the whole run."""

from __future__ import annotations

import time
from typing import Final

import torch

from reference.provenance import peak_mib

ESTIMATE_AFTER: Final = 50


class Clock:
    """Times the iterations of one process.

    Args:
        device: whose memory counts.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds = self.waited = 0.0
        self.iterations = 0
        self._began = self._ready = time.perf_counter()
        self._all = 0
        self._all_seconds = 0.0

    def ask(self) -> None:
        """Data are asked for."""
        self._began = time.perf_counter()

    def receive(self) -> None:
        """Data have come."""
        self._ready = time.perf_counter()

    def finish(self) -> None:
        """The iteration is done."""
        spent = time.perf_counter() - self._began
        self.seconds += spent
        self.waited += self._ready - self._began
        self.iterations += 1
        self._all += 1
        # The first iteration also starts workers and chooses algorithms.
        self._all_seconds += spent if self._all > 1 else 0.0

    def window(self) -> tuple[float, float]:
        """Iterations per second and the share of time waiting for data since the last window."""
        rate = self.iterations / self.seconds if self.seconds else 0.0
        share = self.waited / self.seconds if self.seconds else 0.0
        self.seconds, self.waited, self.iterations = 0.0, 0.0, 0
        return rate, share

    @property
    def peak_mib(self) -> float:
        """Largest memory so far, MiB: of the GPU, or of the process on the CPU."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 2**20
        return peak_mib()

    def estimate(self, left: int) -> str | None:
        """Say once, after 50 iterations, how long the rest takes.

        Args:
            left: iterations to come.
        """
        if self._all != ESTIMATE_AFTER:
            return None
        each = self._all_seconds / (self._all - 1)
        where = "GPU" if self.device.type == "cuda" else "process"
        return (
            f"about {_duration(left * each)} for the {left} iterations left at "
            f"{1 / each:.2f} it/s, without evaluations and static labels; peak memory of the "
            f"{where} {self.peak_mib / 1024:.1f} GiB"
        )


def _duration(seconds: float) -> str:
    if seconds >= 5400:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.1f} min" if seconds >= 90 else f"{seconds:.0f} s"
