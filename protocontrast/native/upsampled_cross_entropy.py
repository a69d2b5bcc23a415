"""Cross-entropy of bilinearly upsampled logits, which are never whole in memory: (M16), in C.

The functions of `eager/upsampled_cross_entropy.py`.
"""

import torch
from torch import Tensor

from protocontrast.calls import UpsampledCall, accumulation_dtype
from protocontrast.native.calls import UpsampledCrossEntropy, arrays
from protocontrast.native.library import machine, run


def _sweep(
    call: UpsampledCall,
    *,
    loss: Tensor | None = None,
    grad_output: Tensor | None = None,
    gradient: Tensor | None = None,
) -> Tensor:
    """Summed loss and summed weight (2,); `loss` is written, `gradient` added to where given."""
    logits = call.logits.resolve_neg()
    # C is told how far apart rows are: an array has three strides.
    given = arrays(
        *(logits[:, :, 0], call.labels, call.class_weight, grad_output),
        None if gradient is None else gradient[:, :, 0],
    )
    totals = logits.new_zeros(2, dtype=accumulation_dtype(logits))
    run(
        "upsampled_cross_entropy",
        UpsampledCrossEntropy(
            machine(logits.dtype == torch.float64),
            *logits.shape,
            *call.labels.shape[1:],
            *given,
            logits.stride(2),
            0 if gradient is None else gradient.stride(2),
            None if loss is None else loss.data_ptr(),
            totals.data_ptr(),
            call.align_corners,
            call.ignore_index,
            call.label_smoothing,
        ),
    )
    return totals


def upsampled_cross_entropy(call: UpsampledCall) -> tuple[Tensor, Tensor]:
    """Loss of every pixel (B, H, W), and the sum of their weights ()."""
    loss = call.logits.new_empty(call.labels.shape, dtype=accumulation_dtype(call.logits))
    return loss, _sweep(call, loss=loss)[1].clone()


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
    """The summed or averaged loss () and its gradient, which stays in the accumulation dtype."""
    gradient = torch.zeros_like(call.logits, dtype=accumulation_dtype(call.logits))
    loss, mass = _sweep(call, gradient=gradient).unbind()
    return call.averaged(loss, mass, gradient) if mean else (loss.clone(), gradient)
