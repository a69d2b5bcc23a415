"""How long property tests search: a repeatable selection by default, new ground when thorough."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

INTERPRETER = Path(__file__).parent / "interpreter"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """The interpreter must be on before triton is imported: its tests run where they are named."""
    if collection_path == INTERPRETER:
        return not any(Path(arg).resolve() == INTERPRETER for arg in config.args) or None
    return None


# The first call of an operator is far slower than the rest, so one example's time says nothing.
ANY_SPEED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

# The same examples in every run: whoever changes a line is not to meet an old failure by chance.
settings.register_profile("repeatable", ANY_SPEED, max_examples=50, derandomize=True)
settings.register_profile("thorough", ANY_SPEED, max_examples=1000, print_blob=True)
settings.load_profile("repeatable")
