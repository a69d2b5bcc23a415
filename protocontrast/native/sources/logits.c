/* Similarities of all pixels to all prototypes over the temperature, and their gradients.
 *
 * z = M f / |f| (cosine), M f (dot) or -|f - p| / tau (euclidean). With slopes g, a = g / |f|:
 * dL/df = M' a - f (sum_c a_c z_c) / |f|,  dL/dM = sum_i a f'; of distances, with
 * a = g / (tau |f - p|):  dL/df = sum_c a_c (p_c - f),  dL/dp_c = sum_i a_ic (f_i - p_c).
 */
#include <stdlib.h>

#include "prototype_distances.h"
#include "members.h"

struct sweep {
    const struct logits_call *call;
    struct spans spans;
    struct prototypes prototypes;
    real *parts; /* [spans][rows][width], gradients of the matrix; null where not wanted */
};

struct work {
    struct tile tile;
    real *logits, *slopes, *gradient, *columns, *distances;
    int apart;
};

static void score(const struct sweep *s, struct work *w, int64_t image, int64_t start) {
    struct tile *t = &w->tile;
    read_tile(t, image, start, s->call->pixels);
    for (int n = 0; n < TILE; n++) t->inverse[n] = 1;
    if (s->call->similarity != DOT) square_tile(t);
    if (s->call->similarity == EUCLIDEAN) {
        const real factor = (real)(-1 / s->call->temperature);
        w->apart = find_distances(&s->prototypes, t, w->distances);
        for (int64_t i = 0; i < s->prototypes.rows * TILE; i++)
            w->logits[i] = factor * w->distances[i];
        return;
    }
    if (s->call->similarity == COSINE) measure_tile(t);
    score_tile(&s->prototypes, t, w->logits);
    for (int64_t c = 0; c < s->prototypes.rows; c++)
        for (int n = 0; n < TILE; n++) w->logits[c * TILE + n] *= t->inverse[n];
}

static void write_logits(const struct sweep *s, const struct work *w) {
    const struct logits_call *call = s->call;
    const struct tile *t = &w->tile;
    for (int64_t c = 0; c < call->classes; c++) {
        const int64_t row = s->prototypes.row_of[c];
        real *to = (real *)call->logits + (t->image * call->classes + c) * call->pixels + t->start;
        if (row >= 0) memcpy(to, w->logits + row * TILE, sizeof(real) * (size_t)t->count);
        else
            for (int64_t n = 0; n < t->count; n++) to[n] = -(real)INFINITY;
    }
}

static void pull_back(const struct sweep *s, struct work *w, real *part) {
    const struct logits_call *call = s->call;
    const struct array *given = &call->grad_output;
    const struct prototypes *p = &s->prototypes;
    struct tile *t = &w->tile;
    real radial[TILE] = {0};
    memset(w->slopes, 0, sizeof(real) * (size_t)(p->rows * TILE));
    for (int64_t c = 0; c < p->rows; c++)
        widen(given, offset_of(given, t->image, p->class_of[c], t->start), given->strides[2],
              t->count, w->slopes + c * TILE);
    if (call->similarity == EUCLIDEAN) {
        pull_distances(p, t, w->distances, w->apart, (real)call->temperature, w->slopes,
                       &call->gradient, w->gradient, w->columns, part);
        return;
    }
    if (call->similarity == COSINE)
        for (int64_t c = 0; c < p->rows; c++)
            for (int64_t n = 0; n < t->count; n++) {
                const real inverse = t->inverse[n], slope = w->slopes[c * TILE + n];
                radial[n] += slope * w->logits[c * TILE + n] * inverse * inverse;
                w->slopes[c * TILE + n] = slope * inverse;
            }
    if (part) pull_matrix(p, t, w->slopes, part);
    if (!call->gradient.data) return;
    /* A product's gradient is free of the features, and 0 times what is not finite is NaN. */
    if (call->similarity == DOT)
        memset(t->panels, 0, sizeof(real) * (size_t)tile_numbers(t->channels));
    pull_features(p, t, w->slopes, radial, &call->gradient, w->gradient, w->columns);
}

static void sweep_span(void *context, int64_t span, void *memory) {
    struct sweep *s = context;
    struct work work, *w = &work;
    const struct room room =
        give_room(&w->tile, &s->call->features, s->call->channels, s->prototypes.rows, memory);
    w->logits = room.logits, w->slopes = room.beside;
    w->gradient = room.gradient, w->columns = room.columns, w->distances = room.distances;
    const int64_t part = s->prototypes.rows * s->prototypes.width;
    real *own = s->parts ? s->parts + span * part : NULL;
    int64_t tile, last;
    span_tiles(&s->spans, span, &tile, &last);
    if (own) memset(own, 0, sizeof(real) * (size_t)part);
    for (; tile < last; tile++) {
        score(s, w, span / s->spans.each, tile * TILE);
        if (s->call->logits) write_logits(s, w);
        else pull_back(s, w, own);
    }
}

int NAME(logits)(const struct logits_call *call) {
    struct sweep s = {.call = call, .spans = spans_of(call->images, call->pixels)};
    const struct array *to = &call->to_prototypes;
    /* A distance is of the prototypes as they are. */
    const double temperature = call->similarity == EUCLIDEAN ? 1 : call->temperature;
    int failed = prepare_prototypes(&s.prototypes, &call->prototypes, &call->present, call->classes,
                                    call->channels, call->similarity == COSINE, 0, temperature);
    if (!failed && to->data) {
        const int64_t part = s.prototypes.rows * s.prototypes.width;
        s.parts = aligned_memory(s.spans.count * part * (int64_t)sizeof(real));
        failed = !s.parts;
    }
    if (!failed)
        failed = run_spans(&s.spans, call->machine.threads,
                           room_bytes(call->channels, s.prototypes.rows), sweep_span, &s);
    if (!failed && to->data) finish_prototypes(&s.prototypes, s.parts, s.spans.count, to);
    free(s.parts);
    free(s.prototypes.memory);
    return failed ? -1 : 0;
}
