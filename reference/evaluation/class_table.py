"""IoU per class of a run beside its evaluation before and published rows; Markdown, CSV, JSON."""

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch

from reference.commands import laid_out
from reference.data.classes import CITYSCAPES
from reference.data.layouts import LAYOUTS
from reference.evaluation.protocol import Evaluation, Protocol, Scores
from reference.run.files import write_atomically, write_json
from reference.run.folder import as_plain, from_plain

LAST: Final = "this run, last checkpoint"
_PREVIOUS: Final = "previous evaluation"
DELTA: Final = "change since"
_ACCURACY: Final = "pixel accuracy"


class Row(NamedTuple):
    """One line of the table: percent by class number and by the name of a mean, None if undefined.

    The pixel accuracy is among the means; the note says what must be known to compare.
    """

    name: str
    iou_percent: Mapping[int, float | None]
    means_percent: Mapping[str, float | None]
    note: str = ""


def _published() -> dict[str, tuple[Row, ...]]:
    """Rows of other methods on the Cityscapes val images, by source, to stand below a run.

    Only rows that were read in a repository or its issue threads are in the file. None was measured
    with this code, and what they were measured with differs: some average over scales, some are the
    best of many checkpoints. It is DeepLab-V2 with ResNet-101 unless the note says more.
    """
    rows: dict[str, tuple[Row, ...]] = {}
    text = Path(__file__).with_name("published.csv").read_text(encoding="utf-8")
    for line in csv.DictReader(io.StringIO(text)):
        names = enumerate(CITYSCAPES.names)
        iou = {label: float(line[name]) for label, name in names if line[name]}
        means = {
            name: sum(iou[label] for label in members) / len(members)
            for name, members in CITYSCAPES.means.items()
            if set(members) <= set(iou)
        }
        means[f"miou{len(iou)}"] = float(line["miou"])
        note = "; ".join(filter(None, (f"published, {line['repository']}", line["note"])))
        row = Row(line["name"], iou, means, note)
        rows[line["source"]] = (*rows.get(line["source"], ()), row)
    return rows


ROWS: Final = _published()


def published_rows(evaluation: Evaluation) -> tuple[Row, ...]:
    """Rows to compare with, of GTA5 or SYNTHIA and all val images and classes of Cityscapes."""
    protocol = evaluation.protocol
    rows = ROWS.get(protocol.source, ())
    alike = (
        evaluation.target == LAYOUTS["cityscapes"].title
        and evaluation.images in LAYOUTS["cityscapes"].counts["val"]
        and protocol.classes.names == CITYSCAPES.names
        and all(tuple(row.iou_percent) == protocol.known for row in rows)
    )
    return rows if alike else ()


