"""Train on a labelled source and adapt to an unlabelled target: the loop of every run.

    python -m reference.train toy
    python -m reference.train gta5-to-cityscapes --data.root /data --network.weights resnet101.pth
    python -m reference.train carla-to-camvid --method dacs --data.root /data
    torchrun --nproc-per-node 4 -m reference.train gta5-to-cityscapes --data.root /data ...

The run folder holds settings, origin, metrics, checkpoints, static labels, panels and scores per
class; `python -m reference.report FOLDER` shows it. ``--resume auto`` goes on where a run was
stopped or killed, with the same numbers.
"""

from reference.commands import answer, is_first_process, spoken_once
from reference.presets import Options, command_line

# Before torch is imported, so that --help answers at once.
OPTIONS = spoken_once(command_line) if __name__ == "__main__" else None

import contextlib
import functools
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from reference.data.batches import SOURCE_STREAM, TARGET_STREAM, Batch, batches
from reference.data.checking import scaling
from reference.data.classes import IGNORE
from reference.data.image_set import ImageSet
from reference.data.sets import Sets
from reference.data.settings import Crops
from reference.evaluation import validation
from reference.method import Part, label_counts, shared_by
from reference.run import panels
from reference.run.folder import LAST, RunFolder, as_plain, labels_of
from reference.run.plan import plan
from reference.run.ranks import Ranks, StopRequest, asked_to_stop, is_news, joined
from reference.run.report import Report
from reference.run.state import State, seed_dropout
from reference.settings import Phase, Settings, phases
from reference.static_labels import AskedToStop, require_complete, write_static_labels


def train(settings: Settings, folder: Path, *, resume: bool = False, quiet: bool = False) -> bool:
    """Train a run to its end, or until it is asked to stop; return whether it reached the end.

    A folder that is neither new nor empty is refused, unless `resume` is given and the run in it
    goes on. A loss that becomes NaN or infinite is a FloatingPointError; everything that was saved
    stays as it is. With `quiet`, only warnings are printed.
    """
    oracle = settings.stages == "oracle"
    with (
        joined(settings.machine) as ranks,
        RunFolder(folder, as_plain(settings), ranks, resume=resume) as run,
    ):
        sets = Sets(settings.data, settings.seed, oracle=oracle, one_first=ranks.one_first)
        state = State(settings, sets, ranks, run.checkpoint)
        notes = state.check()
        if settings.machine.compile:
            state.network.compile()
        ranks.wait()
        notes += run.record(state.iteration)
        listed, start, names = phases(settings), state.iteration, sets.classes.names
        shown = Report(folder, names, ranks, total=listed[-1].stop, start=start, quiet=quiet)
        with shown as report, asked_to_stop() as asked:
            for note in notes:
                report.warn(note)
            report.say(state.beginning)
            report.say(scaling(settings, sets))
            loop = Loop(settings, run, sets, state, ranks, report, asked)
            return all(loop.train(phase) for phase in listed if state.iteration < phase.stop)


