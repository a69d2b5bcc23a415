"""The rows of results: their names in files, what tables call them, and which go together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from reference.methods.registry import METHODS

SOURCE: Final = "source_only"
UNAUGMENTED: Final = "source_only_unaugmented"
CONTROL: Final = "source_only_continued"
SAFER_ROW: Final = "bicl_safer"
ORACLE: Final = "oracle"
INGREDIENTS: Final[Mapping[str, str]] = {
    "target_to_source": "BiCL without target to source",
    "source_to_target": "BiCL without source to target",
    "calibration": "BiCL without calibration",
    "dynamic_labels": "BiCL without dynamic labels",
    "static_labels": "BiCL without static labels",
    "entropy": "BiCL without entropy",
    "bank": "BiCL, gradient through prototypes of the batch",
    "delay": "BiCL, entropy and static labels from the start",
}
METHOD: Final = "method_"
"""What stands before a method's name in the name of its row."""
# name in results -> what a table calls it, in the order of tables.
LABELS: Final[Mapping[str, str]] = {
    UNAUGMENTED: "source only, no augmentation",
    SOURCE: "source only",
    CONTROL: "source only, continued (control)",
    "self_training": "self-training on static labels",
    "entropy_only": "entropy only",
    "contrast_only": "contrast only",
    "contrast_only_uncalibrated": "contrast only, no calibration",
    "bicl": "BiCL",
    SAFER_ROW: "BiCL, safer labels",
    **{f"without_{name}": label for name, label in INGREDIENTS.items()},
    **{f"{METHOD}{name}": entry.label for name, entry in METHODS.items()},
    ORACLE: "oracle (target labels)",
}
# Photographs: the rows that tell whether anything transfers at all.
MAIN_ROWS: Final = (
    UNAUGMENTED,
    SOURCE,
    CONTROL,
    "self_training",
    "entropy_only",
    "contrast_only",
    "bicl",
    SAFER_ROW,
    ORACLE,
)
TOY_ROWS: Final = tuple(
    row for row in LABELS if row not in (UNAUGMENTED, SAFER_ROW) and not row.startswith(METHOD)
)
# Beside methods: what they start from, what they are held against, and the recipe's own settings.
BESIDE_METHODS: Final = (SOURCE, CONTROL, "self_training", "bicl")
# Rows that start from random weights and not from another row.
STARTS: Final = (UNAUGMENTED, SOURCE, ORACLE)


def method_rows(names: tuple[str, ...], *, day_images: bool = True) -> tuple[str, ...]:
    """Rows of methods, and those beside them.

    Args:
        names: of methods, or "all" alone: then those that the target allows.
        day_images: whether the target has a day image of every image, as some methods need.

    Raises:
        ValueError: no method has such a name, or the target has no day images for it.
    """
    unknown = [name for name in names if name not in METHODS]
    allowed = [name for name in METHODS if day_images or not METHODS[name].needs_day_images]
    if names == ("all",):
        names = tuple(allowed)
    elif unknown:
        raise ValueError(
            f"ablate: expected methods among all, {', '.join(METHODS)}, got {unknown[0]}."
        )
    for name in names:
        if name not in allowed:
            raise ValueError(
                f"ablate: expected target night beside method {name}, got one without day images. "
                "Hint: give --target night."
            )
    return (*BESIDE_METHODS, *(f"{METHOD}{name}" for name in names))
