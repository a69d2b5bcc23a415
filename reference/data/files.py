"""Picture files, read whole with Pillow or refused in one sentence.

PNG and JPEG, any case of the ending. A photograph is turned as its EXIF orientation says. Labels
come out as the numbers that the file holds; `reference.data.sets` reads them as classes.
"""

from __future__ import annotations

import os
import re
import stat
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from reference.data.classes import ByteArray

Size = tuple[int, int]
Places = npt.NDArray[np.int64]
Kind = Literal["ids", "deep", "red", "colours", "own"]

MOST_MEGAPIXELS: Final = 200
# A stem with the ending and the mark of a half-written file must fit into 255 bytes.
_FEW_PIXELS: Final = 8
_LONGEST_STEM: Final = 220
_ORIENTATION: Final = 0x0112
_SIDEWAYS: Final = range(5, 9)
_TAIL: Final = 1024
_ENDS: Final = {"PNG": b"IEND\xaeB`\x82", "JPEG": b"\xff\xd9"}
_AGAIN: Final = "unpack or download it again"


class DataError(ValueError):
    """A file or folder of a data set that cannot be used; the text is one sentence and a hint.

    Args:
        sentence: the whole text.
        kind: one or two words for programs, such as "truncated".
        path: the file or folder.
    """

    def __init__(self, sentence: str, kind: str = "", path: str = "") -> None:
        super().__init__(sentence, kind, path)
        self.kind, self.path = kind, path

    def __str__(self) -> str:
        """Return the sentence."""
        return str(self.args[0])


