"""Relighting: a small network that gives images of every hour one light, and its loss."""

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reference.methods.heads import seeded

_WIDTH: Final = 16
# The light of a scene changes over many pixels: it is estimated on a coarser grid.
_COARSE: Final = 4
_CURVES: Final = 2
_PATCH: Final = 2
_TV_WEIGHT: Final = 10.0
_SSIM_1: Final = 0.01**2
_SSIM_2: Final = 0.03**2


def _coarse(images: Tensor) -> Tensor:
    return F.avg_pool2d(images, _COARSE, ceil_mode=True)


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
        images: x, (B, 3, H, W), sides above 4; `residual` r likewise.
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
