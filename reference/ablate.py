"""Run the ingredient matrix over seeds and write its tables into docs/results.md.

    python -m reference.ablate
    python -m reference.ablate --method all
    python -m reference.ablate --method all --target night
    python -m reference.ablate --target carla-to-camvid --root /data
    python -m reference.ablate --target carla-to-camvid --root /data --method dacs pipa
    python -m reference.ablate --target carla-to-kitti --root /data --seeds 0 --rows bicl balanced
    python -m reference.ablate --target day-to-dusk --root /data

Every row of every seed is a run folder below runs/ablation. A stopped command goes on where it
stopped: rows with the same settings are reused, other settings are refused. A source network that
was trained for another target with the same settings serves this one.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from reference.commands import answer, read
from reference.data.settings import require
from reference.experiments import runs, tables, targets
from reference.experiments.rows import (
    BESIDE_METHODS,
    BESIDE_ON_PRESETS,
    LABELS,
    METHOD,
    ORACLE,
    SOURCE,
    method_rows,
    usual_rows,
)
from reference.experiments.runs import Run, record_of, rows_of
from reference.experiments.targets import NIGHT, TOY
from reference.presets import PRESETS
from reference.run.files import write_atomically
from reference.settings import Settings

_HINT: Final = "move the folder away, or choose another with --runs"
# Options of former versions, and what to type instead.
_GONE: Final = {
    "--varied": "--target carla-to-camvid --root FOLDER has a rendered source",
    "--sequence": "--target day-to-dusk --root FOLDER adapts to a drive of the camvid inside",
}


@dataclass(frozen=True)
class Options:
    """Switch every ingredient off in turn, over seeds, and write docs/results.md."""

    # of the drawn images, the weights and the batches; one experiment each
    seeds: tuple[int, ...] = (0, 1, 2)
    # names of rows; by default the main ones of the target's table
    rows: tuple[str, ...] = ()
    # toy, night, or a preset of reference.train
    target: str = TOY
    # folder with one folder per set, for presets that draw nothing
    root: Path | None = None
    # names of related methods, or all, beside the control in place of other rows
    method: tuple[str, ...] = ()
    # of the adaptation, in place of the preset's, in rounds as long as those
    steps: int | None = None
    # processes side by side, of one thread each
    jobs: int = 2
    # rows are stored in <runs>/ablation, drawn images in <runs>/data
    runs: Path = Path("runs")
    # folder of results.md and results/
    docs: Path = tables.DOCS

    def check(self) -> None:
        """Refuse what does not go together."""
        for row in self.rows:
            require("ablate", "rows", row, f"among {', '.join(LABELS)}", row in LABELS)
        differ = 0 < len({*self.seeds}) == len(self.seeds)
        require("ablate", "different seeds,", self.seeds, "at least one", differ)
        hint, ok = "give the folder of its sets with --root", self.target in (NIGHT, *PRESETS)
        require("ablate", "target", self.target, "toy, night or a preset", ok, hint)
        drawn = not self.rendered or PRESETS[self.target][1].data.source_set == TOY
        wanted = f"a folder with target {self.target}"
        require("ablate", "root", self.root, wanted, drawn or self.root is not None, hint)
        got, ok = f"{self.method[:1]} with them", not (self.method and self.rows)
        require("ablate", "no rows", got, "beside method", ok, "give --method alone")
        steps = 1 if self.steps is None else self.steps
        for name, value in (("jobs", self.jobs), ("steps", steps)):
            require("ablate", name, value, "of at least 1", value >= 1)

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of related methods that are asked for; the night is there for them alone."""
        return self.method or (("all",) if self.target == NIGHT and not self.rows else ())

    @property
    def rendered(self) -> bool:
        """Whether the target is a preset of reference.train, whose images lie on a disk."""
        return self.target not in (TOY, NIGHT)

    @property
    def section(self) -> str:
        """The part of docs/results.md that these rows fill, or the name of a file of their own."""
        if self.target == NIGHT or (self.methods and self.rendered):
            return f"methods-{self.target}"
        return "methods" if self.methods else self.target

    @property
    def wanted_rows(self) -> tuple[str, ...]:
        """The rows that are asked for, in the order of tables, with the source stage they need."""
        usual = self.rows_of(self.methods) if self.methods else usual_rows(self.target)
        wanted = {SOURCE, *(self.rows or usual)}
        return tuple(row for row in LABELS if row in wanted)

    def rows_of(self, methods: tuple[str, ...]) -> tuple[str, ...]:
        """Rows of related methods and those beside them on this target."""
        beside = BESIDE_ON_PRESETS if self.rendered else BESIDE_METHODS
        return method_rows(methods, beside, day_images="night" in self.target)

    @property
    def folder(self) -> Path:
        """Where the rows of this target are stored."""
        steps = f"-{self.steps}-steps" if self.steps else ""
        return self.runs / "ablation" / f"{self.target}{steps}"

    def preset(self, seed: int) -> Settings:
        """Settings that every row of a seed begins from."""
        data = self.runs / "data"
        settings = targets.target_settings(self.target, seed, data=data, root=self.root)
        stage = settings.adaptation
        if self.steps is not None:
            rounds = max(1, self.steps * stage.rounds // stage.iterations)
            stage = replace(stage, iterations=self.steps, rounds=rounds)
        reporting = replace(settings.reporting, panels_every=0, keep=1)
        return replace(settings, adaptation=stage, reporting=reporting)

    @property
    def command(self) -> str:
        """The command line that asks for all rows, without paths of this machine."""
        words = {
            "--target": self.target if self.target != TOY else "",
            "--root": "<folder of the sets>" if self.root else "",
            "--method": "all" if self.section.startswith("methods") else "",
            "--steps": self.steps,
        }
        command = f"python -m reference.ablate --jobs {self.jobs}"
        return command + "".join(f" {word} {value}" for word, value in words.items() if value)


def runs_of(options: Options, rows: Sequence[str], seeds: Sequence[int]) -> list[Run]:
    """Runs of rows, keys of `LABELS`, for some seeds."""
    return [
        run
        for seed in seeds
        for run in rows_of(rows, options.preset(seed), options.folder / f"seed{seed}")
    ]


def stored_records(options: Options) -> dict[Run, dict[str, Any]]:
    """Every complete row of this target, whatever rows and seeds the command asks for."""
    names = (path.name.removeprefix("seed") for path in options.folder.glob("seed*"))
    seeds = sorted(int(name) for name in names if name.isdigit())
    stored = [run for run in runs_of(options, tuple(LABELS), seeds) if run.folder.is_dir()]
    for run in stored:
        runs.refuse_other_settings(run, "ablate", _HINT)
    return {run: record for run in stored if (record := record_of(run)) is not None}


def train_missing(options: Options) -> list[str]:
    """Train what is asked for and not complete, and tell each score; return why rows failed."""
    options.check()
    stored = stored_records(options)
    wanted = runs_of(options, options.wanted_rows, options.seeds)
    missing = [run for run in wanted if run not in stored]
    if reused := len(wanted) - len(missing):
        print(f"{reused} of {len(wanted)} rows are stored with these settings: reused.")
    targets.draw_missing(run.settings for run in missing)
    missing = [r for r in missing if r.row != ORACLE or targets.has_training_labels(r.settings)]
    for run in [run for run in missing if run.row == SOURCE]:
        if (other := runs.take_over(run, options.runs / "ablation")) is not None:
            missing.remove(run)
            print(f"{run.folder}: the network of {other}, scored on this target.", flush=True)
    problems = []
    for number, (run, problem) in enumerate(runs.train_all(missing, options.jobs), 1):
        record = record_of(run)
        if problem is not None or record is None:
            problems.append(f"{run.folder}: {problem}")
            print(f"failed: {problems[-1]}")
            continue
        print(
            f"{number:3}/{len(missing)}  seed {record['seed']}  {LABELS[run.row]:<48} "
            f"{record['miou']:5.1f} %  {record['seconds']:4.0f} s",
            flush=True,
        )
    return problems


def store_tables(options: Options) -> str:
    """Copy the numbers of all stored rows to the documents, write their tables anew, and say so.

    Rows that stand there stay beside new ones of the same source networks. They are not replaced by
    fewer rows or seeds of other networks, nor by those of another data set.
    """
    methods = options.section.startswith("methods")
    every = options.rows_of(("all",)) if methods else LABELS
    fitting = [row for row in every if methods or METHOD not in row]
    stored = {run: r for run, r in stored_records(options).items() if run.row in fitting}
    settings = next(iter(stored)).settings
    summary = tables.summarise(
        sorted(stored.values(), key=lambda record: [*LABELS].index(record["row"])),
        target=options.target, command=options.command, split=settings.data.val_split,
        images=targets.image_counts(settings),
    )  # fmt: skip
    path = options.docs / "results" / f"{options.section}.json"
    if before := tables.load_summary(options.docs, options.section):
        if (both := tables.joined(before, summary)) is None:
            return (
                f"{path} is left as it is: it holds {len(before['rows'])} rows of "
                f"{before['target']}, and the {len(summary['rows'])} stored rows of "
                f"{options.target} neither cover them nor begin with the same source networks."
            )
        summary = both
    write_atomically(path, json.dumps(summary, indent=1) + "\n")
    tables.main(options.docs)
    from reference.pictures import method_gains

    method_gains.write(options.docs)
    return f"Wrote {path} and {options.docs / 'results.md'}"


def main() -> None:
    """Read the command line and run; a wrong input ends with one sentence."""
    for gone in {*_GONE} & {*sys.argv}:
        sys.exit(f"ablate: expected an option of this version, got {gone}. Hint: {_GONE[gone]}.")
    options = read(Options, "ablate")
    stopped = "Stopped; the same command goes on."
    if problems := answer(lambda: train_missing(options), stopped):
        sys.exit(f"{len(problems)} rows failed; the documents are left as they are.")
    print(answer(lambda: store_tables(options), stopped))


if __name__ == "__main__":
    main()
