"""Balanced assignment of pixels to prototypes: `sinkhorn`."""

import torch
from torch import Tensor

from protocontrast.checks import check_count, check_like, check_masses, check_positive, public
from protocontrast.functional.class_scores import read_scores
from protocontrast.ops.backend import full_precision, readable
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


@public
@torch.no_grad()
def sinkhorn(
    scores: Tensor,
    prior: Tensor | None = None,
    *,
    epsilon: float = 0.05,
    iterations: int = 3,
    pixel_weight: Tensor | None = None,
) -> Tensor:
    """Share every pixel among the prototypes so that each prototype gets its part of the pixels.

    From Q = exp(scores / epsilon), `iterations` times: columns are scaled to the prior, sum_i w_i
    Q_ic = prior_c, then rows to one, sum_c Q_ic = 1. All in logarithms, so that no score overflows.

    Args:
        scores: similarity of every pixel to every prototype, such as `prototype_logits` at
            temperature 1; -inf where a pixel may not go.
        prior: share of the pixels that each prototype is to get, >= 0, in any scale; a prototype of
            share 0 gets nothing, and without any other no pixel takes part. None: equal shares.
        epsilon: > 0; the smaller, the nearer to a hard assignment.
        iterations: >= 1. Rows always sum to one; columns come nearer to the prior with each.
        pixel_weight: w_i, any floating dtype. A pixel of weight 0 takes no part.

    Shape:
        scores (B, C, Z, H, W), (B, C, H, W), (B, C, P) or (N, C); prior (C,); pixel_weight (B, Z,
        H, W), (B, H, W), (B, P) or (N,). Result like `scores`: all pixels are balanced together, on
        each rank alone.

    Returns:
        Soft labels, float32 (float64 for float64 scores), without gradient; 0 for pixels that take
        no part. One NaN score spoils all pixels, which share the columns.

    Raises:
        ValueError: shapes, devices or settings disagree. Or a share is below 0 or infinite, which
            is looked for on a CPU alone; elsewhere, and in a compiled program, it gives NaN.
        TypeError: a wrong dtype.

    Source:
        Cuturi, NeurIPS 2013, arXiv 1306.0895; the prior as in Li et al., CVPR 2022, arXiv
        2203.09744; (P7) of docs/parts.md.

    Example:
        >>> import torch
        >>> scores = torch.tensor([[0.3, 0.0], [0.2, 0.0], [0.1, 0.0], [0.0, 0.0]])
        >>> shares = sinkhorn(scores, iterations=20)
        >>> shares.argmax(dim=1).tolist(), [round(part, 3) for part in shares.sum(dim=0).tolist()]
        ([0, 0, 1, 1], [2.0, 2.0])
    """
    read = read_scores("scores", scores, pixel_weight, "none")
    check_positive("epsilon", epsilon)
    check_count("iterations", iterations)
    columns = read.values.new_ones(read.pixels.channels)
    if prior is not None:
        check_like("prior", prior, (read.pixels.channels,), "= (C,)", scores, "scores")
        if readable(prior):
            check_masses("prior", prior)
        columns = prior.to(read.values.dtype)
    rows = read.values.transpose(1, 2).flatten(0, 1)
    weight = read.weight.flatten()
    together = torch.zeros_like(weight, dtype=torch.int64)
    # Their sum may be larger than any number, or 0.
    log_prior = columns.log()
    scale = log_prior.logsumexp(dim=0)
    log_prior = log_prior - torch.where(scale == -torch.inf, 0, scale)
    plan = balanced(rows / float(epsilon), weight.log(), log_prior, together, 1, iterations)
    shares = torch.where(weight[:, None] != 0, plan.exp(), 0)
    if scores.dim() == 2:
        return shares
    return shares.unflatten(0, read.weight.shape).transpose(1, 2).reshape(scores.shape)
