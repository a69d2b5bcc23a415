"""What is said about an early score: judged only where published numbers speak of such a run."""

from __future__ import annotations

from dataclasses import replace

import pytest
from reference.engine.expectations import LIMITS, Band, expected_band
from reference.engine.presets import PRESETS

GTA5 = PRESETS["gta5-to-cityscapes"][1]


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "toy"])
def test_every_preset_is_judged_twice_in_its_warm_up(name: str):
    settings = PRESETS[name][1]
    bands = [expected_band(settings, i) for i in range(0, 20_001, 1000)]
    told = [(band.iteration, band.least_percent) for band in bands if band is not None]
    assert told == list(LIMITS[settings.data.source_set])


@pytest.mark.parametrize(
    "settings",
    [
        PRESETS["toy"][1],
        replace(GTA5, network=replace(GTA5.network, random_weights=True)),
        replace(GTA5, network=replace(GTA5.network, kind="toy")),
        replace(GTA5, source=replace(GTA5.source, iterations=1999)),
    ],
)
def test_others_are_not(settings):
    assert expected_band(settings, 2000) is None


def test_an_adaptation_of_another_network_is_not(tmp_path):
    assert expected_band(replace(GTA5, mode="adapt", start=tmp_path / "a.pth"), 2000) is None


def test_the_sentences():
    band = Band(2000, 20.0)
    begin = "does it train? mIoU {} after 2000 iterations, expected 20 or more:"
    assert band.verdict(20.0) == begin.format("20.0") + " OK"
    assert band.verdict(19.9) == begin.format("19.9") + (
        " LOW. Hint: see that the backbone's weights were loaded (the report at the start of the "
        "run), that --source.optimiser.learning-rate is about 2.5e-4, and that the weights belong "
        "to the colour normalisation of the network."
    )
    assert band.verdict(1.0) == begin.format("1.0") + (
        " LOW. Hint: next to nothing is learnt; labels that were saved again with other colours "
        "or bits do this (python -m reference.check_data)."
    )
