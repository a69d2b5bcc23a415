"""The images of a run, opened when they are first needed, and the batches of a phase."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Final

from reference.data.index import FOLDER, SetIndex, index_of
from reference.data.loading import SourceBatch, TargetBatch, source_batches, target_batches
from reference.data.order import Batching
from reference.data.prepared import SetName
from reference.data.rare_classes import RareClasses, RareClassSampler
from reference.data.readers import FileReader
from reference.data.sets import open_set
from reference.engine.phases import Phase
from reference.engine.processes import Processes
from reference.engine.settings import DataSettings, Settings
from reference.synthetic import Domains, write_domains

_FOLDERS: Final[dict[str, SetName]] = {"gta5": "gta5", "synthia": "synthia", "toy": "gta5"}


def _below(root: Path | None, name: str, flag: str) -> Path:
    if root is not None and root.is_dir():
        for folder in sorted(root.iterdir()):
            if folder.is_dir() and folder.name.lower() == name:
                return folder
    where = "no folder" if root is None else f"{root}, which holds no such folder"
    raise ValueError(
        f"train: expected a folder {name} below data.root, got {where}. "
        f"Hint: give --data.root with GTA5, SYNTHIA or cityscapes in it, or --data.{flag}."
    )


def set_folders(settings: DataSettings) -> tuple[Path, Path]:
    """Return the folders of the source set and of Cityscapes.

    Args:
        settings: of the data; not those of the toy.

    Raises:
        ValueError: one is not there.
    """
    source = settings.source or _below(settings.root, settings.source_set, "source")
    target = settings.target or _below(settings.root, "cityscapes", "target")
    return source, target


class RunDomains:
    """Source, target and validation images of a run.

    None is opened before it is asked for, so a run in mode "source-only" never touches the target
    training images. The target reader holds no labels by construction.

    Args:
        settings: of the run.
        drawn: folder of the drawn images, for the toy.
        processes: who shares the batches.
    """

    def __init__(self, settings: Settings, drawn: Path, processes: Processes) -> None:
        self.settings = settings
        self.processes = processes
        self._drawn = drawn

    @cached_property
    def _folders(self) -> Domains:
        data = self.settings.data
        if data.source_set != "toy":
            return Domains(*set_folders(data))
        root = data.root or self._drawn
        with self._one_first():
            return write_domains(
                root, self.settings.seed, data.drawn, size=data.drawn_size, shift=data.drawn_shift
            )

    @cached_property
    def source(self) -> FileReader:
        """The labelled images."""
        return open_set(_FOLDERS[self.settings.data.source_set], self._folders.source)

    @cached_property
    def target(self) -> FileReader:
        """The target training images, without labels."""
        return open_set("cityscapes", self._folders.target, "train", labels=False)

    @cached_property
    def validation(self) -> FileReader:
        """The target validation images, with labels, for scores only."""
        return open_set("cityscapes", self._folders.target, "val")

    def _sampler(self, wanted: bool, settings: RareClasses) -> RareClassSampler | None:
        return RareClassSampler(self._index, settings) if wanted else None

    @cached_property
    def _index(self) -> SetIndex:
        data = self.settings.data
        # What check_data has counted of a downloaded set is found again.
        folder = self._drawn.parent / "index" if data.source_set == "toy" else FOLDER
        with self._one_first():
            return index_of(self.source, folder, workers=data.workers)

    @contextmanager
    def _one_first(self) -> Iterator[None]:
        """Let the first process do something before the others, which then find it done."""
        if not self.processes.leads:
            self.processes.wait()
        yield
        if self.processes.leads:
            self.processes.wait()

    def check(self) -> None:
        """Open what the run will need, so that a fault is told before anything is written.

        Raises:
            ValueError: a set is not what its reader wants, or processes times parts do not divide
                a batch.
        """
        if self.settings.mode != "adapt":
            self._part(self.settings.source.batch_size)
        if self.settings.mode != "source-only":
            self._part(self.settings.adaptation.batch_size)
        wanted = [self.source]
        if self.settings.mode != "source-only":
            wanted.append(self.target)
        if self.settings.reporting.evaluate:
            wanted.append(self.validation)
        if empty := [type(reader).__name__ for reader in wanted if not len(reader)]:
            raise ValueError(f"train: expected images in every set, got none in {empty[0]}.")

    def _part(self, batch_size: int) -> int:
        parts = self.processes.world * self.settings.machine.accumulate
        if batch_size % parts:
            raise ValueError(
                f"train: expected a batch_size that {self.processes.world} processes times "
                f"accumulate {self.settings.machine.accumulate} divide, got {batch_size}. "
                "Hint: a batch counts images of all processes and parts together."
            )
        return batch_size // parts

    def _batching(self, phase: Phase, start: int, batch_size: int) -> Batching:
        parts = self.settings.machine.accumulate
        return Batching(
            seed=self.settings.seed,
            start=start * parts,
            stop=phase.stop * parts,
            batch_size=self._part(batch_size),
            rank=self.processes.rank,
            world=self.processes.world,
            workers=self.settings.data.workers,
            pin_memory=self.processes.device.type == "cuda",
        )

    def source_parts(self, phase: Phase, start: int) -> Iterator[SourceBatch]:
        """Yield this process's source images, `accumulate` parts per iteration.

        Args:
            phase: whose settings hold.
            start: first iteration; the phase ends the rest.
        """
        stage = self.settings.adaptation if phase.adapts else self.settings.source
        crops = (
            self.settings.adaptation.source_crops if phase.adapts else self.settings.source.crops
        )
        return source_batches(
            self.source,
            crops,
            self._batching(phase, start, stage.batch_size),
            rare=self._sampler(stage.rare_classes, stage.rare),
        )

    def target_parts(self, phase: Phase, start: int, static: Path | None) -> Iterator[TargetBatch]:
        """Yield this process's target images, as `source_parts` does.

        Args:
            phase: whose settings hold.
            start: first iteration.
            static: folder of the round's static labels; None without.
        """
        stage = self.settings.adaptation
        batching = self._batching(phase, start, stage.batch_size)
        return target_batches(self.target, stage.target_crops, batching, static=static)
