"""Named settings of whole runs.

The presets named "-released" follow the authors' configuration files with the mistakes of the
code put right (true entropy, batches in random order, frozen scale and shift of BatchNorm meant as
such); the others are our reading of the paper, with hybrid labels and calibration. "toy" draws
both domains and needs no data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from reference.data.crops import SourceCrops, TargetCrops
from reference.data.resizing import Resize
from reference.engine.settings import DataSettings, NetworkSettings, Reporting, Settings
from reference.engine.stage_settings import (
    PLAIN_COLOURS,
    AdaptationStage,
    Optimiser,
    SourceStage,
    StaticLabels,
)
from reference.networks.deeplab import DeepLabOptions
from reference.synthetic import Sizes
from reference.training.config import Contrast

_PAPER: Final = Settings(
    adaptation=AdaptationStage(
        contrast=Contrast(
            target_to_source=0.1,
            source_to_target=0.1,
            measure="confidence",
            threshold=0.8,
        )
    )
)

_RELEASED_SOURCE: Final = SourceStage(
    crops=SourceCrops(resize=Resize(short_side=(720, 720)), crop=(600, 600), colour=PLAIN_COLOURS),
    optimiser=Optimiser(horizon=1.2),
)
_RELEASED_ADAPTATION: Final = AdaptationStage(
    iterations=100_000,
    rounds=10,
    source_crops=SourceCrops(
        resize=Resize(short_side=(720, 850)),
        scale=(0.8, 1.2),
        crop=(730, 730),
        colour=PLAIN_COLOURS,
    ),
    target_crops=TargetCrops(
        resize=Resize(short_side=(850, 850)), scale=(0.8, 1.2), crop=(730, 730)
    ),
    optimiser=Optimiser(learning_rate=7.5e-5, horizon=1.2),
    restart=True,
    round_factor=0.5,
    static=StaticLabels(size=(730, 1460)),
    source_entropy_weight=0.4,
    entropy_weight=0.12,
    contrast=Contrast(
        target_to_source=0.1,
        source_to_target=0.1,
        dynamic_labels=False,
        calibrate=False,
        measure="confidence",
        normalize=False,
        prototypes="batch",
        pairwise=True,
        absent="floor",
    ),
)
_RELEASED: Final = Settings(
    network=NetworkSettings(deeplab=DeepLabOptions(stems="per_domain")),
    source=_RELEASED_SOURCE,
    adaptation=_RELEASED_ADAPTATION,
    reporting=Reporting(size=(730, 1460)),
)

_TOY_CROPS: Final = SourceCrops(resize=Resize(size=(96, 192)), crop=(96, 192), colour=PLAIN_COLOURS)
_TOY_TARGET_CROPS: Final = TargetCrops(resize=Resize(size=(96, 192)), crop=(96, 192))
_TOY: Final = Settings(
    data=DataSettings(source_set="toy", workers=0, drawn=Sizes(100, 100, 30, 0)),
    network=NetworkSettings(kind="toy"),
    source=SourceStage(
        iterations=200,
        batch_size=8,
        crops=_TOY_CROPS,
        optimiser=Optimiser(kind="adamw", learning_rate=4e-3, weight_decay=0.01),
    ),
    adaptation=AdaptationStage(
        iterations=200,
        rounds=4,
        batch_size=4,
        source_crops=_TOY_CROPS,
        target_crops=_TOY_TARGET_CROPS,
        optimiser=Optimiser(kind="adamw", learning_rate=1e-3, weight_decay=0.01),
        static_weight=0.6,
        static=StaticLabels(class_share=0.4, image_share=0.0, size=(96, 192), from_round=1),
        entropy_weight=0.1,
        entropy_from_round=1,
    ),
    reporting=Reporting(
        every=20, checkpoint_every=100, evaluate_every=100, size=(96, 192), panels_every=50
    ),
)


# SYNTHIA is read at its own size; the release trains four times as long on it.
_SYNTHIA_CROPS: Final = SourceCrops(resize=Resize(size=(760, 1280)), colour=PLAIN_COLOURS)
_SYNTHIA: Final = replace(
    _PAPER,
    data=DataSettings(source_set="synthia"),
    source=replace(_PAPER.source, crops=_SYNTHIA_CROPS),
    adaptation=replace(_PAPER.adaptation, source_crops=_SYNTHIA_CROPS),
)
_SYNTHIA_RELEASED: Final = replace(
    _RELEASED,
    data=DataSettings(source_set="synthia"),
    adaptation=replace(_RELEASED.adaptation, iterations=400_000),
)

PRESETS: Final[Mapping[str, tuple[str, Settings]]] = {
    "gta5-to-cityscapes": ("GTA5 to Cityscapes as the paper describes BiCL.", _PAPER),
    "gta5-to-cityscapes-released": ("GTA5 to Cityscapes as in the released files.", _RELEASED),
    "synthia-to-cityscapes": (
        "SYNTHIA to Cityscapes as the paper describes BiCL.",
        _SYNTHIA,
    ),
    "synthia-to-cityscapes-released": (
        "SYNTHIA to Cityscapes as in the released files, with the contrast that they switch off.",
        _SYNTHIA_RELEASED,
    ),
    "toy": ("Two drawn domains: minutes on a laptop, no download.", _TOY),
}
