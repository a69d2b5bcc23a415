"""How each data set lies on disk: one row per layout, and nothing else.

A pattern such as "leftImg8bit/{split}/{place}/{stem}_leftImg8bit" finds files; an image and its
labels are a pair where the names in braces agree. ``{split}`` is the split as the set writes it,
``{place}`` a drive or city, ``{path}`` any folders and a name.
"""

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from reference.data.classes import CITYSCAPES
from reference.data.files import Kind

CONVERTED: Final = "_labelTrainIds"
_NAMES: Final = CITYSCAPES.names


@dataclass(frozen=True)
class Labels:
    """One way in which the label files of a set lie and number classes."""

    pattern: str  # of the files, without their ending
    # class of every value that may occur, "" for none; colours as red << 16 | green << 8 | blue
    values: Mapping[int, str]
    kind: Kind = "ids"  # how a file holds its values, see `reference.data.files.Reading`


@dataclass(frozen=True)
class Layout:
    """One data set as it is downloaded."""

    title: str
    images: tuple[str, ...]  # patterns; the first that finds any is taken
    labels: tuple[Labels, ...]  # each image takes the first that holds its pair
    download: str  # what to unpack, for hints
    # what the set calls train and val, where that is another word
    splits: Mapping[str, str] = field(default_factory=dict)
    # number of images of a complete split, then of others in use
    counts: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    holds: tuple[str, ...] | None = None  # classes that its labels show; None: all of the 19
    means: Mapping[str, tuple[str, ...]] | None = None  # what its papers average over
    partner: str = ""  # pattern of a day image of the same place
    folders: tuple[str, ...] = ()  # other names of its folder below --data.root
    source: bool = False  # usually serves as the source, so that its train labels are checked


def _ids(numbers: tuple[int, ...], last: int, *void: int) -> dict[int, str]:
    named = dict(zip(numbers, _NAMES, strict=True))
    return {value: named.get(value, "") for value in (*range(last + 1), *void)}


def _colours(name: str) -> dict[int, str]:
    """Read what the colours of a set mean, in the set's own order, from colours.csv."""
    text = Path(__file__).with_name("colours.csv").read_text(encoding="utf-8")
    return {
        int(line["red"]) << 16 | int(line["green"]) << 8 | int(line["blue"]): line["class"]
        for line in csv.DictReader(text.splitlines())
        if line["set"] == name
    }


# Number of every class, in the order of the 19, in label files of Cityscapes and of SYNTHIA.
CITYSCAPES_NUMBERS: Final = (
    7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33
)  # fmt: skip
_SYNTHIA_NUMBERS: Final = (3, 4, 2, 21, 5, 7, 15, 9, 6, 16, 1, 10, 17, 8, 18, 19, 20, 12, 11)
TRAIN_IDS: Final = {**dict(enumerate(_NAMES)), 255: ""}
# A licence plate is id -1, which some tools store as 255; GTA5 has it as 34.
LABEL_IDS: Final = _ids(CITYSCAPES_NUMBERS, 33, 255)
GTA5_IDS: Final = _ids(CITYSCAPES_NUMBERS, 34)
SYNTHIA_IDS: Final = _ids(_SYNTHIA_NUMBERS, 22)

# Tags of CARLA 0.9.10 to 0.9.13; what drives is one tag, and so is who walks or rides.
_CARLA_TAGS: Final = {
    **dict.fromkeys(range(22), ""), 1: "building", 2: "fence", 4: "person", 5: "pole", 6: "road",
    7: "road", 8: "sidewalk", 9: "vegetation", 10: "car", 11: "wall", 12: "traffic sign",
    13: "sky", 18: "traffic light", 22: "terrain",
}  # fmt: skip

_CAMVID_COLOURS: Final = _colours("camvid")
_CAMVID: Final = tuple(name for name in _NAMES if name in _CAMVID_COLOURS.values())

