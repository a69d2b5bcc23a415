"""Settings of the data: where images lie, how they are cut, and how their look is changed.

The comment above a field is its help on the command line. Nothing here imports torch, so that
``--help`` answers at once.
"""

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

Size = tuple[int, int]
# A network sees no image with longer sides; 100000 pixels would ask for more memory than there is.
LONGEST: Final = 16384


def require(owner: str, name: str, value: object, wanted: str, ok: bool, hint: str = "") -> None:
    """Refuse a value in one sentence that names it, what it should be, what it is and a way out."""
    if not ok:
        raise refusal(owner, name, value, wanted, hint)


def refusal(owner: str, name: str, value: object, wanted: str, hint: str = "") -> ValueError:
    """The same sentence, to be raised."""
    told = f"{owner}: expected {name} {wanted}, got {value}."
    return ValueError(told + (hint and f" Hint: {hint}."))


def at_least(owner: object, least: float, *names: str) -> None:
    """Refuse fields of a settings object that are below a number, or none."""
    for name in names:
        value = getattr(owner, name)
        wanted = f">= {least:g}" + " and finite" * (value == math.inf)
        require(type(owner).__name__, name, value, wanted, least <= value < math.inf)


def above_zero(owner: object, name: str) -> None:
    """Refuse a field of a settings object that is 0 or below, or no divisor in float32."""
    value = getattr(owner, name)
    wanted = "finite and >= 2**-126" if value > 0 else "> 0"
    require(type(owner).__name__, name, value, wanted, 2**-126 <= value < math.inf)


def within_one(owner: object, *names: str) -> None:
    """Refuse fields of a settings object that are outside 0..1."""
    for name in names:
        value = getattr(owner, name)
        require(type(owner).__name__, name, value, "within 0..1", 0 <= value <= 1)


def require_whole_size(owner: object, size: Size) -> None:
    """Refuse a size of whole images that is neither two lengths nor a short side and 0."""
    wanted, ok = "of a height and a width, or of a short side and 0", size[0] >= 1 and size[1] >= 0
    require(type(owner).__name__, "size", size, wanted, ok)
    wanted = f"with sides of at most {LONGEST} pixels"
    require(type(owner).__name__, "size", size, wanted, max(size) <= LONGEST)


@dataclass(frozen=True)
class Drawn:
    """The drawn street scenes of the toy; all own."""

    # images of the source
    source_train: int = 300
    # unlabelled target images
    target_train: int = 300
    # target images of the split "val", for --data.val-split val
    target_val: int = 0
    # target images of the split "test"
    target_test: int = 100
    # (height, width) of every image, pixels, multiples of 8 from 16 on
    size: Size = (96, 192)
    # how far the target is from the source, 0 (same look) .. 1
    shift: float = 0.7
    # draw the target after dark, and a day image of the same street beside each of its images
    night: bool = False

    def __post_init__(self) -> None:
        at_least(self, 0, "source_train", "target_train", "target_val", "target_test")
        within_one(self, "shift")
        whole = all(side >= 16 and side % 8 == 0 for side in self.size)
        require("Drawn", "size", self.size, "of multiples of 8 from 16 on", whole)

    def folder(self, seed: int) -> Path:
        """Where scenes lie if no folder is named, such as runs/data/toy-192x96-seed0."""
        kind = "night" if self.night else "toy"
        return Path("runs/data") / f"{kind}-{self.size[1]}x{self.size[0]}-seed{seed}"

    def source_alone(self) -> "Drawn":
        """The same without the target, in whose place there are photographs."""
        return replace(self, target_train=0, target_val=0, target_test=0, night=False)


@dataclass(frozen=True)
class DataSettings:
    """Where the images are and how they lie; docs/data.md lists the layouts."""

    # layout of the labelled set: gta5, synthia, cityscapes, carla, camvid, kitti, bdd100k,
    # mapillary, own, or toy, which is drawn
    source_set: str = "gta5"
    # layout of the target set: those, and foggy-cityscapes, acdc, acdc-reference, dark-zurich,
    # toy-night, which is drawn after dark
    target_set: str = "cityscapes"
    # folder with one folder per set, such as GTA5 and cityscapes, in any case
    root: Path | None = None
    # folder of the source set, where it lies elsewhere
    source: Path | None = None
    # folder of the target set, where it lies elsewhere
    target: Path | None = None
    # JSON of the classes of your own sets: name, colour, ids (docs/data.md)
    classes: Path | None = None
    # layout "own": folder of labels of the source; its images are --data.source
    source_labels: Path | None = None
    # layout "own": folder of validation images of the target; training images: --data.target
    val_images: Path | None = None
    # layout "own": folder of their labels
    val_labels: Path | None = None
    # layout "own": folder of labels of the target's training images, read by the oracle alone
    target_labels: Path | None = None
    # split of the target that scores are taken on
    val_split: str = "val"
    # take one recorded drive as the target and the others of the same set as the source
    sequence: str = ""
    # classes that are read as another one in source, target and scores, as "rider=person"
    merge: tuple[str, ...] = ()
    # processes per domain and rank that read images
    workers: int = 4
    # decoded images are kept in memory up to this many MiB per process, for small sets
    cache_mib: int = 0
    # training images that may be left out because they are broken, before the run stops
    max_bad: int = 100
    drawn: Drawn = field(default_factory=Drawn)

    def __post_init__(self) -> None:
        at_least(self, 0, "workers", "cache_mib", "max_bad")
        for pair in self.merge:
            ok = pair.count("=") == 1 and all(pair.split("="))
            require("DataSettings", "merge", repr(pair), 'as "rider=person"', ok)


