/* Whole tiles of pixels that lie side by side, between memory and panels, of any dtype. */
#ifndef COLUMNS_H
#define COLUMNS_H

#include "dtypes.h"
#include "product.h"
#include "spans.h"

#define LINE 64 /* bytes that a cache reads at a time */

/* A tile reads a little of many rows, which no processor foresees: the next tile is asked for while
   this one is copied. Into the second cache, since in the first one channels that lie a power of
   two apart push each other out. */
ALWAYS_INLINE void ask_for(const void *from, int64_t bytes) {
    for (int64_t i = 0; i < bytes; i += LINE) __builtin_prefetch((const char *)from + i, 0, 2);
}

/* Panels [TILE / PANEL][channels][PANEL] of the pixels from `offset` on. */
static inline void read_columns(const struct array *f, int64_t offset, int64_t channels,
                                real *restrict panels) {
    switch (f->dtype) {
#define EACH(DTYPE, TYPE, WIDEN, NARROW)                                                           \
    case DTYPE: {                                                                                  \
        const TYPE *restrict from = (const TYPE *)f->data + offset;                                \
        for (int64_t d = 0; d < channels; d++, from += f->strides[1]) {                            \
            ask_for(from + TILE, TILE * sizeof *from);                                             \
            for (int64_t n = 0; n < TILE; n += PANEL) {                                            \
                real *restrict to = panels + n * channels + d * PANEL;                             \
                for (int i = 0; i < PANEL; i++) to[i] = (real)WIDEN(from[n + i]);                  \
            }                                                                                      \
        }                                                                                          \
        break;                                                                                     \
    }
        FLOATING(EACH)
#undef EACH
    }
}

/* A gradient of which one image outgrows the second cache is not read from there again: written
   past the caches, its memory need not be read first. */
#define OUTGROWS (1 << 20)

/* Whether columns of a tensor, from `offset` on, are written so. */
static inline int streams(const struct array *to, int64_t offset, int64_t channels, int64_t size) {
    const int64_t apart = to->strides[1] * size;
    const uintptr_t start = (uintptr_t)to->data + (uintptr_t)(offset * size);
    return channels * apart > OUTGROWS && (start | (uintptr_t)apart) % LINE == 0;
}

/* The way back. */
static inline void write_columns(const real *restrict panels, const struct array *to,
                                 int64_t offset, int64_t channels) {
    switch (to->dtype) {
#define EACH(DTYPE, TYPE, WIDEN, NARROW)                                                           \
    case DTYPE: {                                                                                  \
        const int past = streams(to, offset, channels, sizeof(TYPE));                              \
        TYPE *restrict row = (TYPE *)to->data + offset;                                            \
        for (int64_t d = 0; d < channels; d++, row += to->strides[1]) {                            \
            TYPE some[TILE];                                                                       \
            for (int64_t n = 0; n < TILE; n += PANEL) {                                            \
                const real *restrict from = panels + n * channels + d * PANEL;                     \
                for (int i = 0; i < PANEL; i++) some[n + i] = NARROW(from[i]);                     \
            }                                                                                      \
            for (int i = 0; i < (int)sizeof some; i += VECTOR_BYTES) {                             \
                vec value;                                                                         \
                memcpy(&value, (const char *)some + i, sizeof value);                              \
                put((char *)row + i, value, past);                                                 \
            }                                                                                      \
        }                                                                                          \
        break;                                                                                     \
    }
        FLOATING(EACH)
#undef EACH
    }
}

#endif
