"""What a run would do, in words, after the checks that the run itself makes."""

from __future__ import annotations

from pathlib import Path

from reference.data.checking import adapts, check_run
from reference.data.sets import open_sets
from reference.run.ranks import joined
from reference.run.state import State
from reference.settings import Settings, phases


def plan(settings: Settings, folder: Path) -> str:
    """Check what a run needs, and say what it would do; nothing is written to its folder."""
    with joined(settings.machine) as ranks:
        sets = open_sets(settings.data, settings.seed, oracle=settings.stages == "oracle")
        notes = check_run(settings, sets, ranks)
        state = State(settings, sets, ranks)
    millions = sum(parameter.numel() for parameter in state.network.parameters()) / 1e6
    seen = sets.describe(target=adapts(settings), validation=settings.reporting.evaluate)
    network = f"network of {millions:.1f} million parameters; {state.beginning}"
    trained = [
        f"{phase.name}: iterations {phase.start}..{phase.stop - 1}, learning rate of the backbone "
        f"{phase.learning_rate(phase.start):.2e} to {phase.learning_rate(phase.stop - 1):.2e}"
        for phase in phases(settings)
    ]
    return "\n".join([f"run folder {folder}", *seen, *notes, network, *trained])
