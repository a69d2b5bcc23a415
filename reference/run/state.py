"""Everything that a step changes, in one place, and as tensors that a checkpoint can hold.

Random numbers are not among it: dropout is seeded anew at every part of every iteration, so no
random state is carried from one step to the next.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from reference import methods
from reference.data.batches import Batch, passes
from reference.data.sets import Sets
from reference.method import Given, Method, Start, Supervised, see
from reference.networks import output
from reference.networks.output import Segmenter
from reference.run.alarms import Monitor
from reference.run.ranks import Precision, Ranks
from reference.settings import Optimiser, Phase, Settings, phases

# No class weighs more than this many times a common one.
_HEAVIEST = 10.0


def first_network(settings: Settings, num_classes: int) -> tuple[Segmenter, str]:
    """Build the network that a run begins with, and say what became of its weights.

    Raises:
        ValueError: the weights to begin with are missing or do not fit.
        ImportError: the network needs timm, which cannot be imported.
    """
    if settings.begin is None:
        network, report = output.first_network(settings.network, num_classes, settings.seed)
        return network, "" if report is None else str(report)
    from reference.networks.release import read_checkpoint

    network = read_checkpoint(settings.begin, "student", plain=True).network
    if network.num_classes != num_classes:
        raise ValueError(
            f"train: expected a network of {num_classes} classes to begin with, got one of "
            f"{network.num_classes} in {settings.begin}. Hint: it was trained on other classes."
        )
    return network, f"begins with the network of {settings.begin}"


def seed_dropout(seed: int, iteration: int, part: int, rank: int) -> None:
    """Seed torch's generators, which dropout reads, for one part of one iteration."""
    key = np.random.SeedSequence([seed, iteration, part, rank])
    torch.manual_seed(int(key.generate_state(1, np.uint64)[0] >> 1))


