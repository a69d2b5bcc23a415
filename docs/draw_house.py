"""Draws the rooms of the library and who imports whom: `python docs/draw_house.py`."""

import ast
from pathlib import Path

from drawing import FEATURES, MUTED, PROTOTYPES, REGISTERS, WRITTEN, Paint, Picture

PACKAGE = Path(__file__).parents[1] / "protocontrast"
PICTURE = Path(__file__).parent / "pictures" / "house.svg"
SOURCES = {".py", ".c", ".h"}

Box = tuple[int, int, int, int]

# room: its place, its paint, and what it is for
ROOMS: dict[str, tuple[Box, Paint, str]] = {
    "__init__": ((40, 52, 560, 46), FEATURES, "the public names"),
    "bicl": ((225, 128, 190, 54), FEATURES, "the method, composed"),
    "losses": ((70, 216, 170, 54), FEATURES, "functions as modules"),
    "bank": ((400, 216, 170, 54), FEATURES, "modules with a state"),
    "functional": ((130, 304, 380, 54), PROTOTYPES, "public functions: check, reshape, reduce"),
    "ops": ((130, 392, 380, 54), REGISTERS, "operators of torch; chooses the backend"),
    "naive": ((40, 480, 128, 66), WRITTEN, "the specification"),
    "eager": ((184, 480, 128, 66), WRITTEN, "plain torch"),
    "native": ((328, 480, 128, 66), WRITTEN, "C, for CPUs"),
    "kernels": ((472, 480, 128, 66), WRITTEN, "Triton, for GPUs"),
    "module": ((640, 216, 150, 66), FEATURES, "what modules share"),
    "checks": ((640, 304, 150, 66), PROTOTYPES, "sentences of errors"),
    "calls": ((640, 480, 150, 66), WRITTEN, "what backends get"),
}
# What many rooms import is shown as a dot inside of those, not as an arrow.
DOTTED = ("module", "checks", "calls")
# The way of each arrow; a new import between rooms needs one.
WAYS: dict[tuple[str, str], list[tuple[int, int]]] = {
    ("__init__", "bicl"): [(320, 98), (320, 126)],
    ("__init__", "losses"): [(110, 98), (110, 214)],
    ("__init__", "bank"): [(530, 98), (530, 214)],
    ("__init__", "functional"): [(52, 98), (52, 331), (128, 331)],
    ("bicl", "bank"): [(390, 182), (425, 214)],
    ("bicl", "functional"): [(320, 182), (320, 302)],
    ("losses", "functional"): [(180, 270), (180, 302)],
    ("bank", "functional"): [(460, 270), (460, 302)],
    ("functional", "ops"): [(320, 358), (320, 390)],
    ("ops", "naive"): [(150, 446), (110, 478)],
    ("ops", "eager"): [(250, 446), (250, 478)],
    ("ops", "native"): [(390, 446), (390, 478)],
    ("ops", "kernels"): [(490, 446), (530, 478)],
}


def files_of(room: str) -> list[Path]:
    """Sources of a room, which is a file or a folder."""
    if (PACKAGE / f"{room}.py").is_file():
        return [PACKAGE / f"{room}.py"]
    return [path for path in sorted((PACKAGE / room).rglob("*")) if path.suffix in SOURCES]


def imported_by(room: str) -> set[str]:
    """Other rooms that a room imports."""
    found: set[str] = set()
    for path in files_of(room):
        tree = ast.parse(path.read_text("utf-8")) if path.suffix == ".py" else ast.Module([], [])
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module == PACKAGE.name:
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                package, _, rest = (node.module or "").partition(".")
                found |= {rest.split(".")[0]} if package == PACKAGE.name else set()
    return found & ROOMS.keys() - {room}


def size_of(room: str) -> str:
    """Files and lines, in hundreds where there are many, so that not every change moves them."""
    files = files_of(room)
    lines = sum(len(path.read_text("utf-8").splitlines()) for path in files)
    lines = max(10, round(lines, -1)) if lines < 500 else round(lines, -2)
    return f"{len(files)} file{'s' * (len(files) > 1)}, {lines:,} lines"


def house() -> Picture:
    """All rooms with their arrows."""
    picture = Picture("The house: imports point down", height=566, legend=())
    for room, (place, paint, purpose) in ROOMS.items():
        x, y, w, h = place
        picture.box(x, y, w, h, paint, dashed=room in DOTTED, rounded=6)
        name = "protocontrast" if room == "__init__" else room
        left = x + 12 + 14 * (room in DOTTED)
        picture.words(left, y + 20, name, weight=600)
        picture.words(x + 12, y + 38, purpose, size=11)
        low = h > 60
        at = (x + 12, y + 55) if low else (x + w - 12, y + 20)
        picture.note(*at, size_of(room), "start" if low else "end")
        used = imported_by(room)
        dots = [shared for shared in DOTTED if shared in used]
        for place_of_dot, shared in enumerate(reversed(dots)):
            picture.dot(
                x + w - 14 - 14 * place_of_dot, y + (16 if low else h - 12), ROOMS[shared][1]
            )
        if room in DOTTED:
            picture.dot(x + 16, y + 16, paint)
        for other in sorted(used - {*DOTTED}):
            picture.arrow(*WAYS[room, other])
    picture.words(640, 68, "An arrow: imports.", size=12)
    picture.words(640, 88, "A dot: imports the room", size=12)
    picture.words(640, 104, "of that colour, below.", size=12)
    picture.words(640, 130, "reference, benchmarks and", size=12, color=MUTED)
    picture.words(640, 146, "README know public names.", size=12, color=MUTED)
    return picture


def drawn() -> dict[str, str]:
    """The picture by file name."""
    return {PICTURE.name: house().svg()}


if __name__ == "__main__":
    PICTURE.write_text(drawn()[PICTURE.name], "utf-8")
