/* Class sums and counts in one read: each pixel's row is added to the row of its class. */
#include <stdlib.h>

#include "members.h"

/* Tiles that are added one pixel after another before their sum joins the others, to keep digits:
   so few that little is lost, and so many that the joining of all classes costs little. */
static int64_t recent_tiles(int64_t classes) { return classes > 32 ? classes / 4 : 8; }

struct sweep {
    const struct class_sums_call *call;
    struct spans spans;
    struct members members;
    int64_t width, part; /* of a row, and of all rows of a span */
    real *sums;          /* [spans][classes][width] */
    double *counts;      /* [spans][classes] */
};

static int64_t scratch_bytes(const struct sweep *s) {
    const int64_t D = s->call->channels;
    const int64_t numbers = tile_numbers(D) + row_numbers(D) + s->width + s->part;
    return (int64_t)sizeof(real) * numbers;
}

static void add_row(real *to, const real *row, real factor, int64_t count) {
    int64_t d = 0;
    for (; d + LANES <= count; d += LANES) store(to + d, load(to + d) + factor * load(row + d));
    for (; d < count; d++) to[d] += factor * row[d];
}

static void add_tile(const struct sweep *s, struct tile *t, int64_t image, int64_t start,
                     real *copy, real *recent, double *counts) {
    const int64_t D = t->channels, pixels = s->call->pixels;
    const int64_t count = pixels - start < TILE ? pixels - start : TILE;
    struct membership m;
    int used = 0;
    int64_t width;
    read_members(&s->members, image, start, count, &m);
    for (int64_t n = 0; n < count; n++) used |= m.class_of[n] >= 0;
    if (!used) return;
    const real *rows = read_rows(t, image, start, pixels, &width);
    for (int64_t n = 0; n < count; n++) {
        if (m.class_of[n] < 0) continue;
        const real *row = rows + n * width;
        real factor = m.weight[n], size;
        counts[m.class_of[n]] += factor;
        if (s->call->normalize) factor *= unit_factor(&row, D, copy, &size);
        add_row(recent + m.class_of[n] * s->width, row, factor, D);
    }
}

static void add_span(void *context, int64_t span, void *memory) {
    struct sweep *s = context;
    const int64_t D = s->call->channels, recently = recent_tiles(s->call->classes);
    real *own = s->sums + span * s->part;
    double *counts = s->counts + span * s->call->classes;
    struct tile t = {.features = &s->call->features, .channels = D, .panels = memory};
    t.rows = t.panels + tile_numbers(D);
    real *copy = t.rows + row_numbers(D), *recent = copy + s->width;
    int64_t tile, last;
    span_tiles(&s->spans, span, &tile, &last);
    for (int64_t i = 0; i < s->part; i++) own[i] = 0;
    for (int64_t c = 0; c < s->call->classes; c++) counts[c] = 0;
    while (tile < last) {
        const int64_t stop = tile + recently < last ? tile + recently : last;
        for (int64_t i = 0; i < s->part; i++) recent[i] = 0;
        for (; tile < stop; tile++)
            add_tile(s, &t, span / s->spans.each, tile * TILE, copy, recent, counts);
        for (int64_t i = 0; i < s->part; i++) own[i] += recent[i];
    }
}

/* The spans of each group, in order. */
static void add_groups(const struct sweep *s) {
    const struct class_sums_call *call = s->call;
    const int64_t D = call->channels, C = call->classes;
    for (int64_t span = 0; span < s->spans.count; span++) {
        const int64_t group = call->per_image ? span / s->spans.each : 0;
        for (int64_t c = 0; c < C; c++) {
            real *to = (real *)call->sums + (group * C + c) * D;
            const real *from = s->sums + span * s->part + c * s->width;
            for (int64_t d = 0; d < D; d++) to[d] += from[d];
            ((real *)call->counts)[group * C + c] += (real)s->counts[span * C + c];
        }
    }
}

int NAME(class_sums)(const struct class_sums_call *call) {
    struct sweep s = {.call = call, .spans = spans_of(call->images, call->pixels)};
    s.members = (struct members){&call->labels, &call->pixel_weight, call->classes,
                                 call->ignore_index};
    s.width = row_width(call->channels);
    s.part = call->classes * s.width;
    s.sums = aligned_memory(s.spans.count * s.part * (int64_t)sizeof(real));
    s.counts = aligned_memory(s.spans.count * call->classes * (int64_t)sizeof(double));
    int failed = !s.sums || !s.counts;
    if (!failed)
        failed = run_spans(&s.spans, call->machine.threads, scratch_bytes(&s), add_span, &s);
    if (!failed) add_groups(&s);
    free(s.sums);
    free(s.counts);
    return failed ? -1 : 0;
}
