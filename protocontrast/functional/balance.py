"""Scaling a plan of pixels and prototypes in turns, which `sinkhorn` and sub-classes share."""

import torch
from torch import Tensor

from protocontrast.ops.backend import full_precision
from protocontrast.ops.reduction import product


def balanced(
    logits: Tensor,
    log_weight: Tensor,
    log_prior: Tensor | float,
    group: Tensor,
    num_groups: int,
    iterations: int,
) -> Tensor:
    """Logarithms of the plan after scaling columns to a prior, then rows to one, in turns.

    Columns are scaled within each group of pixels on its own.

    Args:
        logits: similarities over epsilon; -inf where a pixel may not go.
        log_weight: of pixels in the sums of the columns; -inf for one that takes no part.
        log_prior: of the columns, (M,), or one number.
        group: which of the G groups a pixel belongs to, int64.
        num_groups: G.
        iterations: >= 1.

    Shape:
        logits (N, M), log_weight and group (N,). Result (N, M), 0 for pixels without part.
    """
    takes_part = (log_weight != -torch.inf)[:, None]
    member = torch.arange(num_groups, device=group.device)[:, None] == group
    into = group[:, None].expand_as(logits)
    lowest = logits.new_full((num_groups, logits.shape[1]), -torch.inf)
    plan = torch.where(takes_part, logits, 0)
    for _ in range(iterations):
        weighed = plan + log_weight[:, None]
        peak = lowest.scatter_reduce(0, into, weighed, "amax")
        peak = torch.where(torch.isfinite(peak), peak, 0)
        # Sums over the pixels of a group as a product, whose order is fixed on every device.
        with full_precision(logits):
            mass = product(member.to(logits.dtype), (weighed - peak[group]).exp())
        # A column without any pixel stays empty; -inf less -inf would be NaN.
        total = peak + torch.where(mass == 0, 1, mass).log()
        plan = plan + log_prior - total[group]
        reached = plan.logsumexp(dim=1, keepdim=True)
        plan = plan - torch.where(reached == -torch.inf, 0, reached)
        plan = torch.where(takes_part, plan, 0)
    return plan
