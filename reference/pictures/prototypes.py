"""The idea of BiCL in a picture: where the prototypes of both domains lie, moment by moment.

Only directions count in the contrast, so every prototype is drawn at unit length. The plane is
that of the two largest principal components of all prototypes that are shown, the same for every
moment. It keeps a part of the variance; the cosines leave nothing out.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from markupsafe import Markup
from PIL import Image, ImageChops, ImageDraw
from torch import Tensor

import protocontrast as pc
from reference.pictures.svg import drawn

Points = npt.NDArray[np.float64]
Box = tuple[float, float, float, float]
Line = tuple[tuple[float, float], tuple[float, float]]
# (class, kind) -> place in the drawing.
_Spots = dict[tuple[int, str], Points]

_SIDE, _EDGE, _TEXT = 400.0, 34.0, 16.0
# Where a name may stand: (x, y) of its nearer end from its point, the nearest places first.
_PLACES: Final = [
    (reach * math.cos(angle), reach * math.sin(angle))
    for reach in (11, 20, 32, 46, 64, 84, 108)
    # Beside the point, then ever steeper.
    for angle in sorted(np.arange(-11, 13) * math.pi / 12, key=lambda a: round(abs(math.sin(a)), 6))
]


@dataclass(frozen=True)
class Prototypes:
    """Prototypes of both domains at one moment, (C, D) each, and which of them are known, (C,).

    `calibrated` are source prototypes moved by the domain bias; None where there is no bias.
    """

    source: Tensor
    target: Tensor
    calibrated: Tensor | None
    source_present: Tensor
    target_present: Tensor

    @property
    def classes(self) -> list[int]:
        """Numbers of the classes with a prototype in either domain."""
        return _numbers(self.source_present | self.target_present)

    def cosines(self) -> Tensor:
        """Return the cosine of every source prototype (row) with every target one, (C, C)."""
        return _units(self.source) @ _units(self.target).T


def _numbers(present: Tensor) -> list[int]:
    return [label for label, known in enumerate(present.tolist()) if known]


def _units(rows: Tensor) -> Tensor:
    return F.normalize(rows.detach().cpu().double(), dim=1)


def prototypes_of(state: Mapping[str, Any], *, calibrate: bool = True) -> Prototypes | None:
    """Read prototypes out of a state that holds two banks as `protocontrast.BiCL` does, or None.

    The banks may lie at any depth. `calibrate` says whether the method moves source prototypes.
    """
    key = "source_bank.prototypes"
    front = next((name.removesuffix(key) for name in state if name.endswith(key)), None)
    if front is None or f"{front}target_bank.prototypes" not in state:
        return None
    banks = [f"{front}{name}_bank" for name in ("source", "target")]
    source, target = (state[f"{bank}.prototypes"] for bank in banks)
    calibrated = None
    if calibrate and f"{front}domain_bias.bias" in state:
        bias = pc.DomainBias(*source.shape)
        names = "bias", "present", "count"
        bias.load_state_dict({name: state[f"{front}domain_bias.{name}"] for name in names})
        calibrated = bias.calibrate(source)
    return Prototypes(source, target, calibrated, *(state[f"{bank}.present"] for bank in banks))


class Alignment(NamedTuple):
    """How well the domains agree: mean cosines, and how many classes are nearest their own."""

    own: float
    other: float
    nearest_own: int
    classes: int


def alignment(moment: Prototypes) -> Alignment | None:
    """Measure how well the domains agree; None where fewer than two classes are in both."""
    shared = _numbers(moment.source_present & moment.target_present)
    if len(shared) < 2:
        return None
    cosines = moment.cosines()[shared][:, shared]
    own = cosines.diag()
    other = cosines.clone().fill_diagonal_(-2).max(dim=1).values
    return Alignment(float(own.mean()), float(other.mean()), int((own > other).sum()), len(shared))


def _spots(moments: Sequence[Prototypes]) -> tuple[list[_Spots], float]:
    """Project all prototypes, moment by moment, and tell the share of variance that is kept."""
    rows = {
        (at, label, kind): _units(table[label : label + 1])[0].numpy()
        for at, moment in enumerate(moments)
        for kind, table, present in (
            ("source", moment.source, moment.source_present),
            ("calibrated", moment.calibrated, moment.source_present & moment.target_present),
            ("target", moment.target, moment.target_present),
        )
        if table is not None
        for label in _numbers(present)
    }
    cloud = np.stack([row for (_, _, kind), row in rows.items() if kind != "calibrated"])
    middle = cloud.mean(axis=0)
    # Two rows of zeros, so that one prototype alone has a plane as well.
    centred = np.concatenate([cloud - middle, np.zeros((2, cloud.shape[1]))])
    _, lengths, axes = np.linalg.svd(centred, full_matrices=False)
    axes = axes[:2]
    # A component has no sign of its own; this one does not turn the picture from run to run.
    largest = np.abs(axes).argmax(axis=1)
    axes = axes * np.sign(axes[np.arange(len(axes)), largest])[:, None]
    flat = np.zeros((len(rows), 2))
    flat[:, : len(axes)] = (np.stack([*rows.values()]) - middle) @ axes.T
    extent = np.ptp(flat, axis=0)
    span = max(float(extent.max()), 1e-9)
    gap = (span - extent) / 2
    flat = _EDGE + (_SIDE - 2 * _EDGE) * (flat - flat.min(axis=0) + gap) / span
    flat[:, 1] = _SIDE - flat[:, 1]
    places: list[_Spots] = [{} for _ in moments]
    for (at, label, kind), spot in zip(rows, flat, strict=True):
        places[at][label, kind] = spot
    squares = lengths**2
    return places, float(squares[:2].sum() / max(float(squares.sum()), 1e-30))


class Name(NamedTuple):
    """Where a name stands, and the line that leads to it where it would be taken for another's."""

    box: Box
    leader: Line | None


