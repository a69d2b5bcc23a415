"""Alarms: which shares ring, which of the tempting ones do not, and what a resumed run keeps."""

from __future__ import annotations

import pytest
import torch

from reference.run.alarms import Monitor, judge
from reference.run.ranks import Ranks

NAMES = ("road", "building", "sky", "vegetation", "car", "traffic sign", "train")

SOURCE = [0.0] * len(NAMES)
for _name, _share in {
    "road": 0.3,
    "building": 0.3,
    "sky": 0.2,
    "vegetation": 0.15,
    "car": 0.04,
    "traffic sign": 0.01,
}.items():
    SOURCE[NAMES.index(_name)] = _share


def shares(**changes: float) -> list[float]:
    result = list(SOURCE)
    for name, share in changes.items():
        result[NAMES.index(name.replace("_", " "))] = share
    return result


def rung(start: list[float], now: list[float], coverage: float | None = None) -> set[str]:
    return set(judge(NAMES, source=SOURCE, start=start, now=now, coverage=coverage))


def test_a_run_that_stays_where_it_was_is_healthy():
    assert rung(SOURCE, SOURCE, coverage=0.5) == set()


@pytest.mark.parametrize(("coverage", "alarms"), [(0.019, {"coverage"}), (0.021, set())])
def test_coverage_near_zero_rings(coverage, alarms):
    assert rung(SOURCE, SOURCE, coverage) == alarms


def test_a_rare_class_that_grows_over_the_map_rings():
    assert rung(shares(traffic_sign=0.03), shares(traffic_sign=0.12)) == {"flood traffic sign"}


def test_a_class_that_was_too_large_from_the_start_and_shrinks_does_not_ring():
    assert rung(shares(traffic_sign=0.084), shares(traffic_sign=0.05)) == set()


def test_a_target_that_truly_holds_three_times_more_does_not_ring():
    assert rung(shares(traffic_sign=0.033), shares(traffic_sign=0.033)) == set()


def test_a_class_that_recovers_to_its_source_share_does_not_ring():
    assert rung(shares(sky=0.05), shares(sky=0.2)) == set()


def test_one_class_taking_over_rings_though_its_source_share_is_large():
    assert rung(SOURCE, shares(building=0.85)) == {"flood building"}


def test_a_class_without_source_pixels_rings_only_when_it_takes_over():
    assert rung(SOURCE, shares(train=0.3)) == set()
    assert rung(SOURCE, shares(train=0.9)) == {"flood train"}


def test_a_class_that_fades_away_rings():
    assert rung(SOURCE, shares(car=0.003)) == {"vanish car"}


def test_a_class_that_was_never_there_does_not_ring():
    assert rung(shares(car=0.002), shares(car=0.0)) == set()


def test_sentences_hold_all_three_shares():
    now = shares(car=0.2, traffic_sign=0.0)
    alarms = judge(NAMES, source=SOURCE, start=SOURCE, now=now, coverage=0.0)
    assert alarms == {
        "coverage": "pseudo labels cover 0.0% of the target pixels, so the run has next to nothing "
        "to learn from. Hint: lower the threshold.",
        "flood car": "car floods the target: 20.0% of its predicted pixels "
        "(4.0% at the start, 4.0% of the source labels).",
        "vanish traffic sign": "traffic sign vanishes from the target: 0.00% of its predicted "
        "pixels (1.0% at the start, 1.0% of the source labels).",
    }


ROAD, CARS = torch.zeros(2, 4, 4, dtype=torch.int64), torch.full((2, 4, 4), 4)
NONE = torch.full((2, 4, 4), 255)


def test_a_window_gives_coverage_and_shares_over_its_parts():
    monitor = Monitor(NAMES)
    half = torch.cat([ROAD[:1], NONE[:1]])
    monitor.see(half, ROAD, torch.tensor(0.5))
    monitor.see(half, CARS, torch.tensor(1.0))
    assert monitor.close(Ranks()) == (0.75, [])
    assert monitor.now == [0.5, 0, 0, 0, 0.5, 0, 0]
    assert monitor.source.tolist() == [32, 0, 0, 0, 0, 0, 0]
    assert monitor.close(Ranks()) == (None, [])
    assert monitor.now is None


def test_an_alarm_is_told_once_also_after_a_resume():
    monitor = Monitor(NAMES)
    for coverage, told in ((1.0, []), (0.0, ["pseudo labels cover 0.0%"]), (0.0, [])):
        monitor.see(ROAD, ROAD, torch.tensor(coverage))
        alarms = monitor.close(Ranks())[1]
        assert [sentence[:24] for sentence in alarms] == told
    again = Monitor(NAMES)
    again.load(monitor.state(), whole=True)
    again.see(ROAD, ROAD, torch.tensor(0.0))
    assert again.close(Ranks())[1] == []
    assert list(again.told) == ["coverage"]


def test_source_labels_that_are_all_void_ring_in_the_warm_up():
    monitor = Monitor(NAMES)
    monitor.see(NONE)
    coverage, (sentence,) = monitor.close(Ranks())
    assert coverage is monitor.now is None
    assert sentence.startswith("no pixel of the source images seen lately has a label")


def test_an_open_window_goes_on_after_a_resume():
    whole, first, second = Monitor(NAMES), Monitor(NAMES), Monitor(NAMES)
    for monitor in (whole, first):
        monitor.see(ROAD, ROAD, torch.tensor(0.0))
    second.load(first.state(), whole=True)
    for monitor in (whole, second):
        monitor.see(CARS, CARS, torch.tensor(1.0))
    assert second.close(Ranks()) == whole.close(Ranks()) == (0.5, [])
    assert second.now == whole.now == [0.5, 0, 0, 0, 0.5, 0, 0]
    # One rank stored its own window; the others must not count it again.
    second.load(first.state(), whole=False)
    assert second.close(Ranks()) == (None, [])
