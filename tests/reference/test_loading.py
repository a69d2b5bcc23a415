"""Batches of real sets: keyed, the same from any start and with any workers, ranks disjoint."""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from reference.data.cityscapes import Cityscapes
from reference.data.crops import SourceCrops, TargetCrops
from reference.data.gta5 import GTA5
from reference.data.index import index_of
from reference.data.loading import SourceBatch, TargetBatch, source_batches, target_batches
from reference.data.order import Batching
from reference.data.readers import ImageReader, Reader
from reference.data.resizing import Resize

from reference.data.colour import ColourJitter
from reference.data.rare_classes import RareClasses, RareClassSampler
from tests.reference.small_sets import make_cityscapes, save_ids

COUNT, HEIGHT, WIDTH = 5, 12, 20
SOURCE = SourceCrops(Resize(short_side=(12, 14)), (0.9, 1.2), (8, 10), colour=ColourJitter())
TARGET = TargetCrops(Resize(size=(12, 20)), (1.0, 1.3), (8, 10))


def _photograph(path: Path, seed: int) -> np.ndarray:
    pixels = np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> GTA5:
    root = tmp_path_factory.mktemp("gta5")
    for number in range(COUNT):
        _photograph(root / "images" / f"0000{number}.png", number)
        ids = [7, 8, 26] if number else [33]
        save_ids(root / "labels" / f"0000{number}.png", ids, palette=True, size=(HEIGHT, WIDTH))
    return GTA5(root)


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Cityscapes:
    root = tmp_path_factory.mktemp("cityscapes")
    for number in range(COUNT):
        name = f"ulm_{number:06d}_000019_leftImg8bit.png"
        _photograph(root / "leftImg8bit" / "train" / "ulm" / name, number)
    return Cityscapes(root, "train", labels=False)


