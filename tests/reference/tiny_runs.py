"""Runs so small that a test can do them whole, and kill them in between."""

import csv
import hashlib
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reference.data.settings import Crops, DataSettings, Drawn
from reference.experiments.targets import target_settings
from reference.networks.settings import DeepLabOptions, NetworkSettings
from reference.presets import PRESETS
from reference.run.folder import as_plain, flat
from reference.settings import (
    AdaptationStage,
    Machine,
    Optimiser,
    Reporting,
    Settings,
    SourceStage,
    StaticLabels,
)

ROOT = Path(__file__).resolve().parents[2]
SIZE = (32, 64)
CROPS = Crops(size=SIZE, crop=(24, 48))
# Everything that a checkpoint holds is in use: dropout, batch statistics, a moving average.
DEEPLAB = DeepLabOptions(
    "resnet14", head="dlv2_gn", features="bottleneck", batch_norm="trained", width=8
)
EVERYTHING = Settings(
    ema_decay=0.9, network=NetworkSettings(random_weights=True, deeplab=DEEPLAB),
    data=DataSettings("toy", "toy", workers=0, drawn=Drawn(4, 4, 1, 1, size=SIZE)),
    source=SourceStage(3, batch_size=2, crops=CROPS, optimiser=Optimiser(learning_rate=1e-2)),
    adaptation=AdaptationStage(
        iterations=6, rounds=2, batch_size=2, source_entropy_weight=0.1, source_crops=CROPS,
        target_crops=CROPS, optimiser=Optimiser("adamw", learning_rate=1e-3),
        static=StaticLabels(size=SIZE, from_round=1),
    ),
    machine=Machine(device="cpu", threads=1),
    reporting=Reporting(every=1, checkpoint_every=2, evaluate=False, size=SIZE, panels_every=0),
)  # fmt: skip


def changed(settings: Settings = EVERYTHING, **groups: dict[str, Any]) -> Settings:
    """Settings with other values in some of their groups."""
    return replace(settings, **{n: replace(getattr(settings, n), **g) for n, g in groups.items()})


# The same, looked at as often as it can be.
SEEN = changed(reporting={"evaluate": True, "evaluate_every": 3, "panels_every": 3})
LONG = changed(
    source={"iterations": 4}, adaptation={"iterations": 10}, reporting={"checkpoint_every": 4}
)
LAST = 14
"""Iterations of the long one."""


FEW = Drawn(source_train=6, target_train=6, target_val=2, target_test=5, size=SIZE)


def small() -> Settings:
    """The preset "toy" with few and small images, and four steps in each stage."""
    toy, crops = PRESETS["toy"][1], Crops(size=SIZE, crop=SIZE)
    few = {"iterations": 4, "batch_size": 2}
    sized = {"source_crops": crops, "target_crops": crops}
    sized["static"] = replace(toy.adaptation.static, size=SIZE)
    return changed(
        toy, data={"drawn": FEW}, source={**few, "crops": crops},
        adaptation={**few, "rounds": 4, **sized},
        reporting={"every": 1, "checkpoint_every": 2, "size": SIZE, "panels_every": 0},
    )  # fmt: skip


def few(target: str, seed: int, **where: Any) -> Settings:
    """In the place of a target's settings: small ones on its data."""
    data = target_settings(target, seed, **where).data
    places = {name: getattr(data, name) for name in ("root", "source", "target")}
    kinds = {name: getattr(data, name) for name in ("target_set", "val_split")}
    return replace(small(), seed=seed, data=replace(small().data, **places, **kinds))


def run(settings: Settings, folder: Path, *, resume: bool = False) -> bool:
    """Do a run in this process."""
    from reference.train import train

    return train(settings, folder, resume=resume)


def options(settings: Settings, folder: Path, *more: str) -> list[str]:
    """The words after ``-m reference.train`` that make the preset "toy" into other settings."""
    toy = flat(as_plain(PRESETS["toy"][1]))
    words = ["toy", "--folder", str(folder)]
    for name, value in flat(as_plain(settings)).items():
        if value == toy[name]:
            continue
        front, dot, last = name.replace("_", "-").rpartition(".")
        if isinstance(value, bool):
            words.append(f"--{front}{dot}{'' if value else 'no-'}{last}")
        else:
            listed = value if isinstance(value, list) else [value]
            words += [f"--{front}{dot}{last}", *map(str, listed)]
    return [*words, *more]


def spawn(
    words: Sequence[str], log: Path, launcher: Sequence[str] = (sys.executable, "-m")
) -> subprocess.Popen[str]:
    """Start the command in processes of its own; what it prints is appended to a file."""
    with log.open("a") as file:
        return subprocess.Popen(
            [*launcher, "reference.train", *words],
            cwd=ROOT,
            # torchrun otherwise takes a fixed port.
            env={**os.environ, "PET_STANDALONE": "1"},
            stdout=file,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )


def rows(folder: Path) -> list[dict[str, str]]:
    """The metrics of a run so far, as words."""
    path = folder / "metrics.csv"
    return list(csv.DictReader(path.read_text().splitlines())) if path.is_file() else []


def held(folder: Path) -> dict[str, Any]:
    """The last checkpoint of a run."""
    read: dict[str, Any] = torch.load(folder / "last.pth", weights_only=True)
    return read


def digest(value: Any) -> str:
    """SHA-256 over every tensor and number of a checkpoint."""
    known = hashlib.sha256()

    def walk(item: Any) -> None:
        if isinstance(item, Tensor):
            known.update(str((item.dtype, tuple(item.shape))).encode())
            known.update(item.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        elif isinstance(item, Mapping):
            walk(sorted(item.items(), key=lambda pair: str(pair[0])))
        elif isinstance(item, (list, tuple)):
            for inner in item:
                walk(inner)
        else:
            known.update(repr(item).encode())

    walk(value)
    return known.hexdigest()
