"""Training: the source stage, adaptation with every ingredient switchable, and the oracle.

Interface for whoever runs experiments (`demo`, `ablate`):

    train_supervised(domain, settings, seed=..., run=...)             -> Trained
    adapt(network, source, target_images, settings, seed=..., ...)    -> Trained

`train_supervised` on the source is the source stage; on the target *with* labels it is the
oracle. `adapt` takes target images as a bare tensor, so no label can reach it; `settings` is one
of `config.ROWS`, `config.BICL` or `config.without(...)`. Both copy the network they are given.
A caller who owns target labels may pass `observe` to see each step's pseudo labels (for instance
`label_accuracy.PseudoLabelAccuracy`); nothing flows back.
"""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass

import torch
from torch import Tensor

import protocontrast as pc
from reference.data.arrays import ArrayDomain
from reference.data.transforms import Augmentation, Batch, batch, matching
from reference.networks.output import Output
from reference.networks.toy import SegmentationNetwork, build_network
from reference.progress import track
from reference.training.adapt_step import Stepped, adapt_step, build_bicl
from reference.training.alarms import class_share, predicted_share
from reference.training.config import Adaptation, Supervised
from reference.training.history import History, Observation, Observer
from reference.training.losses import cell_labels, require_finite, source_cross_entropy
from reference.training.pseudo_labels import static_pseudo_labels

# Streams of random numbers: one step draws from both domains.
_SOURCE, _TARGET = 0, 1


@dataclass(frozen=True)
class Trained:
    """The result of a run.

    Args:
        network: the trained network.
        history: its course.
        bicl: prototypes and bias at the end of an adaptation with contrast.
        static_labels: the last static pseudo labels, (N, H / 4, W / 4), uint8, 255 where none.
    """

    network: SegmentationNetwork
    history: History
    bicl: pc.BiCL | None = None
    static_labels: Tensor | None = None


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
    network: SegmentationNetwork, settings: Supervised | Adaptation
) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
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
    optimiser = _optimiser(network, settings)
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


def _report(
    step: int,
    done: Stepped,
    target: Output,
    unlabelled: Batch,
    fixed: Tensor | None,
    history: History,
    observe: Observer | None,
) -> None:
    predictions = target.logits.argmax(dim=1)
    if done.contrast is None:
        coverage, ratio, labels = None, None, None
    else:
        coverage, ratio = done.contrast.coverage, done.contrast.class_share
        labels = done.contrast.target_labels
    history.observe(step, predictions, coverage, ratio)
    if observe is not None:
        indices, flipped = unlabelled.indices, unlabelled.flipped
        observe(Observation(step, indices, flipped, predictions, labels, fixed))


def adapt(
    network: SegmentationNetwork,
    source: ArrayDomain,
    target_images: Tensor,
    settings: Adaptation,
    *,
    seed: int,
    augmentation: Augmentation | None = None,
    run: str = "bicl",
    observe: Observer | None = None,
    progress: bool = False,
) -> Trained:
    """Adapt a source-only network to target images.

    Args:
        network: the source-only network; it is copied.
        source: images with labels.
        target_images: images without labels; not touched if `settings.uses_target` is False.
        settings: which terms are active, with what weight, from which round.
        seed: of the batches.
        augmentation: changes the look of source images; None leaves them as they are.
        run: name for the history, the bar and error messages.
        observe: called after each step that looked at target images.
        progress: show bars.

    Shape:
        target_images (N, 3, H, W), uint8.

    Raises:
        NonFiniteLossError: a loss term became NaN or infinite.
    """
    network = copy.deepcopy(network)
    bicl = None
    if settings.contrast is not None:
        bicl = build_bicl(settings.contrast, network.feature_dim)
    optimiser = _optimiser(network, settings)
    history = History(run, source_share=class_share(cell_labels(source.labels)))
    target = ArrayDomain(target_images, None, tuple(map(str, range(len(target_images)))))
    if settings.uses_target:
        history.start_share = predicted_share(network, target_images)
    static: Tensor | None = None
    began = time.perf_counter()
    for step in track(settings.steps, run, show=progress):
        if settings.remakes_static_labels(step):
            static = static_pseudo_labels(network, target_images, share=settings.static_share)
        labelled = batch(
            source, seed, step, settings.source_batch, stream=_SOURCE, augmentation=augmentation
        )
        unlabelled, fixed = None, None
        if settings.uses_target:
            unlabelled = batch(target, seed, step, settings.target_batch, stream=_TARGET)
        if static is not None and unlabelled is not None:
            fixed = matching(static, unlabelled).long()
        done = adapt_step(
            network, bicl, labelled, unlabelled, fixed, settings, settings.round_of(step)
        )
        _minimise(optimiser, done.losses, history, step, _poly(settings, step))
        if done.target is not None and unlabelled is not None:
            _report(step, done, done.target, unlabelled, fixed, history, observe)
    history.seconds = time.perf_counter() - began
    return Trained(network, history, bicl, static)
