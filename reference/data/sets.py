"""The sets of a run: source, target and validation images, each opened when it is asked for."""

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from reference.data.classes import CITYSCAPES, EXAMPLE, ClassList, read_classes
from reference.data.image_set import OWN, ImageSet, layout_of, open_set, shown_classes
from reference.data.layouts import LAYOUTS, Layout
from reference.data.rare_classes import Counts, RareClassSampler, class_counts
from reference.data.settings import DataSettings, Drawn, RareClasses, refusal, require

_DRAWN: Final = (LAYOUTS["toy"], LAYOUTS["toy-source"])
_UNSCORED: Final = (
    "--reporting.no-evaluate trains without scores; reference.score takes FOLDER --labels"
)


class Sets:
    """Source, target and validation images of a run, each opened when it is first asked for.

    Args:
        seed: of scenes that are drawn where they are missing.
        oracle: train on the labels of the target.
        classes: of your own sets, in place of the file of `settings.classes`.
        one_first: lets one of several processes do something before the others.
    """

    # Folder of scenes that a plan leaves to the run to draw.
    undrawn: Path | None = None

    def __init__(
        self, settings: DataSettings, seed: int = 0, *, oracle: bool = False,
        classes: ClassList | None = None,
        one_first: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:  # fmt: skip
        self.settings, self._seed, self._of_oracle = settings, seed, oracle
        self._one_first = one_first
        self._target = layout_of(settings.target_set, "target")
        source = layout_of(settings.source_set, "source")
        self._source = self._target if settings.sequence else source
        if classes is None and settings.classes is not None:
            classes = read_classes(settings.classes)
        own, classes = classes is not None, classes or CITYSCAPES
        if not own and OWN in (self._source, self._target):
            hint = f"give a JSON such as {EXAMPLE}"
            raise refusal("data", "--data.classes", "none", "with layout own", hint)
        if not own and self._target.means is not None:
            means = {name: classes.numbers(held) for name, held in self._target.means.items()}
            classes = replace(classes, means=means)
        shown, scored = (
            set(shown_classes(layout, classes, settings.merge))
            for layout in (self._source, self._target)
        )
        if not shown & scored:
            both = f"that {self._source.title} and {self._target.title} share"
            raise refusal("data", "classes", f"none of {', '.join(classes.names)}", both)
        self.classes: ClassList = classes.with_means(scored, shown & scored)

    def _open(self, layout: Layout, root: Path, split: str, **more: Any) -> ImageSet:
        merge, cache = self.settings.merge, self.settings.cache_mib
        return open_set(layout, root, split, self.classes, merge=merge, cache_mib=cache, **more)

    def _folder(self, layout: Layout, name: str, flag: str) -> Path:
        data = self.settings
        if layout in _DRAWN:
            return self._scenes
        given: Path | None = self._own(layout, flag) or getattr(data, flag)
        if given is not None:
            return given
        wanted = {plain(known) for known in (name, *layout.folders)}
        if data.root is not None and data.root.is_dir():
            for folder in sorted(data.root.iterdir()):
                if folder.is_dir() and plain(folder.name) in wanted:
                    return folder
        where = "no folder"
        if data.root is not None:
            there = "holds no such folder" if data.root.is_dir() else "does not exist"
            where = f"{data.root}, which {there}"
        hint = f"give --data.root with it, or --data.{flag}"
        raise refusal("data", f"a folder {name}", where, "below data.root", hint)

    @cached_property
    def _scenes(self) -> Path:
        """Where the drawn scenes lie, whose folder need not be named."""
        data = self.settings
        both = self._target in _DRAWN
        folder = (data.root if both else data.source) or data.drawn.folder(self._seed)
        with self._one_first():
            self._draw(folder, data.drawn if both else data.drawn.source_alone())
        return folder

    def _draw(self, folder: Path, drawn: Drawn) -> None:
        draw_missing(folder, drawn, self._seed)

    def opened(self, *, target: bool, validation: bool) -> dict[str, ImageSet]:
        """Open the sets that a run reads: "labelled", then "target" and "validation".

        What lies on disk comes first, so that a missing folder is told before scenes are drawn.
        """
        names = ["labelled"] + ["target"] * target + ["validation"] * validation
        later = {"labelled": self._source} if not self._of_oracle else {}
        for name in sorted(names, key=lambda name: later.get(name, self._target) in _DRAWN):
            getattr(self, name)
        return {name: getattr(self, name) for name in names}

    def _own(self, layout: Layout, flag: str) -> Path | None:
        """Return a folder that layout "own" needs, and None for other layouts."""
        folder: Path | None = getattr(self.settings, flag)
        if layout is not OWN:
            return None
        if folder is None:
            name, hint = f"--data.{flag.replace('_', '-')}", _UNSCORED * flag.startswith("val")
            raise refusal("data", name, "none", "with layout own", hint)
        return folder

    def _of_target(self, split: str, **labels: Any) -> ImageSet:
        root = self._folder(self._target, self.settings.target_set, "target")
        return self._open(self._target, root, split, **labels)

    @cached_property
    def source(self) -> ImageSet:
        """The labelled images."""
        data = self.settings
        if data.sequence:
            return _of_place(self._of_target("train", labels=True), data.sequence, others=True)
        root = self._folder(self._source, data.source_set, "source")
        truth = self._own(self._source, "source_labels")
        return self._open(self._source, root, "train", labels=True, role="source", label_root=truth)

    @cached_property
    def target(self) -> ImageSet:
        """The target's training images, without labels."""
        return _half(self._of_target("train", labels=False), self.settings.sequence, first=True)

    @cached_property
    def oracle(self) -> ImageSet:
        """The target's training images with labels, for the oracle and for diagnosis alone."""
        truth = self._own(self._target, "target_labels")
        whole = self._of_target("train", labels=True, label_root=truth)
        return _half(whole, self.settings.sequence, first=True)

    @cached_property
    def validation(self) -> ImageSet:
        """The target's validation images with labels, for scores alone."""
        data = self.settings
        if data.sequence:
            return _half(self._of_target("train", labels=True), data.sequence, first=False)
        if (images := self._own(self._target, "val_images")) is not None:
            truth = self._own(OWN, "val_labels")
            return self._open(OWN, images, "val", labels=True, label_root=truth)
        return self._of_target(data.val_split, labels=True)

    @property
    def labelled(self) -> ImageSet:
        """The images whose labels a run trains on: the source, or the target of the oracle."""
        return self.oracle if self._of_oracle else self.source

    @property
    def masked(self) -> tuple[int, ...]:
        """Classes that the labels of training do not show, so that no pixel may be given them."""
        known = self.labelled.labelled
        return tuple(number for number in range(len(self.classes)) if number not in known)

    def counts(self) -> Counts:
        """Pixels of every class in every label file of training, counted once and kept."""
        return class_counts(self.labelled, workers=self.settings.workers)

    def rare_classes(self, settings: RareClasses) -> RareClassSampler | None:
        """What draws images by their classes; None where every image comes once an epoch."""
        return RareClassSampler(self.counts(), settings) if settings.on else None


def plain(name: str) -> str:
    """Return a name of a folder in small letters, without what joins its words."""
    return "".join(letter for letter in name.lower() if letter.isalnum())


def _of_place(whole: ImageSet, place: str, *, others: bool = False) -> ImageSet:
    """Take the images of one drive, or all others."""
    places = sorted({sample.place for sample in whole.samples})
    wanted = f"to be one of several drives of {whole.root} ({', '.join(places) or 'none'})"
    ok = place in places and not (others and len(places) == 1)
    require("data", "data.sequence", place, wanted, ok)
    return whole.part(i for i, one in enumerate(whole.samples) if (one.place == place) != others)


def _half(whole: ImageSet, place: str, *, first: bool) -> ImageSet:
    """Cut a drive in the middle: neighbouring images are alike, so they stay on one side."""
    if not place:
        return whole
    drive = _of_place(whole, place)
    require("data", "data.sequence", place, "to have 2 images or more", len(drive) > 1)
    middle = (len(drive) + 1) // 2
    return drive.part(range(middle) if first else range(middle, len(drive)))


def draw_missing(folder: Path, drawn: Drawn, seed: int) -> None:
    """Have the scenes drawn that a folder lacks, by a process that knows how to paint.

    Where it holds other things or scenes of other settings, nothing is touched: a ValueError.
    """
    command = [sys.executable, "-m", "reference.synthetic", str(folder), "--seed", str(seed)]
    for field in fields(drawn):
        value, name = getattr(drawn, field.name), field.name.replace("_", "-")
        if isinstance(value, bool):
            command.append(f"--{name}" if value else f"--no-{name}")
        else:
            command += [f"--{name}", *map(str, value if isinstance(value, tuple) else (value,))]
    # The parent folder of `reference`, wherever the run was started from.
    paths = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    # On a terminal its bar is shown, elsewhere its sentence becomes ours.
    said = None if sys.stderr.isatty() else subprocess.PIPE
    ended = subprocess.run(command, env=environment, stderr=said, text=True)
    if ended.returncode:
        lines = (ended.stderr or "").strip().splitlines()
        raise ValueError(lines[-1] if lines else f"data: expected scenes in {folder}, got none.")
