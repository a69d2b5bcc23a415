"""Pictures: right colours, strips that are read back, curves in place, names side by side."""

import base64
import io
import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from reference.pictures import strips
from reference.pictures.prototypes import (
    Prototypes,
    alignment,
    cosine_rows,
    place_names,
    planes,
    prototypes_of,
)
from reference.pictures.svg import line_chart, thinned, ticks
from tests.reference.written_runs import COLOURS, bicl_state

RNG = np.random.default_rng(0)


def picture(height: int = 20, width: int = 40) -> np.ndarray:
    return RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)


def strip(legend: dict | None = None, **pictures: np.ndarray) -> strips.StripFile:
    legend = legend or {"road": COLOURS[0], "car": COLOURS[1]}
    return strips.StripFile("target", 12, "aachen_000000", 400, "round 3", pictures, legend)


def test_every_class_has_its_colour_and_unlabelled_is_none_of_them():
    painted = strips.colourise(np.array([[0, 1, 2, 255]], dtype=np.uint8), COLOURS)[0]
    assert list(map(tuple, painted.tolist())) == [*COLOURS, strips.UNLABELLED]


def test_a_map_survives_the_way_into_the_page_and_a_photograph_nearly():
    flat = np.full((16, 16, 3), 90, dtype=np.uint8)
    for pixels, photograph, kind in ((picture(), False, "png"), (flat, True, "jpeg")):
        front, _, data = strips.data_uri(pixels, photograph=photograph).partition(",")
        assert front == f"data:image/{kind};base64"
        back = np.array(Image.open(io.BytesIO(base64.b64decode(data)))).astype(int)
        assert np.abs(back - pixels).max() <= (3 if photograph else 0)


def test_a_strip_is_read_back_as_it_was_drawn(tmp_path: Path):
    drawn = strip(image=picture(), prediction=picture())
    (tmp_path / "a.png").write_bytes(strips.strip_png(drawn))
    read = strips.read_strip(tmp_path / "a.png")
    assert list(read.pictures) == ["image", "prediction"]
    assert all(np.array_equal(read.pictures[name], drawn.pictures[name]) for name in drawn.pictures)
    assert (read.title, read.place, read.legend) == (drawn.title, drawn.place, drawn.legend)
    assert drawn.place == Path("target-12/00000400.png")


def test_the_legend_is_on_the_strip_and_wraps():
    white = np.full((20, 400, 3), 255, dtype=np.uint8)
    pixels = np.array(Image.open(io.BytesIO(strips.strip_png(strip(image=white)))))
    below = pixels[-40:].reshape(-1, 3)
    assert all((below == colour).all(axis=1).sum() > 50 for colour in COLOURS[:2])
    assert not (below == COLOURS[2]).all(axis=1).any()
    many = strip({f"class {n}": (n, 0, 0) for n in range(40)}, image=white)
    assert Image.open(io.BytesIO(strips.strip_png(many))).height > pixels.shape[0] + 80


def test_what_is_no_strip_is_refused(tmp_path: Path):
    path = tmp_path / "a.png"
    Image.fromarray(picture()).save(path)
    for content in (path.read_bytes(), b"no picture"):
        path.write_bytes(content)
        begin = re.escape(f"read_strip: expected a panel of a run, got {path} (")
        with pytest.raises(ValueError, match=rf"^{begin}\w+\)\. Hint: remove the file; the run "):
            strips.read_strip(path)


@pytest.mark.parametrize(
    ("ends", "marks"),
    [((0, 1), [0, 0.2, 0.4, 0.6, 0.8, 1]), ((30, 90), [40, 60, 80]), ((2, 2), [2])],
)
def test_ticks_are_round_and_inside(ends: tuple[float, float], marks: list[float]):
    assert ticks(*ends) == pytest.approx(marks)


