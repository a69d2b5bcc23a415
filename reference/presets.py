"""Named settings of whole runs, and the command line that starts from one of them.

The presets named "-released" follow the authors' configuration files with the mistakes of the
code put right (true entropy, batches in random order, frozen scale and shift of BatchNorm meant as
such); those of GTA5 and SYNTHIA without it are our reading of the paper, with hybrid labels and
calibration. Settings of drawn scenes were chosen on validation images of seed 0 (docs/results.md).
"""

import inspect
import re
import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import tyro

from reference.data.settings import Colours, Crops, DataSettings, Drawn, RareClasses
from reference.networks.settings import DeepLabOptions, NetworkSettings
from reference.settings import (
    AdaptationStage,
    Contrast,
    Machine,
    Optimiser,
    Reporting,
    Settings,
    SourceStage,
    StaticLabels,
)

PAPER: Final = Settings()

# Class means of the batch, as the release contrasts them.
_BATCH: Final = Contrast(normalize=False, prototypes="batch", pairwise=True, absent="floor")
_RELEASED_CROPS: Final = Crops(size=None, short_side=(720, 850), scale=(0.8, 1.2), crop=(730, 730))
RELEASED: Final = Settings(
    network=NetworkSettings(deeplab=DeepLabOptions(stems="per_domain")),
    source=SourceStage(
        crops=Crops(size=None, short_side=(720, 720), crop=(600, 600)),
        optimiser=Optimiser(horizon=1.2),
    ),
    adaptation=AdaptationStage(
        iterations=100_000, rounds=10, restart=True, round_factor=0.5, source_crops=_RELEASED_CROPS,
        target_crops=replace(_RELEASED_CROPS, short_side=(850, 850)),
        optimiser=Optimiser(learning_rate=7.5e-5, horizon=1.2), source_entropy_weight=0.4,
        static=StaticLabels(size=(730, 1460)),
        contrast=replace(_BATCH, dynamic_labels=False, calibrate=False),
    ),
    reporting=Reporting(size=(730, 1460)),
)  # fmt: skip

# SYNTHIA is read at its own size; the release trains four times as long on it.
_SYNTHIA_CROPS: Final = Crops(size=(760, 1280))
_SYNTHIA: Final = DataSettings(source_set="synthia")
SYNTHIA: Final = Settings(
    data=_SYNTHIA, source=SourceStage(crops=_SYNTHIA_CROPS),
    adaptation=AdaptationStage(source_crops=_SYNTHIA_CROPS),
)  # fmt: skip
SYNTHIA_RELEASED: Final = replace(
    RELEASED, data=_SYNTHIA, adaptation=replace(RELEASED.adaptation, iterations=400_000)
)

# Drawn scenes: a threshold on the cosine, pulls of another strength, and labels that are trusted
# from the second round on.
_DRAWN_CONTRAST: Final = Contrast(
    target_to_source=0.4, source_to_target=0.2, measure="similarity", threshold=0.8
)
_SMALL: Final = Machine(threads=1, channels_last=False)
_SEEN: Final = Reporting(every=25, evaluate_every=0, panels_every=200)


def _small(data: DataSettings, size: tuple[int, int], colours: Colours) -> Settings:
    """Settings of runs that take minutes on two cores: one size throughout, AdamW, one thread."""
    plain = Crops(size=size, crop=size)
    coloured = replace(plain, colours=colours)
    optimiser = Optimiser("adamw", learning_rate=4e-3, head_factor=1.0, weight_decay=0.01)
    adaptation = AdaptationStage(
        iterations=600, rounds=6, batch_size=4, source_crops=coloured, target_crops=plain,
        optimiser=replace(optimiser, learning_rate=1e-3), static_weight=0.6,
        static=StaticLabels(class_share=0.4, image_share=0.0, size=size, from_round=1),
        entropy_weight=0.1, entropy_from_round=1, contrast=_DRAWN_CONTRAST,
    )  # fmt: skip
    source = SourceStage(iterations=500, batch_size=8, crops=coloured, optimiser=optimiser)
    reporting = replace(_SEEN, checkpoint_every=300, size=size)
    return Settings(
        data=data, network=NetworkSettings("toy"), source=source, adaptation=adaptation,
        machine=_SMALL, reporting=reporting,
    )  # fmt: skip


_SCENES: Final = DataSettings("toy", "toy", workers=0, cache_mib=512, val_split="test")
_NIGHT: Final = replace(_SCENES, target_set="toy-night", drawn=Drawn(night=True))
TOY: Final = _small(_SCENES, (96, 192), Colours())
# Changes of look that a photograph may have and a drawn scene has not.
STRONG: Final = Colours(
    probability=1.0, brightness=0.15, contrast=0.35, saturation=0.5, hue=0.0, gamma=0.5,
    channels=0.08, noise=0.04, blur_probability=0.5, blur_sigma=(0.2, 1.2),
)  # fmt: skip
_FEW: Final = DataSettings("camvid", "camvid", workers=0, cache_mib=512)
DUSK: Final = _small(replace(_FEW, sequence="0001TP"), (120, 160), STRONG)

