"""The 19 Cityscapes classes: names, colours, id tables and the subsets that papers report.

Four numberings meet here. *Train ids* 0..18 are what networks predict; 255 (`IGNORE`) means
"not scored". *Cityscapes ids* 0..33 are what ``*_labelIds.png`` files hold; GTA5 palette files
use the same numbers plus 34 (licence plate). *SYNTHIA ids* 0..22 are a numbering of their own;
terrain, truck and train have a number there but do not occur in the images. Everything outside
the 19 classes, such as SYNTHIA's lane marking and parking, maps to `IGNORE`.
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

# (name, Cityscapes id, SYNTHIA id, colour), in train-id order.
_TABLE: Final = (
    ("road", 7, 3, (128, 64, 128)),
    ("sidewalk", 8, 4, (244, 35, 232)),
    ("building", 11, 2, (70, 70, 70)),
    ("wall", 12, 21, (102, 102, 156)),
    ("fence", 13, 5, (190, 153, 153)),
    ("pole", 17, 7, (153, 153, 153)),
    ("traffic light", 19, 15, (250, 170, 30)),
    ("traffic sign", 20, 9, (220, 220, 0)),
    ("vegetation", 21, 6, (107, 142, 35)),
    ("terrain", 22, 16, (152, 251, 152)),
    ("sky", 23, 1, (70, 130, 180)),
    ("person", 24, 10, (220, 20, 60)),
    ("rider", 25, 17, (255, 0, 0)),
    ("car", 26, 8, (0, 0, 142)),
    ("truck", 27, 18, (0, 0, 70)),
    ("bus", 28, 19, (0, 60, 100)),
    ("train", 31, 20, (0, 80, 100)),
    ("motorcycle", 32, 12, (0, 0, 230)),
    ("bicycle", 33, 11, (119, 11, 32)),
)

NUM_CLASSES: Final = len(_TABLE)
NAMES: Final = tuple(name for name, _, _, _ in _TABLE)

CITYSCAPES_LAST_ID: Final = 33
GTA5_LAST_ID: Final = 34
SYNTHIA_LAST_ID: Final = 22


def _frozen(array: ByteArray) -> ByteArray:
    array.setflags(write=False)
    return array


def _lookup_table(ids: Sequence[int]) -> ByteArray:
    table = np.full(256, IGNORE, dtype=np.uint8)
    table[list(ids)] = np.arange(NUM_CLASSES)
    return _frozen(table)


_CITYSCAPES: Final = tuple(number for _, number, _, _ in _TABLE)
_SYNTHIA: Final = tuple(number for _, _, number, _ in _TABLE)

PALETTE: Final = _frozen(np.array([colour for _, _, _, colour in _TABLE], dtype=np.uint8))
TRAIN_TO_CITYSCAPES: Final = _frozen(np.array(_CITYSCAPES, dtype=np.uint8))
CITYSCAPES_TO_TRAIN: Final = _lookup_table(_CITYSCAPES)
GTA5_TO_TRAIN: Final = _lookup_table(_CITYSCAPES)
SYNTHIA_TO_TRAIN: Final = _lookup_table(_SYNTHIA)

# The 16 and 13 classes are those that papers report for SYNTHIA -> Cityscapes.
SUBSETS: Final = {
    "19": tuple(range(NUM_CLASSES)),
    "16": (0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 15, 17, 18),
    "13": (0, 1, 2, 6, 7, 8, 10, 11, 12, 13, 15, 17, 18),
}

# Train ids that occur in the drawn street scenes, and in CamVid laid out as Cityscapes.
TOY_CLASSES: Final = (0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15)
CAMVID_CLASSES: Final = (0, 1, 2, 4, 5, 7, 8, 10, 11, 12, 13)


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
    tuple(colour for _, _, _, colour in _TABLE),
    {f"miou{name}": numbers for name, numbers in SUBSETS.items()},
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
