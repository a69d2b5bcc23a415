/* Class sums and counts in one read: each pixel's row is added to the row of its class. */
#include "totals.h"

#define AHEAD 16 /* rows: where some are left out, no processor foresees the next ones */

struct sweep {
    const struct class_sums_call *call;
    struct spans spans;
    struct members members;
    struct totals totals;
};

static int64_t scratch_bytes(const struct totals *t) {
    const int64_t D = t->channels;
    const int64_t numbers = tile_numbers(D) + row_numbers(D) + t->width + t->part;
    return (int64_t)sizeof(real) * numbers;
}

static void add_tile(const struct sweep *s, struct tile *t, int64_t image, int64_t start,
                     real *copy, real *recent, double *counts) {
    const int64_t D = t->channels, pixels = s->call->pixels;
    const int64_t count = pixels - start < TILE ? pixels - start : TILE;
    struct membership m;
    int64_t width;
    read_members(&s->members, image, start, count, &m);
    if (!m.used) return;
    const real *rows = read_rows(t, image, start, pixels, &width);
    for (int64_t i = 0; i < m.used; i++) {
        const int64_t n = m.pixel[i];
        const real *row = rows + n * width;
        real factor = m.weight[n], size;
        if (rows != t->rows) ask_for(row + AHEAD * width, D * (int64_t)sizeof *row);
        counts[m.class_of[n]] += factor;
        if (s->call->normalize) factor *= unit_factor(&row, D, copy, &size);
        add_row(recent + m.class_of[n] * s->totals.width, row, factor, D);
    }
}

static void add_span(void *context, int64_t span, void *memory) {
    struct sweep *s = context;
    const struct totals *totals = &s->totals;
    const int64_t D = s->call->channels, recently = recent_tiles(s->call->classes);
    double *counts = totals->counts + span * totals->classes;
    struct tile t = {.features = &s->call->features, .channels = D, .panels = memory};
    t.rows = t.panels + tile_numbers(D);
    real *copy = t.rows + row_numbers(D), *recent = copy + totals->width;
    int64_t first, last;
    span_tiles(&s->spans, span, &first, &last);
    begin_totals(totals, span, recent);
    for (int64_t tile = first; tile < last; tile++) {
        add_tile(s, &t, span / s->spans.each, tile * TILE, copy, recent, counts);
        if ((tile - first + 1) % recently == 0) join_recent(totals, span, recent);
    }
    join_recent(totals, span, recent);
}

int NAME(class_sums)(const struct class_sums_call *call) {
    struct sweep s = {.call = call, .spans = spans_of(call->images, call->pixels)};
    s.members = (struct members){&call->labels, &call->pixel_weight, call->classes,
                                 call->ignore_index};
    int failed = prepare_totals(&s.totals, s.spans.count, call->classes, call->channels);
    if (!failed)
        failed = run_spans(&s.spans, call->machine.threads, scratch_bytes(&s.totals), add_span, &s);
    if (!failed)
        add_totals(&s.totals, &s.spans, (int)call->per_image, call->sums, call->counts);
    free_totals(&s.totals);
    return failed ? -1 : 0;
}
