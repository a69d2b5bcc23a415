/* Distances of a tile from all prototypes, and the way back: a product where rows are apart, which
 * cancels where they are close, and differences there.
 */
#ifndef PROTOTYPE_DISTANCES_H
#define PROTOTYPE_DISTANCES_H

#include "distances.h"
#include "pull.h"

/* Rows are apart where their squared distance, times this, is that of both from 0: of the digits of
   a difference a product then loses three or four bits. */
#define APART 64

/* A distance whose square is out of range, over the power of two below its largest part. */
static inline real distance_of(const real *column, const real *row, int64_t channels) {
    real largest = 0, squared = 0;
    for (int64_t d = 0; d < channels; d++) {
        const real gap = column[d * PANEL] < row[d] ? row[d] - column[d * PANEL]
                                                    : column[d * PANEL] - row[d];
        if (!(gap <= largest)) largest = gap;
    }
    const real size = size_below(largest);
    for (int64_t d = 0; d < channels; d++) {
        const real gap = (column[d * PANEL] - row[d]) / size;
        squared += gap * gap;
    }
    return size * SQRT(squared);
}

/* Distances [rows][TILE] of a tile from all prototypes, and whether all are apart. Of the tile the
   squared lengths are known. */
static inline int find_distances(const struct prototypes *p, const struct tile *t,
                                 real *distances) {
    int close = 0;
    meet(squares_into, p, t, distances);
    for (int64_t c = 0; c < p->rows; c++) {
        real *square = distances + c * TILE;
        int unsafe = 0;
        for (int64_t n = 0; n < t->count; n++) {
            unsafe |= !(square[n] >= 1 / SAFE) | !(square[n] <= SAFE);
            close |= !(square[n] * APART >= t->squared[n] + p->squared[c]);
        }
        if (!unsafe) {
            for (int n = 0; n < TILE; n++) square[n] = SQRT(square[n]);
            continue;
        }
        for (int64_t n = 0; n < t->count; n++)
            square[n] = distance_of(t->panels + in_panels(n, t->channels),
                                    p->matrix + c * p->width, t->channels);
    }
    return !close;
}

/* From the slopes of logits z = -d / tau, which become a = slope / (tau d), 0 where d is 0:
   dL/df = sum_c a_c (p_c - f), dL/dp_c += sum_i a_ic (f_i - p_c). `part`, and the gradient's data,
   are null where they are not wanted. */
static inline void pull_distances(const struct prototypes *p, struct tile *t,
                                  const real *distances, int apart, real temperature, real *slopes,
                                  const struct array *gradient, real *panels, real *columns,
                                  real *part) {
    const int64_t D = t->channels, width = row_width(D);
    real all[TILE] = {0};
    for (int64_t c = 0; c < p->rows; c++)
        for (int n = 0; n < TILE; n++) {
            const real distance = distances[c * TILE + n], slope = slopes[c * TILE + n];
            const real a = distance == 0 ? 0 : slope / (temperature * distance);
            slopes[c * TILE + n] = a;
            all[n] += a;
        }
    if (apart) {
        if (gradient->data) pull_features(p, t, slopes, all, gradient, panels, columns);
        if (part) pull_matrix(p, t, slopes, part);
        for (int64_t c = 0; part && c < p->rows; c++) {
            real sum = 0;
            for (int64_t n = 0; n < t->count; n++) sum += slopes[c * TILE + n];
            for (int64_t d = 0; d < D; d++)
                part[c * width + d] -= sum * p->matrix[c * p->width + d];
        }
        return;
    }
    panels_to_rows(t->panels, t->count, D, t->rows, width);
    const struct factors across = {slopes, TILE, 1, t->rows, width, t->count};
    if (part) add_differences(p->rows, &across, p->matrix, part, width, D);
    if (!gradient->data) return;
    const struct factors along = {slopes, 1, TILE, p->matrix, width, p->rows};
    memset(columns, 0, sizeof(real) * (size_t)row_numbers(D));
    add_differences(t->count, &along, t->rows, columns, width, D);
    rows_to_panels(columns, width, t->count, D, panels);
    write_tile(t, panels, gradient, columns);
}

#endif
