"""IoU per class of a run beside its evaluation before and published rows; Markdown, CSV, JSON.

The row of the last checkpoint is the headline. A checkpoint that was chosen by its score on the
labels it is scored on may stand beside it, under the name "oracle-selected" only.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import torch

from reference.atomic import write_atomically
from reference.data.classes import NAMES, NUM_CLASSES, SUBSETS
from reference.evaluation.evaluate import Scores
from reference.evaluation.protocol import Evaluation, Protocol
from reference.evaluation.published import ROWS, Published

LAST: Final = "this run, last checkpoint"
PREVIOUS: Final = "previous evaluation"
DELTA: Final = "change since"
BEST: Final = "this run, best checkpoint (oracle-selected)"
_ACCURACY: Final = "pixel accuracy"

_Key = TypeVar("_Key")


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Args:
        name: what was scored.
        iou_percent: train id -> IoU, 0..100, or points of change; None where undefined.
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
        """Train ids of the columns."""
        return self.evaluation.protocol.classes

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
        columns = ["", *(NAMES[label] for label in self.classes), *self.means, "note"]
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
        writer.writerow(["row", *(NAMES[label] for label in self.classes), *self.means, "note"])
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
                    "iou": {NAMES[label]: row.iou_percent.get(label) for label in self.classes},
                    "means": {name: row.means_percent.get(name) for name in self.means},
                    "note": row.note,
                }
                for row in self.rows
            ],
            "evaluation": {
                "protocol": asdict(self.evaluation.protocol),
                "images": self.evaluation.images,
                "align_corners": self.evaluation.align_corners,
                # True class by row, predicted class by column, in train-id order.
                "confusion": self.evaluation.scores.confusion.tolist(),
            },
        }


def _scored(name: str, evaluation: Evaluation) -> Row:
    iou = evaluation.scores.iou_percent
    return Row(
        name,
        {label: iou[label] for label in evaluation.protocol.classes},
        {
            **evaluation.means_percent,
            _ACCURACY: evaluation.scores.pixel_accuracy_percent,
        },
    )


def _change(now: Row, before: Row) -> Row:
    def minus(a: float | None, b: float | None) -> float | None:
        return None if a is None or b is None else a - b

    return Row(
        DELTA,
        {
            label: minus(value, before.iou_percent[label])
            for label, value in now.iou_percent.items()
        },
        {
            name: minus(value, before.means_percent[name])
            for name, value in now.means_percent.items()
        },
        signed=True,
    )


def _reference(row: Published, evaluation: Evaluation) -> Row:
    protocol = evaluation.protocol
    iou = row.by_class(protocol.source)
    means: dict[str, float | None] = {f"miou{len(protocol.classes)}": row.miou}
    for subset in SUBSETS.values():
        values = [iou[label] for label in subset if label in iou]
        if len(values) == len(subset):
            means.setdefault(f"miou{len(subset)}", sum(values) / len(values))
    note = f"published, {row.repository}" + (f"; {row.note}" if row.note else "")
    return Row(row.name, dict(iou), means, note)


def class_table(
    last: Evaluation,
    *,
    network: str,
    previous: Evaluation | None = None,
    best: Evaluation | None = None,
    references: bool = True,
) -> ClassTable:
    """Set the last checkpoint beside what it should be compared with.

    Args:
        last: of the last checkpoint: the headline.
        network: what was scored, of `in_words`: it names the head, as two go by one name.
        previous: the evaluation before; adds it and the change since.
        best: of the checkpoint with the highest score; shown as "oracle-selected".
        references: add published rows of the same source.

    Raises:
        ValueError: the evaluations were not measured alike.
    """
    for other in (previous, best):
        if other is not None and other.header != last.header:
            raise ValueError(
                f"class_table: expected evaluations measured alike, got {last.header!r} and "
                f"{other.header!r}."
            )
    rows = [_scored(LAST, last)]
    if previous is not None:
        before = _scored(PREVIOUS, previous)
        rows += [before, _change(rows[0], before)]
    if best is not None:
        rows.append(_scored(BEST, best))
    if references:
        rows += [_reference(row, last) for row in ROWS[last.protocol.source]]
    return ClassTable(
        header=(f"IoU in percent, source {last.protocol.source}; {network}", last.header),
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
        protocol = Protocol(
            size=(int(told["size"][0]), int(told["size"][1])),
            source=told["source"],
            scales=tuple(map(float, told["scales"])),
            flip=bool(told["flip"]),
        )
        confusion = torch.tensor(held["confusion"], dtype=torch.int64)
        images, corners = int(held["images"]), bool(held["align_corners"])
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise ValueError(
            f"read_evaluation: expected the JSON file of a table per class, got {path} "
            f"({type(error).__name__}). Hint: write_class_table writes it."
        ) from error
    if confusion.shape != (NUM_CLASSES, NUM_CLASSES):
        raise ValueError(
            f"read_evaluation: expected a matrix of {NUM_CLASSES}x{NUM_CLASSES} classes in {path}, "
            f"got shape {tuple(confusion.shape)}."
        )
    return Evaluation(Scores(confusion), protocol, images, corners)
