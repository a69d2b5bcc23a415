"""IoU per class of a run beside its evaluation before and published rows; Markdown, CSV, JSON."""

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import torch

from reference.data.classes import CITYSCAPES
from reference.data.layouts import LAYOUTS
from reference.evaluation.protocol import Evaluation, Protocol, Scores
from reference.networks.output import plain_classes, read_classes
from reference.run.files import write_atomically, write_json


class Published(NamedTuple):
    """One row of a published table; DeepLab-V2 with ResNet-101 unless the note says more.

    `iou_percent` is of the classes that the source labels, in train-id order, and `miou` the
    published mean over them; `repository` shows it, as owner/name.
    """

    name: str
    repository: str
    note: str
    iou_percent: tuple[float, ...]
    miou: float

    @property
    def by_class(self) -> dict[int, float]:
        """Class number -> IoU."""
        classes = CITYSCAPES.means[f"miou{len(self.iou_percent)}"]
        return dict(zip(classes, self.iou_percent, strict=True))


ROWS: Final = {
    "gta5": (
        Published("source only", "wasidennis/AdaptSegNet", "", (
            75.8, 16.8, 77.2, 12.5, 21.0, 25.5, 30.1, 20.1, 81.3, 24.6, 70.3, 53.8, 26.4, 49.9,
            17.2, 25.9, 6.5, 25.3, 36.0), 36.6),
        Published("AdaptSegNet", "wasidennis/AdaptSegNet", "", (
            86.5, 36.0, 79.9, 23.4, 23.3, 23.9, 35.2, 14.8, 83.4, 33.3, 75.6, 58.5, 27.6, 73.7,
            32.5, 35.4, 3.9, 30.1, 28.1), 42.4),
        Published("AdvEnt", "valeoai/ADVENT", "best checkpoint", (
            89.9, 36.5, 81.6, 29.2, 25.2, 28.5, 32.3, 22.4, 83.9, 34.0, 77.1, 57.4, 27.9, 83.7,
            29.4, 39.1, 1.5, 28.4, 23.3), 43.8),
        Published("IntraDA", "feipan664/IntraDA", "", (
            90.6, 36.1, 82.6, 29.5, 21.3, 27.6, 31.4, 23.1, 85.2, 39.3, 80.2, 59.3, 29.4, 86.4,
            33.6, 53.9, 0.0, 32.7, 37.6), 46.3),
        Published("DACS", "vikolss/DACS", "a user's run, issue 12", (
            92.9, 52.6, 85.8, 27.8, 31.8, 35.7, 41.2, 40.1, 86.5, 45.0, 86.3, 62.4, 25.0, 88.2,
            49.8, 54.9, 0.0, 35.9, 49.6), 52.2),
        Published("ProCA", "jiangzhengkai/ProCA", "multi-scale", (
            91.9, 48.4, 87.3, 41.5, 31.8, 41.9, 47.9, 36.7, 86.5, 42.3, 84.7, 68.4, 43.1, 88.1,
            39.6, 48.8, 40.6, 43.6, 56.9), 56.3),
        Published("CPSL, stage 1", "lslrh/CPSL", "head dlv2_gn, best of its log", (
            91.7, 52.9, 83.6, 43.0, 32.3, 43.7, 51.3, 42.8, 85.4, 37.6, 81.1, 69.5, 30.0, 88.1,
            44.1, 59.9, 24.9, 47.2, 48.4), 55.7),
        Published("CPSL, stage 3", "lslrh/CPSL", "head dlv2_gn, best of its log", (
            92.8, 57.7, 85.4, 45.7, 36.7, 48.9, 59.5, 54.5, 88.7, 48.5, 84.9, 73.2, 36.8, 89.2,
            49.9, 67.8, 29.2, 49.9, 55.6), 60.8),
    ),
    "synthia": (
        Published("ProCA", "jiangzhengkai/ProCA", "multi-scale", (
            90.5, 52.1, 84.6, 29.2, 3.3, 40.3, 37.4, 27.3, 86.4, 85.9, 69.8, 28.7, 88.7, 53.7,
            14.8, 54.8), 53.0),
    ),
}  # fmt: skip


