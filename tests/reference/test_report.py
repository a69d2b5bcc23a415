"""The report: it tells what the numbers say, whatever they say, and needs nothing but itself."""

from __future__ import annotations

import copy
import html
import re
from html.parser import HTMLParser

import pytest

from reference.demo import Options, summarise
from reference.experiments.verdict import explanation, headline
from reference.pictures.page import flattened
from reference.pictures.report import loss_charts, prototype_section, pseudo_label_charts, render
from reference.pictures.visualise import Panel, Strip

VOID = {"meta", "img", "br", "link"}


class Page(HTMLParser):
    """Collects what refers elsewhere, the text, and checks that tags close in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []
        self.text: list[str] = []
        self.faults: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name in {"src", "href", "xlink:href", "srcset", "action"}:
                self.references.append(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(tag)

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def parsed(document: str) -> Page:
    page = Page()
    page.feed(document)
    page.close()
    return page


def foreign(page: Page, document: str) -> list[str]:
    """References that leave the file, in attributes and in style sheets."""
    outside = [r for r in page.references if not r.startswith(("data:", "#"))]
    return outside + re.findall(r"url\((?!#|\"?data:)[^)]*\)|@import[^;]*", document)


@pytest.fixture(scope="module")
def results(tiny_experiment, tiny_scenario, tiny_rows):
    return summarise(Options(), tiny_experiment, tiny_scenario, tiny_rows)


STRIP = Strip("town <1>", (Panel("image", "data:image/png;base64,AA=="),))
STRIPS = {name: [STRIP] for name in ("domains", "predictions", "pseudo_labels")}


def numbers(bicl: float, control: float, entropy: float, oracle: float | None = 80.0) -> dict:
    def row(score: float) -> dict:
        return {"miou": score, "iou": [score + 10, score - 10]}

    table = {
        "class_names": ["road", "car"],
        "source_only": row(40.0),
        "source_only_continued": row(control),
        "entropy_only": row(entropy),
        "bicl": row(bicl),
    }
    return table if oracle is None else {**table, "oracle": row(oracle)}


def test_a_gain_is_told_with_both_scores():
    assert headline(numbers(60.0, 45.0, 50.0)) == (
        "BiCL gains 15.0 points over the control: mean IoU 60.0% against 45.0%."
    )


def test_a_loss_is_told_as_plainly():
    assert headline(numbers(44.0, 45.0, 50.0)) == (
        "BiCL does not help here: 1.0 point worse than the control, mean IoU 44.0% against 45.0%."
    )
    assert headline(numbers(45.0, 45.0, 50.0)).startswith(
        "BiCL does not help here: no better and no worse than the control"
    )


def test_the_explanation_of_a_clear_win():
    text = " ".join(explanation(numbers(60.0, 45.0, 58.5)))
    assert "what more training alone would bring: +5.0 points." in text
    assert "reaches 58.5%; BiCL is 1.5 points better than that." in text
    assert "simpler method" not in text
    assert "Against the control it gains most on road (+15) and car (+15)." in text
    assert "No class loses a point or more." in text
    assert "reaches 80.0%; adaptation closes 43% of the way from the control to it." in text
    assert text.endswith("and every ingredient switched off in turn.")


def test_the_explanation_of_a_defeat():
    text = " ".join(explanation(numbers(40.0, 45.0, 50.0)))
    assert "BiCL is 10.0 points worse than that. So in this run the simpler method" in text
    assert "gains most" not in text
    assert "It loses on car (-5) and road (-5)." in text.replace("\N{MINUS SIGN}", "-")
    assert "closes" not in text


def test_without_an_oracle_none_is_told():
    assert "own labels" not in " ".join(explanation(numbers(60.0, 45.0, 50.0, None)))


def test_settings_are_listed_with_dotted_names(results, tiny_experiment):
    lines = dict(flattened(results["settings"]))
    assert lines["data.sizes.source_train"] == "6"
    assert lines["adaptation.learning_rate"] == str(tiny_experiment.adaptation.learning_rate)
    assert "adaptation.contrast.temperature" in lines


def test_charts_show_the_terms_and_runs_that_exist(tiny_rows):
    charts = {re.search('aria-label="([^"]*)"', c)[1]: c for c in loss_charts(tiny_rows)}
    assert list(charts) == [
        "Cross-entropy on labels",
        "Cross-entropy on source labels",
        "Cross-entropy on static labels",
        "Entropy on the target",
        "Contrast, target to source",
        "Contrast, source to target",
    ]
    assert ">entropy only<" in charts["Entropy on the target"]
    assert ">continued<" not in charts["Entropy on the target"]
    assert "Coverage of pseudo labels" in pseudo_label_charts(tiny_rows["bicl"])[0]


def test_the_page_stands_alone_and_tells_every_number(results, tiny_rows):
    document = render(results, tiny_rows, **STRIPS)
    page = parsed(document)
    assert page.faults == [] and page.open == []
    assert foreign(page, document) == []
    text = " ".join(page.text)
    for name in ("source_only", "source_only_continued", "entropy_only", "bicl", "oracle"):
        assert f"{results[name]['miou']:.1f}" in text
        assert all(f"{value:.1f}" in text for value in results[name]["iou"])
    assert headline(results) in html.unescape(text)
    assert all(sentence in html.unescape(document) for sentence in explanation(results))
    for value in (results["versions"]["torch"], results["machine"]["processor"], "seed 0"):
        assert value in text
    assert "adaptation.contrast.threshold" in text
    assert "Warnings of this run" not in text


def test_names_from_files_cannot_break_the_page(results, tiny_rows):
    document = render(results, tiny_rows, **STRIPS)
    assert "town &lt;1&gt;" in document
    assert "town <1>" not in document


def test_prototypes_before_and_after_stand_on_the_page(results, tiny_rows, tiny_scenario):
    space = prototype_section(tiny_rows, tiny_scenario)
    assert [len(space.planes), len(space.matrices)] == [2, 2]
    assert ">calibrated<" not in space.planes[0] and ">calibrated<" in space.planes[1]
    document = render(results, tiny_rows, **STRIPS, space=space)
    page = parsed(document)
    assert (page.faults, page.open, foreign(page, document)) == ([], [], [])
    text = " ".join(page.text)
    assert "Before adaptation" in text and "After adaptation" in text
    assert "target cells by the network's own predictions" in html.unescape(text)
    assert "Prototypes" not in " ".join(parsed(render(results, tiny_rows, **STRIPS)).text)


def test_without_contrast_there_are_no_prototypes_to_show(tiny_rows, tiny_scenario):
    rows = {**tiny_rows, "bicl": tiny_rows["entropy_only"]}
    with pytest.raises(ValueError) as caught:
        prototype_section(rows, tiny_scenario)
    assert str(caught.value) == (
        "prototype_section: expected a run with contrast, got one whose bicl is None."
    )


def test_warnings_stand_on_the_page(results, tiny_rows):
    warned = copy.deepcopy(results)
    warned["warnings"] = ["bicl, step 25: car floods the target."]
    text = " ".join(parsed(render(warned, tiny_rows, **STRIPS)).text)
    assert "Warnings of this run" in text
    assert "bicl, step 25: car floods the target." in text


def test_a_foreign_reference_and_an_open_tag_are_found():
    document = '<p><img src="https://example.org/a.png"><div style="x: url(b.png)"></p>'
    page = parsed(document)
    assert foreign(page, document) == ["https://example.org/a.png", "url(b.png)"]
    assert page.faults or page.open