@pytest.fixture(scope="module")
def static(target: Cityscapes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pseudo labels that repeat the red channel, so that a cut of both can be compared."""
    folder = tmp_path_factory.mktemp("static")
    for number, stem in enumerate(target.stems):
        red = target.image(number)[..., 0]
        Image.fromarray(np.where(red < 19, red, 255).astype(np.uint8)).save(folder / f"{stem}.png")
    return folder


SIX = Batching(seed=0, start=0, stop=6, batch_size=2)


def _source(
    reader: Reader, rare: RareClassSampler | None = None, **changes: Any
) -> list[SourceBatch]:
    return list(source_batches(reader, SOURCE, replace(SIX, **changes), rare=rare))


def _target(reader: ImageReader, static: Path | None = None, **changes: Any) -> list[TargetBatch]:
    return list(target_batches(reader, TARGET, replace(SIX, **changes), static=static))


def _same(first: list, again: list) -> bool:
    return len(first) == len(again) and all(
        torch.equal(a, b) if a is not None else b is None
        for one, other in zip(first, again, strict=True)
        for a, b in zip(one, other, strict=True)
    )


def test_types_shapes_and_range(source: GTA5, target: Cityscapes) -> None:
    batch = _source(source)[0]
    assert batch.images.shape == (2, 3, 8, 10) and batch.images.dtype == torch.float32
    assert batch.images.min() >= 0 and batch.images.max() <= 1 and batch.images.std() > 0.1
    assert batch.labels.shape == (2, 8, 10) and batch.labels.dtype == torch.int64
    assert set(batch.labels.unique().tolist()) <= {0, 1, 13, 18}
    assert batch.indices.shape == (2,) and batch.indices.dtype == torch.int64
    unlabelled = _target(target)[0]
    assert unlabelled._fields == ("images", "indices", "static")
    assert unlabelled.images.shape == (2, 3, 8, 10)
    assert unlabelled.static is None


@pytest.mark.parametrize("start", [1, 4])
def test_starting_later_gives_the_same_batches(
    source: GTA5, target: Cityscapes, static: Path, start: int
) -> None:
    assert _same(_source(source, start=start), _source(source)[start:])
    later = _target(target, start=start, static=static)
    assert _same(later, _target(target, static=static)[start:])


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(
    source: GTA5, target: Cityscapes, static: Path, workers: int
) -> None:
    assert _same(_source(source, workers=workers), _source(source))
    read = _target(target, workers=workers, static=static)
    assert _same(read, _target(target, static=static))


def test_batches_differ_by_iteration_and_seed(source: GTA5) -> None:
    batches = _source(source)
    assert not torch.equal(batches[0].images, batches[1].images)
    assert not _same(batches, _source(source, seed=1))


def test_ranks_divide_the_batches_of_one_rank(source: GTA5, target: Cityscapes) -> None:
    for draw, reader in ((_source, source), (_target, target)):
        union = draw(reader, batch_size=4)
        ranks = [draw(reader, rank=rank, world=2) for rank in (0, 1)]
        for whole, *parts in zip(union, *ranks, strict=True):
            assert torch.equal(torch.cat([part.images for part in parts]), whole.images)
            assert torch.equal(torch.cat([part.indices for part in parts]), whole.indices)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("workers", [0, 2])
def test_global_random_state_is_neither_read_nor_changed(source: GTA5, workers: int) -> None:
    before = (torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate())
    first = _source(source, workers=workers)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()
    assert random.getstate() == before[2]
    torch.manual_seed(9)
    np.random.seed(9)
    random.seed(9)
    assert _same(first, _source(source, workers=workers))


def test_images_without_colour_are_the_files_cut(source: GTA5, target: Cityscapes) -> None:
    crops = SourceCrops(Resize(size=(HEIGHT, WIDTH)), crop=None, flip=0.0)
    for batch in source_batches(source, crops, replace(SIX, stop=3)):
        for image, labels, index in zip(*batch, strict=True):
            number = int(index)
            expected = torch.from_numpy(source.image(number)).permute(2, 0, 1) / 255
            assert torch.equal(image, expected)
            assert torch.equal(labels, torch.from_numpy(source.labels(number)).long())


def test_colour_changes_images_and_nothing_else(source: GTA5) -> None:
    plain = SourceCrops(SOURCE.resize, SOURCE.scale, SOURCE.crop)
    without = list(source_batches(source, plain, replace(SIX, stop=4)))
    for changed, kept in zip(_source(source), without, strict=False):
        assert torch.equal(changed.labels, kept.labels)
        assert torch.equal(changed.indices, kept.indices)
        assert not torch.equal(changed.images, kept.images)


def test_static_labels_are_cut_and_mirrored_as_their_images(
    target: Cityscapes, static: Path
) -> None:
    crops = TargetCrops(Resize(size=(HEIGHT, WIDTH)), crop=(8, 10))
    labelled = 0
    for batch in target_batches(target, crops, replace(SIX, stop=20), static=static):
        assert batch.static is not None and batch.static.dtype == torch.int64
        red = (batch.images[:, 0] * 255).round().long()
        assert torch.equal(batch.static, torch.where(red < 19, red, 255))
        labelled += int((batch.static != 255).sum())
    assert labelled > 100


def test_static_labels_of_another_size_are_scaled(target: Cityscapes, tmp_path: Path) -> None:
    for stem in target.stems:
        save_ids(tmp_path / f"{stem}.png", [4], palette=False, size=(6, 10))
    for batch in _target(target, static=tmp_path):
        assert batch.static is not None
        assert batch.static.shape == (2, 8, 10) and (batch.static == 4).all()


def test_images_of_rare_classes_are_drawn(source: GTA5, tmp_path: Path) -> None:
    rare = RareClassSampler(index_of(source, tmp_path), RareClasses(min_pixels=40))
    assert rare.probabilities[18] > 0.99
    batches = _source(source, stop=30, rare=rare)
    assert {int(index) for batch in batches for index in batch.indices} == {0}
    assert all((batch.labels == 18).all() for batch in batches)
    assert len({int(index) for batch in _source(source) for index in batch.indices}) == COUNT
    assert _same(_source(source, start=20, stop=30, rare=rare), batches[20:])


def test_crops_are_moved_until_they_show_the_class(tmp_path: Path) -> None:
    root = tmp_path / "gta5"
    _photograph(root / "images" / "00001.png", 0)
    labels = np.full((HEIGHT, WIDTH), 7, dtype=np.uint8)
    labels[:3, :3] = 33
    (root / "labels").mkdir()
    Image.fromarray(labels).save(root / "labels" / "00001.png")
    reader = GTA5(root)
    crops = SourceCrops(Resize(size=(HEIGHT, WIDTH)), crop=(4, 4))
    share = {}
    for tries in (1, 100):
        settings = RareClasses(min_pixels=4, min_crop_share=1.0, max_crops=tries)
        rare = RareClassSampler(index_of(reader, tmp_path), settings)
        assert rare.probabilities[18] > 0.99
        shown = [
            int((batch.labels == 18).sum()) >= 4
            for batch in source_batches(
                reader, crops, Batching(seed=0, start=0, stop=20, batch_size=1), rare=rare
            )
        ]
        share[tries] = np.mean(shown)
    assert share[1] < 0.3 and share[100] > 0.8


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_file_is_told_in_its_own_sentence(tmp_path: Path, workers: int) -> None:
    root = make_cityscapes(tmp_path)
    reader = Cityscapes(root, "train", labels=False)
    path = reader.image_files[0]
    path.write_bytes(b"")
    with pytest.raises(ValueError) as caught:
        _target(reader, workers=workers)
    assert str(caught.value) == (
        f"Cityscapes.image: expected {path} to be a picture, got 0 bytes. "
        "Hint: the file was not written to its end; unpack or download it again."
    )


def test_a_broken_source_file_is_told_in_its_own_sentence(tmp_path: Path) -> None:
    root = make_cityscapes(tmp_path)
    reader = Cityscapes(root, "train", labels=True)
    reader.label_files[0].write_bytes(b"")
    with pytest.raises(ValueError, match=r"^Cityscapes\.labels: expected .* got 0 bytes\."):
        _source(reader)


def test_missing_static_labels_are_named(target: Cityscapes, tmp_path: Path) -> None:
    with pytest.raises(ValueError) as caught:
        _target(target, static=tmp_path)
    assert str(caught.value).startswith(f"target_batches: expected {tmp_path / 'ulm_'}")
    assert str(caught.value).endswith(
        "_000019.png to hold pseudo labels, got none. Hint: the folder is of another set, or not "
        "complete; make them for every image."
    )


def test_a_target_with_labels_is_refused_at_once(tmp_path: Path) -> None:
    reader = Cityscapes(make_cityscapes(tmp_path), "train", labels=True)
    with pytest.raises(ValueError) as caught:
        target_batches(reader, TARGET, SIX)
    assert str(caught.value) == (
        "target_batches: expected a reader without labels, got Cityscapes with labels. "
        "Hint: make it with labels=False, so that no ground truth can be read."
    )


def test_a_source_without_labels_is_refused_at_once(target: Cityscapes) -> None:
    with pytest.raises(ValueError) as caught:
        source_batches(target, SOURCE, SIX)
    assert str(caught.value) == (
        "source_batches: expected a reader with labels, got Cityscapes without."
    )


def test_wrong_numbers_are_refused_at_once(source: GTA5) -> None:
    with pytest.raises(ValueError, match=r"^Order: expected batch_size of at least 1, got 0\.$"):
        source_batches(source, SOURCE, replace(SIX, batch_size=0))
