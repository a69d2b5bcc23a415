"""Hold the labels that a run gave its target against the truth: a diagnosis, no part of training.

    python -m reference.probe runs/carla-to-camvid
    python -m reference.probe runs/carla-to-camvid --images 40

prints, for the static labels of every round, and for network and nearest prototypes at every
checkpoint in the folder (`--reporting.keep` says how many a run keeps), how many pixels have a
label, how many of those are right, how far every class floods, and what is taken for what. It opens
labels of the target's training images, which no training opened; where there are none it prints
coverage and class shares alone.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from reference.commands import answer, read


@dataclass(frozen=True, kw_only=True)
class Options:
    """Hold the labels that a run gave its target's training images against the truth."""

    # folder of the run
    run: Annotated[Path, tyro.conf.Positional]
    # folder with one folder per set, where the images lie elsewhere now
    root: Path | None = None
    # how many images are looked at, evenly spaced; 0: all
    images: int = 0
    # new folder for the truth as label files: with --adaptation.static.given it tells what a method
    # would reach if its labels were right
    truth: Path | None = None


# Before torch is imported, so that --help answers at once.
OPTIONS = read(Options, "probe") if __name__ == "__main__" else None

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from reference.bicl import BiCL
from reference.data.batches import passes
from reference.data.classes import IGNORE, ByteArray
from reference.data.files import resize_labels
from reference.data.image_set import ImageSet, spread_indices
from reference.data.sets import Sets
from reference.data.settings import require
from reference.dynamic_labels import DynamicLabels, TaughtLabels
from reference.experiments.tables import markdown
from reference.networks.output import Output
from reference.networks.tensor_files import read_stored
from reference.run.files import read_json, require_new_folder, write_picture
from reference.run.folder import CHECKPOINTS, LAST, SETTINGS, from_plain, labels_of
from reference.run.ranks import Ranks, joined
from reference.run.state import State
from reference.settings import Settings


class Labels(NamedTuple):
    """What one way of labelling gives to the pixels of every class."""

    name: str
    # (C + 1, C + 1), pixels by true class (row) and label (column); the last of each is none.
    counts: np.ndarray

    @property
    def known(self) -> np.ndarray:
        """Rows of pixels with a truth; without any, all pixels."""
        return self.counts[:-1] if self.counts[:-1].any() else self.counts[-1:]

    @property
    def coverage(self) -> float:
        """Share of pixels with a label, 0..1."""
        return float(self.known[:, :-1].sum() / max(1, self.known.sum()))

    @property
    def accuracy(self) -> float:
        """Share of those that are right, 0..1; 0 without a truth."""
        given = self.counts[:-1, :-1]
        return float(given.trace() / max(1, given.sum()))

    @property
    def shares(self) -> np.ndarray:
        """Share of every class among the labels, (C,)."""
        return self.known[:, :-1].sum(axis=0) / max(1, self.known[:, :-1].sum())