# Rendered streets to photographs, with a backbone that knows ImageNet.
_CARLA_CROPS: Final = Crops(
    size=None, short_side=(250, 600), crop=(240, 320), colours=replace(STRONG, probability=0.8)
)
_RARE: Final = RareClasses(on=True, temperature=0.02, share=0.7, min_pixels=100)
_CARLA_RATE: Final = Optimiser("adamw", learning_rate=3e-4, head_factor=3.3, weight_decay=0.01)
# What CamVid's eleven classes hold; its riders are people, whom the source does not tell apart.
_AS_CAMVID: Final = (
    "rider=person", "terrain=vegetation", "wall=building", "traffic light=traffic sign",
)  # fmt: skip


# Half of the log prior is what the class weights below leave to the head.
_BALANCED: Final = replace(_BATCH, balance="class", prior=0.5)
_ALIKE: Final = "classes alike: balance class, prior 0.5, no entropy."


def _carla(target: str, contrast: Contrast = _BATCH, entropy_weight: float = 0.03) -> Settings:
    # Photographs keep their shape where they are seen whole.
    whole = 240, 800 if target == "kitti" else 320
    source = SourceStage(
        iterations=1200, batch_size=4, class_weight_power=0.5, crops=_CARLA_CROPS,
        optimiser=_CARLA_RATE, rare=_RARE,
    )  # fmt: skip
    adaptation = AdaptationStage(
        iterations=400, rounds=1, batch_size=2, source_crops=_CARLA_CROPS,
        target_crops=Crops(size=None, short_side=(240, 300), crop=(240, 320)),
        optimiser=replace(_CARLA_RATE, learning_rate=1e-4, head_factor=3.0),
        static=StaticLabels(image_share=0.0, size=whole, loss_weighted=False),
        entropy_weight=entropy_weight, contrast=contrast, rare=_RARE,
    )  # fmt: skip
    data = replace(_FEW, source_set="carla", target_set=target, merge=_AS_CAMVID)
    return Settings(
        data=data, network=NetworkSettings("lite"), source=source, adaptation=adaptation,
        machine=Machine(threads=1), reporting=replace(_SEEN, checkpoint_every=400, size=whole),
    )  # fmt: skip


# Photographs of any shape keep it.
_OWN_CROPS: Final = Crops(size=None, short_side=(720, 720))
_OWN_STAGE: Final = replace(
    PAPER.adaptation, source_crops=_OWN_CROPS, static=StaticLabels(size=(512, 0)),
    target_crops=replace(_OWN_CROPS, short_side=(512, 512)),
)  # fmt: skip
OWN: Final = Settings(
    data=DataSettings("own", "own"), source=replace(PAPER.source, crops=_OWN_CROPS),
    adaptation=_OWN_STAGE, reporting=Reporting(size=(512, 0)),
)  # fmt: skip

PRESETS: Final[Mapping[str, tuple[str, Settings]]] = {
    "toy": ("Two drawn domains: minutes on a laptop, no download.", TOY),
    "toy-night": ("Drawn streets by day to drawn streets after dark.", replace(TOY, data=_NIGHT)),
    "gta5-to-cityscapes": ("GTA5 to Cityscapes as the paper describes BiCL.", PAPER),
    "gta5-to-cityscapes-released": ("GTA5 to Cityscapes as in the released files.", RELEASED),
    "synthia-to-cityscapes": ("SYNTHIA to Cityscapes as the paper describes BiCL.", SYNTHIA),
    "synthia-to-cityscapes-released": (
        "SYNTHIA to Cityscapes as in the released files, with the contrast that they switch off.",
        SYNTHIA_RELEASED,
    ),
    "carla-to-camvid": ("Rendered streets to photographs, minutes on a laptop.", _carla("camvid")),
    "carla-to-kitti": ("To KITTI, for which nothing was chosen.", _carla("kitti")),
    "carla-to-camvid-balanced": (f"To CamVid, {_ALIKE}", _carla("camvid", _BALANCED, 0.0)),
    "carla-to-kitti-balanced": (f"To KITTI, {_ALIKE}", _carla("kitti", _BALANCED, 0.0)),
    "day-to-dusk": ("One set of photographs: drives by day to a drive at dusk.", DUSK),
    "own": ("Your own two folders of images and one of labels (docs/data.md).", OWN),
}


@dataclass(frozen=True)
class Options:
    """Train on a labelled source and adapt to an unlabelled target."""

    # of the run; must be new or empty, unless it is resumed
    folder: Annotated[Path, tyro.conf.arg(aliases=["--run"])] = Path("runs/train")
    # auto goes on from the newest checkpoint of the folder, or begins where there is none
    resume: Literal["never", "auto"] = "never"
    # check the settings, the data and the weights as the run would, print the plan, write nothing
    dry_run: bool = False
    # print every setting as JSON and stop
    print_config: bool = False
    settings: Annotated[Settings, tyro.conf.arg(name="")] = field(default_factory=Settings)


