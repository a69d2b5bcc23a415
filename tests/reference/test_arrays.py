"""A set in memory: everything at one size, labels only where the reader has them."""

from pathlib import Path

import pytest
from reference.data.arrays import load_domain
from reference.data.cityscapes import Cityscapes

from reference.data.classes import IGNORE
from tests.reference.small_sets import SIZE, make_cityscapes


@pytest.fixture
def cityscapes(tmp_path: Path) -> Path:
    return make_cityscapes(tmp_path)


def test_images_and_labels_are_scaled(cityscapes: Path) -> None:
    domain = load_domain(Cityscapes(cityscapes, "val", labels=True), (2, 3))
    assert domain.images.shape == (2, 3, 2, 3)
    assert (domain.images == 9).all()
    assert domain.labels is not None
    assert domain.labels.shape == (2, 2, 3)
    assert set(domain.labels.unique().tolist()) <= {0, 18, IGNORE}
    assert domain.stems == ("aachen_000000_000019", "bonn_000000_000019")


def test_a_bar_is_shown_only_when_asked(
    cityscapes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reader = Cityscapes(cityscapes, "val", labels=False)
    load_domain(reader, SIZE)
    assert capsys.readouterr() == ("", "")
    load_domain(reader, SIZE, progress=True)
    assert "Reading images" in capsys.readouterr().err
