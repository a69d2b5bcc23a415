"""Charts: well formed, every line that has points, fit to stand side by side in one page."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from reference.pictures.charts import line_chart


def test_a_chart_is_well_formed_and_holds_each_line_with_points():
    series = {"BiCL": [(0.0, 1.0), (1.0, 2.0)], "oracle": [(1.0, 3.0)], "continued": []}
    chart = line_chart("Entropy", series, {"BiCL": "#123456"}, x_label="step", y_label="nats")
    root = ElementTree.fromstring(chart)
    assert root.tag.endswith("svg")
    assert root.get("width") is None
    texts = {node.text for node in root.iter() if node.tag.endswith("text")}
    assert {"Entropy", "step", "nats", "BiCL", "oracle"} <= texts
    assert "continued" not in texts
    assert "#123456" in chart


def test_a_chart_without_points_is_still_a_chart():
    chart = line_chart("None", {"BiCL": []}, {}, x_label="step", y_label="%", y_range=(0, 100))
    assert ElementTree.fromstring(chart).tag.endswith("svg")


def test_two_charts_of_one_page_share_no_id():
    def ids(title: str) -> set[str]:
        chart = line_chart(title, {"a": [(0.0, 0.0), (1.0, 1.0)]}, {}, x_label="", y_label="")
        return set(re.findall(r' id="([^"]+)"', chart))

    assert ids("one")
    assert not ids("one") & ids("two")
    assert ids("one") == ids("one")


def test_marks_scale_and_legend_can_be_chosen():
    def chart(**settings: object) -> str:
        points = {"one": [(0.0, 0.01), (10.0, 100.0)]}
        return line_chart("Shares", points, {}, x_label="", y_label="", **settings)

    plain = chart()
    assert ">one<" in plain and ">one<" not in chart(legend=False)
    assert "#d2d2cb" not in plain
    assert chart(marks=[3.0, 7.0]).count("#d2d2cb") == 2
    assert ">0.01<" not in plain and {">0.01<", ">1<", ">100<"} <= set(
        re.findall(r">[\d.]+<", chart(logarithmic=True))
    )


def test_a_chart_of_marks_alone_has_no_legend():
    chart = line_chart("None", {}, {}, x_label="", y_label="", marks=[1.0], logarithmic=True)
    assert ElementTree.fromstring(chart).tag.endswith("svg")
