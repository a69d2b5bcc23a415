/* Prototypes made ready for a call: rows of present classes, unit length and 1/tau folded in. */
#ifndef PROTOTYPES_H
#define PROTOTYPES_H

#include <math.h>
#include <stdlib.h>

#include "dtypes.h"
#include "spans.h"
#include "tile.h"

struct prototypes {
    int64_t classes, channels, width; /* `width` separates rows */
    int64_t rows;                     /* present classes */
    int32_t *row_of;                  /* (classes + 1,), -1 where absent, and at the end */
    int32_t *class_of;                /* (rows,) */
    real *matrix;                     /* (rows, width) */
    real *squared;                    /* (rows,): of the matrix's rows */
    double *scale, *size;             /* (rows,): matrix row = given row / size * scale */
    real absent;                      /* how many classes stand at the floor */
    real floor;                       /* their logit */
    double temperature;
    int cosine;
    void *memory;
};

static int is_present(const struct array *rows, const struct array *present, int64_t c,
                      int64_t channels, int cosine) {
    if (present->data) return ((const uint8_t *)present->data)[c * present->strides[0]] != 0;
    if (!cosine) return 1;
    for (int64_t d = 0; d < channels; d++)
        if (element(rows, c * rows->strides[0] + d * rows->strides[1]) != 0) return 1;
    return 0;
}

static double size_of(const double *row, int64_t channels) {
    double largest = 0;
    int exponent = 1;
    for (int64_t d = 0; d < channels; d++)
        if (!(fabs(row[d]) <= largest)) largest = fabs(row[d]);
    if (largest > 0 && !isinf(largest)) (void)frexp(largest, &exponent);
    return ldexp(1.0, exponent - 1);
}

/* 0, or -1 where memory is short. Rows of absent classes are not read. */
static int prepare_prototypes(struct prototypes *p, const struct array *given,
                              const struct array *present, int64_t classes, int64_t channels,
                              int cosine, int keep_absent, double temperature) {
    const int64_t width = row_width(channels);
    const int64_t bytes = classes * ((width + 1) * (int64_t)sizeof(real) +
                                     2 * (int64_t)sizeof(double) + 2 * (int64_t)sizeof(int32_t)) +
                          2 * channels * (int64_t)sizeof(double) + (int64_t)sizeof(int32_t);
    char *memory = aligned_memory(bytes);
    p->memory = memory;
    if (!memory) return -1;
    double *row = (double *)memory;
    p->scale = row + 2 * channels;
    p->size = p->scale + classes;
    p->matrix = (real *)(p->size + classes);
    p->squared = p->matrix + classes * width;
    p->row_of = (int32_t *)(p->squared + classes);
    p->class_of = p->row_of + classes + 1;
    p->row_of[classes] = -1;
    p->classes = classes;
    p->channels = channels;
    p->width = width;
    p->rows = 0;
    p->temperature = temperature;
    p->cosine = cosine;
    for (int64_t c = 0; c < classes; c++) {
        p->row_of[c] = -1;
        if (!is_present(given, present, c, channels, cosine)) continue;
        double squared = 0, size = 1, scale = 1 / temperature;
        for (int64_t d = 0; d < channels; d++)
            row[d] = element(given, c * given->strides[0] + d * given->strides[1]);
        if (cosine) {
            size = size_of(row, channels);
            for (int64_t d = 0; d < channels; d++) squared += row[d] / size * (row[d] / size);
            scale = squared == 0 ? 0 : 1 / sqrt(squared) / temperature;
        }
        real *to = p->matrix + p->rows * width;
        squared = 0;
        for (int64_t d = 0; d < channels; d++) {
            to[d] = (real)(row[d] / size * scale);
            squared += (double)to[d] * (double)to[d];
        }
        p->squared[p->rows] = (real)squared;
        for (int64_t d = channels; d < width; d++) to[d] = 0;
        p->row_of[c] = (int32_t)p->rows;
        p->class_of[p->rows] = (int32_t)c;
        p->scale[p->rows] = scale;
        p->size[p->rows++] = size;
    }
    p->absent = keep_absent ? (real)(classes - p->rows) : 0;
    p->floor = (real)(-1 / temperature);
    return 0;
}

/* The gradient of the given prototypes from that of the matrix, summed over the parts in order.

   A matrix row is scale * q with q = row / size and scale = 1 / (tau |q|): what points along it
   changes its length alone, and is taken out. Absent rows get exactly 0. */
static inline void finish_prototypes(const struct prototypes *p, const real *parts, int64_t count,
                              const struct array *to) {
    const int64_t D = p->channels, part = p->rows * p->width;
    double *sum = (double *)p->memory; /* what was read there is no longer needed */
    real *found = (real *)(sum + D);
    for (int64_t c = 0; c < p->classes; c++) {
        const int64_t row = p->row_of[c];
        double along = 0;
        for (int64_t d = 0; d < D; d++) sum[d] = 0;
        if (row >= 0) {
            const real *unit = p->matrix + row * p->width;
            for (int64_t i = 0; i < count; i++)
                for (int64_t d = 0; d < D; d++) sum[d] += parts[i * part + row * p->width + d];
            for (int64_t d = 0; d < D; d++) sum[d] *= p->scale[row];
            if (p->cosine) {
                for (int64_t d = 0; d < D; d++) along += sum[d] * (unit[d] * p->temperature);
                for (int64_t d = 0; d < D; d++)
                    sum[d] = (sum[d] - unit[d] * p->temperature * along) / p->size[row];
            }
        }
        for (int64_t d = 0; d < D; d++) found[d] = (real)sum[d];
        narrow(to, c * to->strides[0], to->strides[1], D, found);
    }
}

/* All rows and a tile's pixels: [rows][TILE]. */
ALWAYS_INLINE void meet(block_product *product, const struct prototypes *p, const struct tile *t,
                        real *out) {
    const struct factors f = {p->matrix, p->width, 1, t->panels, PANEL, t->channels};
    in_blocks(product, &f, p->rows, t->count, t->channels, out, TILE);
}

/* Logits of a tile before they are divided by the pixels' lengths. */
static inline void score_tile(const struct prototypes *p, const struct tile *t, real *logits) {
    meet(product_into, p, t, logits);
}

#endif