def _around(point: Points, half: float) -> Box:
    x, y = map(float, point)
    return x - half, y - half, x + half, y + half


def _distance(box: Box, point: Points) -> float:
    (left, top, right, bottom), (x, y) = box, point
    return float(np.hypot(max(left - x, x - right, 0), max(top - y, y - bottom, 0)))


def place_names(spots: Mapping[str, Sequence[Points]]) -> dict[str, Name]:
    """Find room for a name beside the first point of each class.

    No name covers another, a point or the edge; no leader crosses another, a name or the point of
    another class. A name nearer to such a point than to its own has a leader. A name without room
    is left out.
    """
    points = [(name, point) for name, own in spots.items() for point in own]
    # What a name keeps off, and what a leader does, as pixels.
    taken, crossed = (Image.new("L", (int(_SIDE), int(_SIDE))) for _ in range(2))
    for _, point in points:
        ImageDraw.Draw(taken).rectangle(_around(point, 6), 255)
    placed: dict[str, Name] = {}
    crowd = {n: sum(np.abs(own[0] - p).max() < 40 for _, p in points) for n, own in spots.items()}
    for name in sorted(spots, key=lambda name: -crowd[name]):
        wide = 0.62 * _TEXT * len(name)
        x, y = map(float, spots[name][0])
        others = [point for other, point in points if other != name]
        barred = crossed.copy()
        for point in others:
            # A leader that ran through another point would seem to begin there.
            if np.abs(point - spots[name][0]).max() > 8:
                ImageDraw.Draw(barred).rectangle(_around(point, 5), 255)
        for right, down in _PLACES:
            left, middle = x + right - (wide if right < 0 else 0), y + down
            top, bottom = middle - 0.5 * _TEXT, middle + 0.5 * _TEXT
            box = (left, top, left + wide, bottom)
            wider = (left - 1, top - 1, left + wide + 1, bottom + 1)
            if min(box) < 2 or max(box) > _SIDE - 2 or taken.crop(wider).getbbox():
                continue
            away = min(_distance(box, point) for point in spots[name])
            leader, line = None, Image.new("L", taken.size)
            if away > 16 or any(_distance(box, point) <= away for point in others):
                leader = (x, y), (left if right > 0 else left + wide, middle)
                ImageDraw.Draw(line).line(leader, 255, width=3)
            if not ImageChops.multiply(line, barred).getbbox():
                placed[name] = Name(box, leader)
                for pixels in (taken, crossed):
                    pixels.paste(255, mask=line)
                    ImageDraw.Draw(pixels).rectangle(box, 255)
                break
    return placed


def _drawing(title: str, spots: _Spots, classes: Sequence[tuple[str, str]]) -> Markup:
    shown, own = [], {}
    for label, (name, colour) in enumerate(classes):
        points = [spots.get((label, kind)) for kind in ("source", "target", "calibrated")]
        shown.append((name, colour, *points))
        if seen := [point for point in points if point is not None]:
            own[name] = seen
    names = []
    for name, ((left, top, right, bottom), leader) in place_names(own).items():
        begins = left + right > 2 * own[name][0][0]
        end, anchor = (left, "start") if begins else (right, "end")
        names.append((name, end, (top + bottom) / 2 + 5.5, anchor, leader))
    return drawn("plane", title=title, side=_SIDE, classes=shown, names=names)


def planes(
    titles: Sequence[str], moments: Sequence[Prototypes], classes: Sequence[tuple[str, str]]
) -> tuple[list[Markup], float]:
    """Draw several moments in one common plane, and tell the share of variance that it keeps.

    `classes` has the name and the colour in CSS of every class of the run.
    """
    spots, kept = _spots(moments)
    return [_drawing(t, where, classes) for t, where in zip(titles, spots, strict=True)], kept


def cosine_rows(moment: Prototypes) -> tuple[list[int], list[list[float | None]]]:
    """List the classes of either domain, and per source class its cosines with target classes."""
    classes = moment.classes
    cosines = moment.cosines()[classes][:, classes]
    known = (moment.source_present[classes][:, None] & moment.target_present[classes][None]).cpu()
    rows = torch.where(known, cosines, torch.nan).tolist()
    return classes, [[None if value != value else value for value in row] for row in rows]
