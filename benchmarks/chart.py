"""The picture of a run: time and memory of all contenders in copies of the features.

Written as text, so that the same numbers give the same file wherever it is drawn.
"""

import math
from html import escape
from typing import Any, NamedTuple

from benchmarks.cases import BOTH, LARGE, PROTOTYPES, RELEASED
from benchmarks.contenders import NUM_CLASSES
from benchmarks.measure import COPY
from benchmarks.operators import COMPILED, IN_TORCH, LIBRARY
from benchmarks.report import DEFAULT, NO_FAULTS, Key, Measured, number

INK, MUTED, PAPER, LINE = "#1f2328", "#656d76", "#ffffff", "#d8dee4"
OURS, COMPILE, PLAIN, TUNED, BY_CLASS = "#2f6db5", "#b8661b", "#656d76", "#2c7a3d", "#7443a6"
WIDTH, TOP, STEP, LABELS, PANEL, GAP = 960, 104, 26, 278, 300, 52
RADIUS = 5.0
HALO = 'stroke-width="3" paint-order="stroke"'


class Kind(NamedTuple):
    """A contender's name in the legend, its colour and its mark."""

    label: str
    color: str
    mark: str


KINDS = {
    LIBRARY: Kind("protocontrast", OURS, "dot"),
    COMPILED: Kind("torch.compile of eager", COMPILE, "diamond"),
    "eager": Kind("eager torch", PLAIN, "ring"),
    "tuned eager": Kind("the best other", TUNED, "bar"),
    "passes by class": Kind("the released trainer's way", BY_CLASS, "square"),
}
"""Contenders of other names are an eager composition if first, and else among the others."""


class Line(NamedTuple):
    """A label and the cases whose contenders stand on it."""

    label: str
    keys: tuple[Key, ...]


def _key(
    operator: str, gradient: str, channels: int, dtype: str = "float32", use: str = "",
    size: tuple[int, int] = LARGE, classes: int = NUM_CLASSES,
) -> Key:  # fmt: skip
    return use, operator, gradient, channels, classes, size, "NCHW", dtype


LINES = [
    Line("contrast, D = 64", (_key("contrast", "features", 64),)),
    Line("contrast, D = 256", (_key("contrast", "features", 256),)),
    Line("contrast, D = 64, bfloat16", (_key("contrast", "features", 64, "bfloat16"),)),
    Line("contrast and prototypes, D = 64", (
        _key("contrast", PROTOTYPES, 64), _key("contrast, libraries", PROTOTYPES, 64))),
    Line("class prototypes, D = 64", (_key("class_prototypes", "none", 64),)),
    Line("label transfer, D = 64", (_key("transfer_labels", "none", 64),)),
    Line("bidirectional step, D = 64", (_key("bidirectional step", BOTH, 64),)),
    Line("bidirectional step, D = 256", (_key("bidirectional step", BOTH, 256),)),
    Line("upsampled cross-entropy, C = 19", (_key("upsampled CE", "features", NUM_CLASSES),)),
    Line("BiCL, 92x92, D = 76: step", (
        _key("bidirectional step", BOTH, 76, use="bicl", size=RELEASED),
        _key("bidirectional step, by class", BOTH, 76, use="bicl", size=RELEASED))),
    Line("BiCL, 92x92, D = 76: released step", (
        _key("released step", BOTH, 76, use="bicl", size=RELEASED),)),
    Line("SPCL, 64x64, D = 2048: contrast", (
        _key("contrast", "features", 2048, use="spcl", size=(64, 64)),)),
    Line("SePiCo, 80x80, D = 512: contrast", (
        _key("contrast", "features", 512, use="sepico", size=(80, 80)),)),
    Line("ProDA, 128x112, D = 256: soft contrast", (
        _key("contrast, soft", "features", 256, use="proda, a quarter", size=(128, 112)),)),
    Line("ProtoSeg, 128x64, D = 720, C = 190", (
        _key("contrast", "features", 720, use="protoseg, a 16th", size=(128, 64),
             classes=190),)),
]  # fmt: skip


class Axis(NamedTuple):
    """A panel from `left`, logarithmic between two powers of ten."""

    title: str
    field: str
    left: float
    low: int
    high: int

    def place(self, value: float) -> float:
        """Where a value is, at the edge if it lies outside."""
        share = (math.log10(max(value, 1e-9)) - self.low) / (self.high - self.low)
        return self.left + PANEL * min(max(share, 0.0), 1.0)


def _mark(kind: Kind, x: float, y: float) -> str:
    r, color = RADIUS, kind.color
    if kind.mark == "dot":
        return f'<circle cx="{x:.1f}" cy="{y:g}" r="{r + 1:g}" fill="{color}"/>'
    if kind.mark == "ring":
        return (
            f'<circle cx="{x:.1f}" cy="{y:g}" r="{r - 0.5:g}" fill="{PAPER}" stroke="{color}" '
            'stroke-width="2"/>'
        )
    if kind.mark == "bar":
        return f'<rect x="{x - 1.5:.1f}" y="{y - 7:g}" width="3" height="14" fill="{color}"/>'
    if kind.mark == "square":
        return f'<rect x="{x - 4.5:.1f}" y="{y - 4.5:g}" width="9" height="9" fill="{color}"/>'
    corners = [(x, y - r - 1), (x + r + 1, y), (x, y + r + 1), (x - r - 1, y)]
    path = " ".join(f"{a:.1f},{b:g}" for a, b in corners)
    return f'<polygon points="{path}" fill="{color}"/>'


