"""The step of `BiCL` written a second time, slowly, in float64 and without the package.

One loop per class and image, cross-entropy at the labels' own resolution on nearest-upsampled
scores, autograd for every gradient. The order of the step is the order of `HandBiCL.step`.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, interpolate

IGNORED = 255


class Settings(NamedTuple):
    """The arguments of `BiCL`, with this suite's own defaults."""

    temperature: float = 0.2
    threshold: float = 0.55
    measure: str = "confidence"
    momentum: float = 0.7
    bias_momentum: float = 0.6
    bias_warmup: str = "zero"
    normalize: bool | str = False
    prototypes: str = "bank"
    bank_update: str = "before"
    pairwise: bool = False
    calibrate: bool = True
    absent: str = "mask"
    weights: tuple[float, float] = (1.0, 1.0)
    balance: str = "pixel"


class Step(NamedTuple):
    """What a step returns, in the order of `BiCLOutput`."""

    loss: Tensor
    target_to_source: Tensor
    source_to_target: Tensor
    target_labels: Tensor
    coverage: Tensor
    class_share: Tensor


def at_grid(labels: Tensor, features: Tensor) -> Tensor:
    size = features.shape[2:]
    return interpolate(labels[:, None].double(), size=size, mode="nearest")[:, 0].long()


def hybrid(static: Tensor, moved: Tensor) -> Tensor:
    """Given labels (B, H, W); cells of the grid without any get their transferred label (B, h, w).

    Every pixel of such a cell gets it.
    """
    cells = torch.arange(moved[0].numel(), dtype=torch.float32).reshape(1, 1, *moved.shape[1:])
    cell_of = interpolate(cells, size=static.shape[1:], mode="nearest")[0, 0].long()
    filled = static.clone()
    for image, labels, own in zip(filled, static, moved.flatten(1), strict=True):
        for cell, label in enumerate(own.tolist()):
            inside = cell_of == cell
            if bool((labels[inside] == IGNORED).all()):
                image[inside] = label
    return filled


