"""The page of runs: it tells what the folders say, whatever they say, and stands alone."""

import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from reference.pictures.page import render
from reference.pictures.recorded_run import Comparison, read_comparison, read_run
from reference.pictures.scores import Score, explanation, headline, pair, scores
from reference.report import Options, main, write_report
from tests.reference.written_runs import FULL, write_run

VOID = {"meta", "img", "br", "link", "input"}


class Page(HTMLParser):
    """Collects what refers elsewhere, ids and text, and tags that do not close in order."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.open, self.faults, self.references, self.ids, self.words = [], [], [], [], []
        self.feed(document)
        self.close()
        self.text = html.unescape(" ".join(" ".join(self.words).split()))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        links = {"src", "href", "xlink:href", "srcset", "action"}
        self.references += [value or "" for name, value in attrs if name in links]
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(tag)

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def foreign(document: str) -> list[str]:
    """References that leave the file, in attributes and in style sheets."""
    outside = [r for r in Page(document).references if not r.startswith(("data:", "#"))]
    return outside + re.findall(r"url\((?!#|\"?data:)[^)]*\)|@import[^;]*", document)


def text_of(document: str) -> str:
    return Page(document).text


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> str:
    return render(read_comparison([write_run(tmp_path_factory.mktemp("runs") / "second")]))


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five runs beside each other."""
    folder, rows = tmp_path_factory.mktemp("demo"), []
    line = "iteration,phase,miou_percent,loss_source_cross_entropy\n10,{},{},0.5\n"
    for name, role, caption, stages, miou, iou in (
        ("source", "source", "source only", "source-only", 40.0, (80, 10, 30)),
        ("control", "control", "continued", "source-only", 44.0, (80, 12, 40)),
        ("entropy", "other", "entropy only", "adapt", 50.0, (80, 30, 40)),
        ("bicl", "method", "BiCL", "adapt", 54.0, (78, 44, 40)),
        ("oracle", "oracle", "oracle", "oracle", 64.0, (90, 51, 51)),
    ):
        metrics = line.format("round 0" if stages == "adapt" else "source", miou)
        write_run(folder / name, stages=stages, iterations=(10, 10), iou=iou, metrics=metrics)
        rows.append({"folder": name, "caption": caption, "role": role})
    told = {"title": "Streets", "target": "9 <images>", "note": "One seed.", "rows": rows}
    (folder / "comparison.json").write_text(json.dumps(told))
    return folder


def test_the_page_stands_alone_and_is_well_formed(document: str, demo: Path):
    assert foreign('<img src="x.png"><style>a { background: url(b.png) }</style>') != []
    assert Page("<p><b></p>").faults == ["p"]
    for each in (document, render(read_comparison([demo]))):
        page = Page(each)
        assert (page.faults, page.open, foreign(each)) == ([], [], [])
        contents = [link[1:] for link in page.references if link.startswith("#")]
        assert contents == page.ids and len({*contents}) == 7
        assert "None" not in page.text
    for words in ("town <3>", "traffic <light>", "a <note>", "<second>", "the <target>"):
        assert words not in document and html.escape(words) in document


def test_what_a_run_says_at_its_head(document: str):
    text = text_of(document)
    for words in (
        "Run second gains 9.9 points over source only: mean IoU 40.1% against 30.2%.",
        "Run second · preset toy · source: toy · target: toy · method: bicl · seed 0",
        "judged without target labels: car floods the <target>.",
        "9 images at 64x32.",
        "The best one was chosen with the labels that it is scored on",
    ):
        assert words in text


def test_last_is_the_headline_and_best_says_how_it_was_chosen(tmp_path: Path):
    run = read_run(write_run(tmp_path / "x", parts=("settings",)))
    assert [(r.caption, r.miou, r.iteration) for r in scores(Comparison([run]))] == [
        ("source only", 30.25, 10),
        ("x", 40.125, 30),
        ("x, moving average", 41.0, 30),
        ("best, oracle-selected", 44.5, 20),
    ]


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (1, "Run x: not evaluated yet after 0 of 30 iterations."),
        (2, "Run x: not evaluated yet after 10 of 30 iterations."),
        (3, "Run x: mean IoU 30.2% after 10 of 30 iterations."),
        (5, "Run x gains 14.2 points over source only: mean IoU 44.5% against 30.2% after 20 of 30 "
            "iterations."),
    ],
)  # fmt: skip
def test_a_run_that_goes_on_is_told_as_such(tmp_path: Path, lines: int, sentence: str):
    metrics = "".join(FULL.splitlines(keepends=True)[:lines])
    folder = write_run(tmp_path / "x", metrics=metrics, parts=("settings",))
    document = render(read_comparison([folder]))
    assert f"<h1>{sentence}</h1>" in document
    assert 'id="settings"' in document
    absent = ("images", "classes", "confusion", "prototypes", "origin")
    assert not any(f'id="{name}"' in document for name in absent)
    assert ('id="curves"' in document) == (lines > 1)


