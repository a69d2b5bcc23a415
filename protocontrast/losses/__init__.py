"""Losses as modules: settings stored, the function of the same name called."""

from protocontrast.losses.contrast import BidirectionalContrastLoss, PixelPrototypeContrastLoss
from protocontrast.losses.upsampled_cross_entropy import UpsampledCrossEntropyLoss

__all__ = ["BidirectionalContrastLoss", "PixelPrototypeContrastLoss", "UpsampledCrossEntropyLoss"]