class Probe:
    """The target's training images of a run, or some of them, with labels where there are any."""

    def __init__(self, run: Path, settings: Settings, number: int = 0) -> None:
        self.run, self.settings = run, settings
        self.sets = sets = Sets(settings.data, settings.seed)
        try:
            self.images: ImageSet = sets.oracle
        except ValueError:
            self.images = sets.target
        self.chosen = spread_indices(len(self.images), number or len(self.images))

    def count(self, labels: ByteArray, index: int) -> np.ndarray:
        """Hold labels (H, W) of one image against its truth, as `Labels.counts`."""
        truth, classes = np.full_like(labels, IGNORE), len(self.sets.classes)
        if self.images.has_labels:
            truth = resize_labels(self.images.labels(index), (labels.shape[0], labels.shape[1]))
        row, column = (np.where(m == IGNORE, classes, m).astype(int) for m in (truth, labels))
        cells = np.bincount((row * (classes + 1) + column).ravel(), minlength=(classes + 1) ** 2)
        return cells.reshape(classes + 1, classes + 1)

    def write_truth(self, folder: Path) -> None:
        """Write the truth of the chosen images as label files."""
        wanted = f"of {self.images.name} to write"
        require("probe", "labels", "none", wanted, self.images.has_labels)
        require_new_folder("probe", folder, "choose another", argument="truth")
        for index in self.chosen:
            labels = Image.fromarray(self.images.labels(index))
            write_picture(folder / f"{self.images.stems[index]}.png", labels)

    def static_labels(self) -> Iterator[tuple[int, Labels]]:
        """What every round began with, with its number."""
        rounds = self.run.glob("labels/round-*")
        for number in sorted(int(path.name.removeprefix("round-")) for path in rounds):
            folder, counts = labels_of(self.run, f"round {number}"), []
            for index in self.chosen:
                # Of an image that was broken there are none.
                if (path := folder / f"{self.images.stems[index]}.png").is_file():
                    with Image.open(path) as file:
                        counts.append(self.count(np.asarray(file), index))
            yield number, Labels(f"static, round {number}", np.sum(counts, axis=0))

    @torch.no_grad()
    def labels_at(self, checkpoint: Path, ranks: Ranks) -> Iterator[Labels]:
        """What the network, and the prototypes of BiCL, say at a checkpoint."""
        state = State(self.settings, self.sets, ranks, read_stored(checkpoint))
        network, method, size = state.network.eval(), state.method, self.settings.reporting.size
        counts: dict[str, list[np.ndarray]] = {"network": [], "prototypes": []}
        for batch in passes(self.images, size, self.chosen):
            seen, whole = state.see(network, batch.images.to(ranks.device)), batch.images.shape[-2:]
            logits = network.upsampled(seen.logits, whole, self.sets.masked)
            said = {"network": logits.argmax(dim=1)}
            if isinstance(method, BiCL) and method.contrast is not None:
                held, contrast = method.contrast, self.settings.adaptation.contrast
                ask = (method.dynamic or DynamicLabels(contrast, network.num_classes)).eval()
                seen = Output(seen.logits, method.projected(seen.features))
                if isinstance(ask, TaughtLabels):
                    held, seen = ask.own, state.see(ask.teacher, batch.images.to(ranks.device))
                bank = held.source_bank
                labels = ask.transferred(held, seen, bank.prototypes, bank.present)
                said["prototypes"] = F.interpolate(labels[:, None].float(), whole)[:, 0]
            for way, labels in said.items():
                given = labels[0].cpu().numpy().astype(np.uint8)
                counts[way].append(self.count(given, int(batch.indices)))
        for way, each in counts.items():
            if each:
                yield Labels(f"{way}, iteration {state.iteration}", np.sum(each, axis=0))


def tables(found: Sequence[Labels], names: Sequence[str], *, truth: bool) -> Iterator[str]:
    """Lay out coverage and accuracy, floods, and the confusion of the last of each kind."""
    cells = [[f"{f.coverage:.1%}", *[f"{f.accuracy:.1%}"] * truth] for f in found]
    lines = [[f.name, *row] for f, row in zip(found, cells, strict=True)]
    yield markdown(["percent of pixels", "with a label", *["of those right"] * truth], lines)
    held = found[0].counts[:-1].sum(axis=1)
    true = held / max(1, held.sum())
    shown = [n for n in range(len(names)) if true[n] or any(f.shares[n] for f in found)]
    if truth:
        yield "A class's share of the labels over its share of the truth; far above 1 it floods:"
    lines = []
    for n in shown:
        each = [f"{f.shares[n] / true[n]:.2f}" if true[n] else f"{f.shares[n]:.2%}" for f in found]
        lines.append([names[n], *[f"{true[n]:.2%}"] * truth, *each])
    yield markdown(["class", *["truth"] * truth, *(f.name for f in found)], lines)
    for f in {f.name.partition(",")[0]: f for f in found}.values() if truth else ():
        given = f.counts[:-1, :-1]
        lines = [
            [names[n], *(f"{100 * v / given[n].sum():.0f}" for v in given[n, shown])]
            for n in shown
            if given[n].any()
        ]
        if lines:
            yield f"{f.name}: true class by row, label by column, percent of the row's labels:"
            yield markdown(["", *(names[n] for n in shown)], lines)


def probe(options: Options) -> str:
    """Look at a run, and lay out what was found."""
    run, plain = options.run, read_json("probe", options.run / SETTINGS)
    require("probe", "the folder", f"{run} without {SETTINGS}", "of a run", plain is not None)
    settings = from_plain(Settings, plain)
    if options.root is not None:
        settings = replace(settings, data=replace(settings.data, root=options.root))
    seen = Probe(run, settings, options.images)
    if options.truth is not None:
        seen.write_truth(options.truth)
    found = [labels for _, labels in seen.static_labels()]
    with joined(settings.machine) as ranks:
        for checkpoint in sorted((run / CHECKPOINTS).glob("*.pth")) or [run / LAST]:
            found += seen.labels_at(checkpoint, ranks)
    truth, count = seen.images.has_labels, f"{len(seen.chosen)} of {len(seen.images)}"
    said = "The target's training images have no labels here: coverage and shares alone."
    if truth:
        said = "DIAGNOSIS: it reads the target's training labels, which no training opened."
    head = f"{run}, {count} images of {seen.images.name}. {said}"
    return "\n\n".join([head, *tables(found, seen.sets.classes.names, truth=truth)])


if OPTIONS is not None:
    options = OPTIONS
    print(answer(lambda: probe(options)))
