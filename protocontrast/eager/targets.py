"""Hard labels, soft targets and weights as one thing: a weight per pixel and class."""

import torch
from torch import Tensor

from protocontrast.calls import ContrastCall, DistributionCall
from protocontrast.eager.products import total_of
from protocontrast.eager.similarity import Similarity
from protocontrast.eager.tiles import Tile


class Targets:
    """What each pixel is pulled to: (M3) one-hot labels or (M5) soft targets, times the weights.

    `weight` (B, P) is w_i sum_c t_ic cw_c, exactly 0 where the pixel is ignored.
    """

    def __init__(
        self,
        call: ContrastCall | DistributionCall,
        similarity: Similarity,
        keep_absent: bool,
    ) -> None:
        labels, pixel_weight = call.labels, call.pixel_weight
        dtype = similarity.matrix.dtype
        class_weight = torch.ones_like(similarity.matrix[:, 0])
        if call.class_weight is not None:
            class_weight = call.class_weight.to(dtype)
        if not keep_absent:
            class_weight = torch.where(similarity.present, class_weight, 0)
        self.class_weight = class_weight
        self.pixel_weight = None if pixel_weight is None else pixel_weight.to(dtype)
        self.whole: Tensor | None = None
        self.soft = labels if labels.is_floating_point() else None
        if self.soft is not None:
            self.index = labels[:, :0]
            self.weight = torch.empty(
                labels.shape[0], labels.shape[2], dtype=dtype, device=labels.device
            )
            for image in range(len(labels)):
                whole = Tile(image, 0, labels.shape[2])
                self.weight[image] = self.target_weight(whole).sum(dim=0)
            return
        num_classes = len(class_weight)
        valid = labels != call.ignore_index
        index = torch.where(valid, labels, 0).long()
        weight = class_weight[index.clamp(0, num_classes - 1)]
        if pixel_weight is not None:
            weight = torch.where(weight == 0, 0, weight * pixel_weight.to(dtype))
        if labels.device.type != "cpu":
            # A value that is no class was refused on CPU; here it must not pass for one.
            weight = torch.where((index < 0) | (index >= num_classes), torch.nan, weight)
            index = index.clamp(0, num_classes - 1)
        self.index = index
        self.weight = torch.where(valid, weight, 0)

    def average(self) -> None:
        """Divide every weight by the sum of them all; without any they stay 0."""
        whole = total_of(self.weight)
        # Not times one over it, which is infinite where the sum is as small as a float can be.
        whole = torch.where(whole == 0, 1, whole)
        self.weight = self.weight / whole
        self.whole = whole

    def target_weight(self, tile: Tile) -> Tensor:
        """Soft targets of a tile times class and pixel weights, (C, n); 0 wins over NaN."""
        if self.soft is None:
            raise RuntimeError("target_weight is defined for soft targets only")
        class_weight = self.class_weight[:, None]
        soft = tile.of(self.soft).to(class_weight.dtype)
        weights = torch.where((class_weight == 0) | (soft == 0), 0, soft * class_weight)
        if self.pixel_weight is not None:
            weight = tile.of(self.pixel_weight)
            weights = torch.where((weight == 0) | (weights == 0), 0, weights * weight)
        return weights if self.whole is None else weights.div_(self.whole)

    def target_logit(self, tile: Tile, logits: Tensor) -> Tensor:
        """sum_c w_ic z_ic of the target weights, (n,)."""
        if self.soft is None:
            return logits.gather(0, tile.of(self.index)[None])[0] * tile.of(self.weight)
        return (self.target_weight(tile) * logits).sum(dim=0)

    def subtract(self, tile: Tile, grad_logits: Tensor, factor: Tensor | None) -> None:
        """grad_logits -= target weights (times a factor per pixel), in place."""
        if self.soft is None:
            weight = tile.of(self.weight)
            weight = -weight if factor is None else -weight * factor
            grad_logits.scatter_add_(0, tile.of(self.index)[None], weight[None])
        else:
            weights = self.target_weight(tile)
            grad_logits.sub_(weights if factor is None else weights * factor)
