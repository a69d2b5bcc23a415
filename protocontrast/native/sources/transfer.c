/* The nearest prototype of each pixel, how near it is, and the label that is kept. */
#include <stdlib.h>

#include "functions.h"
#include "prototypes.h"

struct sweep {
    const struct transfer_call *call;
    struct spans spans;
    struct prototypes prototypes;
    real *threshold; /* (rows,) */
};

/* The first of the largest logits of a vector of pixels, and the measure of them.

   Logits of equal prototypes are equal to the bit, so no rounding breaks a tie. */
static void find_nearest(const struct sweep *s, const struct tile *t, real *logits, int n,
                         word *best, real *value) {
    const struct prototypes *p = &s->prototypes;
    const vec inverse = load(t->inverse + n);
    vec peak = load(logits + n) * inverse;
    mask first = {0};
    store(logits + n, peak);
    for (int64_t c = 1; c < p->rows; c++) {
        const vec logit = load(logits + c * TILE + n) * inverse;
        const mask better = logit > peak;
        store(logits + c * TILE + n, logit);
        peak = choose(better, logit, peak);
        first = (first & ~better) | (((mask){0} + (word)c) & better);
    }
    memcpy(best + n, &first, sizeof first);
    if (s->call->confidence) {
        const vec least = every(SMALLEST_EXPONENT);
        vec whole = {0};
        for (int64_t c = 0; c < p->rows; c++) {
            const vec exponent = load(logits + c * TILE + n) - peak;
            whole += exponential(choose(exponent < least, least, exponent));
        }
        peak = every(1) / whole;
    }
    store(value + n, peak);
}

static void label_tile(const struct sweep *s, struct tile *t, real *logits, int64_t image,
                       int64_t start) {
    const struct transfer_call *call = s->call;
    const struct prototypes *p = &s->prototypes;
    word best[TILE] = {0};
    real value[TILE] = {0};
    read_tile(t, image, start, call->pixels);
    square_tile(t);
    real squared[TILE];
    memcpy(squared, t->squared, sizeof squared);
    if (call->cosine) measure_tile(t);
    else
        for (int n = 0; n < TILE; n++) t->inverse[n] = 1;
    if (p->rows > 0) {
        score_tile(p, t, logits);
        for (int n = 0; n / PANEL * PANEL < t->count; n += LANES)
            find_nearest(s, t, logits, n, best, value);
    }
    for (int64_t n = 0; n < t->count; n++) {
        const int64_t at = image * call->pixels + start + n;
        if (squared[n] != squared[n]) value[n] = (real)NAN;
        const int kept = p->rows > 0 && value[n] >= s->threshold[best[n]];
        ((int64_t *)call->labels)[at] = kept ? p->class_of[best[n]] : call->ignore_index;
        ((real *)call->values)[at] = value[n];
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
    const struct array *given = &call->class_threshold;
    int failed = prepare_prototypes(&s.prototypes, &call->prototypes, &call->present, call->classes,
                                    call->channels, (int)call->cosine, 0, call->temperature);
    if (!failed) {
        s.threshold = aligned_memory(call->classes * (int64_t)sizeof(real));
        failed = !s.threshold;
    }
    if (!failed) {
        for (int64_t row = 0; row < s.prototypes.rows; row++) {
            s.threshold[row] = (real)call->threshold;
            const int64_t offset = s.prototypes.class_of[row] * given->strides[0];
            if (given->data) widen(given, offset, 1, 1, s.threshold + row);
        }
        const int64_t numbers = tile_numbers(call->channels) + row_numbers(call->channels) +
                                s.prototypes.rows * TILE;
        failed = run_spans(&s.spans, call->machine.threads, numbers * (int64_t)sizeof(real),
                           label_span, &s);
    }
    free(s.threshold);
    free(s.prototypes.memory);
    return failed ? -1 : 0;
}