def test_the_demo_is_held_against_the_control_and_the_others(demo: Path):
    document = render(read_comparison([demo]))
    for words in (
        "BiCL gains 10.0 points over the control: mean IoU 54.0% against 44.0%.",
        "Entropy only reaches 50.0%; BiCL is 4.0 points better than that.",
        "BiCL gains most on traffic <light> (+32). It loses on road (\N{MINUS SIGN}2).",
        "reaches 64.0%; adaptation closes 50% of the way to it.",
        "on 9 <images>, and the distance to continued",
        "One seed.",
        "runs>/source/last.pth",
    ):
        assert words in text_of(document)
    for caption in ("source only", "continued", "entropy only", "BiCL", "oracle"):
        assert f"<figcaption>{caption}</figcaption>" in document
    assert 'title="BiCL: 44.0"' in document


def test_an_unfavourable_result_is_told_too():
    main = Score("BiCL", "method", 40.0, iou={"road": 50.0})
    control = Score("continued", "control", 41.0, iou={"road": 50.5})
    other, oracle = Score("entropy", "other", 40.0), Score("oracle", "oracle", 39.0)
    assert headline("BiCL", main, control) == (
        "BiCL does not help here: 1.0 point worse than the control, mean IoU 40.0% against 41.0%."
    )
    told = " ".join(explanation(main, control, [control, other, main, oracle]))
    assert "Entropy reaches 40.0%; no difference to BiCL that one run could show." in told
    assert "No class loses a point or more." in told and "closes" not in told
    assert headline("x", main._replace(miou=None), control) == "x: not evaluated yet."
    assert headline("BiCL", main, control._replace(miou=40.9), 3) == (
        "BiCL against the control: no difference that one run could show; "
        "mean IoU 40.0% against 40.9%, on 3 images alone."
    )
    assert "images" not in headline("BiCL", main, control, 500)


def test_classes_are_rows_and_change_against_the_evaluation_before(document: str):
    rows = re.findall(
        r'<div class="row"><span>(.*?)</span>.*?class="value">(.*?)</span>(.*)', document
    )
    assert [(name, value) for name, value, _ in rows] == [
        ("road", "81.2"), ("traffic &lt;light&gt;", "&ndash;"), ("car", "40.0"),
    ]  # fmt: skip
    assert ['class="change up">+3.5<' in rest for *_, rest in rows] == [True, False, True]
    table = document.split("<summary>All numbers</summary>")[1].split("</table>")[0]
    assert "<td>&ndash;</td>" in table and '<td class="up">+3.5</td>' in table


def test_confusion_in_percent_of_the_row_and_the_largest_errors(document: str):
    section = document.split('id="confusion"')[1].split("<h2")[0]
    rows = re.findall(r"<tr><td>(.*?)</td><td>(.*?)</td><td[^>]*>(\d+)%", section)
    assert rows[:2] == [
        ("traffic &lt;light&gt;", "car", "60"),
        ("road", "traffic &lt;light&gt;", "15"),
    ]
    cells = re.findall(r'<td class="([^"]*)"[^>]*>(\d*)</td>', section)
    assert [text for _, text in cells] == ["80", "15", "5", "", "40", "60", "10", "", "90"]
    assert [text for kind, text in cells if "own" in kind] == ["80", "40", "90"]


def test_images_change_over_time_and_have_gaps_where_there_was_none(document: str):
    section = document.split("<h3>target image 3")[1].split("</section>")[0]
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", section)
    assert captions == ["image", "ground truth", "source only", "adapted", "static labels",
                        "confidence: black 0, white 1"]  # fmt: skip
    assert 'data-times="10 20 30"' in section
    frames = [re.findall(r'data-at="(\d)"', part) for part in section.split("</figure>")[:-1]]
    assert [len(each) for each in frames] == [1, 1, 1, 3, 1, 3]
    assert frames[4] == ["2"]


