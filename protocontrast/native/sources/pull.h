/* From the slopes of a tile's logits to the gradients of its features and of the matrix. */
#ifndef PULL_H
#define PULL_H

#include "prototypes.h"

/* dL/df = M' a - f * radial, a few channels at a time, with a as [rows][TILE]; `panels` and
   `columns` are memory for a tile, where the gradient cannot be written as it lies. */
static inline void pull_features(const struct prototypes *p, const struct tile *t, const real *a,
                                 const real *radial, const struct array *gradient, real *panels,
                                 real *columns) {
    const int64_t D = t->channels;
    const struct blocks blocks = blocks_of(D);
    real *direct = in_place(t, gradient);
    const int past = direct && streams(gradient, offset_of(gradient, t->image, 0, t->start), D,
                                       sizeof(real));
    for (int64_t n = 0; n < t->count; n += PANEL)
        for (int64_t b = 0; b < blocks.number; b++) {
            const int64_t d = block_start(blocks, b), rows = block_start(blocks, b + 1) - d;
            const struct factors f = {p->matrix + d, 1, p->width, a + n, TILE, p->rows};
            const real *from = t->panels + n * D + d * PANEL;
            real *to = direct ? direct + d * gradient->strides[1] + n : panels + n * D + d * PANEL;
            const int64_t width = direct ? gradient->strides[1] : PANEL;
            product_less((int)rows, &f, from, radial + n, to, width, past);
        }
    if (!direct) write_tile(t, panels, gradient, columns);
}

/* dL/dM += a f', pixels being what is summed over; the tile's rows are overwritten. */
static inline void pull_matrix(const struct prototypes *p, struct tile *t, const real *a,
                               real *part) {
    const int64_t width = row_width(t->channels);
    const struct factors f = {a, TILE, 1, t->rows, width, t->count};
    panels_to_rows(t->panels, t->count, t->channels, t->rows, width);
    in_blocks(product_onto, &f, p->rows, t->channels, 1, part, width);
}

#endif
