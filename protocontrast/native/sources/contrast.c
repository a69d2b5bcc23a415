/* Contrast of pixels and prototypes: loss and gradients in one sweep over tiles (softmax.h).
 *
 * With a as there, dL/dM = sum_i a_i f'_i; of distances see prototype_distances.h.
 */
#include <stdlib.h>

#include "prototype_distances.h"
#include "softmax.h"

struct sweep {
    const struct contrast_call *call;
    struct spans spans;
    struct prototypes prototypes;
    struct targets targets;
    struct softmax softmax;
    real *parts;  /* [spans][rows][width], gradients of the matrix; null where not wanted */
    double *sums; /* [spans]: masses, then losses */
};

static struct work *work_of(const struct sweep *s, void *memory) {
    return laid_out(&s->call->features, s->call->channels, s->prototypes.rows, memory);
}

/* Logits before they are divided by lengths; of distances, whether all are apart. */
static int score(const struct sweep *s, struct work *w) {
    const struct prototypes *p = &s->prototypes;
    struct tile *t = &w->tile;
    if (s->call->similarity == COSINE) measure_tile(t);
    else
        for (int n = 0; n < TILE; n++) t->inverse[n] = 1;
    if (s->call->similarity != EUCLIDEAN) {
        score_tile(p, t, w->logits);
        return 1;
    }
    const real factor = (real)(-1 / s->call->temperature);
    const int apart = find_distances(p, t, w->distances);
    for (int64_t i = 0; i < p->rows * TILE; i++) w->logits[i] = factor * w->distances[i];
    return apart;
}

static void sweep_tile(const struct sweep *s, struct work *w, int64_t image, int64_t start,
                       real *part, double *total) {
    const struct contrast_call *call = s->call;
    const int64_t count = call->pixels - start < TILE ? call->pixels - start : TILE;
    const int64_t offset = image * call->pixels + start;
    struct tile *t = &w->tile;
    read_masses(&s->targets, image, start, call->pixels, &w->masses);
    if (all_ignored(&w->masses)) {
        for (int n = 0; n < TILE; n++) w->loss[n] = 0, w->lse[n] = INFINITY;
        t->image = image, t->start = start, t->count = count;
        if (call->gradient.data) clear_gradient(w, &call->gradient);
    } else {
        read_tile(t, image, start, call->pixels);
        square_tile(t);
        clear_ignored(t, w->masses.weight);
        const int apart = score(s, w);
        soften_tile(&s->softmax, w);
        if (call->similarity == EUCLIDEAN) {
            pull_distances(&s->prototypes, t, w->distances, apart, (real)call->temperature,
                           w->logits, &call->gradient, w->gradient, w->columns, part);
        } else {
            if (call->gradient.data) write_gradient(&s->prototypes, w, &call->gradient);
            if (part) pull_matrix(&s->prototypes, t, w->logits, part);
        }
    }
    *total += sum_of(w->loss, count);
    write_pixels(call->loss, offset, count, w->loss);
    write_pixels(call->weight, offset, count, w->masses.weight);
    write_pixels(call->lse, offset, count, w->lse);
}

static void sweep_span(void *context, int64_t span, void *memory) {
    struct sweep *s = context;
    struct work *w = work_of(s, memory);
    const int64_t part = s->prototypes.rows * s->prototypes.width;
    int64_t tile, last;
    double total = 0;
    span_tiles(&s->spans, span, &tile, &last);
    real *own = s->parts ? s->parts + span * part : NULL;
    if (own) memset(own, 0, sizeof(real) * (size_t)part);
    for (; tile < last; tile++)
        sweep_tile(s, w, span / s->spans.each, tile * TILE, own, &total);
    s->sums[span] = total;
}

static void weigh_span(void *context, int64_t span, void *memory) {
    struct sweep *s = context;
    struct work *w = work_of(s, memory);
    int64_t tile, last;
    double total = 0;
    span_tiles(&s->spans, span, &tile, &last);
    for (; tile < last; tile++) {
        read_masses(&s->targets, span / s->spans.each, tile * TILE, s->call->pixels, &w->masses);
        total += sum_of(w->masses.weight, TILE);
    }
    s->sums[span] = total;
}

static double summed(const struct sweep *s) {
    double total = 0;
    for (int64_t i = 0; i < s->spans.count; i++) total += s->sums[i];
    return total;
}

static int run(struct sweep *s) {
    const struct contrast_call *call = s->call;
    const int64_t bytes = work_bytes(call->channels, s->prototypes.rows);
    const int64_t threads = call->machine.threads;
    if (call->mean) {
        if (run_spans(&s->spans, threads, bytes, weigh_span, s)) return -1;
        const real whole = (real)summed(s);
        s->targets.whole = whole == 0 ? 1 : whole;
    }
    if (run_spans(&s->spans, threads, bytes, sweep_span, s)) return -1;
    if (call->total) *(real *)call->total = (real)summed(s);
    if (call->to_prototypes.data)
        finish_prototypes(&s->prototypes, s->parts, s->spans.count, &call->to_prototypes);
    return 0;
}

int NAME(contrast)(const struct contrast_call *call) {
    struct sweep s = {.call = call, .spans = spans_of(call->images, call->pixels)};
    const int64_t C = call->classes;
    real *class_weight = NULL;
    /* A distance is of the prototypes as they are. */
    const double temperature = call->similarity == EUCLIDEAN ? 1 : call->temperature;
    int failed = prepare_prototypes(&s.prototypes, &call->prototypes, &call->present, C,
                                    call->channels, call->similarity == COSINE,
                                    (int)call->keep_absent, temperature);
    if (!failed) {
        const int64_t part = s.prototypes.rows * s.prototypes.width;
        class_weight = aligned_memory((C + 1) * (int64_t)sizeof *class_weight);
        s.sums = aligned_memory(s.spans.count * (int64_t)sizeof *s.sums);
        failed = !class_weight || !s.sums;
        if (call->to_prototypes.data) {
            s.parts = aligned_memory(s.spans.count * part * (int64_t)sizeof(real));
            failed |= !s.parts;
        }
    }
    if (!failed) {
        read_class_weight(&s.prototypes, &call->class_weight, (int)call->keep_absent, class_weight);
        s.targets = (struct targets){&call->labels,   &call->pixel_weight, &call->grad_output,
                                     &s.prototypes,   class_weight,     (int)call->soft,
                                     call->ignore_index, 1};
        s.softmax = softmax_of(&s.prototypes, (int)call->soft);
        failed = run(&s);
    }
    free(s.parts);
    free(s.sums);
    free(class_weight);
    free(s.prototypes.memory);
    return failed ? -1 : 0;
}
