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
