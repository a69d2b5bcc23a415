"""The classes of a run: names, colours and named means; Cityscapes has 19.

A class is its number in this list everywhere: in heads, banks, tables and colours. 255 (`IGNORE`)
means "not scored". How label files write classes is told by their layout.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

ByteArray = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]

IGNORE: Final = 255

_COLOURS: Final = {
    "road": (128, 64, 128),
    "sidewalk": (244, 35, 232),
    "building": (70, 70, 70),
    "wall": (102, 102, 156),
    "fence": (190, 153, 153),
    "pole": (153, 153, 153),
    "traffic light": (250, 170, 30),
    "traffic sign": (220, 220, 0),
    "vegetation": (107, 142, 35),
    "terrain": (152, 251, 152),
    "sky": (70, 130, 180),
    "person": (220, 20, 60),
    "rider": (255, 0, 0),
    "car": (0, 0, 142),
    "truck": (0, 0, 70),
    "bus": (0, 60, 100),
    "train": (0, 80, 100),
    "motorcycle": (0, 0, 230),
    "bicycle": (119, 11, 32),
}
NAMES: Final = tuple(_COLOURS)

# What papers leave out of their means for SYNTHIA -> Cityscapes.
_NOT_IN_16: Final = ("terrain", "truck", "train")
_NOT_IN_13: Final = (*_NOT_IN_16, "wall", "fence", "pole")


@dataclass(frozen=True)
class ClassList:
    """The classes of a run: what a network predicts, in the order of its outputs.

    Args:
        name: of the list, such as "cityscapes".
        names: of the classes; `len(classes)` is their number, 255 at most.
        colours: (red, green, blue) of each, 0..255.
        means: class numbers that a mean IoU is taken over, by its name, the headline first.
        ids: values of each class in label files of layout "own".
        label_colours: colours of each class in label files of layout "own"; its colour if empty.
    """

    name: str
    names: tuple[str, ...]
    colours: tuple[Colour, ...]
    means: Mapping[str, tuple[int, ...]]
    ids: tuple[tuple[int, ...], ...] = ()
    label_colours: tuple[tuple[Colour, ...], ...] = ()

    def __len__(self) -> int:
        """Return the number of classes."""
        return len(self.names)

    def number(self, name: str) -> int:
        """Return the number of a class.

        Raises:
            ValueError: there is none of this name.
        """
        if name not in self.names:
            known = ", ".join(self.names)
            raise ValueError(f"ClassList: expected a class of {self.name} ({known}), got {name}.")
        return self.names.index(name)

    def numbers(self, names: Iterable[str]) -> tuple[int, ...]:
        """Return the numbers of those names that the list holds, ascending."""
        return tuple(sorted(self.names.index(name) for name in names if name in self.names))

    def merge_table(self, merge: Sequence[str]) -> ByteArray:
        """Return what each of 256 label values is read as.

        Args:
            merge: pairs such as "rider=person": pixels of the first are read as the second. All at
                once, so ("a=b", "b=c") leaves no c that was an a.

        Example:
            >>> [int(CITYSCAPES.merge_table(["rider=person"])[x]) for x in (11, 12, 13, 255)]
            [11, 11, 13, 255]
        """
        table = np.arange(256, dtype=np.uint8)
        for pair in merge:
            before, after = pair.split("=")
            table[self.number(before.strip())] = self.number(after.strip())
        return table

    def with_means(self, scored: Iterable[int], shared: Iterable[int]) -> ClassList:
        """Return the list with the means of one pair of sets.

        The headline is the mean over the classes that the source labels and the target scores; the
        published means follow, those first whose classes the source labels.

        Args:
            scored: classes that the target's labels hold.
            shared: those of them that the source labels too.
        """
        everything, both = set(scored), set(shared)
        published = {
            name: tuple(c for c in numbers if c in everything)
            for name, numbers in self.means.items()
        }
        wanted = {tuple(sorted(both)): "", tuple(sorted(everything)): ""}
        names = {numbers: name for name, numbers in published.items() if len(numbers)}
        # A published mean that lost a class is another mean.
        names = {numbers: name for numbers, name in names.items() if numbers == self.means[name]}
        for numbers in wanted:
            if numbers and numbers not in names:
                short = f"miou{len(numbers)}"
                names[numbers] = f"{short}_shared" if short in names.values() else short
        headline = tuple(sorted(both)) or tuple(sorted(everything))

        def place(numbers: tuple[int, ...]) -> tuple[bool, bool, int]:
            return (numbers != headline, not both.issuperset(numbers), -len(numbers))

        return replace(self, means={names[n]: n for n in sorted(names, key=place)})


CITYSCAPES: Final = ClassList(
    "cityscapes",
    NAMES,
    tuple(_COLOURS.values()),
    {
        f"miou{len(NAMES) - len(without)}": tuple(
            number for number, name in enumerate(NAMES) if name not in without
        )
        for without in ((), _NOT_IN_16, _NOT_IN_13)
    },
)


def read_classes(path: Path) -> ClassList:
    """Read the class list of your own sets from JSON.

    Args:
        path: a list such as ``[{"name": "road", "colour": [128, 64, 128], "ids": [7]}, ...]``. The
            order is that of the network's outputs; "ids" are the values of the class in label
            files; "label_colours", a list of colours, stands for them where those are colours.

    Raises:
        ValueError: the file is missing, no such list, or a class is not described well.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ValueError(f"classes: expected {path} to be a JSON file, got {reason}.") from error
    example = 'Hint: write [{"name": "road", "colour": [128, 64, 128], "ids": [7]}, ...].'
    whole = isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries)
    if not whole or not 1 <= len(entries) <= IGNORE:
        got = f"{len(entries)} entries" if whole else type(entries).__name__
        raise ValueError(
            f"classes: expected {path} to list 1 to {IGNORE} classes, got {got}. {example}"
        )
    classes = [_entry(path, number, entry, example) for number, entry in enumerate(entries)]
    names, colours, ids, label_colours = (tuple(column) for column in zip(*classes, strict=True))
    _once(path, "name", [(name, name) for name in names])
    _once(path, "id", [(i, n) for n, group in zip(names, ids, strict=True) for i in group])
    pairs = zip(names, label_colours, strict=True)
    _once(path, "label colour", [(c, n) for n, group in pairs for c in group])
    everything = tuple(range(len(names)))
    means = {f"miou{len(names)}": everything}
    return ClassList(path.stem, names, colours, means, ids, label_colours)


