"""What the command `ablate` is asked for, and how the results of a request are called."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from reference.experiments import tables
from reference.experiments.row_names import LABELS, METHOD, method_rows
from reference.experiments.scenario import DRAWN, NIGHT, TOY, choose_experiment
from reference.training.config import Experiment


@dataclass(frozen=True)
class Options:
    """Switch every ingredient off in turn, over seeds, and write docs/results.md.

    Args:
        seeds: of the drawn images, the weights and the batches; one experiment each.
        rows: names of rows; by default all for the toy, the main ones for photographs.
        target: "toy", "night", or the root of photographs in the layout of Cityscapes.
        sequence: a sequence of these photographs that is the target alone; the others of its split
            "train" are then the source, with labels, and nothing is drawn.
        method: names of related methods, or "all", beside the control in place of other rows.
        varied: draw every source image with a look of its own, and train a larger network longer;
            for photographs.
        steps: of the adaptation, in place of the preset's, in rounds as long as those.
        jobs: processes side by side, of one thread each.
        runs: rows are stored in <runs>/ablation, drawn images in <runs>/data.
        docs: folder of results.md and results/.
    """

    seeds: tuple[int, ...] = (0, 1, 2)
    rows: tuple[str, ...] = ()
    target: str = TOY
    sequence: str = ""
    method: tuple[str, ...] = ()
    varied: bool = False
    steps: int | None = None
    jobs: int = 2
    runs: Path = Path("runs")
    docs: Path = tables.DOCS

    @property
    def name(self) -> str:
        """What tables call the target."""
        name = self.target if self.target in DRAWN else Path(self.target).name
        return f"{name}, {self.sequence}" if self.sequence else name

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of related methods that are asked for; the night is there for them alone."""
        return self.method or (("all",) if self.target == NIGHT and not self.rows else ())

    @property
    def section(self) -> str:
        """The part of docs/results.md that these rows fill."""
        if self.methods or self.target == NIGHT:
            kind = self.target if self.target in DRAWN else "photographs"
            return "methods" if kind == TOY else f"methods-{kind}"
        if self.target == TOY:
            return TOY
        return "sequence" if self.sequence else "varied" if self.varied else "photographs"

    @property
    def fitting_rows(self) -> frozenset[str]:
        """The rows that stand in this part, whatever was asked for."""
        if self.section.startswith("methods"):
            return frozenset(method_rows(("all",)))
        return frozenset(row for row in LABELS if not row.startswith(METHOD))

    @property
    def folder(self) -> Path:
        """Where the rows of this target are stored."""
        drawn = self.target in DRAWN
        name = self.target if drawn else f"photographs-{Path(self.target).name}"
        name += f"-{self.sequence}" if self.sequence else ""
        name += "-varied" if self.varied else ""
        return self.runs / "ablation" / (name + (f"-{self.steps}-steps" if self.steps else ""))

    def experiment(self, seed: int) -> Experiment:
        """The settings of one seed.

        Raises:
            ValueError: less than one step.
        """
        found = choose_experiment(self.target, seed, varied=self.varied)
        if self.steps is None:
            return found
        preset = found.adaptation
        rounds = max(1, self.steps * preset.rounds // preset.steps)
        return replace(found, adaptation=replace(preset, steps=self.steps, rounds=rounds))

    @property
    def command(self) -> str:
        """The command line that asks for all rows, without paths of this machine."""
        command = f"python -m reference.ablate --jobs {self.jobs}"
        if self.target != TOY:
            drawn = self.target in DRAWN
            target = self.target if drawn else f"<root of {Path(self.target).name}>"
            command += f" --target {target}"
        command += f" --sequence {self.sequence}" if self.sequence else ""
        command += " --method all" if self.section.startswith("methods") else ""
        command += f" --steps {self.steps}" if self.steps else ""
        return command + (" --varied" if self.varied else "")
