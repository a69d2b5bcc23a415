/* A tile of pixels, copied once into panels that stay in the first caches.
 *
 * In place, rows of channels that lie a power of two apart would crowd into few lines of a cache,
 * and every layout and dtype would need products of its own. The copy is a small part of a product.
 */
#ifndef TILE_H
#define TILE_H

#include <math.h>

#include "columns.h"
#include "transpose.h"

/* Squared lengths of 2 to this power, and to its negative, leave room for products with others. */
#ifdef DOUBLE
#define SAFE 0x1p300
#define LARGEST 0x1.fffffffffffffp1023
#else
#define SAFE 0x1p40f
#define LARGEST 0x1.fffffep127f
#endif

struct tile {
    const struct array *features;
    int64_t channels, image, start, count;
    real *panels; /* [TILE / PANEL][channels][PANEL], 0 beyond `count` */
    real *rows;   /* [TILE][row_width], where they are asked for */
    int scaled;   /* whether the panels stand over `size` */
    real squared[TILE], inverse[TILE], size[TILE];
};

/* An odd number of cache lines: rows of channels then spread over the sets of a cache. A panel that
   begins at a channel ends within them. */
static inline int64_t row_width(int64_t channels) {
    const int64_t line = 64 / (int64_t)sizeof(real), panel = PANEL > line ? PANEL : line;
    const int64_t lines = (channels + panel - 1) / panel * (panel / line);
    return (lines | 1) * line;
}

static inline int64_t tile_numbers(int64_t channels) { return TILE * channels; }
static inline int64_t row_numbers(int64_t channels) { return TILE * row_width(channels) + PANEL; }

/* A thread's memory: panels of a gradient, rows of either, logits and twice as many numbers. */
struct room {
    real *gradient, *columns, *logits, *beside, *distances;
};

static inline int64_t room_bytes(int64_t channels, int64_t rows) {
    const int64_t numbers = 2 * tile_numbers(channels) + 2 * row_numbers(channels);
    return 64 + (numbers + 3 * rows * TILE) * (int64_t)sizeof(real);
}

/* Begins at the next cache line; the tile gets its panels and rows. */
static inline struct room give_room(struct tile *t, const struct array *features, int64_t channels,
                                    int64_t rows, void *memory) {
    t->features = features;
    t->channels = channels;
    t->panels = (real *)(((uintptr_t)memory + 63) / 64 * 64);
    struct room room = {.gradient = t->panels + tile_numbers(channels)};
    t->rows = room.gradient + tile_numbers(channels);
    room.columns = t->rows + row_numbers(channels);
    room.logits = room.columns + row_numbers(channels);
    room.beside = room.logits + rows * TILE;
    room.distances = room.beside + rows * TILE;
    return room;
}

static inline int64_t offset_of(const struct array *a, int64_t image, int64_t channel,
                                int64_t pixel) {
    return image * a->strides[0] + channel * a->strides[1] + pixel * a->strides[2];
}

/* Reads the pixels from `start` on of an image. */
static inline void read_tile(struct tile *t, int64_t image, int64_t start, int64_t pixels) {
    const struct array *f = t->features;
    const int64_t D = t->channels, along = f->strides[2];
    t->image = image;
    t->start = start;
    t->count = pixels - start < TILE ? pixels - start : TILE;
    t->scaled = 0;
    if (t->count < TILE) memset(t->panels, 0, sizeof(real) * (size_t)tile_numbers(D));
    if (f->strides[1] == 1 && along != 1) {
        if (f->dtype == REAL_DTYPE) {
            const real *rows = (const real *)f->data + offset_of(f, image, 0, start);
            rows_to_panels(rows, along, t->count, D, t->panels);
            return;
        }
        for (int64_t n = 0; n < t->count; n++)
            widen(f, offset_of(f, image, 0, start + n), 1, D, t->rows + n * row_width(D));
        rows_to_panels(t->rows, row_width(D), t->count, D, t->panels);
        return;
    }
    if (t->count == TILE && along == 1) {
        read_columns(f, offset_of(f, image, 0, start), D, t->panels);
        return;
    }
    for (int64_t d = 0; d < D; d++)
        for (int64_t n = 0; n < t->count; n += PANEL) {
            const int64_t some = t->count - n < PANEL ? t->count - n : PANEL;
            widen(f, offset_of(f, image, d, start + n), along, some,
                  t->panels + n * D + d * PANEL);
        }
}

