"""Writes the table of docs/guides/memory.md: `python docs/memory_table.py`.

What a call adds to the features that it is given, from shapes alone; a test holds it to the memory
that `make bench` measured.
"""

import math
import re
from pathlib import Path
from typing import NamedTuple

PAGE = Path(__file__).parent / "guides" / "memory.md"
BEGIN = "<!-- shapes: begin, written by `python docs/memory_table.py` -->"
END = "<!-- shapes: end -->"
MIB = 2**20


class Shape(NamedTuple):
    """Features of a batch, their element size in bytes, and the number of classes."""

    size: tuple[int, ...]
    element: int
    classes: int

    @property
    def pixels(self) -> int:
        return self.size[0] * math.prod(self.size[2:])

    @property
    def features(self) -> int:
        return self.pixels * self.size[1] * self.element

    @property
    def contrast(self) -> int:
        """The gradient, loss and weight of every pixel, and the prototypes made ready."""
        return self.features + 8 * self.pixels + 8 * self.classes * self.size[1]

    @property
    def bicl(self) -> int:
        """Both contrasts, and labels and confidences of the target."""
        return 2 * self.contrast + 12 * self.pixels

    @property
    def pairs(self) -> int:
        return 4 * self.pixels**2


SHAPES = (
    Shape((2, 76, 92, 92), 4, 19),
    Shape((2, 256, 128, 128), 4, 19),
    Shape((2, 256, 128, 128), 2, 19),
    Shape((8, 256, 128, 128), 4, 19),
    Shape((4, 512, 128, 128), 2, 150),
    Shape((1, 64, 48, 96, 96), 4, 4),
)


def told(size: float) -> str:
    """Bytes as MiB, GiB or TiB."""
    for unit, bytes_of in (("TiB", 2**40), ("GiB", 2**30), ("MiB", MIB)):
        if size >= bytes_of or unit == "MiB":
            return f"{size / bytes_of:.{1 if size < 10 * bytes_of else 0}f} {unit}"
    raise RuntimeError("a size without a unit")


def table() -> str:
    heads = ("features", "element", "C", "the features", "contrast adds", "BiCL adds", "all pairs")
    lines = [f"| {' | '.join(heads)} |", "|---|---|---:|---:|---:|---:|---:|"]
    names = {4: "float32", 2: "bfloat16"}
    for shape in SHAPES:
        size = " x ".join(map(str, shape.size))
        costs = (shape.features, shape.contrast, shape.bicl, shape.pairs)
        cells = (size, names[shape.element], str(shape.classes), *map(told, costs))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def written(page: str) -> str:
    """The page with its table as it is now."""
    marked = re.compile(f"{re.escape(BEGIN)}.*{re.escape(END)}", re.DOTALL)
    return marked.sub(lambda _: f"{BEGIN}\n\n{table()}\n\n{END}", page)


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text("utf-8")), "utf-8")
