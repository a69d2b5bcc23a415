"""Scores of a tile against all prototypes, and the way back: (M2) and its gradient."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from protocontrast.eager.lengths import SAFE_EXPONENT, Lengths, inverse_of, lengths, sizes
from protocontrast.eager.products import add_product, product

NEVER = -1e30
"""Added to masked classes' logits: never a pixel's largest, and 0 * NEVER is not NaN."""

SMALLEST_EXPONENT = {torch.float32: -60.0, torch.float64: -600.0}
"""Beside exp(0), exp of this is nothing; times a weight it is still a normal number."""


def exp_of_differences_(exponents: Tensor) -> Tensor:
    """exp in place, of logits less their peak or log-sum-exp; what is next to 0 may stay above it.

    exp of what underflows, of -inf too, and products of denormal numbers take many times as long
    on a CPU as all others.
    """
    return exponents.clamp_min_(SMALLEST_EXPONENT[exponents.dtype]).exp_()


def distances(rows: Tensor, others: Tensor) -> Tensor:
    """Distances (C, n) between rows (C, D) and others (n, D)."""
    # Differences, not |f|^2 + |p|^2 - 2 f.p, which has no digit left near distance zero.
    exact = "donot_use_mm_for_euclid_dist"
    if rows.device.type == "cpu" and rows.numel() and others.numel():
        found = torch.cdist(rows, others, compute_mode=exact)
        limit = 2.0 ** (SAFE_EXPONENT[found.dtype] / 2)
        low, high = (float(one) for one in torch.aminmax(found))
        if 1 / limit <= low and high <= limit:
            return found
    return torch.stack([_from_one(row, others) for row in rows])


def _from_one(row: Tensor, others: Tensor) -> Tensor:
    """Distances (n,) of others (n, D) from one row (D,), also where squares leave their range."""
    gaps = others - row
    size = sizes(gaps, 1)
    return gaps.div_(size).square_().sum(dim=1).sqrt_().mul_(size[:, 0])


class Scored(NamedTuple):
    """Logits (C, n) before the absent classes' offset, and the tile they are of.

    Under cosine that tile stands over its pixels' sizes, with lengths to match.
    """

    logits: Tensor
    pixels: Lengths


class Similarity:
    """Prototypes made ready for one call: unit length and 1/tau folded in, absent rows unread."""

    def __init__(
        self,
        prototypes: Tensor,
        present: Tensor | None,
        kind: str,
        temperature: float | Tensor,
        keep_absent: bool,
        dtype: torch.dtype,
    ) -> None:
        self.kind = kind
        self.temperature = temperature
        self.original_dtype = prototypes.dtype
        if present is None:
            everywhere = torch.ones_like(prototypes[:, 0], dtype=torch.bool)
            present = (prototypes != 0).any(dim=1) if kind == "cosine" else everywhere
        self.present = present
        rows = torch.where(present[:, None], prototypes, 0).to(dtype)
        self.scale = torch.ones_like(rows[:, :1]) * (1 / temperature)
        self.sizes = torch.ones_like(self.scale)
        if kind == "cosine":
            self.sizes = sizes(rows, 1)
            rows = rows / self.sizes
            self.scale = inverse_of(rows.square().sum(dim=1, keepdim=True)) / temperature
        self.matrix = rows if kind == "euclidean" else rows * self.scale
        # masked_fill asks a device for a temperature that is there.
        absent = torch.ones_like(self.scale) * (-1 / temperature if keep_absent else NEVER)
        self.offset = torch.where(present[:, None], 0, absent)
        self.complete = prototypes.device.type == "cpu" and bool(present.all())
        self.transposed = self.matrix.t().contiguous()
        self.ones = torch.ones(1, rows.shape[1], dtype=dtype, device=rows.device)

    def scores(self, block: Tensor, matrix: Tensor | None = None) -> Scored:
        """Logits of a tile (D, n). Zero length: inverse length 0, so cosine 0 to everything.

        `matrix` stands in for this one's own, such as several that share the product.
        """
        plain = Lengths(block, self.ones[:, :0], None)
        if self.kind == "euclidean":
            distance = distances(self.matrix, block.t().contiguous())
            return Scored(distance.div_(-self.temperature), plain)
        matrix = self.matrix if matrix is None else matrix
        if self.kind == "dot":
            return Scored(product(matrix, block), plain)
        pixels = lengths(block)
        return Scored(product(matrix, pixels.block).mul_(pixels.inverse), pixels)

    def with_offset(self, logits: Tensor) -> Tensor:
        """Logits (C, n) in which absent classes stand at -1/tau or NEVER."""
        return logits if self.complete else logits + self.offset

    def exponentials(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """exp(z + offset - peak) of all classes (C, n), and the peak (n,)."""
        peak = self.with_offset(logits).amax(dim=0)
        return self.softmax(logits, peak), peak

    def softmax(self, logits: Tensor, lse: Tensor) -> Tensor:
        """exp(z + offset - lse) of all classes (C, n); next to 0 where that is +inf."""
        shares = exp_of_differences_(self.with_offset(logits) - lse)
        return shares if self.complete else shares.masked_fill_(self.offset == NEVER, 0)

    def first_of_equals(self) -> Tensor:
        """(C,) the lowest present class with the same row, so that rounding breaks no tie."""
        same = (torch.cdist(self.matrix, self.matrix, p=math.inf) == 0) & self.present
        return same.fill_diagonal_(True).to(self.matrix.dtype).argmax(dim=1)

    def pull_back(
        self, scored: Scored, slope: Tensor, into: Tensor | None, total: Tensor | None
    ) -> None:
        """Send dL/dlogits (C, n), overwritten here, to the tile's gradient and the matrix's sum.

        Cosine, z = M f / |f|, a = slope / |f|: dL/df = M' a - f (sum_c slope z) / |f|^2 and
        dL/dM += a f'. With f over its size both hold, but dL/df is that of the quotient.
        """
        block, inverse, size = scored.pixels
        if self.kind == "euclidean":
            self._pull_back_distance(block, scored, slope, into, total)
            return
        radial = None
        if self.kind == "cosine":
            if into is not None:
                radial = (slope * scored.logits).sum(dim=0, keepdim=True)
                radial.mul_(inverse).mul_(inverse)
            slope.mul_(inverse)
        if into is not None:
            target = into if into.dtype == block.dtype else torch.empty_like(block)
            torch.mm(self.transposed, slope, out=target)
            if radial is not None:
                target.addcmul_(block, radial, value=-1)
            if size is not None:
                target.div_(size)
            if target is not into:
                into.copy_(target)
        if total is not None:
            add_product(total, slope, block)

    def _pull_back_distance(
        self,
        block: Tensor,
        scored: Scored,
        slope: Tensor,
        into: Tensor | None,
        total: Tensor | None,
    ) -> None:
        """Euclidean, z = -d / tau: dL/df = sum_c slope_c (p_c - f) / (tau d_c), 0 where d_c = 0."""
        # Differences again: M' a - f sum_c a would cancel where a pixel is close to a prototype.
        rows = block.t().contiguous()
        distance = scored.logits * -self.temperature
        slope = slope.div_(-self.temperature)
        backward = torch.ops.aten._cdist_backward.default
        if into is not None:
            to_rows = backward(
                slope.t().contiguous(), rows, self.matrix, 2.0, distance.t().contiguous()
            )
            into.copy_(to_rows.t())
        if total is not None:
            total.add_(backward(slope.contiguous(), self.matrix, rows, 2.0, distance.contiguous()))

    def finish(self, total: Tensor) -> Tensor:
        """Gradient of the given prototypes from the summed dL/dM; absent rows get exactly 0."""
        if self.kind != "euclidean":
            total = total * self.scale
        if self.kind == "cosine":
            units = self.matrix * self.temperature
            total = (total - units * (units * total).sum(dim=1, keepdim=True)) / self.sizes
        rows = torch.where(self.present[:, None], total, 0).to(self.original_dtype)
        return rows.contiguous()
