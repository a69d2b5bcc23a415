"""Settings of the two stages: the warm-up on the source and the rounds of adaptation.

Origins: *paper* = stated publicly for BiCL; *released* = the authors' configuration files;
*own* = chosen here. Defaults are those of the presets "paper"; where the release has another
value, it stands in brackets.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from reference.data.colour import ColourJitter
from reference.data.crops import SourceCrops, TargetCrops
from reference.data.rare_classes import RareClasses
from reference.training.config import Contrast

# A command line has no flags for an optional group; for one without effect it has.
PLAIN_COLOURS = ColourJitter(probability=0.0, blur_probability=0.0)


def at_least(owner: str, name: str, value: float, least: float) -> None:
    """Refuse a number below its least value in one sentence."""
    if not value >= least:
        raise ValueError(f"{owner}: expected {name} >= {least:g}, got {value}.")


def within_one(owner: str, name: str, value: float) -> None:
    """Refuse a number outside 0..1 in one sentence."""
    if not 0 <= value <= 1:
        raise ValueError(f"{owner}: expected {name} within 0..1, got {value}.")


@dataclass(frozen=True)
class Optimiser:
    """How weights move.

    Args:
        kind: "sgd" with momentum is released; "adamw" is usual for transformers.
        learning_rate: of the backbone at the start of a stage; own, and usual for source-only
            DeepLab-V2 (released for adaptation: 7.5e-5).
        head_factor: times this for everything beside the backbone; released.
        momentum: of SGD, 0..1; released.
        weight_decay: released.
        poly_power: the rate falls as (1 - i / n) ** poly_power; released.
        horizon: n is this many times the iterations of the stage, >= 1 (released: 1.2).
        warmup: iterations of a stage over which the rate first rises from 0; own (0 in release).
    """

    kind: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = 2.5e-4
    head_factor: float = 10.0
    momentum: float = 0.9
    weight_decay: float = 5e-4
    poly_power: float = 0.9
    horizon: float = 1.0
    warmup: int = 0

    def __post_init__(self) -> None:
        if not self.learning_rate > 0:
            raise ValueError(f"Optimiser: expected learning_rate > 0, got {self.learning_rate}.")
        at_least("Optimiser", "horizon", self.horizon, 1)
        at_least("Optimiser", "warmup", self.warmup, 0)
        within_one("Optimiser", "momentum", self.momentum)


@dataclass(frozen=True)
class SourceStage:
    """The warm-up on source labels alone; no target image is opened.

    Args:
        iterations: optimiser steps; own.
        batch_size: images per step, over all ranks and accumulated parts; own.
        crops: how they are cut; own (released: short side 720, crop 600).
        optimiser: as `Optimiser`.
        rare_classes: draw images by the classes they show; own, off in the release.
        rare: settings of that; own, as in DAFormer.
    """

    iterations: int = 20000
    batch_size: int = 2
    crops: SourceCrops = field(default_factory=lambda: SourceCrops(colour=PLAIN_COLOURS))
    optimiser: Optimiser = field(default_factory=Optimiser)
    rare_classes: bool = False
    rare: RareClasses = field(default_factory=RareClasses)

    def __post_init__(self) -> None:
        at_least("SourceStage", "iterations", self.iterations, 1)
        at_least("SourceStage", "batch_size", self.batch_size, 1)


@dataclass(frozen=True)
class StaticLabels:
    """Pseudo labels that a round starts with: made once, kept as files.

    A pixel is kept where its confidence is in the top `class_share` of all pixels predicted as its
    class, or in the top `image_share` of its own image.

    Args:
        class_share: 0..1; released.
        image_share: 0..1; released. 0 switches this part off.
        size: (height, width) at which the network sees the images and labels are stored, pixels;
            own.
        from_round: first round with static labels, from 0; released.
        teacher: let the moving average label where there is one; own.
    """

    class_share: float = 0.1
    image_share: float = 0.1
    size: tuple[int, int] = (512, 1024)
    from_round: int = 0
    teacher: bool = True

    def __post_init__(self) -> None:
        for name in ("class_share", "image_share"):
            within_one("StaticLabels", name, getattr(self, name))
        at_least("StaticLabels", "from_round", self.from_round, 0)


@dataclass(frozen=True)
class AdaptationStage:
    """Rounds of adaptation; every ingredient is off at weight 0.

    Args:
        iterations: optimiser steps over all rounds; own.
        rounds: of equal length, the last takes the rest; released.
        batch_size: images per step of each domain, over all ranks and accumulated parts; released.
        source_crops, target_crops: how they are cut; own (released: short side 720..850, scale
            0.8..1.2, crop 730).
        optimiser: as `Optimiser`; the released rate is 7.5e-5.
        restart: begin each round with a new optimiser and schedule (released), instead of one
            schedule over all rounds (own).
        round_factor: times the rate of the round before, where rounds restart; released: 0.5.
        static_labels: make them at all; paper and released.
        static_weight: of cross-entropy on static labels; released. 0 leaves them to the contrast,
            and to nothing if that is off as well.
        static: how they are made.
        source_entropy_weight: of the entropy of source predictions; released, where it multiplies
            a weaker surrogate (docs/decisions.md).
        entropy_weight: of the entropy of target predictions; likewise.
        entropy_from_round: first round with entropy, from 0; released.
        contrast: both weights 0 switch it off.
        rare_classes, rare: as in `SourceStage`.
    """

    iterations: int = 40000
    rounds: int = 10
    batch_size: int = 2
    source_crops: SourceCrops = field(default_factory=lambda: SourceCrops(colour=PLAIN_COLOURS))
    target_crops: TargetCrops = field(default_factory=TargetCrops)
    optimiser: Optimiser = field(default_factory=lambda: Optimiser(learning_rate=7.5e-5))
    restart: bool = False
    round_factor: float = 1.0
    static_labels: bool = True
    static_weight: float = 0.3
    static: StaticLabels = field(default_factory=StaticLabels)
    source_entropy_weight: float = 0.0
    entropy_weight: float = 0.12
    entropy_from_round: int = 0
    contrast: Contrast = field(default_factory=Contrast)
    rare_classes: bool = False
    rare: RareClasses = field(default_factory=RareClasses)

    def __post_init__(self) -> None:
        at_least("AdaptationStage", "rounds", self.rounds, 1)
        at_least("AdaptationStage", "iterations", self.iterations, self.rounds)
        at_least("AdaptationStage", "batch_size", self.batch_size, 1)

    @property
    def contrasts(self) -> bool:
        """Whether either direction of the contrast is on."""
        return bool(self.contrast.target_to_source or self.contrast.source_to_target)

    @property
    def uses_static(self) -> bool:
        """Whether anything reads static labels."""
        return self.static_labels and (bool(self.static_weight) or self.contrasts)
