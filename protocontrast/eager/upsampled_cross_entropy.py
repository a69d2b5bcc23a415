"""Cross-entropy of bilinearly upsampled logits, which are never whole in memory: (M16).

Each tile of output rows is blended, becomes its softmax in place, then its gradient, and is blended
back to the logits' own size while it is in cache.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from protocontrast.calls import UpsampledCall
from protocontrast.eager.exponentials import SMALLEST_EXPONENT
from protocontrast.eager.resampling import Chunk, Upsampling
from protocontrast.eager.tiles import accumulation_dtype, holds_nonfinite


class _Weights(NamedTuple):
    """What a pixel's loss counts: its log-sum-exp, its own logit, and, smoothed, every logit."""

    whole: Tensor
    own: Tensor
    even: Tensor | None

    def times(self, grad_output: Tensor) -> "_Weights":
        """Multiplied by the gradients of the pixels' losses."""
        return _Weights(*(None if one is None else one * grad_output for one in self))  # type: ignore[arg-type]


class _Targets:
    """Class and weight of each pixel, taken from the labels a few rows at a time."""

    def __init__(self, call: UpsampledCall) -> None:
        self.dtype = accumulation_dtype(call.logits)
        self.labels = call.labels
        self.class_weight = None if call.class_weight is None else call.class_weight.to(self.dtype)
        self.num_classes = call.logits.shape[1]
        self.ignore_index = call.ignore_index
        self.label_smoothing = call.label_smoothing

    def labelled(self, image: int, rows: slice) -> Tensor:
        """1 where a pixel has a label, else 0, (rows, W)."""
        return (self.labels[image, rows] != self.ignore_index).to(self.dtype)

    def all_weights(self, there: Tensor | None) -> tuple[Tensor | float, Tensor | int]:
        """The classes' weights in all and their number, of each pixel that lacks some."""
        if there is not None:
            weight = 1 if self.class_weight is None else self.class_weight[:, None]
            return (there * weight).sum(dim=1), there.sum(dim=1).clamp_min_(1)
        return (
            self.num_classes if self.class_weight is None else self.class_weight.sum(),
            self.num_classes,
        )

    def over_classes(self, logits: Tensor, absent: Tensor | None) -> Tensor:
        """sum_c v_c z_c of logits (rows, C, W)."""
        if self.class_weight is not None:
            weight = self.class_weight[:, None]
            logits = torch.where(weight == 0, 0, logits * weight)
        return (logits if absent is None else torch.where(absent, 0, logits)).sum(dim=1)

    def evenly(self, even: Tensor, absent: Tensor | None) -> Tensor:
        """even v_c of every class, to be broadcast against (rows, C, W)."""
        even = even[:, None]
        if self.class_weight is not None:
            even = even * self.class_weight[:, None]
        return even if absent is None else torch.where(absent, 0, even)

    def rows(self, image: int, rows: slice) -> tuple[Tensor, Tensor]:
        """Classes and weights (rows, W); a weight is exactly 0 where the pixel is ignored."""
        labels = self.labels[image, rows]
        valid = labels != self.ignore_index
        index = labels.clamp(0, self.num_classes - 1).long()
        weight = valid.to(self.dtype)
        if self.class_weight is not None:
            weight = torch.where(valid, self.class_weight[index], 0)
        if labels.device.type != "cpu":
            # A value that is no class was refused on CPU; here it must not pass for one.
            wrong = valid & ((labels < 0) | (labels >= self.num_classes))
            weight = torch.where(wrong, torch.nan, weight)
        return index, weight


class _Stretched(NamedTuple):
    """Some rows of an image, as wide as the labels, and how they are blended."""

    image: int
    chunk: Chunk
    wide: Tensor
    upsampling: Upsampling

    def blended(self) -> list[Tensor]:
        """The logits of each tile."""
        return [self.upsampling.blend(self.wide, tile) for tile in self.chunk.tiles]


def _without_absent(weight: Tensor, index: Tensor, rows: _Stretched) -> Tensor:
    """Weights (rows, W), 0 where the logit of the pixel's own class is -inf."""
    pairs = zip(rows.blended(), rows.chunk.tiles, strict=True)
    own = [tile.gather(1, index[where.outputs, None])[:, 0] for tile, where in pairs]
    return torch.where(torch.cat(own) == -torch.inf, 0, weight)


def _smoothed(
    weight: Tensor, index: Tensor, targets: _Targets, rows: _Stretched, gathers: bool
) -> _Weights:
    """(M16) from the weights v_y of pixels; a class whose logit is -inf is none of a pixel's."""
    labelled = targets.labelled(rows.image, rows.chunk.outputs)
    everything, count = targets.all_weights(None)
    if gathers:
        labelled = _without_absent(labelled, index, rows)
        found = [targets.all_weights(tile != -torch.inf) for tile in rows.blended()]
        everything, count = (torch.cat(parts) for parts in zip(*found, strict=True))
    even = labelled * targets.label_smoothing / count
    own = weight * (1 - targets.label_smoothing)
    return _Weights(own + even * everything, own, even)


