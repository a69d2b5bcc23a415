"""Picture files, read whole with Pillow or refused in one sentence (`DataError`).

PNG and JPEG, any case of the ending. A photograph is turned as its EXIF orientation says.
"""

import os
import re
import stat
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from reference.data.classes import IGNORE, ByteArray
from reference.data.settings import LONGEST, Size

Places = npt.NDArray[np.int64]
Kind = Literal["ids", "deep", "red", "colours", "own"]

_FEW_PIXELS: Final = 8
# Every network here takes images whose sides are multiples of it.
_MULTIPLE: Final = 8
_ORIENTATION: Final = 0x0112
_SIDEWAYS: Final = range(5, 9)
_TAIL: Final = 1024
_ENDS: Final = {"PNG": b"IEND\xaeB`\x82", "JPEG": b"\xff\xd9"}
_AGAIN: Final = "unpack or download it again"
_SWAPPED: Final = "images and labels are in each other's place, or a tool has changed the file"
TRAP: Final = (
    "SYNTHIA labels have 16 bits per channel, which most tools cut to 8 when they save; use the "
    "files of SYNTHIA-RAND-CITYSCAPES (CVPR16) as downloaded"
)


class DataError(ValueError):
    """A file or folder of a data set that cannot be used, in one sentence with a hint."""


