"""The page of a run: it tells what the folder says, finished or not, and stands alone."""

from __future__ import annotations

import html
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from reference.data.classes import NAMES
from reference.engine.presets import PRESETS
from reference.engine.recorded_settings import as_plain
from reference.pictures.domain_prototypes import Prototypes
from reference.pictures.run_charts import course_charts, loss_charts, score_charts, thinned
from reference.pictures.run_facts import RunFacts
from reference.pictures.run_page import headline, render_run, score_rows
from reference.pictures.strip_files import StripFile
from reference.pictures.time_lapse import time_lapse
from tests.reference.test_report import foreign, parsed

START = {
    "iteration": 0,
    "command": "python -m reference.train toy --run <runs>",
    "commit": "0123abc",
    "code": "fedcba",
    "versions": {"torch": "2.13.0", "numpy": "2.4.6"},
    "machine": {"processor": "abacus", "cores": 2, "threads": 1, "system": "Linux"},
}


def row(iteration: int, phase: str, **values: float) -> dict:
    return {"iteration": iteration, "phase": phase, **values}


def report_row(iteration: int, phase: str, **values: float) -> dict:
    common = {"learning_rate": 2.5e-4, "source_cross_entropy": 1.0, "data_wait_share": 0.25}
    return row(iteration, phase, **common, iterations_per_second=3.0, **values)


ROWS = [
    report_row(10, "source"),
    row(10, "source", miou_percent=30.25),
    report_row(20, "round 0", target_to_source=0.5, coverage=0.5, share_road=0.5, share_car=0.0),
    row(20, "round 0", miou_percent=44.5, teacher_miou_percent=45.75),
    report_row(30, "round 1", target_to_source=0.25, coverage=0.75, share_road=0.6, share_car=0.1),
    row(30, "round 1", miou_percent=40.125, teacher_miou_percent=41.0),
]
TABLE = {
    "header": ["IoU in percent, source toy; a network", "9 images at 64x32"],
    "rows": [
        {
            "name": "this run, last checkpoint",
            "iou": {"road": 81.25, "car": None},
            "means": {"miou14": 40.125, "pixel accuracy": 90.5},
            "note": "",
        },
        {
            "name": "change since",
            "iou": {"road": -3.5, "car": None},
            "means": {"miou14": -4.375, "pixel accuracy": 0.5},
            "note": "a <note>",
        },
    ],
}


def strips(count: int, domain: str = "target") -> list[StripFile]:
    rng = np.random.default_rng(0)

    def picture() -> np.ndarray:
        return rng.integers(0, 256, (4, 8, 3), dtype=np.uint8)

    return [
        StripFile(
            domain,
            3,
            "town <3>",
            10 * number,
            "source",
            {
                "image": picture(),
                "prediction": picture(),
                **({"static labels": picture()} if number > 1 else {}),
                "confidence: black 0, white 1": picture(),
            },
        )
        for number in range(1, count + 1)
    ]


def moment(seed: int) -> Prototypes:
    rows = torch.randn(3, 19, 5, generator=torch.Generator().manual_seed(seed))
    present = torch.arange(19) < 3
    return Prototypes(rows[0], rows[1], rows[2], present, present.clone())


FACTS = RunFacts(
    name="second",
    settings=as_plain(PRESETS["toy"][1]),
    preset="toy",
    changes=["ema_decay: 0.0 -> 0.9"],
    starts=[START, {**START, "iteration": 20}],
    rows=ROWS,
    boundaries=[10, 20],
    planned=30,
    alarms=["flood car"],
    table=TABLE,
    strips=[strips(3)],
    moments=[(12, moment(0)), (20, moment(1)), (30, moment(2))],
    first_adapted=10,
)


@pytest.fixture(scope="module")
def document() -> str:
    return render_run(FACTS)


@pytest.fixture(scope="module")
def text() -> str:
    return text_of(FACTS)


def text_of(facts: RunFacts) -> str:
    return html.unescape(" ".join(" ".join(parsed(render_run(facts)).text).split()))


def test_the_page_stands_alone_and_is_well_formed(document: str):
    page = parsed(document)
    assert page.faults == [] and page.open == []
    assert foreign(page, document) == []
    assert "town &lt;3&gt;" in document and "town <3>" not in document
    assert "a &lt;note&gt;" in document
    assert "&lt;runs&gt;" in document


def test_what_the_head_says(text: str):
    assert "Run second · preset toy with 1 change · mode full · source: toy · seed 0" in text
    assert "Mean IoU 40.1% after all 30 iterations." in text
    assert "Alarms of this run (judged without target labels): flood car." in text
    assert "9 images at 64x32. The last checkpoint is the result." in text


