"""The sets of a run: source, target and validation images, each opened when it is asked for."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

from reference.data import image_set
from reference.data.classes import CITYSCAPES, ClassList, read_classes
from reference.data.image_set import OWN, ImageSet, Role, layout_of
from reference.data.layouts import LAYOUTS, Layout
from reference.data.settings import DataSettings, Drawn, RareClasses

if TYPE_CHECKING:
    from reference.data.rare_classes import ClassCounts, RareClassSampler

__all__ = ["ImageSet", "Sets", "open_sets"]

_DRAWN: Final = (LAYOUTS["toy"], LAYOUTS["toy-source"])
_EXAMPLE: Final = '[{"name": "road", "colour": [128, 64, 128], "ids": [7]}, ...]'


class Sets:
    """Source, target and validation images of a run, each opened when it is first asked for.

    Args:
        settings: of the data.
        seed: of scenes that are drawn where they are missing.
        oracle: train on the labels of the target.
        one_first: lets one of several processes do something before the others.

    Raises:
        ValueError: a layout or class is unknown, or classes of own sets are missing.
    """

    def __init__(
        self,
        settings: DataSettings,
        seed: int = 0,
        *,
        oracle: bool = False,
        one_first: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self.settings, self._seed, self._of_oracle = settings, seed, oracle
        self._one_first = one_first
        self._source = layout_of(settings.source_set, "source")
        self._target = layout_of(settings.target_set, "target")
        if settings.sequence:
            self._source = self._target
        if OWN in (self._source, self._target) and settings.classes is None:
            raise ValueError(
                "data: expected --data.classes with layout own, got none. Hint: give a JSON such "
                'as [{"name": "road", "colour": [128, 64, 128], "ids": [7]}, ...].'
            )
        classes = CITYSCAPES if settings.classes is None else read_classes(settings.classes)
        self.classes = self._with_means(classes)

    def _with_means(self, classes: ClassList) -> ClassList:
        read_as = classes.merge_table(self.settings.merge)

        def shown(layout: Layout) -> set[int]:
            held = layout.holds or classes.names
            numbers = range(len(classes)) if layout is OWN else classes.numbers(held)
            return {int(read_as[number]) for number in numbers}

        if self._target.means is not None and classes is CITYSCAPES:
            means = {name: classes.numbers(held) for name, held in self._target.means.items()}
            classes = replace(classes, means=means)
        source, scored = shown(self._source), shown(self._target)
        if not source & scored:
            raise ValueError(
                f"data: expected classes that {self._source.title} and {self._target.title} share, "
                f"got none of {', '.join(classes.names)}."
            )
        return classes.with_means(scored, source & scored)

    def _folder(self, layout: Layout, name: str, given: Path | None, flag: str) -> Path:
        if layout in _DRAWN:
            return self._scenes
        root, wanted = self.settings.root, {plain(n) for n in (name, *layout.folders)}
        if given is not None:
            return given
        if root is not None and root.is_dir() and layout is not OWN:
            for folder in sorted(root.iterdir()):
                if folder.is_dir() and plain(folder.name) in wanted:
                    return folder
        where = "no folder" if root is None else f"{root}, which holds no such folder"
        raise ValueError(
            f"data: expected a folder {name} below data.root, got {where}. "
            f"Hint: give --data.root with it, or --data.{flag}."
        )

    @cached_property
    def _scenes(self) -> Path:
        """Where the drawn scenes lie, whose folder need not be named."""
        data = self.settings
        both = self._target in _DRAWN
        folder = (data.root if both else data.source) or data.drawn.folder(self._seed)
        with self._one_first():
            draw_missing(folder, data.drawn if both else data.drawn.source_alone(), self._seed)
        return folder

    def _open(
        self,
        layout: Layout,
        root: Path,
        split: str,
        *,
        labels: bool,
        role: Role = "target",
        label_root: Path | None = None,
    ) -> ImageSet:
        settings = self.settings
        return image_set.open_set(
            layout,
            root,
            split,
            self.classes,
            labels=labels,
            role=role,
            merge=settings.merge,
            label_root=label_root,
            cache_mib=settings.cache_mib,
        )

    @property
    def _target_root(self) -> Path:
        return self._folder(self._target, self.settings.target_set, self.settings.target, "target")

    @cached_property
    def source(self) -> ImageSet:
        """The labelled images."""
        settings = self.settings
        if settings.sequence:
            whole = self._open(self._target, self._target_root, "train", labels=True)
            return _of_place(whole, settings.sequence, others=True)
        root = self._folder(self._source, settings.source_set, settings.source, "source")
        truth = self._own_labels(self._source, settings.source_labels, "source_labels")
        return self._open(self._source, root, "train", labels=True, role="source", label_root=truth)

    @cached_property
    def target(self) -> ImageSet:
        """The target's training images, without labels."""
        whole = self._open(self._target, self._target_root, "train", labels=False)
        return _half(whole, self.settings.sequence, first=True)

    @cached_property
    def oracle(self) -> ImageSet:
        """The target's training images with labels, for the oracle and for diagnosis alone."""
        truth = self._own_labels(self._target, self.settings.target_labels, "target_labels")
        whole = self._open(self._target, self._target_root, "train", labels=True, label_root=truth)
        return _half(whole, self.settings.sequence, first=True)

    @property
    def labelled(self) -> ImageSet:
        """The images whose labels a run trains on: the source, or the target of the oracle."""
        return self.oracle if self._of_oracle else self.source

    @property
    def masked(self) -> tuple[int, ...]:
        """Classes that the labels of training do not show, so that no pixel may be given them."""
        known = self.labelled.labelled
        return tuple(number for number in range(len(self.classes)) if number not in known)

    def describe(self, *, target: bool, validation: bool) -> list[str]:
        """Say which folders and how many images a run reads."""
        lines = [f"labelled images: {len(self.labelled)} in {self.labelled.root}"]
        if target:
            lines.append(f"target without labels: {len(self.target)} images in {self.target.root}")
        if validation:
            lines.append(f"validation: {len(self.validation)} images in {self.validation.root}")
        return lines

    def counts(self) -> ClassCounts:
        """Pixels of every class in every label file of training, counted once and kept."""
        from reference.data.rare_classes import class_counts

        return class_counts(self.labelled, workers=self.settings.workers)

    def rare_classes(self, settings: RareClasses) -> RareClassSampler | None:
        """What draws images by their classes; None where every image comes once an epoch."""
        if not settings.on:
            return None
        from reference.data.rare_classes import RareClassSampler

        return RareClassSampler(self.counts(), settings)

    @cached_property
    def validation(self) -> ImageSet:
        """The target's validation images with labels, for scores alone."""
        settings = self.settings
        if settings.sequence:
            whole = self._open(self._target, self._target_root, "train", labels=True)
            return _half(whole, settings.sequence, first=False)
        if self._target is OWN:
            images = self._own_labels(OWN, settings.val_images, "val_images")
            truth = self._own_labels(OWN, settings.val_labels, "val_labels")
            assert images is not None
            return self._open(OWN, images, "val", labels=True, label_root=truth)
        return self._open(self._target, self._target_root, settings.val_split, labels=True)

    def _own_labels(self, layout: Layout, folder: Path | None, flag: str) -> Path | None:
        if layout is OWN and folder is None:
            raise ValueError(f"data: expected --data.{flag} with layout own, got none.")
        return folder if layout is OWN else None


