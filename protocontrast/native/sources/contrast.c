/* Contrast of pixels and prototypes: loss and gradients in one sweep over tiles.
 *
 * z = M f / |f| (cosine) or M f (dot), loss_i = w_i logsumexp z - sum_c t_ic z_c, and with
 * a = (w_i softmax z - t_i) / |f|:  dL/df = M' a - f (sum_c a_c z_c) / |f|,  dL/dM = sum_i a f'.
 */
#include <stdlib.h>

#include "functions.h"
#include "targets.h"

/* exp of logits this large, and one over it, times the number of classes, are normal in float32. */
#define LARGEST_EXPONENT 60

struct sweep {
    const struct contrast_call *call;
    struct spans spans;
    struct prototypes prototypes;
    struct targets targets;
    int bounded;      /* exp of a logit needs no peak */
    real *parts;      /* [spans][rows][width], gradients of the matrix; null where not wanted */
    double *sums;     /* [spans]: masses, then losses */
};

struct scratch {
    struct tile tile;
    struct masses masses;
    real *logits, *gradient, *columns;
};

static int64_t scratch_bytes(const struct sweep *s) {
    const int64_t D = s->call->channels, rows = s->prototypes.rows;
    const int64_t numbers = 2 * tile_numbers(D) + 2 * row_numbers(D) + 2 * rows * TILE;
    return (int64_t)sizeof(struct scratch) + 64 + numbers * (int64_t)sizeof(real);
}

static struct scratch *laid_out(const struct sweep *s, void *memory) {
    struct scratch *w = memory;
    const int64_t D = s->call->channels, rows = s->prototypes.rows;
    const int64_t head = ((int64_t)sizeof *w + 63) / 64 * 64;
    w->tile.features = &s->call->features;
    w->tile.channels = D;
    w->tile.panels = (real *)((char *)memory + head);
    w->gradient = w->tile.panels + tile_numbers(D);
    w->tile.rows = w->gradient + tile_numbers(D);
    w->columns = w->tile.rows + row_numbers(D);
    w->logits = w->columns + row_numbers(D);
    w->masses.soft = w->logits + rows * TILE;
    return w;
}

/* sum_c t_ic z_c of the tile. */
static void find_target_logits(const struct sweep *s, const struct scratch *w, real *target_logit) {
    const struct prototypes *p = &s->prototypes;
    for (int n = 0; n < TILE; n++) {
        const real at_floor = w->masses.at_floor[n];
        target_logit[n] = at_floor == 0 ? 0 : at_floor * p->floor;
    }
    if (!s->targets.soft) {
        for (int n = 0; n < TILE; n++)
            if (w->masses.label[n] >= 0) {
                const real logit = w->logits[w->masses.label[n] * TILE + n] * w->tile.inverse[n];
                target_logit[n] += w->masses.weight[n] * logit;
            }
        return;
    }
    for (int64_t c = 0; c < p->rows; c++)
        for (int n = 0; n < TILE; n++) {
            const real mass = w->masses.soft[c * TILE + n];
            const real logit = w->logits[c * TILE + n] * w->tile.inverse[n];
            target_logit[n] += mass == 0 ? 0 : mass * logit;
        }
}