def refuse(path: Path, wanted: str, got: str, hint: str) -> DataError:
    return DataError(f"data: expected {path} {wanted}, got {got}. Hint: {hint}.")


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open a picture with its header read, and say what is wrong with it."""
    try:
        state = path.stat()
        if not stat.S_ISREG(state.st_mode):
            raise refuse(path, "to be a file", "a folder, pipe or device", "move it")
        if state.st_size == 0:
            raise refuse(path, "to be a picture", "0 bytes", _AGAIN)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            file = Image.open(path, formats=("PNG", "JPEG"))
        with file:
            yield file
    except FileNotFoundError as error:
        raise refuse(path, "to be a picture", "none", "put it back") from error
    except Image.DecompressionBombError as error:
        wanted = f"to be of at most {2 * (Image.MAX_IMAGE_PIXELS or 0) // 10**6} megapixels"
        got = str(error).split(" exceeds")[0]
        raise refuse(path, wanted, got, "scale it down") from error
    except DataError:
        raise
    except (OSError, SyntaxError, EOFError, ValueError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> DataError:
    if isinstance(error, PermissionError):
        return refuse(path, "to be readable", "no permission", "check its rights")
    if isinstance(error, UnidentifiedImageError):
        got, hint = "neither PNG nor JPEG", f"the file is damaged or no picture; {_AGAIN}"
        return refuse(path, "to be a PNG or JPEG picture", got, hint)
    if "truncated" in str(error):
        hint = f"copying, unpacking or downloading stopped half-way; {_AGAIN}"
        return refuse(path, "to be a whole picture", "a file cut short", hint)
    got = f"an error in decoding ({error})"
    return refuse(path, "to be a readable picture", got, f"it is damaged; {_AGAIN}")


def _orientation(file: Image.Image) -> int:
    return int(file.getexif().get(_ORIENTATION, 1)) if file.format == "JPEG" else 1


def picture_size(path: Path) -> Size:
    """Return (height, width) of a picture as it is shown; only its header is read."""
    with _opened(path) as file:
        turned = _orientation(file) in _SIDEWAYS
        return (file.width, file.height) if turned else (file.height, file.width)


def check_ends(path: Path) -> None:
    """Read the head and the end of a picture, without decoding it."""
    with _opened(path) as file:
        end = _ENDS.get(file.format or "", b"")
    with path.open("rb") as raw:
        raw.seek(max(0, raw.seek(0, os.SEEK_END) - _TAIL))
        if end not in raw.read():
            raise _damaged(path, OSError("truncated"))


def read_image(path: Path, *, any_mode: bool = False) -> ByteArray:
    """Read an image, uint8 (H, W, 3), RGB, turned as a viewer shows it.

    `any_mode`: take grey and palette pictures as well, which among images of a set are labels.
    """
    with _opened(path) as file:
        # Labels are never JPEG, so a grey JPEG is a photograph and a grey PNG a mistake.
        grey = file.format == "JPEG" and file.mode in ("L", "CMYK")
        if file.mode not in ("RGB", "RGBA") and not grey and not any_mode:
            raise refuse(path, "to be an RGB picture", f"Pillow mode {file.mode}", _SWAPPED)
        if _orientation(file) != 1:
            ImageOps.exif_transpose(file, in_place=True)
        if file.mode.startswith("I"):
            # Of 16 bits the upper ones, as of RGB pictures; Pillow would cut off above 255.
            return np.repeat((np.array(file) >> 8).astype(np.uint8)[..., None], 3, axis=-1)
        return np.array(file if file.mode == "RGB" else file.convert("RGB"))


class Reading(NamedTuple):
    """How the values of a label file become class numbers."""

    # "ids" are grey or palette numbers; "deep" the red channel of 16 bits; "red" that of 8 bits;
    # "colours" an RGB picture; "own" ids or colours, whichever the file holds
    kind: Kind
    table: ByteArray  # class number, or 255, of each value
    allowed: frozenset[int] | None  # values that may occur; None allows every one
    colours: Mapping[int, int]  # class of each colour, written as red << 16 | green << 8 | blue


def read_labels(path: Path, reading: Reading) -> ByteArray:
    """Read a label file as class numbers, uint8 (H, W), 255 where nothing is scored."""
    kind = reading.kind
    with _opened(path) as file:
        coloured = file.mode in ("RGB", "RGBA")
        if kind == "own":
            kind = "colours" if coloured else "ids"
        deep = any("16" in str(tile[3]) for tile in getattr(file, "tile", ()))
        if kind == "deep":
            if not (deep and coloured):
                got = f"{16 if deep else 8}-bit {file.mode}"
                raise refuse(path, "to be a 16-bit RGB PNG", got, TRAP)
            # OpenCV returns what it could decode; Pillow compares every checksum.
            file.verify()
        elif coloured != (kind != "ids") or file.mode not in ("L", "P", "I;16", "RGB", "RGBA"):
            wanted = "to hold one number per pixel" if kind == "ids" else "to be an RGB picture"
            hint = "the file holds colours instead of class ids; use the files as downloaded"
            got = f"Pillow mode {file.mode}"
            raise refuse(path, wanted, got, hint if coloured else _SWAPPED)
        else:
            pixels = np.array(file)
    if kind == "colours":
        return _by_colour(path, pixels, reading)
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
    # Ten times as fast as numpy's count, on a path that every training image takes.
    fast = values.dtype == np.uint8
    counts = Image.fromarray(values).histogram() if fast else np.bincount(values.ravel())
    strange = [(x, n) for x, n in enumerate(counts) if n and x not in reading.allowed]
    if strange:
        most = max(reading.allowed - {IGNORE}, default=0)
        wanted = f"to hold ids 0..{most}" + (" or 255" if IGNORE in reading.allowed else "")
        hint = "the file uses another numbering of classes; use the files as downloaded"
        got = f"{strange[0][0]} in {strange[0][1]} pixels"
        raise refuse(path, wanted, got, TRAP if reading.kind == "deep" else hint)


def _red_of_sixteen_bits(path: Path) -> npt.NDArray[Any]:
    # Everything else in the recipe reads without it; Pillow would keep the upper 8 bits.
    import cv2

    data = np.frombuffer(path.read_bytes(), np.uint8)
    pixels: npt.NDArray[Any] | None = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise _damaged(path, OSError("OpenCV decodes nothing"))
    # OpenCV stores blue first, so that the first channel of the file is its third.
    return np.ascontiguousarray(pixels[..., 2])


def _by_colour(path: Path, pixels: ByteArray, reading: Reading) -> ByteArray:
    colours = reading.colours
    red, green, blue = (pixels[..., channel].astype(np.int32) for channel in range(3))
    packed = red << 16 | green << 8 | blue
    known = np.array(sorted(colours), dtype=np.int32)
    places = np.minimum(np.searchsorted(known, packed), len(known) - 1)
    strange = packed[known[places] != packed]
    if len(strange):
        first = int(strange[0])
        got = f"({first >> 16}, {first >> 8 & 255}, {first & 255}) in {len(strange)} pixels"
        hint = "the file was smoothed or scaled, or its colours are those of another list"
        if reading.kind == "own":
            hint += '; {"void": [[r, g, b]]} in the list of classes names colours without a score'
        raise refuse(path, "to hold the colours of classes alone", got, hint)
    return np.array([colours[int(colour)] for colour in known], dtype=np.uint8)[places]


def nearest(shape: tuple[int, ...], size: Size) -> tuple[Places, Places]:
    """Return the rows and columns that a nearest-neighbour scaling takes, centre to centre."""
    rows, columns = (
        np.minimum(((np.arange(new) + 0.5) * (old / new)).astype(np.int64), old - 1)
        for old, new in zip(shape, size, strict=True)
    )
    return rows, columns


def whole_size(shape: Size, size: Size, scale: float = 1.0) -> Size:
    """Return the (height, width) at which an image of `shape` is seen whole.

    That is `size` times `scale`. With a width of 0 the image keeps its shape: `size[0]` times
    `scale` is then its short side, and both sides are rounded to multiples of 8.

    Example:
        >>> whole_size((375, 1242), (240, 320)), whole_size((375, 1242), (240, 0))
        ((240, 320), (240, 792))
    """
    height, width = size
    if width:
        return round(height * scale), round(width * scale)
    factor = height * scale / min(shape) / _MULTIPLE
    high, wide = (_MULTIPLE * max(1, round(side * factor)) for side in shape)
    return high, wide


def require_short(path: Path, shape: Size, scaled: Size, at: str) -> None:
    """Refuse, by its name, an image of `shape` that has too long a side once it is `scaled`."""
    if max(scaled) > LONGEST:
        wanted = f"to have sides of at most {LONGEST} pixels at a short side of {at}"
        got = f"{in_pixels(shape)}, which becomes {in_pixels(scaled)}"
        raise refuse(path, wanted, got, "leave it out")


def shapes(paths: Iterable[Path]) -> Iterator[tuple[Path, Size]]:
    """The (height, width) of pictures; broken ones are left out."""
    for path in paths:
        with suppress(DataError):
            yield path, picture_size(path)


def require_whole(paths: Iterable[Path], size: Size, scale: float = 1.0) -> None:
    """Refuse, by its name, an image with too long a side in `whole_size`; broken ones are not."""
    for path, shape in () if size[1] else shapes(paths):
        require_short(path, shape, whole_size(shape, size, scale), str(size[0]))


def in_pixels(size: Size) -> str:
    """Say a size of whole images, width first."""
    height, width = size
    return f"{width}x{height}" if width else f"a short side of {height}"


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
    """Return labels that belong to an image of size `shape`.

    A few pixels of difference, as in some frames of GTA5, are scaled away; labels of a whole
    multiple of the image's size, as beside a smaller copy, stay as they are; others are refused.
    """

    def off(times: int) -> list[int]:
        return [abs(a - times * b) for a, b in zip(labels.shape, shape, strict=True)]

    times = round(labels.shape[0] / shape[0])
    if off(1) == [0, 0] or (times > 1 and max(off(times)) <= times):
        return labels
    if max(off(1)) <= _FEW_PIXELS or all(
        few <= 0.01 * side for few, side in zip(off(1), shape, strict=True)
    ):
        return resize_labels(labels, shape)
    wanted, got = (f"{width}x{height}" for height, width in (shape, labels.shape))
    hint = "they are not of one frame; GTA5 holds a few such pairs, of other sets unpack both again"
    raise refuse(path, f"of size {wanted} as its image", got, hint)


def find_files(
    root: Path, pattern: str, split: str, *, labels: bool
) -> dict[tuple[str, ...], Path]:
    """Find PNG files, and JPEG where they are no labels, by a pattern as in `layouts`.

    ``{path}`` stands for folders and a name, every other name in braces for one part of a path.
    Endings of any case are taken, hidden files and folders are not. The keys of the answer are the
    parts that the pattern names, in the order of those names.
    """
    filled = pattern.replace("{split}", split)
    fixed = filled.partition("{")[0].rpartition("/")[0]
    expression = "".join(
        re.escape(piece) if n % 2 == 0 else rf"(?P<{piece}>{'.+' if piece == 'path' else '[^/]+'})"
        for n, piece in enumerate(re.split(r"\{(\w+)\}", filled))
    )
    wanted = re.compile("(?s)" + expression + (r"\.(?i:png)" if labels else r"\.(?i:png|jpe?g)"))
    depth = None if "{path}" in filled else filled.count("/") - len(Path(fixed).parts)
    found: dict[tuple[str, ...], Path] = {}
    for path in walk(root / fixed, depth):
        match = wanted.fullmatch(path.relative_to(root).as_posix())
        if match is not None:
            key = tuple(value for _, value in sorted(match.groupdict().items()))
            if key in found:
                got = f"also {found[key].name}"
                raise refuse(path, "to be alone of its name", got, "remove one of them")
            found[key] = path
    return dict(sorted(found.items()))


def walk(folder: Path, depth: int | None) -> Iterator[Path]:
    """Yield the files below a folder, links followed once and never upwards, none hidden."""
    seen = {parent.resolve() for parent in folder.absolute().parents} | {*folder.resolve().parents}
    for base, folders, names in os.walk(folder, followlinks=True):
        here, real = Path(base), Path(base).resolve()
        again = real in seen
        seen.add(real)
        if again or (depth is not None and len(here.relative_to(folder).parts) >= depth):
            folders.clear()
        below = (name for name in folders if (here / name).resolve() not in real.parents)
        folders[:] = sorted(name for name in below if not name.startswith("."))
        yield from (here / name for name in names if not (again or name.startswith(".")))
