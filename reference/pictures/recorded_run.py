"""Runs read back from their folders, whole or in the middle, for the page about them."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final, NamedTuple

from reference.data.classes import Colour
from reference.data.settings import refusal, require
from reference.networks.tensor_files import read_stored
from reference.pictures.prototypes import Prototypes, prototypes_of
from reference.pictures.strips import StripFile, read_strip
from reference.pictures.svg import Series
from reference.presets import PRESETS
from reference.run import folder as kept
from reference.run.files import read_json
from reference.run.report import METRICS, read_metrics

ROLES: Final = ("method", "other", "control", "source", "oracle")
# They belong to one run, not to a kind of run; so does all of the machine.
_OWN: Final = {"seed", "begin", "network.weights", *kept.MAY_CHANGE}


@dataclass(frozen=True)
class RecordedRun:
    """What a run folder says about its run."""

    folder: Path
    caption: str
    role: str  # what it is to the others, one of `ROLES`
    settings: Mapping[str, Any]  # as one table of dotted names
    starts: Sequence[Mapping[str, Any]]  # per start of the command, what origin.json says
    rows: Sequence[Mapping[str, Any]]  # lines of the metrics; columns without a number are left out
    table: Mapping[str, Any] | None  # per class, as JSON holds it; None before an evaluation
    held: Mapping[str, Any]  # the newest checkpoint; empty before the first

    @property
    def reached(self) -> int:
        """Iteration of the newest checkpoint."""
        return int(self.held.get("iteration", 0))

    @property
    def alarms(self) -> list[str]:
        """Sentences of the alarms so far."""
        return list(self.held.get("monitor", {}).get("told", {}).values())

    @cached_property
    def classes(self) -> Mapping[str, Colour]:
        """Colour of every class, from whatever says it."""
        protocol = (self.table or {}).get("evaluation", {}).get("protocol", {})
        if listed := self.held.get("classes") or protocol.get("classes"):
            return dict(zip(listed["names"], map(tuple, listed["colours"]), strict=True))
        return dict(self.strips[0][-1].legend) if self.strips else {}

    @cached_property
    def strips(self) -> list[list[StripFile]]:
        """Per image its panels in order of iterations."""
        images: dict[Path, list[StripFile]] = {}
        for path in sorted((self.folder / kept.PANELS).glob("*/*.png")):
            images.setdefault(path.parent, []).append(read_strip(path))
        order = ("validation", "target", "source")
        return sorted(
            images.values(), key=lambda each: (order.index(each[0].domain), each[0].index)
        )

    @cached_property
    def moments(self) -> list[tuple[int, Prototypes]]:
        """(iteration, prototypes) in order of iterations."""
        files = sorted((self.folder / kept.PROTOTYPES).glob("*.safetensors"))
        states = [(int(path.stem), read_stored(path)) for path in files]
        if not states and self.held.get("method"):
            states = [(self.reached, self.held["method"]["state"])]
        calibrate = bool(self.settings.get("adaptation.contrast.calibrate", True))
        moments = [(at, prototypes_of(state, calibrate=calibrate)) for at, state in states]
        return [(at, moment) for at, moment in moments if moment is not None and moment.classes]

    @property
    def done(self) -> int:
        """Iterations on record."""
        return max([self.reached, *(int(row["iteration"]) for row in self.rows)])

    @property
    def planned(self) -> int:
        """Iterations of the whole run."""
        source, rest = (self.settings[f"{stage}.iterations"] for stage in ("source", "adaptation"))
        return int({"adapt": rest, "full": source + rest}.get(self.settings["stages"], source))

    @property
    def evaluations(self) -> list[Mapping[str, Any]]:
        """The rows with a score."""
        return [row for row in self.rows if "miou_percent" in row]

    @property
    def score(self) -> float | None:
        """Mean IoU of the last evaluation in percent; None before the first."""
        means = list(self._last["means"].values()) or [None]
        return self.evaluations[-1]["miou_percent"] if self.evaluations else means[0]

    @property
    def iou(self) -> Mapping[str, float | None]:
        """IoU of the last evaluation in percent by class; None where it is undefined."""
        return dict(self._last["iou"])

    @property
    def confusion(self) -> list[list[int]] | None:
        """Pixels by true class (row) and predicted class (column), in the order of the classes."""
        return (self.table or {}).get("evaluation", {}).get("confusion") or None

    @property
    def images(self) -> int | None:
        """How many images the last evaluation scored; None before the first."""
        return (self.table or {}).get("evaluation", {}).get("images")

    @property
    def _last(self) -> Mapping[str, Any]:
        return self.table["rows"][0] if self.table else {"means": {}, "iou": {}}

    @property
    def boundaries(self) -> list[int]:
        """The last iteration of every phase but the last."""
        ends = {row["phase"]: int(row["iteration"]) for row in self.rows}
        return list(ends.values())[:-1]

    def column(self, name: str, scale: float = 1.0) -> Series:
        """Return the points (iteration, value * scale) of a column."""
        points = ((float(row["iteration"]), scale * row[name]) for row in self.rows if name in row)
        return [point for point in points if math.isfinite(point[1])]

    def columns(self, front: str) -> list[str]:
        """List the columns with a number whose name begins so, in order, without that beginning."""
        names = dict.fromkeys(name for row in self.rows for name in row if name.startswith(front))
        return [name.removeprefix(front) for name in names]


class Comparison(NamedTuple):
    """At least one run, what they are about, what scores are taken on, what one must know."""

    runs: Sequence[RecordedRun]
    title: str = ""
    target: str = ""
    note: str = ""


def is_own(name: str) -> bool:
    """Whether a setting, such as the seed or a path, says nothing about the kind of a run."""
    return name in _OWN or name.startswith("machine.")


def nearest_preset(settings: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the name and the values of the named settings that a run differs least from."""

    def distance(name: str) -> int:
        names = itertools.filterfalse(is_own, {*usual[name], *settings})
        return sum(usual[name].get(each) != settings.get(each) for each in names)

    usual = {name: kept.flat(kept.as_plain(preset)) for name, (_, preset) in PRESETS.items()}
    nearest = min(usual, key=distance)
    return nearest, usual[nearest]


