"""Everything that a step changes, in one place, and as tensors that a checkpoint can hold.

Random numbers are not among it: dropout is seeded anew at every part of every iteration, so no
random state is carried from one step to the next.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property, partial
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from reference import methods
from reference.data.batches import Batch, passes
from reference.data.checking import check_sets, require_given
from reference.data.sets import Sets
from reference.data.settings import refusal, require
from reference.method import Given, Method, Part, Start, Step, Supervised, see
from reference.networks import output
from reference.networks.output import Segmenter
from reference.networks.release import read_checkpoint
from reference.networks.tensor_files import require_file
from reference.run.alarms import Monitor
from reference.run.folder import as_plain
from reference.run.ranks import Precision, Ranks
from reference.settings import Optimiser, Phase, Settings, phases

# No class weighs more than this many times a common one.
_HEAVIEST = 10.0


def first_network(settings: Settings, num_classes: int) -> tuple[Segmenter, str]:
    """Build the network that a run begins with, and say what became of its weights."""
    if settings.begin is None:
        network, report = output.first_network(settings.network, num_classes, settings.seed)
        return network, str(report or "begins with random weights")
    require_file("train", settings.begin)
    network = read_checkpoint(settings.begin, "student", plain=True).network
    had, wanted = network.num_classes, f"of {num_classes} classes to begin with"
    got, hint = f"one of {had} in {settings.begin}", "it was trained on other classes"
    require("train", "a network", got, wanted, had == num_classes, hint)
    return network, f"begins with the network of {settings.begin}"


def seed_dropout(*place: int) -> None:
    """Seed torch's generators, which dropout reads, for one part of one iteration of one rank."""
    torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1, np.uint64)[0] >> 1))