def command_line(arguments: Sequence[str] | None = None) -> Options:
    """Read the name of a preset, then what differs from it; ``--help`` prints and exits."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    wants_help = bool({"-h", "--help"} & {*words})
    if not words or words[0] not in PRESETS:
        known = "\n".join(f"  {name:<31} {text}" for name, (text, _) in PRESETS.items())
        usage = f"usage: python -m reference.train PRESET [options]\n\npresets:\n{known}\n"
        more = "\n`PRESET --help` lists its settings."
        if wants_help and words[0].startswith("-"):
            print(usage + more)
            sys.exit(0)
        if words and words[0] in _GONE:
            hint = "Hint: carla-to-camvid has a rendered source in place of the drawn one."
            sys.exit(f"train: expected a preset of this version, got {words[0]}. {hint}")
        got = repr(words[0]) if words else "none"
        sys.exit(f"train: expected the name of a preset, got {got}.\n{usage}{more}")
    name, rest = words[0], [_renamed(word) for word in words[1:]]
    options = Options(folder=Path("runs") / name, settings=PRESETS[name][1])
    if wants_help:
        topics = [word for word in rest if not word.startswith("-")]
        print(settings_help(name, options, topics[0] if topics else None))
        sys.exit(0)
    try:
        program = f"python -m reference.train {name}"
        return tyro.cli(Options, default=options, args=rest, prog=program)
    except ValueError as error:
        sys.exit(str(error))


# Presets of former versions.
_GONE: Final = ("toy-to-photographs", "varied-to-photographs")
# Options that had another name, and the one they have now.
_RENAMED: Final = (
    (r"\.rare-classes$", ".rare.on"),
    (r"\.no-rare-classes$", ".rare.no-on"),
    (r"crops\.resize\.", "crops."),
    (r"crops\.colour\.", "crops.colours."),
    (r"^--data\.drawn-(size|shift)$", r"--data.drawn.\1"),
)


def _renamed(word: str) -> str:
    for before, after in _RENAMED:
        if word.startswith("--"):
            word = re.sub(before, after, word)
    return word


def _groups(value: Any, front: str = "") -> Iterator[tuple[str, Any]]:
    """A settings object and those inside it, each with the name that its options begin with."""
    yield front, value
    for each in fields(value):
        inner = getattr(value, each.name)
        if is_dataclass(inner):
            name = "" if each.name == "settings" else f"{front}{each.name}.".replace("_", "-")
            yield from _groups(inner, name)


def _comments(kind: type) -> dict[str, str]:
    """The comment above every field of a settings class, by the option's name."""
    above = re.findall(r"((?:^ +# .*\n)*)^ +(\w+): .*=", inspect.getsource(kind), re.MULTILINE)
    return {name.replace("_", "-"): re.sub(r"\s*# ", " ", text).strip() for text, name in above}


def settings_help(preset: str, options: Options, topic: str | None = None) -> str:
    """List all settings of a preset by groups, or explain those of one, "adaptation.contrast"."""
    width = min(100, shutil.get_terminal_size((100, 50)).columns)
    groups = {name.rstrip("."): value for name, value in _groups(options)}
    if topic is not None and topic not in {*groups} - {""}:
        known = ", ".join(filter(None, groups))
        return f"train: expected a group among {known}, got {topic}."
    lines = [f"usage: python -m reference.train {preset} [options]", "", PRESETS[preset][0], ""]
    front = "--" if topic is None else f"--{topic}."
    for value in (options, options.settings) if topic is None else (groups[topic],):
        comments = _comments(type(value))
        for name, default in _plain_fields(value):
            text = f"{f'  {front}{name} {_shown(default)}':<32}  {comments[name]}"
            lines += textwrap.wrap(text, width, subsequent_indent=" " * 36)
    wrapped = textwrap.TextWrapper(
        width, subsequent_indent=" " * 6, break_on_hyphens=False, break_long_words=False
    ).wrap
    lines += ["", "switches, True or False: --data.drawn.night is on, --data.drawn.no-night is off"]
    if topic is None:
        lines += ["", f"groups; `{preset} --help adaptation.contrast` explains one of them:"]
        for name, value in groups.items():
            plain = (f"{field}={_shown(default)}" for field, default in _plain_fields(value))
            lines += wrapped(f"  --{name}.  {' '.join(plain)}") if name else []
    return "\n".join(lines)


def _plain_fields(value: Any) -> list[tuple[str, Any]]:
    """Options of a settings object itself, as the command line spells them, with their values."""
    named = [(each.name.replace("_", "-"), getattr(value, each.name)) for each in fields(value)]
    return [(name, default) for name, default in named if not is_dataclass(default)]


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "()"
    return '""' if value == "" else str(value)
