"""The command line of every run: presets, help, old spellings, and torchrun's own options."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import fields, is_dataclass
from typing import Any

import pytest
from torch.distributed.run import get_args_parser

from reference.commands import answer
from reference.data.batches import over
from reference.experiments.tables import DOCS
from reference.presets import PRESETS, Options, command_line, settings_help
from tests.forked import CONTEXT


def option_names(value: Any, front: str = "--") -> list[str]:
    names = []
    for field in fields(value):
        inner = getattr(value, field.name)
        name = f"{front}{field.name}".replace("_", "-")
        if is_dataclass(inner):
            names += option_names(inner, front if field.name == "settings" else f"{name}.")
        else:
            names.append(name)
    return names


def test_torchrun_takes_no_option_of_ours_for_its_own() -> None:
    # argparse reads an unambiguous beginning of an option as the option, wherever it stands.
    theirs = [option for action in get_args_parser()._actions for option in action.option_strings]
    ours = option_names(Options())
    assert "--folder" in ours and "--adaptation.contrast.threshold" in ours
    assert [name for name in ours if any(other.startswith(name) for other in theirs)] == []
    assert any(other.startswith("--run") for other in theirs)


@pytest.mark.parametrize("name", PRESETS)
def test_help_of_a_preset_fits_two_screens(name: str) -> None:
    text = settings_help(name, Options(settings=PRESETS[name][1]))
    lines = text.splitlines()
    assert len(lines) <= 100 and max(map(len, lines)) <= 100
    for group in ("--data.", "--adaptation.contrast.", "--machine.", "--reporting."):
        assert any(line.strip().startswith(group) for line in lines)


def test_every_option_is_explained() -> None:
    options = Options(settings=PRESETS["toy"][1])
    for name in option_names(options):
        group = name.removeprefix("--").rpartition(".")[0]
        assert f"  {name} " in settings_help("toy", options, group or None)


COMMANDS = (
    *("demo", "ablate", "report", "check_data", "prepare", "probe", "synthetic"),
    *("predict", "score", "export", "experiments.tables", "pictures.method_gains"),
)


@pytest.mark.parametrize("words", ["train toy", *COMMANDS])
def test_help_needs_no_torch_and_writes_no_document(words: str) -> None:
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in DOCS.rglob("*") if p.is_file()}
    code = (
        "import runpy, sys\n"
        f"sys.argv = {[*words.split(), '--help']}\n"
        "try:\n    runpy.run_module(f'reference.{sys.argv[0]}', None, '__main__', alter_sys=True)\n"
        "except SystemExit:\n    print('torch' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "False" and len(ran.stdout.splitlines()) > 7
    assert f"python -m reference.{words.split()[0]}" in ran.stdout
    assert before == {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in before}


def test_help_says_how_a_switch_is_turned() -> None:
    options = Options(settings=PRESETS["toy"][1])
    for group in (None, "adaptation.contrast"):
        text = settings_help("toy", options, group)
        on, off = re.findall(r"(--\S+) is (?:on|off)", text)
        drawn = [command_line(["toy", word]).settings.data.drawn for word in (on, off)]
        assert [each.night for each in drawn] == [True, False]


@pytest.mark.parametrize("words", ["train toy", "score"])
def test_help_may_be_cut_short(words: str) -> None:
    command = [sys.executable, "-m", f"reference.{words.split()[0]}", *words.split()[1:], "--help"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    # As `| head` does.
    process.stdout.close()
    with process.stderr as said:
        assert said.read() == b""
    process.wait()


OLD = """gta5-to-cityscapes --run runs/x --mode adapt --start a.pth --adaptation.rare-classes
--source.crops.resize.size 64 128 --adaptation.source-crops.colour.probability 0.5
--data.drawn-size 32 64 --compile"""


def test_old_spellings_mean_what_they_meant() -> None:
    options = command_line(OLD.split())
    settings = options.settings
    assert str(options.folder) == "runs/x" and settings.stages == "adapt"
    assert str(settings.begin) == "a.pth" and settings.adaptation.rare.on
    assert settings.source.crops.size == (64, 128) and settings.data.drawn.size == (32, 64)
    assert settings.adaptation.source_crops.colours.probability == 0.5
    assert settings.machine.compile


@pytest.mark.parametrize(("words", "sentence"), [
    ("toy --seed -1", "Settings: expected seed within 0..2**63 - 1, got -1."),
    (f"toy --seed {2**63}", f"Settings: expected seed within 0..2**63 - 1, got {2**63}."),
    ("toy --ema-decay 2", "Settings: expected ema_decay within 0..1, got 2.0."),
    ("toy --adaptation.contrast.temperature -1", "Contrast: expected temperature > 0, got -1."),
    (
        "toy --adaptation.contrast.temperature 1e-40",
        "Contrast: expected temperature finite and >= 2**-126, got 1e-40.",
    ),
    (
        "toy --source.rare.temperature 5e-324",
        "RareClasses: expected temperature finite and >= 2**-126, got 5e-324.",
    ),
    ("toy --adaptation.entropy-weight inf", "expected entropy_weight >= 0 and finite, got inf."),
    ("toy --adaptation.contrast.threshold 7", "Contrast: expected threshold within -1..1, got"),
    ("toy --adaptation.rounds 0", "AdaptationStage: expected rounds >= 1, got 0."),
    ("toy --data.merge rider", "DataSettings: expected merge as"),
    ("toy --adaptation.contrast.prior 1", "Contrast: expected prior 0 with measure similarity"),
])  # fmt: skip
def test_a_wrong_value_ends_with_a_sentence(words, sentence, capsys):
    with pytest.raises(SystemExit) as ended:
        command_line(words.split())
    # Values of a group are refused by the parser, in a box.
    said = f"{ended.value} {capsys.readouterr().err}".replace("│", " ")
    assert sentence in " ".join(said.split())


def test_what_former_versions_had_says_what_takes_its_place() -> None:
    for name in ("toy-to-photographs", "varied-to-photographs"):
        with pytest.raises(
            SystemExit, match=rf"^train: .*, got {name}\. Hint: carla-to-camvid has"
        ):
            command_line([name, "--data.target", "photographs"])
    command = [sys.executable, "-m", "reference.ablate", "--varied"]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 1 and ran.stderr.startswith("ablate: expected ")
    assert "got --varied. Hint: --target carla-to-camvid --root FOLDER" in ran.stderr


def _fail(number: int) -> None:
    raise RuntimeError("two sizes\nof images") if number else KeyError("road")


@pytest.mark.parametrize(
    ("shift", "got"), [(0, "KeyError: 'road'"), (1, "RuntimeError: two sizes of images")]
)
def test_a_worker_that_raises_ends_a_command_with_a_sentence(shift: int, got: str) -> None:
    def work() -> None:
        list(over(lambda number: _fail(number + shift), 20, "", workers=2, progress=False))

    told = (
        f"data: expected every worker to read to the end, got {got}. Hint: fewer need less memory"
    )
    with pytest.raises(SystemExit, match=f"^{told}"):
        answer(work)


def test_a_pool_whose_process_is_killed_ends_a_command_with_a_sentence() -> None:
    def work() -> None:
        with ProcessPoolExecutor(1, mp_context=CONTEXT) as pool:
            pool.submit(signal.raise_signal, signal.SIGKILL).result()

    with pytest.raises(SystemExit, match=r"^A process in the process pool was terminated abruptly"):
        answer(work)


def test_an_unknown_preset_lists_the_known_ones() -> None:
    with pytest.raises(SystemExit) as ended:
        command_line(["gta"])
    text = str(ended.value)
    assert text.startswith("train: expected the name of a preset, got 'gta'.")
    assert all(name in text for name in PRESETS)
