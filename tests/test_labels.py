"""`fuse_labels` and `labels_to_grid`: against loops, torch's own maps and hand-worked cells."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import interpolate

from protocontrast import check_labels, fuse_labels, labels_to_grid, naive
from tests.strategies import LABEL_DTYPES, label_map, laid_out, layouts, seeds

Drawn = tuple[Tensor, int, tuple[int, ...]]


@st.composite
def label_maps(draw: st.DrawFn) -> Drawn:
    """(B, H, W) or (B, Z, H, W) labels of any dtype and layout, their ignore value, and a grid."""
    dtype, ignore_index = draw(st.sampled_from(LABEL_DTYPES))
    sides = draw(st.sampled_from([(17, 17), (17, 17), (7, 7, 7)]))
    shape = draw(st.integers(0, 2)), *(draw(st.integers(1, side)) for side in sides)
    labels = label_map(draw(seeds), shape, 3, "mixed", dtype, ignore_index)
    grid = tuple(draw(st.integers(1, min(side, 9))) for side in sides)
    return laid_out(labels, draw(layouts)), ignore_index, grid


@given(drawn=label_maps())
def test_nearest_is_torch_downsampling(drawn: Drawn) -> None:
    labels, ignore_index, grid = drawn
    found = labels_to_grid(labels, grid, ignore_index=ignore_index)
    expected = interpolate(labels.double()[:, None], size=grid, mode="nearest")[:, 0]
    assert found.dtype == torch.int64
    assert torch.equal(found.double(), expected)


@given(drawn=label_maps())
def test_counts_are_counted(drawn: Drawn) -> None:
    labels, ignore_index, grid = drawn
    found = labels_to_grid(labels, grid, mode="counts", num_classes=4, ignore_index=ignore_index)
    wide = labels.long()
    known = torch.where(wide == ignore_index, -1, wide)
    assert found.dtype == torch.float32
    assert found.shape == (len(labels), 4, *grid)
    assert torch.equal(found, naive.label_counts(known, 4, *grid))
    assert found.sum().item() == (known >= 0).sum().item()


@given(drawn=label_maps(), min_share=st.sampled_from([0.0, 0.25, 1 / 3, 0.5, 0.75, 1.0]))
def test_majority_is_taken_among_all_pixels_of_a_cell(drawn: Drawn, min_share: float) -> None:
    labels, ignore_index, grid = drawn
    settings: dict[str, Any] = {"num_classes": 3, "ignore_index": ignore_index}
    found = labels_to_grid(labels, grid, mode="majority", min_share=min_share, **settings)
    counts = labels_to_grid(labels, grid, mode="counts", **settings)
    everywhere = torch.zeros(labels.shape, dtype=torch.int64)
    pixels = labels_to_grid(everywhere, grid, mode="counts", num_classes=1)[:, 0]
    most, largest = counts.max(dim=1)
    kept = (most > 0) & (most.double() / pixels.double() >= min_share)
    assert found.dtype == torch.int64
    assert torch.equal(found, torch.where(kept, largest, ignore_index))


def test_majority_by_hand() -> None:
    # Cells of 2 x 2 pixels: three of one class, a tie, half ignored, all ignored.
    labels = torch.tensor(
        [[[1, 1, 2, 0, 1, 255, 255, 255], [1, 0, 0, 2, 255, 1, 255, 255]]], dtype=torch.uint8
    )

    def majority(min_share: float) -> list[int]:
        found = labels_to_grid(labels, (1, 4), mode="majority", num_classes=3, min_share=min_share)
        return found[0, 0].tolist()

    assert majority(0.75) == [1, 255, 255, 255]
    assert majority(0.76) == [255, 255, 255, 255]
    assert majority(0.5) == [1, 0, 1, 255]
    assert majority(0.0) == [1, 0, 1, 255]


def test_a_grid_finer_than_the_labels() -> None:
    labels = torch.tensor([[[0, 1]]])
    assert labels_to_grid(labels, (2, 4)).tolist() == [[[0, 0, 1, 1], [0, 0, 1, 1]]]
    # Upsampling reads few of the cells: the others hold no pixel.
    counts = labels_to_grid(labels, (2, 4), mode="counts", num_classes=2)
    assert counts.sum().item() == 2
    assert counts[0, 0, 0].tolist() == [1, 0, 0, 0]
    assert counts[0, 1, 0].tolist() == [0, 0, 1, 0]
    majority = labels_to_grid(labels, (2, 4), mode="majority", num_classes=2)
    assert majority.tolist() == [[[0, 255, 1, 255], [255] * 4]]


def test_the_released_sizes_use_torchs_map_not_a_division() -> None:
    rows = torch.arange(730)[None, :, None].expand(1, 730, 730) % 92
    counts = labels_to_grid(rows, (92, 92), mode="counts", num_classes=92)
    found = counts.sum(dim=(0, 1)).sum(dim=1) / 730
    divided = [sum(1 for i in range(730) if i * 92 // 730 == cell) for cell in range(92)]
    differing = [cell for cell in range(92) if found[cell] != divided[cell]]
    # One row of 730 falls into another cell than the division says, so two cells differ.
    assert len(differing) == 2
    assert found.sum() == 730


@given(drawn=label_maps())
def test_the_same_size_is_the_same_map(drawn: Drawn) -> None:
    labels, ignore_index, _ = drawn
    labels = labels.contiguous()
    found = labels_to_grid(labels, tuple(labels.shape[1:]), ignore_index=ignore_index)
    assert torch.equal(found, labels.long())
    found.fill_(7)
    assert not (labels == 7).any()


def test_size_may_be_any_pair() -> None:
    labels = label_map(0, (1, 6, 6), 3)
    expected = labels_to_grid(labels, (2, 3))
    for size in ([2, 3], torch.Size([2, 3]), torch.ones(1, 5, 2, 3).shape[2:]):
        assert torch.equal(labels_to_grid(labels, size), expected)


@given(data=st.data(), count=st.integers(0, 3))
def test_the_first_valid_label_wins(data: st.DataObject, count: int) -> None:
    ignore_index = data.draw(st.sampled_from([255, -100, 1]))
    drawn = [
        label_map(data.draw(seeds), (3, 5), 3, "mixed", torch.int16, ignore_index)
        for _ in range(count + 1)
    ]
    expected = drawn[0].long()
    for other in drawn[1:]:
        expected = naive.fuse_labels(expected, other.long(), ignore_index)
    found = fuse_labels(*drawn, ignore_index=ignore_index)
    assert found.dtype == torch.int64
    assert torch.equal(found, expected)


def test_fusion_mixes_dtypes() -> None:
    base = torch.tensor([0, 255, 255], dtype=torch.uint8)
    other = torch.tensor([9, 0, 255], dtype=torch.int32)
    last = torch.tensor([9, 9, 2], dtype=torch.uint16)
    assert fuse_labels(base, other, last).tolist() == [0, 0, 2]


def test_a_share_is_of_all_pixels_of_the_cell() -> None:
    for hundredths in range(1, 100):
        labels = torch.full((1, 10, 10), 255)
        labels.view(-1)[:hundredths] = 1
        share = hundredths / 100
        for min_share, label in [(share, 1), (math.nextafter(share, 1.0), 255)]:
            found = labels_to_grid(
                labels, (1, 1), mode="majority", num_classes=2, min_share=min_share
            )
            assert found.item() == label


@pytest.mark.parametrize(
    ("labels", "num_classes", "ignore_index"),
    [
        (torch.zeros(2, 4, 6).long(), 1, 255),
        (torch.tensor([0, 2, 255], dtype=torch.uint8), 3, 255),
        (torch.tensor([-100, 2]), 3, -100),
        (torch.tensor([5, 5], dtype=torch.int8), 1, 5),
        (torch.zeros(0, dtype=torch.int32), 1, 255),
        (torch.tensor(1), 2, 255),
    ],
)
def test_right_labels_pass(labels: torch.Tensor, num_classes: int, ignore_index: int) -> None:
    check_labels(labels, num_classes, ignore_index=ignore_index)