@dataclass(frozen=True)
class ClassTable:
    """A table of IoU per class; `evaluation` is that of the first row."""

    header: tuple[str, ...]
    rows: tuple[Row, ...]
    evaluation: Evaluation

    @property
    def classes(self) -> dict[str, int]:
        """Number of every class that the source labels, by its name."""
        protocol = self.evaluation.protocol
        return {protocol.classes.names[label]: label for label in protocol.known}

    @property
    def means(self) -> tuple[str, ...]:
        """Names of the columns after the classes."""
        return (*self.evaluation.means_percent, _ACCURACY)

    def _values(self, row: Row) -> tuple[dict[str, float | None], dict[str, float | None]]:
        iou = {name: row.iou_percent.get(label) for name, label in self.classes.items()}
        return iou, {name: row.means_percent.get(name) for name in self.means}

    def _cells(self, row: Row, form: str = "") -> list[str]:
        form = form or ("+.1f" if row.name == DELTA else ".1f")
        iou, means = self._values(row)
        values = (*iou.values(), *means.values())
        return ["" if value is None else format(value, form) for value in values]

    def markdown(self) -> str:
        """Lay the table out for reading: a line per class, then published rows by their means."""
        own, means = [row for row in self.rows if not row.note], self.means[:-1]
        columns = [[row.name, *self._cells(row)] for row in own]
        parts = ["\n".join(self.header)]
        parts.append(laid_out([*zip(["", *self.classes, *self.means], *columns, strict=True)]))
        if published := self.rows[len(own) :]:
            lines = [
                [f"{row.name} ({row.note})", *self._cells(row)[len(self.classes) : -1]]
                for row in published
            ]
            parts.append(laid_out([["", *means], *lines]))
        return "\n\n".join(parts) + "\n"

    def csv(self) -> str:
        """Lay the table out for spreadsheets, four decimals; header lines begin with ``#``."""
        text = io.StringIO()
        text.writelines(f"# {line}\n" for line in self.header)
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["row", *self.classes, *self.means, "note"])
        for row in self.rows:
            writer.writerow([row.name, *self._cells(row, ".4f"), row.note])
        return text.getvalue()

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON can hold it, unrounded, with the matrix."""
        held, rows = self.evaluation, []
        for row in self.rows:
            iou, means = self._values(row)
            rows.append({"name": row.name, "iou": iou, "means": means, "note": row.note})
        classes = {"classes": as_plain(held.protocol.classes)}
        evaluation = {
            "protocol": asdict(held.protocol) | classes,
            "target": held.target,
            "images": held.images,
            "align_corners": held.align_corners,
            # True class by row, predicted class by column, in the order of the classes.
            "confusion": held.scores.confusion.tolist(),
        }
        return {"header": list(self.header), "rows": rows, "evaluation": evaluation}


def _scored(name: str, evaluation: Evaluation) -> Row:
    iou, accuracy = evaluation.scores.iou_percent, evaluation.scores.pixel_accuracy_percent
    known = {label: iou[label] for label in evaluation.protocol.known}
    return Row(name, known, {**evaluation.means_percent, _ACCURACY: accuracy})


def _minus(now: Mapping[Any, float | None], then: Mapping[Any, float | None]) -> dict[Any, Any]:
    return {
        name: None if value is None or (old := then[name]) is None else value - old
        for name, value in now.items()
    }


def class_table(
    last: Evaluation, *, network: str, previous: Evaluation | None = None, references: bool = True
) -> ClassTable:
    """Set the last checkpoint, the headline, beside what it should be compared with.

    That is the `previous` evaluation, measured alike, with the change since, and published rows,
    where there are any of these sets and classes. `network` is what was scored, of `in_words`.
    """
    rows = [_scored(LAST, last)]
    if previous is not None:
        before = _scored(_PREVIOUS, previous)
        iou = _minus(rows[0].iou_percent, before.iou_percent)
        rows += [before, Row(DELTA, iou, _minus(rows[0].means_percent, before.means_percent))]
    if references:
        rows += published_rows(last)
    sets = f"source {last.protocol.source or 'not named'}"
    sets += f", target {last.target}" if last.target else ""
    header = [f"IoU in percent, {sets}; {network}", last.header]
    name, members = next(iter(last.protocol.means.items()))
    held = [label for label in members if last.scores.iou_percent[label] is not None]
    if len(held) < len(members):
        header.append(f"{name} is here over the {len(held)} of {len(members)} classes that occur")
    return ClassTable(tuple(header), tuple(rows), last)


def write_class_table(folder: Path, table: ClassTable, *, stem: str = "classes") -> None:
    """Write ``<stem>.md``, ``<stem>.csv`` and ``<stem>.json``, each whole or not at all."""
    write_atomically(folder / f"{stem}.md", table.markdown())
    write_atomically(folder / f"{stem}.csv", table.csv())
    write_json(folder / f"{stem}.json", table.as_dict())


def read_evaluation(path: Path) -> Evaluation:
    """Read the evaluation of the last checkpoint back from the JSON file of a table."""
    try:
        held = json.loads(path.read_text(encoding="utf-8"))["evaluation"]
        protocol = from_plain(Protocol, held["protocol"])
        count = len(protocol.classes)
        confusion = torch.tensor(held["confusion"], dtype=torch.int64).reshape(count, count)
        images, corners = int(held["images"]), bool(held["align_corners"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(
            f"read_evaluation: expected the JSON file of a table per class, got {path} "
            f"({type(error).__name__}). Hint: write_class_table writes it."
        ) from error
    return Evaluation(Scores(confusion), protocol, images, corners, str(held.get("target", "")))
