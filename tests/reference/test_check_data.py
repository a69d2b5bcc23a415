"""The command check_data: exit codes, JSON, tables, and what it asks for."""

import json
import sys
from pathlib import Path

import pytest
from reference.data.faults import Fault

from reference import check_data
from reference.check_data import Options, as_dict, check, fault_lines, main, parts, probabilities
from reference.data.checking import Report
from tests.reference.small_sets import first_label, make_cityscapes, make_gta5, make_synthia


@pytest.fixture
def roots(tmp_path: Path) -> dict[str, Path]:
    return {
        "gta5": make_gta5(tmp_path / "gta5"),
        "synthia": make_synthia(tmp_path / "synthia"),
        "cityscapes": make_cityscapes(tmp_path / "cityscapes"),
    }


def _run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["check_data", *words, "--workers", "0"])
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_whole_sets_end_with_0_and_every_table(
    roots: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = [word for name, root in roots.items() for word in (f"--{name}", str(root))]
    code = _run(monkeypatch, *words, "--full", "all", "--index", str(tmp_path / "index"))
    printed = capsys.readouterr().out
    assert code == 0
    for name in ("gta5 train", "synthia train", "cityscapes val"):
        assert f"Classes of {name}" in printed
        assert f"warning, {name}, count: expected " in printed
    assert "All that was read is whole." in printed
    assert len(list((tmp_path / "index").glob("*.json"))) == 3


def test_a_broken_file_ends_with_2_and_its_sentence(
    roots: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = first_label(roots["gta5"])
    path.write_bytes(b"")
    assert _run(monkeypatch, "--gta5", str(roots["gta5"])) == 2
    printed = capsys.readouterr().out
    assert (
        f"error, gta5 train, empty: expected {path} to be a picture, got 0 bytes. Hint: the file "
        "was not written to its end; unpack or download it again.\n"
    ) in printed
    assert "Faults that a reader refuses: 1." in printed


def test_json_holds_faults_counts_and_probabilities(
    roots: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (roots["gta5"] / "labels" / "00002.png").unlink()
    assert _run(monkeypatch, "--gta5", str(roots["gta5"]), "--json") == 2
    (report,) = json.loads(capsys.readouterr().out)
    assert (report["name"], report["passed"], report["images"]) == ("gta5", False, 2)
    assert report["faults"][0] == {
        "kind": "missing",
        "path": str(roots["gta5"] / "labels" / "00002.png"),
        "expected": "to hold the labels of an image",
        "found": "none",
        "cause": "a part of the download is missing",
        "fix": "unpack all label archives",
        "serious": True,
    }
    assert report["rare_class_probabilities"][0] == pytest.approx(0.5)
    assert report["pixels"][0] == report["pixels"][13] == 8


def test_target_training_labels_are_checked_only_when_asked(roots: dict[str, Path]) -> None:
    options = Options(cityscapes=roots["cityscapes"], workers=0)
    assert [(split, labels) for _, _, split, labels in parts(options)] == [
        ("train", False),
        ("val", True),
    ]
    train, val = check(options, progress=False)
    assert (train.labels, val.labels) == (None, 2)
    asked = parts(Options(cityscapes=roots["cityscapes"], train_labels=True))
    assert [labels for *_, labels in asked] == [True, True]


def test_a_report_without_labels_has_no_probabilities() -> None:
    report = Report("cityscapes", "train", Path("x"))
    assert probabilities(report) is None
    assert as_dict(report)["passed"] is True
    assert as_dict(report)["index"] is None


def test_many_faults_of_a_kind_are_counted_instead_of_listed() -> None:
    def fault(number: int, serious: bool) -> Fault:
        path = Path(f"{number}.png")
        return Fault("missing", path, "to be", "none", "a cause", "a fix", serious)

    faults = (fault(99, False), *(fault(number, True) for number in range(12)))
    lines = fault_lines(Report("gta5", "train", Path("x"), faults=faults))
    assert len(lines) == 12
    assert lines[0] == (
        "error, gta5 train, missing: expected 0.png to be, got none. Hint: a cause; a fix."
    )
    assert lines[10] == "error, gta5 train, missing: 2 more."
    assert lines[11].startswith("warning, gta5 train, missing: expected 99.png")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            Options(),
            "check_data: expected the root of a set, got none. Hint: give --gta5, --synthia or "
            "--cityscapes.",
        ),
        (Options(sample=0), "check_data: expected sample of at least 1, got 0."),
        (Options(workers=-1), "check_data: expected workers of at least 0, got -1."),
    ],
)
def test_wrong_options_are_refused(options: Options, sentence: str) -> None:
    with pytest.raises(ValueError) as caught:
        check(options)
    assert str(caught.value) == sentence


def test_wrong_options_end_with_2_and_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(monkeypatch) == 2
    assert capsys.readouterr().err == (
        "check_data: expected the root of a set, got none. Hint: give --gta5, --synthia or "
        "--cityscapes.\n"
    )


def test_an_interrupt_is_told(
    roots: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(check_data, "check_set", interrupted)
    assert _run(monkeypatch, "--gta5", str(roots["gta5"])) == 130
    assert capsys.readouterr().err == "Stopped; nothing was written.\n"
