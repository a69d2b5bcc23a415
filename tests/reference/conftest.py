"""One thread for every test, and finished or tiny runs for those that look at one."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from reference.data import sets
from reference.data.settings import Drawn
from reference.settings import Settings
from tests.reference.tiny_runs import ROOT, SEEN, changed, run


@pytest.fixture(scope="package", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="package", autouse=True)
def _own_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Scenes and counts that a run keeps below runs/ lie in a folder of the session."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("work"))
        # Commands that a test starts find the checkout from there.
        patch.setenv("PYTHONPATH", str(ROOT))
        yield


@pytest.fixture(scope="package", autouse=True)
def _drawn_once(_own_folder: None) -> Iterator[None]:
    """A run has its scenes looked through by a process of its own; here, those of a folder once."""
    look, seen = sets.draw_missing, set[tuple[Path, Drawn, int]]()

    def once(folder: Path, drawn: Drawn, seed: int) -> None:
        key = folder.resolve(), drawn, seed
        if key not in seen or not folder.is_dir():
            look(folder, drawn, seed)
            seen.add(key)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sets, "draw_missing", once)
        yield


@pytest.fixture
def tiny_toy() -> Settings:
    """Settings of a run of the small network that takes seconds."""
    return changed(network={"kind": "toy"})


@pytest.fixture(scope="package")
def seen_run(_own_folder: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run with panels and evaluations; not to be written to."""
    folder = tmp_path_factory.mktemp("seen") / "run"
    assert run(SEEN, folder)
    return folder