# The 66 labels of Mapillary Vistas 1.2, in the order of its config_v1.2.json; the reading as the
# 19 classes follows the definitions of Cityscapes: kerbs are sidewalk, markings and manholes road.
_VISTAS_NUMBERS: Final = dict(enumerate(_colours("mapillary").values()))

_CITY: Final = "leftImg8bit/{split}/{place}/{stem}_leftImg8bit"
_TRUTH: Final = "gtFine/{split}/{place}/{stem}_gtFine"


def _both(truth: str) -> tuple[Labels, Labels]:
    return Labels(truth + CONVERTED, TRAIN_IDS), Labels(f"{truth}_labelIds", LABEL_IDS)


_CITY_LABELS: Final = _both(_TRUTH)[::-1]
_GTA5_LABELS: Final = (
    Labels("labels/{stem}", GTA5_IDS), Labels("labels/labels/{stem}", GTA5_IDS)
)  # fmt: skip
# Labels with the same ids in 8 bits are made by other repositories.
_SYNTHIA_LABELS: Final = tuple(
    Labels(f"{level}{folder}/{{stem}}", SYNTHIA_IDS, "deep" if folder == "GT/LABELS" else "ids")
    for folder in (
        "GT/LABELS", "GT/synthia_mapped_to_cityscapes", "GT/parsed_LABELS",
        "synthia_mapped_to_cityscapes", "parsed_LABELS",
    )
    for level in ("", "RAND_CITYSCAPES/")
)  # fmt: skip
_ACDC_DAY: Final = "rgb_anon/{condition}/{split}_ref/{place}/{stem}_rgb_ref_anon"
_IN_TOY: Final = tuple(
    name for name in _NAMES if name not in ("wall", "rider", "train", "motorcycle", "bicycle")
)
_DRAWN: Final = (
    "the drawn street scenes",
    "python -m reference.train toy draws them, of the split val --data.drawn.target-val",
)

