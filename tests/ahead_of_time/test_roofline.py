"""No kernel gets slower on paper: what its machine code would cost, beside roofline.csv."""

import pytest

from tests.ahead_of_time import budget, roofline
from tests.ahead_of_time.calls import launch_of, launches_of
from tests.ahead_of_time.clocks import pipes
from tests.ahead_of_time.machine_code import Instruction

TABLE = roofline.table()
OTHER = budget.of_another_triton()
KEYS = [
    pytest.param(
        key,
        id=f"{key[0]}-{key[1].images}x{key[1].pixels}",
        marks=[] if key in roofline.DAILY else pytest.mark.slow,
    )
    for key in TABLE
]
KEY = roofline.DAILY[0]
GOOD = TABLE[KEY]


@pytest.mark.skipif(OTHER is not None, reason=OTHER or "")
@pytest.mark.parametrize("key", KEYS)
def test_a_kernel_is_as_fast_on_paper_as_it_was(key: roofline.Key) -> None:
    assert roofline.objections(key, roofline.figures(key), TABLE[key]) == []


def test_the_file_holds_the_daily_cases_and_no_other_than_those_of_every() -> None:
    assert set(roofline.DAILY) <= set(TABLE) <= set(roofline.EVERY)
    assert {case.kernel for case, _ in TABLE} == set(roofline.KERNELS)


def test_the_document_has_the_figures_of_the_file() -> None:
    assert roofline.written(TABLE) == roofline.DOCUMENT.read_text("utf-8")
    slower = TABLE | {KEY: GOOD._replace(h200_percent=7.0, binds="mufu")}
    assert "| mufu 7 (" in roofline.written(slower)


def test_a_figure_that_falls_by_a_tenth_is_told() -> None:
    assert roofline.objections(KEY, GOOD, GOOD) == []
    slower = GOOD._replace(h200_percent=0.9 * GOOD.h200_percent)
    (sentence,) = roofline.objections(KEY, slower, GOOD)
    least = 0.9 * GOOD.h200_percent
    assert f"expected h200_percent above {least:.1f} ({GOOD.h200_percent} in the file)" in sentence
    busier = GOOD._replace(lsu=1.1 * GOOD.lsu + 1.0)
    (sentence,) = roofline.objections(KEY, busier, GOOD)
    assert f"expected lsu below {1.1 * GOOD.lsu + 1.0:.1f} a pixel ({GOOD.lsu} in" in sentence
    assert roofline.COMMAND in sentence


def test_every_map_is_counted_once() -> None:
    """A label has 8 bytes; the gradient of a mean is one number for all pixels."""
    size = roofline.SIZES[0]
    bytes_of = {
        "contrast": 2 * 256 + 8 + 12,
        "contrast_kept": 2 * 256 + 8 + 16,
        "transfer": 2 * 256 + 8 + 4,
        "contrast_backward_features": 4 * 256 + 8 + 8,
        "contrast_backward_prototypes": 2 * 256 + 8 + 8,
        "contrast_backward_both": 4 * 256 + 8 + 8,
        "class_sums": 2 * 256 + 8,
        "class_sums_backward": 2 * 256 + 8,
        "class_sums_backward_normalize": 4 * 256 + 8,
    }
    for kernel, expected in bytes_of.items():
        for layout in ("nchw", "channels_last"):
            case = KEY[0]._replace(kernel=kernel, layout=layout)
            launch = launch_of(case, size.images, size.pixels)
            assert roofline.traffic([launch], size) == expected, (kernel, layout)


def test_logits_that_are_left_are_moved_and_in_no_bound() -> None:
    """Both gradients from them are two launches, which read most maps twice."""
    size = roofline.SIZES[1]
    case = KEY[0]._replace(kernel="contrast_backward_both", channels=720)
    launches = launches_of(case, size.images, size.pixels)
    names = [each.kernel.__name__ for each in launches]
    assert names == ["contrast_backward_kernel", "slope_sums_kernel"]
    read, sums = (roofline.traffic([each], size) for each in launches)
    assert roofline.traffic(launches, size) == read == sums + 2 * 720
    assert roofline.traffic(launches, size, left=True) == read + 4 * 19
    forward = launches_of(case._replace(kernel="contrast_kept"), size.images, size.pixels)
    assert roofline.traffic(forward, size, left=True) == 2 * 720 + 8 + 12 + 4 + 4 * 19


def test_programs_at_once_are_limited_by_each_resource() -> None:
    assert roofline.resident(32, 0, 4) == 16
    assert roofline.resident(168, 0, 4) == 3
    assert roofline.resident(32, 100 * 1024, 4) == 2
    assert roofline.resident(32, 0, 1) == 32


@pytest.mark.parametrize(
    ("line", "pipe", "clocks"),
    [
        (Instruction(None, "STS", ("U16",), ("[R1]", "R2")), "lsu", 1.0),
        (Instruction(None, "LDS", ("128",), ("R4", "[R1]")), "lsu", 4.0),
        (Instruction(None, "LDGSTS", ("E", "BYPASS", "128"), ("[R1]",)), "asked", 512.0),
        (Instruction(None, "FFMA", (), ("R1", "R2", "R3", "R4")), "fma", 0.25),
        (Instruction(None, "LOP3", ("LUT",), ("R1", "R2")), "alu", 0.5),
        (Instruction(None, "UIADD3", (), ("UR1", "UR2")), "alu", 0.0),
        (
            Instruction(None, "HGMMA", ("64x32x16", "F32", "BF16"), ("R24", "gdesc[UR4]", "R24")),
            "tensor",
            4.0,
        ),
        (
            Instruction(None, "HGMMA", ("64x32x16", "F32", "BF16"), ("R24", "R88", "gdesc[UR4]")),
            "lsu",
            32 * 16 * 2 / 4 / 128,
        ),
        (Instruction(None, "HMMA", ("16816", "F32", "BF16"), ("R4", "R8")), "tensor", 1 / 0.6),
    ],
)
def test_what_an_instruction_occupies(line: Instruction, pipe: str, clocks: float) -> None:
    found = pipes(line, idle=False)
    assert found[pipe] == pytest.approx(clocks)
    assert found["issue"] == 0.25


def test_a_copy_without_effect_asks_for_nothing() -> None:
    copy = Instruction(None, "LDGSTS", ("E", "BYPASS", "128"), ("[R1]",))
    assert pipes(copy, idle=True) == {"instructions": 1.0, "issue": 0.25}
