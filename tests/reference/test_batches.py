"""Batches: the same bits with any workers, ranks and start; broken images left out by name."""

import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reference.data.batches import Batch, batches, over, passes
from reference.data.cuts import Order, Window, draw_window, require_cut
from reference.data.files import DataError
from reference.data.image_set import ImageSet
from reference.data.rare_classes import RareClassSampler, class_counts
from reference.data.sets import Sets
from reference.data.settings import Colours, Crops, DataSettings, RareClasses
from tests.reference.trees import fill, make, save_image, save_labels, save_values

COLOURS = Colours(probability=0.8, gamma=0.3, noise=0.05, blur_probability=0.5)
CROPS = Crops(size=None, short_side=(12, 14), scale=(0.9, 1.2), crop=(8, 10), colours=COLOURS)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sets")
    layout = make(folder / "gta5", "gta5", count=5)
    # One image shows motorcycles alone, and no other does.
    for number in range(5):
        path = folder / "gta5" / f"{fill(layout.labels[0].pattern, 'train', number)}.png"
        save_labels(path, layout.labels[0], [32] if number == 2 else [7, 8, 26])
    acdc = make(folder / "acdc", "acdc", count=5, labels=False)
    for number in range(5):
        save_image(folder / "acdc" / f"{fill(acdc.partner, 'train', number)}.png", number)
    return folder


@pytest.fixture
def sets(root: Path) -> Any:
    return Sets(DataSettings(root=root, target_set="acdc"))


def _run(images: ImageSet, crops: Crops = CROPS, **changes: Any) -> list[Batch]:
    usual = {"seed": 0, "stream": 0, "start": 0, "stop": 6, "batch_size": 2}
    return list(batches(images, crops, **{**usual, **changes}))


def _same(first: list[Batch], again: list[Batch]) -> bool:
    return len(first) == len(again) and all(
        (a is None and b is None) or torch.equal(a, b)
        for one, other in zip(first, again, strict=True)
        for a, b in zip(one, other, strict=True)
    )


def test_a_batch_is_images_labels_and_numbers(sets: Any) -> None:
    (first, *_) = _run(sets.source)
    assert first.images.shape == (2, 3, 8, 10)
    assert first.images.dtype == torch.float32
    assert 0 <= first.images.min() <= first.images.max() <= 1
    assert first.labels.shape == (2, 8, 10)
    assert first.labels.dtype == first.indices.dtype == torch.int64
    assert first.partners is _run(sets.target)[0].labels is None


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("start", [0, 4])
def test_workers_and_a_resume_change_no_bit(sets: Any, workers: int, start: int) -> None:
    assert _same(_run(sets.source)[start:], _run(sets.source, workers=workers, start=start))


def test_ranks_change_no_bit(sets: Any) -> None:
    both = [_run(sets.target, batch_size=1, rank=rank, world=2) for rank in (0, 1)]
    joined = [
        Batch(*(None if a is None else torch.cat([a, b]) for a, b in zip(*pair, strict=True)))
        for pair in zip(*both, strict=True)
    ]
    assert _same(_run(sets.target), joined)


def test_no_random_state_is_read_or_changed(sets: Any) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = _run(sets.source)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    np.random.seed(5)
    assert _same(first, _run(sets.source))
    assert not _same(first, _run(sets.source, seed=1))


def test_day_images_are_cut_as_their_nights(sets: Any) -> None:
    plain = replace(CROPS, colours=Colours())
    for batch in _run(sets.target, plain):
        assert torch.equal(batch.partners, batch.images)


def test_static_labels_are_cut_as_their_images(sets: Any, tmp_path: Path) -> None:
    for number, stem in enumerate(sets.target.stems):
        red = sets.target.image(number)[..., 0]
        save_values(tmp_path / f"{stem}.png", np.where(red < 19, red, 255).astype(np.uint8))
    crops = Crops(size=(8, 12), crop=(6, 8))
    for batch in _run(sets.target, crops, static=tmp_path, workers=1):
        red = (batch.images[:, 0] * 255).round().long()
        assert torch.equal(batch.labels, torch.where(red < 19, red, 255))
    (tmp_path / f"{sets.target.stems[0]}.png").unlink()
    with pytest.raises(ValueError, match=f"expected .*{sets.target.stems[0]}.png to be a picture"):
        _run(sets.target, crops, static=tmp_path, workers=1)


