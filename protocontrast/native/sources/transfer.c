/* The label of each pixel's nearest prototype, where that is near enough. */
#include <stdlib.h>

#include "nearest.h"

struct sweep {
    const struct transfer_call *call;
    struct spans spans;
    struct prototypes prototypes;
    struct nearest nearest;
};

static void label_tile(const struct sweep *s, struct tile *t, real *logits, int64_t image,
                       int64_t start) {
    const struct transfer_call *call = s->call;
    struct found found;
    real squared[TILE];
    read_tile(t, image, start, call->pixels);
    square_tile(t);
    memcpy(squared, t->squared, sizeof squared);
    if (call->cosine) measure_tile(t);
    else
        for (int n = 0; n < TILE; n++) t->inverse[n] = 1;
    score_tile(&s->prototypes, t, logits);
    find_nearest(&s->nearest, t, logits, squared, &found);
    for (int64_t n = 0; n < t->count; n++) {
        const int64_t at = image * call->pixels + start + n;
        const int32_t label = class_found(&s->nearest, &found, n);
        ((int64_t *)call->labels)[at] = label < 0 ? call->ignore_index : label;
        ((real *)call->values)[at] = found.value[n];
    }
}

static void label_span(void *context, int64_t span, void *memory) {
    struct sweep *s = context;
    struct tile t = {.features = &s->call->features, .channels = s->call->channels};
    t.panels = memory;
    t.rows = t.panels + tile_numbers(t.channels);
    real *logits = t.rows + row_numbers(t.channels);
    int64_t tile, last;
    span_tiles(&s->spans, span, &tile, &last);
    for (; tile < last; tile++) label_tile(s, &t, logits, span / s->spans.each, tile * TILE);
}

int NAME(transfer)(const struct transfer_call *call) {
    struct sweep s = {.call = call, .spans = spans_of(call->images, call->pixels)};
    int failed = prepare_prototypes(&s.prototypes, &call->prototypes, &call->present, call->classes,
                                    call->channels, (int)call->cosine, 0, call->temperature);
    if (!failed)
        failed = prepare_nearest(&s.nearest, &s.prototypes, (int)call->confidence, call->threshold,
                                 &call->class_threshold);
    if (!failed) {
        const int64_t numbers = tile_numbers(call->channels) + row_numbers(call->channels) +
                                s.prototypes.rows * TILE;
        failed = run_spans(&s.spans, call->machine.threads, numbers * (int64_t)sizeof(real),
                           label_span, &s);
    }
    free(s.nearest.threshold);
    free(s.prototypes.memory);
    return failed ? -1 : 0;
}
