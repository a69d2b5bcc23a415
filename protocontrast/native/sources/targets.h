/* What each pixel is pulled to: hard labels or soft targets, times the weights. 0 wins over NaN. */
#ifndef TARGETS_H
#define TARGETS_H

#include "prototypes.h"

struct targets {
    const struct array *labels, *pixel_weight, *grad_output;
    const struct prototypes *prototypes;
    const real *class_weight; /* (classes + 1,), 0 where a class does not count, and at the end */
    int soft;
    int64_t ignore_index;
    real whole; /* divides all masses */
};

/* A tile's masses. `weight` is 0 where the pixel is ignored. */
struct masses {
    real weight[TILE];
    real at_floor[TILE];  /* the part of it that is pulled to absent classes */
    word label[TILE];     /* row of the one class, or -1; of hard labels */
    real *soft;           /* [rows][TILE], of soft targets */
};

static inline real times(real mass, real factor) {
    return ((mass == 0) | (factor == 0)) ? 0 : mass * factor;
}

/* (classes + 1,): the class weights, 0 where absent classes do not count, and at the end. */
static inline void read_class_weight(const struct prototypes *p, const struct array *given,
                                     int keep_absent, real *class_weight) {
    for (int64_t c = 0; c < p->classes; c++) {
        class_weight[c] = 1;
        if (given->data) widen(given, c * given->strides[0], 1, 1, class_weight + c);
        if (!keep_absent && p->row_of[c] < 0) class_weight[c] = 0;
    }
    class_weight[p->classes] = 0;
}

/* The pixels' own factors: weight, the gradient of its loss, one over the sum of all. */
static void apply_factors(const struct targets *t, int64_t image, int64_t start, int64_t count,
                          real *factor) {
    real other[TILE];
    for (int64_t n = 0; n < TILE; n++) factor[n] = 1;
    const struct array *given[2] = {t->pixel_weight, t->grad_output};
    for (int i = 0; i < 2; i++) {
        const struct array *a = given[i];
        if (!a->data) continue;
        widen(a, image * a->strides[0] + start * a->strides[1], a->strides[1], count, other);
        for (int64_t n = 0; n < count; n++) factor[n] = times(factor[n], other[n]);
    }
}

/* Without a branch: which pixels are ignored is not to be foreseen. */
static void read_hard(const struct targets *t, int64_t image, int64_t start, int64_t count,
                      const real *factor, struct masses *m) {
    const struct array *a = t->labels;
    const int64_t classes = t->prototypes->classes;
    int64_t label[TILE];
    read_labels(a, image * a->strides[0] + start * a->strides[1], a->strides[1], count, label);
    for (int64_t n = count; n < TILE; n++) label[n] = classes;
    for (int n = 0; n < TILE; n++) {
        /* What is no class was refused before; here it must still not be an index. */
        const int used = (label[n] != t->ignore_index) & ((uint64_t)label[n] < (uint64_t)classes);
        label[n] = used ? label[n] : classes;
    }
    for (int n = 0; n < TILE; n++) {
        int64_t at = label[n];
        ONE_BY_ONE(at);
        m->weight[n] = t->class_weight[at];
        m->label[n] = t->prototypes->row_of[at];
    }
    for (int n = 0; n < TILE; n++) {
        const real weight = times(m->weight[n], factor[n]) / t->whole;
        m->weight[n] = weight;
        m->at_floor[n] = m->label[n] < 0 ? weight : 0;
        m->label[n] = weight == 0 ? -1 : m->label[n];
    }
}

static void read_soft(const struct targets *t, int64_t image, int64_t start, int64_t count,
                      const real *factor, struct masses *m) {
    const struct array *a = t->labels;
    real mass[TILE] = {0};
    for (int64_t n = 0; n < TILE; n++) m->weight[n] = m->at_floor[n] = 0;
    for (int64_t c = 0; c < t->prototypes->classes; c++) {
        const int32_t row = t->prototypes->row_of[c];
        const real class_weight = t->class_weight[c];
        real *to = row < 0 ? m->at_floor : m->soft + row * TILE;
        if (row >= 0)
            for (int64_t n = 0; n < TILE; n++) to[n] = 0;
        if (class_weight == 0) continue;
        widen(a, offset_of(a, image, c, start), a->strides[2], count, mass);
        for (int64_t n = 0; n < count; n++) {
            const real one = times(times(mass[n], class_weight), factor[n]) / t->whole;
            m->weight[n] += one;
            to[n] += one;
        }
    }
}

static void read_masses(const struct targets *t, int64_t image, int64_t start, int64_t pixels,
                        struct masses *m) {
    real factor[TILE];
    const int64_t count = pixels - start < TILE ? pixels - start : TILE;
    apply_factors(t, image, start, count, factor);
    if (t->soft) read_soft(t, image, start, count, factor, m);
    else read_hard(t, image, start, count, factor, m);
}

#endif
