"""Source images with a look of their own: varied where asked, and nothing else changes."""

from __future__ import annotations

import re
from dataclasses import astuple, fields
from pathlib import Path

import numpy as np
import pytest

from reference.data.classes import NAMES
from reference.experiments.rows import new_network
from reference.synthetic import Sizes, draw_scene, write_domains
from reference.synthetic.canvas import Canvas, Material, Stamp
from reference.synthetic.look import Setting
from reference.synthetic.variety import RANGES, varied_look
from reference.training.config import CAMVID_CLASSES, PRESETS

SMALL = (48, 64)
VARIED = PRESETS["varied-to-photographs"]


def test_every_image_has_its_own_look_from_the_ranges():
    looks = [varied_look(np.random.default_rng(seed)) for seed in range(40)]
    drawn_apart, never_by_day = {"light", "haze"}, {"lamps"}
    assert {field.name for field in fields(Setting)} == {*RANGES} | drawn_apart | never_by_day
    for name, (low, high) in RANGES.items():
        values = [getattr(look.setting, name) for look in looks]
        assert all(max(low, 0.0) <= value <= high for value in values), name
        assert np.ptp(values) > 0.5 * (high - max(low, 0.0)), name
    lights = [np.mean(look.setting.light) for look in looks]
    assert max(lights) > 2.5 * min(lights)
    assert len({look.colours["building"].tobytes() for look in looks}) == len(looks)
    for look in looks:
        assert all(colour.min() >= 0 for colour in look.colours.values())
        assert all(np.isfinite(astuple(look.setting)[i]).all() for i in range(len(RANGES)))


def test_a_varied_source_is_repeatable_and_leaves_the_target_alone():
    first, again = (draw_scene(3, "source", 1, SMALL, varied=True) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], draw_scene(3, "source", 1, SMALL)[0])
    target, same = (draw_scene(3, "target", 1, SMALL, varied=varied) for varied in (True, False))
    assert all(np.array_equal(a, b) for a, b in zip(target, same, strict=True))


def test_a_varied_source_shows_every_class_that_photographs_tell_apart():
    labels = np.stack([draw_scene(0, "source", i, SMALL, varied=True)[1] for i in range(24)])
    for name in ("road", "sidewalk", "building", "fence", "pole", "traffic sign", "vegetation",
                 "sky", "person", "car"):  # fmt: skip
        assert (labels == NAMES.index(name)).any(), name


def test_a_veil_changes_classes_and_nothing_else():
    canvas = Canvas(20, 30)
    box = [(0, 0), (30, 0), (30, 20), (0, 20)]
    canvas.polygon(box, (1, 2, 3), Stamp(10, Material.SKY, 99))
    before = np.asarray(canvas.codes).copy()
    canvas.relabel((25.0, 10.0), 8.0, 4.0, 8)
    canvas.relabel((-50.0, 10.0), 8.0, 4.0, 8)
    after = np.asarray(canvas.codes)
    inside = after[..., 0] == 8
    assert inside[10, 25] and inside[10, 29] and not inside[10, 12] and not inside[2, 25]
    assert (after[..., 0][~inside] == 10).all()
    assert np.array_equal(after[..., 1:], before[..., 1:])
    assert (np.asarray(canvas.colours) == (1, 2, 3)).all()


@pytest.mark.parametrize("varied", [False, True])
def test_images_of_the_other_kind_are_refused(tmp_path: Path, varied: bool):
    few = Sizes(1, 0, 0, 0)
    write_domains(tmp_path / "data", 0, few, size=SMALL, varied=varied)
    with pytest.raises(ValueError, match=f"^write_domains: expected {re.escape(str(tmp_path))}"):
        write_domains(tmp_path / "data", 0, few, size=SMALL, varied=not varied)


def test_the_preset_for_photographs_tells_apart_what_they_tell_apart():
    assert [(NAMES[a], NAMES[b]) for a, b in CAMVID_CLASSES] == [
        ("traffic light", "traffic sign"),
        ("terrain", "vegetation"),
        ("truck", "car"),
        ("bus", "car"),
    ]
    assert VARIED.data.merged == CAMVID_CLASSES and VARIED.data.varied
    count = sum(parameter.numel() for parameter in new_network(VARIED).parameters())
    small = sum(parameter.numel() for parameter in new_network(PRESETS["toy"]).parameters())
    assert count > 2.5 * small
    assert VARIED.oracle.steps == VARIED.source.steps + VARIED.adaptation.steps
