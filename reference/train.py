"""Train on GTA5 or SYNTHIA and adapt to Cityscapes, or do the same on drawn scenes.

    python -m reference.train gta5-to-cityscapes --data.root /data --network.weights resnet101.pth
    python -m reference.train toy --run runs/toy
    torchrun --nproc-per-node 4 -m reference.train gta5-to-cityscapes --data.root /data ...

Writes settings, origin, metrics, checkpoints, static labels and scores per class into the run
folder. ``--resume auto`` goes on where a run was stopped or killed, with the same numbers.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final, Literal

import torch
import tyro

from reference.engine.checkpoints import LAST, Checkpoints
from reference.engine.console import RunConsole
from reference.engine.domains import RunDomains, set_folders
from reference.engine.loop import Loop
from reference.engine.phases import phases
from reference.engine.presets import PRESETS
from reference.engine.processes import Processes, processes
from reference.engine.recorded_settings import as_plain
from reference.engine.run_folder import open_run, record
from reference.engine.settings import Settings
from reference.engine.signals import asked_to_stop
from reference.engine.state import RunState, first_network
from reference.training.losses import NonFiniteLossError

INTERRUPTED: Final = 130


@dataclass(frozen=True)
class Options:
    """Train and adapt a segmentation network.

    Args:
        run: folder of the run; must be new or empty, unless it is resumed.
        resume: "auto" goes on from the newest checkpoint of the run folder, or begins where there
            is none.
        dry_run: check the settings, the data and the weights, print the plan, write nothing.
        print_config: print every setting as JSON and stop.
        settings: of the preset, changed by the command line.
    """

    run: Path = Path("runs/train")
    resume: Literal["never", "auto"] = "never"
    dry_run: bool = False
    print_config: bool = False
    settings: Annotated[Settings, tyro.conf.arg(name="")] = field(default_factory=Settings)


def read_options(arguments: Sequence[str] | None = None) -> Options:
    """Read a command line: the name of a preset, then what differs from it.

    Args:
        arguments: words; None takes those of the process.
    """
    commands = {
        name: (text, Options(run=Path("runs") / name, settings=settings))
        for name, (text, settings) in PRESETS.items()
    }
    return tyro.extras.overridable_config_cli(
        commands,
        args=arguments,
        prog="python -m reference.train",
        config=(tyro.conf.AvoidSubcommands,),
    )


def drawn_folder(options: Options) -> Path:
    """Return where the toy's images are drawn, beside the run folder."""
    data = options.settings.data
    height, width = data.drawn_size
    counts = f"{data.drawn.source_train}-{data.drawn.target_train}-{data.drawn.target_val}"
    name = f"drawn-{width}x{height}-{counts}-seed{options.settings.seed}"
    return options.run.parent / "data" / name


def plan(options: Options) -> str:
    """Check what a run needs, and say in words what it would do; nothing is written.

    Args:
        options: of the command.

    Raises:
        ValueError: a setting, the data or the weights are not what they should be.
        ImportError: the network needs timm, which cannot be imported.
    """
    settings = options.settings
    network, report = first_network(settings)
    millions = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    lines = [f"run folder {options.run}"]
    if settings.data.source_set == "toy":
        lines.append(f"drawn scenes in {settings.data.root or drawn_folder(options)}")
    else:
        domains = RunDomains(settings, drawn_folder(options), Processes(0, 1, torch.device("cpu")))
        domains.check()
        source, target = set_folders(settings.data)
        lines.append(f"source {source}: {len(domains.source)} images with labels")
        if settings.mode != "source-only":
            lines.append(f"target {target}: {len(domains.target)} images without labels")
        if settings.reporting.evaluate:
            lines.append(f"validation {target}: {len(domains.validation)} images")
    lines.append(f"network of {millions:.1f} million parameters")
    if report is not None:
        lines.append(str(report))
    for phase in phases(settings):
        rates = phase.learning_rate(phase.start), phase.learning_rate(phase.stop - 1)
        lines.append(
            f"{phase.name}: iterations {phase.start}..{phase.stop - 1}, learning rate of the "
            f"backbone {rates[0]:.2e} to {rates[1]:.2e}, times "
            f"{phase.optimiser.head_factor:g} for the head"
            + (", static labels made first" if phase.static else "")
        )
    return "\n".join(lines)


def run_training(options: Options, group: Processes) -> bool:
    """Train, or go on.

    Args:
        options: of the command.
        group: the processes that train together.

    Returns:
        bool: whether the run is complete; False after a request to stop.

    Raises:
        ValueError: a setting, the folder, the data or the weights are not what they should be.
        NonFiniteLossError: a loss term became NaN or infinite.
        ImportError: the network needs timm, which cannot be imported.
    """
    settings, run = options.settings, options.run
    plain = as_plain(settings)
    checkpoints = Checkpoints(run, settings.reporting.keep)
    problem = None
    if group.leads:
        try:
            open_run(run, plain, checkpoints, resume=options.resume == "auto")
        except ValueError as error:
            problem = str(error)
    problem = group.agree(problem)
    if problem is not None:
        raise ValueError(problem)
    held = checkpoints.newest()
    domains = RunDomains(settings, drawn_folder(options), group)
    domains.check()
    state = RunState(settings, group, held)
    if held is not None:
        done = max(0, held["iteration"] - 1)
        state.load(held, next(p for p in phases(settings) if done < p.stop))
    if settings.machine.compile:
        state.network.compile()
    group.wait()
    if group.leads:
        record(run, plain, state.iteration)
    count = phases(settings)[-1].stop
    with RunConsole(group.leads, count, state.iteration) as console, asked_to_stop() as asked:
        if state.report is not None and held is None:
            console.say(str(state.report))
        if held is not None:
            console.say(f"going on from iteration {state.iteration} of {count}")
        return Loop(run, settings, state, domains, group, console, asked)()


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, train; a wrong input ends with one sentence.

    Args:
        arguments: words of the command line; None takes those of the process.
    """
    options = read_options(arguments)
    if options.print_config:
        print(json.dumps(as_plain(options.settings), indent=2))
        return
    machine = options.settings.machine
    if machine.threads:
        torch.set_num_threads(machine.threads)
    if machine.deterministic:
        # cuBLAS repeats its sums only with a workspace of a fixed size.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    try:
        if options.dry_run:
            print(plan(options))
            return
        with processes(machine) as group:
            complete = run_training(options, group)
            if group.leads and complete:
                print(f"Complete: {options.run / LAST}")
    except (ValueError, ImportError, NonFiniteLossError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        print(f"Stopped; go on with --resume auto --run {options.run}.", file=sys.stderr)
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