/* One vector of pixels: logits become a, and the loss, log-sum-exp and radial part are written. */
ALWAYS_INLINE void soften(const struct sweep *s, struct scratch *w, int n, const real *target_logit,
                          real *loss, real *lse, real *radial, const int bounded) {
    const struct prototypes *p = &s->prototypes;
    const vec zero = {0}, inverse = load(w->tile.inverse + n), weight = load(w->masses.weight + n);
    const vec least = every(SMALLEST_EXPONENT);
    vec peak = zero, sum, with_logit = zero;
    if (!bounded) {
        peak = every(p->absent > 0 ? p->floor : (real)-LARGEST);
        for (int64_t c = 0; c < p->rows; c++)
            peak = larger(load(w->logits + c * TILE + n) * inverse, peak);
        sum = p->absent * exponential(larger(every(p->floor) - peak, least));
    } else {
        sum = p->absent * exponential(every(p->floor));
    }
    if (p->absent == 0) sum = zero;
    for (int64_t c = 0; c < p->rows; c++) {
        real *at = w->logits + c * TILE + n;
        const vec logit = load(at) * inverse;
        vec exponent = logit;
        if (!bounded) {
            exponent = logit - peak;
            exponent = choose(exponent < least, least, exponent);
        }
        const vec term = exponential(exponent);
        sum += term;
        with_logit += term * logit;
        store(at, term);
    }
    const mask ignored = weight == zero;
    const vec whole = logarithm(sum) + peak, pull = load(target_logit + n);
    store(loss + n, choose(ignored, zero, weight * whole - pull));
    store(lse + n, choose(ignored, every((real)INFINITY), whole));
    const vec factor = choose(ignored, zero, weight / sum);
    for (int64_t c = 0; c < p->rows; c++) {
        real *at = w->logits + c * TILE + n;
        store(at, load(at) * (factor * inverse));
    }
    if (!p->cosine) {
        store(radial + n, zero);
        return;
    }
    vec at_rows = pull;
    if (p->absent > 0) at_rows = pull - load(w->masses.at_floor + n) * p->floor;
    store(radial + n, choose(ignored, zero, (with_logit * factor - at_rows) * inverse * inverse));
}

/* a less the targets, which lie in memory by class. */
static void subtract_targets(const struct sweep *s, struct scratch *w) {
    const struct masses *m = &w->masses;
    if (!s->targets.soft) {
        for (int n = 0; n < TILE; n++)
            if (m->label[n] >= 0)
                w->logits[m->label[n] * TILE + n] -= m->weight[n] * w->tile.inverse[n];
        return;
    }
    for (int64_t c = 0; c < s->prototypes.rows; c++)
        for (int n = 0; n < TILE; n++)
            w->logits[c * TILE + n] -= m->soft[c * TILE + n] * w->tile.inverse[n];
}

/* dL/df = M' a - f * radial, a few channels at a time. */
static void pull_features(const struct sweep *s, struct scratch *w, const real *radial) {
    const struct prototypes *p = &s->prototypes;
    const struct array *gradient = &s->call->gradient;
    struct tile *t = &w->tile;
    const int64_t D = t->channels;
    const struct blocks blocks = blocks_of(D);
    real *direct = in_place(t, gradient);
    for (int64_t n = 0; n < t->count; n += PANEL)
        for (int64_t b = 0; b < blocks.number; b++) {
            const int64_t d = block_start(blocks, b), rows = block_start(blocks, b + 1) - d;
            const struct factors f = {p->matrix + d, 1, p->width, w->logits + n, TILE, p->rows};
            const real *from = t->panels + n * D + d * PANEL;
            real *to = direct ? direct + d * gradient->strides[1] + n
                              : w->gradient + n * D + d * PANEL;
            const int64_t width = direct ? gradient->strides[1] : PANEL;
            product_less((int)rows, &f, from, radial + n, to, width);
        }
    if (!direct) write_tile(t, w->gradient, gradient, w->columns);
}

/* dL/dM += a f', pixels being what is summed over. */
static void pull_matrix(const struct sweep *s, struct scratch *w, real *part) {
    const struct prototypes *p = &s->prototypes;
    struct tile *t = &w->tile;
    const int64_t width = row_width(t->channels);
    const struct blocks blocks = blocks_of(p->rows);
    panels_to_rows(t->panels, t->count, t->channels, t->rows, width);
    for (int64_t d = 0; d < t->channels; d += PANEL)
        for (int64_t b = 0; b < blocks.number; b++) {
            const int64_t first = block_start(blocks, b), rows = block_start(blocks, b + 1) - first;
            const struct factors f = {w->logits + first * TILE, TILE, 1,
                                      t->rows + d,              width, t->count};
            product_onto((int)rows, &f, part + first * width + d, width);
        }
}