def test_last_is_the_headline_and_best_says_how_it_was_chosen():
    found = [(r["caption"], r["miou"], r["iteration"]) for r in score_rows(FACTS)]
    assert found == [
        ("source only", 30.25, 10),
        ("last", 40.125, 30),
        ("last, moving average", 41.0, 30),
        ("best, oracle-selected", 44.5, 20),
    ]
    warm_up = replace(FACTS, rows=ROWS[:2])
    assert [r["caption"] for r in score_rows(warm_up)] == ["last", "best, oracle-selected"]


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (ROWS[:4], "Mean IoU 44.5% after 20 of 30 iterations."),
        (ROWS[:5], "Mean IoU 44.5% at iteration 20."),
        (ROWS[:1], "Not evaluated, after 10 of 30 iterations."),
        ([], "Not evaluated, after 0 of 30 iterations."),
    ],
)
def test_a_run_that_goes_on_is_told_as_such(rows: list[dict], sentence: str):
    facts = replace(FACTS, rows=rows, moments=[], strips=[])
    assert headline(facts) == sentence
    assert sentence in text_of(facts)


def test_the_table_shows_every_number_and_marks_changes(document: str, text: str):
    for value in ("81.2", "40.1", "90.5", "+0.5"):
        assert value in text
    assert '<td class="down">\N{MINUS SIGN}3.5</td>' in document
    assert '<td class="up">+0.5</td>' in document
    assert document.count('<td class=""></td>') == 2


def test_versions_commands_changes_and_settings_are_there(text: str):
    assert "went on from iteration 20" in text
    assert "torch 2.13.0, numpy 2.4.6, code fedcba, commit 0123abc" in text
    assert "abacus, 2 cores, 1 thread used, Linux" in text
    assert "toy, changed: ema_decay: 0.0 -> 0.9" in text
    assert "adaptation.contrast.threshold" in text


def test_prototypes_first_and_last_and_what_they_are(text: str):
    assert "After iteration 12" in text and "After iteration 30" in text
    assert "After iteration 20" not in text
    assert "The first moment is 2 iterations into adaptation" in text
    assert "Calibration is off" not in text
    plain = json.loads(json.dumps(FACTS.settings))
    plain["adaptation"]["contrast"]["calibrate"] = False
    off = text_of(replace(FACTS, settings=plain, moments=FACTS.moments[:1]))
    assert "Calibration is off in this run." in off
    assert "The first moment" not in off


def test_a_bare_run_has_a_page_too():
    bare = replace(
        FACTS, rows=[], boundaries=[], starts=[], table=None, strips=[], moments=[], alarms=[]
    )
    text = text_of(bare)
    for section in ("Classes", "Over time", "Prototypes", "Losses", "Course", "Alarms"):
        assert section not in text
    assert "How it was made" in text


def test_charts_are_of_the_columns_that_hold_numbers():
    def titles(charts: list[str]) -> list[str]:
        return [chart.split('aria-label="')[1].split('"')[0] for chart in charts]

    assert titles(loss_charts(FACTS)) == [
        "Cross-entropy on source labels",
        "Contrast, target to source",
    ]
    assert titles(course_charts(FACTS)) == [
        "Learning rate of the backbone",
        "Coverage of pseudo labels",
        "Waiting for data",
        "Speed",
        "Predicted classes on the target",
    ]
    assert ">times 1e-4<" in course_charts(FACTS)[0]
    assert titles(score_charts(FACTS)) == ["Evaluations"]
    assert score_charts(replace(FACTS, rows=ROWS[:2])) == []


def test_long_curves_are_thinned_by_means():
    points = [(float(i), float(i % 2)) for i in range(600)]
    found = thinned(points)
    assert len(found) == 300
    assert found[0] == (1.0, 0.5) and found[-1] == (599.0, 0.5)
    assert thinned(points[:300]) == points[:300]


def test_a_lapse_keeps_its_times_in_columns():
    lapse = time_lapse(strips(20))
    assert lapse.title == "target image 3, town <3>"
    assert [panel.caption for panel in lapse.still] == ["image"]
    rows = dict(lapse.rows)
    assert list(rows) == ["prediction", "static labels", "confidence: black 0, white 1"]
    shown = [panel.caption for panel in rows["prediction"] if panel]
    assert len(shown) == 6
    assert shown[-1] == "iteration 200"
    assert {len(panels) for panels in rows.values()} == {6}
    few = dict(time_lapse(strips(2)).rows)
    assert [panel and panel.caption for panel in few["static labels"]] == [None, "iteration 20"]
    assert [panel and panel.caption for panel in few["prediction"]] == [
        "iteration 10",
        "iteration 20",
    ]
    assert dict(time_lapse(strips(1)).rows).keys() == {"prediction", "confidence: black 0, white 1"}


def test_the_legend_holds_the_classes_of_the_table(document: str):
    legend = document.split('<ul class="legend">')[1].split("</ul>")[0]
    assert legend.count("<li>") == 3
    assert "road" in legend and "no label" in legend
    everything = render_run(replace(FACTS, table=None, moments=[], rows=[]))
    legend = everything.split('<ul class="legend">')[1].split("</ul>")[0]
    assert legend.count("<li>") == len(NAMES) + 1
