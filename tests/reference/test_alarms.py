"""Alarms: which shares ring, which of the tempting ones do not."""

from __future__ import annotations

import pytest
import torch

from reference.data.classes import NAMES, NUM_CLASSES
from reference.networks.toy import build_network
from reference.training.alarms import class_share, judge, predicted_share

SOURCE = [0.0] * NUM_CLASSES
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
    return set(judge(source=SOURCE, start=start, now=now, coverage=coverage))


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
    alarms = judge(source=SOURCE, start=SOURCE, now=shares(car=0.2, traffic_sign=0.0), coverage=0.0)
    assert alarms == {
        "coverage": "pseudo labels cover 0.0% of the target pixels, so the run has next to nothing "
        "to learn from. Hint: lower the threshold.",
        "flood car": "car floods the target: 20.0% of its predicted pixels "
        "(4.0% at the start, 4.0% of the source labels).",
        "vanish traffic sign": "traffic sign vanishes from the target: 0.00% of its predicted "
        "pixels (1.0% at the start, 1.0% of the source labels).",
    }


def test_class_share_leaves_unlabelled_pixels_out():
    labels = torch.tensor([[0, 0, 255], [0, 18, 255]], dtype=torch.uint8)
    share = class_share(labels)
    assert share[0] == 0.75
    assert share[18] == 0.25
    assert sum(share) == 1
    assert class_share(torch.full((3,), 255)) == [0.0] * NUM_CLASSES


def test_predicted_share_counts_every_image_once():
    network = build_network(seed=0)
    images = torch.randint(0, 256, (5, 3, 16, 16), dtype=torch.uint8)
    share = predicted_share(network, images, batch_size=2)
    assert sum(share) == pytest.approx(1)
    assert share == pytest.approx(predicted_share(network, images, batch_size=5))
