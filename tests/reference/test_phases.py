"""Phases follow from the settings, and learning rates from the phase."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from reference.engine.phases import phases
from reference.engine.settings import DataSettings, Machine, Reporting, Settings
from reference.engine.stage_settings import (
    AdaptationStage,
    Optimiser,
    SourceStage,
    StaticLabels,
)

SMALL = Settings(
    source=SourceStage(iterations=10, optimiser=Optimiser(learning_rate=1.0)),
    adaptation=AdaptationStage(
        iterations=11,
        rounds=3,
        optimiser=Optimiser(learning_rate=2.0, poly_power=1.0, warmup=2),
        static=StaticLabels(from_round=1),
    ),
)


def test_a_run_is_a_warm_up_and_rounds():
    found = phases(SMALL)
    spans = [(phase.name, phase.start, phase.stop) for phase in found]
    assert spans == [("source", 0, 10), ("round 0", 10, 13), ("round 1", 13, 16),
                     ("round 2", 16, 21)]  # fmt: skip
    assert [phase.static for phase in found] == [False, False, True, True]
    assert [phase.adapts for phase in found] == [False, True, True, True]
    assert [phase.fresh for phase in found] == [True, True, False, False]


def test_modes_leave_a_stage_out(tmp_path):
    assert [phase.name for phase in phases(replace(SMALL, mode="source-only"))] == ["source"]
    adapt = phases(replace(SMALL, mode="adapt", start=tmp_path))
    assert (adapt[0].name, adapt[0].start) == ("round 0", 0)


def test_one_schedule_runs_over_all_rounds():
    _, first, second, last = phases(SMALL)
    assert first.learning_rate(10) == pytest.approx(2.0 * 1 / 2)
    assert first.learning_rate(12) == pytest.approx(2.0 * (1 - 2 / 11))
    assert second.learning_rate(13) == pytest.approx(2.0 * (1 - 3 / 11))
    assert last.learning_rate(20) == pytest.approx(2.0 / 11)


def test_rounds_that_restart_begin_lower_each_time():
    optimiser = Optimiser(learning_rate=2.0, poly_power=1.0, horizon=1.2)
    stage = replace(SMALL.adaptation, restart=True, round_factor=0.5, optimiser=optimiser)
    _, first, second, last = phases(replace(SMALL, adaptation=stage))
    assert [phase.fresh for phase in (first, second, last)] == [True, True, True]
    assert first.learning_rate(10) == 2.0
    assert first.learning_rate(12) == pytest.approx(2.0 * (1 - 2 / 3.6))
    assert second.learning_rate(13) == 1.0
    assert last.learning_rate(16) == 0.5


def test_no_static_labels_where_nothing_reads_them():
    stage = replace(SMALL.adaptation, static_labels=False)
    assert not any(phase.static for phase in phases(replace(SMALL, adaptation=stage)))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: Optimiser(learning_rate=0.0),
            "Optimiser: expected learning_rate > 0, got 0.0.",
        ),
        (lambda: Optimiser(horizon=0.5), "Optimiser: expected horizon >= 1, got 0.5."),
        (lambda: Optimiser(momentum=1.5), "Optimiser: expected momentum within 0..1, got 1.5."),
        (lambda: SourceStage(iterations=0), "SourceStage: expected iterations >= 1, got 0."),
        (
            lambda: AdaptationStage(iterations=2, rounds=3),
            "AdaptationStage: expected iterations >= 3, got 2.",
        ),
        (
            lambda: StaticLabels(class_share=2.0),
            "StaticLabels: expected class_share within 0..1, got 2.0.",
        ),
        (lambda: DataSettings(workers=-1), "DataSettings: expected workers >= 0, got -1."),
        (lambda: Machine(accumulate=0), "Machine: expected accumulate >= 1, got 0."),
        (lambda: Reporting(keep=0), "Reporting: expected keep >= 1, got 0."),
        (lambda: Settings(ema_decay=1.1), "Settings: expected ema_decay within 0..1, got 1.1."),
        (
            lambda: Settings(mode="adapt"),
            'Settings: expected start to be given with mode "adapt" and only then, got start None '
            'with mode "adapt". Hint: --start names a checkpoint of a run in mode "source-only".',
        ),
    ],
)
def test_bad_settings_are_refused_in_one_sentence(make, sentence):
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        make()
