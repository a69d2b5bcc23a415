"""Contrast of pixels and class distributions: (D3) for `distribution_contrast`, forward.

One read of the features, each tile of which is multiplied with the means and, squared, with the
variances. Its gradients are in distribution_contrast_backward.py.
"""

import triton
import triton.language as tl

from protocontrast.calls import DistributionCall
from protocontrast.kernels.contrast import (
    Statistics,
    empty_statistics,
    normaliser_of,
    pull_of,
    store_statistics,
)
from protocontrast.kernels.launch import Launch, run, tile_count
from protocontrast.kernels.meta import constants
from protocontrast.kernels.scores import classes_of
from protocontrast.kernels.spreads import breadth_of, parts_of, prepare_both, read_parts
from protocontrast.kernels.targets import targets_of
from protocontrast.kernels.tiles import map_of, own_tile


@triton.jit
def distribution_contrast_kernel(features, targets, both, statistics, meta: tl.constexpr):
    """One program per tile of BLOCK_P pixels of one image."""
    META: tl.constexpr = constants(meta)
    tile = own_tile(features, META)
    parts = read_parts(tile, both, META)
    classes, breadth = classes_of(both.means.table, META), breadth_of(both, META)
    scores, bonus, _ = parts_of(parts, classes.scale, breadth, tile, both, META)
    lse = normaliser_of(scores + bonus + classes.offset[None, :])
    # The positive has no bonus: it is pulled to the mean.
    pull, weight = pull_of(targets, tile, both.means.table, scores, META)
    store_statistics(statistics, tile, pull, weight, lse)


def distribution_contrast(call: DistributionCall) -> Statistics:
    """Loss, weight and log-sum-exp of every pixel."""
    features, statistics = call.features, empty_statistics(call.features)
    if statistics.loss.numel():
        both, meta, how = prepare_both("distribution_contrast", call)
        arguments = map_of(features), targets_of(call), both, statistics
        programs = len(features) * tile_count(features.shape[2], meta.BLOCK_P)
        run(Launch(distribution_contrast_kernel, programs, arguments, meta, how), features)
    return statistics
