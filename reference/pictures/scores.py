"""What a page compares: scores, the gain in one sentence, and the other comparisons in words."""

import itertools
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

from reference.pictures.recorded_run import ROLES, Comparison, RecordedRun

_COLOURS: Final = {
    "source": "var(--grey)", "control": "var(--dark)", "oracle": "var(--green)",
    "teacher": "var(--teal)", "best": "var(--orange)", "before": "var(--grey)",
}  # fmt: skip
_CONTROL: Final = (
    "The control is the source-only network trained on the source for as many further steps as the "
    "adaptation takes, so its score says what more training alone would bring."
)
_BEST: Final = (
    "The last checkpoint is the result. The best one was chosen with the labels that it is scored "
    "on, so its score is too high to compare with others."
)
# Points that seeds alone can make, and images that are too few for a score.
_SHOWN, _FEW = 1.0, 50
OTHERS: Final = ("var(--orange)", "var(--violet)", "var(--teal)")


def signed(value: float, digits: int = 1) -> str:
    """Write a difference with its sign, the minus as wide as the plus."""
    return f"{value:+.{digits}f}".replace("-", "\N{MINUS SIGN}")


class Score(NamedTuple):
    """A score with what it is compared by."""

    caption: str
    role: str  # as that of a run; "best" for one that was chosen on the labels it is scored on
    miou: float | None  # percent; None before the first evaluation
    iteration: int = 0  # of that evaluation
    progress: str = ""  # how far the run is, where it has not reached its end
    iou: Mapping[str, float | None] = MappingProxyType({})  # percent by class; or the mean alone
    colour: str = ""  # in CSS


def subject(comparison: Comparison) -> RecordedRun:
    """The run that a page is about: the first with the role "method", else the next best role."""
    return min(comparison.runs, key=lambda run: ROLES.index(run.role))


def _part(caption: str, role: str, row: Mapping[str, float], column: str = "miou_percent") -> Score:
    return Score(caption, role, row[column], int(row["iteration"]), colour=_COLOURS[role])


def scores(comparison: Comparison) -> list[Score]:
    """List what is compared: every run, or a single run beside its own warm-up and its best."""
    rows, others = [], itertools.cycle(OTHERS)
    for run in comparison.runs:
        own, colour = run.evaluations, _COLOURS.get(run.role)
        if colour is None:
            colour = "var(--blue)" if run is subject(comparison) else next(others)
        at = own[-1]["iteration"] if own else run.done
        left = f"{run.done} of {run.planned} iterations" if run.done < run.planned else ""
        rows.append(Score(run.caption, run.role, run.score, at, left, run.iou, colour))
    if len(rows) > 1 or not own:
        return rows
    last, best = own[-1], max(own, key=lambda each: float(each["miou_percent"]))
    warm = [each for each in own if each["phase"] == "source"]
    if warm and last["phase"] != "source":
        rows.insert(0, _part("source only", "source", warm[-1]))
    if "teacher_miou_percent" in last:
        name = f"{run.caption}, moving average"
        rows.append(_part(name, "teacher", last, "teacher_miou_percent"))
    if best is not last:
        rows.append(_part("best, oracle-selected", "best", best))
    return rows


def pair(comparison: Comparison, rows: Sequence[Score]) -> tuple[Score, Score | None]:
    """Of `scores`, what a page is about, and what it is held against: control, else source only."""
    main = next(row for row in rows if row.caption == subject(comparison).caption)
    against = [row for role in ("control", "source") for row in rows if row.role == role]
    return main, next((row for row in against if row is not main and row.miou is not None), None)


def headline(name: str, main: Score, base: Score | None, images: int | None = None) -> str:
    """Say in one sentence what was reached, over what it is a gain, and how far the run is.

    `images` is how many were scored, which is told of a few.
    """
    so_far = f" after {main.progress}" if main.progress else ""
    if main.miou is None:
        return f"{name}: not evaluated yet{so_far}."
    if images is not None and images < _FEW:
        so_far += f", on {images} image{'' if images == 1 else 's'} alone"
    if base is None or base.miou is None:
        return f"{name}: mean IoU {main.miou:.1f}%{so_far}."
    value = main.miou - base.miou
    other = "the control" if base.role == "control" else base.caption
    means = f"mean IoU {main.miou:.1f}% against {base.miou:.1f}%{so_far}"
    if abs(value) < _SHOWN:
        return f"{name} against {other}: no difference that one run could show; {means}."
    if value > 0:
        return f"{name} gains {_points(value)} over {other}: {means}."
    return f"{name} does not help here: {_points(value)} worse than {other}, {means}."


def _points(value: float) -> str:
    return f"{abs(value):.1f} point{'' if f'{abs(value):.1f}' == '1.0' else 's'}"


def explanation(main: Score, base: Score | None, rows: Sequence[Score]) -> list[str]:
    """Put the other comparisons into sentences, the unfavourable ones included."""
    sentences = []
    if base is not None and base.role == "control":
        sentences.append(_CONTROL)
    for row in rows:
        if row is not main and row.role in ("method", "other") and main.miou and row.miou:
            words = f"{row.caption[:1].upper()}{row.caption[1:]} reaches {row.miou:.1f}%"
            value, name = main.miou - row.miou, main.caption
            than = f"{name} is {_points(value)} {'better' if value > 0 else 'worse'} than that"
            same = f"no difference to {name} that one run could show"
            sentences.append(f"{words}; {same if abs(value) < _SHOWN else than}.")
    if changes := changes_of(main, base):
        order = sorted(changes.items(), key=lambda change: -change[1])
        best = _listed([change for change in order[:3] if change[1] >= 1])
        worst = _listed([change for change in order[:-4:-1] if change[1] <= -1])
        if best:
            sentences.append(f"{main.caption} gains most on {best}.")
        sentences.append(f"It loses on {worst}." if worst else "No class loses a point or more.")
    oracle = next((row.miou for row in rows if row.role == "oracle"), None)
    if oracle is not None and main.role != "oracle" and main.miou is not None:
        sentence = f"The same network trained on the target's own labels reaches {oracle:.1f}%"
        if base and base.miou is not None and base.miou < main.miou < oracle:
            closed = (main.miou - base.miou) / (oracle - base.miou)
            sentence += f"; adaptation closes {closed:.0%} of the way to it"
        sentences.append(sentence + ".")
    if any(row.role == "best" for row in rows):
        sentences.append(_BEST)
    return sentences


def changes_of(main: Score, base: Score | None) -> dict[str, float]:
    """Class -> points of IoU that it gains, where both scores have it."""
    pairs = {n: (value, base.iou.get(n)) for n, value in main.iou.items()} if base else {}
    return {n: a - b for n, (a, b) in pairs.items() if a is not None and b is not None}


def _listed(changes: list[tuple[str, float]]) -> str:
    names = [f"{name} ({signed(value, 0)})" for name, value in changes]
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def before(run: RecordedRun, base: Score | None) -> Score | None:
    """What IoU per class is held against: the base, else the run's own evaluation before."""
    if base is not None and base.iou:
        return base
    rows = {row["name"]: row["iou"] for row in run.table["rows"]} if run.table else {}
    name, colour = "previous evaluation", _COLOURS["before"]
    return Score(name, "before", None, iou=rows[name], colour=colour) if name in rows else None
