"""Runs so small that a test can do them whole, and kill them in between."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reference.data.crops import SourceCrops, TargetCrops
from reference.data.resizing import Resize
from reference.engine.processes import Processes
from reference.engine.settings import DataSettings, Machine, NetworkSettings, Reporting, Settings
from reference.engine.stage_settings import PLAIN_COLOURS, Optimiser, StaticLabels
from reference.networks.deeplab import DeepLabOptions
from reference.synthetic import Sizes
from reference.train import Options, run_training

SIZE = (32, 64)
ALONE = Processes(0, 1, torch.device("cpu"))
CROPS = SourceCrops(resize=Resize(size=SIZE), crop=(24, 48), colour=PLAIN_COLOURS)
TARGET_CROPS = TargetCrops(resize=Resize(size=SIZE), crop=(24, 48))


def tiny(settings: Settings, **changes: Any) -> Settings:
    """The settings of a preset with drawn data, a tiny network and few iterations."""
    network = replace(settings.network.deeplab, backbone="resnet14", width=8)
    source = replace(settings.source, iterations=3, batch_size=2, crops=CROPS)
    adaptation = replace(
        settings.adaptation,
        iterations=6,
        rounds=2,
        batch_size=2,
        source_crops=CROPS,
        target_crops=TARGET_CROPS,
        static=replace(settings.adaptation.static, size=SIZE),
    )
    return replace(
        settings,
        data=DataSettings(source_set="toy", workers=0, drawn=Sizes(4, 4, 1, 0), drawn_size=SIZE),
        network=NetworkSettings(deeplab=network, random_weights=True),
        source=source,
        adaptation=adaptation,
        machine=Machine(device="cpu", threads=1),
        reporting=Reporting(every=1, checkpoint_every=2, evaluate=False, size=SIZE),
        **changes,
    )


# Everything that a checkpoint holds is in use: dropout, batch statistics, a moving average.
EVERYTHING = tiny(
    Settings(
        network=NetworkSettings(
            deeplab=DeepLabOptions(head="dlv2_gn", features="bottleneck", batch_norm="trained")
        ),
        source=replace(Settings().source, optimiser=Optimiser(learning_rate=1e-2)),
        adaptation=replace(
            Settings().adaptation,
            optimiser=Optimiser(kind="adamw", learning_rate=1e-3),
            source_entropy_weight=0.1,
            static=StaticLabels(from_round=1),
        ),
    ),
    ema_decay=0.9,
)


def run(settings: Settings, folder: Path, *, resume: bool = False) -> bool:
    """Do a run in this process."""
    options = Options(run=folder, resume="auto" if resume else "never", settings=settings)
    return run_training(options, ALONE)


def spawn(name: str, folder: Path, *launcher: str) -> subprocess.Popen[str]:
    """Start or resume a named run of this file in a process of its own."""
    program = launcher or (sys.executable,)
    command = [*program, "-m", "tests.reference.tiny_runs", name, str(folder)]
    with log_of(folder).open("a") as log:
        return subprocess.Popen(
            command,
            cwd=Path(__file__).resolve().parents[2],
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )


def log_of(folder: Path) -> Path:
    """What a run in a process of its own has printed."""
    return folder.with_suffix(".log")


def held(folder: Path) -> dict[str, Any]:
    """The last checkpoint of a run."""
    read: dict[str, Any] = torch.load(folder / "last.pth", weights_only=True)
    return read


def digest(value: Any) -> str:
    """SHA-256 over every tensor and number of a checkpoint."""
    found = hashlib.sha256()

    def walk(item: Any) -> None:
        if isinstance(item, Tensor):
            found.update(str((item.dtype, tuple(item.shape))).encode())
            found.update(item.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        elif isinstance(item, dict):
            for name in sorted(item, key=str):
                found.update(str(name).encode())
                walk(item[name])
        elif isinstance(item, (list, tuple)):
            for inner in item:
                walk(inner)
        else:
            found.update(repr(item).encode())

    walk(value)
    return found.hexdigest()


# The same, looked at as often as it can be.
SEEN = replace(
    EVERYTHING,
    reporting=replace(EVERYTHING.reporting, evaluate=True, evaluate_every=3, panels_every=3),
)
LONG = replace(
    EVERYTHING,
    source=replace(EVERYTHING.source, iterations=6),
    adaptation=replace(EVERYTHING.adaptation, iterations=14),
    reporting=replace(EVERYTHING.reporting, checkpoint_every=4),
)
WORKERS = replace(LONG, data=replace(LONG.data, workers=1))
RUNS = {"long": LONG, "workers": WORKERS}


def main(name: str, folder: str) -> None:
    """Do a named run as the command does it."""
    from reference.engine.recorded_settings import as_plain
    from reference.train import main as train

    train(["toy", "--run", folder, "--resume", "auto", *_flags(as_plain(RUNS[name]))])


def _flags(plain: dict[str, Any], front: str = "--") -> list[str]:
    words: list[str] = []
    for name, value in plain.items():
        flag = front + name.replace("_", "-")
        if isinstance(value, dict):
            words += _flags(value, f"{flag}.")
        elif isinstance(value, bool):
            words.append(flag if value else f"{front}no-{name.replace('_', '-')}")
        elif isinstance(value, list):
            words += [flag, *map(str, value)]
        else:
            words += [flag, str(value)]
    return words


if __name__ == "__main__":
    main(*sys.argv[1:])