def is_run(folder: Path) -> bool:
    """Whether a folder is one of a run, or at least holds the checkpoint of one."""
    return (folder / kept.SETTINGS).is_file() or (folder / kept.LAST).is_file()


def read_run(run: Path) -> RecordedRun:
    """Read what the folder of a run says; the run may go on meanwhile."""
    got = f"{run}, which has no {kept.SETTINGS}"
    hint = "give what --folder named, or a folder that holds such folders"
    require("report", "the folder", got, "of a run of reference.train", is_run(run), hint)
    held = read_stored(run / kept.LAST) if (run / kept.LAST).is_file() else {}
    plain = read_json("report", run / kept.SETTINGS, held.get("settings"))
    needed = {"stages", "method", "source", "adaptation"}
    ok = isinstance(plain, Mapping) and needed <= {*plain}
    got = "none with stages, source and adaptation"
    hint = "runs of an older version need that version's report"
    require("report", "the settings", got, f"of a run in {run}", ok, hint)
    settings = kept.flat(plain)
    kind = "control" if settings["method"] == "control" else settings["stages"]
    role = {"source-only": "source", "oracle": "oracle", "control": "control"}.get(kind, "method")
    starts = read_json("report", run / kept.ORIGIN, {}).get("starts", [])
    rows, table = read_metrics(run / METRICS), read_json("report", run / kept.CLASSES)
    return RecordedRun(run, run.resolve().name, role, settings, starts, rows, table, held)


def read_comparison(folders: Sequence[Path]) -> Comparison:
    """Read runs: each folder is of one, or has some inside.

    A ``comparison.json`` in such a folder names those to show, with captions and roles.
    """
    runs: list[RecordedRun] = []
    words: dict[str, str] = {}
    for folder in folders:
        told = read_json("report", folder / kept.COMPARISON)
        if told is None:
            inside = sorted(folder.iterdir()) if folder.is_dir() and not is_run(folder) else []
            runs += [read_run(path) for path in inside if is_run(path)] or [read_run(folder)]
            continue
        try:
            for row in told["rows"]:
                place, caption, role = folder / row["folder"], str(row["caption"]), row["role"]
                # A run that has not begun has no folder yet.
                if is_run(place):
                    role = role if role in ROLES else "other"
                    runs.append(replace(read_run(place), caption=caption, role=role))
            words = {name: str(told.get(name, "")) for name in ("title", "target", "note")}
        except (KeyError, TypeError) as error:
            wanted = f"with folder, caption and role in {folder / kept.COMPARISON}"
            got = f"something else ({type(error).__name__})"
            raise refusal("report", "rows", got, wanted) from error
    places = ", ".join(map(str, folders))
    require("report", "a run", "none that has begun", f"in {places}", bool(runs))
    return Comparison(_told_apart(runs), **words)


def _told_apart(runs: list[RecordedRun]) -> list[RecordedRun]:
    """Number captions that more than one run has, and call longer runs on the source controls."""
    captions = [run.caption for run in runs]
    lengths = [run.planned for run in runs if run.role == "source"]
    named = any(run.role == "control" for run in runs)
    for at, run in enumerate(runs):
        if captions.count(run.caption) > 1:
            caption = f"{run.caption} ({captions[: at + 1].count(run.caption)})"
            runs[at] = replace(run, caption=caption)
        if run.role == "source" and not named and run.planned > min(lengths):
            runs[at] = replace(runs[at], role="control")
    return runs