def _entry(
    path: Path, number: int, entry: dict[str, Any], example: str
) -> tuple[str, Colour, tuple[int, ...], tuple[Colour, ...]]:
    def refuse(field: str, wanted: str) -> ValueError:
        got = json.dumps(entry.get(field))
        return ValueError(
            f"classes: expected {path} to give class {number} {wanted}, got {got}. {example}"
        )

    def whole(value: Any, top: int) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= top

    def is_colour(value: Any) -> bool:
        return isinstance(value, list) and len(value) == 3 and all(whole(x, 255) for x in value)

    name, colour = entry.get("name"), entry.get("colour", entry.get("color", []))
    ids, label_colours = entry.get("ids", []), entry.get("label_colours", [])
    if not isinstance(name, str) or not name.strip() or "=" in name:
        raise refuse("name", 'a "name" without =')
    if not is_colour(colour):
        raise refuse("colour", 'a "colour" of three numbers 0..255')
    if not isinstance(ids, list) or not all(whole(value, 65535) for value in ids):
        raise refuse("ids", '"ids", a list of numbers 0..65535')
    if not isinstance(label_colours, list) or not all(map(is_colour, label_colours)):
        raise refuse("label_colours", '"label_colours", a list of colours')
    unknown = sorted(set(entry) - {"name", "colour", "color", "ids", "label_colours"})
    if unknown:
        raise refuse(unknown[0], f'no "{unknown[0]}"')
    colours = tuple((c[0], c[1], c[2]) for c in label_colours)
    red, green, blue = colour
    return name.strip(), (red, green, blue), tuple(ids), colours


def _once(path: Path, what: str, owners: Sequence[tuple[Any, str]]) -> None:
    """Refuse a value that two classes claim."""
    seen: dict[Any, str] = {}
    for value, owner in owners:
        if value in seen:
            both = f"{seen[value]} and {owner}"
            raise ValueError(
                f"classes: expected {path} to give each {what} once, got {value} for {both}."
            )
        seen[value] = owner
