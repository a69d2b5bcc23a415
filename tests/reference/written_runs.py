"""Run folders as reference.train leaves them, without training."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from reference.pictures.strips import StripFile, strip_png
from reference.presets import PRESETS
from reference.run.folder import PANELS, as_plain

NAMES = ("road", "traffic <light>", "car")
COLOURS = [(128, 64, 128), (250, 170, 30), (0, 0, 142)]
CONFUSION = [[80, 15, 5], [0, 40, 60], [10, 0, 90]]
FULL = (
    "iteration,phase,learning_rate,coverage,miou_percent,teacher_miou_percent,"
    "share_road,share_traffic_<light>,share_car,loss_source_cross_entropy,loss_entropy,loss_spread\n"
    "10,source,0.004,,,,,,,1.0,,\n10,source,,,30.25,,,,,,,\n"
    "20,round 0,0.002,0.5,,,0.5,0,0.5,0.8,0.05,0.3\n20,round 0,,,44.5,45.75,,,,,,\n"
    "30,round 1,0.001,0.75,,,0.6,0,0.4,0.7,0.04,0.2\n30,round 1,,,40.125,41.0,,,,,,\n"
)


def plain_settings(stages: str, iterations: tuple[int, int]) -> dict[str, Any]:
    """Settings of a run as its folder holds them: the toy's, shorter."""
    toy, (warm_up, adaptation) = PRESETS["toy"][1], iterations
    source = replace(toy.source, iterations=warm_up)
    adapt = replace(toy.adaptation, iterations=adaptation, rounds=2)
    begin = Path("<runs>/source/last.pth") if stages == "adapt" else None
    return as_plain(replace(toy, stages=stages, begin=begin, source=source, adaptation=adapt))


def bicl_state(count: int, seed: int = 0, front: str = "") -> dict[str, torch.Tensor]:
    """The state of a BiCL whose prototypes are drawn."""
    rows = torch.randn(3, count, 8, generator=torch.Generator().manual_seed(seed))
    state = {
        "domain_bias.bias": 0.1 * rows[2],
        "domain_bias.present": torch.ones(count, dtype=torch.bool),
        "domain_bias.count": torch.ones(count, dtype=torch.float64),
    }
    for number, name in enumerate(("source", "target")):
        state[f"{name}_bank.prototypes"] = rows[0] + 0.2 * number * rows[1]
        state[f"{name}_bank.present"] = torch.ones(count, dtype=torch.bool)
    return {front + name: value for name, value in state.items()}


def checkpoint(settings: Mapping[str, Any], names: Sequence[str], iteration: int) -> dict[str, Any]:
    """What last.pth holds, but the network."""
    colours = [[*COLOURS[label % 3][:2], label] for label in range(len(names))]
    return {
        "iteration": iteration, "settings": settings,
        "classes": {"names": list(names), "colours": colours},
        "monitor": {"told": {"flood car": "car floods the <target>."}},
        "method": {"name": "bicl", "state": bicl_state(len(names), front="contrast.")},
    }  # fmt: skip


def write_run(
    folder: Path,
    *,
    stages: str = "full",
    iterations: tuple[int, int] = (10, 20),
    names: Sequence[str] = NAMES,
    iou: Sequence[float | None] = (81.25, None, 40.0),
    metrics: str = FULL,
    parts: Sequence[str] = ("settings", "origin", "table", "panels", "prototypes", "checkpoint"),
) -> Path:
    """Write a run folder with the parts that are asked for."""
    settings = plain_settings(stages, iterations)
    start = {
        "iteration": 0, "command": f"python -m reference.train toy --folder <{folder.name}>",
        "commit": "0123abc", "versions": {"torch": "2.13.0", "numpy": "2.4.6"},
        "machine": {"processor": "abacus", "cores": 2, "threads": 1, "system": "Linux"},
    }  # fmt: skip
    texts = {
        "settings": ("settings.json", settings),
        "origin": ("origin.json", {"starts": [start, {**start, "iteration": 20}]}),
        "table": ("classes.json", class_table(names, iou)),
    }
    (folder / "prototypes").mkdir(parents=True)
    if metrics:
        (folder / "metrics.csv").write_text(metrics)
    for part in set(parts) & {*texts}:
        name, content = texts[part]
        (folder / name).write_text(json.dumps(content))
    for iteration, phase in ((10, "source"), (20, "round 0"), (30, "round 1")):
        for domain in ("target", "validation") if "panels" in parts else ():
            strip = panel(domain, iteration, phase, names)
            path = folder / PANELS / strip.place
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(strip_png(strip))
    for iteration in (12, 20, 30) if "prototypes" in parts else ():
        path = folder / "prototypes" / f"{iteration:08d}.safetensors"
        save_file(bicl_state(len(names), iteration), path)
    if "checkpoint" in parts:
        torch.save(checkpoint(settings, names, 30), folder / "last.pth")
    return folder


def class_table(names: Sequence[str], iou: Sequence[float | None]) -> dict[str, Any]:
    """The table per class of a run with one evaluation before its last."""
    scored = [value for value in iou if value is not None]
    means = {"miou": sum(scored) / len(scored), "pixel accuracy": 90.5}

    def row(name: str, values: Sequence[float | None], note: str = "") -> dict[str, Any]:
        by_class = dict(zip(names, values, strict=True))
        return {"name": name, "iou": by_class, "means": means, "note": note}

    before = [value and value - 3.5 for value in iou]
    change = [value and 3.5 for value in iou]
    return {
        "header": ["IoU in percent, source toy; a network", "9 images at 64x32"],
        "rows": [row("this run, last checkpoint", iou), row("previous evaluation", before),
                 row("change since", change, "a <note>")],
        "evaluation": {"confusion": CONFUSION if len(names) == 3 else None},
    }  # fmt: skip


def panel(domain: str, iteration: int, phase: str, names: Sequence[str]) -> StripFile:
    """A strip of noise."""
    rng = np.random.default_rng(iteration)
    captions = ["image", "ground truth", "prediction", "confidence: black 0, white 1"]
    if phase == "round 1":
        captions.insert(3, "static labels")
    pictures = {name: rng.integers(0, 256, (8, 16, 3), dtype=np.uint8) for name in captions}
    legend = {name: COLOURS[label % 3] for label, name in enumerate(names)}
    return StripFile(domain, 3, "town <3>", iteration, phase, pictures, legend)