LAYOUTS: Final[dict[str, Layout]] = {
    "gta5": Layout(
        "GTA5", ("images/{stem}", "images/images/{stem}"), _GTA5_LABELS,
        "all ten image and ten label archives, into images/ and labels/",
        # A download in use lacks 25 pairs.
        counts={"train": (24966, 24941)}, folders=("gta",), source=True,
    ),
    "synthia": Layout(
        "SYNTHIA-RAND-CITYSCAPES", ("RGB/{stem}", "RAND_CITYSCAPES/RGB/{stem}"), _SYNTHIA_LABELS,
        "SYNTHIA-RAND-CITYSCAPES (CVPR16), into RGB/ and GT/LABELS/",
        holds=tuple(name for name in _NAMES if name not in ("terrain", "truck", "train")),
        counts={"train": (9400,)}, folders=("synthia-rand-cityscapes", "rand-cityscapes"),
        source=True,
    ),
    "cityscapes": Layout(
        "Cityscapes", (_CITY,), _CITY_LABELS,
        "leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip",
        counts={"train": (2975,), "val": (500,), "test": (1525,)},
    ),
    "foggy-cityscapes": Layout(
        "Foggy Cityscapes",
        ("leftImg8bit_foggy/{split}/{place}/{stem}_leftImg8bit_foggy_beta_0.02",), _CITY_LABELS,
        "leftImg8bit_trainvaltest_foggy.zip and gtFine_trainvaltest.zip",
        counts={"train": (2975,), "val": (500,)}, folders=("cityscapes-foggy", "cityscapes"),
    ),
    "acdc": Layout(
        "ACDC", ("rgb_anon/{condition}/{split}/{place}/{stem}_rgb_anon",),
        _both("gt/{condition}/{split}/{place}/{stem}_gt"),
        "rgb_anon_trainvaltest.zip and gt_trainval.zip",
        counts={"train": (1600,), "val": (406,)}, partner=_ACDC_DAY,
    ),
    "acdc-reference": Layout(
        "the reference images of ACDC, taken in clear weather", (_ACDC_DAY,),
        _both("gt/{condition}/{split}_ref/{place}/{stem}_gt_ref"),
        "rgb_anon_trainvaltest.zip, and labels of the reference images",
        counts={"train": (1600,), "val": (406,)}, folders=("acdc",),
    ),
    # Its day images belong to a night only by their GPS positions, which nothing here reads.
    "dark-zurich": Layout(
        "Dark Zurich", ("rgb_anon/{split}/night/{place}/{stem}_rgb_anon",),
        _both("gt/{split}/night/{place}/{stem}_gt"),
        "Dark_Zurich_train_anon.zip and Dark_Zurich_val_anon.zip",
        counts={"train": (2416,), "val": (50,)}, folders=("dark-zurich-anon",),
    ),
    "bdd100k": Layout(
        "BDD100K",
        (
            "images/10k/{split}/{stem}", "seg/images/{split}/{stem}",
            "bdd100k/images/10k/{split}/{stem}",
        ),
        (
            Labels("labels/sem_seg/masks/{split}/{stem}", TRAIN_IDS),
            Labels("seg/labels/{split}/{stem}_train_id", TRAIN_IDS),
            Labels("bdd100k/labels/sem_seg/masks/{split}/{stem}", TRAIN_IDS),
        ),
        "the 10K images and the labels of semantic segmentation",
        counts={"train": (7000,), "val": (1000,)}, folders=("bdd",),
    ),
    "kitti": Layout(
        "KITTI semantics", (_CITY, "training/image_2/{stem}"),
        (*_CITY_LABELS, Labels("training/semantic/{stem}", LABEL_IDS)),
        "data_semantics.zip", counts={"train": (160,), "val": (40,)},
    ),
    "camvid": Layout(
        "CamVid", (_CITY, "701_StillsRaw_full/{stem}"),
        (*_CITY_LABELS, Labels("LabeledApproved_full/{stem}_L", _CAMVID_COLOURS, "colours")),
        "701_StillsRaw_full.zip and LabeledApproved_full.zip",
        holds=_CAMVID, means={"miou11": _CAMVID},
    ),
    "carla": Layout(
        "CARLA", ("images/{stem}", "rgb/{stem}", "CameraRGB/{stem}"),
        _GTA5_LABELS + tuple(
            Labels(f"{folder}/{{stem}}", _CARLA_TAGS, "red")
            for folder in ("semantic", "CameraMask", "CameraSeg")
        ),
        "pictures of the recorder into rgb/ and raw tags into semantic/",
        holds=tuple(name for name in _NAMES if name in _CARLA_TAGS.values()), source=True,
    ),
    "mapillary": Layout(
        "Mapillary Vistas 1.2", ("{split}/images/{stem}",),
        (
            Labels("{split}/labels/{stem}", _VISTAS_NUMBERS),
            Labels("{split}/v1.2/labels/{stem}", _VISTAS_NUMBERS),
        ),
        "the research edition, version 1.2",
        splits={"train": "training", "val": "validation", "test": "testing"},
        counts={"train": (18000,), "val": (2000,)},
        folders=("mapillary-vistas", "vistas", "mapillary-vistas-dataset"), source=True,
    ),
    "toy": Layout(
        _DRAWN[0], (f"cityscapes/{_CITY}",),
        (Labels(f"cityscapes/{_TRUTH}_labelIds", LABEL_IDS),), _DRAWN[1],
        holds=_IN_TOY, means={"miou14": _IN_TOY}, partner=f"day/{_CITY}",
    ),
    "toy-source": Layout(
        _DRAWN[0], ("gta5/images/{stem}",), (Labels("gta5/labels/{stem}", GTA5_IDS),), _DRAWN[1],
        holds=_IN_TOY, source=True,
    ),
}  # fmt: skip
# The night has day images beside it, and is otherwise alike.
LAYOUTS["toy-night"] = LAYOUTS["toy"]