@dataclass(frozen=True)
class Colours:
    """Changes of an image's look, drawn per image; strengths of DAFormer, gamma and noise own."""

    # that brightness, contrast, saturation, hue, gamma and channels change, 0..1
    probability: float = 0.0
    # the factor is drawn within 1 - x .. 1 + x
    brightness: float = 0.2
    # likewise, of the distance from the mean grey
    contrast: float = 0.2
    # likewise, of the distance from grey
    saturation: float = 0.2
    # largest turn, as a share of the full circle, 0..0.5
    hue: float = 0.2
    # spread of log2 of an exponent; 0.5 gives exponents of about 0.7..1.4
    gamma: float = 0.0
    # spread of the factor on each channel
    channels: float = 0.0
    # largest standard deviation of white noise, of the full range
    noise: float = 0.0
    # that the image is blurred, 0..1
    blur_probability: float = 0.0
    # range of the standard deviation of the blur, pixels
    blur_sigma: tuple[float, float] = (0.15, 1.15)

    def __post_init__(self) -> None:
        within_one(self, "probability", "brightness", "contrast", "saturation", "blur_probability")
        require("Colours", "hue", self.hue, "within 0..0.5", 0 <= self.hue <= 0.5)
        at_least(self, 0, "gamma", "channels", "noise")
        low, high = self.blur_sigma
        require("Colours", "blur_sigma", self.blur_sigma, "as (low, high) above 0", 0 < low <= high)


@dataclass(frozen=True)
class Crops:
    """How images are cut: scaled to a size, scaled again by a drawn factor, cropped, mirrored."""

    # (height, width) to scale to, pixels; the aspect ratio is not kept
    size: Size | None = (720, 1280)
    # instead of it: range of the short side, pixels; the aspect ratio is kept
    short_side: tuple[int, int] | None = None
    # range of a further factor
    scale: tuple[float, float] = (1.0, 1.0)
    # (height, width) of the crop, pixels
    crop: Size = (512, 512)
    # probability of mirroring, 0..1
    flip: float = 0.5
    colours: Colours = field(default_factory=Colours)

    def __post_init__(self) -> None:
        within_one(self, "flip")
        one = (self.size is None) != (self.short_side is None)
        require("Crops", "either size or short_side", (self.size, self.short_side), "", one)
        lengths = (*(self.size or self.short_side or ()), *self.crop)
        ok = 1 <= min(lengths) <= max(lengths) <= LONGEST
        require("Crops", "lengths", lengths, f"of 1..{LONGEST} pixels", ok)
        low, high = self.scale
        require("Crops", "scale", self.scale, "as (low, high) above 0", 0 < low <= high)
        if self.size is not None:
            (height, width), crop = self.size, self.crop
            longest = max(height, width) * max(high, crop[0] / height, crop[1] / width)
            wanted = f"that make sides of at most {LONGEST} pixels"
            require("Crops", "size, scale and crop", f"{longest:.0f}", wanted, longest <= LONGEST)
        if self.short_side is not None:
            low, high = self.short_side
            require("Crops", "short_side", self.short_side, "as (low, high)", low <= high)


@dataclass(frozen=True)
class RareClasses:
    """Rare-class sampling as in DAFormer: a class is drawn first, then an image that shows it."""

    # off in the release
    on: bool = False
    # T > 0 of P(c) ~ exp((1 - f_c) / T); the smaller, the more often the rarest classes come
    temperature: float = 0.01
    # share of the draws that are made by class; the others take every image once an epoch
    share: float = 1.0
    # pixels of the class that an image must hold to be drawn for it, at the labels' size
    min_pixels: int = 3000
    # share of min_pixels that the crop must hold, 0..1
    min_crop_share: float = 0.5
    # crops that are tried for it; the last one is taken as it is
    max_crops: int = 10

    def __post_init__(self) -> None:
        above_zero(self, "temperature")
        within_one(self, "share", "min_crop_share")
        at_least(self, 1, "min_pixels", "max_crops")