static void fill_ignored(const struct sweep *s, struct scratch *w) {
    memset(w->gradient, 0, sizeof(real) * (size_t)tile_numbers(w->tile.channels));
    w->tile.scaled = 0;
    write_tile(&w->tile, w->gradient, &s->call->gradient, w->columns);
}

static int all_ignored(const struct masses *m) {
    int used = 0;
    for (int n = 0; n < TILE; n++) used |= m->weight[n] != 0;
    return !used;
}

static void write_pixels(void *to, int64_t offset, int64_t count, const real *from) {
    if (to) memcpy((real *)to + offset, from, sizeof(real) * (size_t)count);
}

static void sweep_tile(const struct sweep *s, struct scratch *w, int64_t image, int64_t start,
                       real *part, double *total) {
    const struct contrast_call *call = s->call;
    const int64_t count = call->pixels - start < TILE ? call->pixels - start : TILE;
    const int64_t offset = image * call->pixels + start;
    struct tile *t = &w->tile;
    real target_logit[TILE], loss[TILE] = {0}, lse[TILE], radial[TILE];
    read_masses(&s->targets, image, start, call->pixels, &w->masses);
    if (all_ignored(&w->masses)) {
        for (int n = 0; n < TILE; n++) lse[n] = INFINITY;
        t->image = image, t->start = start, t->count = count;
        if (call->gradient.data) fill_ignored(s, w);
    } else {
        read_tile(t, image, start, call->pixels);
        square_tile(t);
        clear_ignored(t, w->masses.weight);
        if (call->cosine) measure_tile(t);
        else
            for (int n = 0; n < TILE; n++) t->inverse[n] = 1;
        score_tile(&s->prototypes, t, w->logits);
        find_target_logits(s, w, target_logit);
        for (int n = 0; n < TILE; n += LANES) {
            if (n / PANEL * PANEL >= count) break;
            if (s->bounded) soften(s, w, n, target_logit, loss, lse, radial, 1);
            else soften(s, w, n, target_logit, loss, lse, radial, 0);
        }
        if (call->gradient.data || part) subtract_targets(s, w);
        if (call->gradient.data) pull_features(s, w, radial);
        if (part) pull_matrix(s, w, part);
    }
    for (int64_t n = 0; n < count; n++) *total += loss[n];
    write_pixels(call->loss, offset, count, loss);
    write_pixels(call->weight, offset, count, w->masses.weight);
    write_pixels(call->lse, offset, count, lse);
}

static void sweep_span(void *context, int64_t span, void *memory) {
    struct sweep *s = context;
    struct scratch *w = laid_out(s, memory);
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
    struct scratch *w = laid_out(s, memory);
    int64_t tile, last;
    double total = 0;
    span_tiles(&s->spans, span, &tile, &last);
    for (; tile < last; tile++) {
        read_masses(&s->targets, span / s->spans.each, tile * TILE, s->call->pixels, &w->masses);
        for (int n = 0; n < TILE; n++) total += w->masses.weight[n];
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
    const int64_t bytes = scratch_bytes(s), threads = call->machine.threads;
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
    int failed = prepare_prototypes(&s.prototypes, &call->prototypes, &call->present, C,
                                    call->channels, (int)call->cosine, (int)call->keep_absent,
                                    call->temperature);
    if (!failed) {
        const int64_t part = s.prototypes.rows * s.prototypes.width;
        class_weight = aligned_memory(C * (int64_t)sizeof *class_weight);
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
        s.bounded = call->cosine && 1 / call->temperature <= LARGEST_EXPONENT;
        failed = run(&s);
    }
    free(s.parts);
    free(s.sums);
    free(class_weight);
    free(s.prototypes.memory);
    return failed ? -1 : 0;
}
