"""Classes at -inf in kernels."""

import pytest

from tests.test_absent_logits import assert_absent_where_a_cell_is
from tests.test_absent_logits import test_a_pixel_without_any_class_is_ignored as without_any_class


@pytest.mark.parametrize(("size", "aligned"), [((3, 4), True), ((6, 8), False)])
def test_upsampled_classes_are_absent_where_a_cell_that_counts_is(
    size: tuple[int, int], aligned: bool
) -> None:
    assert_absent_where_a_cell_is(0, 1.0, size, aligned, "triton")


def test_a_pixel_without_any_class() -> None:
    without_any_class("triton")
