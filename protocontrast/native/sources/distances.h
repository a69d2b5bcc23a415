/* Products of differences: |f|^2 + |p|^2 - 2 f.p has no digit left where two rows are close. */
#ifndef DISTANCES_H
#define DISTANCES_H

#include "product.h"

/* out[row * width + 0..PANEL) = the squared distances of a block of rows from the columns. */
static inline void squares_into(int rows, const struct factors *f, real *out, int64_t width) {
#define BODY(constant)                                                                             \
    do {                                                                                           \
        vec sum[constant][2];                                                                      \
        clear(constant, sum);                                                                      \
        for (int64_t step = 0; step < f->steps; step++) {                                          \
            const real *x = f->x + step * f->next;                                                 \
            const vec left = load(x), right = load(x + LANES);                                     \
            EACH_ROW(constant) {                                                                   \
                const vec own = every(f->a[row * f->across + step * f->along]);                    \
                sum[row][0] += (own - left) * (own - left);                                        \
                sum[row][1] += (own - right) * (own - right);                                      \
            }                                                                                      \
        }                                                                                          \
        write(constant, sum, out, width, 0);                                                       \
    } while (0)
    WITH_CONSTANT(rows, BODY)
#undef BODY
}

/* out[row * width + 0..count) += the sum over steps of a[row, step] (x[step] - own[row]). */
static inline void add_differences(int64_t rows, const struct factors *f, const real *own,
                                   real *out, int64_t width, int64_t count) {
    for (int64_t row = 0; row < rows; row++)
        for (int64_t d = 0; d < count; d += LANES) {
            const vec from = load(own + row * width + d);
            vec sum = {0};
            for (int64_t step = 0; step < f->steps; step++) {
                const real factor = f->a[row * f->across + step * f->along];
                sum += every(factor) * (load(f->x + step * f->next + d) - from);
            }
            store(out + row * width + d, load(out + row * width + d) + sum);
        }
}

#endif
