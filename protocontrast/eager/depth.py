"""Volumes (B, C, z, h, w) stretched along their depth, and the transpose: (M16).

Linear in depth, then bilinear in each slice, is trilinear. A slice is read by its index alone: a
weight of 0 stands for "not read", which a product with it does not where a number is not finite.
"""

from torch import Tensor

from protocontrast.calls import StretchCall
from protocontrast.eager.tiles import accumulation_dtype


def reads(inputs: int, outputs: int, align_corners: bool) -> list[tuple[int, int, float]]:
    """The lower slice, the upper one and its share, of each output slice.

    As `torch.nn.functional.interpolate` has it, in float64.
    """
    half = 0.0 if align_corners else 0.5
    step = (inputs - 1) / max(outputs - 1, 1) if align_corners else inputs / outputs
    found = []
    for position in range(outputs):
        source = max((position + half) * step - half, 0.0)
        lower = min(int(source), inputs - 1)
        upper = min(lower + 1, inputs - 1)
        found.append((lower, upper, source - lower if upper > lower else 0.0))
    return found


def stretched_depth(call: StretchCall) -> Tensor:
    """(B, C, z, h, w) as slices (B, depth, C, h, w), in the accumulation dtype."""
    logits, depth = call.logits, call.depth
    images, channels, slices, height, width = logits.shape
    shape = images, depth, channels, height, width
    out = logits.new_empty(shape, dtype=accumulation_dtype(logits))
    for place, (lower, upper, share) in enumerate(reads(slices, depth, call.align_corners)):
        into = out[:, place].copy_(logits[:, :, lower])
        if share > 0:
            into.mul_(1 - share).add_(logits[:, :, upper].to(out.dtype), alpha=share)
    return out


def stretched_depth_backward(grad_output: Tensor, call: StretchCall, wants: tuple[bool]) -> Tensor:
    """The gradient of the logits from that of the slices, summed in their order."""
    total = grad_output.new_zeros(call.logits.shape)
    slices = reads(call.logits.shape[2], call.depth, call.align_corners)
    for place, (lower, upper, share) in enumerate(slices):
        total[:, :, lower].add_(grad_output[:, place], alpha=1 - share)
        if share > 0:
            total[:, :, upper].add_(grad_output[:, place], alpha=share)
    return total.to(call.logits.dtype)