class State:
    """What a run trains: network, method, optimiser, moving average, and where they stand.

    Args:
        settings: of the run.
        sets: its images.
        ranks: the processes.
        held: checkpoint to go on from; None for a new run.

    Raises:
        ValueError: the weights to begin with are missing or do not fit.
        ImportError: the network needs timm, which cannot be imported.
    """

    def __init__(
        self, settings: Settings, sets: Sets, ranks: Ranks, held: Mapping[str, Any] | None = None
    ) -> None:
        self.settings, self.sets, self.ranks = settings, sets, ranks
        # What adaptation and panels need is refused now, not after the warm-up.
        if settings.stages in ("full", "adapt") and settings.method not in methods.METHODS:
            methods.entry(settings.method)
        if settings.reporting.panels_every and settings.reporting.panel_ids:
            from reference.run.panels import shown_sets

            shown_sets(settings, sets)
        self.beginning = ""
        if held is not None:
            network = output.build(held["description"])
            self.beginning = f"going on from iteration {held['iteration']}"
        else:
            network, self.beginning = first_network(settings, len(sets.classes))
        memory = torch.channels_last if settings.machine.channels_last else torch.contiguous_format
        # The format is a keyword that the types of torch leave out.
        place: dict[str, Any] = {"device": ranks.device, "memory_format": memory}
        self.network: Segmenter = network.train().to(**place)
        if settings.machine.sync_batch_norm and ranks.shared and ranks.device.type == "cuda":
            self.network = cast(Segmenter, nn.SyncBatchNorm.convert_sync_batchnorm(self.network))
        self.average: AveragedModel | None = None
        if settings.ema_decay:
            decay = get_ema_multi_avg_fn(settings.ema_decay)
            self.average = AveragedModel(self.network, multi_avg_fn=decay, use_buffers=True)
        self.precision = Precision(settings.machine, ranks.device)
        self.see = partial(see, autocast=self.precision.autocast)
        self.method: Method = Supervised()
        self.adapting = False
        self.optimiser: torch.optim.Optimizer
        self.monitor = Monitor(sets.classes.names)
        self.iteration = 0
        self.best: float | None = None
        self.class_counts: Tensor | None = None
        self.class_weight: Tensor | None = None
        if settings.source.class_weight_power:
            self.class_weight = self._class_weight(settings.source.class_weight_power)
        if held is not None:
            done = max(0, held["iteration"] - 1)
            self._load(held, next(p for p in phases(settings) if done < p.stop))

    def _counts(self) -> Tensor:
        if self.class_counts is None:
            with self.ranks.one_first():
                counts = self.sets.counts().pixels.sum(axis=0)
            self.class_counts = torch.as_tensor(counts, dtype=torch.float64)
        return self.class_counts.to(self.ranks.device)

    def _class_weight(self, power: float) -> Tensor:
        counts = self._counts()
        seen = counts > 0
        weight = torch.where(seen, (counts / counts.sum()).clamp(min=1e-12), 1.0) ** -power
        weight = weight / weight[seen].min()
        return torch.where(seen, weight.clamp(max=_HEAVIEST), 1.0).float()

    @property
    def labeller(self) -> Segmenter:
        """The network that makes static labels."""
        if self.average is not None and self.settings.adaptation.static.teacher:
            return cast(Segmenter, self.average.module)
        return self.network

    def enter(self, phase: Phase) -> None:
        """Begin a phase: its method, and a new optimiser where it wants one."""
        if phase.round_index == 0:
            _copy_stem(self.network)
            self._adapt()
            self.network.eval()
            self.method.begin(Start(
                self.network, partial(self._pass, "source"), partial(self._pass, "target"),
                self.precision.autocast, self.ranks,
            ))  # fmt: skip
            self.network.train()
        if phase.fresh:
            self.optimiser = self._new_optimiser(phase.optimiser)

    def _adapt(self) -> None:
        given = Given(
            self.network, self.settings.adaptation, self.settings.seed, self._counts,
            self.sets.classes.names,
        )  # fmt: skip
        self.method = methods.build(self.settings.method, given).to(self.ranks.device)
        self.adapting = True

    def _pass(self, domain: str) -> Iterator[Batch]:
        """Whole images of one domain at one size, this rank's share of them."""
        images = self.sets.source if domain == "source" else self.sets.target
        size = self.settings.reporting.size
        for batch in passes(images, size, rank=self.ranks.rank, world=self.ranks.world):
            yield batch.to(self.ranks.device)

    def _new_optimiser(self, settings: Optimiser) -> torch.optim.Optimizer:
        """A group for the backbone, one for everything else, and one for what a method trains."""
        head = [
            p for name, p in self.network.named_parameters() if not name.startswith("backbone.")
        ]
        backbone = [
            p for name, p in self.network.named_parameters() if name.startswith("backbone.")
        ]
        factors = ((backbone, 1.0), (head, settings.head_factor), (self.method.trained(), 1.0))
        groups = [
            {"params": trained, "factor": factor}
            for parameters, factor in factors
            if (trained := [p for p in parameters if p.requires_grad])
        ]
        rate, decay = settings.learning_rate, settings.weight_decay
        if settings.kind == "adamw":
            return torch.optim.AdamW(groups, lr=rate, weight_decay=decay)
        return torch.optim.SGD(groups, lr=rate, momentum=settings.momentum, weight_decay=decay)

    def set_rate(self, phase: Phase) -> float:
        """Give every group its learning rate at this iteration, and return that of the backbone."""
        rate = phase.learning_rate(self.iteration)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["factor"]
        return rate

    def move(self) -> None:
        """Move the weights by the gradients that they hold, then what follows them."""
        self.precision.scaler.step(self.optimiser)
        self.precision.scaler.update()
        self.optimiser.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update_parameters(self.network)
        self.method.after(self.network, self.ranks)
        self.iteration += 1

    def share_buffers(self) -> None:
        """Give all ranks the batch statistics of the first, which are those that are stored."""
        for module in (self.network, self.average, self.method):
            if module is not None:
                self.ranks.share_buffers(module)

    def at_test(self, network: Segmenter) -> Segmenter:
        """A network of this run as it is scored."""
        return self.method.at_test(network)

    def state(self, plain: Mapping[str, Any]) -> dict[str, Any]:
        """Return the checkpoint: tensors and plain values.

        Args:
            plain: the settings, as `as_plain` gives them.
        """
        method = {"name": self.settings.method, "state": self.method.state_dict()}
        held: dict[str, Any] = {
            "iteration": self.iteration,
            "description": output.describe(self.network),
            "classes": output.plain_classes(self.sets.classes),
            "labelled": list(self.sets.labelled.labelled),
            "student": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.precision.scaler.state_dict(),
            "method": method if self.adapting else None,
            "monitor": self.monitor.state(),
            "best": self.best,
            "settings": dict(plain),
        }
        if self.average is not None:
            held["teacher"] = self.average.module.state_dict()
            held["teacher_updates"] = int(self.average.n_averaged)
        return held

    def _load(self, held: Mapping[str, Any], phase: Phase) -> None:
        """Take a checkpoint of this run over.

        Args:
            held: of `state`.
            phase: that its last step belonged to.
        """
        self.iteration, self.best = held["iteration"], held["best"]
        self.network.load_state_dict(held["student"])
        if held["method"] is not None:
            self._adapt()
            self.method.load_state_dict(held["method"]["state"])
        self.optimiser = self._new_optimiser(phase.optimiser)
        self.optimiser.load_state_dict(held["optimiser"])
        if self.precision.scaler.is_enabled():
            self.precision.scaler.load_state_dict(held["scaler"])
        self.monitor.load(held["monitor"], whole=self.ranks.is_main)
        if self.average is not None:
            self.average.module.load_state_dict(held["teacher"])
            self.average.n_averaged.fill_(held["teacher_updates"])


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
