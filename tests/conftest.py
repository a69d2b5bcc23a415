"""How long property tests search: a repeatable selection by default, new ground when thorough."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings

HERE = Path(__file__).parent
OWN_PROCESS = {HERE / "interpreter", HERE / "gpu", HERE / "integrations"}
"""The interpreter must be on before triton is imported; the tests on a GPU exchange functions; the
packages of the integrations are in another environment."""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """What needs a process of its own runs where it is named, as a folder or a file in it."""
    if collection_path in OWN_PROCESS:
        named = [Path(argument.partition("::")[0]).resolve() for argument in config.args]
        wanted = any(collection_path in (path, *path.parents) for path in named)
        return None if wanted else True
    return None


# The first call of an operator is far slower than the rest, so one example's time says nothing.
ANY_SPEED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

# The same examples in every run: whoever changes a line is not to meet an old failure by chance.
settings.register_profile("repeatable", ANY_SPEED, max_examples=50, derandomize=True)
settings.register_profile("thorough", ANY_SPEED, max_examples=1000, print_blob=True)
settings.load_profile("repeatable")


@pytest.fixture(scope="module")
def eager() -> Iterator[None]:
    """For modules about plain torch: calls that name no backend take it, C built or not."""
    # Here, since the interpreter must be on before the library is imported.
    import protocontrast as pc

    with pc.default_backend("eager"):
        yield


@pytest.fixture(autouse=True, scope="session")
def one_graph() -> Iterator[None]:
    """Skips tests that compile a call into one graph where torch's compiler cannot follow it."""
    from protocontrast.checks import TRACEABLE

    compiler = torch.compile

    def compiled(*given: Any, fullgraph: bool = False, **how: Any) -> Any:
        if fullgraph and not TRACEABLE:
            pytest.skip("expected torch 2.11 or later, which compiles a call into one graph")
        return compiler(*given, fullgraph=fullgraph, **how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "compile", compiled)
        yield
