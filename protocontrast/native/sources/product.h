/* The one product of all operators: a few rows of factors times two vectors of columns. */
#ifndef PRODUCT_H
#define PRODUCT_H

#include "variant.h"

#define PANEL (2 * LANES) /* columns of a product */

/* Factors a[row * across + step * along], columns x[step * next + 0..PANEL). */
struct factors {
    const real *a;
    int64_t across, along;
    const real *x;
    int64_t next, steps;
};

/* What is done with each row of a sum. Unrolled: else the sums would lie in memory between
   these and the product. */
#define EACH_ROW(rows) _Pragma("GCC unroll 12") for (int row = 0; row < (rows); row++)

/* sum[row] += factors of that row times the columns; `rows` is a constant where this is inlined. */
ALWAYS_INLINE void multiply(const int rows, const struct factors *f, vec sum[][2]) {
    const real *a = f->a, *x = f->x;
    const int64_t across = f->across, along = f->along, next = f->next;
    for (int64_t step = 0; step < f->steps; step++, a += along, x += next) {
        const vec left = load(x), right = load(x + LANES);
        EACH_ROW(rows) {
            const vec factor = every(a[row * across]);
            sum[row][0] += factor * left;
            sum[row][1] += factor * right;
        }
    }
}

/* `count` rows in blocks of nearly one size: a last one of a single row would wait for its sums. */
struct blocks {
    int64_t count, number;
};

ALWAYS_INLINE struct blocks blocks_of(int64_t count) {
    return (struct blocks){count, (count + ROWS - 1) / ROWS};
}

ALWAYS_INLINE int64_t block_start(struct blocks b, int64_t index) {
    return index * b.count / b.number;
}

/* Calls BODY(rows) with the number of rows as a constant. */
#define ONE_TO_SIX(BODY)                                                                           \
    case 1: BODY(1); break;                                                                        \
    case 2: BODY(2); break;                                                                        \
    case 3: BODY(3); break;                                                                        \
    case 4: BODY(4); break;                                                                        \
    case 5: BODY(5); break;                                                                        \
    case 6: BODY(6); break;
#if ROWS == 12
#define WITH_CONSTANT(rows, BODY)                                                                  \
    switch (rows) {                                                                                \
        ONE_TO_SIX(BODY)                                                                           \
    case 7: BODY(7); break;                                                                        \
    case 8: BODY(8); break;                                                                        \
    case 9: BODY(9); break;                                                                        \
    case 10: BODY(10); break;                                                                      \
    case 11: BODY(11); break;                                                                      \
    case 12: BODY(12); break;                                                                      \
    }
#else
#define WITH_CONSTANT(rows, BODY)                                                                  \
    switch (rows) {                                                                                \
        ONE_TO_SIX(BODY)                                                                           \
    }
#endif

ALWAYS_INLINE void clear(const int rows, vec sum[][2]) {
    EACH_ROW(rows) sum[row][0] = sum[row][1] = (vec){0};
}

ALWAYS_INLINE void write(const int rows, vec sum[][2], real *out, int64_t width, int past) {
    EACH_ROW(rows) {
        put(out + row * width, sum[row][0], past);
        put(out + row * width + LANES, sum[row][1], past);
    }
}

/* out[row * width + 0..PANEL) = the product of one block of rows. */
static inline void product_into(int rows, const struct factors *f, real *out, int64_t width) {
#define BODY(constant)                                                                             \
    do {                                                                                           \
        vec sum[constant][2];                                                                      \
        clear(constant, sum);                                                                      \
        multiply(constant, f, sum);                                                                \
        write(constant, sum, out, width, 0);                                                       \
    } while (0)
    WITH_CONSTANT(rows, BODY)
#undef BODY
}

/* out += the same. */
static inline void product_onto(int rows, const struct factors *f, real *out, int64_t width) {
#define BODY(constant)                                                                             \
    do {                                                                                           \
        vec sum[constant][2];                                                                      \
        clear(constant, sum);                                                                      \
        multiply(constant, f, sum);                                                                \
        EACH_ROW(constant) {                                                                       \
            sum[row][0] += load(out + row * width);                                                \
            sum[row][1] += load(out + row * width + LANES);                                        \
        }                                                                                          \
        write(constant, sum, out, width, 0);                                                       \
    } while (0)
    WITH_CONSTANT(rows, BODY)
#undef BODY
}

/* out = the same less the columns `from` times `radial` (PANEL numbers), `past` the caches. */
static inline void product_less(int rows, const struct factors *f, const real *from,
                                const real *radial, real *out, int64_t width, int past) {
    const vec left = load(radial), right = load(radial + LANES);
#define BODY(constant)                                                                             \
    do {                                                                                           \
        vec sum[constant][2];                                                                      \
        EACH_ROW(constant) {                                                                       \
            sum[row][0] = -load(from + row * PANEL) * left;                                        \
            sum[row][1] = -load(from + row * PANEL + LANES) * right;                               \
        }                                                                                          \
        multiply(constant, f, sum);                                                                \
        write(constant, sum, out, width, past);                                                    \
    } while (0)
    WITH_CONSTANT(rows, BODY)
#undef BODY
}

typedef void block_product(int rows, const struct factors *f, real *out, int64_t width);

/* All rows times all columns, block by block. A column lies `beside` numbers behind the one before
   it, between panels. */
ALWAYS_INLINE void in_blocks(block_product *product, const struct factors *whole, int64_t rows,
                             int64_t columns, int64_t beside, real *out, int64_t width) {
    const struct blocks blocks = blocks_of(rows);
    for (int64_t n = 0; n < columns; n += PANEL)
        for (int64_t b = 0; b < blocks.number; b++) {
            const int64_t first = block_start(blocks, b), last = block_start(blocks, b + 1);
            struct factors f = *whole;
            f.a += first * f.across;
            f.x += n * beside;
            product((int)(last - first), &f, out + first * width + n, width);
        }
}

#endif