def refuse(kind: str, path: Path, wanted: str, got: str, hint: str) -> DataError:
    """Make the error of a file: "data: expected <path> <wanted>, got <got>. Hint: <hint>."."""
    sentence = f"data: expected {path} {wanted}, got {got}. Hint: {hint}."
    return DataError(sentence, kind, str(path))


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open a picture with its header read, and say what is wrong with it."""
    try:
        state = path.stat()
        if not stat.S_ISREG(state.st_mode):
            raise refuse("unreadable", path, "to be a file", "a folder, pipe or device", "move it")
        if state.st_size == 0:
            raise refuse("empty", path, "to be a picture", "0 bytes", _AGAIN)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            file = Image.open(path, formats=("PNG", "JPEG"))
        with file:
            pixels = file.width * file.height
            if pixels > MOST_MEGAPIXELS * 1_000_000:
                raise _bomb(path, f"{file.width}x{file.height}")
            yield file
    except FileNotFoundError as error:
        raise refuse("missing", path, "to be a picture", "none", "put it back") from error
    except Image.DecompressionBombError as error:
        raise _bomb(path, "a far larger one") from error
    except DataError:
        raise
    except (OSError, SyntaxError, EOFError, ValueError) as error:
        raise _damaged(path, error) from error


def _bomb(path: Path, got: str) -> DataError:
    wanted = f"to be a picture of at most {MOST_MEGAPIXELS} megapixels"
    return refuse("size", path, wanted, got, "scale it down")


def _damaged(path: Path, error: Exception) -> DataError:
    if isinstance(error, PermissionError):
        return refuse("unreadable", path, "to be readable", "no permission", "check its rights")
    if isinstance(error, UnidentifiedImageError):
        got, hint = "neither PNG nor JPEG", f"the file is damaged or no picture; {_AGAIN}"
        return refuse("unreadable", path, "to be a PNG or JPEG picture", got, hint)
    if "truncated" in str(error):
        hint = f"copying, unpacking or downloading stopped half-way; {_AGAIN}"
        return refuse("truncated", path, "to be a whole picture", "a file cut short", hint)
    got = f"an error in decoding ({error})"
    return refuse("unreadable", path, "to be a readable picture", got, f"it is damaged; {_AGAIN}")


def _orientation(file: Image.Image) -> int:
    return int(file.getexif().get(_ORIENTATION, 1)) if file.format == "JPEG" else 1


def picture_size(path: Path) -> Size:
    """Return (height, width) of a picture as it is shown; only its header is read.

    Raises:
        DataError: the file is empty or no picture.
    """
    with _opened(path) as file:
        turned = _orientation(file) in _SIDEWAYS
        return (file.width, file.height) if turned else (file.height, file.width)


def check_ends(path: Path) -> None:
    """Read the head and the end of a picture, without decoding it.

    Raises:
        DataError: the file is empty, no picture, or lacks its end.
    """
    with _opened(path) as file:
        end = _ENDS.get(file.format or "", b"")
    with path.open("rb") as raw:
        raw.seek(max(0, raw.seek(0, os.SEEK_END) - _TAIL))
        if end not in raw.read():
            raise _damaged(path, OSError("truncated"))


def read_image(path: Path) -> ByteArray:
    """Read an image, uint8 (H, W, 3), RGB, turned as a viewer shows it.

    Raises:
        DataError: the file is missing, empty, damaged, too large, or has no colours.
    """
    with _opened(path) as file:
        # Labels are never JPEG, so a grey JPEG is a photograph and a grey PNG a mistake.
        grey = file.format == "JPEG" and file.mode in ("L", "CMYK")
        if file.mode not in ("RGB", "RGBA") and not grey:
            hint = "labels and images are in each other's place, or another tool changed the file"
            raise refuse("mode", path, "to be an RGB picture", f"Pillow mode {file.mode}", hint)
        turn = _orientation(file)
        if turn != 1:
            from PIL import ImageOps

            ImageOps.exif_transpose(file, in_place=True)
        return np.array(file if file.mode == "RGB" else file.convert("RGB"))


@dataclass(frozen=True)
class Reading:
    """How the values of a label file become class numbers.

    Args:
        kind: "ids" are grey or palette numbers; "deep" the red channel of 16 bits; "red" that of 8
            bits; "colours" an RGB picture; "own" ids or colours, whichever the file holds.
        table: class number, or 255, of each value.
        allowed: values that may occur; None allows every one.
        colours: class number of each colour, written as red * 65536 + green * 256 + blue.
    """

    kind: Kind
    table: ByteArray
    allowed: frozenset[int] | None
    colours: Mapping[int, int]


def read_labels(path: Path, reading: Reading) -> ByteArray:
    """Read a label file as class numbers, uint8 (H, W), 255 where nothing is scored.

    Args:
        path: the PNG file.
        reading: what its values mean.

    Raises:
        DataError: the file is missing, empty, damaged, of another kind, or holds another value.
    """
    kind = reading.kind
    with _opened(path) as file:
        coloured = file.mode in ("RGB", "RGBA")
        if kind == "own":
            kind = "colours" if coloured else "ids"
        deep = "16" in str(getattr(file, "tile", ""))
        if kind == "deep":
            if not (deep and coloured):
                got = f"{16 if deep else 8}-bit {file.mode}"
                raise refuse("bit depth", path, "to be a 16-bit RGB PNG", got, TRAP)
            # OpenCV returns what it could decode; Pillow compares every checksum.
            file.verify()
        elif coloured != (kind != "ids") or file.mode not in ("L", "P", "I;16", "RGB", "RGBA"):
            wanted = "to hold one number per pixel" if kind == "ids" else "to be an RGB picture"
            hint = "images and labels are in each other's place, or a tool has changed the file"
            if coloured:
                hint = "the file holds colours instead of class ids; use the files as downloaded"
            raise refuse("mode", path, wanted, f"Pillow mode {file.mode}", hint)
        else:
            pixels = np.array(file)
    if kind == "colours":
        return _by_colour(path, pixels, reading.colours)
    if kind == "deep":
        pixels = _red_of_sixteen_bits(path)
    elif kind == "red":
        pixels = np.ascontiguousarray(pixels[..., 0])
    _require_known(path, pixels, reading)
    if pixels.dtype != np.uint8:
        pixels = np.minimum(pixels, len(reading.table) - 1)
    return np.take(reading.table, pixels)


def _require_known(path: Path, values: npt.NDArray[Any], reading: Reading) -> None:
    if reading.allowed is None:
        return
    if values.dtype == np.uint8:
        # Ten times as fast as numpy's count, on a path that every training image takes.
        counts = Image.fromarray(values).histogram()
        strange = [(x, n) for x, n in enumerate(counts) if n and x not in reading.allowed]
    else:
        pairs = zip(*np.unique(values, return_counts=True), strict=True)
        strange = [(int(x), int(n)) for x, n in pairs if int(x) not in reading.allowed]
    if strange:
        most = max(reading.allowed - {255}, default=0)
        wanted = f"to hold ids 0..{most}" + (" or 255" if 255 in reading.allowed else "")
        hint = "the file uses another numbering of classes; use the files as downloaded"
        got = f"{strange[0][0]} in {strange[0][1]} pixels"
        raise refuse("ids", path, wanted, got, TRAP if reading.kind == "deep" else hint)


TRAP: Final = (
    "SYNTHIA labels have 16 bits per channel, which most tools cut to 8 when they save; use the "
    "files of SYNTHIA-RAND-CITYSCAPES (CVPR16) as downloaded"
)


def _red_of_sixteen_bits(path: Path) -> npt.NDArray[Any]:
    # Everything else in the recipe reads without it; Pillow would keep the upper 8 bits.
    import cv2

    data = np.frombuffer(path.read_bytes(), np.uint8)
    pixels: npt.NDArray[Any] | None = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise _damaged(path, OSError("OpenCV decodes nothing"))
    # OpenCV stores blue first, so that the first channel of the file is its third.
    return np.ascontiguousarray(pixels[..., 2])


def _by_colour(path: Path, pixels: ByteArray, colours: Mapping[int, int]) -> ByteArray:
    if not colours:
        hint = "give the classes label_colours, or labels of one number per pixel"
        raise refuse("mode", path, "to hold one number per pixel", "colours", hint)
    packed = pixels[..., 0].astype(np.int32) << 16
    packed |= pixels[..., 1].astype(np.int32) << 8
    packed |= pixels[..., 2]
    known = np.array(sorted(colours), dtype=np.int32)
    places = np.minimum(np.searchsorted(known, packed), len(known) - 1)
    strange = known[places] != packed
    if strange.any():
        red, rest = divmod(int(packed[strange][0]), 65536)
        got = f"({red}, {rest >> 8}, {rest & 255}) in {int(strange.sum())} pixels"
        hint = "the file was smoothed or scaled, or its colours are those of another list"
        raise refuse("ids", path, "to hold the colours of classes alone", got, hint)
    return np.array([colours[int(colour)] for colour in known], dtype=np.uint8)[places]


def nearest(shape: tuple[int, ...], size: Size) -> tuple[Places, Places]:
    """Return the rows and columns that a nearest-neighbour scaling takes, centre to centre.

    Args:
        shape: (height, width) before, pixels.
        size: (height, width) afterwards, pixels.

    Returns:
        int64 (height,) and (width,).
    """
    rows, columns = (
        np.minimum(((np.arange(new) + 0.5) * (old / new)).astype(np.int64), old - 1)
        for old, new in zip(shape, size, strict=True)
    )
    return rows, columns


def resize_labels(labels: ByteArray, size: Size) -> ByteArray:
    """Scale labels, uint8 (H, W), by nearest neighbour."""
    if labels.shape == size:
        return labels
    rows, columns = nearest(labels.shape, size)
    return labels[rows[:, None], columns]


def resize_image(pixels: ByteArray, size: Size) -> ByteArray:
    """Scale an image, uint8 (H, W, 3): by averaging areas to a smaller size, else bilinearly."""
    if pixels.shape[:2] == size:
        return pixels
    # A set that is trained on at its own size needs no OpenCV.
    import cv2

    shrinks = size[0] <= pixels.shape[0] and size[1] <= pixels.shape[1]
    # A bilinear filter of OpenCV looks at 4 pixels only, and aliases when it shrinks.
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(pixels, size[::-1], interpolation=how), dtype=np.uint8)


def fit_labels(path: Path, labels: ByteArray, shape: Size) -> ByteArray:
    """Return labels that belong to an image of some size.

    A few pixels of difference, as in some frames of GTA5, are scaled away; labels of a whole
    multiple of the image's size, as beside a smaller copy, stay as they are.

    Raises:
        DataError: the sizes differ by more.
    """
    height, width = labels.shape
    off = abs(height - shape[0]), abs(width - shape[1])
    if off == (0, 0):
        return labels
    times = round(height / shape[0])
    if times > 1 and max(abs(height - times * shape[0]), abs(width - times * shape[1])) <= times:
        return labels
    if max(off) <= _FEW_PIXELS or (off[0] <= 0.01 * shape[0] and off[1] <= 0.01 * shape[1]):
        return resize_labels(labels, shape)
    wanted = f"of size {shape[1]}x{shape[0]} as its image"
    hint = "image and labels are not of one frame; unpack both again"
    raise refuse("size", path, wanted, f"{width}x{height}", hint)


_ANY_IMAGE: Final = r"\.(?i:png|jpe?g)"
_ANY_LABEL: Final = r"\.(?i:png)"


def find_files(
    root: Path, pattern: str, split: str, *, labels: bool
) -> dict[tuple[str, ...], Path]:
    """Find files by a pattern such as "leftImg8bit/{split}/{place}/{stem}_leftImg8bit".

    ``{split}`` stands for the split, ``{path}`` for folders and a name, every other name in braces
    for one part of a path. Endings of any case are taken, hidden files and folders are not.

    Args:
        root: folder of the set.
        pattern: of paths below it, without the ending.
        split: as the set writes it.
        labels: look for PNG alone, not also for JPEG.

    Returns:
        The parts that the pattern names, sorted by name -> file.
    """
    filled = pattern.replace("{split}", split)
    fixed = filled.partition("{")[0].rpartition("/")[0]
    start = root / fixed if fixed else root
    pieces = re.split(r"\{(\w+)\}", filled)
    expression = "".join(
        re.escape(piece)
        if place % 2 == 0
        else f"(?P<{piece}>{'.+' if piece == 'path' else '[^/]+'})"
        for place, piece in enumerate(pieces)
    )
    wanted = re.compile(expression + (_ANY_LABEL if labels else _ANY_IMAGE))
    deepest = None if "{path}" in filled else filled.count("/")
    found: dict[tuple[str, ...], Path] = {}
    for path in walk(start, None if deepest is None else deepest - len(Path(fixed).parts)):
        match = wanted.fullmatch(path.relative_to(root).as_posix())
        if match is not None:
            key = tuple(value for _, value in sorted(match.groupdict().items()))
            if key in found:
                got = f"also {found[key].name}"
                raise refuse("extra", path, "to be alone of its name", got, "remove one of them")
            found[key] = path
    return dict(sorted(found.items()))


def walk(folder: Path, depth: int | None) -> Iterator[Path]:
    """Yield the files below a folder, links followed once, hidden ones left out."""
    seen: set[tuple[int, int]] = set()
    for base, folders, names in os.walk(folder, followlinks=True):
        state = os.stat(base)
        if (state.st_dev, state.st_ino) in seen:
            folders.clear()
            continue
        seen.add((state.st_dev, state.st_ino))
        here = Path(base)
        if depth is not None and len(here.relative_to(folder).parts) >= depth:
            folders.clear()
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (here / name for name in names if not name.startswith("."))


def require_short_names(stems: Iterable[tuple[str, Path]]) -> None:
    """Refuse a name that would leave no room for the files that are named after it."""
    for stem, path in stems:
        length = len(os.fsencode(stem))
        if length > _LONGEST_STEM:
            wanted = f"to have a name of at most {_LONGEST_STEM} bytes"
            raise refuse("name", path, wanted, str(length), "rename it and its labels")