def plain(name: str) -> str:
    """Return a name of a folder in small letters, without what joins its words."""
    return "".join(letter for letter in name.lower() if letter.isalnum())


def _of_place(whole: ImageSet, place: str, *, others: bool = False) -> ImageSet:
    """Take the images of one drive, or all others."""
    chosen = [i for i, sample in enumerate(whole.samples) if (sample.place == place) != others]
    places = sorted({sample.place for sample in whole.samples})
    if not chosen or place not in places:
        listed = ", ".join(places) or "none"
        raise ValueError(
            f"data: expected data.sequence to be one of several drives of {whole.root} "
            f"({listed}), got {place}."
        )
    return whole.part(chosen)


def _half(whole: ImageSet, place: str, *, first: bool) -> ImageSet:
    """Cut a drive in the middle: neighbouring images are alike, so they stay on one side."""
    if not place:
        return whole
    drive = _of_place(whole, place)
    middle = (len(drive) + 1) // 2
    return drive.part(range(middle) if first else range(middle, len(drive)))


def draw_missing(folder: Path, drawn: Drawn, seed: int) -> None:
    """Have the scenes drawn that a folder lacks, by a process that knows how to paint.

    Raises:
        ValueError: the folder holds other things or scenes of other settings; nothing is touched
            then.
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


def open_sets(
    settings: DataSettings,
    seed: int = 0,
    *,
    oracle: bool = False,
    one_first: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Sets:
    """Return the sets of a run; nothing is opened yet, see `Sets`.

    Raises:
        ValueError: a layout or class is unknown, or classes of own sets are missing.
    """
    return Sets(settings, seed, oracle=oracle, one_first=one_first)
