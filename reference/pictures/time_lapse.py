"""One image over the time of a run, for the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from reference.data.classes import ByteArray
from reference.pictures.strip_files import StripFile
from reference.pictures.visualise import Panel, png_uri, spread_indices

_MOST_TIMES: Final = 6
_STILL: Final = ("image", "ground truth")
# Fewer shades of grey keep the page small.
_SHADE: Final = 8


@dataclass(frozen=True)
class TimeLapse:
    """One image over time.

    Args:
        title: names the image.
        still: what does not change.
        rows: caption -> pictures over time; None where there was none yet.
    """

    title: str
    still: list[Panel]
    rows: list[tuple[str, list[Panel | None]]]


def _picture(caption: str, alt: str, pixels: ByteArray) -> Panel:
    shades = pixels[..., 0]
    if alt.startswith("confidence"):
        return Panel(caption, png_uri((shades // _SHADE * _SHADE).astype(np.uint8)))
    return Panel(caption, png_uri(np.ascontiguousarray(pixels)), pixelated=alt != "image")


def time_lapse(strips: Sequence[StripFile]) -> TimeLapse:
    """Lay the panels of one image out: what does not change once, the rest over time.

    Args:
        strips: of one image in order of iterations, at least one; at most six, evenly spaced and
            always the last, are shown. Rows have a gap where a picture did not exist yet.
    """
    latest = strips[-1]
    count = len(strips)
    chosen = sorted({*spread_indices(count - 1, _MOST_TIMES - 1), count - 1})
    moving = dict.fromkeys(
        name for strip in (latest, *strips) for name in strip.pictures if name not in _STILL
    )
    return TimeLapse(
        title=f"{latest.domain} image {latest.index}, {latest.stem}",
        still=[
            _picture(name, name, latest.pictures[name])
            for name in _STILL
            if name in latest.pictures
        ],
        rows=[
            (
                name,
                [
                    _picture(f"iteration {strip.iteration}", name, strip.pictures[name])
                    if name in strip.pictures
                    else None
                    for strip in (strips[at] for at in chosen)
                ],
            )
            for name in moving
        ],
    )
