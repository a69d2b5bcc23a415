"""IoU per class of a run beside its evaluation before and published rows; Markdown, CSV, JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch

from reference.data.classes import CITYSCAPES
from reference.evaluation.protocol import Evaluation, Protocol
from reference.evaluation.published import Published, published_rows
from reference.evaluation.scores import Scores
from reference.networks.output import plain_classes, read_classes
from reference.run.files import write_atomically

LAST: Final = "this run, last checkpoint"
PREVIOUS: Final = "previous evaluation"
DELTA: Final = "change since"
_ACCURACY: Final = "pixel accuracy"


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Args:
        name: what was scored.
        iou_percent: class number -> IoU, 0..100, or points of change; None where undefined.
        means_percent: by name, likewise; the pixel accuracy among them.
        note: what must be known to compare.
        signed: print a sign: the row is a change.
    """

    name: str
    iou_percent: Mapping[int, float | None]
    means_percent: Mapping[str, float | None]
    note: str = ""
    signed: bool = False


@dataclass(frozen=True)
class ClassTable:
    """A table of IoU per class.

    Args:
        header: lines that say what was scored and how.
        rows: from top to bottom.
        evaluation: of the first row.
    """

    header: tuple[str, ...]
    rows: tuple[Row, ...]
    evaluation: Evaluation

    @property
    def classes(self) -> tuple[int, ...]:
        """Class numbers of the columns: those that the source labels."""
        return self.evaluation.protocol.known

    @property
    def names(self) -> tuple[str, ...]:
        """Names of these classes."""
        names = self.evaluation.protocol.classes.names
        return tuple(names[label] for label in self.classes)

    @property
    def means(self) -> tuple[str, ...]:
        """Names of the columns after the classes."""
        return (*self.evaluation.means_percent, _ACCURACY)

    def _cells(self, row: Row, form: str) -> list[str]:
        values = [row.iou_percent.get(label) for label in self.classes]
        values += [row.means_percent.get(name) for name in self.means]
        return ["" if value is None else format(value, form) for value in values]

    def markdown(self) -> str:
        """Lay the table out for reading, one decimal."""
        columns = ["", *self.names, *self.means, "note"]
        lines = [columns, ["---", *("---:" for _ in columns[1:-1]), "---"]]
        for row in self.rows:
            name = f"**{row.name}**" if row.name == LAST else row.name
            lines.append([name, *self._cells(row, "+.1f" if row.signed else ".1f"), row.note])
        body = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        return "\n".join(self.header) + "\n\n" + body + "\n"

    def csv(self) -> str:
        """Lay the table out for spreadsheets, four decimals; header lines begin with ``#``."""
        text = io.StringIO()
        text.writelines(f"# {line}\n" for line in self.header)
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["row", *self.names, *self.means, "note"])
        for row in self.rows:
            writer.writerow([row.name, *self._cells(row, ".4f"), row.note])
        return text.getvalue()

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON can hold it, unrounded, with the matrix."""
        return {
            "header": list(self.header),
            "rows": [
                {
                    "name": row.name,
                    "iou": {
                        name: row.iou_percent.get(label)
                        for label, name in zip(self.classes, self.names, strict=True)
                    },
                    "means": {name: row.means_percent.get(name) for name in self.means},
                    "note": row.note,
                }
                for row in self.rows
            ],
            "evaluation": {
                "protocol": asdict(self.evaluation.protocol)
                | {"classes": plain_classes(self.evaluation.protocol.classes)},
                "target": self.evaluation.target,
                "images": self.evaluation.images,
                "align_corners": self.evaluation.align_corners,
                # True class by row, predicted class by column, in the order of the classes.
                "confusion": self.evaluation.scores.confusion.tolist(),
            },
        }


def _sets(evaluation: Evaluation) -> str:
    source = f"source {evaluation.protocol.source or 'not named'}"
    return f"{source}, target {evaluation.target}" if evaluation.target else source


def _scored(name: str, evaluation: Evaluation) -> Row:
    iou = evaluation.scores.iou_percent
    return Row(
        name,
        {label: iou[label] for label in evaluation.protocol.known},
        {
            **evaluation.means_percent,
            _ACCURACY: evaluation.scores.pixel_accuracy_percent,
        },
    )


def _minus(now: float | None, before: float | None) -> float | None:
    return None if now is None or before is None else now - before


def _change(now: Row, before: Row) -> Row:
    iou = {c: _minus(value, before.iou_percent[c]) for c, value in now.iou_percent.items()}
    means = {n: _minus(value, before.means_percent[n]) for n, value in now.means_percent.items()}
    return Row(DELTA, iou, means, signed=True)


def _reference(row: Published) -> Row:
    iou = row.by_class
    means: dict[str, float | None] = {f"miou{len(iou)}": row.miou}
    for name, members in CITYSCAPES.means.items():
        if set(members) <= set(iou):
            means.setdefault(name, sum(iou[label] for label in members) / len(members))
    note = f"published, {row.repository}" + (f"; {row.note}" if row.note else "")
    return Row(row.name, dict(iou), means, note)


def class_table(
    last: Evaluation,
    *,
    network: str,
    previous: Evaluation | None = None,
    references: bool = True,
) -> ClassTable:
    """Set the last checkpoint beside what it should be compared with.

    Args:
        last: of the last checkpoint: the headline.
        network: what was scored, of `in_words`: it names the head, as two go by one name.
        previous: the evaluation before; adds it and the change since.
        references: add published rows, where there are any of these sets and classes.

    Raises:
        ValueError: the evaluations were not measured alike.
    """
    if previous is not None and previous.header != last.header:
        raise ValueError(
            f"class_table: expected evaluations measured alike, got {last.header!r} and "
            f"{previous.header!r}."
        )
    rows = [_scored(LAST, last)]
    if previous is not None:
        before = _scored(PREVIOUS, previous)
        rows += [before, _change(rows[0], before)]
    if references:
        rows += [_reference(row) for row in published_rows(last)]
    return ClassTable(
        header=(f"IoU in percent, {_sets(last)}; {network}", last.header),
        rows=tuple(rows),
        evaluation=last,
    )


def write_class_table(folder: Path, table: ClassTable, *, stem: str = "classes") -> None:
    """Write ``<stem>.md``, ``<stem>.csv`` and ``<stem>.json``, each whole or not at all.

    Args:
        folder: made where missing; files of this stem are replaced.
        table: what to write.
        stem: of the three names.
    """
    write_atomically(folder / f"{stem}.md", table.markdown())
    write_atomically(folder / f"{stem}.csv", table.csv())
    write_atomically(folder / f"{stem}.json", json.dumps(table.as_dict(), indent=2) + "\n")


def read_evaluation(path: Path) -> Evaluation:
    """Read the evaluation of the last checkpoint back from the JSON file of a table.

    Args:
        path: the file.

    Raises:
        ValueError: there is no such file, or it holds something else.
    """
    try:
        held = json.loads(path.read_text(encoding="utf-8"))["evaluation"]
        told = held["protocol"]
        # Tables of the toy and of real sets were once of the 19 classes alone.
        classes = read_classes(told["classes"]) if "classes" in told else CITYSCAPES
        protocol = Protocol(
            classes=classes,
            size=_pair(told["size"]),
            labelled=None if told.get("labelled") is None else tuple(map(int, told["labelled"])),
            source=str(told["source"]),
            scales=tuple(map(float, told["scales"])),
            flip=bool(told["flip"]),
            window=None if told.get("window") is None else _pair(told["window"]),
            stride=None if told.get("stride") is None else _pair(told["stride"]),
        )
        confusion = torch.tensor(held["confusion"], dtype=torch.int64)
        images, corners = int(held["images"]), bool(held["align_corners"])
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise ValueError(
            f"read_evaluation: expected the JSON file of a table per class, got {path} "
            f"({type(error).__name__}). Hint: write_class_table writes it."
        ) from error
    count = len(protocol.classes)
    if confusion.shape != (count, count):
        raise ValueError(
            f"read_evaluation: expected a matrix of {count}x{count} classes in {path}, "
            f"got shape {tuple(confusion.shape)}."
        )
    return Evaluation(Scores(confusion), protocol, images, corners, str(held.get("target", "")))


def _pair(values: Any) -> tuple[int, int]:
    return int(values[0]), int(values[1])
