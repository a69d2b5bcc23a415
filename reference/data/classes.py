"""The classes of a run: names, colours and named means; Cityscapes has 19.

A class is its number in this list everywhere: in heads, banks, tables and colours. 255 (`IGNORE`)
means "not scored". How label files write classes is told by their layout.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

ByteArray = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]

IGNORE: Final = 255
EXAMPLE: Final = '[{"name": "road", "colour": [128, 64, 128], "ids": [7]}, ...]'

_COLOURS: Final = {
    "road": (128, 64, 128), "sidewalk": (244, 35, 232), "building": (70, 70, 70),
    "wall": (102, 102, 156), "fence": (190, 153, 153), "pole": (153, 153, 153),
    "traffic light": (250, 170, 30), "traffic sign": (220, 220, 0),
    "vegetation": (107, 142, 35), "terrain": (152, 251, 152), "sky": (70, 130, 180),
    "person": (220, 20, 60), "rider": (255, 0, 0), "car": (0, 0, 142), "truck": (0, 0, 70),
    "bus": (0, 60, 100), "train": (0, 80, 100), "motorcycle": (0, 0, 230),
    "bicycle": (119, 11, 32),
}  # fmt: skip

# What papers leave out of their means for SYNTHIA -> Cityscapes.
_NOT_IN_16: Final = ("terrain", "truck", "train")
_NOT_IN_13: Final = (*_NOT_IN_16, "wall", "fence", "pole")


@dataclass(frozen=True)
class ClassList:
    """The classes of a run: what a network predicts, in the order of its outputs."""

    name: str  # of the list, such as "cityscapes"
    names: tuple[str, ...]  # of the classes, 255 at most
    colours: tuple[Colour, ...]  # (red, green, blue) of each, 0..255
    # class numbers that a mean IoU is taken over, by its name, the headline first
    means: Mapping[str, tuple[int, ...]]
    ids: tuple[tuple[int, ...], ...] = ()  # values of each class in label files of layout "own"
    # likewise, where those hold colours; the class's own colour if empty
    label_colours: tuple[tuple[Colour, ...], ...] = ()
    # likewise, not scored; black is not either, unless a class has it
    void: tuple[Colour, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    def numbers(self, names: Iterable[str]) -> tuple[int, ...]:
        """Return the numbers of those names that the list holds, ascending."""
        return tuple(sorted(self.names.index(name) for name in names if name in self.names))

    def merge_table(self, merge: Sequence[str]) -> ByteArray:
        """Return what each of 256 label values is read as.

        Pixels of the first class of a pair "rider=person" are read as the second. All pairs count
        at once, so ("a=b", "b=c") leaves no c that was an a.

        Example:
            >>> [int(CITYSCAPES.merge_table(["rider=person"])[x]) for x in (11, 12, 13, 255)]
            [11, 11, 13, 255]
        """
        table = np.arange(256, dtype=np.uint8)
        for pair in merge:
            before, after = names = [name.strip() for name in pair.split("=")]
            if unknown := [name for name in names if name not in self.names]:
                known = f"a class of {self.name} ({', '.join(self.names)})"
                raise ValueError(f"ClassList: expected {known}, got {unknown[0]}.")
            table[self.names.index(before)] = self.names.index(after)
        return table

    def with_means(self, scored: Iterable[int], shared: Iterable[int]) -> "ClassList":
        """Return the list with the means of one pair of sets.

        The headline is the mean over the classes that the source labels and the target scores
        (`shared`); of the published means stay those whose classes the target's labels hold
        (`scored`), those first whose classes the source labels too.
        """
        both, everything = (tuple(sorted(set(numbers))) for numbers in (shared, scored))
        # A published mean that lost a class would be another mean.
        means = self.means.items()
        names = {over: name for name, over in means if over and set(over) <= set(everything)}
        for over in (both, everything):
            if over and over not in names:
                short = f"miou{len(over)}"
                names[over] = f"{short}_shared" if short in names.values() else short
        headline = both or everything

        def place(over: tuple[int, ...]) -> tuple[bool, bool, int]:
            return over != headline, not set(over) <= set(both), -len(over)

        return replace(self, means={names[over]: over for over in sorted(names, key=place)})


CITYSCAPES: Final = ClassList("cityscapes", tuple(_COLOURS), tuple(_COLOURS.values()), {
    f"miou{19 - len(without)}": tuple(n for n, name in enumerate(_COLOURS) if name not in without)
    for without in ((), _NOT_IN_16, _NOT_IN_13)
})  # fmt: skip


def _is_whole(value: Any, top: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= top


def _is_colour(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(_is_whole(x, 255) for x in value)


def _is_list(value: Any, of: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and all(map(of, value))


# Every field of a class, what it must be, and whether it is.
_FIELDS: Final[dict[str, tuple[str, Callable[[Any], Any]]]] = {
    "name": ('a "name" without =', lambda x: isinstance(x, str) and x.strip() and "=" not in x),
    "colour": ('a "colour" of three numbers 0..255', _is_colour),
    "ids": (
        '"ids", a list of numbers 0..65535',
        lambda x: _is_list(x, lambda n: _is_whole(n, 65535)),
    ),
    "label_colours": ('"label_colours", a list of colours', lambda x: _is_list(x, _is_colour)),
}


def read_classes(path: Path) -> ClassList:
    """Read the class list of your own sets from JSON.

    The order is that of the network's outputs; "ids" are the values of a class in label files;
    "label_colours", a list of colours, stands for them where those are colours. An entry
    {"void": [[255, 255, 255]]} lists colours that are not scored.
    """

    def refuse(wanted: str, got: object) -> ValueError:
        return ValueError(f"classes: expected {path} {wanted}, got {got}. Hint: write {EXAMPLE}.")

    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise refuse("to be a JSON file", getattr(error, "strerror", None) or error) from error
    whole = _is_list(entries, lambda entry: isinstance(entry, dict))
    void = [entry["void"] for entry in entries if "void" in entry] if whole else []
    if not all(_is_list(colours, _is_colour) for colours in void):
        raise refuse('to give "void" a list of colours', json.dumps(void))
    if whole:
        entries = [entry for entry in entries if "void" not in entry]
    if not whole or not 1 <= len(entries) <= IGNORE:
        got = f"{len(entries)} entries" if whole else type(entries).__name__
        raise refuse(f"to list 1 to {IGNORE} classes", got)
    for number, entry in enumerate(entries):
        colour = entry.pop("color", [])
        entry |= {"name": None, "colour": colour, "ids": [], "label_colours": []} | entry
        for field, value in entry.items():
            wanted, is_right = _FIELDS.get(field, (f'no "{field}"', lambda _: False))
            if not is_right(value):
                raise refuse(f"to give class {number} {wanted}", json.dumps(value))
    names = tuple(entry["name"].strip() for entry in entries)
    ids = tuple(tuple(entry["ids"]) for entry in entries)
    colours = tuple(tuple(map(tuple, entry["label_colours"])) for entry in entries)
    for what, values in (("name", [[name] for name in names]), ("id", ids), ("colour", colours)):
        owners: dict[Any, str] = {}
        for name, group in zip(names, values, strict=True):
            for value in group:
                if value in owners:
                    raise refuse(
                        f"to give each {what} once", f"{value} for {owners[value]} and {name}"
                    )
                owners[value] = name
    shown = tuple(tuple(entry["colour"]) for entry in entries)
    means = {f"miou{len(names)}": tuple(range(len(names)))}
    unscored = tuple(tuple(colour) for listed in void for colour in listed)
    return ClassList(path.stem, names, shown, means, ids, colours, unscored)
