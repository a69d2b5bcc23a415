"""Losses as modules: settings stored, the function of the same name called."""

from protocontrast.losses.contrast import BidirectionalContrastLoss, PixelPrototypeContrastLoss
from protocontrast.losses.pair_contrast import PairContrastLoss
from protocontrast.losses.upsampled_cross_entropy import UpsampledCrossEntropyLoss

__all__ = [
    "BidirectionalContrastLoss",
    "PairContrastLoss",
    "PixelPrototypeContrastLoss",
    "UpsampledCrossEntropyLoss",
]