static inline void square_tile(struct tile *t) {
    const int64_t D = t->channels;
    vec sum[TILE / LANES] = {{0}};
    for (int64_t d = 0; d < D; d++)
        for (int i = 0; i < TILE / LANES; i++) {
            const vec x = load(t->panels + i / 2 * PANEL * D + d * PANEL + i % 2 * LANES);
            sum[i] += x * x;
        }
    for (int i = 0; i < TILE / LANES; i++) store(t->squared + i * LANES, sum[i]);
}

/* What ignored pixels hold may be anything, and 0 times it is not 0: they become 0 themselves. */
static inline void clear_ignored(struct tile *t, const real *weight) {
    int finite = 1;
    for (int n = 0; n < TILE; n++) finite &= t->squared[n] <= LARGEST;
    if (finite) return;
    for (int64_t n = 0; n < t->count; n++)
        if (weight[n] == 0 && !(t->squared[n] <= LARGEST)) {
            real *column = t->panels + in_panels(n, t->channels);
            for (int64_t d = 0; d < t->channels; d++) column[d * PANEL] = 0;
            t->squared[n] = 0;
        }
}

/* The power of two below a magnitude; 1 for 0, infinity and NaN. */
static inline real size_below(double largest) {
    int exponent = 1;
    if (largest > 0 && largest <= LARGEST) (void)frexp(largest, &exponent);
    return (real)ldexp(1.0, exponent - 1);
}

/* Divides each pixel by the power of two below its largest magnitude: its square is then safe. */
static inline void scale_tile(struct tile *t) {
    const int64_t D = t->channels;
    for (int64_t n = 0; n < TILE; n++) {
        real *column = t->panels + in_panels(n, D), largest = 0;
        for (int64_t d = 0; d < D; d++) {
            const real size = column[d * PANEL] < 0 ? -column[d * PANEL] : column[d * PANEL];
            if (!(size <= largest)) largest = size;
        }
        const real size = size_below(largest);
        for (int64_t d = 0; d < D; d++) column[d * PANEL] /= size;
        t->size[n] = size;
    }
    t->scaled = 1;
    square_tile(t);
}

/* One over the lengths, 0 where they are 0; pixels whose squares are out of range are scaled. */
static inline void measure_tile(struct tile *t) {
    int unsafe = 0;
    for (int64_t n = 0; n < t->count; n++)
        unsafe |= (t->squared[n] < 1 / SAFE) | (t->squared[n] > SAFE);
    if (unsafe) scale_tile(t);
    for (int n = 0; n < TILE; n++)
        t->inverse[n] = t->squared[n] == 0 ? 0 : 1 / SQRT(t->squared[n]);
}

/* Writes a tile's panels to a tensor shaped as the features are; `rows` is memory for them. */
static inline void write_tile(const struct tile *t, real *panels, const struct array *to,
                              real *rows) {
    const int64_t D = t->channels, along = to->strides[2], width = row_width(D);
    if (t->scaled)
        for (int64_t i = 0; i < tile_numbers(D); i++)
            panels[i] /= t->size[i / (PANEL * D) * PANEL + i % PANEL];
    if (to->strides[1] == 1 && along != 1) {
        const int64_t offset = offset_of(to, t->image, 0, t->start);
        if (to->dtype == REAL_DTYPE) {
            panels_to_rows(panels, t->count, D, (real *)to->data + offset, along);
            return;
        }
        panels_to_rows(panels, t->count, D, rows, width);
        for (int64_t n = 0; n < t->count; n++)
            narrow(to, offset + n * along, 1, D, rows + n * width);
        return;
    }
    if (t->count == TILE && along == 1) {
        write_columns(panels, to, offset_of(to, t->image, 0, t->start), D);
        return;
    }
    for (int64_t d = 0; d < D; d++)
        for (int64_t n = 0; n < t->count; n += PANEL) {
            const int64_t some = t->count - n < PANEL ? t->count - n : PANEL;
            narrow(to, offset_of(to, t->image, d, t->start + n), along, some,
                   panels + n * D + d * PANEL);
        }
}

/* Where a product may write the tile's own columns of a tensor as they lie there; else null. */
static inline real *in_place(const struct tile *t, const struct array *to) {
    const int as_it_is = to->dtype == REAL_DTYPE && to->strides[2] == 1;
    const int fits = as_it_is && t->count == TILE && !t->scaled;
    return fits ? (real *)to->data + offset_of(to, t->image, 0, t->start) : 0;
}

#endif