class State:
    """What a run trains: network, method, optimiser, moving average, and where they stand.

    `held` is the checkpoint to go on from, None for a new run.
    """

    def __init__(
        self, settings: Settings, sets: Sets, ranks: Ranks, held: Mapping[str, Any] | None = None
    ) -> None:
        self.settings, self.sets, self.ranks = settings, sets, ranks
        # What is wrong without a look at the data is told before them.
        if settings.adapts:
            methods.entry(settings.method)
            ranks.share(settings.adaptation.batch_size, settings.machine.accumulate)
        if settings.stages != "adapt":
            ranks.share(settings.source.batch_size, settings.machine.accumulate)
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
        self.skip: Callable[[str], None] | None = None  # told of broken images that are left out
        self.method: Method = Supervised()
        self.adapting = False
        self.optimiser: torch.optim.Optimizer
        self.iteration = 0
        self.best: float | None = None
        if held is not None:
            done = max(0, held["iteration"] - 1)
            self._load(held, next(p for p in phases(settings) if done < p.stop))

    def check(self) -> list[str]:
        """Check the data before a run writes anything, and say what is odd about them."""
        settings, sets, reporting = self.settings, self.sets, self.settings.reporting
        static, of = settings.adaptation.static, settings.adapts
        if of:
            self._require_method()
        stage, first = settings.adaptation, settings.stages != "adapt"
        cuts = {"labelled": [settings.source.crops] * first + [stage.source_crops] * of}
        cuts["target"] = [stage.target_crops]
        whole = {static.size, reporting.size}
        notes = check_sets(
            sets, target=of, validation=reporting.evaluate, whole_at=whole, cut_by=cuts
        )
        if of and static.given is not None:
            require_given(static.given, sets.target)
        wants_days = settings.adapts and methods.entry(settings.method).uses_partners
        if wants_days and not sets.target.has_partners:
            notes.append(f"{sets.target.name} has no day images: each image is its own day.")
        if reporting.panels_every and reporting.panel_ids:
            from reference.run.panels import shown_sets

            shown_sets(settings, sets)
        return notes

    def _require_method(self) -> None:
        """Refuse what the method would refuse at its first step, which may be hours away."""
        counts = torch.ones(len(self.sets.classes), dtype=torch.float64)
        mixes, stage = self._new_method(lambda: counts).mixes_images, self.settings.adaptation
        source, target = stage.source_crops.crop, stage.target_crops.crop
        if mixes and source != target:
            wanted = f"{source} as of the source with method {self.settings.method}"
            hint = "give one size, since it mixes images"
            raise refusal("train", "adaptation.target_crops.crop", target, wanted, hint)

    @cached_property
    def monitor(self) -> Monitor:
        """What watches class shares, from the end of the first step on."""
        return Monitor(self.sets.classes.names)

    @cached_property
    def class_counts(self) -> Tensor:
        """Source pixels of every class, (C,), float64."""
        with self.ranks.one_first():
            counts = self.sets.counts().sum(axis=0)
        return torch.as_tensor(counts, dtype=torch.float64, device=self.ranks.device)

    @cached_property
    def class_weight(self) -> Tensor | None:
        """Weight of every class in cross-entropies on given labels, (C,); None: all alike."""
        if not (power := self.settings.source.class_weight_power):
            return None
        counts = self.class_counts
        seen = counts > 0
        weight = torch.where(seen, (counts / counts.sum()).clamp(min=1e-12), 1.0) ** -power
        weight = weight / weight[seen].min()
        return torch.where(seen, weight.clamp(max=_HEAVIEST), 1.0).float()

    @property
    def class_weights(self) -> tuple[Tensor | None, Tensor | None]:
        """The same, of source labels and of static ones."""
        weighted = self.settings.adaptation.static.loss_weighted
        return self.class_weight, self.class_weight if weighted else None

    @property
    def labeller(self) -> Segmenter:
        """The network that makes static labels."""
        if self.average is not None and self.settings.adaptation.static.teacher:
            return cast(Segmenter, self.average.module)
        return self.network

    def enter(self, phase: Phase) -> None:
        """Begin a phase: its method, and a new optimiser where it wants one."""
        if phase.round_index == 0:
            # The source's stem begins where the warm-up has brought the target's.
            backbone: Any = getattr(self.network, "backbone", None)
            if (stem := getattr(backbone, "target", None)) is not None:
                backbone.load_state_dict(stem.state_dict(), strict=False)
            self._adapt()
            self.network.eval()
            source, target = partial(self._pass, "source"), partial(self._pass, "target")
            start = Start(self.network, source, target, self.precision.autocast, self.ranks)
            self.method.begin(start)
            self.network.train()
        if phase.fresh:
            self.optimiser = self._new_optimiser(phase.optimiser)

    def _new_method(self, counts: Callable[[], Tensor]) -> Method:
        settings, names = self.settings, self.sets.classes.names
        given = Given(self.network, settings.adaptation, settings.seed, counts, names)
        return methods.build(settings.method, given)

    def _adapt(self) -> None:
        self.method = self._new_method(partial(getattr, self, "class_counts"))
        self.adapting = True

    def _pass(self, domain: str) -> Iterator[Batch]:
        """Whole images of one domain at one size, this rank's share of them."""
        images = self.sets.source if domain == "source" else self.sets.target
        own, most = self.ranks.own(len(images)), self.settings.data.max_bad
        size = self.settings.reporting.size
        for batch in passes(images, size, own, skip=self.skip, max_bad=most):
            yield batch.to(self.ranks.device)

    def _new_optimiser(self, settings: Optimiser) -> torch.optim.Optimizer:
        """A group for the backbone, one for everything else, and one for what a method trains."""
        groups: list[dict[str, Any]] = [
            {"params": [], "factor": factor} for factor in (1.0, settings.head_factor)
        ]
        for name, parameter in self.network.named_parameters():
            if parameter.requires_grad:
                groups[not name.startswith("backbone.")]["params"].append(parameter)
        groups.append({"params": self.method.trained(), "factor": 1.0})
        groups = [group for group in groups if group["params"]]
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

    def step_of(self, phase: Phase, part: Part, number: int, counts: tuple[Tensor, Tensor]) -> Step:
        """The present step of a phase, as a method sees one part of it."""
        return Step(
            self.network, part.source, part.target, self.iteration - phase.stage_start,
            phase.stage_count, phase.round_index or 0, number, self.settings.seed, self.ranks,
            self.precision.autocast, counts, self.class_weights,
        )  # fmt: skip

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

    def state(self, plain: Mapping[str, Any]) -> dict[str, Any]:
        """Return the checkpoint, tensors and plain values; `plain` are those of the settings."""
        method = {"name": self.settings.method, "state": self.method.state_dict()}
        held: dict[str, Any] = {
            "iteration": self.iteration,
            "description": output.describe(self.network),
            "classes": as_plain(self.sets.classes),
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
        """Take a checkpoint of this run over, whose last step belonged to `phase`."""
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
