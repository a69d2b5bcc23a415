/* Gradient of the features from that of the class sums: each pixel gets its own class's row.
 *
 * Plain dL/df_i = w_i g_y; with q = f / |f| averaged, dL/df_i = w_i (g_y - q (g_y . q)) / |f|.
 */
#include <stdlib.h>

#include "members.h"

struct sweep {
    const struct class_sums_backward_call *call;
    struct spans spans;
    struct members members;
    int64_t width;
    real *table; /* [groups][classes][width] */
};

static void differentiate_row(const struct sweep *s, const real *grad, real weight, const real *row,
                         real *copy, real *to) {
    const int64_t D = s->call->channels;
    if (!s->call->normalize) {
        for (int64_t d = 0; d < D; d++) to[d] = weight * grad[d];
        return;
    }
    real size;
    const real inverse = unit_factor(&row, D, copy, &size);
    const real factor = weight * inverse, radial = dot(grad, row, D) * inverse * inverse;
    for (int64_t d = 0; d < D; d++) to[d] = factor * (grad[d] - row[d] * radial) / size;
}

static void pull_tile(const struct sweep *s, struct tile *t, int64_t image, int64_t start,
                      real *copy) {
    const struct class_sums_backward_call *call = s->call;
    const int64_t D = t->channels, own = row_width(D);
    const int64_t count = call->pixels - start < TILE ? call->pixels - start : TILE;
    const int64_t group = call->groups > 1 ? image : 0;
    struct membership m;
    int64_t width = 0;
    const real *rows = NULL;
    read_members(&s->members, image, start, count, &m);
    if (call->normalize) rows = read_rows(t, image, start, call->pixels, &width);
    t->image = image, t->start = start, t->count = count, t->scaled = 0;
    for (int64_t n = 0; n < count; n++) {
        real *to = t->rows + n * own;
        if (m.class_of[n] < 0) {
            memset(to, 0, sizeof(real) * (size_t)D);
            continue;
        }
        const real *grad = s->table + (group * call->classes + m.class_of[n]) * s->width;
        differentiate_row(s, grad, m.weight[n], rows ? rows + n * width : NULL, copy, to);
    }
    write_rows(t, &call->gradient);
}

static void pull_span(void *context, int64_t span, void *memory) {
    struct sweep *s = context;
    const int64_t D = s->call->channels;
    struct tile t = {.features = &s->call->features, .channels = D, .panels = memory};
    t.rows = t.panels + tile_numbers(D);
    real *copy = t.rows + row_numbers(D);
    int64_t tile, last;
    span_tiles(&s->spans, span, &tile, &last);
    for (; tile < last; tile++) pull_tile(s, &t, span / s->spans.each, tile * TILE, copy);
}

int NAME(class_sums_backward)(const struct class_sums_backward_call *call) {
    struct sweep s = {.call = call, .spans = spans_of(call->images, call->pixels)};
    const int64_t D = call->channels, C = call->classes;
    s.members = (struct members){&call->labels, &call->pixel_weight, C, call->ignore_index};
    s.width = row_width(D);
    s.table = aligned_memory(call->groups * C * s.width * (int64_t)sizeof(real));
    if (!s.table) return -1;
    const struct array *up = &call->grad_output;
    for (int64_t i = 0; up->data && i < call->groups * C; i++)
        widen(up, i / C * up->strides[0] + i % C * up->strides[1], up->strides[2], D,
              s.table + i * s.width);
    const int64_t numbers = tile_numbers(D) + row_numbers(D) + s.width;
    const int failed = run_spans(&s.spans, call->machine.threads,
                                 numbers * (int64_t)sizeof(real), pull_span, &s);
    free(s.table);
    return failed ? -1 : 0;
}
