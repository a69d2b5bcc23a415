/* Logits of a tile become losses and their gradient, for whatever operator has a contrast in it.
 *
 * z = M f / |f| (cosine), M f (dot) or -|f - p| / tau (euclidean, prototype_distances.h),
 * loss_i = w_i logsumexp z - sum_c t_ic z_c, and with a = (w_i softmax z - t_i) / |f|:
 * dL/df = M' a - f (sum_c a_c z_c) / |f|.
 */
#ifndef SOFTMAX_H
#define SOFTMAX_H

#include "functions.h"
#include "pull.h"
#include "targets.h"

/* exp of logits this large, and one over it, times the number of classes, are normal in float32. */
#define LARGEST_EXPONENT 60

struct softmax {
    const struct prototypes *prototypes;
    int soft;    /* targets, in place of labels */
    int bounded; /* exp of a logit needs no peak; that of one class alone has it, and is 1 */
};

static inline struct softmax softmax_of(const struct prototypes *p, int soft) {
    const int small = p->cosine && 1 / p->temperature <= LARGEST_EXPONENT;
    const int alone = (real)p->rows + p->absent == 1;
    return (struct softmax){p, soft, small && !alone};
}

/* A tile, and the numbers of each of its pixels. */
struct work {
    struct tile tile;
    struct masses masses;
    real loss[TILE], lse[TILE], radial[TILE];
    real *logits, *gradient, *columns, *distances;
};

static inline int64_t work_bytes(int64_t channels, int64_t rows) {
    return (int64_t)sizeof(struct work) + room_bytes(channels, rows);
}

static inline struct work *laid_out(const struct array *features, int64_t channels, int64_t rows,
                                    void *memory) {
    struct work *w = memory;
    const struct room room = give_room(&w->tile, features, channels, rows, w + 1);
    w->gradient = room.gradient, w->columns = room.columns;
    w->logits = room.logits, w->masses.soft = room.beside, w->distances = room.distances;
    return w;
}

/* sum_c t_ic (z_c - peak) of a vector of pixels with soft targets, but for what is at the floor. */
ALWAYS_INLINE vec soft_pull(const struct prototypes *p, const struct work *w, int n, vec peak,
                            const int bounded) {
    const vec zero = {0}, inverse = load(w->tile.inverse + n);
    vec sum = zero;
    for (int64_t c = 0; c < p->rows; c++) {
        const vec mass = load(w->masses.soft + c * TILE + n);
        const vec logit = load(w->logits + c * TILE + n) * inverse;
        sum += choose(mass == zero, zero, mass * (bounded ? logit : from_peak(logit, peak)));
    }
    return sum;
}

/* One vector of pixels: logits become a, and the loss, log-sum-exp and radial part are written.

   All of it by logits less the peak, so that a small loss of large logits keeps its digits. */
ALWAYS_INLINE void soften(const struct prototypes *p, struct work *w, int n, const int soft,
                          const int bounded) {
    const vec zero = {0}, inverse = load(w->tile.inverse + n), weight = load(w->masses.weight + n);
    const vec least = every(SMALLEST_EXPONENT), at_floor = load(w->masses.at_floor + n);
    vec peak = zero, floor = every(p->floor), with_exponent = zero, pulled = zero;
    mask label;
    memcpy(&label, w->masses.label + n, sizeof label);
    if (!bounded) {
        peak = every(p->absent > 0 ? p->floor : -(real)INFINITY);
        for (int64_t c = 0; c < p->rows; c++)
            peak = larger(load(w->logits + c * TILE + n) * inverse, peak);
        floor = floor - peak;
    }
    vec absent = zero;
    if (p->absent > 0) absent = p->absent * exponential(bounded ? floor : larger(floor, least));
    /* An infinite peak is no number to compare logits with: NaN, in the loss and every gradient. */
    vec sum = bounded ? absent : absent + (peak - peak);
    if (soft) pulled = soft_pull(p, w, n, peak, bounded);
    for (int64_t c = 0; c < p->rows; c++) {
        real *at = w->logits + c * TILE + n;
        const vec logit = load(at) * inverse;
        const vec exponent = bounded ? logit : below_peak(logit, peak);
        const vec term = exponential(exponent);
        sum += term;
        with_exponent += term * exponent;
        if (!soft) pulled = choose(label == (word)c, logit, pulled);
        store(at, term);
    }
    const mask ignored = weight == zero;
    const vec whole = logarithm(sum), share = every(1) / sum;
    const vec factor = choose(ignored, zero, weight * share);
    if (!soft) pulled = weight * choose(label < (mask){0}, zero, bounded ? pulled : pulled - peak);
    const vec with_floor = pulled + choose(at_floor == zero, zero, at_floor * floor);
    store(w->loss + n, choose(ignored, zero, weight * whole - with_floor));
    store(w->lse + n, choose(ignored, every((real)INFINITY), whole + peak));
    for (int64_t c = 0; c < p->rows; c++) {
        real *at = w->logits + c * TILE + n;
        vec mass;
        if (soft) mass = load(w->masses.soft + c * TILE + n);
        else mass = choose(label == (word)c, weight, zero);
        store(at, load(at) * (factor * inverse) - mass * inverse);
    }
    if (!p->cosine || p->rows == 0) {
        store(w->radial + n, zero);
        return;
    }
    const vec off = peak * (at_floor - factor * absent); /* sum_c a_c |f| is what is at the floor */
    const vec radial = (with_exponent * factor - pulled + off) * inverse * inverse;
    store(w->radial + n, choose(ignored, zero, radial));
}

/* The same of the tile. */
static inline void soften_tile(const struct softmax *s, struct work *w) {
    for (int n = 0; n / PANEL * PANEL < w->tile.count; n += LANES) {
        if (s->soft) {
            if (s->bounded) soften(s->prototypes, w, n, 1, 1);
            else soften(s->prototypes, w, n, 1, 0);
        } else {
            if (s->bounded) soften(s->prototypes, w, n, 0, 1);
            else soften(s->prototypes, w, n, 0, 0);
        }
    }
}

/* The gradient of the tile's features from a, which the logits have become. */
static inline void write_gradient(const struct prototypes *p, struct work *w,
                                  const struct array *gradient) {
    pull_features(p, &w->tile, w->logits, w->radial, gradient, w->gradient, w->columns);
}

/* 0 for every pixel. */
static inline void clear_gradient(struct work *w, const struct array *gradient) {
    memset(w->gradient, 0, sizeof(real) * (size_t)tile_numbers(w->tile.channels));
    w->tile.scaled = 0;
    write_tile(&w->tile, w->gradient, gradient, w->columns);
}

static inline int all_ignored(const struct masses *m) {
    int used = 0;
    for (int n = 0; n < TILE; n++) used |= m->weight[n] != 0;
    return !used;
}

static inline void write_pixels(void *to, int64_t offset, int64_t count, const real *from) {
    if (to) memcpy((real *)to + offset, from, sizeof(real) * (size_t)count);
}

#endif
