"""Cross-entropy of bilinearly upsampled logits, which are never whole in memory: (M16).

Each tile of output rows is blended, becomes its softmax in place, then its gradient, and is blended
back to the logits' own size while it is in cache.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from protocontrast.calls import UpsampledCall, accumulation_dtype
from protocontrast.eager.products import total_of
from protocontrast.eager.resampling import Upsampling
from protocontrast.eager.tiles import holds_nonfinite


class _Weights(NamedTuple):
    """What a pixel's loss counts: its log-sum-exp and its own logit, (n, W).

    Smoothed, also every logit, (n, C, W).
    """

    whole: Tensor
    own: Tensor
    even: Tensor | None

    def times(self, grad_output: Tensor) -> "_Weights":
        """Multiplied by the gradients of the pixels' losses."""
        even = None if self.even is None else self.even * grad_output[:, None]
        return _Weights(self.whole * grad_output, self.own * grad_output, even)


def _read_labels(
    call: UpsampledCall, labels: Tensor, scores: Tensor
) -> tuple[Tensor, Tensor, _Weights]:
    """Classes and their weights v_y (n, W) of the pixels of a tile, and what follows from these.

    A weight is exactly 0 where the pixel is ignored, and where the logit of its class is -inf.
    """
    index = labels.clamp(0, scores.shape[1] - 1).long()
    valid = labels != call.ignore_index
    valid &= scores.gather(1, index[:, None])[:, 0] != -torch.inf
    weight, share = valid.to(scores.dtype), None
    if call.class_weight is not None:
        share = call.class_weight.to(scores.dtype)
        weight = torch.where(valid, share[index], 0)
    if labels.device.type != "cpu":
        # A value that is no class was refused on CPU; here it must not pass for one.
        wrong = (labels != call.ignore_index) & ((labels < 0) | (labels >= scores.shape[1]))
        weight = torch.where(wrong, torch.nan, weight)
    if not call.label_smoothing:
        return index, weight, _Weights(weight, weight, None)
    there = scores != -torch.inf
    even = valid.to(scores.dtype) * call.label_smoothing / there.sum(dim=1).clamp_min_(1)
    every = even[:, None] * (there if share is None else share[:, None])
    if share is not None:
        # 0 times a weight that is not finite is NaN.
        every.masked_fill_(~(there & valid[:, None]), 0)
    own = weight * (1 - call.label_smoothing)
    return index, weight, _Weights(own + every.sum(dim=1), own, every)


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
    given = logits, call.class_weight, grad_output
    finite = not any(one is not None and holds_nonfinite(one) for one in given)
    size = labels.shape[1], labels.shape[2]
    upsampling = Upsampling(logits, size, call.align_corners, finite)
    losses, masses = [logits.new_zeros((), dtype=dtype)], [logits.new_zeros((), dtype=dtype)]
    for image in range(len(logits)):
        for chunk in upsampling.chunks:
            block = logits[image, :, chunk.inputs].transpose(0, 1).to(dtype)
            wide = upsampling.stretch(block)
            total = torch.zeros_like(wide)
            for tile in chunk.tiles:
                rows = tile.outputs
                scores = upsampling.blend(wide, tile)
                index, weight, weights = _read_labels(call, labels[image, rows], scores)
                masses.append(total_of(weight))
                scores.sub_(scores.amax(dim=1, keepdim=True))
                loss = -weights.own * scores.gather(1, index[:, None])[:, 0]
                if weights.even is not None:
                    every = weights.even
                    loss -= torch.where(every == 0, 0, every * scores).sum(dim=1)
                mass = scores.exp_().sum(dim=1)
                loss = torch.where(weights.whole == 0, 0, loss + weights.whole * mass.log())
                losses.append(total_of(loss))
                if each is not None:
                    each[image, rows] = loss
                if gradient is None:
                    continue
                unasked = weights.whole == 0
                if grad_output is not None:
                    weights = weights.times(grad_output[image, rows])
                    unasked |= weights.whole == 0
                scores.mul_((weights.whole / mass)[:, None])
                scores.scatter_add_(1, index[:, None], -weights.own[:, None])
                if weights.even is not None:
                    scores.sub_(weights.even)
                if not finite:
                    # What comes back to an ignored pixel may be anything, and so may what a pixel
                    # reads to which nothing comes back: neither has a gradient.
                    scores.masked_fill_(unasked[:, None], 0)
                upsampling.blend_back(scores, total, tile)
            if gradient is not None:
                gradient[image, :, chunk.inputs].add_(upsampling.shrink(total).transpose(0, 1))
    return total_of(torch.stack(losses)), total_of(torch.stack(masses))


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
    return call.averaged(loss, mass, gradient) if mean else (loss, gradient)
