"""Bi-Mix (Yang et al., arXiv 2111.10339): from labelled days to nights, by way of day partners."""

from collections.abc import Sequence
from functools import partial
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import protocontrast as pc
from reference.data.classes import IGNORE
from reference.method import Given, Losses, Method, Step
from reference.methods.dacs import half_mix
from reference.methods.heads import Adjusted, Discriminators, lengthened
from reference.methods.teachers import CONFIDENT
from reference.networks.output import Output, Segmenter, seeded
from reference.run.ranks import Ranks

STILL: Final = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign",
    "vegetation", "terrain", "sky",
)  # fmt: skip
"""Classes that stand still. Those of any other name are things, which may have moved away."""
BORDER: Final = "person"  # The one thing that is not pasted from day to night, as released.
_SURE: Final = 0.4
_TRUST: Final = 0.8
_EPSILON: Final = 1e-7
_WIDTH: Final = 16
_JUDGED: Final = 4  # Least side, cells, that the discriminators can read.
_LEARNING_RATE: Final = 1e-4
_POLY_POWER: Final = 0.9


class BiMix(Method):
    """CE(P_s, y_s) + R_s + F(P_n, y) + 0.01 (R_d + R_n + A) + 0.001 (CE(P_x, y_x) + |r_x' - r_d|).

    P: of relit images x + r, R: relighting, F: focal, A: LSGAN, y: from day and night, x: mixed.
    A night without a day partner is its own.

    Args:
        static_mix: leave things out of the night's part of y_mix, as the release does by an alias.
    """

    uses_partners = mixes_images = True
    weight: Tensor
    still: Tensor
    pasted: Tensor

    def __init__(self, given: Given, *, static_mix: bool = False) -> None:
        super().__init__()
        self.static_mix, names = static_mix, given.class_names
        self.register_buffer("weight", pc.frequency_weights(given.class_counts()).float())
        self.register_buffer("still", torch.tensor([name in STILL for name in names]))
        things = [name not in (*STILL, BORDER) for name in names]
        self.register_buffer("pasted", torch.tensor(things))
        self.relighting = Relighting(given.seed)
        with seeded(given.seed):
            judges = nn.ModuleList(_judge(given.num_classes) for _ in range(2))
        self.discriminators = Discriminators(judges, _LEARNING_RATE, (0.9, 0.99))

    def forward(self, step: Step) -> Losses:
        source, night = step.source.images, step.target_batch.images
        day = night if step.target_batch.partners is None else step.target_batch.partners
        lit = [self.relighting(images) for images in (source, day, night)]
        on_source = step.see(source + lit[0], "source").logits
        seen = step.see(torch.cat([day + lit[1], night + lit[2]]))
        on_day, on_night = seen.logits.chunk(2)
        with torch.no_grad():
            by_day, sure_day, sure = (
                step.upsampled(logits, night).softmax(dim=1)
                for logits in (step.see(day).logits, on_day, on_night)
            )
        labels = fused_labels(sure_day, sure, self.weight, self.still)
        known = torch.where(self.still[labels], labels, IGNORE) if self.static_mix else labels
        mix = half_mix(step, night, known)
        paste = partial(pc.class_mix, num_classes=step.network.num_classes)
        moved = paste(day, by_day.argmax(dim=1), night, labels, classes=self.pasted).images
        trust = torch.where(mix.mask, 1.0, pc.confident_share(sure, CONFIDENT))
        mixed = step.cross_entropy(step.see(mix.images).logits, mix.labels, pixel_weight=trust)
        lights = [
            relighting_loss(images, r, night.mean()).mean()
            for images, r in zip((source, day, night), lit, strict=True)
        ]
        outputs = (on_source, on_day, on_night)
        shown = [lengthened(logits.softmax(dim=1), _JUDGED) for logits in outputs]
        self.judge(shown, step.progress)
        focal = static_focal_loss(on_night, step.on_grid(labels, on_night), self.weight, self.still)
        terms = {
            "source_cross_entropy": step.source_loss(on_source, self.weight),
            "relighting": lights[0] + 0.01 * (lights[1] + lights[2]),
            "static_focal": focal,
            "adversarial": 0.01 * self.hidden(shown[1:]),
            "mixed_cross_entropy": 0.001 * mixed,
            "day_to_night": 0.001 * (self.relighting(moved) - lit[1]).abs().mean(),
        }
        return Losses(terms, Output(on_night, seen.features.chunk(2)[1]), labels)

    def hidden(self, others: Sequence[Tensor]) -> Tensor:
        """A = sum_k mean D_k(P_k)^2, of the probabilities (B, C, h, w) of day and night."""
        pairs = zip(self.discriminators.layers.children(), others, strict=True)
        return torch.stack([judge(shown).square().mean() for judge, shown in pairs]).sum()

    def judge(self, shown: Sequence[Tensor], progress: float) -> None:
        """Gather the discriminators' gradients of (mean D_k(P_s)^2 + mean (D_k(P_k) - 1)^2) / 2.

        Source: Mao et al., LSGAN, ICCV 2017; Adam with 1e-4 as Bi-Mix released.
        """
        for group in self.discriminators.optimiser.param_groups:
            group["lr"] = _LEARNING_RATE * (1 - progress) ** _POLY_POWER
        source, *others = (one.detach() for one in shown)
        with self.discriminators.learning():
            for judge, other in zip(self.discriminators.layers.children(), others, strict=True):
                wrong = judge(source).square().mean() + (judge(other) - 1).square().mean()
                (wrong / 2).backward()

    def after(self, network: Segmenter, ranks: Ranks) -> None:
        self.discriminators.move(ranks)

    def at_test(self, network: Segmenter) -> Segmenter:
        """Relight every image before the network sees it, as in training."""
        return Adjusted(network, before=self.relighting)


