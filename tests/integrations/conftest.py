"""The recipes of docs/extending.md in the packages themselves: `make test-integrations`.

They need an environment and a process of their own. Where a package is absent its tests are
skipped, and one line names what is missing.
"""

import os
from collections.abc import Iterator

# Nothing here is downloaded.
os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch

from tests.integrations.beside_cpu_torch import stand_in
from tests.integrations.packages import missing

stand_in()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if missing():
        terminalreporter.write_line(missing())


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The same sums, in the same order, in every process."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)
