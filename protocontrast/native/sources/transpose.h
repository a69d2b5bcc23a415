/* Between rows, all channels of a pixel side by side, and panels, all pixels of a channel. */
#ifndef TRANSPOSE_H
#define TRANSPOSE_H

#include "columns.h"

/* 16 bytes, whatever the variant: transposed in registers without crossing their halves. */
#define QUAD (16 / (int)sizeof(real))
typedef real quad __attribute__((vector_size(16)));

#if defined(__clang__) || __GNUC__ >= 12
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
typedef word quad_mask __attribute__((vector_size(16)));
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (quad_mask){__VA_ARGS__})
#endif

/* As many numbers of as many rows, from `first` on. */
ALWAYS_INLINE void transpose_quads(const real *const *rows, int64_t first, real *to,
                                   int64_t along) {
    quad r[QUAD];
    for (int i = 0; i < QUAD; i++) memcpy(&r[i], rows[i] + first, sizeof r[i]);
#ifdef DOUBLE
    const quad out[QUAD] = {SHUFFLE(r[0], r[1], 0, 2), SHUFFLE(r[0], r[1], 1, 3)};
#else
    const quad a = SHUFFLE(r[0], r[1], 0, 4, 1, 5), b = SHUFFLE(r[0], r[1], 2, 6, 3, 7);
    const quad c = SHUFFLE(r[2], r[3], 0, 4, 1, 5), d = SHUFFLE(r[2], r[3], 2, 6, 3, 7);
    const quad out[QUAD] = {SHUFFLE(a, c, 0, 1, 4, 5), SHUFFLE(a, c, 2, 3, 6, 7),
                            SHUFFLE(b, d, 0, 1, 4, 5), SHUFFLE(b, d, 2, 3, 6, 7)};
#endif
    for (int i = 0; i < QUAD; i++) memcpy(to + i * along, &out[i], sizeof out[i]);
}

ALWAYS_INLINE void transpose_quad(const real *from, int64_t across, real *to, int64_t along) {
    const real *rows[QUAD];
    for (int i = 0; i < QUAD; i++) rows[i] = from + i * across;
    transpose_quads(rows, 0, to, along);
}

/* Where channel 0 of a pixel of a tile lies within its panels. */
ALWAYS_INLINE int64_t in_panels(int64_t pixel, int64_t channels) {
    return pixel / PANEL * PANEL * channels + pixel % PANEL;
}

/* Panels of `count` rows; what lies beyond is left as it is. */
static inline void rows_to_panels(const real *rows, int64_t width, int64_t count, int64_t channels,
                           real *panels) {
    for (int64_t n = 0; n < count; n += QUAD) {
        const real *from = rows + n * width;
        real *to = panels + in_panels(n, channels);
        const int64_t some = count - n < QUAD ? count - n : QUAD;
        int64_t d = 0;
        if (some == QUAD)
            for (; d + QUAD <= channels; d += QUAD)
                transpose_quad(from + d, width, to + d * PANEL, PANEL);
        if (some == QUAD && channels >= QUAD && d < channels) { /* some of them once more */
            d = channels - QUAD;
            transpose_quad(from + d, width, to + d * PANEL, PANEL);
            continue;
        }
        for (; d < channels; d++)
            for (int64_t i = 0; i < some; i++) to[d * PANEL + i] = from[i * width + d];
    }
}

static inline void panels_to_rows(const real *panels, int64_t count, int64_t channels, real *rows,
                           int64_t width) {
    for (int64_t n = 0; n < count; n += QUAD) {
        const real *from = panels + in_panels(n, channels);
        real *to = rows + n * width;
        const int64_t some = count - n < QUAD ? count - n : QUAD;
        int64_t d = 0;
        if (some == QUAD)
            for (; d + QUAD <= channels; d += QUAD)
                transpose_quad(from + d * PANEL, PANEL, to + d, width);
        if (some == QUAD && channels >= QUAD && d < channels) { /* some of them once more */
            d = channels - QUAD;
            transpose_quad(from + d * PANEL, PANEL, to + d, width);
            continue;
        }
        for (; d < channels; d++)
            for (int64_t i = 0; i < some; i++) to[i * width + d] = from[d * PANEL + i];
    }
}

/* A whole tile of columns that lie `stride` apart, of as many channels as quads divide. */
static inline void columns_to_rows(const real *columns, int64_t stride, int64_t channels,
                                   real *rows, int64_t width) {
    for (int64_t d = 0; d < channels; d += QUAD) {
        for (int i = 0; i < QUAD; i++)
            ask_for(columns + (d + i) * stride + TILE, TILE * sizeof(real));
        for (int64_t n = 0; n < TILE; n += QUAD)
            transpose_quad(columns + d * stride + n, stride, rows + n * width + d, width);
    }
}

static inline void rows_to_columns(const real *rows, int64_t width, int64_t channels, real *columns,
                            int64_t stride) {
    for (int64_t d = 0; d < channels; d += QUAD)
        for (int64_t n = 0; n < TILE; n += QUAD)
            transpose_quad(rows + n * width + d, width, columns + d * stride + n, stride);
}

#endif
