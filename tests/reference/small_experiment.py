"""Settings of a whole experiment that takes seconds."""

from dataclasses import replace
from typing import Any

from reference.data.settings import Crops, Drawn
from reference.experiments.targets import target_settings
from reference.presets import PRESETS
from reference.settings import Settings

SIZE = (32, 64)
DRAWN = Drawn(source_train=6, target_train=6, target_val=2, target_test=5, size=SIZE)


def small() -> Settings:
    """The preset "toy" with few and small images, and four steps in each stage."""
    settings = PRESETS["toy"][1]
    crops = Crops(size=SIZE, crop=SIZE)
    stage = settings.adaptation
    return replace(
        settings,
        data=replace(settings.data, drawn=DRAWN),
        source=replace(settings.source, iterations=4, batch_size=2, crops=crops),
        adaptation=replace(
            stage, iterations=4, rounds=4, batch_size=2, source_crops=crops, target_crops=crops,
            static=replace(stage.static, size=SIZE),
        ),
        reporting=replace(
            settings.reporting, every=1, checkpoint_every=2, size=SIZE, panels_every=0
        ),
    )  # fmt: skip


def few(target: str, seed: int, **where: Any) -> Settings:
    """In the place of a target's settings: small ones on its data."""
    data = target_settings(target, seed, **where).data
    places = {name: getattr(data, name) for name in ("root", "source", "target")}
    kinds = {name: getattr(data, name) for name in ("target_set", "val_split")}
    return replace(small(), seed=seed, data=replace(small().data, **places, **kinds))
