"""How alike prototypes of both domains are: cosines of source with target ones."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from reference.data.classes import NAMES
from reference.pictures.charts import INK, as_svg, drawing
from reference.pictures.domain_prototypes import Prototypes


def similarity_matrix(title: str, moment: Prototypes) -> str:
    """Draw the cosines of source prototypes (rows) with target prototypes (columns).

    Args:
        title: stands above it.
        moment: prototypes; only classes of either domain are shown, grey where there is no pair.

    Returns:
        str: an ``<svg>`` element.
    """
    classes = moment.classes
    cosines = moment.cosines()[classes][:, classes]
    known = moment.source_present[classes][:, None] & moment.target_present[classes][None]
    count = len(classes)
    with drawing(title):
        figure = Figure(figsize=(5.2, 4.9), layout="constrained")
        axes = figure.add_subplot()
        shown = np.ma.masked_array(cosines.numpy(), ~known.cpu().numpy())
        axes.set_facecolor("#ecece8")
        mesh = axes.pcolormesh(
            shown, cmap="RdBu_r", vmin=-1, vmax=1, edgecolors="white", linewidth=0.5
        )
        for row in range(count):
            for column in range(count):
                if known[row, column]:
                    value = float(cosines[row, column])
                    axes.text(
                        column + 0.5, row + 0.5, f"{value:.2f}".replace("0.", ".", 1),
                        ha="center", va="center", in_layout=False,
                        fontsize=5.5 if count > 14 else 7,
                        fontweight="bold" if row == column else "normal",
                        color="white" if abs(value) > 0.7 else INK,
                    )  # fmt: skip
        names = [NAMES[label] for label in classes]
        middles = [number + 0.5 for number in range(count)]
        axes.set_xticks(middles, names, rotation=90, fontsize=7.5)
        axes.set_yticks(middles, names, fontsize=7.5)
        axes.tick_params(length=0)
        axes.invert_yaxis()
        axes.set_aspect("equal")
        axes.spines[:].set_visible(False)
        axes.set(xlabel="target", ylabel="source")
        axes.set_title(title, loc="left", fontsize=10, fontweight="bold", color=INK)
        figure.colorbar(mesh, ax=axes, shrink=0.7, label="cosine", ticks=[-1, -0.5, 0, 0.5, 1])
        return as_svg(figure, title)
