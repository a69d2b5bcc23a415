"""The course of a run: series of equal length, windows, warnings told once."""

from __future__ import annotations

import json

import pytest
import torch
from reference.training.history import History

from reference.data.classes import NUM_CLASSES


def flat(label: int) -> torch.Tensor:
    return torch.full((1, 2, 2), label)


def test_a_term_that_starts_late_or_pauses_has_gaps():
    history = History("bicl")
    history.record_losses(0, {"a": 1.0})
    history.record_losses(1, {"a": 2.0, "b": 5.0})
    history.record_losses(2, {"a": 3.0})
    assert history.losses == {"a": [1.0, 2.0, 3.0], "b": [None, 5.0, None]}


def test_windows_average_their_steps_and_start_anew():
    history = History("bicl", every=2)
    ratio = torch.zeros(NUM_CLASSES)
    for step, (label, coverage) in enumerate([(0, 0.2), (1, 0.4), (2, 0.6), (2, 0.8), (3, 0.0)]):
        history.observe(step, flat(label), torch.tensor(coverage), ratio + step)
    first, second = history.windows
    assert (first.step, second.step) == (2, 4)
    assert first.coverage == pytest.approx(0.3)
    assert second.coverage == pytest.approx(0.7)
    assert first.predicted_share[:3] == [0.5, 0.5, 0.0]
    assert second.predicted_share[:3] == [0.0, 0.0, 1.0]
    assert first.label_ratio == [0.5] * NUM_CLASSES


def test_without_contrast_there_is_no_coverage():
    history = History("entropy_only", every=1)
    history.observe(0, flat(4), None, None)
    (window,) = history.windows
    assert window.coverage is None
    assert window.label_ratio is None
    assert window.predicted_share[4] == 1.0


def test_an_alarm_is_told_once_with_run_and_step(capsys):
    even = [1 / NUM_CLASSES] * NUM_CLASSES
    history = History("bicl", every=1, source_share=even, start_share=even)
    nothing = torch.zeros(NUM_CLASSES)
    everywhere = torch.arange(NUM_CLASSES)
    history.observe(0, everywhere, torch.tensor(0.5), nothing)
    assert history.warnings == {}
    for step in (1, 2):
        history.observe(step, everywhere, torch.tensor(0.0), nothing)
    assert list(history.warnings) == ["coverage"]
    assert history.warnings["coverage"].startswith("bicl, step 2: pseudo labels cover 0.0% of")
    assert " ".join(capsys.readouterr().err.split()).count("bicl, step") == 1


def test_it_goes_into_json():
    history = History("bicl", every=1)
    history.record_losses(0, {"a": 1.0})
    history.observe(0, flat(0), torch.tensor(0.5), torch.zeros(NUM_CLASSES))
    tree = json.loads(json.dumps(history.as_dict()))
    assert tree["losses"] == {"a": [1.0]}
    assert tree["windows"][0]["step"] == 1
    assert set(tree) == {
        "run",
        "every",
        "losses",
        "windows",
        "source_share",
        "start_share",
        "warnings",
        "seconds",
    }
