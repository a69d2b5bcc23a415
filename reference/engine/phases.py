"""A run as a row of phases: the warm-up, then one per round; all follows from the settings.

Nothing here is stored, so that a resumed run finds its place from the iteration alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from reference.engine.settings import Settings
from reference.engine.stage_settings import Optimiser


@dataclass(frozen=True)
class Phase:
    """A stretch of iterations with one task.

    Args:
        name: "source" or "round 0" and so on.
        start: first iteration, counted over the whole run.
        stop: one past the last.
        round_index: from 0; None in the warm-up, which sees no target image.
        static: whether static labels are made before its first iteration and used in it.
        fresh: whether it begins with a new optimiser.
        optimiser: as set for its stage.
        rate_factor: times the learning rate of that.
        schedule_start: iteration at which the schedule began.
        schedule_length: iterations over which the rate would fall to 0.
    """

    name: str
    start: int
    stop: int
    round_index: int | None
    static: bool
    fresh: bool
    optimiser: Optimiser
    rate_factor: float
    schedule_start: int
    schedule_length: float

    @property
    def adapts(self) -> bool:
        """Whether target images are seen."""
        return self.round_index is not None

    def learning_rate(self, iteration: int) -> float:
        """Return the rate of the backbone at an iteration of this phase."""
        done = iteration - self.schedule_start
        settings = self.optimiser
        rate = settings.learning_rate * self.rate_factor
        if done < settings.warmup:
            rate *= (done + 1) / settings.warmup
        return float(rate * (1 - done / self.schedule_length) ** settings.poly_power)


def phases(settings: Settings) -> tuple[Phase, ...]:
    """List the phases of a run in order.

    Args:
        settings: of the run.
    """
    found: list[Phase] = []
    warmup = 0 if settings.mode == "adapt" else settings.source.iterations
    if warmup:
        optimiser = settings.source.optimiser
        length = warmup * optimiser.horizon
        found.append(Phase("source", 0, warmup, None, False, True, optimiser, 1.0, 0, length))
    if settings.mode == "source-only":
        return tuple(found)
    stage = settings.adaptation
    each = stage.iterations // stage.rounds
    for number in range(stage.rounds):
        start = warmup + number * each
        last = number == stage.rounds - 1
        stop = warmup + stage.iterations if last else start + each
        began, span = (start, stop - start) if stage.restart else (warmup, stage.iterations)
        found.append(
            Phase(
                name=f"round {number}",
                start=start,
                stop=stop,
                round_index=number,
                static=stage.uses_static and number >= stage.static.from_round,
                fresh=number == 0 or stage.restart,
                optimiser=stage.optimiser,
                rate_factor=stage.round_factor**number if stage.restart else 1.0,
                schedule_start=began,
                schedule_length=span * stage.optimiser.horizon,
            )
        )
    return tuple(found)
