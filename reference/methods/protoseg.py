"""ProtoSeg (Zhou et al., CVPR 2022): ten prototypes per class in place of a classifier."""

from typing import Final

import torch
from torch import Tensor, nn

import protocontrast as pc
from reference.data.classes import IGNORE
from reference.method import Given, Losses, Method, Start, Step
from reference.methods.heads import Adjusted
from reference.methods.teachers import MOMENTUM, agreeing, grid_labels
from reference.networks.output import Output, Segmenter

EACH: Final = 10  # Prototypes per class; published.


class PrototypeHead(nn.Module):
    """z_c = LayerNorm_c(max_m cos(f, p_cm)) in the place of a network's logits."""

    def __init__(self, num_classes: int, dim: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        rows = num_classes * EACH
        self.bank = pc.PrototypeBank(rows, dim, momentum=MOMENTUM, normalize="prototypes")
        self.norm = nn.LayerNorm(num_classes)

    def forward(self, output: Output) -> Output:
        # A copy, since the bank moves before the gradient is taken.
        rows, features = self.bank.prototypes.clone(), output.features
        cosines = pc.prototype_logits(features, rows, temperature=1.0)
        nearest = pc.subclass_max(cosines, self.num_classes).to(self.norm.weight.dtype)
        return Output(self.norm(nearest.movedim(1, -1)).movedim(-1, 1), features)

    def assigned(self, features: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
        """Prototypes (C M, D) of pixels of labels (B, h, w), in equal shares within each class."""
        return pc.assign_subclasses(features, labels, rows.unflatten(0, (self.num_classes, -1)))

    def means(self, features: Tensor, nearest: Tensor) -> pc.ClassPrototypes:
        """Mean unit features by prototype."""
        return pc.class_prototypes(features, nearest, self.bank.num_classes, normalize=True)


class ProtoSeg(Method):
    """L = CE(z, y) + 0.01 L(f -> p_m) + 0.001 mean (1 - cos(f, p_m))^2, on the source alone.

    p_m is the prototype that a pixel is assigned to, in equal shares within its class; the contrast
    runs over all of them without a temperature. It moves towards the mean direction of its rightly
    predicted pixels; at first it is theirs over the whole source, shared out by random directions.
    The network's own classifier is neither trained nor used.

    Source: Zhou et al., ProtoSeg, CVPR 2022, arXiv 2203.15102.
    """

    uses_target = False

    def __init__(self, given: Given) -> None:
        super().__init__()
        self.seed = given.seed
        self.head = PrototypeHead(given.num_classes, given.dim)

    @torch.no_grad()
    def begin(self, start: Start) -> None:
        head, bank = self.head, self.head.bank
        random = torch.Generator().manual_seed(self.seed)
        size = bank.num_classes, bank.dim
        rows = torch.randn(size, generator=random, device="cpu").to(bank.prototypes)
        for batch in start.source():
            seen = start.see(batch.images, "source")
            right = agreeing(grid_labels(batch, seen.logits), seen.logits)
            bank.accumulate(head.means(seen.features, head.assigned(seen.features, right, rows)))
        bank.commit()
        bank.update_from(pc.ClassPrototypes(rows, (~bank.present).float()))

    def forward(self, step: Step) -> Losses:
        head, bank = self.head, self.head.bank
        logits, features = head(step.see(step.source.images, "source"))
        labels, rows = step.on_grid(step.source_labels, features), bank.prototypes.clone()
        nearest = head.assigned(features, labels, rows)
        contrast = pc.pixel_prototype_contrast(features, nearest, rows, temperature=1.0)
        terms = {
            "source_cross_entropy": step.source_loss(logits),
            "prototype_contrast": 0.01 * contrast,
            "prototype_pull": 0.001 * pc.prototype_pull(features, nearest, rows),
        }
        right = torch.where(logits.argmax(dim=1) == labels, nearest, IGNORE)
        means = head.means(features.detach(), right)
        bank.update_from(means._replace(mean=bank.on_scale(means.mean)))
        return Losses(terms)

    def at_test(self, network: Segmenter) -> Segmenter:
        return Adjusted(network, after=self.head)
