"""The reader of a prepared copy: labels only where they were made, every damage named."""

from pathlib import Path

import pytest
from reference.data.prepared import Prepared, manifest_path, read_manifest

from reference.prepare import Options, prepare
from tests.reference.small_sets import first_label, make_cityscapes, make_gta5


@pytest.fixture
def half(tmp_path: Path) -> Path:
    sets = {
        "gta5": make_gta5(tmp_path / "gta5"),
        "cityscapes": make_cityscapes(tmp_path / "cityscapes"),
    }
    prepare(Options(**sets, out=tmp_path / "half", workers=0), progress=False)
    return tmp_path / "half"


def test_labels_that_were_not_prepared_are_refused(half: Path) -> None:
    folder = half / "cityscapes"
    with pytest.raises(ValueError) as caught:
        Prepared(folder, "train")
    assert str(caught.value) == (
        f"Prepared: expected labels of train in {folder}, got a copy without. Hint: prepare the "
        "set into another folder with --labels."
    )
    reader = Prepared(folder, "val", labels=False)
    assert reader.label_files == ()
    with pytest.raises(ValueError) as caught:
        reader.labels(0)
    assert str(caught.value) == (
        "Prepared.labels: expected a reader made with labels=True, got labels=False."
    )


def test_a_split_that_was_not_prepared_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError) as caught:
        Prepared(tmp_path, "val")
    assert str(caught.value) == (
        f"Prepared: expected {tmp_path / 'prepared_val.json'} to be a manifest, got none. "
        "Hint: the split was not prepared there; run python -m reference.prepare."
    )


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"pairs": [1]}', '{"pairs": []}'])
def test_a_damaged_manifest_is_named(tmp_path: Path, content: str) -> None:
    path = manifest_path(tmp_path, "train")
    path.write_text(content)
    with pytest.raises(ValueError) as caught:
        read_manifest(tmp_path, "train")
    assert str(caught.value) == (
        f"Prepared: expected {path} to be a manifest, got a damaged file. "
        "Hint: another program has changed it; prepare the set into a new folder."
    )


def test_a_damaged_copy_is_named(half: Path) -> None:
    path = first_label(half / "gta5")
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"^Prepared\.labels: expected .*00001\.png to be a pic"):
        Prepared(half / "gta5").labels(0)
