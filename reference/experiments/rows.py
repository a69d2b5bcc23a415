"""The rows of result tables: what each is called, and how its settings differ from a preset's.

Every adapted row begins with the network of the row "source_only" of its seed and differs from the
others by its settings alone. Names of rows stand in docs/results/*.json.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from reference.data.settings import Colours, require
from reference.experiments.targets import DUSK, NIGHT, TOY
from reference.methods import METHODS
from reference.settings import Contrast, Settings

SOURCE: Final = "source_only"
UNAUGMENTED: Final = "source_only_unaugmented"
CONTROL: Final = "source_only_continued"
ENTROPY: Final = "entropy_only"
SAFER: Final = "bicl_safer"
ORACLE: Final = "oracle"
METHOD: Final = "method_"
"""What stands before a method's name in the name of its row."""

# Settings of the adaptation that a row changes: dotted name -> value.
Changes = Mapping[str, Any]


def _contrast(**changes: Any) -> Changes:
    return {f"contrast.{name}": value for name, value in changes.items()}


def _balanced(**changes: Any) -> Changes:
    """Every class an equal part of both contrasts, and other changes of the contrast."""
    return _contrast(balance="class", **changes)


_OFF: Final = _contrast(target_to_source=0.0, source_to_target=0.0)
_GENTLE: Final = _contrast(target_to_source=0.1, source_to_target=0.1, threshold=0.9)
# Without entropy; without static labels, too.
_NO_ENTROPY: Final[Changes] = {"entropy_weight": 0.0}
_BARE: Final[Changes] = {**_NO_ENTROPY, "static_labels": False}
_AT_ONCE: Final[Changes] = {"static.from_round": 0}
_SHARE: Final[Changes] = {"static.class_share": 0.3}
# Paper: dynamic labels, calibration, fused labels. Released: the weights 0.1, 0.3, 0.4 and 0.12,
# prototypes of the paired image with gradient, absent classes at a cosine of -1, share 0.1; its
# entropy is taken as the true one, its halving of the learning rate every round is left out.
_PUBLISHED: Final = Contrast(
    target_to_source=0.1, source_to_target=0.1, bias_momentum=0.99, normalize=False,
    prototypes="batch", pairwise=True, absent="floor",
)  # fmt: skip
INGREDIENTS: Final[Mapping[str, tuple[str, Changes]]] = {
    "contrast": ("contrast", _OFF),
    "target_to_source": ("target to source", _contrast(target_to_source=0.0)),
    "source_to_target": ("source to target", _contrast(source_to_target=0.0)),
    "calibration": ("calibration", _contrast(calibrate=False)),
    "dynamic_labels": ("dynamic labels", _contrast(dynamic_labels=False)),
    "static_labels": ("static labels", {"static_labels": False}),
    "entropy": ("entropy", _NO_ENTROPY),
    "bank": ("BiCL, gradient through prototypes of the batch", _contrast(prototypes="batch")),
    "delay": (
        "BiCL, entropy and static labels from the start", {"entropy_from_round": 0, **_AT_ONCE},
    ),
}  # fmt: skip
# From rendered streets to photographs: the contrast changed in one thing, then balanced by class
# and changed in one more.
VARIANTS: Final[Mapping[str, tuple[str, Changes]]] = {
    "agree": ("BiCL, dynamic labels that the head shares", _contrast(agree=True)),
    "balanced": ("BiCL, balanced by class", _balanced()),
    "balanced_static": ("balanced, static labels alone", _balanced(dynamic_labels=False)),
    "balanced_agree": ("balanced, dynamic labels that the head shares", _balanced(agree=True)),
    # Half of the log prior is what weights of class frequency to the minus half leave to the head.
    "balanced_prior_no_entropy": (
        "balanced, labels by class frequency, no entropy",
        {**_balanced(measure="confidence", prior=0.5), **_NO_ENTROPY},
    ),
    "balanced_static_no_entropy": (
        "balanced, static labels alone, no entropy",
        {**_balanced(dynamic_labels=False), **_NO_ENTROPY},
    ),
    "no_contrast_no_entropy": ("no contrast, no entropy", {**_OFF, **_NO_ENTROPY}),
    "balanced_coverage": (
        "balanced, dynamic labels for 0.6 of every class", _balanced(class_coverage=0.6),
    ),
    "balanced_uncalibrated": ("balanced, no calibration", _balanced(calibrate=False)),
    "balanced_bank": (
        "balanced, prototypes of the bank",
        _balanced(prototypes="bank", pairwise=False, absent="mask", normalize="features"),
    ),
    "balanced_teacher": ("balanced, dynamic labels of a mean teacher", _balanced(teacher=True)),
    "balanced_warmup": ("balanced, rising over 100 steps", _balanced(warmup=100)),
    "balanced_projection": ("balanced, on projected features", _balanced(projection=True)),
    "balanced_strong": (
        "balanced, weights of 0.2", _balanced(target_to_source=0.2, source_to_target=0.2),
    ),
    "balanced_sharp": (
        "balanced, static labels alone, temperature 0.05",
        _balanced(dynamic_labels=False, temperature=0.05),
    ),
    "balanced_soft": (
        "balanced, static labels alone, temperature 0.2",
        _balanced(dynamic_labels=False, temperature=0.2),
    ),
    "share_without_contrast": ("static labels of share 0.3, no contrast", {**_OFF, **_SHARE}),
    "balanced_share": ("balanced, static labels of share 0.3", {**_balanced(), **_SHARE}),
    "balanced_share_agree": (
        "balanced, share 0.3, dynamic labels that the head shares",
        {**_balanced(agree=True), **_SHARE},
    ),
}  # fmt: skip
# What is worth what: name -> (row with it, row without it).
PAIRS: Final[Mapping[str, tuple[str, str]]] = {
    "contrast, every pixel alike": ("bicl", "without_contrast"),
    "contrast, every class alike": ("balanced", "without_contrast"),
    "contrast by frequency, no entropy": ("balanced_prior_no_entropy", "no_contrast_no_entropy"),
    "contrast, every class alike, share 0.3": ("balanced_share", "share_without_contrast"),
    "balance by class": ("balanced", "bicl"),
    "dynamic labels, every pixel alike": ("bicl", "without_dynamic_labels"),
    "dynamic labels, every class alike": ("balanced", "balanced_static"),
    "the same that the head shares": ("balanced_agree", "balanced_static"),
    "labels by frequency, no entropy": ("balanced_prior_no_entropy", "balanced_static_no_entropy"),
    "the same of a mean teacher": ("balanced_teacher", "balanced_static"),
    "the same for 0.6 of every class": ("balanced_coverage", "balanced_static"),
    "calibration, every class alike": ("balanced", "balanced_uncalibrated"),
    **{
        VARIANTS[name][0]: (name, "balanced")
        for name in ("balanced_bank", "balanced_warmup", "balanced_projection", "balanced_strong",
                     "balanced_share")
    },
}  # fmt: skip
# Rows that BiCL is trained for with other settings; "bicl" has the preset's own.
_BICL: Final[Mapping[str, tuple[str, Changes]]] = {
    "self_training": (
        "self-training on static labels",
        {**_OFF, **_AT_ONCE, "entropy_weight": 0.0, "static_weight": 0.6},
    ),
    ENTROPY: (
        "entropy only",
        {**_OFF, "static_labels": False, "entropy_weight": 0.03, "entropy_from_round": 0},
    ),
    "contrast_only": ("contrast only", _BARE),
    "contrast_only_uncalibrated": (
        "contrast only, no calibration", {**_BARE, **_contrast(calibrate=False)},
    ),
    "bicl": ("BiCL", {}),
    # For a start whose labels deserve less trust: only similar pixels are labelled, the contrast
    # pulls gently, static labels hold from the first round, nothing sharpens what is uncertain.
    SAFER: (
        "BiCL, safer labels",
        {**_GENTLE, **_AT_ONCE, "entropy_weight": 0.0, "static_weight": 0.6},
    ),
    **{
        f"without_{name}": (label if "BiCL" in label else f"BiCL without {label}", change)
        for name, (label, change) in INGREDIENTS.items()
    },
    **VARIANTS,
    f"{METHOD}bicl": (
        "BiCL, published weights",
        {
            "contrast": _PUBLISHED, "source_entropy_weight": 0.4, "entropy_weight": 0.12,
            "entropy_from_round": 0, "static_labels": True, "static_weight": 0.3, **_AT_ONCE,
            "static.class_share": 0.1, "static.image_share": 0.0,
        },
    ),
}  # fmt: skip
_NAMES: Final = [name for name in METHODS if name != "control"]
# Name in results -> what a table calls it, in the order of tables.
LABELS: Final[Mapping[str, str]] = {
    UNAUGMENTED: "source only, no augmentation",
    SOURCE: "source only",
    CONTROL: "source only, continued (control)",
    **{name: label for name, (label, _) in _BICL.items()},
    **{f"{METHOD}{name}": METHODS[name].label for name in _NAMES if name != "bicl"},
    ORACLE: "oracle (target labels)",
}
# The rows of the demo, in the order of its table: name in results -> caption.
CAPTIONS: Final[Mapping[str, str]] = {
    SOURCE: "source only", CONTROL: "continued", ENTROPY: "entropy only", "bicl": "BiCL",
    ORACLE: "oracle",
}  # fmt: skip
# Columns of the table per class, which are those of the demo and of the rendered source.
CLASS_CAPTIONS: Final[Mapping[str, str]] = {
    **{name: CAPTIONS[name] for name in (SOURCE, CONTROL, ENTROPY)},
    "without_contrast": "no contrast", "bicl": CAPTIONS["bicl"], "balanced": "balanced",
    "balanced_prior_no_entropy": "by frequency", ORACLE: CAPTIONS[ORACLE],
}  # fmt: skip
# Photographs: the rows that tell whether anything transfers at all.
MAIN_ROWS: Final = (
    *(UNAUGMENTED, SOURCE, CONTROL, "self_training", ENTROPY, "contrast_only", "bicl"),
    *(SAFER, ORACLE),
)
TOY_ROWS: Final = tuple(
    row
    for row in LABELS
    if row not in (UNAUGMENTED, SAFER, *VARIANTS) and not row.startswith(METHOD)
)
# Presets whose BiCL already has prototypes of the batch and static labels from the start.
PRESET_ROWS: Final = (
    *(SOURCE, CONTROL, "bicl", "balanced", "balanced_prior_no_entropy"),
    *("balanced_static_no_entropy", "no_contrast_no_entropy", ORACLE),
    *(f"without_{name}" for name in INGREDIENTS if name not in ("bank", "delay")),
)
# Beside methods: what they start from, what they are held against, and the recipe's own settings.
BESIDE_METHODS: Final = (SOURCE, CONTROL, "self_training", "bicl")
BESIDE_ON_PRESETS: Final = (
    *(SOURCE, CONTROL, "bicl", "balanced_prior_no_entropy", "no_contrast_no_entropy"),
)
# Rows that start from random weights and not from another row.
STARTS: Final = (UNAUGMENTED, SOURCE, ORACLE)


