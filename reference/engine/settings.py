"""Settings of a whole run: data, network, machine, reports, and the two stages.

Origins are named as in `stage_settings`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from reference.engine.stage_settings import (
    AdaptationStage,
    SourceStage,
    at_least,
    within_one,
)
from reference.evaluation.protocol import Source
from reference.networks.deeplab import DeepLabOptions
from reference.synthetic import Sizes


@dataclass(frozen=True)
class DataSettings:
    """Where the images are.

    Args:
        source_set: the labelled set; "toy" draws both domains.
        root: folder with one folder per set, named GTA5, SYNTHIA and cityscapes in any case; where
            the toy is drawn, by default data/ beside the run folder.
        source: folder of the source set, where it lies elsewhere.
        target: folder of Cityscapes, where it lies elsewhere.
        workers: processes per domain and rank that read images, >= 0; own.
        drawn: how many images the toy has; own.
        drawn_size: (height, width) of the toy's images, pixels; own.
        drawn_shift: how far the toy's target is from its source, 0..1; own.
    """

    source_set: Source = "gta5"
    root: Path | None = None
    source: Path | None = None
    target: Path | None = None
    workers: int = 4
    drawn: Sizes = field(default_factory=Sizes)
    drawn_size: tuple[int, int] = (96, 192)
    drawn_shift: float = 0.7

    def __post_init__(self) -> None:
        at_least("DataSettings", "workers", self.workers, 0)


@dataclass(frozen=True)
class NetworkSettings:
    """What is trained, and from which weights.

    Args:
        kind: "deeplab", or the small network of the toy; own.
        deeplab: every choice of the former; DeepLab-V2 on ResNet-101 with the branches before
            their sum as features is released.
        weights: file of ImageNet or DeepLab weights for the backbone.
        random_weights: start without such a file, which costs most of the score.
    """

    kind: Literal["deeplab", "toy"] = "deeplab"
    deeplab: DeepLabOptions = field(default_factory=DeepLabOptions)
    weights: Path | None = None
    random_weights: bool = False


@dataclass(frozen=True)
class Machine:
    """How the steps are computed; own throughout.

    Args:
        device: "auto" takes a GPU where there is one.
        precision: of the network's forward pass; losses and prototypes are float32 always. "auto"
            is bf16 on a GPU that has it, else fp32; fp16 scales the loss.
        compile: compile the network with torch.compile.
        channels_last: memory format of images and weights.
        accumulate: parts that a batch is cut into, >= 1; saves memory. Each part moves the
            prototypes once.
        sync_batch_norm: share batch statistics among ranks; GPUs only.
        deterministic: ask torch for repeatable GPU operations, which are slower. On the CPU runs
            repeat anyway.
        threads: of torch on the CPU; 0 leaves torch's choice.
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    compile: Annotated[bool, tyro.conf.arg(aliases=["--compile"])] = False
    channels_last: bool = True
    accumulate: int = 1
    sync_batch_norm: bool = False
    deterministic: bool = False
    threads: int = 0

    def __post_init__(self) -> None:
        at_least("Machine", "accumulate", self.accumulate, 1)


@dataclass(frozen=True)
class Reporting:
    """What a run writes while it goes on; own throughout.

    Args:
        every: iterations per line of metrics.
        checkpoint_every: iterations per checkpoint.
        keep: checkpoints that are kept, beside the best, >= 1.
        evaluate_every: iterations per evaluation on the validation images; 0 evaluates only the
            last one.
        evaluate: whether to evaluate at all.
        size: (height, width) at which the network sees validation images and panels, pixels.
        panels_every: iterations per set of panels, which are also drawn at the end; 0 draws none.
        panel_ids: numbers of the images that panels show, the same of every set, from 0; none
            takes two, evenly spaced.
    """

    every: int = 50
    checkpoint_every: int = 1000
    keep: int = 2
    evaluate_every: int = 4000
    evaluate: bool = True
    size: tuple[int, int] = (512, 1024)
    panels_every: int = 2000
    panel_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name in ("every", "checkpoint_every", "keep"):
            at_least("Reporting", name, getattr(self, name), 1)
        for name in ("evaluate_every", "panels_every"):
            at_least("Reporting", name, getattr(self, name), 0)
        for number in self.panel_ids:
            at_least("Reporting", "panel_ids", number, 0)


@dataclass(frozen=True)
class Settings:
    """One run.

    Args:
        mode: "full" warms up and adapts; "source-only" warms up; "adapt" begins with the network
            of another run's checkpoint.
        start: that checkpoint; only with mode "adapt".
        seed: of drawn data, initial weights, batches and dropout, >= 0.
        ema_decay: weight of the old value in the moving average of the weights, 0..1; own
            (0.999 is usual). 0 keeps none.
        data, network, source, adaptation, machine, reporting: the parts.
    """

    mode: Literal["full", "source-only", "adapt"] = "full"
    start: Path | None = None
    seed: int = 0
    ema_decay: float = 0.0
    data: DataSettings = field(default_factory=DataSettings)
    network: NetworkSettings = field(default_factory=NetworkSettings)
    source: SourceStage = field(default_factory=SourceStage)
    adaptation: AdaptationStage = field(default_factory=AdaptationStage)
    machine: Machine = field(default_factory=Machine)
    reporting: Reporting = field(default_factory=Reporting)

    def __post_init__(self) -> None:
        at_least("Settings", "seed", self.seed, 0)
        within_one("Settings", "ema_decay", self.ema_decay)
        if (self.mode == "adapt") != (self.start is not None):
            raise ValueError(
                'Settings: expected start to be given with mode "adapt" and only then, got start '
                f'{self.start} with mode "{self.mode}". Hint: --start names a checkpoint of a run '
                'in mode "source-only".'
            )
