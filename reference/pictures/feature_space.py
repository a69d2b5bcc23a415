"""The idea of BiCL in a picture: where the prototypes of both domains lie, moment by moment.

Only directions count in the contrast, so every prototype is drawn at unit length. The plane is
that of the two largest principal components of all prototypes that are shown, the same for
every moment, so that moments can be compared. A plane keeps a part of the variance, which stands
at its axes; the matrix of cosines (`cosine_matrix`) leaves nothing out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from reference.data.classes import NAMES, PALETTE
from reference.pictures.charts import INK, as_svg, drawing
from reference.pictures.domain_prototypes import Prototypes, units

Points = npt.NDArray[np.float64]

_SIZES: Final = {"source": 52, "calibrated": 26, "target": 52}
_MARKS: Final = {"source": "o", "calibrated": "D", "target": "s"}


@dataclass(frozen=True)
class _Plane:
    """Two principal components, and the share of the variance that each keeps."""

    middle: Points
    axes: Points
    kept: tuple[float, float]

    def __call__(self, row: Points) -> tuple[float, float]:
        x, y = (row - self.middle) @ self.axes.T
        return float(x), float(y)


def _plane(moments: Sequence[Prototypes]) -> _Plane:
    rows = []
    for moment in moments:
        rows.append(units(moment.source)[moment.source_present.cpu()])
        rows.append(units(moment.target)[moment.target_present.cpu()])
    cloud = torch.cat(rows).numpy()
    # Two more rows of zeros, so that one prototype alone has a plane as well.
    middle = cloud.mean(axis=0) if len(cloud) else np.zeros(cloud.shape[1])
    centred = np.concatenate([cloud - middle, np.zeros((2, cloud.shape[1]))])
    _, lengths, axes = np.linalg.svd(centred, full_matrices=False)
    variance = lengths**2 / max(float((lengths**2).sum()), 1e-30)
    axes = axes[:2]
    # A component has no sign of its own; this one does not turn the picture from run to run.
    largest = np.abs(axes).argmax(axis=1)
    axes = axes * np.sign(axes[np.arange(len(axes)), largest])[:, None]
    return _Plane(middle, axes, (float(variance[0]), float(variance[1])))


def _hex(label: int) -> str:
    red, green, blue = PALETTE[label].tolist()
    return f"#{red:02x}{green:02x}{blue:02x}"


def _room_for(name: str, spot: Points, taken: Points, unit: float) -> tuple[float, float, str]:
    """Return where a name stands: the side of its point that has the most room around it."""
    wide, high = 0.62 * unit * len(name), unit
    best, found = -1.0, (0.0, 0.0, "left")
    for x, side in ((0.9, "left"), (-0.9, "right")):
        for y in (0.0, 0.9, -0.9, 1.8, -1.8):
            at = spot + unit * np.array([x, y])
            middle = at + np.array([wide / 2 if side == "left" else -wide / 2, 0.0])
            apart = np.abs(taken - middle) / np.array([wide / 2 + unit, high])
            free = float(min(apart.max(axis=1).min(), 1.2)) if len(taken) else 1.2
            free -= 0.02 * abs(y)
            if free > best:
                best, found = free, (float(at[0]), float(at[1]), side)
    return found


def _name_points(axes: Axes, names: Mapping[str, Points], points: Points, unit: float) -> None:
    taken = points
    for name, spot in names.items():
        x, y, side = _room_for(name, spot, taken, unit)
        axes.annotate(
            name,
            (float(spot[0]), float(spot[1])),
            (x, y),
            ha=side,
            va="center",
            fontsize=8,
            color=INK,
            zorder=5,
        )
        half = 0.31 * unit * len(name) * (1 if side == "left" else -1)
        middle = np.array([[x + part * half, y] for part in (0.3, 1.0, 1.7)])
        taken = np.concatenate([taken, middle])


def feature_space(titles: Sequence[str], moments: Sequence[Prototypes]) -> list[str]:
    """Draw prototypes of both domains at several moments in one common plane.

    A line joins the source prototype of a class to its target prototype; an arrow leads from the
    source prototype to where calibration moves it.

    Args:
        titles: one per moment.
        moments: prototypes, all of one width D >= 2; classes without one are left out.

    Returns:
        list: an ``<svg>`` element per moment.
    """
    plane = _plane(moments)
    spots = [_spots(moment, plane) for moment in moments]
    cloud = np.array([spot for places in spots for spot in places.values()]).reshape(-1, 2)
    low, high = (cloud.min(axis=0), cloud.max(axis=0)) if len(cloud) else (-np.ones(2), np.ones(2))
    span = max(float((high - low).max()), 1e-6)
    # A square, so that lengths compare across both axes; names need room at the sides.
    ends = [(float(m - 0.58 * span), float(m + 0.58 * span)) for m in (low + high) / 2]
    charts = []
    for title, moment, places in zip(titles, moments, spots, strict=True):
        with drawing(title):
            figure = Figure(figsize=(5.2, 4.6), layout="constrained")
            axes = figure.add_subplot()
            _draw_classes(axes, moment.classes, places)
            own = {key: spot for key, spot in places.items() if key[1] != "calibrated"}
            names: dict[str, Points] = {}
            for (label, domain), spot in own.items():
                if domain == "source" or (label, "source") not in own:
                    names[NAMES[label]] = spot
            _name_points(axes, names, np.array([*own.values()]).reshape(-1, 2), 0.028 * span)
            axes.set_title(title, loc="left", fontsize=10, fontweight="bold", color=INK)
            for axis, share in zip("xy", plane.kept, strict=True):
                number = 1 if axis == "x" else 2
                axes.set(**{f"{axis}label": f"component {number}, {share:.0%} of the variance"})
            axes.set(xlim=ends[0], ylim=ends[1], xticks=[], yticks=[])
            axes.set_aspect("equal")
            axes.spines[["top", "right"]].set_visible(False)
            handles = [
                Line2D([], [], linestyle="", marker=_MARKS[name], color="#8a8a84", label=name,
                       markersize=6 if name != "calibrated" else 4.5)
                for name in _MARKS
                if any(key[1] == name for key in places)
            ]  # fmt: skip
            if handles:
                axes.legend(handles=handles, frameon=False, fontsize=8, loc="best")
            charts.append(as_svg(figure, title))
    return charts


def _spots(moment: Prototypes, plane: _Plane) -> dict[tuple[int, str], Points]:
    """Where every prototype of a moment lies: (train id, kind) -> (x, y)."""
    kinds = {
        "source": (moment.source, moment.source_present),
        "calibrated": (moment.calibrated, moment.source_present & moment.target_present),
        "target": (moment.target, moment.target_present),
    }
    found: dict[tuple[int, str], Points] = {}
    for kind, (rows, present) in kinds.items():
        if rows is not None:
            directions = units(rows).numpy()
            for label in present.nonzero().flatten().tolist():
                found[label, kind] = np.array(plane(directions[label]))
    return found


def _draw_classes(
    axes: Axes, classes: Sequence[int], places: Mapping[tuple[int, str], Points]
) -> None:
    for label in classes:
        colour = _hex(label)
        source, target = places.get((label, "source")), places.get((label, "target"))
        calibrated = places.get((label, "calibrated"))
        if source is not None and target is not None:
            axes.plot(*zip(source, target, strict=True), color=colour, linewidth=1.2, alpha=0.55)
        if source is not None and calibrated is not None:
            axes.annotate(
                "", tuple(calibrated), tuple(source),
                arrowprops={"arrowstyle": "-|>", "color": INK, "linewidth": 1.0,
                            "shrinkA": 0, "shrinkB": 0, "mutation_scale": 6},
                zorder=4,
            )  # fmt: skip
        for kind, spot in (("source", source), ("calibrated", calibrated), ("target", target)):
            if spot is not None:
                axes.scatter(
                    spot[:1], spot[1:], s=_SIZES[kind], marker=_MARKS[kind], color=colour,
                    edgecolors="white", linewidths=0.8, zorder=3,
                )  # fmt: skip