def _words(
    x: float, y: float, text: str, size: int = 12, color: str = INK, anchor: str = "start",
    weight: int = 400,
) -> str:  # fmt: skip
    return (
        f'<text x="{x:.1f}" y="{y:g}" font-size="{size}" fill="{color}" '
        f'text-anchor="{anchor}" font-weight="{weight}">{escape(text)}</text>'
    )


def values(measured: Measured, line: Line, field: str) -> dict[str, float]:
    """Figures by kind of contender; of those that share a kind the least, which is the best."""
    found: dict[str, float] = {}
    for key in line.keys:
        contenders = [c for c in measured.cases.get(key, []) if c not in (COPY, IN_TORCH)]
        plainest = next((c for c in contenders if c != LIBRARY), None)
        for contender in contenders:
            kind = contender
            if contender not in KINDS:
                first = contender == plainest and key == line.keys[0]
                kind = "eager" if first else "tuned eager"
            allocator = DEFAULT if field.startswith("peak") else NO_FAULTS
            value = measured.value(allocator, key, contender, field)
            if value is None or (kind == LIBRARY and kind in found):
                continue
            found[kind] = min(value, found.get(kind, value))
    return found


def _panel(measured: Measured, lines: list[Line], axis: Axis, bottom: float) -> list[str]:
    parts = [_words(axis.left, TOP - 26, axis.title, 13, weight=600)]
    for power in range(axis.low, axis.high + 1):
        x = axis.place(10.0**power)
        floor = power == 0
        stroke = f'stroke="{INK if floor else LINE}" stroke-width="{1.4 if floor else 1}"'
        parts.append(f'<line x1="{x:.1f}" y1="{TOP - 6}" x2="{x:.1f}" y2="{bottom:g}" {stroke}/>')
        parts.append(_words(x, TOP - 10, f"{10.0**power:g}", 11, MUTED, "middle"))
    for place, line in enumerate(lines):
        y = TOP + STEP * place + STEP / 2
        found = values(measured, line, axis.field)
        # Ours last, so that it lies above the others.
        for kind in sorted(found, key=lambda name: name == LIBRARY):
            parts.append(_mark(KINDS[kind], axis.place(found[kind]), y))
        if LIBRARY in found:
            x = axis.place(found[LIBRARY])
            fits = x > axis.left + 34
            label = _words(
                x - 10 if fits else x + 10, y + 4, number(found[LIBRARY]), 11, OURS,
                "end" if fits else "start", 600,
            )  # fmt: skip
            # Over the lines of the grid it stays legible.
            parts.append(label.replace("<text", f'<text stroke="{PAPER}" {HALO}', 1))
    return parts


def draw(stored: dict[str, Any]) -> str:
    """The SVG of the lines that were measured."""
    measured = Measured(stored["rows"])
    lines = [line for line in LINES if any(key in measured.cases for key in line.keys)]
    bottom = TOP + STEP * len(lines) + 4.0
    height = bottom + 30
    title = "Forward and backward in copies of the features"
    axes = [
        Axis("Time without page faults, in copies", "time_copies", LABELS, -1, 3),
        Axis("Peak memory, in copies", "peak_copies", LABELS + PANEL + GAP, -2, 3),
    ]
    parts = [_words(24, 30, title, 16, weight=600)]
    x = 24.0
    for kind in KINDS.values():
        parts += [_mark(kind, x + 6, 51), _words(x + 18, 55, kind.label)]
        x += 44 + 6.4 * len(kind.label)
    for place, line in enumerate(lines):
        y = TOP + STEP * place
        if place % 2 == 0:
            parts.append(
                f'<rect x="16" y="{y}" width="{WIDTH - 32}" height="{STEP}" fill="#f6f8fa"/>'
            )
        parts.append(_words(24, y + STEP / 2 + 4, line.label))
    for axis in axes:
        parts += _panel(measured, lines, axis, bottom)
    where = stored["environment"]
    made = f"{where['device']}, one thread, torch {where['torch']}, {where['date']}; less is better"
    parts.append(_words(24, bottom + 20, made, 11, MUTED))
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" '
        f'width="{WIDTH}" height="{height:g}" role="img" '
        'font-family="Helvetica, Arial, sans-serif">'
    )
    paper = f'<rect width="{WIDTH}" height="{height:g}" rx="8" fill="{PAPER}"/>'
    return "\n".join([head, f"<title>{escape(title)}</title>", paper, *parts, "</svg>"]) + "\n"