def _judge(num_classes: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(num_classes, _WIDTH, 4, stride=2, padding=1), nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(_WIDTH, 2 * _WIDTH, 4, stride=2, padding=1), nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(2 * _WIDTH, 1, 3, padding=1),
    )  # fmt: skip


def fused_labels(day: Tensor, night: Tensor, weight: Tensor, still: Tensor) -> Tensor:
    """y = argmax_c w_c q_c, q = t p_day + (1 - t) p_night for what is still, p_night for things.

    t is 0.8 where p_day > 0.4, else 0.2. Probabilities are (B, C, H, W), weight w and still (C,).

    Source: Wu et al., DANNet, CVPR 2021, arXiv 2104.10834, which Bi-Mix keeps; numbers as released.
    """
    trust = torch.where(day > _SURE, _TRUST, 1 - _TRUST) * still.view(-1, 1, 1)
    fused = trust * day + (1 - trust) * night
    return (weight.view(-1, 1, 1) * fused.detach()).argmax(dim=1)


def static_focal_loss(logits: Tensor, labels: Tensor, weight: Tensor, still: Tensor) -> Tensor:
    """Mean over pixels of what is still of -(1 - p) log p, p = max of w_c P_c over classes around.

    P is a softmax over the classes that stand still alone; a class is around a pixel where one of
    the 3 x 3 labels has it, because day and night do not match to the pixel. Things are no labels.

    0 without a label of what is still. Source: as `fused_labels`; the exponent of 1 - p is 1 there.
    """
    classes, moving = len(still), ~still.view(-1, 1, 1)
    labelled = (labels != IGNORE) & still[labels.masked_fill(labels == IGNORE, 0)]
    around = F.one_hot(torch.where(labelled, labels, classes), classes + 1)[..., :-1]
    around = F.max_pool2d(around.movedim(-1, 1).to(logits.dtype), 3, stride=1, padding=1)
    # Not -inf: a run may have no class that stands still.
    share = logits.masked_fill(moving, torch.finfo(logits.dtype).min).softmax(dim=1)
    right = (share * weight.view(-1, 1, 1) * around).amax(dim=1).clamp(_EPSILON, 1 - _EPSILON)
    each = -(1 - right) * right.log() * labelled
    return each.sum() / labelled.sum().clamp(min=1)