def test_rare_classes_are_shown_by_their_crops(sets: Any, tmp_path: Path) -> None:
    counts = class_counts(sets.source, tmp_path)
    often = RareClasses(min_pixels=10, temperature=0.05)
    rare = RareClassSampler(counts, often)
    drawn = _run(sets.source, rare=rare, stop=20)
    shown = sum(17 in batch.labels for batch in drawn if batch.labels is not None)
    assert shown >= 10
    assert _same(drawn, _run(sets.source, rare=rare, stop=20, workers=2))
    half = RareClassSampler(counts, replace(often, share=0.5))
    assert 0 < sum(17 in batch.labels for batch in _run(sets.source, rare=half, stop=20)) < shown


@pytest.fixture
def broken(tmp_path: Path) -> ImageSet:
    layout = make(tmp_path / "gta5", "gta5", count=5)
    for number, damage in ((1, b""), (3, b"<html>")):
        path = tmp_path / "gta5" / f"{fill(layout.images[0], 'train', number)}.png"
        path.write_bytes(damage)
    return Sets(DataSettings(root=tmp_path)).source


@pytest.mark.parametrize("workers", [0, 2])
def test_broken_images_are_named_once_and_replaced(broken: ImageSet, workers: int) -> None:
    told: list[str] = []
    drawn = _run(broken, skip=told.append, workers=workers, stop=10)
    assert len(drawn) == 10
    assert {int(i) for batch in drawn for i in batch.indices} == {0, 2, 4}
    assert len(told) == 2
    assert sorted(broken.bad) == [1, 3]
    assert any("0000001.png" in sentence and "0 bytes" in sentence for sentence in told)
    assert _same(drawn[4:], _run(broken.part(range(5)), start=4, stop=10))


def test_strips_that_would_become_too_long_are_left_out_as_broken_ones_are(tmp_path: Path) -> None:
    for number in range(3):
        shape = (3, 200) if number == 1 else (8, 12)
        save_image(tmp_path / "images" / f"{number}.png", number, shape)
        save_values(tmp_path / "labels" / f"{number}.png", np.zeros(shape, dtype=np.uint8))
    (tmp_path / "classes.json").write_text('[{"name": "road", "colour": [0, 0, 0], "ids": [0]}]')
    own = DataSettings(
        "own", "own", source=tmp_path / "images", source_labels=tmp_path / "labels",
        classes=tmp_path / "classes.json",
    )  # fmt: skip
    told: list[str] = []
    images = Sets(own).source
    strips = replace(CROPS, short_side=(8, 400))
    drawn = _run(images, strips, skip=told.append, stop=3)
    assert {int(i) for batch in drawn for i in batch.indices} == {0, 2}
    whole = passes(Sets(own).source, (400, 0), range(3), skip=told.append)
    assert [int(batch.indices) for batch in whole] == [0, 2]
    assert len(told) == 2 and all("1.png to have sides of at most 16384 p" in one for one in told)


def test_too_many_broken_images_end_the_run(broken: ImageSet) -> None:
    with pytest.raises(DataError, match=r"2 images of GTA5 are broken, and data\.max_bad is 1"):
        _run(broken, max_bad=1, stop=10)
    with pytest.raises(DataError, match="No whole image followed"):
        _run(broken.part([1, 3]))


def test_passes_show_every_image_once_at_one_size(sets: Any, broken: ImageSet) -> None:
    shown = list(passes(sets.source, (4, 6), range(5)))
    assert torch.cat([batch.indices for batch in shown]).tolist() == [0, 1, 2, 3, 4]
    assert shown[0].images.shape == (1, 3, 4, 6)
    assert shown[0].labels.shape == (1, 4, 6)
    assert all(batch.labels is None for batch in passes(sets.target, (4, 6), range(5)))
    told: list[str] = []
    left = passes(broken, (4, 6), range(5), skip=told.append)
    assert [int(batch.indices) for batch in left] == [0, 2, 4]
    assert len(told) == 2


def test_images_in_memory_give_the_same_batches(root: Path) -> None:
    data = DataSettings(root=root, target_set="acdc", cache_mib=4)
    kept = Sets(data).source
    assert _same(_run(kept), _run(Sets(replace(data, cache_mib=0)).source))
    assert _same(_run(kept), _run(kept))


def _square(number: int) -> int:
    if number == 30:
        raise DataError("thirty")
    return number * number