def test_a_curve_goes_through_its_points():
    chart = line_chart(
        "A <title>", {"a": ("red", [(0, 0), (10, 50), (20, 100)]), "none": ("blue", [])},
        y_label="%", y_range=(0, 100), marks=[10, 20],
    )  # fmt: skip
    path = re.search(r'--c: red"><title>a</title><path d="M([^"]*)"', chart)
    (x0, y0), (x1, y1), (x2, y2) = (map(float, p.split()) for p in path[1].split("L"))
    assert (x1 - x0, y1 - y0) == pytest.approx((x2 - x1, y2 - y1), abs=0.11)
    assert x1 > x0 and y1 < y0
    assert chart.count('class="mark"') == 1 and chart.count("<circle") == 3
    assert "A &lt;title&gt;" in chart and "none" not in chart


def test_ticks_of_a_learning_rate_differ():
    chart = line_chart("Rate", {"a": ("red", [(0, 2.5e-4), (10, 0)])}, y_label="per step")
    marks = re.findall(r'text-anchor="end">([^<]*)<', chart)
    assert marks == ["0", "5e-5", "1e-4", "1.5e-4", "2e-4", "2.5e-4"]


def test_long_curves_are_thinned_by_means():
    points = [(float(i), float(i % 2)) for i in range(600)]
    assert thinned(points)[0] == (1.0, 0.5) and len(thinned(points)) == 300
    assert thinned(points[:300]) == points[:300]


def test_prototypes_are_those_of_the_state_at_any_depth():
    state = bicl_state(4, front="contrast.")
    moment = prototypes_of({"step": torch.zeros(()), **state})
    assert torch.equal(moment.source, state["contrast.source_bank.prototypes"])
    assert torch.equal(moment.calibrated, moment.source + state["contrast.domain_bias.bias"])
    assert prototypes_of(state, calibrate=False).calibrated is None
    assert prototypes_of({"prototypes": torch.zeros(3, 4)}) is None


def known(source: list[bool], target: list[bool]) -> Prototypes:
    """Three classes at right angles; the target's are those of the source in reverse."""
    rows = torch.eye(3)
    return Prototypes(rows, 2 * rows.flip(0), None, torch.tensor(source), torch.tensor(target))


def test_alignment_by_hand_and_only_of_shared_classes():
    assert alignment(known([True] * 3, [True] * 3)) == pytest.approx((1 / 3, 2 / 3, 1, 3))
    assert alignment(known([True] * 3, [False, True, False])) is None
    classes, cosines = cosine_rows(known([True, False, True], [False, False, True]))
    assert (classes, cosines) == ([0, 2], [[None, 1.0], [None, 0.0]])


def meet(one, other) -> bool:
    """Whether two lines cross: at a share of each within 0..1."""
    (a, b), (c, d) = np.array(one), np.array(other)
    both = np.stack([b - a, c - d], axis=1)
    if abs(np.linalg.det(both)) < 1e-6:
        return False
    shares = np.linalg.solve(both, c - a)
    return bool((shares >= 0).all() and (shares <= 1).all())


@pytest.mark.parametrize("count", [3, 19, 30, 65])
def test_names_cover_neither_each_other_nor_points_nor_the_edge(count: int):
    spots = np.random.default_rng(count).uniform(30, 370, (count, 2))
    placed = place_names({f"class {n}": [spot] for n, spot in enumerate(spots)})
    assert len(placed) == count if count < 20 else len(placed) >= 8
    for (one, first), (other, second) in combinations(placed.values(), 2):
        assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
        assert not (first and second and meet(first, second))
    for name, ((left, top, right, bottom), leader) in placed.items():
        assert min(left, top) >= 0 and max(right, bottom) <= 400
        assert not ((spots > [left, top]) & (spots < [right, bottom])).all(axis=1).any()
        # Without a leader it stands nearest to its own point.
        away = np.linalg.norm(spots - spots.clip([left, top], [right, bottom]), axis=1)
        assert leader or away.argmin() == int(name.split()[1])


def test_moments_share_a_plane_and_one_prototype_has_one():
    moment = prototypes_of(bicl_state(5))
    classes = [(f"class <{n}>", "#123456") for n in range(5)]
    first, second = planes(["a", "a"], [moment, moment], classes)[0]
    assert first == second and "class &lt;4&gt;" in first
    assert first.count("<rect") == 5 and first.count('<circle class="dot"') == 5
    drawn, kept = planes(["b"], [known([True, False, False], [False] * 3)], classes[:3])
    assert drawn[0].count('class="dot"') == 1 and 0 <= kept <= 1
