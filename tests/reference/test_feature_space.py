"""The plane of prototypes: true directions, one plane for all moments, every class named."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from reference.data.classes import NAMES
from reference.pictures.domain_prototypes import Prototypes, units
from reference.pictures.feature_space import _plane, _room_for, _spots, feature_space

GENERATOR = torch.Generator().manual_seed(0)


def moment(classes: int = 19, dim: int = 8, *, calibrated: bool = True) -> Prototypes:
    source = torch.randn(19, dim, generator=GENERATOR)
    target = source + 0.2 * torch.randn(19, dim, generator=GENERATOR)
    present = torch.arange(19) < classes
    moved = (source + target) / 2 if calibrated else None
    return Prototypes(source, target, moved, present, present.clone())


def texts(chart: str) -> set[str]:
    root = ElementTree.fromstring(chart)
    return {(node.text or "").strip() for node in root.iter() if node.tag.endswith("text")}


def test_the_plane_is_that_of_the_largest_components():
    held = [moment(), moment()]
    plane = _plane(held)
    cloud = torch.cat([units(rows) for m in held for rows in (m.source, m.target)])
    _, lengths, _ = torch.linalg.svd(cloud - cloud.mean(dim=0), full_matrices=False)
    expected = (lengths**2 / (lengths**2).sum())[:2].tolist()
    assert plane.kept == pytest.approx(expected)
    assert np.allclose(plane.axes @ plane.axes.T, np.eye(2))
    largest = np.abs(plane.axes).argmax(axis=1)
    assert (plane.axes[[0, 1], largest] > 0).all()


def test_in_a_plane_nothing_is_lost():
    angles = torch.linspace(0, 3, 19)
    flat = torch.stack([angles.cos(), angles.sin(), torch.zeros(19)], dim=1)
    every = torch.ones(19, dtype=torch.bool)
    held = Prototypes(flat, flat.flip(0), None, every, every)
    plane = _plane([held])
    assert sum(plane.kept) == pytest.approx(1.0)
    spots = _spots(held, plane)
    between = np.linalg.norm(spots[0, "source"] - spots[7, "source"])
    assert between == pytest.approx(float((flat[0] - flat[7]).norm()), abs=1e-6)


def test_every_class_is_named_once_and_every_kind_explained():
    first, second = feature_space(["Before", "After"], [moment(calibrated=False), moment()])
    assert set(NAMES) | {"Before", "source", "target"} <= texts(first)
    assert "calibrated" not in texts(first)
    assert set(NAMES) | {"After", "calibrated"} <= texts(second)
    assert any(text.startswith("component 1, ") for text in texts(first))


def test_classes_without_a_prototype_are_left_out():
    (chart,) = feature_space(["Some"], [moment(classes=3)])
    assert texts(chart) & set(NAMES) == set(NAMES[:3])


@pytest.mark.parametrize("classes", [0, 1])
def test_next_to_nothing_is_still_a_chart(classes: int):
    (chart,) = feature_space(["Few"], [moment(classes=classes)])
    assert texts(chart) & set(NAMES) == set(NAMES[:classes])


def test_a_name_keeps_off_its_neighbours():
    spot = np.zeros(2)
    for x, y in ((1.0, 0.0), (-1.0, 0.0), (0.0, 1.0), (0.0, -1.0)):
        line = np.array([[x * far, y * far] for far in np.linspace(0.0, 8, 30)])
        left, height, side = _room_for("road", spot, line, 1.0)
        wide = 0.62 * len("road")
        start = left if side == "left" else left - wide
        inside = (line[:, 0] > start) & (line[:, 0] < start + wide)
        assert not (inside & (np.abs(line[:, 1] - height) < 0.5)).any()
