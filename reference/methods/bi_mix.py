"""Bi-Mix (Yang et al., arXiv 2111.10339): from labelled days to nights, by way of day partners."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

import protocontrast as pc
from reference.data.classes import NUM_CLASSES
from reference.data.transforms import matching, to_float
from reference.methods.dacs import at_image_size, cells, half_mix, weighted_cross_entropy
from reference.methods.discriminators import Discriminators
from reference.methods.relighting import Relighting, relighting_loss
from reference.methods.settings import CONFIDENT
from reference.methods.static_classes import PASTED, fused_labels, static_focal_loss, without_things
from reference.networks.output import Output
from reference.networks.toy import SegmentationNetwork
from reference.training.method import Method, Start, Step, Stepped

paste = partial(pc.class_mix, num_classes=NUM_CLASSES)


class BiMix(Method):
    """CE(P_s, y_s) + R_s + F(P_n, y) + 0.01 (R_d + R_n + A) + 0.001 (CE(P_x, y_x) + |r_x' - r_d|).

    P: of relit images x + r, R: relighting, F: focal, A: LSGAN, y: from day and night, x: mixed.
    `static_mix` leaves things out of the night's part of y_mix, as the release does by an alias.
    """

    def __init__(self, *, static_mix: bool = False) -> None:
        super().__init__()
        self.static_mix = static_mix

    def begin(self, start: Start) -> None:
        """Weigh the classes; make the relighting net, and discriminators of day and night."""
        if start.day_images is None or start.source.labels is None:
            raise ValueError("BiMix: expected day images, got None. Hint: take the target night.")
        self.day_images, labels = start.day_images, start.source.labels.flatten()
        self.weight = pc.frequency_weights(labels.bincount(minlength=NUM_CLASSES)[:NUM_CLASSES])
        self.relighting, self.discriminators = Relighting(start.seed), Discriminators(start.seed, 2)

    def trained(self) -> Iterator[torch.nn.Parameter]:
        """The relighting net; discriminators have an optimiser of their own."""
        return self.relighting.parameters()

    def forward(self, step: Step) -> Stepped:
        """Compute the terms of one step."""
        source, night = step.source.images, step.target_batch.images
        day = to_float(matching(self.day_images, step.target_batch))
        r = self.relighting(images := torch.cat([source, day, night]))
        seen = step.network(images + r)
        on_source, _, on_night = seen.logits.chunk(3)
        self.shown, self.progress = seen.logits.softmax(dim=1).chunk(3), step.progress
        labels = fused_labels(self.shown[1], self.shown[2], self.weight)
        known = at_image_size(without_things(labels) if self.static_mix else labels)
        mix = half_mix(step, night, known)
        by_day = step.network(day).logits.argmax(dim=1)
        moved = paste(day, at_image_size(by_day), night, known, classes=PASTED)
        weight = cells(torch.where(mix.mask, 1.0, pc.confident_share(self.shown[2], CONFIDENT)))
        mixed = step.network(mix.images).logits, cells(mix.labels), weight
        lights = relighting_loss(images, r, night.mean()).view(3, -1).mean(dim=1)
        losses = {
            "source_cross_entropy": step.source_loss(on_source, self.weight),
            "relighting": lights[0] + 0.01 * (lights[1] + lights[2]),
            "static_focal": static_focal_loss(on_night, labels, self.weight),
            "adversarial": 0.01 * self.discriminators(self.shown[1:]),
            "mixed_cross_entropy": 0.001 * weighted_cross_entropy(*mixed),
            "day_to_night": 0.001 * (self.relighting(moved.images) - r.chunk(3)[1]).abs().mean(),
        }
        return Stepped(losses, Output(on_night, seen.features.chunk(3)[2]), labels=labels)

    def after(self, network: SegmentationNetwork) -> None:
        """Move the discriminators."""
        self.discriminators.learn(self.shown[0], self.shown[1:], self.progress)

    def end(self, network: SegmentationNetwork) -> None:
        """Relight every image before the network sees it, as in training."""
        network.register_forward_pre_hook(lambda _, seen: seen[0] + self.relighting(seen[0]))
