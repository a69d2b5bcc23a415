/* Logits of a tile become losses and their gradient, for whatever operator has a contrast in it.
 *
 * z = M f / |f| (cosine) or M f (dot), loss_i = w_i logsumexp z - sum_c t_ic z_c, and with
 * a = (w_i softmax z - t_i) / |f|:  dL/df = M' a - f (sum_c a_c z_c) / |f|.
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
    const int alone = p->rows == 1 && p->absent == 0;
    return (struct softmax){p, soft, small && !alone};
}

/* A tile, and the numbers of each of its pixels. */
struct work {
    struct tile tile;
    struct masses masses;
    real loss[TILE], lse[TILE], radial[TILE];
    real *logits, *gradient, *columns;
};

static inline int64_t work_bytes(int64_t channels, int64_t rows) {
    return (int64_t)sizeof(struct work) + room_bytes(channels, rows);
}

static inline struct work *laid_out(const struct array *features, int64_t channels, int64_t rows,
                                    void *memory) {
    struct work *w = memory;
    const struct room room = give_room(&w->tile, features, channels, rows, w + 1);
    w->gradient = room.gradient, w->columns = room.columns;
    w->logits = room.logits, w->masses.soft = room.beside;
    return w;
}

/* sum_c t_ic z_c of the tile. */
static inline void find_target_logits(const struct softmax *s, const struct work *w,
                                      real *target_logit) {
    const struct prototypes *p = s->prototypes;
    for (int n = 0; n < TILE; n++) {
        const real at_floor = w->masses.at_floor[n];
        target_logit[n] = at_floor == 0 ? 0 : at_floor * p->floor;
    }
    if (!s->soft) {
        for (int n = 0; n < TILE; n++)
            if (w->masses.label[n] >= 0) {
                const real logit = w->logits[w->masses.label[n] * TILE + n] * w->tile.inverse[n];
                target_logit[n] += w->masses.weight[n] * logit;
            }
        return;
    }
    for (int64_t c = 0; c < p->rows; c++)
        for (int n = 0; n < TILE; n++) {
            const real mass = w->masses.soft[c * TILE + n];
            const real logit = w->logits[c * TILE + n] * w->tile.inverse[n];
            target_logit[n] += mass == 0 ? 0 : mass * logit;
        }
}

/* One vector of pixels: logits become a, and the loss, log-sum-exp and radial part are written. */
ALWAYS_INLINE void soften(const struct prototypes *p, struct work *w, int n,
                          const real *target_logit, const int bounded) {
    const vec zero = {0}, inverse = load(w->tile.inverse + n), weight = load(w->masses.weight + n);
    const vec least = every(SMALLEST_EXPONENT);
    vec peak = zero, sum, with_logit = zero;
    if (!bounded) {
        peak = every(p->absent > 0 ? p->floor : (real)-LARGEST);
        for (int64_t c = 0; c < p->rows; c++)
            peak = larger(load(w->logits + c * TILE + n) * inverse, peak);
        sum = p->absent * exponential(larger(every(p->floor) - peak, least));
    } else {
        sum = p->absent * exponential(every(p->floor));
    }
    if (p->absent == 0) sum = zero;
    for (int64_t c = 0; c < p->rows; c++) {
        real *at = w->logits + c * TILE + n;
        const vec logit = load(at) * inverse;
        const vec term = exponential(bounded ? logit : below_peak(logit, peak));
        sum += term;
        with_logit += term * logit;
        store(at, term);
    }
    const mask ignored = weight == zero;
    const vec whole = logarithm(sum) + peak, pull = load(target_logit + n);
    store(w->loss + n, choose(ignored, zero, weight * whole - pull));
    store(w->lse + n, choose(ignored, every((real)INFINITY), whole));
    const vec factor = choose(ignored, zero, weight / sum);
    for (int64_t c = 0; c < p->rows; c++) {
        real *at = w->logits + c * TILE + n;
        store(at, load(at) * (factor * inverse));
    }
    if (!p->cosine || p->rows == 0) {
        store(w->radial + n, zero);
        return;
    }
    vec at_rows = pull;
    if (p->absent > 0) at_rows = pull - load(w->masses.at_floor + n) * p->floor;
    const vec radial = (with_logit * factor - at_rows) * inverse * inverse;
    store(w->radial + n, choose(ignored, zero, radial));
}

/* The same of the tile. */
static inline void soften_tile(const struct softmax *s, struct work *w) {
    real target_logit[TILE];
    find_target_logits(s, w, target_logit);
    for (int n = 0; n / PANEL * PANEL < w->tile.count; n += LANES) {
        if (s->bounded) soften(s->prototypes, w, n, target_logit, 1);
        else soften(s->prototypes, w, n, target_logit, 0);
    }
}

/* a less the targets, which lie in memory by class. */
static inline void subtract_targets(const struct softmax *s, struct work *w) {
    const struct masses *m = &w->masses;
    if (!s->soft) {
        for (int n = 0; n < TILE; n++)
            if (m->label[n] >= 0)
                w->logits[m->label[n] * TILE + n] -= m->weight[n] * w->tile.inverse[n];
        return;
    }
    for (int64_t c = 0; c < s->prototypes->rows; c++)
        for (int n = 0; n < TILE; n++)
            w->logits[c * TILE + n] -= m->soft[c * TILE + n] * w->tile.inverse[n];
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
