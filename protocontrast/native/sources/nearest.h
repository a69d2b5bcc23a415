/* The nearest prototype of each pixel of a tile, how near it is, and whether near enough. */
#ifndef NEAREST_H
#define NEAREST_H

#include "functions.h"
#include "prototypes.h"

struct nearest {
    const struct prototypes *prototypes;
    int confidence;
    real *threshold; /* (rows,) */
};

/* What a tile's pixels are nearest to, rows of the prototypes, and the measure of it. */
struct found {
    word row[TILE];
    real value[TILE];
};

/* The first of the largest logits of a vector of pixels.

   Logits of equal prototypes are equal to the bit, so no rounding breaks a tie. */
ALWAYS_INLINE void find_row(const struct nearest *s, const struct tile *t, const real *logits,
                            int n, struct found *to) {
    const int64_t rows = s->prototypes->rows;
    const vec inverse = load(t->inverse + n);
    vec peak = load(logits + n) * inverse, whole = {0};
    mask first = {0};
    for (int64_t c = 1; c < rows; c++) {
        const vec logit = load(logits + c * TILE + n) * inverse;
        const mask better = logit > peak;
        peak = choose(better, logit, peak);
        first = (first & ~better) | (((mask){0} + (word)c) & better);
    }
    memcpy(to->row + n, &first, sizeof first);
    if (s->confidence) {
        for (int64_t c = 0; c < rows; c++)
            whole += exponential(below_peak(load(logits + c * TILE + n) * inverse, peak));
        peak = every(1) / whole;
    }
    store(to->value + n, peak);
}

/* Of a tile that has been scored. A pixel without a length is near to nothing. */
static inline void find_nearest(const struct nearest *s, const struct tile *t, const real *logits,
                                const real *squared, struct found *to) {
    memset(to, 0, sizeof *to);
    if (s->prototypes->rows > 0)
        for (int n = 0; n / PANEL * PANEL < t->count; n += LANES) find_row(s, t, logits, n, to);
    for (int64_t n = 0; n < t->count; n++)
        if (squared[n] != squared[n]) to->value[n] = (real)NAN;
}

/* The class of a pixel; -1 where its prototype is not near enough. */
ALWAYS_INLINE int32_t class_found(const struct nearest *s, const struct found *f, int64_t n) {
    const int kept = s->prototypes->rows > 0 && f->value[n] >= s->threshold[f->row[n]];
    return kept ? s->prototypes->class_of[f->row[n]] : -1;
}

/* Thresholds (classes,) in place of the one number, where they are given; -1: no memory. */
static int prepare_nearest(struct nearest *s, const struct prototypes *p, int confidence,
                           double threshold, const struct array *of_classes) {
    *s = (struct nearest){p, confidence, aligned_memory(p->rows * (int64_t)sizeof(real))};
    if (!s->threshold) return -1;
    for (int64_t row = 0; row < p->rows; row++) {
        s->threshold[row] = (real)threshold;
        if (of_classes && of_classes->data)
            widen(of_classes, p->class_of[row] * of_classes->strides[0], 1, 1, s->threshold + row);
    }
    return 0;
}

#endif