def class_means(features: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Means (C, D), 0 where absent, and presence (C,), over all images given."""
    pixels = features.permute(0, 2, 3, 1).reshape(-1, features.shape[1])
    means, present = [], []
    for c in range(classes):
        chosen = pixels[labels.flatten() == c]
        present.append(len(chosen) > 0)
        means.append(chosen.mean(dim=0) if len(chosen) else torch.zeros_like(pixels[0]))
    return torch.stack(means), torch.tensor(present)


def cosines(features: Tensor, prototypes: Tensor) -> Tensor:
    """(B, C, h, w)."""
    rows = [cosine_similarity(features, p[None, :, None, None], dim=1) for p in prototypes]
    return torch.stack(rows, dim=1)


def contrast(
    features: Tensor,
    labels: Tensor,
    prototypes: Tensor,
    present: Tensor,
    shared: Tensor,
    settings: Settings,
) -> Tensor:
    """Mean cross-entropy over the pixels of shared classes, at the resolution of the labels.

    Or over the classes, each a mean over its pixels, one of n < 20 of them counting n / 20.
    """
    scores = cosines(features, prototypes)
    absent = -1.0 if settings.absent == "floor" else -torch.inf
    scores = torch.where(present[:, None, None], scores, absent) / settings.temperature
    scores = interpolate(scores, size=labels.shape[1:], mode="nearest")
    lost: list[list[Tensor]] = [[] for _ in shared]
    logs = torch.log_softmax(scores.masked_fill(~present.any(), 0.0), dim=1)
    for b, row, column in torch.cartesian_prod(*[torch.arange(n) for n in labels.shape]).tolist():
        label = int(labels[b, row, column])
        if label != IGNORED and bool(shared[label]):
            lost[label].append(-logs[b, label, row, column])
    classes = [torch.stack(losses) for losses in lost if losses]
    nothing = [features.sum() * 0]
    if settings.balance == "pixel":
        return torch.cat(classes).mean() if classes else nothing[0]
    shares = [min(len(losses) / 20, 1) for losses in classes]
    means = [share * losses.mean() for share, losses in zip(shares, classes, strict=True)]
    return torch.stack(means or nothing).sum() / (sum(shares) or 1)


class Bank:
    """A moving average of class means."""

    def __init__(self, classes: int, dim: int, settings: Settings) -> None:
        self.settings = settings
        self.prototypes = torch.zeros(classes, dim, dtype=torch.float64)
        self.present = torch.zeros(classes, dtype=torch.bool)

    def update(self, means: Tensor, present: Tensor) -> None:
        m = self.settings.momentum
        for c in range(len(present)):
            if not present[c]:
                continue
            old = self.prototypes[c]
            new = m * old + (1 - m) * means[c] if self.present[c] else means[c]
            self.prototypes[c] = self.scaled(new)
            self.present[c] = True

    def scaled(self, row: Tensor) -> Tensor:
        return row / row.norm() if self.settings.normalize == "prototypes" else row


class HandBiCL:
    """State and step."""

    def __init__(self, classes: int, dim: int, settings: Settings) -> None:
        self.classes = classes
        self.settings = settings
        self.source, self.target = Bank(classes, dim, settings), Bank(classes, dim, settings)
        self.bias = torch.zeros(classes, dim, dtype=torch.float64)
        self.biased = torch.zeros(classes, dtype=torch.bool)

    def batch_means(self, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        features = features.detach()
        if self.settings.normalize == "features":
            features = features / features.norm(dim=1, keepdim=True)
        return class_means(features, labels, self.classes)

    def remember_source(self, features: Tensor, grid: Tensor) -> None:
        self.source.update(*self.batch_means(features, grid))

    def remember_target(self, features: Tensor, labels: Tensor) -> None:
        means, present = self.batch_means(features, labels)
        self.target.update(means, present)
        m = self.settings.bias_momentum
        for c in range(self.classes):
            if not (present[c] and self.source.present[c]):
                continue
            difference = self.target.scaled(means[c]) - self.source.prototypes[c]
            if self.settings.bias_warmup == "copy" and not self.biased[c]:
                self.bias[c] = difference
            else:
                self.bias[c] = m * self.bias[c] + (1 - m) * difference
            self.biased[c] = True

    def pseudo_labels(self, features: Tensor, static: Tensor | None) -> tuple[Tensor, Tensor]:
        """On the grid, and as target pixels are pulled to them."""
        settings = self.settings
        prototypes = self.source.prototypes + (self.bias if settings.calibrate else 0)
        present = self.source.present
        scores = cosines(features.detach(), prototypes)
        scores = torch.where(present[:, None, None], scores, -torch.inf)
        nearest = scores.argmax(dim=1)
        value = scores.amax(dim=1)
        if settings.measure == "confidence":
            value = torch.softmax(scores / settings.temperature, dim=1).amax(dim=1)
        kept = (value >= settings.threshold) & present.any()
        labels = torch.where(kept, nearest, IGNORED)
        if static is None:
            return labels, labels
        grid = at_grid(static, features)
        return torch.where(grid != IGNORED, grid, labels), hybrid(static, labels)

    def contrasts(
        self,
        source: Tensor,
        source_labels: Tensor,
        target: Tensor,
        target_labels: Tensor,
        pulled_to: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Target to source and source to target, for one set of prototypes."""
        settings = self.settings
        grid = at_grid(source_labels, source)
        if settings.prototypes == "bank":
            of_source = self.source.prototypes.clone(), self.source.present.clone()
            of_target = self.target.prototypes.clone(), self.target.present.clone()
        else:
            of_source = class_means(source, grid, self.classes)
            of_target = class_means(target, target_labels, self.classes)
        shared = of_source[1] & of_target[1]
        return (
            contrast(target, pulled_to, *of_source, shared, settings),
            contrast(source, source_labels, *of_target, shared, settings),
        )

    def step(
        self,
        source: Tensor,
        source_labels: Tensor,
        target: Tensor,
        static: Tensor | None,
        update: bool = True,
    ) -> Step:
        settings = self.settings
        before = update and settings.bank_update == "before"
        grid = at_grid(source_labels, source)
        if before:
            self.remember_source(source, grid)
        labels, pulled_to = self.pseudo_labels(target, static)
        if before:
            self.remember_target(target, labels)
        images = [slice(None)]
        if settings.pairwise:
            images = [slice(b, b + 1) for b in range(len(source))]
        pairs = [
            self.contrasts(source[i], source_labels[i], target[i], labels[i], pulled_to[i])
            for i in images
        ]
        to_source, to_target = (torch.stack(terms).mean() for terms in zip(*pairs, strict=True))
        if update and not before:
            self.remember_source(source, grid)
            self.remember_target(target, labels)
        loss = settings.weights[0] * to_source + settings.weights[1] * to_target
        return Step(loss, to_source, to_target, labels, *self.shares(grid, labels))

    def shares(self, grid: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        coverage = (labels != IGNORED).double().mean()
        share = torch.zeros(self.classes, dtype=torch.float64)
        for c in range(self.classes):
            in_source = int((grid == c).sum()) / max(int((grid != IGNORED).sum()), 1)
            in_target = int((labels == c).sum()) / max(int((labels != IGNORED).sum()), 1)
            share[c] = in_target / in_source if in_source else 0
        return coverage, share