# The light of a scene changes over many pixels: it is estimated on a coarser grid.
_COARSE: Final = 4
_CURVES: Final = 2
_PATCH: Final = 2
_TV_WEIGHT: Final = 10.0
_SSIM_1: Final = 0.01**2
_SSIM_2: Final = 0.03**2


def _coarse(images: Tensor) -> Tensor:
    # Two cells a side, so that there are neighbours to compare and to mirror.
    return lengthened(F.avg_pool2d(images, _COARSE, ceil_mode=True), 2)


class Relighting(nn.Module):
    """r(x) = x_2 - x, x_0 = x, x_k = x_{k-1} + a (x_{k-1}^2 - x_{k-1}), a in (-1, 1) per pixel.

    Images in [0, 1] stay there; a < 0 brightens. Its size, and 2 curves for 8, are own: the toy's
    network is small, and relighting should not cost more than it.

    Source: Li et al., Zero-DCE++, TPAMI 2021, arXiv 2103.00860: one coarser map of curves.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        with seeded(seed):
            self.curves = nn.Sequential(
                nn.Conv2d(3, _WIDTH, 3, padding=1), nn.ReLU(inplace=True),
                nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1), nn.ReLU(inplace=True),
                nn.Conv2d(_WIDTH, 3, 3, padding=1), nn.Tanh(),
            )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        curves, relit = self.curves(_coarse(images)), images
        curves = F.interpolate(curves, size=images.shape[-2:], mode="bilinear")
        for _ in range(_CURVES):
            relit = torch.lerp(relit, relit * relit, curves)
        return relit - images


def relighting_loss(images: Tensor, residual: Tensor, light: Tensor) -> Tensor:
    """10 TV(r) + (1 - SSIM(x + r, x)) / 2 + mean over patches of (mean(x + r) - light)^2, by image.

    All of it is taken on a grid of a quarter of the size, where the noise of images is averaged
    away; own, for speed. TV counts differences per pixel of the images.

    Args:
        images: x, (B, 3, H, W); `residual` r likewise.
        light: the brightness that relit images should have.

    Source: Wu et al., DANNet, CVPR 2021, arXiv 2104.10834, which Bi-Mix keeps.
    """
    seen, added = _coarse(images), _coarse(residual)
    relit = seen + added
    down, across = (added.diff(dim=d).square().mean(dim=(2, 3)).sum(dim=1) for d in (2, 3))
    variation = 2 * (down + across) / _COARSE**2
    patches = F.avg_pool2d(relit.mean(dim=1), _PATCH, ceil_mode=True)
    exposure = (patches - light).square().mean(dim=(1, 2))
    return _TV_WEIGHT * variation + _dissimilarity(relit, seen) + exposure


def _dissimilarity(x: Tensor, y: Tensor) -> Tensor:
    """(1 - SSIM) / 2 over windows of 3 x 3 pixels, within [0, 1]; borders are mirrored."""

    def means(maps: Tensor) -> Tensor:
        # Not torch's padding, whose backward a GPU cannot repeat.
        rows = torch.cat([maps[..., 1:2, :], maps, maps[..., -2:-1, :]], dim=-2)
        return F.avg_pool2d(torch.cat([rows[..., 1:2], rows, rows[..., -2:-1]], dim=-1), 3, 1)

    mean_x, mean_y = means(x), means(y)
    spread = means(x * x) - mean_x**2 + means(y * y) - mean_y**2
    together = means(x * y) - mean_x * mean_y
    above = (2 * mean_x * mean_y + _SSIM_1) * (2 * together + _SSIM_2)
    below = (mean_x**2 + mean_y**2 + _SSIM_1) * (spread + _SSIM_2)
    return ((1 - above / below) / 2).clamp(0, 1).mean(dim=(1, 2, 3))
