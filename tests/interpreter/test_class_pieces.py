"""More than 128 classes, of which programs keep the prototypes in pieces."""

from typing import Any

import pytest
import torch

from protocontrast import pixel_prototype_contrast
from protocontrast.kernels.class_pieces import taken_in_pieces, widths_of
from protocontrast.kernels.launch import recorded
from protocontrast.kernels.meta import Meta
from protocontrast.kernels.scores import side_by_side_in
from tests.strategies import ContrastCase


@pytest.mark.parametrize(
    ("classes", "widths"), [(129, [128, 32]), (150, [128, 32]), (160, [128, 32]), (190, [128, 64])]
)
def test_pieces_add_up_to_the_classes_and_less_than_32_more(
    classes: int, widths: list[int]
) -> None:
    assert widths_of(Meta(None, C=classes)) == widths


@pytest.mark.parametrize("classes", [19, 150])
@pytest.mark.parametrize("asked", [widths_of, taken_in_pieces, side_by_side_in])
def test_constants_are_read_from_a_tuple_without_names(asked: Any, classes: int) -> None:
    """Which is what functions get from the interpreter of triton 3.6."""
    meta = Meta(None, "split", C=classes, BLOCK_C=64 if classes == 19 else 256, PROGRAMS=2)
    right = {widths_of: ([32], [128, 32]), taken_in_pieces: (False, True)}
    expected = right.get(asked, (True, False))[classes == 150]
    assert asked(meta) == asked(tuple(meta)) == expected


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("similarity", "classes"), [("cosine", 150), ("dot", 160), ("cosine", 129)]
)
def test_pieces_are_as_exact_as_one(dtype: torch.dtype, similarity: str, classes: int) -> None:
    """Three tiles for two programs; some labels are ignored, some classes absent."""
    shape = 2, 33, 72
    case = ContrastCase(3, shape, classes, dtype=dtype, similarity=similarity, temperature=1.0)
    call = {**case.tensors(), **case.settings, "reduction": "none"}
    with recorded("interpreter") as launches:
        pixel_prototype_contrast(**call, backend="triton")
    (launch,) = (each for each in launches if each.kernel.__name__ == "contrast_kernel")
    assert taken_in_pieces(launch.meta) and launch.programs < 6
    ours = pixel_prototype_contrast(**call, backend="triton")
    wide = {
        k: v.double() if torch.is_tensor(v) and v.is_floating_point() else v
        for k, v in call.items()
    }
    truth = pixel_prototype_contrast(**wide, backend="naive")
    torch.testing.assert_close(ours.double(), truth, rtol=3e-6, atol=3e-6)


@pytest.mark.parametrize(("soft", "similarity"), [(True, "cosine"), (False, "euclidean")])
def test_soft_targets_and_distances_are_taken_whole(soft: bool, similarity: str) -> None:
    case = ContrastCase(3, (1, 33, 16), 150, similarity=similarity)
    call = {**case.tensors(), **case.settings}
    if soft:
        call["labels"] = torch.rand(1, 150, 16)
    with recorded("interpreter") as launches:
        pixel_prototype_contrast(**call, backend="triton")
    (launch,) = (each for each in launches if each.kernel.__name__ == "contrast_kernel")
    assert not taken_in_pieces(launch.meta)
