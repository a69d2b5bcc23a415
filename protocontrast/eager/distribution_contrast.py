"""Contrast with class distributions: (D3) for `distribution_contrast`, and its gradient.

The squares of a tile serve the bonus of the variance and the pixels' lengths in one product.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from protocontrast.calls import DistributionCall, accumulation_dtype
from protocontrast.eager.lengths import are_safe, inverse_of, sizes
from protocontrast.eager.products import add_product, product
from protocontrast.eager.similarity import Similarity
from protocontrast.eager.targets import Targets
from protocontrast.eager.tiles import Tile, holds_nonfinite, tiles, widened, without


class _Scored(NamedTuple):
    """A tile (D, n), scores (C, n), bonus (C, n), and inverse lengths (1, n) or None.

    The scores are f.mu / tau, the bonus is the variance's part of the logits. The squares are those
    of the tile over `size` (1, n), as is the tile itself where there are lengths; None: 1.
    """

    block: Tensor
    squares: Tensor
    scores: Tensor
    bonus: Tensor
    inverse: Tensor | None
    size: Tensor | None


class _Gradients(NamedTuple):
    """Where gradients are summed or written; empty where not wanted."""

    features: Tensor | None
    matrix: Tensor | None
    spread: Tensor | None


class _Distribution:
    """Means and variances made ready for one call: temperature folded in, absent rows unread."""

    def __init__(self, call: DistributionCall) -> None:
        dtype, temperature = accumulation_dtype(call.features), call.temperature
        self.features = call.features
        self.means = Similarity(call.prototypes, call.present, "dot", temperature, False, dtype)
        self.targets = Targets(call, self.means, False)
        self.normalize = call.normalize
        self.halved = 1 / (2 * temperature * temperature)
        self.variance_dtype = call.variance.dtype
        rows = torch.where(self.means.present[:, None], call.variance, 0).to(dtype) * self.halved
        # The last row sums the squares: the length, in the same product.
        self.spread = torch.cat([rows, torch.ones_like(rows[:1])])
        self.transposed = self.spread[:-1].t().contiguous()

    def score(self, tile: Tile, weight: Tensor) -> _Scored:
        """Scores of a tile; a pixel of weight 0 that holds NaN or infinity is read as 0."""
        scored = self._score(widened(self.features, tile))
        if holds_nonfinite(scored.scores) or holds_nonfinite(scored.bonus):
            block = widened(self.features, tile)
            scored = self._score(without(block, tile.of(weight) == 0))
        return scored

    def _score(self, block: Tensor) -> _Scored:
        squares = block * block
        bonus, size = product(self.spread, squares), None
        if not are_safe(bonus[-1:], block):
            size = sizes(block, 0)
            small = block / size
            squares = small * small
            bonus = product(self.spread, squares)
            block = small if self.normalize else block
        scores = product(self.means.matrix, block)
        if self.normalize:
            inverse = inverse_of(bonus[-1:])
            bonus = bonus[:-1].mul_(inverse).mul_(inverse)
            return _Scored(block, squares, scores.mul_(inverse), bonus, inverse, size)
        bonus = bonus[:-1] if size is None else bonus[:-1].mul_(size).mul_(size)
        return _Scored(block, squares, scores, bonus, None, size)

    def pull_back(
        self, scored: _Scored, grad_logits: Tensor, grad_scores: Tensor, tile: Tile, to: _Gradients
    ) -> None:
        """Send the gradients of logits and scores, both (C, n), overwritten, on.

        With q = f / |f|: dL/dq = M' dL/dscores + 2 q (V' dL/dlogits), and
        dL/df = (dL/dq - q (q . dL/dq)) / |f|.
        """
        radial = None
        if scored.inverse is not None:
            if to.features is not None:
                radial = (grad_scores * scored.scores).sum(dim=0, keepdim=True)
                radial.add_((grad_logits * scored.bonus).sum(dim=0, keepdim=True), alpha=2)
                radial.mul_(scored.inverse).mul_(scored.inverse)
            grad_scores.mul_(scored.inverse)
            grad_logits.mul_(scored.inverse).mul_(scored.inverse)
        if to.features is not None:
            factor = (self.transposed @ grad_logits).mul_(2)
            if radial is not None:
                factor.sub_(radial)
            whole = torch.addmm(factor.mul_(scored.block), self.means.transposed, grad_scores)
            if scored.inverse is not None and scored.size is not None:
                whole.div_(scored.size)
            tile.of(to.features).copy_(whole)
        if to.matrix is not None:
            add_product(to.matrix, grad_scores, scored.block)
        if to.spread is not None:
            if scored.inverse is None and scored.size is not None:
                grad_logits.mul_(scored.size).mul_(scored.size)
            add_product(to.spread, grad_logits, scored.squares)

    def gradients(self, wanted: tuple[bool, bool, bool]) -> _Gradients:
        """Room for what is wanted."""
        return _Gradients(
            torch.empty_like(self.features) if wanted[0] else None,
            torch.zeros_like(self.means.matrix) if wanted[1] else None,
            torch.zeros_like(self.means.matrix) if wanted[2] else None,
        )

    def finish(self, sums: _Gradients) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of features, prototypes and variance; empty where not wanted."""
        empty = self.features.new_empty
        to_features = empty(0) if sums.features is None else sums.features
        to_prototypes = empty(0, dtype=self.means.original_dtype)
        if sums.matrix is not None:
            to_prototypes = self.means.finish(sums.matrix)
        to_variance = empty(0, dtype=self.variance_dtype)
        if sums.spread is not None:
            present = self.means.present[:, None]
            to_variance = torch.where(present, sums.spread * self.halved, 0).to(self.variance_dtype)
        return to_features, to_prototypes, to_variance


