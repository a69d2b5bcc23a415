"""The loop of a run: phases, steps, and when to report, evaluate and save."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from reference.data.loading import SourceBatch, TargetBatch
from reference.engine.checkpoints import Checkpoints
from reference.engine.clock import Clock
from reference.engine.console import RunConsole
from reference.engine.domains import RunDomains
from reference.engine.expectations import Band, expected_band
from reference.engine.metrics import SHARES, Metrics
from reference.engine.optimisation import set_learning_rate
from reference.engine.panels import RunPanels
from reference.engine.phases import Phase, phases
from reference.engine.processes import Processes
from reference.engine.pseudo_label_files import (
    labels_folder,
    require_complete,
    write_static_labels,
)
from reference.engine.recorded_settings import as_plain
from reference.engine.settings import Settings
from reference.engine.signals import Asked
from reference.engine.state import RunState, seed_dropout
from reference.engine.terms import BothDomains, Part, next_parts, part_losses, shares
from reference.engine.validation import Validation, protocol_of
from reference.training.losses import require_finite


class _AskedToStop(Exception):
    """Ends the making of static labels, which are then made anew."""


class Loop:
    """Trains a run from where its state stands to its end, or until it is asked to stop.

    Args:
        run: folder of the run.
        settings: of the run.
        state: network, prototypes, optimiser and the iteration they stand at.
        domains: the images.
        processes: the ranks.
        console: what a person sees.
        asked: whether to stop.
    """

    def __init__(
        self,
        run: Path,
        settings: Settings,
        state: RunState,
        domains: RunDomains,
        processes: Processes,
        console: RunConsole,
        asked: Asked,
    ) -> None:
        self.run, self.settings, self.state = run, settings, state
        self.domains, self.processes = domains, processes
        self.console, self.asked = console, asked
        self.plain = as_plain(settings)
        self.phases = phases(settings)
        self.last = self.phases[-1].stop
        self.checkpoints = Checkpoints(run, settings.reporting.keep)
        self.metrics = Metrics(run, state.iteration) if processes.leads else None
        self.clock = Clock(processes.device)
        self.validation: Validation | None = None
        if settings.reporting.evaluate and processes.leads:
            self.validation = Validation(run, settings, domains.validation)
        self.panels: RunPanels | None = None
        if settings.reporting.panels_every and processes.leads:
            self.panels = RunPanels(run, settings, domains)
        self._sums: dict[str, float] = {}
        self._steps = 0

    def __call__(self) -> bool:
        """Train.

        Returns:
            bool: whether the end was reached; False after a request to stop.

        Raises:
            NonFiniteLossError: a term became NaN or infinite; nothing that was saved is touched.
            ValueError: a file of the data is broken.
        """
        try:
            return all(
                self._run_phase(phase) for phase in self.phases if self.state.iteration < phase.stop
            )
        finally:
            if self.metrics is not None:
                self.metrics.close()

    def _run_phase(self, phase: Phase) -> bool:
        state = self.state
        entered = state.iteration == phase.start
        try:
            static = self._static_folder(phase, entered) if phase.static else None
        except _AskedToStop:
            return self._stop()
        if entered:
            state.enter(phase)
        read = self._reading(phase)
        sources = self.domains.source_parts(phase, state.iteration)
        targets: Iterator[TargetBatch] | None = None
        if phase.adapts:
            targets = self.domains.target_parts(phase, state.iteration, static)
        while state.iteration < phase.stop:
            if self._step(phase, read, sources, targets):
                return self._stop()
        return True

    def _stop(self) -> bool:
        self._save()
        self.console.say(f"asked to stop: saved iteration {self.state.iteration}")
        return False

    def _labelled(self, done: int, count: int) -> None:
        self.console.advance(done, count)
        # Several processes stop together, after the next step.
        if self.asked.yes and not self.processes.shared:
            raise _AskedToStop

    def _static_folder(self, phase: Phase, entered: bool) -> Path:
        folder = labels_folder(self.run, phase)
        if not entered:
            return require_complete(folder)
        self.state.share_buffers(self.processes)
        found = write_static_labels(
            folder,
            self.state.labeller,
            self.domains.target,
            self.settings.adaptation.static,
            masked=protocol_of(self.settings).masked,
            precision=self.state.precision,
            processes=self.processes,
            advance=self._labelled,
        )
        self.console.say(f"{phase.name}: static labels cover {found.coverage:.1%} of the target")
        return folder

    def _reading(self, phase: Phase) -> nn.Module:
        both = BothDomains(self.state.network, self.state.precision)
        if not self.processes.shared:
            return both
        # The warm-up leaves a second stem and a projection alone, and so does a round without
        # contrast; every other parameter has a gradient.
        return DistributedDataParallel(
            both,
            device_ids=[self.processes.device] if self.processes.device.type == "cuda" else None,
            broadcast_buffers=False,
            find_unused_parameters=not (phase.adapts and self.settings.adaptation.contrasts),
        )

    def _parts(
        self, sources: Iterator[SourceBatch], targets: Iterator[TargetBatch] | None
    ) -> list[Part]:
        self.clock.ask()
        machine, device = self.settings.machine, self.processes.device
        parts = next_parts(sources, targets, machine, device)
        self.clock.receive()
        return parts

    def _step(
        self,
        phase: Phase,
        read: nn.Module,
        sources: Iterator[SourceBatch],
        targets: Iterator[TargetBatch] | None,
    ) -> bool:
        """Do one iteration; True if any process was asked to stop."""
        state = self.state
        if state.optimiser is None:
            raise RuntimeError("Loop: expected an optimiser within a phase, got none.")
        rate = set_learning_rate(state.optimiser, phase, state.iteration)
        parts = self._parts(sources, targets)
        terms = self._backward(phase, read, parts)
        values = torch.stack([*terms.values(), terms["source_cross_entropy"].new_tensor(
            float(self.asked.yes))])  # fmt: skip
        *means, stop = (self.processes.total(values) / self.processes.world).cpu()
        named = dict(zip(terms, means, strict=True))
        numbers = require_finite(named, run=phase.name, step=state.iteration)
        state.step()
        state.iteration += 1
        self.clock.finish()
        self._after(phase, rate, numbers)
        return bool(stop > 0) and state.iteration < self.last

    def _backward(self, phase: Phase, read: nn.Module, parts: list[Part]) -> dict[str, Tensor]:
        """Add up the gradients of all parts; return the terms of this rank."""
        state = self.state
        common = shares(parts, self.processes)
        terms: dict[str, Tensor] = {}
        for number, part in enumerate(parts):
            seed_dropout(self.settings.seed, state.iteration, number, self.processes.rank)
            quiet: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
            if isinstance(read, DistributedDataParallel) and number < len(parts) - 1:
                quiet = read.no_sync()
            with quiet:
                done = part_losses(
                    state.network,
                    read,
                    state.bicl if phase.adapts else None,
                    part,
                    self.settings.adaptation,
                    phase.round_index,
                    common,
                )
                state.precision.scaler.scale(torch.stack([*done.losses.values()]).sum()).backward()
            for name, term in done.losses.items():
                terms[name] = terms[name] + term.detach() if name in terms else term.detach()
            if done.target is not None:
                coverage = None if done.contrast is None else done.contrast.coverage
                predictions = done.target.logits.argmax(dim=1)
                state.monitor.see(part.source.labels, predictions, coverage)
        return terms

    def _after(self, phase: Phase, rate: float, numbers: Mapping[str, float]) -> None:
        """Report, evaluate and save where it is due."""
        iteration, reporting = self.state.iteration, self.settings.reporting
        for name, value in numbers.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._steps += 1
        self.console.at(iteration, phase.name)
        estimate = self.clock.estimate(self.last - iteration)
        if estimate is not None:
            self.console.say(estimate)
        ends = iteration == phase.stop
        if ends or iteration % reporting.every == 0:
            self._report(phase, rate)
        every = reporting.evaluate_every
        last = iteration == self.last
        band = expected_band(self.settings, iteration)
        if reporting.evaluate and (last or band or (every and iteration % every == 0)):
            self._evaluate(phase, band)
        if self.panels is not None and (last or self.panels.due(iteration)):
            self.panels(self.state, phase)
        if last or iteration % reporting.checkpoint_every == 0:
            self._save()

    def _report(self, phase: Phase, rate: float) -> None:
        coverage, alarms = self.state.monitor.close(self.processes)
        speed, waited = self.clock.window()
        row: dict[str, Any] = {
            "iteration": self.state.iteration,
            "phase": phase.name,
            "learning_rate": rate,
            **{name: total / self._steps for name, total in self._sums.items()},
            "coverage": coverage,
            "iterations_per_second": speed,
            "data_wait_share": waited,
            "peak_mib": self.clock.peak_mib,
            **dict(zip(SHARES, self.state.monitor.now or (), strict=False)),
        }
        self._sums.clear()
        self._steps = 0
        if self.metrics is not None:
            self.metrics.write(row)
        self.console.row(row)
        for sentence in alarms:
            self.console.warn(f"{phase.name}, iteration {self.state.iteration}: {sentence}")

    def _evaluate(self, phase: Phase, band: Band | None) -> None:
        if self.validation is not None and self.metrics is not None:
            found = self.validation(self.state)
            self.metrics.write(
                {
                    "iteration": self.state.iteration,
                    "phase": phase.name,
                    "miou_percent": found.student,
                    "teacher_miou_percent": found.teacher,
                }
            )
            teacher = "" if found.teacher is None else f", moving average {found.teacher:.2f}"
            self.console.say(
                f"iteration {self.state.iteration}: {found.name} {found.student:.2f}{teacher}"
            )
            if band is not None:
                self.console.say(band.verdict(found.student))
            if self.state.best is None or found.student > self.state.best:
                self.state.best = found.student
                self.checkpoints.save_best(self.state.state(self.plain))
        self.processes.wait()

    def _save(self) -> None:
        if self.processes.leads:
            self.checkpoints.save(self.state.iteration, self.state.state(self.plain))
        self.processes.wait()
