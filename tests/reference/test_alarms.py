"""Alarms: which shares ring, which of the tempting ones do not, and what a resumed run keeps."""

import pytest
import torch

from reference.run.alarms import Monitor, judge
from reference.run.ranks import Ranks

SOURCE = {
    "road": 0.3, "building": 0.3, "sky": 0.2, "vegetation": 0.15, "car": 0.04, "traffic sign": 0.01,
    "train": 0.0,
}  # fmt: skip
NAMES = tuple(SOURCE)


def rung(
    start: dict[str, float], now: dict[str, float], coverage: float | None = None
) -> dict[str, str]:
    """Alarms of a run whose shares differ from the source as told."""
    first, last = ([*(SOURCE | changes).values()] for changes in (start, now))
    return judge(NAMES, source=[*SOURCE.values()], start=first, now=last, coverage=coverage)


# Shares at the start and now, and what rings.
COURSES = {
    "stays where it was": ({}, {}, []),
    "grows": ({"traffic sign": 0.03}, {"traffic sign": 0.12}, ["flood traffic sign"]),
    "too large at first, shrinks": ({"traffic sign": 0.084}, {"traffic sign": 0.05}, []),
    "truly three times more": ({"traffic sign": 0.033}, {"traffic sign": 0.033}, []),
    "recovers to its source share": ({"sky": 0.05}, {"sky": 0.2}, []),
    "large takes over": ({}, {"building": 0.85}, ["flood building"]),
    "no source pixels": ({}, {"train": 0.3}, []),
    "no source pixels, takes over": ({}, {"train": 0.9}, ["flood train"]),
    "fades away": ({}, {"car": 0.003}, ["vanish car"]),
    "was never there": ({"car": 0.002}, {"car": 0.0}, []),
}


@pytest.mark.parametrize("name", COURSES)
def test_shares_ring_that_are_wrong_and_have_moved(name):
    start, now, alarms = COURSES[name]
    assert [*rung(start, now, coverage=0.5)] == alarms


def test_sentences_hold_all_three_shares():
    assert rung({}, {}, 0.021) == {}
    assert list(rung({}, {}, 0.019)) == ["coverage"]
    assert rung({}, {"car": 0.2, "traffic sign": 0.0}, coverage=0.0) == {
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