def distribution_contrast(call: DistributionCall) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, weight and log-sum-exp of every pixel, each (B, P); the last is +inf where ignored."""
    given = _Distribution(call)
    targets = given.targets
    loss, lse = torch.zeros_like(targets.weight), torch.zeros_like(targets.weight)
    for tile in tiles(call.features):
        scored = given.score(tile, targets.weight)
        total = given.means.with_offset(scored.scores + scored.bonus).logsumexp(dim=0)
        weight = tile.of(targets.weight)
        target_logit = targets.target_logit(tile, scored.scores)
        tile.of(loss).copy_(torch.where(weight == 0, 0, weight * total - target_logit))
        # An ignored pixel has no softmax, whatever its features hold.
        tile.of(lse).copy_(torch.where(weight == 0, torch.inf, total))
    return loss, targets.weight, lse


def distribution_contrast_backward(
    grad_output: Tensor, call: DistributionCall, wants: tuple[bool, bool, bool], lse: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of features, prototypes and variance from those of the losses (B, P)."""
    given = _Distribution(call)
    targets, sums = given.targets, given.gradients(wants)
    # What comes back to an ignored pixel may be anything, and a pixel to which nothing comes back
    # may hold anything: neither has a gradient.
    asked = torch.where(grad_output == 0, 0, targets.weight)
    for tile in tiles(call.features):
        scored = given.score(tile, asked)
        weight = tile.of(targets.weight)
        unasked = tile.of(asked) == 0
        factor = torch.where(unasked, 0, tile.of(grad_output))
        total = torch.where(unasked, torch.inf, tile.of(lse))
        grad_logits = given.means.softmax(scored.scores + scored.bonus, total)
        grad_logits.mul_(weight * factor)
        grad_scores = grad_logits.clone()
        targets.subtract(tile, grad_scores, factor)
        given.pull_back(scored, grad_logits, grad_scores, tile, sums)
    return given.finish(sums)


def distribution_contrast_with_gradient(
    call: DistributionCall, mean: bool, wants: tuple[bool, bool, bool]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The summed or averaged loss () and its gradients, from one read of the features."""
    given = _Distribution(call)
    targets, sums = given.targets, given.gradients(wants)
    if mean:
        targets.average()
    losses = []
    for tile in tiles(call.features):
        scored = given.score(tile, targets.weight)
        weight = tile.of(targets.weight)
        logits = scored.scores + scored.bonus
        total = given.means.with_offset(logits).logsumexp(dim=0)
        target_logit = targets.target_logit(tile, scored.scores)
        losses.append(torch.where(weight == 0, 0, weight * total - target_logit).sum())
        grad_logits = given.means.softmax(logits, total).mul_(weight)
        grad_scores = grad_logits.clone()
        targets.subtract(tile, grad_scores, None)
        given.pull_back(scored, grad_logits, grad_scores, tile, sums)
    loss = torch.stack(losses).sum() if losses else targets.weight.new_zeros(())
    return loss, *given.finish(sums)