def _sweep(
    call: UpsampledCall,
    each: Tensor | None = None,
    grad_output: Tensor | None = None,
    gradient: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Summed loss and summed weight, each ().

    Also the loss of every pixel, written to `each` (B, H, W), and the gradient of the logits, added
    to `gradient` (B, C, h, w), from that of the losses, 1 if not given.
    """
    logits, labels = call.logits, call.labels
    dtype = accumulation_dtype(logits)
    images, channels, height, width = logits.shape
    size = labels.shape[1], labels.shape[2]
    given = [value for value in (logits, call.class_weight, grad_output) if value is not None]
    gathers = any(holds_nonfinite(value) for value in given)
    shape = channels, height, width
    upsampling = Upsampling(shape, size, call.align_corners, dtype, logits.device, gathers)
    targets = _Targets(call)
    losses, masses = [], []
    for image in range(images):
        for chunk in upsampling.chunks:
            block = logits[image, :, chunk.inputs].transpose(0, 1).to(dtype)
            deep = True
            if not gathers:
                # Blended like the logits, their peaks are above every blend of logits.
                block = block - block.amax(dim=1, keepdim=True)
                deep = float(block.amin()) < SMALLEST_EXPONENT[dtype]
            wide = upsampling.stretch(block)
            total = None if gradient is None else upsampling.nothing(wide)
            index, weight = targets.rows(image, chunk.outputs)
            stretched = _Stretched(image, chunk, wide, upsampling)
            if gathers:
                weight = _without_absent(weight, index, stretched)
            masses.append(weight.sum())
            weights = _Weights(weight, weight, None)
            if call.label_smoothing:
                weights = _smoothed(weight, index, targets, stretched, gathers)
            back = weights
            if grad_output is not None:
                back = weights.times(grad_output[image, chunk.outputs])
            weight, factor, own_factor = weights.whole, back.whole, -back.own
            if gathers:
                # What comes back to an ignored pixel may be anything, and so may what a pixel reads
                # to which nothing comes back: neither has a gradient.
                unasked = (weight == 0) | (factor == 0)
                factor = torch.where(unasked, 0, factor)
                own_factor = torch.where(unasked, 0, own_factor)
            picked, mass = torch.empty_like(weight), torch.empty_like(weight)
            spread = weight if weights.even is None else torch.empty_like(weight)
            for tile in chunk.tiles:
                rows = tile.outputs
                own = index[rows, None]
                scores = upsampling.blend(wide, tile)
                if deep:
                    scores.sub_(scores.amax(dim=1, keepdim=True))
                torch.gather(scores, 1, own, out=picked[rows, None])
                if weights.even is not None:
                    absent = scores == -torch.inf if gathers else None
                    spread[rows] = targets.over_classes(scores, absent)
                torch.sum(scores.exp_(), dim=1, out=mass[rows])
                if total is None:
                    continue
                scores.mul_((factor[rows] / mass[rows])[:, None])
                scores.scatter_add_(1, own, own_factor[rows, None])
                if back.even is not None:
                    scores.sub_(targets.evenly(back.even[rows], absent))
                if gathers:
                    scores = torch.where(unasked[rows, None], 0, scores)
                upsampling.blend_back(scores, total, tile)
            loss = mass.log_()
            if weights.even is None:
                loss.sub_(picked).mul_(weight)
            else:
                loss.mul_(weight).sub_(picked.mul_(weights.own)).sub_(spread.mul_(weights.even))
            if gathers:
                loss = torch.where(weight == 0, 0, loss)
            if each is not None:
                each[image, chunk.outputs] = loss
            losses.append(loss.sum())
            if gradient is not None and total is not None:
                given_back = upsampling.shrink(total, width).transpose(0, 1)
                gradient[image, :, chunk.inputs].add_(given_back)
    zero = logits.new_zeros((), dtype=dtype)
    if not losses:
        return zero, zero.clone()
    return torch.stack(losses).sum(), torch.stack(masses).sum()


def upsampled_cross_entropy(call: UpsampledCall) -> tuple[Tensor, Tensor]:
    """Loss of every pixel (B, H, W), and the sum of their weights ()."""
    dtype = accumulation_dtype(call.logits)
    each = torch.empty(call.labels.shape, dtype=dtype, device=call.logits.device)
    _, mass = _sweep(call, each)
    return each, mass


def upsampled_cross_entropy_backward(
    grad_output: Tensor, call: UpsampledCall, wants: tuple[bool]
) -> Tensor:
    """The gradient of the logits from that of the losses; the logits are upsampled again."""
    gradient = torch.zeros_like(call.logits, dtype=accumulation_dtype(call.logits))
    _sweep(call, grad_output=grad_output, gradient=gradient)
    return gradient.to(call.logits.dtype)


def upsampled_cross_entropy_with_gradient(
    call: UpsampledCall, mean: bool, wants: tuple[bool]
) -> tuple[Tensor, Tensor]:
    """The summed or averaged loss () and its gradient, which stays in the accumulation dtype.

    So a factor that backward brings reaches it before it is rounded.
    """
    gradient = torch.zeros_like(call.logits, dtype=accumulation_dtype(call.logits))
    loss, mass = _sweep(call, gradient=gradient)
    if not mean:
        return loss, gradient
    # What is smoothed may count where nothing weighs.
    empty, mass = mass == 0, torch.where(mass == 0, 1, mass)
    if call.label_smoothing:
        loss, mass = torch.where(empty, 0, loss), torch.where(empty, torch.inf, mass)
    return loss / mass, gradient.div_(mass)
