/* Rows of pairs: copied, sorted by label, of unit length under cosine; and the way back. */
#ifndef PAIR_ROWS_H
#define PAIR_ROWS_H

#include <stdlib.h>

#include "members.h"

struct row {
    int64_t label, place; /* in the tensor */
};

/* One side's rows in order, of anchors over tau; `padded` is a multiple of TILE. */
struct side {
    int64_t count, padded, channels, width;
    struct row *row;
    real *matrix, *gradient, *panels; /* rows; of keys also as tiles of columns */
    real *inverse, *size;             /* (count,): matrix row = given row / size * inverse */
    int64_t *sorted;                  /* where each row of the tensor has come to, or -1 */
    int positives, negatives;         /* what keys are here for */
    void *memory;
};

static inline int by_label(const void *a, const void *b) {
    const struct row *one = a, *other = b;
    if (one->label != other->label) return one->label < other->label ? -1 : 1;
    return one->place < other->place ? -1 : one->place > other->place;
}

static inline int64_t label_at(const struct array *labels, int64_t i) {
    int64_t label = 0;
    read_labels(labels, i * labels->strides[0], 1, 1, &label);
    return label;
}

/* The rows that have a label and, of anchors, no weight of 0; 0, or -1 where memory is short. */
static inline int gather(struct side *s, const struct array *rows, const struct array *labels,
                  const struct array *weights, int64_t given, int64_t channels, int64_t ignored) {
    const int64_t width = row_width(channels), room = (given + TILE - 1) / TILE * TILE;
    const int64_t numbers = 2 * room * (width + 1) + (weights ? 0 : room * channels);
    s->memory = aligned_memory(given * (int64_t)(sizeof(struct row) + sizeof(int64_t)) +
                               numbers * (int64_t)sizeof(real));
    if (!s->memory) return -1;
    s->channels = channels, s->width = width, s->count = 0;
    s->matrix = s->memory;
    s->gradient = s->matrix + room * width;
    s->inverse = s->gradient + room * width;
    s->size = s->inverse + room;
    s->panels = s->size + room;
    s->row = (struct row *)(s->matrix + numbers);
    s->sorted = (int64_t *)(s->row + given);
    memset(s->matrix, 0, (size_t)numbers * sizeof(real));
    for (int64_t i = 0; i < given; i++) {
        s->sorted[i] = -1;
        const int64_t label = label_at(labels, i);
        if (label == ignored) continue;
        if (weights && weights->data && element(weights, i * weights->strides[0]) == 0) continue;
        s->row[s->count++] = (struct row){label, i};
    }
    s->padded = (s->count + TILE - 1) / TILE * TILE;
    qsort(s->row, (size_t)s->count, sizeof *s->row, by_label);
    for (int64_t i = 0; i < s->count; i++) {
        s->sorted[s->row[i].place] = i;
        s->inverse[i] = s->size[i] = 1;
        widen(rows, s->row[i].place * rows->strides[0], rows->strides[1], channels,
              s->matrix + i * width);
    }
    return 0;
}

/* Unit rows; anchors are multiplied by `scale` as well. */
static inline void normalise(struct side *s, int cosine, real scale) {
    for (int64_t i = 0; i < s->count; i++) {
        real *row = s->matrix + i * s->width, factor = scale;
        if (cosine) {
            const real *found = row;
            s->inverse[i] = unit_factor(&found, s->channels, s->gradient, s->size + i);
            if (found != row) memcpy(row, found, sizeof(real) * (size_t)s->channels);
            factor *= s->inverse[i];
        }
        for (int64_t d = 0; d < s->channels; d++) row[d] *= factor;
    }
    if (s->padded) memset(s->gradient, 0, sizeof(real) * (size_t)s->width);
}

#define FAR 0x1p50 /* numbers up to here are squared as they are: a far row must not hide others */

/* Divides all rows by a power of two, so that their squares stay numbers; by 1 where they are. */
static inline real bring_near(struct side **sides, int64_t count) {
    real largest = 0;
    for (int64_t k = 0; k < count; k++)
        for (int64_t i = 0; i < sides[k]->count * sides[k]->width; i++) {
            const real size = sides[k]->matrix[i] < 0 ? -sides[k]->matrix[i] : sides[k]->matrix[i];
            if (size > largest && size <= LARGEST) largest = size;
        }
    real size = size_below(largest);
    if (size > 1) size = size > (real)FAR ? size / (real)FAR : 1;
    for (int64_t k = 0; k < count && size != 1; k++)
        for (int64_t i = 0; i < sides[k]->count * sides[k]->width; i++) sides[k]->matrix[i] /= size;
    return size;
}

/* The first row whose label is not below this one. */
static inline int64_t first_of(const struct side *s, int64_t label) {
    int64_t low = 0, high = s->count;
    while (low < high) {
        const int64_t middle = (low + high) / 2;
        if (s->row[middle].label < label) low = middle + 1;
        else high = middle;
    }
    return low;
}

/* Adds the gradient of the given rows to a tensor of zeros: `scale` times what has been pulled, of
   unit rows without what would change their length. Anchors are over the temperature, `scale`. */
static inline void finish(struct side *s, int cosine, real scale, real on_rows,
                          const struct array *to) {
    const int64_t D = s->channels;
    for (int64_t i = 0; i < s->count; i++) {
        const int64_t offset = s->row[i].place * to->strides[0];
        real *gradient = s->gradient + i * s->width, *row = s->matrix + i * s->width;
        double along = 0;
        for (int64_t d = 0; d < D; d++) {
            gradient[d] *= scale;
            row[d] /= on_rows;
            along += (double)gradient[d] * row[d];
        }
        const real factor = s->inverse[i] / s->size[i], radial = cosine ? (real)along : 0;
        for (int64_t d = 0; d < D; d++) gradient[d] = (gradient[d] - row[d] * radial) * factor;
        /* A key may be a positive of some anchors and a negative of others. */
        widen(to, offset, to->strides[1], D, row);
        for (int64_t d = 0; d < D; d++) row[d] += gradient[d];
        narrow(to, offset, to->strides[1], D, row);
    }
}

#endif