@pytest.mark.parametrize("workers", [0, 2])
def test_work_over_files_keeps_its_order_and_its_errors(workers: int) -> None:
    work = partial(over, _square, title="", workers=workers, progress=False)
    assert list(work(count=20)) == [number * number for number in range(20)]
    with pytest.raises(DataError, match=r"^thirty$"):
        list(work(count=40))
    assert list(work(count=0)) == []


def test_an_error_beside_workers_ends_the_process() -> None:
    # The name keeps the workers, which are deaf to what Python ends them with.
    code = "from reference.data.batches import over\n"
    code += "held = over(abs, 10**6, '', workers=2, progress=False)\nnext(held)\n1 / 0"
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=100)
    assert ended.stderr.splitlines()[-1] == "ZeroDivisionError: division by zero"


def test_photographs_of_several_sizes_share_a_batch(tmp_path: Path) -> None:
    for number, size in enumerate([(20, 30), (9, 9), (50, 12)]):
        name = f"{number}_leftImg8bit.png"
        save_image(tmp_path / "cityscapes" / "leftImg8bit" / "train" / "x" / name, size=size)
    target = Sets(DataSettings(root=tmp_path)).target
    assert _run(target)[0].images.shape == (2, 3, 8, 10)


ORDER = Order(count=7, seed=3, stream=0, start=0, stop=12, batch_size=2)


def test_every_image_comes_once_an_epoch() -> None:
    images = [key.image for keys in replace(ORDER, stop=7) for key in keys]
    assert sorted(images[:7]) == sorted(images[7:]) == list(range(7))
    assert images[:7] != images[7:]


@pytest.mark.parametrize("change", [{"seed": 4}, {"stream": 1}])
def test_seeds_and_streams_differ(change: dict[str, int]) -> None:
    other = replace(ORDER, **change)
    assert list(other) != list(ORDER)
    key = ORDER.key(3, 1)
    assert other.generator(key).random() != ORDER.generator(key).random()
    assert ORDER.generator(key).random() == replace(ORDER, start=3).generator(key).random()


SCALED = Crops(size=(40, 60), scale=(0.5, 2.0), crop=(16, 24))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), height=st.integers(5, 90), width=st.integers(5, 90))
def test_windows_lie_inside_and_labels_are_cut_alike(seed: int, height: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    for crops in (SCALED, replace(SCALED, size=None, short_side=(20, 50))):
        window = draw_window((height, width), crops, rng)
        assert 0 <= window.top <= window.size[0] - 16
        assert 0 <= window.left <= window.size[1] - 24
        labels = rng.integers(0, 19, (height, width), dtype=np.uint8)
        cut = window.labels(labels)
        assert cut.shape == (16, 24)
        assert set(np.unique(cut)) <= set(np.unique(labels))
    whole = Window((height, width), 0, 0, (height, width), True)
    np.testing.assert_array_equal(whole.labels(labels), labels[:, ::-1])
    image = whole.image(labels[..., None].repeat(3, -1))
    np.testing.assert_array_equal(image[..., 0], labels[:, ::-1])
    column = Window((height, width), 0, 0, (height, 1), True)
    assert min(column.labels(labels).strides + column.image(image).strides) > 0


def test_a_strip_that_a_cut_may_make_too_long_is_refused_by_name() -> None:
    crops = Crops(size=None, short_side=(64, 512), scale=(0.5, 2.0), crop=(16, 24))
    told = "to have sides of at most 16384 pixels at a short side of 512 times 2, got 200x3, which "
    with pytest.raises(DataError, match=rf"expected a\.png {told}becomes 68267x1024\. Hint: leave"):
        require_cut(Path("a.png"), (3, 200), crops)
    require_cut(Path("a.png"), (3, 40), crops)
    require_cut(Path("a.png"), (3, 200), replace(crops, short_side=(16, 64), scale=(1.0, 2.0)))
    # A crop that is larger makes the image longer.
    told = "at a short side of 64, got 200x3, which becomes 34133x512"
    with pytest.raises(DataError, match=told):
        require_cut(Path("a.png"), (3, 200), Crops(size=None, short_side=(8, 64)))


def test_the_short_side_keeps_the_aspect() -> None:
    crops = replace(SCALED, scale=(1.0, 1.0), size=None, short_side=(30, 30))
    assert draw_window((60, 90), crops, np.random.default_rng(0)).size == (30, 45)
