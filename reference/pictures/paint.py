"""Label maps in the colours of their classes, and pictures that stand inside an HTML file."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

ByteArray = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]

UNLABELLED: Final[Colour] = (232, 232, 228)
_IGNORE: Final = 255


def colourise(labels: ByteArray, colours: Sequence[Colour]) -> ByteArray:
    """Paint class numbers in the colours of a class list; 255 becomes a light grey.

    Shape:
        labels (H, W). Result: (H, W, 3), uint8 RGB.

    Raises:
        ValueError: a value that is neither a class nor 255.

    Example:
        >>> colourise(np.array([[0, 255]], dtype=np.uint8), [(128, 64, 128)]).tolist()
        [[[128, 64, 128], [232, 232, 228]]]
    """
    table = np.full((256, 3), UNLABELLED, dtype=np.uint8)
    table[: len(colours)] = colours
    strange = labels[(labels >= len(colours)) & (labels != _IGNORE)]
    if strange.size:
        raise ValueError(
            f"colourise: expected class numbers 0..{len(colours) - 1} or {_IGNORE}, "
            f"got {int(strange[0])} in {strange.size} pixels."
        )
    return table[labels]


def grey(values: ByteArray) -> ByteArray:
    """Turn (H, W) uint8 into (H, W, 3) from black, 0, to white, 255."""
    return np.repeat(values[..., None], 3, axis=2)


def hexadecimal(colour: Sequence[int]) -> str:
    """Write red, green and blue, 0..255 each, as HTML does.

    Example:
        >>> hexadecimal((128, 64, 0))
        '#804000'
    """
    return "#" + "".join(f"{int(value):02x}" for value in colour)


def data_uri(pixels: ByteArray, *, photograph: bool = False) -> str:
    """Encode uint8 pixels, (H, W, 3), for the page.

    Args:
        pixels: the picture.
        photograph: as JPEG, which is a tenth of the size but not exact; else as PNG.
    """
    buffer = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(pixels))
    if photograph:
        image.save(buffer, format="JPEG", quality=85)
    else:
        image.save(buffer, format="PNG", optimize=True)
    kind = "jpeg" if photograph else "png"
    return f"data:image/{kind};base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def spread_indices(count: int, wanted: int) -> list[int]:
    """Pick evenly spaced indices: a fixed rule, so that no picture is chosen for its looks.

    Example:
        >>> spread_indices(100, 4)
        [12, 37, 62, 87]
    """
    wanted = min(count, wanted)
    return [(2 * place + 1) * count // (2 * wanted) for place in range(wanted)]
