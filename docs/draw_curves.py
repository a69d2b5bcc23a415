"""Measures and draws what threshold and temperature do to labels by prototypes.

    python -m reference.train toy --stages source-only --folder runs/curves
    python docs/draw_curves.py runs/curves      # measures, stores docs/results/curves.json, draws
    python docs/draw_curves.py                  # draws again from what is stored

Labels of the target are read, so this is a diagnosis of a source network, and chooses nothing.
"""

import json
import sys
from pathlib import Path
from typing import Any

from drawing import FEATURES, MUTED, PROTOTYPES, Paint, Picture

DOCS = Path(__file__).parent
STORED = DOCS / "results" / "curves.json"
IMAGES = 60
THRESHOLD, TEMPERATURE = 0.8, 0.1
CURVES: dict[str, tuple[float, ...]] = {
    "confidence": (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
    "similarity": (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95),
    "temperature": (0.02, 0.03, 0.05, 0.07, 0.1, 0.15),
}
COVERAGE, RIGHT = FEATURES, PROTOTYPES
FEW = 1.0
"""Coverage in % below which too few pixels are left to say how many are right."""


def measure(run: Path) -> dict[str, Any]:
    """Coverage and share of right labels, in %, at every point of every curve."""
    sys.path.insert(0, str(DOCS.parent))
    import torch

    import protocontrast as pc
    from reference.data.batches import passes
    from reference.networks.tensor_files import read_stored
    from reference.probe import Probe
    from reference.run.folder import LAST, SETTINGS, from_plain
    from reference.run.ranks import joined
    from reference.run.state import State
    from reference.settings import Settings

    settings = from_plain(Settings, json.loads((run / SETTINGS).read_text("utf-8")))
    probe = Probe(run, settings, IMAGES)
    source, size = probe.sets.source, settings.reporting.size
    with joined(settings.machine) as ranks, torch.no_grad():
        state = State(settings, probe.sets, ranks, read_stored(run / LAST))
        network = state.network.eval()
        size_of_bank = network.num_classes, network.feature_dim
        bank = pc.PrototypeBank(*size_of_bank, normalize="features")

        def seen(images: Any, which: Any) -> Any:
            for batch in passes(images, size, which):
                features = state.see(network, batch.images).features
                yield features, pc.labels_to_grid(batch.labels, features.shape[2:])

        bank.fit(seen(source, range(len(source))))
        pairs = []
        for features, labels in seen(probe.images, probe.chosen):
            cosine = pc.prototype_logits(
                features, bank.prototypes, present=bank.present, temperature=1.0
            )
            pairs.append((cosine[:, :, labels[0] != 255][0], labels[labels != 255]))
    cosine = torch.cat([each for each, _ in pairs], dim=1)
    truth = torch.cat([each for _, each in pairs])
    nearest, right = cosine.max(dim=0)
    right = right == truth

    def point(measured: Any, threshold: float) -> list[float]:
        kept = measured >= threshold
        good = right[kept].double().mean() if kept.any() else torch.zeros(())
        return [round(100 * float(share), 1) for share in (kept.double().mean(), good)]

    def sure(temperature: float) -> Any:
        return (cosine / temperature).softmax(dim=0).amax(dim=0)

    return {
        "images": IMAGES,
        "seed": settings.seed,
        "confidence": [[x, *point(sure(TEMPERATURE), x)] for x in CURVES["confidence"]],
        "similarity": [[x, *point(nearest, x)] for x in CURVES["similarity"]],
        "temperature": [[x, *point(sure(x), THRESHOLD)] for x in CURVES["temperature"]],
    }


def panel(picture: Picture, left: int, points: list[list[float]], title: str, unit: str) -> None:
    """Both curves over evenly spaced points."""
    width, top, height = 290, 84, 180
    picture.words(left, 62, title, size=13, weight=600)
    for percent in (0, 25, 50, 75, 100):
        y = top + height * (1 - percent / 100)
        picture.parts.append(
            f'<line x1="{left}" y1="{y:g}" x2="{left + width}" y2="{y:g}" stroke="{MUTED}" '
            'stroke-width="0.4"/>'
        )
        picture.note(left - 8, y + 4, f"{percent} %", "end")
    step = width / (len(points) - 1)
    for column, paint in ((1, COVERAGE), (2, RIGHT)):
        places = [
            (left + step * at, top + height * (1 - point[column] / 100))
            for at, point in enumerate(points)
            if column == 1 or point[1] >= FEW
        ]
        line = " ".join(f"{x:g},{y:g}" for x, y in places)
        picture.parts.append(
            f'<polyline points="{line}" fill="none" stroke="{paint.line}" stroke-width="2"/>'
        )
        for place in places:
            picture.dot(*place, paint)
    for at, point in enumerate(points):
        picture.note(left + step * at, top + height + 18, f"{point[0]:g}")
    picture.note(left + width / 2, top + height + 38, unit)


def curves(panels: list[tuple[list[list[float]], str, str]], title: str) -> Picture:
    legend: tuple[tuple[Paint, str], ...] = (
        (COVERAGE, "pixels with a label"),
        (RIGHT, "of those, right"),
    )
    picture = Picture(title, height=360, legend=legend)
    for place, (points, name, unit) in enumerate(panels):
        panel(picture, 74 + 400 * place, points, name, unit)
    return picture


def drawn() -> dict[str, str]:
    """Pictures by file name."""
    stored = json.loads(STORED.read_text("utf-8"))
    threshold = curves(
        [
            (stored["confidence"], 'measure="confidence"', "threshold, at temperature 0.1"),
            (stored["similarity"], 'measure="similarity"', "threshold, a cosine"),
        ],
        "Labels by the nearest prototype: fewer and better with the threshold",
    )
    temperature = curves(
        [(stored["temperature"], 'measure="confidence"', "temperature, at threshold 0.8")],
        "The same threshold at another temperature",
    )
    for line, text in enumerate(
        (
            "At a small temperature the softmax is near 0 or 1:",
            "more pixels pass the threshold, and fewer of",
            "those are right. At 0.15 none passes.",
        )
    ):
        temperature.words(420, 130 + 22 * line, text)
    return {"threshold.svg": threshold.svg(), "temperature.svg": temperature.svg()}


if __name__ == "__main__":
    if len(sys.argv) > 1:
        found = measure(Path(sys.argv[1]))
        STORED.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    for name, svg in drawn().items():
        (DOCS / "pictures" / name).write_text(svg, "utf-8")
