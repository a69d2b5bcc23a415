"""Strips of pictures as PNG files that a run leaves behind, one per image and iteration.

A file is made for people: titles above the pictures, the colours of the classes below. It also
says in its own text where which picture stands, so that a page can take it apart again.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from reference.pictures.paint import UNLABELLED, ByteArray, Colour

PANELS: Final = "panels"
_KEY: Final = "strip"
_INK, _SOFT, _PAPER = (29, 29, 27), (92, 92, 86), (255, 255, 255)
_GAP, _LINE, _SWATCH, _TEXT = 12, 22, 13, 14
_DIGITS: Final = 8


@dataclass(frozen=True)
class StripFile:
    """Pictures of one image at one moment of a run.

    Args:
        domain: which set the image is of, "source", "target" or "validation".
        index: number of the image in its set.
        stem: name of the image in its set.
        iteration: steps done.
        phase: name of the phase.
        pictures: caption -> pixels, from left to right, all of one size.
        legend: class -> colour.

    Shape:
        pictures (H, W, 3), uint8 RGB.
    """

    domain: str
    index: int
    stem: str
    iteration: int
    phase: str
    pictures: Mapping[str, ByteArray]
    legend: Mapping[str, Colour]

    @property
    def title(self) -> str:
        """One line for people."""
        return (
            f"{self.domain} image {self.index} ({self.stem}), iteration {self.iteration}, "
            f"phase: {self.phase}"
        )

    @property
    def place(self) -> Path:
        """Where the file lies below the folder of panels."""
        return Path(f"{self.domain}-{self.index}") / f"{self.iteration:0{_DIGITS}d}.png"


def strip_png(strip: StripFile) -> bytes:
    """Draw a strip with titles and legend.

    Args:
        strip: what to draw; at least one picture.

    Returns:
        bytes: a PNG file.

    Raises:
        ValueError: there is no picture, or they differ in size.
    """
    sizes = {picture.shape for picture in strip.pictures.values()}
    if len(sizes) != 1:
        raise ValueError(
            "strip_png: expected at least one picture, all of one size, got "
            f"{sorted(sizes) if sizes else 'none'}."
        )
    height, width = next(iter(sizes))[:2]
    font = ImageFont.load_default(_TEXT)
    across = len(strip.pictures) * (width + _GAP) - _GAP
    across = max(across, int(font.getlength(strip.title)) + 1)
    legend = _legend(across, font, strip.legend)
    top = _GAP + 2 * _LINE
    size = across + 2 * _GAP, top + height + _GAP + legend.height + _GAP
    sheet = Image.new("RGB", size, _PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((_GAP, _GAP + 8), strip.title, _INK, font, anchor="lm")
    boxes = {}
    for number, (caption, picture) in enumerate(strip.pictures.items()):
        left = _GAP + number * (width + _GAP)
        pen.text((left, _GAP + _LINE + 10), caption, _SOFT, font, anchor="lm")
        sheet.paste(Image.fromarray(picture), (left, top))
        boxes[caption] = (left, top, left + width, top + height)
    sheet.paste(legend, (_GAP, top + height + _GAP))
    names = "domain", "index", "stem", "iteration", "phase"
    words = {name: getattr(strip, name) for name in names}
    words |= {"boxes": boxes, "legend": {n: list(c) for n, c in strip.legend.items()}}
    text = PngInfo()
    text.add_text(_KEY, json.dumps(words))
    file = io.BytesIO()
    sheet.save(file, format="png", pnginfo=text)
    return file.getvalue()


def _legend(
    width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, legend: Mapping[str, Colour]
) -> Image.Image:
    """Draw the colours of classes with their names, in as many lines as they need."""
    places, left, top = [], 0, 0
    for name, colour in [*legend.items(), ("no label", UNLABELLED)]:
        wide = _SWATCH + 6 + int(font.getlength(name)) + 16
        if left and left + wide > width:
            left, top = 0, top + _LINE
        places.append((left, top, name, colour))
        left += wide
    drawn = Image.new("RGB", (width, top + _LINE), _PAPER)
    pen = ImageDraw.Draw(drawn)
    for left, top, name, colour in places:
        pen.rectangle((left, top + 3, left + _SWATCH, top + 3 + _SWATCH), colour, _SOFT)
        pen.text((left + _SWATCH + 6, top + 10), name, _INK, font, anchor="lm")
    return drawn


def read_strip(path: Path) -> StripFile:
    """Take a strip apart again.

    Args:
        path: a file of `strip_png`.

    Raises:
        ValueError: it is something else, or damaged.
    """
    try:
        with Image.open(path) as image:
            words = json.loads(image.info[_KEY])
            pixels = np.asarray(image.convert("RGB"))
        boxes = {name: tuple(map(int, box)) for name, box in words["boxes"].items()}
        return StripFile(
            domain=str(words["domain"]),
            index=int(words["index"]),
            stem=str(words["stem"]),
            iteration=int(words["iteration"]),
            phase=str(words["phase"]),
            pictures={
                name: pixels[top:bottom, left:right]
                for name, (left, top, right, bottom) in boxes.items()
            },
            legend={n: (int(r), int(g), int(b)) for n, (r, g, b) in words["legend"].items()},
        )
    except (OSError, ValueError, KeyError, TypeError, SyntaxError) as error:
        raise ValueError(
            f"read_strip: expected a panel of a run, got {path} ({type(error).__name__}). "
            "Hint: remove the file; the run draws new ones."
        ) from error