def usual_rows(target: str) -> tuple[str, ...]:
    """What is trained for a target unless rows are named: toy, night or a preset."""
    return {TOY: TOY_ROWS, NIGHT: TOY_ROWS, DUSK: MAIN_ROWS}.get(target, PRESET_ROWS)


def _changed(stage: Any, changes: Changes) -> Any:
    for name, value in changes.items():
        group, _, field = name.rpartition(".")
        inner = replace(getattr(stage, group), **{field: value}) if group else value
        stage = replace(stage, **{group or field: inner})
    return stage


def settings_of(row: str, preset: Settings, begin: Path) -> Settings:
    """A preset, changed to what a row of `LABELS` is; rows that adapt start at a checkpoint."""
    source, stage = preset.source, preset.adaptation
    if row == ORACLE:
        # As many steps as both stages together, on the target's own crops.
        steps = source.iterations + stage.iterations
        source = replace(source, iterations=steps, crops=stage.target_crops)
        return replace(preset, stages="oracle", source=source)
    if row == UNAUGMENTED:
        source = replace(source, crops=replace(source.crops, colours=Colours()))
    if row in STARTS:
        return replace(preset, stages="source-only", source=source)
    adapted = replace(preset, stages="adapt", begin=begin)
    if row in _BICL:
        return replace(adapted, adaptation=_changed(stage, _BICL[row][1]))
    if row == f"{METHOD}bicl_dacs":
        adapted = replace(adapted, adaptation=replace(stage, contrast=_PUBLISHED))
    return replace(adapted, method="control" if row == CONTROL else row.removeprefix(METHOD))


def method_rows(
    names: tuple[str, ...], beside: tuple[str, ...], *, day_images: bool
) -> tuple[str, ...]:
    """Rows of methods, by name or "all" that the target allows, after those `beside` them.

    Some methods need `day_images`: one of every image of the target.
    """
    allowed = [name for name in _NAMES if day_images or not METHODS[name].uses_partners]
    for name in names if names != ("all",) else ():
        require("ablate", "methods", name, f"among all, {', '.join(_NAMES)}", name in _NAMES)
        wanted, ok = f"with images by day beside method {name}", name in allowed
        require("ablate", "a target", "one without", wanted, ok, "give --target night")
    chosen = allowed if names == ("all",) else names
    return (*beside, *(f"{METHOD}{name}" for name in chosen))
