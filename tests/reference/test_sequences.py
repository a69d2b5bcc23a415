"""Parts of a set of photographs, by sequence and in halves."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from reference.data.cityscapes import Cityscapes
from reference.data.sequences import Part, halves, part_where
from reference.experiments.scenario import load_sequences
from reference.training.config import Data, Experiment

from tests.reference.small_sets import save_ids, save_image


@pytest.fixture
def root(tmp_path):
    for number, sequence in enumerate(["day", "day", "dusk", "dusk", "dusk"]):
        stem = f"{sequence}_000000_{number:06d}"
        save_image(tmp_path / f"leftImg8bit/train/{sequence}/{stem}_leftImg8bit.png", value=number)
        truth = tmp_path / f"gtFine/train/{sequence}/{stem}_gtFine_labelIds.png"
        save_ids(truth, [7 + number], palette=False)
    return tmp_path


def test_a_sequence_holds_its_own_images_and_labels(root):
    reader = Cityscapes(root, "train", labels=True)
    dusk = part_where(reader, lambda name: name == "dusk")
    assert dusk.stems == reader.stems[2:]
    assert [int(dusk.image(i).max()) for i in range(len(dusk))] == [2, 3, 4]
    assert np.array_equal(dusk.labels(1), reader.labels(3))
    assert dusk.image_files == reader.image_files[2:]
    assert dusk.label_files == reader.label_files[2:]


def test_halves_are_cut_in_time_and_share_nothing(root):
    dusk = part_where(Cityscapes(root, "train", labels=False), lambda name: name == "dusk")
    first, last = halves(dusk)
    assert first.stems + last.stems == dusk.stems
    assert (len(first), len(last)) == (2, 1)
    assert first.label_files == () and not first.has_labels


def test_a_part_without_images_is_refused(root):
    reader = Cityscapes(root, "train", labels=False)
    sentence = f"part_where: expected one of the wanted sequences in {root}, got day, dusk."
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        part_where(reader, lambda name: name == "night")
    sentence = f"Part: expected images of {root}, got none."
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        halves(Part(reader, [0]))


def test_a_scenario_of_sequences_keeps_target_halves_apart(root):
    experiment = Experiment(data=Data(height=8, width=8))
    scenario = load_sequences(experiment, str(root), "dusk")
    assert scenario.source.stems == Cityscapes(root, "train", labels=False).stems[:2]
    assert scenario.target_truth is not None
    assert torch.equal(scenario.target_truth.images, scenario.target_images)
    assert not {*scenario.target_truth.stems} & {*scenario.test.stems}
    assert scenario.test_labels(0).unique().tolist() == [int(scenario.test.labels.unique())]
    assert scenario.split == "second half of dusk"