class Loop:
    """Phases and steps of one run, and when to report, evaluate and save."""

    def __init__(
        self, settings: Settings, run: RunFolder, sets: Sets, state: State, ranks: Ranks,
        report: Report, asked: StopRequest,
    ) -> None:  # fmt: skip
        self.settings, self.run, self.sets, self.state = settings, run, sets, state
        self.ranks, self.report, self.asked = ranks, report, asked
        state.skip = functools.partial(report.warn, of_this_rank=True)
        self.last = phases(settings)[-1].stop

    def train(self, phase: Phase) -> bool:
        """Train one phase; False after a request to stop."""
        state = self.state
        begins = state.iteration == phase.start
        if begins:
            state.enter(phase)
        static = None
        if phase.static and state.method.uses_static:
            static = self.static_labels(phase, begins)
            if static is None:
                return self.stop()
        losses_of = shared_by(self.ranks, state.network, state.method)
        parts = self.parts(phase, static)
        while state.iteration < phase.stop:
            rate = state.set_rate(phase)
            with self.report.waiting():
                batch = [next(parts) for _ in range(self.settings.machine.accumulate)]
            stop = self.step(phase, losses_of, batch)
            self.after(phase, rate)
            if stop and state.iteration < self.last:
                return self.stop()
        return True

    def step(self, phase: Phase, losses_of: nn.Module, batch: Sequence[Part]) -> bool:
        """Do one iteration; True if any process was asked to stop."""
        state, ranks = self.state, self.ranks
        counts = label_counts(batch, state.class_weights, ranks)
        terms: dict[str, Tensor] = {}
        seen = []
        shared = losses_of if isinstance(losses_of, DistributedDataParallel) else None
        for number, part in enumerate(batch):
            seed_dropout(self.settings.seed, state.iteration, number, ranks.rank)
            step = state.step_of(phase, part, number, counts)
            last = number == len(batch) - 1
            # Ranks average their gradients after the last part only.
            with contextlib.nullcontext() if shared is None or last else shared.no_sync():
                losses = losses_of(step)
                loss = torch.stack([*losses.terms.values()]).sum() / len(batch)
                state.precision.scaler.scale(loss).backward()
            for name, term in losses.terms.items():
                terms[name] = terms.get(name, term.new_zeros(())) + term.detach() / len(batch)
            predictions = None if losses.target is None else losses.target.logits.argmax(dim=1)
            covered = None if losses.labels is None else (losses.labels != IGNORE).double().mean()
            seen.append((step.source_labels, predictions, covered))
        values = {name: float(term) for name, term in terms.items()}
        values, stop = ranks.mean_of_terms(values, asked=self.asked.yes)
        require_finite(values, phase.name, state.iteration)
        state.move()
        for one in seen:
            state.monitor.see(*one)
        self.report.step(values)
        return stop

    def parts(self, phase: Phase, static: Path | None) -> Iterator[Part]:
        """This rank's images of a phase from the present iteration on, on its device."""
        settings, ranks, sets = self.settings, self.ranks, self.sets
        stage = settings.adaptation if phase.adapts else settings.source
        each = settings.machine.accumulate
        crops = settings.adaptation.source_crops if phase.adapts else settings.source.crops

        def read(images: ImageSet, crops: Crops, stream: int, **more: Any) -> Iterator[Batch]:
            return batches(
                images, crops, seed=settings.seed, stream=stream,
                start=self.state.iteration * each, stop=phase.stop * each,
                batch_size=ranks.share(stage.batch_size, each), rank=ranks.rank,
                world=ranks.world, workers=settings.data.workers,
                pin_memory=ranks.device.type == "cuda", skip=self.state.skip,
                max_bad=settings.data.max_bad, **more,
            )  # fmt: skip

        rare = self.sets.rare_classes(stage.rare)
        sources = read(sets.labelled, crops, SOURCE_STREAM, rare=rare)
        targets: Iterator[Batch | None] = itertools.repeat(None)
        if phase.adapts and self.state.method.uses_target:
            cut = settings.adaptation.target_crops
            targets = read(sets.target, cut, TARGET_STREAM, static=static)
        last = settings.machine.channels_last
        to = functools.partial(Batch.to, device=ranks.device, channels_last=last)
        for source, target in zip(sources, targets, strict=False):
            yield Part(to(source), None if target is None else to(target))

    def static_labels(self, phase: Phase, begins: bool) -> Path | None:
        """The static labels of a round, made at its start; None after a request to stop."""
        folder = labels_of(self.run.path, phase.name)
        if not begins:
            return require_complete(folder)

        def advance(done: int, count: int) -> None:
            self.report.labelled(done, count)
            # Several processes stop together, after the next step.
            if self.asked.yes and not self.ranks.shared:
                raise AskedToStop

        state = self.state
        state.share_buffers()
        try:
            coverage = write_static_labels(
                folder, state.labeller, self.sets.target, self.settings.adaptation.static,
                masked=self.sets.masked, class_weight=state.class_weight, see=state.see,
                ranks=self.ranks, advance=advance,
                skip=state.skip, max_bad=self.settings.data.max_bad,
            )  # fmt: skip
        except AskedToStop:
            return None
        self.report.say(f"{phase.name}: static labels cover {coverage:.1%} of the target")
        return folder

    def after(self, phase: Phase, rate: float) -> None:
        """Report, evaluate and save where it is due."""
        iteration, reporting = self.state.iteration, self.settings.reporting
        last = iteration == self.last
        if iteration == phase.stop or iteration % reporting.every == 0:
            coverage, alarms = self.state.monitor.close(self.ranks)
            self.report.row(iteration, phase.name, rate, coverage, self.state.monitor.now)
            for sentence in alarms:
                self.report.warn(f"{phase.name}, iteration {iteration}: {sentence}")
        if validation.due(self.settings, iteration):
            self.evaluate(phase)
        if panels.due(self.settings, iteration):
            panels.draw_panels(self.run.path, self.settings, self.sets, self.state, phase)
        if last or iteration % reporting.checkpoint_every == 0:
            self.save()

    def evaluate(self, phase: Phase) -> None:
        """Score the network, and its moving average, on the validation images."""
        state = self.state
        if self.ranks.is_main:
            score = validation.validate(self.run.path, self.settings, self.sets, state)
            percent = score.student, score.teacher
            self.report.scores(state.iteration, phase.name, *percent, name=score.name)
            self.report.say(score.verdict)
            if state.best is None or score.student > state.best:
                state.best = score.student
                self.run.save_best(state.state(self.run.plain))
        self.ranks.wait()

    def save(self) -> None:
        """Write a checkpoint."""
        if self.ranks.is_main:
            self.run.save(self.state.iteration, self.state.state(self.run.plain))
        self.ranks.wait()

    def stop(self) -> bool:
        """Save, because somebody asked to stop; False."""
        self.save()
        self.report.say(f"asked to stop: saved iteration {self.state.iteration}")
        return False


def require_finite(values: Mapping[str, float], phase: str, iteration: int) -> None:
    """Refuse NaN and infinity, before the optimiser moves."""
    for name, value in values.items():
        if not math.isfinite(value):
            raise FloatingPointError(
                f"train: expected a finite loss, got {name} = {value} at iteration {iteration} of "
                f"{phase}. Hint: lower the learning rate or the weight of this term."
            )


def main(options: Options) -> None:
    """Do what a command line asks for; a wrong input ends with one sentence."""

    def work() -> None:
        settings, folder, told = options.settings, options.folder, ""
        if options.print_config:
            told = json.dumps(as_plain(settings), indent=2)
        elif options.dry_run:
            told = plan(settings, folder, resume=options.resume == "auto")
        elif train(settings, folder, resume=options.resume == "auto"):
            told = f"Complete: {folder / LAST}"
        if told and is_first_process():
            print(told)

    stopped = f"Stopped; go on with --resume auto --folder {options.folder}."
    answer(work, stopped, is_news=is_news)


if OPTIONS is not None:
    main(OPTIONS)
