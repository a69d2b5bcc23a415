"""Everything that a step changes, in one place, and as tensors that a checkpoint can hold.

Random numbers are not among it: dropout is seeded anew at every part of every iteration, so no
random state is carried from one step to the next.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import protocontrast as pc
from reference.engine.monitor import Monitor
from reference.engine.optimisation import Precision, build_optimiser
from reference.engine.phases import Phase
from reference.engine.processes import Processes
from reference.engine.settings import NetworkSettings, Settings
from reference.networks.card import build, describe
from reference.networks.deeplab import DeepLab, DeepLabOptions, seeded
from reference.networks.output import Segmenter
from reference.networks.release import read_checkpoint
from reference.networks.toy import SegmentationNetwork
from reference.networks.weights import WeightReport, load_weights
from reference.training.adapt_step import build_bicl


def first_network(settings: Settings) -> tuple[Segmenter, WeightReport | None]:
    """Build the network that a run begins with, and say what became of its weights.

    Args:
        settings: of the run.

    Raises:
        ValueError: the weights to start from are missing or do not fit.
        ImportError: the network needs timm, which cannot be imported.
    """
    if settings.start is not None:
        return read_checkpoint(settings.start, "student").network, None
    return _new_network(settings.network, settings.seed)


def _new_network(settings: NetworkSettings, seed: int) -> tuple[Segmenter, WeightReport | None]:
    if settings.kind == "toy":
        return seeded(SegmentationNetwork, seed), None
    options: DeepLabOptions = settings.deeplab
    network = seeded(lambda: DeepLab(options), seed)
    if settings.weights is None:
        if not settings.random_weights:
            raise ValueError(
                "train: expected a file of pre-trained weights, got none. Hint: give "
                "--network.weights FILE, or --network.random-weights, which costs most of the "
                "score."
            )
        return network, None
    if not isinstance(network, DeepLab):
        raise TypeError(f"train: expected a DeepLab, got {type(network).__name__}.")
    return network, load_weights(network, settings.weights)


def seed_dropout(seed: int, iteration: int, part: int, rank: int) -> None:
    """Seed torch's generators, which dropout reads, for one part of one iteration."""
    key = np.random.SeedSequence([seed, iteration, part, rank])
    torch.manual_seed(int(key.generate_state(1, np.uint64)[0] >> 1))


class RunState:
    """What a run trains.

    Args:
        settings: of the run.
        processes: says on which device.
        held: checkpoint that will be loaded, whose network needs no other weights; None for a new
            run.

    Raises:
        ValueError: the weights to start from are missing or do not fit.
        ImportError: the network needs timm, which cannot be imported.
    """

    def __init__(
        self, settings: Settings, processes: Processes, held: Mapping[str, Any] | None = None
    ) -> None:
        self.settings = settings
        self.leads = processes.leads
        device = processes.device
        self.report: WeightReport | None = None
        if held is not None:
            network: Segmenter = build(held["description"])
        else:
            network, self.report = first_network(settings)
        memory = torch.channels_last if settings.machine.channels_last else torch.contiguous_format
        # The format is a keyword that the types of torch leave out.
        place: dict[str, Any] = {"device": device, "memory_format": memory}
        self.network: Segmenter = network.train().to(**place)
        if settings.machine.sync_batch_norm and processes.shared and device.type == "cuda":
            self.network = cast(Segmenter, nn.SyncBatchNorm.convert_sync_batchnorm(self.network))
        self.teacher: AveragedModel | None = None
        if settings.ema_decay:
            average = get_ema_multi_avg_fn(settings.ema_decay)
            self.teacher = AveragedModel(self.network, multi_avg_fn=average, use_buffers=True)
        self.bicl: pc.BiCL | None = None
        if settings.mode != "source-only" and settings.adaptation.contrasts:
            self.bicl = build_bicl(settings.adaptation.contrast, network.feature_dim).to(device)
        self.precision = Precision(settings.machine, processes)
        self.optimiser: torch.optim.Optimizer | None = None
        self.monitor = Monitor()
        self.iteration = 0
        self.best: float | None = None

    @property
    def labeller(self) -> Segmenter:
        """The network that makes static labels."""
        if self.teacher is not None and self.settings.adaptation.static.teacher:
            return averaged(self.teacher)
        return self.network

    def enter(self, phase: Phase) -> None:
        """Begin a phase: a new optimiser where it wants one, and the source's own stem.

        Args:
            phase: whose first iteration is next.
        """
        if phase.fresh or self.optimiser is None:
            self.optimiser = build_optimiser(self.network, phase.optimiser)
        if phase.round_index == 0:
            _copy_stem(self.network)

    def step(self) -> None:
        """Move the weights by the gradients that they hold, then the average."""
        if self.optimiser is None:
            raise RuntimeError("RunState.step: expected a phase to be entered first, got none.")
        self.precision.scaler.step(self.optimiser)
        self.precision.scaler.update()
        self.optimiser.zero_grad(set_to_none=True)
        if self.teacher is not None:
            self.teacher.update_parameters(self.network)

    def share_buffers(self, processes: Processes) -> None:
        """Give all processes the statistics of the first, which are those that are stored.

        Each process meets its own images, and labels would differ with whoever makes them.

        Args:
            processes: all must call this.
        """
        processes.share_buffers(self.network)
        if self.teacher is not None:
            processes.share_buffers(self.teacher)

    def state(self, plain: Mapping[str, Any]) -> dict[str, Any]:
        """Return the checkpoint: tensors and plain values.

        Args:
            plain: the settings, as `recorded_settings.as_plain` gives them.
        """
        held: dict[str, Any] = {
            "iteration": self.iteration,
            "description": describe(self.network),
            "student": self.network.state_dict(),
            "optimiser": None if self.optimiser is None else self.optimiser.state_dict(),
            "scaler": self.precision.scaler.state_dict(),
            "bicl": None if self.bicl is None else self.bicl.state_dict(),
            "monitor": self.monitor.state(),
            "best": self.best,
            "settings": dict(plain),
        }
        if self.teacher is not None:
            held["teacher"] = self.teacher.module.state_dict()
            held["teacher_updates"] = int(self.teacher.n_averaged)
        return held

    def load(self, held: Mapping[str, Any], phase: Phase) -> None:
        """Take a checkpoint of this run over.

        Args:
            held: of `state`.
            phase: that its last step belonged to.
        """
        self.iteration = held["iteration"]
        self.best = held["best"]
        self.network.load_state_dict(held["student"])
        if held["optimiser"] is not None:
            self.optimiser = build_optimiser(self.network, phase.optimiser)
            self.optimiser.load_state_dict(held["optimiser"])
        if self.precision.scaler.is_enabled():
            self.precision.scaler.load_state_dict(held["scaler"])
        if self.bicl is not None:
            self.bicl.load_state_dict(held["bicl"])
        self.monitor.load(held["monitor"], whole=self.leads)
        if self.teacher is not None:
            self.teacher.module.load_state_dict(held["teacher"])
            self.teacher.n_averaged.fill_(held["teacher_updates"])


def averaged(teacher: AveragedModel) -> Segmenter:
    """Return the network inside a moving average."""
    return cast(Segmenter, teacher.module)


def _copy_stem(network: Segmenter) -> None:
    """Let the source's stem begin where the warm-up has brought the target's."""
    backbone = getattr(network, "backbone", None)
    stem = getattr(backbone, "target", None)
    if not isinstance(backbone, nn.Module) or not isinstance(stem, nn.Module):
        return
    with torch.no_grad():
        own: dict[str, Tensor] = backbone.state_dict()
        for name, value in stem.state_dict().items():
            own[name].copy_(value)
