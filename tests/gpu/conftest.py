"""The kernels on a CUDA device; without one everything here is skipped, which one line says.

These tests need a process of their own: `make test-gpu`.
"""

import os
from collections.abc import Iterator

# cuBLAS has deterministic products only with a workspace of its own, chosen before it starts.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import pytest
import torch

from tests.gpu.on_device import missing


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = missing()
    for item in items:
        # What other libraries warn of on a device that nobody has seen yet is not our failure.
        item.add_marker(pytest.mark.filterwarnings("default"))
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if missing():
        terminalreporter.write_line(missing())


@pytest.fixture(autouse=True)
def poisoned_memory() -> Iterator[None]:
    """torch.empty is NaN, or the largest integer: an element that no kernel writes shows."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
