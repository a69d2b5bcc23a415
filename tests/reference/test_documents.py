"""Commands and keys of the documents exist, and every method and its file has a section."""

import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest
import tyro

from reference.evaluation.validation import EXPECTED
from reference.methods import METHODS
from reference.presets import PRESETS, command_line

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "reference" / "methods"
RECIPE, TRAINING, *MORE = (
    (ROOT / "docs" / f"{name}.md").read_text("utf-8")
    for name in ("recipe", "training", "methods", "methods_teacher")
)
METHODS_TEXT = "\n".join(MORE)
SECTIONS = re.findall(r"^## .+?\n(.*?)(?=^## |\Z)", METHODS_TEXT, flags=re.DOTALL | re.MULTILINE)


def command_lines(text: str) -> list[list[str]]:
    """Words of every command of the recipe in fenced blocks."""
    joined = text.replace("\\\n", "")
    blocks = re.findall(r"^```bash\n(.*?)^```", joined, re.MULTILINE | re.DOTALL)
    lines = [shlex.split(line, comments=True) for block in blocks for line in block.splitlines()]
    return [words for words in lines if words[:2] == ["python", "-m"]]


def keys(text: str) -> list[list[str]]:
    """Words of every option of a run in inline code."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return [shlex.split(found) for found in re.findall(r"`(--[^`]+)`", prose)]


def understood(words: list[str]) -> bool:
    """Whether a command line is one that its command takes."""
    module, arguments = words[2], words[3:]
    try:
        if module == "reference.train":
            command_line(arguments)
        else:
            tyro.cli(import_module(module).Options, args=arguments)
    except SystemExit:
        return False
    return True


@pytest.mark.parametrize(
    "words", command_lines(RECIPE) + command_lines(TRAINING), ids=lambda words: " ".join(words[2:5])
)
def test_every_command_is_understood(words: list[str]) -> None:
    assert understood(words)


OF_OTHER_COMMANDS = [
    *(["--synthia"], ["--gta5"], ["--signals-to-handle", "SIGTERM,SIGUSR1"]),
    *(["--window", "512", "512"], ["--stride", "256", "256"], ["--size", "512", "0"]),
]
# Named without a value, and one that they take.
BARE = {
    "--data.workers": "1", "--data.max-bad": "1", "--machine.accumulate": "1",
    "--data.target-set": "camvid", "--reporting.panels-every": "1", "--machine.precision": "fp32",
    **dict.fromkeys(("--run", "--folder"), "runs/x"),
    **dict.fromkeys(("--start", "--begin"), "a.pth --stages adapt"),
}  # fmt: skip
SHOWING = [["--help"], ["--print-config"]]
CHECKED = [
    words for words in keys(RECIPE) + keys(TRAINING) if words not in OF_OTHER_COMMANDS + SHOWING
]


@pytest.mark.parametrize("words", CHECKED, ids=lambda words: words[0])
def test_every_key_is_one_of_training(words: list[str]) -> None:
    if words[0] in BARE and len(words) == 1:
        words = [*words, *BARE[words[0]].split()]
    assert understood(["python", "-m", "reference.train", "gta5-to-cityscapes", *words])


def test_every_key_of_the_table_changes_a_setting() -> None:
    table = RECIPE.split("## Ablations")[1].split("##")[0]
    found = [shlex.split(line) for line in re.findall(r"\| `(--[^`]+)` \|", table)]
    assert len(found) >= 15
    usual = PRESETS["gta5-to-cityscapes"][1]
    for words in found:
        assert command_line(["gta5-to-cityscapes", *words]).settings != usual, words


def test_the_limits_are_those_that_are_printed() -> None:
    for name, row in (("gta5", "GTA5"), ("synthia", "SYNTHIA")):
        cells = next(line for line in RECIPE.splitlines() if line.startswith(f"| {row}, mIoU"))
        told = [float(cell) for cell in cells.split("|")[2:4]]
        assert told == [*EXPECTED[name].values()]


def test_an_unknown_key_is_found() -> None:
    assert not understood(
        ["python", "-m", "reference.train", "toy", "--adaptation.temprature", "1"]
    )
    assert not understood(["python", "-m", "reference.train", "--folder", "runs/x"])
    assert keys("`--a 1`\n```bash\n`--b`\n```\n`make`") == [["--a", "1"]]


def test_every_file_is_named_and_every_named_file_is_there() -> None:
    named = {*re.findall(r"`reference/methods/(\w+)\.py`", METHODS_TEXT)}
    assert named == {path.stem for path in FOLDER.glob("*.py")}


def test_every_method_has_a_section_with_a_formula_and_departures() -> None:
    for name in METHODS.keys() - {"control"}:
        found = rf"^`.*`{name}`|^`{name}`"
        (section,) = (text for text in SECTIONS if re.search(found, text.strip()))
        assert "```math" in section
        assert name == "bicl_dacs" or "departs" in section


def test_options_that_are_named_are_there() -> None:
    source = "\n".join(path.read_text("utf-8") for path in FOLDER.glob("*.py"))
    options = re.findall(r"`(\w+)=[\w.\"]+`(?! of)", METHODS_TEXT)
    assert len(options) >= 6
    assert [option for option in options if f"{option}:" not in source] == []
