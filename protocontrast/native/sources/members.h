/* A tile as rows, all channels of a pixel side by side, and the class that each row belongs to. */
#ifndef MEMBERS_H
#define MEMBERS_H

#include "tile.h"

struct members {
    const struct array *labels, *pixel_weight;
    int64_t classes, ignore_index;
};

/* A tile's classes, -1 where a pixel has none, and what it counts for its own; the pixels that have
   one, so that a loop over them meets no branch that is not to be foreseen. */
struct membership {
    int32_t class_of[TILE];
    real weight[TILE];
    int64_t used;
    int32_t pixel[TILE]; /* `used` of them */
};

static inline void read_members(const struct members *m, int64_t image, int64_t start,
                                int64_t count, struct membership *to) {
    const struct array *labels = m->labels, *weight = m->pixel_weight;
    int64_t label[TILE];
    read_labels(labels, image * labels->strides[0] + start * labels->strides[1],
                labels->strides[1], count, label);
    for (int64_t n = 0; n < count; n++) to->weight[n] = 1;
    if (weight->data)
        widen(weight, image * weight->strides[0] + start * weight->strides[1], weight->strides[1],
              count, to->weight);
    for (int64_t n = 0; n < count; n++) {
        /* What is no class was refused before; here it must still not be an index. */
        const int used = (label[n] != m->ignore_index) &
                         ((uint64_t)label[n] < (uint64_t)m->classes) & (to->weight[n] != 0);
        to->class_of[n] = used ? (int32_t)label[n] : -1;
    }
    to->used = 0;
    for (int64_t n = 0; n < count; n++) {
        to->pixel[to->used] = (int32_t)n;
        to->used += to->class_of[n] >= 0;
    }
}

/* The rows of a tile and what separates them: as they lie, if they do, else in the tile's own. */
static inline const real *read_rows(struct tile *t, int64_t image, int64_t start, int64_t pixels,
                             int64_t *width) {
    const struct array *f = t->features;
    const int64_t D = t->channels, along = f->strides[2];
    const int64_t offset = offset_of(f, image, 0, start);
    const int real_numbers = f->dtype == REAL_DTYPE;
    t->image = image;
    t->start = start;
    t->count = pixels - start < TILE ? pixels - start : TILE;
    t->scaled = 0;
    *width = row_width(D);
    if (f->strides[1] == 1 && (along != 1 || D == 1)) {
        if (real_numbers) {
            *width = along;
            return (const real *)f->data + offset;
        }
        for (int64_t n = 0; n < t->count; n++)
            widen(f, offset + n * along, 1, D, t->rows + n * *width);
    } else if (real_numbers && along == 1 && t->count == TILE && D % QUAD == 0) {
        columns_to_rows((const real *)f->data + offset, f->strides[1], D, t->rows, *width);
    } else {
        read_tile(t, image, start, pixels);
        panels_to_rows(t->panels, t->count, D, t->rows, *width);
    }
    return t->rows;
}

/* Writes the tile's own rows to a tensor shaped as the features are. */
static inline void write_rows(struct tile *t, const struct array *to) {
    const int64_t D = t->channels, width = row_width(D), along = to->strides[2];
    const int64_t offset = offset_of(to, t->image, 0, t->start);
    if (to->strides[1] == 1 && (along != 1 || D == 1)) {
        for (int64_t n = 0; n < t->count; n++)
            narrow(to, offset + n * along, 1, D, t->rows + n * width);
    } else if (to->dtype == REAL_DTYPE && along == 1 && t->count == TILE && D % QUAD == 0) {
        rows_to_columns(t->rows, width, D, (real *)to->data + offset, to->strides[1]);
    } else {
        rows_to_panels(t->rows, width, t->count, D, t->panels);
        write_tile(t, t->panels, to, t->rows);
    }
}

static inline real dot(const real *a, const real *b, int64_t count) {
    vec sum[2] = {{0}, {0}};
    int64_t d = 0;
    real total = 0;
    for (; d + PANEL <= count; d += PANEL) {
        sum[0] += load(a + d) * load(b + d);
        sum[1] += load(a + d + LANES) * load(b + d + LANES);
    }
    sum[0] += sum[1];
    for (int i = 0; i < LANES; i++) total += sum[0][i];
    for (; d < count; d++) total += a[d] * b[d];
    return total;
}

/* One over a row's length, 0 where that is 0. A row whose square is out of range is read as `copy`,
   over the power of two below its largest magnitude, `size`. */
static inline real unit_factor(const real **row, int64_t channels, real *copy, real *size) {
    real squared = dot(*row, *row, channels);
    *size = 1;
    if (!(squared >= 1 / SAFE && squared <= SAFE)) {
        real largest = 0;
        for (int64_t d = 0; d < channels; d++) {
            const real magnitude = (*row)[d] < 0 ? -(*row)[d] : (*row)[d];
            if (!(magnitude <= largest)) largest = magnitude;
        }
        *size = size_below(largest);
        for (int64_t d = 0; d < channels; d++) copy[d] = (*row)[d] / *size;
        *row = copy;
        squared = dot(copy, copy, channels);
    }
    return squared == 0 ? 0 : 1 / SQRT(squared);
}

#endif