def published_rows(evaluation: Evaluation) -> tuple[Published, ...]:
    """Return the rows that an evaluation may be compared with.

    They hold for GTA5 or SYNTHIA as the source and for all val images and classes of Cityscapes.
    """
    protocol = evaluation.protocol
    rows = ROWS.get(protocol.source, ())
    alike = (
        evaluation.target == LAYOUTS["cityscapes"].title
        and evaluation.images in LAYOUTS["cityscapes"].counts["val"]
        and protocol.classes.names == CITYSCAPES.names
        and all(tuple(row.by_class) == protocol.known for row in rows)
    )
    return rows if alike else ()


LAST: Final = "this run, last checkpoint"
_PREVIOUS: Final = "previous evaluation"
DELTA: Final = "change since"
_ACCURACY: Final = "pixel accuracy"

T = TypeVar("T", int, str)


class Row(NamedTuple):
    """One line of the table: percent by class number and by the name of a mean, None if undefined.

    The pixel accuracy is among the means; the note says what must be known to compare.
    """

    name: str
    iou_percent: Mapping[int, float | None]
    means_percent: Mapping[str, float | None]
    note: str = ""


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

    def _cells(self, row: Row, form: str) -> list[str]:
        iou, means = self._values(row)
        values = (*iou.values(), *means.values())
        return ["" if value is None else format(value, form) for value in values]

    def markdown(self) -> str:
        """Lay the table out for reading, one decimal."""
        columns = ["", *self.classes, *self.means, "note"]
        lines = [columns, ["---", *("---:" for _ in columns[1:-1]), "---"]]
        for row in self.rows:
            name = f"**{row.name}**" if row.name == LAST else row.name
            form = "+.1f" if row.name == DELTA else ".1f"
            lines.append([name, *self._cells(row, form), row.note])
        body = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        return "\n".join(self.header) + "\n\n" + body + "\n"

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
        classes = {"classes": plain_classes(held.protocol.classes)}
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


def _minus(now: Mapping[T, float | None], then: Mapping[T, float | None]) -> dict[T, float | None]:
    return {
        name: None if value is None or (old := then[name]) is None else value - old
        for name, value in now.items()
    }


def _reference(row: Published) -> Row:
    iou = row.by_class
    means: dict[str, float | None] = {f"miou{len(iou)}": row.miou}
    for name, members in CITYSCAPES.means.items():
        if set(members) <= set(iou):
            means.setdefault(name, sum(iou[label] for label in members) / len(members))
    note = f"published, {row.repository}" + (f"; {row.note}" if row.note else "")
    return Row(row.name, dict(iou), means, note)


def class_table(
    last: Evaluation, *, network: str, previous: Evaluation | None = None, references: bool = True
) -> ClassTable:
    """Set the last checkpoint, the headline, beside what it should be compared with.

    Args:
        last: of the last checkpoint.
        network: what was scored, of `in_words`: it names the head, as two go by one name.
        previous: the evaluation before; adds it and the change since.
        references: add published rows, where there are any of these sets and classes.
    """
    rows = [_scored(LAST, last)]
    if previous is not None:
        if previous.header != last.header:
            raise ValueError(
                f"class_table: expected evaluations measured alike, got {last.header!r} and "
                f"{previous.header!r}."
            )
        before = _scored(_PREVIOUS, previous)
        iou = _minus(rows[0].iou_percent, before.iou_percent)
        rows += [before, Row(DELTA, iou, _minus(rows[0].means_percent, before.means_percent))]
    if references:
        rows += [_reference(row) for row in published_rows(last)]
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
        plain: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in held["protocol"].items()
        }
        protocol = Protocol(**plain | {"classes": read_classes(plain["classes"])})
        count = len(protocol.classes)
        confusion = torch.tensor(held["confusion"], dtype=torch.int64).reshape(count, count)
        images, corners = int(held["images"]), bool(held["align_corners"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(
            f"read_evaluation: expected the JSON file of a table per class, got {path} "
            f"({type(error).__name__}). Hint: write_class_table writes it."
        ) from error
    return Evaluation(Scores(confusion), protocol, images, corners, str(held.get("target", "")))
