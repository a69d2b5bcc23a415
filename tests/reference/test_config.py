"""Settings: what is refused, what a row switches off, when static labels are made."""

from __future__ import annotations

import dataclasses
import json
import re

import pytest
from reference.training.config import (
    BICL,
    PRESETS,
    ROWS,
    Adaptation,
    Contrast,
    Data,
    Supervised,
    without,
)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: Data(height=100),
            "Data: expected height to be a positive multiple of 8, got 100.",
        ),
        (lambda: Supervised(steps=0), "Supervised: expected steps >= 1, got 0."),
        (lambda: Supervised(batch_size=0), "Supervised: expected batch_size >= 1, got 0."),
        (
            lambda: Supervised(learning_rate=0.0),
            "Supervised: expected learning_rate > 0, got 0.0.",
        ),
        (lambda: Adaptation(rounds=0), "Adaptation: expected rounds >= 1, got 0."),
        (
            lambda: Adaptation(steps=1, rounds=2),
            "Adaptation: expected steps >= rounds = 2, got 1.",
        ),
        (
            lambda: Adaptation(static_weight=0.3),
            "Adaptation: expected static_from_round to be set where static_weight is positive, "
            "got static_from_round None with static_weight 0.3.",
        ),
        (
            lambda: without("everything"),
            "without: expected name among ['bank', 'calibration', 'delay', 'dynamic_labels', "
            "'entropy', 'source_to_target', 'static_labels', 'target_to_source'], "
            "got 'everything'.",
        ),
    ],
)
def test_bad_settings_are_refused_in_one_sentence(make, sentence):
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        make()


def test_the_control_never_looks_at_the_target_and_every_other_row_does():
    looks = {name: row.uses_target for name, row in ROWS.items()}
    assert looks.pop("source_only_continued") is False
    assert all(looks.values())


def test_static_labels_are_made_at_the_start_of_each_round_from_the_first_that_has_them():
    settings = Adaptation(steps=10, rounds=3, static_from_round=1, static_weight=0.3)
    assert [settings.round_of(step) for step in range(10)] == [0, 0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert [step for step in range(10) if settings.starts_round(step)] == [0, 4, 7]
    assert [r for r in range(3) if settings.remakes_static_labels(r)] == [1, 2]
    from_the_start = dataclasses.replace(settings, static_from_round=0)
    assert all(from_the_start.remakes_static_labels(r) for r in range(3))
    never = Adaptation(steps=10, rounds=3)
    assert not any(never.remakes_static_labels(r) for r in range(3))


@pytest.mark.parametrize(
    ("name", "differing"),
    [
        ("target_to_source", {"contrast.target_to_source"}),
        ("source_to_target", {"contrast.source_to_target"}),
        ("calibration", {"contrast.calibrate"}),
        ("dynamic_labels", {"contrast.dynamic_labels"}),
        ("static_labels", {"static_weight", "static_from_round"}),
        ("entropy", {"entropy_weight"}),
        ("bank", {"contrast.prototypes"}),
        ("delay", {"entropy_from_round", "static_from_round"}),
    ],
)
def test_without_changes_that_ingredient_and_nothing_else(name, differing):
    def flat(settings: Adaptation) -> dict[str, object]:
        tree = dataclasses.asdict(settings)
        contrast = tree.pop("contrast")
        return tree | {f"contrast.{key}": value for key, value in contrast.items()}

    full, reduced = flat(BICL), flat(without(name))
    assert {key for key in full if full[key] != reduced[key]} == differing


def test_settings_cannot_be_changed_and_go_into_json():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Contrast().threshold = 0.5  # type: ignore[misc]
    for preset in PRESETS.values():
        text = json.dumps(dataclasses.asdict(preset), sort_keys=True)
        assert json.dumps(json.loads(text), sort_keys=True) == text
