"""Label maps in the colours of their classes, and pictures that stand inside an HTML file."""

import base64
import io
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

ByteArray = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]

UNLABELLED: Final[Colour] = (120, 120, 120)
_IGNORE: Final = 255


def colourise(labels: ByteArray, colours: Sequence[Colour]) -> ByteArray:
    """Paint class numbers, (H, W), as RGB, (H, W, 3); 255 becomes a mid grey.

    Raises:
        ValueError: a value that is neither a class nor 255.

    Example:
        >>> colourise(np.array([[0, 255]], dtype=np.uint8), [(128, 64, 128)]).tolist()
        [[[128, 64, 128], [120, 120, 120]]]
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
    """Write red, green and blue, 0..255 each, as HTML does: #804000."""
    return "#" + bytes(colour).hex()


def data_uri(pixels: ByteArray, *, photograph: bool = False) -> str:
    """Encode (H, W, 3) for a page: exactly as PNG, a photograph as JPEG at a tenth of the size."""
    kind, options = ("jpeg", {"quality": 85}) if photograph else ("png", {"optimize": True})
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