def test_curves_have_weights_where_they_are_known(document: str):
    titles = dict(re.findall(r"<figcaption><b>(.*?)</b> (.*?)</figcaption>", document))
    assert titles["What is minimised"] == "nats, every term with its weight"
    assert titles["Entropy on the target"] == "nats, before its weight of 0.1"
    assert titles["Cross-entropy on source labels"] == titles["Spread"] == "nats"
    assert titles["Coverage of pseudo labels"] == "% of target pixels"
    assert "Evaluations" in titles and "Speed" not in titles
    shares = document.split('class="shares"')[1].split("</div></div>")[0]
    assert "40.0%" in shares and "traffic" not in shares


def test_settings_that_differ_versions_and_commands(document: str):
    text = text_of(document)
    assert "adaptation.iterations 600 → 20" in text
    assert "adaptation.contrast.threshold" in text.split("All settings")[1]
    assert "python -m reference.train toy --folder <second>" in text
    assert "second, from iteration 20" in text
    assert text.count("torch 2.13.0, numpy 2.4.6, commit 0123abc. abacus, 2 cores, 1 thread") == 1


@pytest.mark.parametrize("count", [3, 65])
@pytest.mark.parametrize("part", ["checkpoint", "table", "panels", "prototypes", None])
def test_every_part_may_be_alone_with_any_number_of_classes(tmp_path: Path, count: int, part: str):
    names = tuple(f"class {number}" for number in range(count))
    folder = write_run(
        tmp_path / "x", names=names, iou=[50.0] * count, metrics="",
        parts=["settings", part] if part else ["settings"],
    )  # fmt: skip
    page = Page(render(read_comparison([folder])))
    assert page.faults == [] and page.open == []
    assert ("class 2" in page.text) == (part not in (None, "prototypes"))


def test_the_command_writes_the_page_beside_the_run_or_elsewhere(demo, tmp_path, capsys):
    folder = write_run(tmp_path / "run", parts=("settings",))
    main([str(folder)])
    assert capsys.readouterr().out == f"Open {folder / 'report.html'}\n"
    out = tmp_path / "beside.html"
    both = [str(demo / "source"), str(demo / "bicl")]
    with pytest.raises(SystemExit, match=r"^report: expected out for a page about 2 folders, got "):
        main(both)
    assert not (demo / "source" / "report.html").exists()
    main([*both, "--out", str(out)])
    assert "bicl gains 14.0 points over source" in out.read_text(encoding="utf-8")


def test_a_page_replaces_pages_only(tmp_path: Path):
    run = write_run(tmp_path / "run", parts=("settings",))
    (tmp_path / "a.html").mkdir()
    for name, what in (("a.html", "a folder"), ("metrics.csv", 'a name that ends in ".csv"')):
        sentence = f"expected out to be a file that ends in .html, got {tmp_path / name}, which is "
        with pytest.raises(ValueError, match=f"^report: {re.escape(sentence + what)}\\.$"):
            write_report(Options((run,), tmp_path / name))
    assert not (tmp_path / "metrics.csv").exists()
    with pytest.raises(SystemExit, match=r"^report: expected the folder of a run, got none"):
        main([])


def test_the_fair_control_is_preferred_and_a_page_in_the_middle_is_about_what_is_tried(demo: Path):
    runs = read_comparison([demo]).runs
    for missing, about, base in (
        ((), "BiCL", "continued"),
        (("control",), "BiCL", "source only"),
        (("method",), "entropy only", "continued"),
        (("method", "other"), "continued", "source only"),
    ):
        comparison = Comparison([run for run in runs if run.role not in missing])
        held = pair(comparison, scores(comparison))
        assert (held[0].caption, held[1] and held[1].caption) == (about, base)


def test_each_run_is_drawn_before_its_own_weight(tmp_path: Path):
    lines = "iteration,phase,loss_entropy\n10,round 0,{}\n20,round 0,{}\n"
    for name, weight in (("a", 0.1), ("b", 0.02)):
        parts = ("settings",)
        folder = write_run(
            tmp_path / name, stages="adapt", metrics=lines.format(weight, weight), parts=parts
        )
        plain = json.loads((folder / "settings.json").read_text())
        plain["adaptation"]["entropy_weight"] = weight
        (folder / "settings.json").write_text(json.dumps(plain))
    document = render(read_comparison([tmp_path]))
    assert "nats, before its weight of 0.02 and 0.1" in document
    curves = document.split("<b>Entropy on the target</b>")[1].split("</svg>")[0]
    drawn = re.findall(r'class="line".*?<path d="([^"]*)"', curves)
    assert len(drawn) == 2 and drawn[0] == drawn[1]
