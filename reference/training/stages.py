"""Training: the source stage, adaptation with every ingredient switchable, and the oracle.

Interface for whoever runs experiments (`demo`, `ablate`):

    train_supervised(domain, settings, seed=..., run=...)             -> Trained
    adapt(network, source, target_images, settings, seed=..., ...)    -> Trained

`train_supervised` on the source is the source stage; on the target *with* labels it is the
oracle. `adapt` takes target images as a bare tensor, so no label can reach it; `settings` is one
of `config.ROWS`, `config.BICL` or `config.without(...)`, and `method` one of `reference.methods`
in place of their terms. Both copy the network they are given.
A caller who owns target labels may pass `observe` to see each step's pseudo labels (for instance
`label_accuracy.PseudoLabelAccuracy`); nothing flows back.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import protocontrast as pc
from reference.data.arrays import ArrayDomain
from reference.data.transforms import Augmentation, batch
from reference.networks.toy import SegmentationNetwork, build_network
from reference.progress import track
from reference.training.adapt_step import Ingredients
from reference.training.alarms import class_share, predicted_share
from reference.training.config import Adaptation, Supervised
from reference.training.history import History, Observation, Observer
from reference.training.losses import cell_labels, require_finite, source_cross_entropy
from reference.training.method import Method, Start, Step, Stepped

# Streams of random numbers: one step draws from both domains.
_SOURCE, _TARGET = 0, 1


@dataclass(frozen=True)
class Trained:
    """The result of a run.

    Args:
        network: the trained network.
        history: its course.
        method: what was minimised, as it was at the end; None for training on labels alone.
    """

    network: SegmentationNetwork
    history: History
    method: Method | None = None

    @property
    def bicl(self) -> pc.BiCL | None:
        """Prototypes and bias at the end of an adaptation by BiCL's contrast."""
        return self.method.bicl if isinstance(self.method, Ingredients) else None

    @property
    def static_labels(self) -> Tensor | None:
        """BiCL's last static pseudo labels, (N, H / 4, W / 4), uint8, 255 where none."""
        return self.method.static_labels if isinstance(self.method, Ingredients) else None


def _minimise(
    optimiser: torch.optim.Optimizer,
    losses: dict[str, Tensor],
    history: History,
    step: int,
    learning_rate: float,
) -> None:
    history.record_losses(step, require_finite(losses, run=history.run, step=step))
    for group in optimiser.param_groups:
        group["lr"] = learning_rate
    optimiser.zero_grad()
    torch.stack(list(losses.values())).sum().backward()
    optimiser.step()


def _poly(settings: Supervised | Adaptation, step: int) -> float:
    return settings.learning_rate * (1 - step / settings.steps) ** settings.poly_power


def _optimiser(
    parameters: Iterable[nn.Parameter], settings: Supervised | Adaptation
) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay
    )


def train_supervised(
    domain: ArrayDomain,
    settings: Supervised,
    *,
    seed: int,
    network: SegmentationNetwork | None = None,
    augmentation: Augmentation | None = None,
    run: str = "source_only",
    progress: bool = False,
) -> Trained:
    """Train on labels by cross-entropy alone.

    Args:
        domain: images with labels: the source, or the target for the oracle.
        settings: steps, batch size, optimiser.
        seed: of the initial weights and the batches.
        network: where to start; None starts from random weights. It is copied.
        augmentation: changes the look of the images; None leaves them as they are.
        run: name for the history, the bar and error messages.
        progress: show a bar.

    Raises:
        ValueError: the domain has no labels.
        NonFiniteLossError: the loss became NaN or infinite.
    """
    network = build_network(seed=seed) if network is None else copy.deepcopy(network)
    optimiser = _optimiser(network.parameters(), settings)
    history = History(run, source_share=class_share(cell_labels(domain.labels)))
    began = time.perf_counter()
    for step in track(settings.steps, run, show=progress):
        drawn = batch(domain, seed, step, settings.batch_size, augmentation=augmentation)
        logits = network(drawn.images).logits
        losses = {
            "cross_entropy": source_cross_entropy(
                logits, drawn.labels, full_resolution=settings.full_resolution
            )
        }
        _minimise(optimiser, losses, history, step, _poly(settings, step))
    history.seconds = time.perf_counter() - began
    return Trained(network, history)


def _report(step: Step, done: Stepped, history: History, observe: Observer | None) -> None:
    if done.target is None:
        return
    predictions = done.target.logits.argmax(dim=1)
    coverage = ratio = labels = None
    if done.contrast is not None:
        coverage, ratio = done.contrast.coverage, done.contrast.class_share
        labels = done.contrast.target_labels
    history.observe(step.index, predictions, coverage, ratio)
    if observe is not None:
        drawn = step.target_batch
        observe(
            Observation(
                step.index, drawn.indices, drawn.flipped, predictions,
                done.labels if labels is None else labels, done.static_labels,
            )
        )  # fmt: skip


def adapt(
    network: SegmentationNetwork,
    source: ArrayDomain,
    target_images: Tensor,
    settings: Adaptation,
    *,
    seed: int,
    method: Method | None = None,
    day_images: Tensor | None = None,
    augmentation: Augmentation | None = None,
    run: str = "bicl",
    observe: Observer | None = None,
    progress: bool = False,
) -> Trained:
    """Adapt a source-only network to target images.

    Args:
        network: the source-only network; it is copied.
        source: images with labels.
        target_images: images without labels; not touched if the method does not use them.
        settings: steps, rounds, batches and optimiser; without a method, which terms are active,
            with what weight, from which round, too.
        seed: of the batches.
        method: what every step minimises; None takes the terms of `settings`.
        day_images: row i shows the place of target image i by day; for methods that ask for them.
        augmentation: changes the look of source images; None leaves them as they are.
        run: name for the history, the bar and error messages.
        observe: called after each step that looked at target images.
        progress: show bars.

    Shape:
        target_images and day_images (N, 3, H, W), uint8.

    Raises:
        NonFiniteLossError: a loss term became NaN or infinite.
    """
    network = copy.deepcopy(network)
    if method is None:
        method = Ingredients(settings, network.feature_dim)
    method.begin(Start(network, source, target_images, seed, day_images))
    optimiser = _optimiser([*network.parameters(), *method.trained()], settings)
    history = History(run, source_share=class_share(cell_labels(source.labels)))
    target = ArrayDomain(target_images, None, tuple(map(str, range(len(target_images)))))
    if method.uses_target:
        history.start_share = predicted_share(network, target_images)
    began = time.perf_counter()
    for index in track(settings.steps, run, show=progress):
        labelled = batch(
            source, seed, index, settings.source_batch, stream=_SOURCE, augmentation=augmentation
        )
        unlabelled = None
        if method.uses_target:
            unlabelled = batch(target, seed, index, settings.target_batch, stream=_TARGET)
        step = Step(
            network, labelled, unlabelled, index, settings.steps, settings.round_of(index),
            settings.starts_round(index), seed, settings.full_resolution, target_images,
        )  # fmt: skip
        done = method(step)
        _minimise(optimiser, done.losses, history, index, _poly(settings, index))
        method.after(network)
        _report(step, done, history, observe)
    method.end(network)
    history.seconds = time.perf_counter() - began
    return Trained(network, history, method)
