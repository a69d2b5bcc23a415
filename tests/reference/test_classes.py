"""The class tables: three numberings agree, and every other id is ignored."""

import numpy as np
import pytest

from reference.data.classes import (
    CAMVID_CLASSES,
    CITYSCAPES_TO_TRAIN,
    GTA5_TO_TRAIN,
    IGNORE,
    NAMES,
    NUM_CLASSES,
    PALETTE,
    SUBSETS,
    SYNTHIA_TO_TRAIN,
    TOY_CLASSES,
    TRAIN_TO_CITYSCAPES,
)


def test_nineteen_classes_in_train_id_order() -> None:
    assert NUM_CLASSES == 19
    assert len(NAMES) == len(set(NAMES)) == 19
    assert (NAMES[0], NAMES[10], NAMES[13], NAMES[18]) == ("road", "sky", "car", "bicycle")


_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)


@pytest.mark.parametrize(("train_id", "cityscapes_id"), list(enumerate(_IDS)))
def test_ids_of_both_sets_map_to_train_ids(train_id: int, cityscapes_id: int) -> None:
    assert CITYSCAPES_TO_TRAIN[cityscapes_id] == train_id
    assert GTA5_TO_TRAIN[cityscapes_id] == train_id
    assert TRAIN_TO_CITYSCAPES[train_id] == cityscapes_id


_SYNTHIA_IDS = (3, 4, 2, 21, 5, 7, 15, 9, 6, 16, 1, 10, 17, 8, 18, 19, 20, 12, 11)


@pytest.mark.parametrize(("train_id", "synthia_id"), list(enumerate(_SYNTHIA_IDS)))
def test_ids_of_synthia_map_to_train_ids(train_id: int, synthia_id: int) -> None:
    assert SYNTHIA_TO_TRAIN[synthia_id] == train_id


def test_every_other_id_of_synthia_is_ignored() -> None:
    others = np.setdiff1d(np.arange(256), _SYNTHIA_IDS)
    assert {0, 13, 14, 22} <= set(others.tolist())
    assert (SYNTHIA_TO_TRAIN[others] == IGNORE).all()


@pytest.mark.parametrize("table", [CITYSCAPES_TO_TRAIN, GTA5_TO_TRAIN])
def test_every_other_id_is_ignored(table: np.ndarray) -> None:
    others = np.setdiff1d(np.arange(256), TRAIN_TO_CITYSCAPES)
    assert table.shape == (256,)
    assert len(others) == 256 - 19
    assert (table[others] == IGNORE).all()


def test_colours_are_the_published_ones_and_differ() -> None:
    assert PALETTE.dtype == np.uint8
    assert PALETTE.shape == (19, 3)
    assert PALETTE[0].tolist() == [128, 64, 128]
    assert PALETTE[10].tolist() == [70, 130, 180]
    assert len({tuple(colour) for colour in PALETTE.tolist()}) == 19


def test_subsets_are_nested_and_drop_the_right_classes() -> None:
    assert {name: len(ids) for name, ids in SUBSETS.items()} == {"19": 19, "16": 16, "13": 13}
    dropped = set(SUBSETS["19"]) - set(SUBSETS["16"])
    assert {NAMES[i] for i in dropped} == {"terrain", "truck", "train"}
    dropped = set(SUBSETS["16"]) - set(SUBSETS["13"])
    assert {NAMES[i] for i in dropped} == {"wall", "fence", "pole"}


def test_classes_of_the_small_sets() -> None:
    assert len(TOY_CLASSES) == 14
    assert set(TOY_CLASSES).isdisjoint({3, 12, 16, 17, 18})
    assert len(CAMVID_CLASSES) == 11


@pytest.mark.parametrize(
    "table",
    [PALETTE, TRAIN_TO_CITYSCAPES, CITYSCAPES_TO_TRAIN, GTA5_TO_TRAIN, SYNTHIA_TO_TRAIN],
)
def test_tables_cannot_be_changed_by_accident(table: np.ndarray) -> None:
    with pytest.raises(ValueError, match="read-only"):
        table[0] = 1
