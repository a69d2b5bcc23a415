"""The first and last bytes of a picture file: enough to know its size, and whether it is whole.

Pillow hides that a PNG holds 16 bits per channel, and decoding 25 000 files takes minutes where
reading their headers takes seconds.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Final

from PIL import Image

from reference.data.faults import Fault, refuse

_PNG: Final = b"\x89PNG\r\n\x1a\n"
_PNG_END: Final = b"IEND\xaeB`\x82"
_JPEG: Final = b"\xff\xd8\xff"
_JPEG_END: Final = b"\xff\xd9"
_HEAD: Final = 33
# The end mark is looked for in this many last bytes, since a tool may have added some after it.
_TAIL: Final = 1024
_COLOURS: Final = {0: "grey", 2: "RGB", 3: "palette", 4: "grey and alpha", 6: "RGB and alpha"}
_AGAIN: Final = "unpack or download it again"


@dataclass(frozen=True)
class Header:
    """What the head of a picture file says.

    Args:
        size: (height, width), pixels.
        bit_depth: bits per channel.
        colours: "grey", "RGB", "palette", "grey and alpha" or "RGB and alpha".
    """

    size: tuple[int, int]
    bit_depth: int
    colours: str

    def __str__(self) -> str:
        """Say it in words, such as "8-bit palette"."""
        return f"{self.bit_depth}-bit {self.colours}"


def _jpeg_header(caller: str, path: Path, data: bytes) -> Header:
    try:
        with Image.open(BytesIO(data)) as file:
            return Header((file.height, file.width), 8, "RGB" if file.mode == "RGB" else "grey")
    except OSError as error:
        raise refuse(caller, truncated(path)) from error


def _unreadable(path: Path, found: str) -> Fault:
    return Fault(
        "unreadable", path, "to be a readable picture", found, "the file is damaged", _AGAIN
    )


def parse_header(caller: str, path: Path, head: bytes) -> Header:
    """Read the header of a PNG or JPEG file from its bytes.

    Args:
        caller: begins the sentence when the file is refused.
        path: names the file.
        head: at least its first 33 bytes, for a JPEG file all of them.

    Raises:
        DataError: no bytes, neither PNG nor JPEG, or a header that is cut short.
    """
    if not head:
        cause = "the file was not written to its end"
        fault = Fault("empty", path, "to be a picture", "0 bytes", cause, _AGAIN)
        raise refuse(caller, fault)
    if head.startswith(_JPEG):
        return _jpeg_header(caller, path, head)
    if head[:8] != _PNG[: len(head)]:
        raise refuse(caller, _unreadable(path, "a file that is neither PNG nor JPEG"))
    if len(head) < _HEAD:
        raise refuse(caller, truncated(path))
    width, height, bit_depth, kind = struct.unpack(">IIBB", head[16:26])
    return Header((height, width), bit_depth, _COLOURS.get(kind, f"colour type {kind}"))


def truncated(path: Path) -> Fault:
    """Return the fault of a file that lacks its end."""
    cause = "copying, unpacking or downloading stopped half-way"
    return Fault("truncated", path, "to be a whole picture", "a file cut short", cause, _AGAIN)


def damaged(path: Path, error: Exception) -> Fault:
    """Return the fault of a file that has its end and yet cannot be decoded.

    Args:
        path: the file.
        error: what the decoder said.
    """
    return _unreadable(path, f"an error in decoding ({error})")


def has_end(data: bytes) -> bool:
    """Whether the last bytes of a file hold the end mark of its format.

    Args:
        data: the whole file, or of a PNG file its last 1024 bytes.
    """
    end = _JPEG_END if data.startswith(_JPEG) else _PNG_END
    return end in data[-_TAIL:]


def read_header(caller: str, path: Path) -> Header:
    """Read the head and the end of a file, without decoding it.

    Args:
        caller: begins the sentence when the file is refused.
        path: a PNG or JPEG file.

    Raises:
        DataError: the file is empty, no picture, or lacks its end.
        OSError: the file cannot be opened.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
        if head.startswith(_JPEG):
            head += file.read()
            tail = head
        else:
            end = file.seek(0, 2)
            file.seek(max(0, end - _TAIL))
            tail = file.read()
    header = parse_header(caller, path, head)
    if not has_end(tail):
        raise refuse(caller, truncated(path))
    return header
