"""The 19 classes, and lists of your own."""

import json
from pathlib import Path
from typing import Any

import pytest

from reference.data.classes import CITYSCAPES, read_classes

ROAD = {"name": "road", "colour": [1, 2, 3], "ids": [7, 8]}
CAR = {"name": "car", "colour": [4, 5, 6], "ids": [26]}


def test_the_nineteen() -> None:
    assert len(CITYSCAPES) == len(set(CITYSCAPES.names)) == len(set(CITYSCAPES.colours)) == 19
    assert CITYSCAPES.names[0] == "road"
    assert CITYSCAPES.colours[13] == (0, 0, 142)
    assert [(name, len(over)) for name, over in CITYSCAPES.means.items()] == [
        ("miou19", 19), ("miou16", 16), ("miou13", 13)
    ]  # fmt: skip
    without = {CITYSCAPES.names[c] for c in set(range(19)) - set(CITYSCAPES.means["miou13"])}
    assert without == {"wall", "fence", "pole", "terrain", "truck", "train"}
    # Merging is done all at once.
    table = CITYSCAPES.merge_table(["road=sidewalk", "sidewalk=building"])
    assert table[[0, 1, 2, 255]].tolist() == [1, 2, 2, 255]


def _read(folder: Path, content: Any) -> Any:
    path = folder / "classes.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return read_classes(path)


def test_own_classes(tmp_path: Path) -> None:
    classes = _read(tmp_path, [ROAD, {**CAR, "label_colours": [[9, 9, 9]]}])
    assert classes.names == ("road", "car")
    assert classes.ids == ((7, 8), (26,))
    assert classes.label_colours == ((), ((9, 9, 9),))
    assert classes.means == {"miou2": (0, 1)}


@pytest.mark.parametrize(("content", "told"), [
    ("{", "to be a JSON file"),
    ({"road": 1}, "to list 1 to 255 classes, got dict"), ([], "got 0 entries"),
    ([{**ROAD, "name": 3}], 'class 0 a "name"'),
    ([{"name": f"{n}", "colour": [n % 256, 0, 0], "ids": [n]} for n in range(256)], "got 256"),
    ([{**ROAD, "name": ""}], 'class 0 a "name"'),
    ([ROAD, {**CAR, "name": "road"}], "each name once, got road for road and road"),
    ([ROAD, {**CAR, "ids": [8]}], "each id once, got 8 for road and car"),
    ([{**ROAD, "ids": [-1]}], "numbers 0..65535"), ([{**ROAD, "ids": 7}], "a list of numbers"),
    ([{**ROAD, "colour": [0, 0, 256]}], "three numbers 0..255"),
    ([{"name": "road", "ids": [1]}], "three numbers 0..255"),
    ([{**ROAD, "label_colours": [1, 2, 3]}], "a list of colours"), ([{**ROAD, "id": 3}], 'no "id"'),
])  # fmt: skip
def test_lists_that_are_not_whole_are_a_sentence(tmp_path: Path, content: Any, told: str) -> None:
    with pytest.raises(ValueError, match=r"^classes: expected .*classes\.json") as caught:
        _read(tmp_path, content)
    assert told in str(caught.value)
    with pytest.raises(ValueError, match="got No such file"):
        read_classes(tmp_path / "none.json")
