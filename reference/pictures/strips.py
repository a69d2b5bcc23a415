"""Label maps in their colours, in strips of pictures as PNG files and in HTML.

A strip is one image at one iteration of a run. It is made for people: titles above the pictures,
the colours of the classes below. It also says in its own text where which picture stands, so that
a page can take it apart again.
"""

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from reference.data.classes import ByteArray, Colour
from reference.data.settings import refusal

UNLABELLED: Final[Colour] = (120, 120, 120)


def colourise(labels: ByteArray, colours: Sequence[Colour]) -> ByteArray:
    """Paint class numbers, (H, W), as RGB, (H, W, 3); 255 becomes a mid grey.

    Example:
        >>> colourise(np.array([[0, 255]], dtype=np.uint8), [(128, 64, 128)]).tolist()
        [[[128, 64, 128], [120, 120, 120]]]
    """
    table = np.full((256, 3), UNLABELLED, dtype=np.uint8)
    table[: len(colours)] = colours
    return table[labels]


def hexadecimal(colour: Sequence[int]) -> str:
    """Write red, green and blue, 0..255 each, as HTML does: #804000."""
    return "#" + bytes(colour).hex()


def data_uri(pixels: ByteArray, *, photograph: bool = False) -> str:
    """Encode (H, W, 3) for a page: exactly as PNG, a photograph as JPEG at a tenth of the size."""
    kind, options = ("jpeg", {"quality": 85}) if photograph else ("png", {"optimize": True})
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


_KEY: Final = "strip"
_INK, _SOFT, _PAPER = (29, 29, 27), (92, 92, 86), (255, 255, 255)
_GAP, _LINE, _SWATCH, _TEXT = 12, 22, 13, 14


@dataclass(frozen=True)
class StripFile:
    """Pictures of one image, number `index` of a set, at one moment of a run.

    `pictures` are uint8 RGB (H, W, 3) by caption, from left to right, all of one size; `domain` is
    "source", "target" or "validation".
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
        where = f"{self.domain} image {self.index} ({self.stem})"
        return f"{where}, iteration {self.iteration}, phase: {self.phase}"

    @property
    def place(self) -> Path:
        """Where the file lies below the folder of panels."""
        return Path(f"{self.domain}-{self.index}") / f"{self.iteration:08d}.png"


def strip_png(strip: StripFile) -> bytes:
    """Draw a strip with titles and legend as a PNG file."""
    height, width = next(iter(strip.pictures.values())).shape[:2]
    font = ImageFont.load_default(_TEXT)
    across = len(strip.pictures) * (width + _GAP) - _GAP
    across = max(across, int(font.getlength(strip.title)) + 1)
    # Names of classes stand in as many lines as they need.
    names, left, down = [], 0, 0
    for name, colour in [*strip.legend.items(), ("no label", UNLABELLED)]:
        wide = _SWATCH + 6 + int(font.getlength(name)) + 16
        if left and left + wide > across:
            left, down = 0, down + _LINE
        names.append((_GAP + left, down, name, colour))
        left += wide
    top = _GAP + 2 * _LINE
    below = top + height + _GAP
    sheet = Image.new("RGB", (across + 2 * _GAP, below + down + _LINE + _GAP), _PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((_GAP, _GAP + 8), strip.title, _INK, font, anchor="lm")
    boxes = {}
    for number, (caption, picture) in enumerate(strip.pictures.items()):
        left = _GAP + number * (width + _GAP)
        pen.text((left, _GAP + _LINE + 10), caption, _SOFT, font, anchor="lm")
        sheet.paste(Image.fromarray(picture), (left, top))
        boxes[caption] = (left, top, left + width, top + height)
    for left, down, name, colour in names:
        y = below + down
        pen.rectangle((left, y + 3, left + _SWATCH, y + 3 + _SWATCH), colour, _SOFT)
        pen.text((left + _SWATCH + 6, y + 10), name, _INK, font, anchor="lm")
    words = {**vars(strip), "pictures": None, "boxes": boxes, "legend": dict(strip.legend)}
    text, file = PngInfo(), io.BytesIO()
    text.add_text(_KEY, json.dumps(words))
    sheet.save(file, format="png", pnginfo=text)
    return file.getvalue()


def read_strip(path: Path) -> StripFile:
    """Take a strip apart again."""
    try:
        with Image.open(path) as image:
            words = json.loads(image.info[_KEY])
            pixels = np.asarray(image.convert("RGB"))
        pictures = {
            name: pixels[top:bottom, left:right]
            for name, (left, top, right, bottom) in words.pop("boxes").items()
        }
        legend = {name: (r, g, b) for name, (r, g, b) in words["legend"].items()}
        return StripFile(**{**words, "pictures": pictures, "legend": legend})
    except (OSError, ValueError, KeyError, TypeError, SyntaxError, AttributeError) as error:
        got, hint = f"{path} ({type(error).__name__})", "remove the file; the run draws new ones"
        raise refusal("read_strip", "a panel", got, "of a run", hint) from error
