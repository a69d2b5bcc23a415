"""Both directions of a contrast between batches in one call of C.

The functions of `eager/bidirectional.py`.
"""

import torch
from torch import Tensor

from protocontrast.calls import BidirectionalCall, accumulation_dtype
from protocontrast.native.calls import Bidirectional, Domain, arrays
from protocontrast.native.library import machine, run
from protocontrast.native.rescale import rescale


def bidirectional_with_gradient(
    call: BidirectionalCall, wants: tuple[bool, bool]
) -> tuple[list[Tensor], list[tuple[Tensor, Tensor]]]:
    """The losses of moving source and target pixels, and for both domains their gradient (B, D, P).

    What all pixels of a class have in common, (G, C, D), is still to be added to it.
    """
    domains = call.source, call.target
    features = call.source.features
    groups = features.shape[0] if call.pairwise else 1
    shape = groups, call.num_classes, features.shape[1]
    losses, written = [], []
    for domain, wanted in zip(domains, wants, strict=True):
        dtype = accumulation_dtype(domain.features)
        losses.append(features.new_zeros((), dtype=dtype))
        own = torch.empty_like(domain.features) if wanted else features.new_empty(0)
        written.append((own, features.new_zeros(shape if wanted else 0, dtype=dtype)))
    given = [arrays(*domain, own) for domain, (own, _) in zip(domains, written, strict=True)]
    sides = zip(domains, given, written, losses, wants, strict=True)
    run(
        "bidirectional",
        Bidirectional(
            machine(features.dtype == torch.float64),
            features.shape[1],
            call.num_classes,
            tuple(
                Domain(
                    domain.features.shape[0],
                    domain.features.shape[2],
                    *tensors,
                    share.data_ptr() if wanted else None,
                    loss.data_ptr(),
                )
                for domain, tensors, (_, share), loss, wanted in sides
            ),
            tuple(domain.targets.is_floating_point() for domain in domains),
            call.keep_absent,
            call.pairwise,
            call.whole_class,
            call.ignore_index,
            call.temperature,
        ),
    )
    return losses, written


def add_shares(
    written: tuple[Tensor, Tensor],
    labels: Tensor,
    ignore_index: int,
    factor: float,
    share_factor: float,
) -> Tensor:
    """factor * own + share_factor * the share of each pixel's class, in place in one pass."""
    gradient, share = written
    factors = share.new_full((share.shape[1] + 1,), factor)
    rescale(gradient, labels, factors, ignore_index, share, share_factor)
    return gradient
