"""Every setting of a run, with its unit and where it comes from, as one tree.

Origins: *paper* = stated publicly for BiCL; *released* = the authors' configuration files; *own* =
chosen here. Where the release has another value than the default, it stands in brackets. The
comment above a field is its help on the command line. Nothing here imports torch, so that
``--help`` answers at once.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from reference.data.settings import (
    Crops,
    DataSettings,
    RareClasses,
    Size,
    above_zero,
    at_least,
    require,
    require_whole_size,
    within_one,
)
from reference.networks.settings import NetworkSettings

Stages = Literal["full", "source-only", "adapt", "oracle"]


@dataclass(frozen=True)
class Optimiser:
    """How weights move."""

    # sgd with momentum is released; adamw is usual for transformers
    kind: Literal["sgd", "adamw"] = "sgd"
    # of the backbone at the start of a stage; own (released for adaptation: 7.5e-5)
    learning_rate: float = 2.5e-4
    # times this for everything beside the backbone; released
    head_factor: float = 10.0
    # of sgd, 0..1; released
    momentum: float = 0.9
    # released
    weight_decay: float = 5e-4
    # the rate falls as (1 - i / n) ** poly_power; released
    poly_power: float = 0.9
    # n is this many times the iterations of the stage; own (released: 1.2)
    horizon: float = 1.0
    # iterations of a stage over which the rate first rises from 0; own
    warmup: int = 0

    def __post_init__(self) -> None:
        above_zero(self, "learning_rate")
        at_least(self, 1, "horizon")
        at_least(self, 0, "warmup", "weight_decay", "poly_power", "head_factor")
        within_one(self, "momentum")


@dataclass(frozen=True)
class SourceStage:
    """The warm-up on source labels alone; no target image is opened."""

    # optimiser steps; own
    iterations: int = 20000
    # images per step, over all ranks and accumulated parts; own
    batch_size: int = 2
    # cross-entropies on source and static labels weigh class frequency to the minus this; 0: alike
    class_weight_power: float = 0.0
    crops: Crops = field(default_factory=Crops)
    optimiser: Optimiser = field(default_factory=Optimiser)
    rare: RareClasses = field(default_factory=RareClasses)

    def __post_init__(self) -> None:
        at_least(self, 1, "iterations", "batch_size")
        at_least(self, 0, "class_weight_power")


@dataclass(frozen=True)
class StaticLabels:
    """Pseudo labels that a round starts with: made once by the network, kept as files."""

    # share of the pixels predicted as a class that is kept, the most confident, 0..1; released
    class_share: float = 0.1
    # share of every image that is kept besides, whatever its class, 0..1; released
    image_share: float = 0.1
    # (height, width) at which the network sees the images and labels are stored, pixels; 512 0
    # keeps every image's shape, with a short side of 512; own
    size: Size = (512, 1024)
    # folder of labels made elsewhere, in place of the network's: <image>.png of class numbers,
    # 255 where none, of any size in the image's shape
    given: Path | None = None
    # first round with static labels, from 0; released
    from_round: int = 0
    # let the moving average label where there is one; own
    teacher: bool = True
    # label by what unweighted cross-entropy would have taught: logits less the log of the weight
    # that source.class_weight_power gives a class; own
    unweighted: bool = False
    # weigh the loss on them by class as that on source labels; own
    loss_weighted: bool = True

    def __post_init__(self) -> None:
        within_one(self, "class_share", "image_share")
        at_least(self, 0, "from_round")
        require_whole_size(self, self.size)


@dataclass(frozen=True)
class Contrast:
    """The settings of `protocontrast.BiCL`; one per ingredient that can be switched off."""

    # weight of target pixels against source prototypes; released (0.1 or 0.2); 0: off
    target_to_source: float = 0.1
    # weight of source pixels against target prototypes; likewise
    source_to_target: float = 0.1
    # label target pixels by their nearest prototype at every step; paper, off in the release
    dynamic_labels: bool = True
    # shift source prototypes by the domain bias before labelling; paper, off in the release
    calibrate: bool = True
    # divides the cosine; released (a factor of 10)
    temperature: float = 0.1
    # a pixel is labelled where this is at least the threshold
    measure: Literal["confidence", "similarity"] = "confidence"
    # released, then unused there
    threshold: float = 0.8
    # weight of the old prototype per step; own
    momentum: float = 0.99
    # of the old bias; own. One that has caught up turns labelling into clustering of the target
    bias_momentum: float = 0.997
    # zero: it grows from 0, own reading of "gradually" (paper); copy: from the first difference
    bias_warmup: Literal["zero", "copy"] = "zero"
    # features: average features of unit length; own (released: False)
    normalize: Literal["features", "prototypes"] | Literal[False] = "features"
    # bank: momentum prototypes without gradient, own; batch: class means of the batch, released
    prototypes: Literal["bank", "batch"] = "bank"
    # with batch: image b of one domain against image b of the other; released
    pairwise: bool = False
    # mask: leave absent classes out, own; floor: keep them at a cosine of -1, released
    absent: Literal["mask", "floor"] = "mask"
    # what is an equal part of both contrasts: a pixel, paper, or a class, own (M18)
    balance: Literal["pixel", "class"] = "pixel"
    # keep a dynamic label only where the head predicts the same class; own, of method bicl alone
    agree: bool = False
    # above 0: no threshold, but this share of every class's nearest pixels, the surest, has its
    # dynamic label, 0..1; own, of method bicl alone
    class_coverage: float = 0.0
    # times this, the log of a class's share of the source's labels is added to its logit before a
    # dynamic label is chosen, 0..1; 0: off; own, of method bicl alone, with measure confidence
    prior: float = 0.0
    # a mean teacher's features and head decide on dynamic labels, with prototypes and a bias of
    # their own; own, of method bicl alone
    teacher: bool = False
    # steps of adaptation over which both weights rise from 0; own, of method bicl alone
    warmup: int = 0
    # contrast the output of two trained 1x1 convolutions of the features; own, of bicl alone
    projection: bool = False

    def __post_init__(self) -> None:
        at_least(self, 0, "target_to_source", "source_to_target", "warmup")
        above_zero(self, "temperature")
        within_one(self, "momentum", "bias_momentum", "class_coverage", "prior")
        low = -1 if self.measure == "similarity" else 0
        ok = low <= self.threshold <= 1
        require("Contrast", "threshold", self.threshold, f"within {low}..1", ok)
        ok = not self.prior or self.measure == "confidence"
        hint = "the log of a share belongs to a softmax; take measure confidence"
        require("Contrast", "prior", self.prior, f"0 with measure {self.measure}", ok, hint)

    @property
    def conditional(self) -> bool:
        """Whether dynamic labels depend on more than the nearest prototype and one threshold."""
        asked = (self.agree, self.teacher, self.class_coverage, self.prior)
        return self.dynamic_labels and any(asked)


@dataclass(frozen=True)
class AdaptationStage:
    """Rounds of adaptation; every ingredient is off at weight 0."""

    # optimiser steps over all rounds; own
    iterations: int = 40000
    # of equal length, the last takes the rest; released
    rounds: int = 10
    # images per step of each domain, over all ranks and accumulated parts; released
    batch_size: int = 2
    # begin each round with a new optimiser and schedule; released, own: one schedule
    restart: bool = False
    # times the rate of the round before, where rounds restart; released: 0.5
    round_factor: float = 1.0
    # make static labels at all; paper and released
    static_labels: bool = True
    # of cross-entropy on static labels; released. 0 leaves them to the contrast
    static_weight: float = 0.3
    # of the entropy of source predictions; released: 0.4
    source_entropy_weight: float = 0.0
    # of the entropy of target predictions; released
    entropy_weight: float = 0.12
    # first round with entropy, from 0; released
    entropy_from_round: int = 0
    static: StaticLabels = field(default_factory=StaticLabels)
    contrast: Contrast = field(default_factory=Contrast)
    source_crops: Crops = field(default_factory=Crops)
    target_crops: Crops = field(default_factory=lambda: Crops(size=(512, 1024)))
    optimiser: Optimiser = field(default_factory=lambda: Optimiser(learning_rate=7.5e-5))
    rare: RareClasses = field(default_factory=RareClasses)

    def __post_init__(self) -> None:
        at_least(self, 1, "rounds", "batch_size")
        at_least(self, self.rounds, "iterations")
        at_least(self, 0, "entropy_from_round", "round_factor", "static_weight")
        at_least(self, 0, "source_entropy_weight", "entropy_weight")

    @property
    def contrasts(self) -> bool:
        """Whether either direction of the contrast is on."""
        return bool(self.contrast.target_to_source or self.contrast.source_to_target)

    @property
    def uses_static(self) -> bool:
        """Whether BiCL reads static labels."""
        return self.static_labels and bool(self.static_weight or self.contrasts)


@dataclass(frozen=True)
class Machine:
    """How the steps are computed; all own."""

    # auto takes a GPU where there is one
    device: Literal["auto", "cpu", "cuda"] = "auto"
    # of the network; losses and prototypes are float32. auto: bf16 on a GPU that has it, else fp32
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    # compile the network with torch.compile
    compile: Annotated[bool, tyro.conf.arg(aliases=["--compile"])] = False
    # memory format of images and weights
    channels_last: bool = True
    # parts that a batch is cut into; saves memory. Each part moves the prototypes once
    accumulate: int = 1
    # share batch statistics among ranks; GPUs only
    sync_batch_norm: bool = False
    # ask torch for repeatable GPU operations, which are slower; on the CPU runs repeat anyway
    deterministic: bool = False
    # of torch on the CPU; 0 leaves torch's choice. Another number gives other bits
    threads: int = 0
    # of the losses and prototypes; auto is the fastest that is there. Another one gives other bits
    backend: Literal["auto", "triton", "native", "eager", "naive"] = "auto"

    def __post_init__(self) -> None:
        at_least(self, 1, "accumulate")
        at_least(self, 0, "threads")


@dataclass(frozen=True)
class Reporting:
    """What a run writes while it goes on; all own."""

    # iterations per line of metrics
    every: int = 50
    # iterations per checkpoint
    checkpoint_every: int = 1000
    # checkpoints that are kept, beside the best
    keep: int = 2
    # whether to score on validation images at all
    evaluate: bool = True
    # iterations per evaluation; 0: the last alone
    evaluate_every: int = 4000
    # (height, width) at which the network sees images when it is not trained, pixels; 512 0 keeps
    # every image's shape, with a short side of 512
    size: Size = (512, 1024)
    # iterations per set of panels, which are also drawn at the end; 0 draws none
    panels_every: int = 2000
    # numbers of the images that panels show, from 0; none takes two of each set
    panel_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        at_least(self, 1, "every", "checkpoint_every", "keep")
        at_least(self, 0, "evaluate_every", "panels_every")
        least = min(self.panel_ids, default=0)
        require("Reporting", "panel_ids", self.panel_ids, ">= 0", least >= 0)
        require_whole_size(self, self.size)


@dataclass(frozen=True)
class Settings:
    """One run."""

    # what adapts the network: bicl, or another method of reference/methods
    method: str = "bicl"
    # full: warm up, then adapt; source-only; adapt: begin with another run's network;
    # oracle: train on target labels
    stages: Annotated[Stages, tyro.conf.arg(aliases=["--mode"])] = "full"
    # checkpoint to begin with; only with --stages adapt
    begin: Annotated[Path | None, tyro.conf.arg(aliases=["--start"])] = None
    # of drawn data, initial weights, batches and dropout
    seed: int = 0
    # weight of the old value in the moving average of the weights, 0..1; 0 keeps none
    ema_decay: float = 0.0
    data: DataSettings = field(default_factory=DataSettings)
    network: NetworkSettings = field(default_factory=NetworkSettings)
    source: SourceStage = field(default_factory=SourceStage)
    adaptation: AdaptationStage = field(default_factory=AdaptationStage)
    machine: Machine = field(default_factory=Machine)
    reporting: Reporting = field(default_factory=Reporting)

    def __post_init__(self) -> None:
        require("Settings", "seed", self.seed, "within 0..2**63 - 1", 0 <= self.seed < 2**63)
        within_one(self, "ema_decay")
        ok, wanted = (self.stages == "adapt") == (self.begin is not None), 'with stages "adapt" and'
        got = f'begin {self.begin} with stages "{self.stages}"'
        hint = "--begin names a checkpoint of a run with --stages source-only, such as runs/source/"
        require("Settings", "begin to be given", got, f"{wanted} only then", ok, f"{hint}last.pth")

    @property
    def adapts(self) -> bool:
        """Whether target images are seen without their labels."""
        return self.stages in ("full", "adapt")


@dataclass(frozen=True)
class Phase:
    """A stretch of iterations with one task, which are counted over the whole run."""

    # "source", "oracle", or "round 0" and so on
    name: str
    # first iteration, and one past the last
    start: int
    stop: int
    # of the stage that the phase belongs to, all rounds together
    stage_start: int
    stage_count: int
    # where the schedule of the rate began, and iterations over which the rate would fall to 0
    schedule_start: int
    schedule_length: float
    optimiser: Optimiser
    # times the learning rate of that
    rate_factor: float = 1.0
    # from 0; None in the warm-up, which sees no target image
    round_index: int | None = None
    # whether a method that wants static labels has them, made before the first iteration
    static: bool = False
    # whether it begins with a new optimiser
    fresh: bool = True

    @property
    def adapts(self) -> bool:
        """Whether target images are seen."""
        return self.round_index is not None

    def learning_rate(self, iteration: int) -> float:
        """Return the rate of the backbone at an iteration of this phase."""
        done, settings = iteration - self.schedule_start, self.optimiser
        rate = settings.learning_rate * self.rate_factor
        if done < settings.warmup:
            rate *= (done + 1) / settings.warmup
        return float(rate * (1 - done / self.schedule_length) ** settings.poly_power)


def phases(settings: Settings) -> tuple[Phase, ...]:
    """List the phases of a run in order."""
    listed: list[Phase] = []
    warmup = 0 if settings.stages == "adapt" else settings.source.iterations
    if warmup:
        name = "oracle" if settings.stages == "oracle" else "source"
        optimiser = settings.source.optimiser
        length = warmup * optimiser.horizon
        listed.append(Phase(name, 0, warmup, 0, warmup, 0, length, optimiser))
    if settings.stages in ("source-only", "oracle"):
        return tuple(listed)
    stage = settings.adaptation
    count, each = stage.iterations, stage.iterations // stage.rounds
    for number in range(stage.rounds):
        start = warmup + number * each
        stop = warmup + count if number == stage.rounds - 1 else start + each
        began, span = (start, stop - start) if stage.restart else (warmup, count)
        listed.append(Phase(
            f"round {number}", start, stop, warmup, count, began, span * stage.optimiser.horizon,
            stage.optimiser, stage.round_factor**number if stage.restart else 1.0, number,
            static=number >= stage.static.from_round, fresh=number == 0 or stage.restart,
        ))  # fmt: skip
    return tuple(listed)
