"""What all reports have in common: one self-contained HTML file from a template.

Pictures are data URIs and charts inline SVG, so the file can be mailed and opened offline.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from reference.data.classes import NAMES, PALETTE
from reference.experiments.verdict import signed
from reference.pictures.cosine_matrix import similarity_matrix
from reference.pictures.domain_prototypes import Prototypes, alignment
from reference.pictures.feature_space import feature_space
from reference.pictures.visualise import UNLABELLED_COLOUR


def hexadecimal(colour: Sequence[int]) -> str:
    """Write red, green and blue, 0..255 each, as HTML does."""
    return "#" + "".join(f"{int(value):02x}" for value in colour)


def swatches(classes: Iterable[int]) -> list[tuple[str, str]]:
    """List names and colours of classes for a legend, with that of pixels without a label."""
    known = [(NAMES[label], hexadecimal(PALETTE[label])) for label in classes]
    return [*known, ("no label", hexadecimal(UNLABELLED_COLOUR))]


def flattened(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """List nested settings as (dotted name, value).

    Example:
        >>> flattened({"data": {"shift": 0.6}, "seed": 0})
        [('data.shift', '0.6'), ('seed', '0')]
    """
    lines: list[tuple[str, str]] = []
    for name, value in settings.items():
        if isinstance(value, Mapping):
            lines += flattened(value, f"{prefix}{name}.")
        else:
            lines.append((f"{prefix}{name}", str(value)))
    return lines


@dataclass(frozen=True)
class FeatureSpace:
    """The section about prototypes.

    Args:
        about: which moments these are and where they come from, whole sentences.
        planes: a chart per moment.
        rows: per moment with two classes or more in both domains, "title" and the fields of
            `prototypes.Alignment`.
        matrices: a chart per moment.
    """

    about: str
    planes: list[Markup]
    rows: list[dict[str, Any]]
    matrices: list[Markup]


def feature_space_section(
    about: str, titles: Sequence[str], moments: Sequence[Prototypes]
) -> FeatureSpace:
    """Draw the section about prototypes.

    Args:
        about: as in `FeatureSpace`.
        titles: one per moment.
        moments: at least one.
    """
    measured = [(title, alignment(moment)) for title, moment in zip(titles, moments, strict=True)]
    return FeatureSpace(
        about=about,
        planes=[Markup(chart) for chart in feature_space(titles, moments)],
        rows=[{"title": title, **vars(found)} for title, found in measured if found is not None],
        matrices=[
            Markup(similarity_matrix(f"Cosines: {title[0].lower()}{title[1:]}", moment))
            for title, moment in zip(titles, moments, strict=True)
        ],
    )


def compose(template: str, **values: Any) -> str:
    """Fill a template of this folder.

    Args:
        template: its file name.
        values: what it shows; a missing one is an error.

    Returns:
        str: an HTML document that refers to nothing outside itself.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["signed"] = signed
    return environment.get_template(template).render(**values)
