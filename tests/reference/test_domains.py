"""The images of a run: opened when needed, never the target's in the warm-up."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import reference.engine.domains
import torch
from reference.engine.domains import RunDomains, set_folders
from reference.engine.phases import phases
from reference.engine.processes import Processes
from reference.engine.settings import DataSettings

from reference.data.rare_classes import RareClasses
from reference.synthetic import Domains
from tests.reference.tiny_runs import ALONE, EVERYTHING, held, run


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("domains") / "data"


def test_source_only_never_opens_a_target_training_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    real = reference.engine.domains.open_set

    def guarded(name: str, root: Path, split: str = "train", *, labels: bool = True):
        if (name, split) == ("cityscapes", "train"):
            raise AssertionError("the target was opened")
        return real(name, root, split, labels=labels)

    monkeypatch.setattr(reference.engine.domains, "open_set", guarded)
    settings = replace(EVERYTHING, mode="source-only")
    assert run(settings, tmp_path / "run")
    assert held(tmp_path / "run")["iteration"] == 3
    assert held(tmp_path / "run")["bicl"] is None
    with pytest.raises(AssertionError, match=r"^the target was opened$"):
        run(EVERYTHING, tmp_path / "full")


def test_adaptation_starts_from_the_checkpoint_of_a_warm_up(tmp_path: Path):
    assert run(replace(EVERYTHING, mode="source-only"), tmp_path / "source")
    settings = replace(EVERYTHING, mode="adapt", start=tmp_path / "source" / "last.pth")
    assert run(settings, tmp_path / "adapted")
    assert held(tmp_path / "adapted")["iteration"] == 6
    assert held(tmp_path / "adapted")["bicl"]["target_bank.present"].any()


def test_batches_go_on_from_any_iteration(drawn: Path):
    domains = RunDomains(EVERYTHING, drawn, ALONE)
    phase = phases(EVERYTHING)[2]
    whole = list(domains.source_parts(phase, phase.start))
    rest = list(domains.source_parts(phase, phase.start + 2))
    assert len(whole) == 3 and len(rest) == 1
    assert torch.equal(whole[2].images, rest[0].images)
    assert not torch.equal(whole[1].images, whole[2].images)


def test_parts_of_a_batch_are_counted_per_iteration(drawn: Path):
    machine = replace(EVERYTHING.machine, accumulate=2)
    domains = RunDomains(replace(EVERYTHING, machine=machine), drawn, ALONE)
    phase = phases(EVERYTHING)[0]
    parts = list(domains.target_parts(phase, 1, None))
    assert [len(part.images) for part in parts] == [1, 1, 1, 1]
    assert parts[0].static is None


def test_rare_classes_choose_the_source_images(drawn: Path):
    source = replace(EVERYTHING.source, rare_classes=True, rare=RareClasses(min_pixels=20))
    domains = RunDomains(replace(EVERYTHING, source=source), drawn, ALONE)
    phase = phases(EVERYTHING)[0]
    rare = torch.cat([part.indices for part in domains.source_parts(phase, 0)])
    usual = RunDomains(EVERYTHING, drawn, ALONE).source_parts(phase, 0)
    assert rare.tolist() != torch.cat([part.indices for part in usual]).tolist()
    assert list((drawn.parent / "index").glob("gta5-*.json"))


def test_the_first_process_draws_before_the_others(drawn: Path, monkeypatch: pytest.MonkeyPatch):
    order: list[str] = []
    monkeypatch.setattr(Processes, "wait", lambda self: order.append("wait"))
    monkeypatch.setattr(
        reference.engine.domains,
        "write_domains",
        lambda *arguments, **named: order.append("draw") or Domains(drawn, drawn),
    )
    for rank in (0, 1):
        group = Processes(rank, 2, torch.device("cpu"))
        assert RunDomains(EVERYTHING, drawn, group)._folders.source == drawn
    assert order == ["draw", "wait", "wait", "draw"]


def test_folders_are_found_in_any_case(tmp_path: Path):
    for name in ("GTA5", "Cityscapes", "other"):
        (tmp_path / name).mkdir()
    found = set_folders(DataSettings(root=tmp_path))
    assert found == (tmp_path / "GTA5", tmp_path / "Cityscapes")
    elsewhere = DataSettings(root=tmp_path, source=tmp_path / "other")
    assert set_folders(elsewhere)[0] == tmp_path / "other"


def test_a_missing_root_is_told_in_one_sentence():
    sentence = (
        "train: expected a folder synthia below data.root, got no folder. Hint: give --data.root "
        "with GTA5, SYNTHIA or cityscapes in it, or --data.source."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        set_folders(DataSettings(source_set="synthia"))
