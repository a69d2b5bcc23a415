/* Bilinear upsampling along an axis: which inputs an output reads, and rows of them. */
#ifndef BILINEAR_H
#define BILINEAR_H

#include "variant.h"

/* Which input each output reads, and the share of the next one; where that is 0, it is not read. */
struct axis {
    int32_t *lower;
    real *share;
};

static inline void fill_axis(struct axis *to, int64_t inputs, int64_t outputs, int aligned) {
    const double half = aligned ? 0 : 0.5;
    const double step = !aligned      ? (double)inputs / (double)outputs
                        : outputs > 1 ? (double)(inputs - 1) / (double)(outputs - 1)
                                      : 0;
    for (int64_t i = 0; i < outputs; i++) {
        /* Rounded before half is taken off: a share that is 0 elsewhere is 0 here, too. */
        volatile double scaled = ((double)i + half) * step;
        const double source = scaled > half ? scaled - half : 0;
        int64_t lower = (int64_t)source < inputs - 1 ? (int64_t)source : inputs - 1;
        real share = lower < inputs - 1 ? (real)(source - (double)lower) : 0;
        if (share >= 1) lower++, share = 0;
        to->lower[i] = (int32_t)lower;
        to->share[i] = share;
    }
}

static inline void blend_rows(real *to, const real *lower, const real *upper, real share,
                              int64_t count) {
    for (int64_t i = 0; i < count; i += LANES)
        store(to + i, (1 - share) * load(lower + i) + share * load(upper + i));
}

#endif
