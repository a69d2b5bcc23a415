/* A gradient that was written before its factor was known, in place, in one pass: each pixel times
 * the factor of its class, plus the row that all pixels of the class share.
 */
#include <stdlib.h>

#include "members.h"

struct sweep {
    const struct rescale_call *call;
    struct spans spans;
    struct members members;
    int64_t width;
    real *rows;    /* [groups][classes + 1][width], the last one 0 */
    real *factors; /* [classes + 1], the last one of pixels without a class */
};

/* A tile's factors, and the row that each pixel takes. */
struct taken {
    real factor[TILE];
    const real *row[TILE];
};

static void read_classes(const struct sweep *s, int64_t image, int64_t start, int64_t count,
                         struct taken *to) {
    const int64_t C = s->call->classes, group = s->call->groups > 1 ? image : 0;
    struct membership m;
    read_members(&s->members, image, start, count, &m);
    for (int64_t n = 0; n < TILE; n++) {
        const int64_t class = n < count && m.class_of[n] >= 0 ? m.class_of[n] : C;
        to->factor[n] = s->factors[class];
        to->row[n] = s->rows + (group * (C + 1) + class) * s->width;
    }
}

/* 0 wins over NaN. */
ALWAYS_INLINE real rescaled(real value, real factor, real row) {
    return (factor == 0 ? 0 : value * factor) + row;
}

/* A whole tile of columns `stride` apart, as they lie, of as many channels as quads divide. */
static void rescale_columns(const struct taken *by, int64_t channels, int has_rows, real *columns,
                            int64_t stride) {
    const vec zero = {0};
    real turned[QUAD * TILE] = {0};
    for (int64_t d = 0; d < channels; d += QUAD) {
        for (int64_t k = 0; k < QUAD; k++)
            ask_for(columns + (d + k) * stride + TILE, TILE * sizeof(real));
        for (int64_t n = 0; has_rows && n < TILE; n += QUAD)
            transpose_quads(by->row + n, d, turned + n, TILE);
        for (int64_t k = 0; k < QUAD; k++) {
            real *at = columns + (d + k) * stride;
            for (int64_t n = 0; n < TILE; n += LANES) {
                const vec factor = load(by->factor + n), value = load(at + n) * factor;
                const vec own = choose(factor == zero, zero, value);
                store(at + n, own + load(turned + k * TILE + n));
            }
        }
    }
}

/* Pixels whose channels lie together, as they lie. */
static void rescale_rows(const struct taken *by, int64_t count, int64_t channels, real *rows,
                         int64_t stride) {
    for (int64_t n = 0; n < count; n++) {
        const real factor = by->factor[n], *restrict row = by->row[n];
        real *restrict at = rows + n * stride;
        if (factor == 0) memcpy(at, row, sizeof(real) * (size_t)channels);
        else
            for (int64_t d = 0; d < channels; d++) at[d] = at[d] * factor + row[d];
    }
}

static void rescale_tile(const struct sweep *s, struct tile *t, int64_t image, int64_t start) {
    const struct array *g = &s->call->gradient;
    const int64_t D = t->channels, count = s->call->pixels - start;
    struct taken by;
    t->image = image, t->start = start, t->count = count < TILE ? count : TILE, t->scaled = 0;
    read_classes(s, image, start, t->count, &by);
    real *direct = in_place(t, g);
    if (direct && D % QUAD == 0) {
        rescale_columns(&by, D, s->call->rows.data != NULL, direct, g->strides[1]);
        return;
    }
    if (g->strides[1] == 1 && g->strides[2] != 1 && g->dtype == REAL_DTYPE) {
        rescale_rows(&by, t->count, D, (real *)g->data + offset_of(g, image, 0, start),
                     g->strides[2]);
        return;
    }
    read_tile(t, image, start, s->call->pixels);
    for (int64_t n = 0; n < t->count; n++) {
        real *column = t->panels + in_panels(n, D);
        for (int64_t d = 0; d < D; d++)
            column[d * PANEL] = rescaled(column[d * PANEL], by.factor[n], by.row[n][d]);
    }
    write_tile(t, t->panels, g, t->rows);
}

static void rescale_span(void *context, int64_t span, void *memory) {
    struct sweep *s = context;
    struct tile t = {.features = &s->call->gradient, .channels = s->call->channels};
    t.panels = memory;
    t.rows = t.panels + tile_numbers(t.channels);
    int64_t tile, last;
    span_tiles(&s->spans, span, &tile, &last);
    for (; tile < last; tile++) rescale_tile(s, &t, span / s->spans.each, tile * TILE);
}

int NAME(rescale)(const struct rescale_call *call) {
    static const struct array none;
    struct sweep s = {.call = call, .spans = spans_of(call->images, call->pixels)};
    const int64_t C = call->classes, D = call->channels, count = call->groups * (C + 1);
    s.members = (struct members){&call->labels, &none, C, call->ignore_index};
    s.width = row_width(D);
    s.rows = aligned_memory((count * s.width + C + 1) * (int64_t)sizeof(real));
    if (!s.rows) return -1;
    s.factors = s.rows + count * s.width;
    memset(s.rows, 0, sizeof(real) * (size_t)(count * s.width));
    const struct array *rows = &call->rows, *factors = &call->factors;
    for (int64_t i = 0; rows->data && i < count; i++) {
        real *to = s.rows + i * s.width;
        if (i % (C + 1) == C) continue;
        widen(rows, i / (C + 1) * rows->strides[0] + i % (C + 1) * rows->strides[1],
              rows->strides[2], D, to);
        for (int64_t d = 0; d < D; d++) to[d] *= (real)call->row_factor;
    }
    widen(factors, 0, factors->strides[0], C + 1, s.factors);
    const int64_t numbers = tile_numbers(D) + row_numbers(D);
    const int failed = run_spans(&s.spans, call->machine.threads,
                                 numbers * (int64_t)sizeof(real), rescale_span, &s);
    free(s.rows);
    return failed ? -1 : 0;
}
