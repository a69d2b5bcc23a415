/* The target's part of a step in one read: labels of the nearest prototypes under those that are
 * given, the class sums of both, and a contrast's loss of each class with its gradient.
 */
#include "nearest.h"
#include "softmax.h"
#include "totals.h"

struct sweep {
    const struct target_pass_call *call;
    struct spans spans;
    struct prototypes prototypes, others; /* of the contrast, and of labels where these differ */
    struct nearest nearest;
    struct array labels; /* the fused ones, as they are written */
    struct targets targets;
    struct softmax softmax;
    struct totals totals;
    real *class_weight; /* (classes + 1,), 1 where a class carries loss */
    double *losses;     /* [spans][classes] */
};

/* Classes of a tile's pixels, -1 for none: as given, as transferred, and the first of both. */
struct labels {
    int32_t given[TILE], moved[TILE], fused[TILE];
};

static const struct array NONE;

static const struct prototypes *of_labels(const struct sweep *s) {
    return s->others.memory ? &s->others : &s->prototypes;
}

static void read_given(const struct sweep *s, int64_t image, int64_t start, int64_t count,
                       int32_t *given) {
    const struct array *a = &s->call->given;
    int64_t label[TILE];
    for (int n = 0; n < TILE; n++) given[n] = -1;
    if (!a->data) return;
    read_labels(a, image * a->strides[0] + start * a->strides[1], a->strides[1], count, label);
    for (int64_t n = 0; n < count; n++) {
        /* What is no class was refused before; here it must still not be an index. */
        const int wrong = (uint64_t)label[n] >= (uint64_t)s->call->classes;
        given[n] = wrong || label[n] == s->call->ignore_index ? -1 : (int32_t)label[n];
    }
}

/* Soft targets without any mass take the transferred label, with that of `filling` or 1. */
static void fill_targets(const struct sweep *s, int64_t image, int64_t start, int64_t count,
                         const int32_t *moved) {
    const struct array *a = &s->call->targets, *filling = &s->call->filling;
    real mass[TILE], sum[TILE] = {0};
    for (int64_t c = 0; c < s->call->classes; c++) {
        widen(a, offset_of(a, image, c, start), a->strides[2], count, mass);
        for (int64_t n = 0; n < count; n++) sum[n] += mass[n];
    }
    for (int64_t n = 0; n < count; n++) {
        if (sum[n] != 0 || moved[n] < 0) continue;
        real filled = 1;
        if (filling->data) widen(filling, (start + n) * filling->strides[0], 1, 1, &filled);
        narrow(a, offset_of(a, image, moved[n], start + n), 1, 1, &filled);
    }
}

/* The rows of a tile and what separates them; of a scaled one each is its pixel over its size. */
static const real *rows_of(struct tile *t, int64_t *width) {
    const struct array *f = t->features;
    const int beside = f->strides[1] == 1 && f->strides[2] != 1 && f->dtype == REAL_DTYPE;
    *width = beside && !t->scaled ? f->strides[2] : row_width(t->channels);
    if (beside && !t->scaled)
        return (const real *)f->data + offset_of(f, t->image, 0, t->start);
    panels_to_rows(t->panels, t->count, t->channels, t->rows, *width);
    return t->rows;
}

static void add_tile(const struct sweep *s, struct tile *t, const int32_t *fused, real *recent) {
    int64_t width;
    const real *rows = rows_of(t, &width);
    for (int64_t n = 0; n < t->count; n++) {
        if (fused[n] < 0) continue;
        const real size = t->scaled ? t->size[n] : 1;
        const real factor = s->call->normalize ? t->inverse[n] : size;
        add_row(recent + fused[n] * s->totals.width, rows + n * width, factor, t->channels);
    }
}

/* What an ignored pixel holds may be anything: where not finite, it and its logits become 0. */
static void clear_scored(const struct sweep *s, struct work *w) {
    struct tile *t = &w->tile;
    for (int64_t n = 0; n < t->count; n++)
        if (w->masses.weight[n] == 0 && !(t->squared[n] <= LARGEST)) {
            t->inverse[n] = 0;
            for (int64_t c = 0; c < s->prototypes.rows; c++) w->logits[c * TILE + n] = 0;
        }
    clear_ignored(t, w->masses.weight);
}

/* Adds sum_n t_cn value_cn of each row, times a sign; `scale` multiplies each pixel's values. */
static void add_soft(const struct sweep *s, const struct work *w, const real *values, int64_t next,
                     const real *scale, double sign, double *losses) {
    for (int64_t c = 0; c < s->prototypes.rows; c++) {
        const real *mass = w->masses.soft + c * TILE;
        real sum = 0;
        for (int n = 0; n < w->tile.count; n++)
            sum += mass[n] == 0 ? 0 : mass[n] * (values[c * next + n] * scale[n]);
        losses[s->prototypes.class_of[c]] += sign * (double)sum;
    }
}

static void lose_tile(const struct sweep *s, struct work *w, double *losses) {
    real one[TILE];
    for (int n = 0; n < TILE; n++) one[n] = 1;
    clear_scored(s, w);
    if (s->targets.soft) add_soft(s, w, w->logits, TILE, w->tile.inverse, -1, losses);
    soften_tile(&s->softmax, w);
    if (s->targets.soft) add_soft(s, w, w->lse, 0, one, 1, losses);
    else
        for (int64_t n = 0; n < w->tile.count; n++)
            if (w->masses.label[n] >= 0)
                losses[s->prototypes.class_of[w->masses.label[n]]] += w->loss[n];
    if (!s->call->gradient.data) return;
    write_gradient(&s->prototypes, w, &s->call->gradient);
}

static void begin_tile(struct work *w, real *squared) {
    read_tile(&w->tile, w->tile.image, w->tile.start, w->tile.start + w->tile.count);
    square_tile(&w->tile);
    memcpy(squared, w->tile.squared, sizeof(real) * TILE);
    measure_tile(&w->tile);
}

static void pass_tile(const struct sweep *s, struct work *w, int64_t image, int64_t start,
                      int64_t span, real *recent) {
    const struct target_pass_call *call = s->call;
    const int64_t count = call->pixels - start < TILE ? call->pixels - start : TILE;
    const int64_t at = image * call->pixels + start;
    struct tile *t = &w->tile;
    struct labels labels;
    struct found found = {{0}, {0}};
    real squared[TILE];
    int used = 0, loses = 0;
    t->image = image, t->start = start, t->count = count;
    read_given(s, image, start, count, labels.given);
    for (int n = 0; n < TILE; n++) labels.moved[n] = -1;
    if (call->transfer) {
        begin_tile(w, squared);
        score_tile(of_labels(s), t, w->logits);
        find_nearest(&s->nearest, t, w->logits, squared, &found);
        for (int64_t n = 0; n < count; n++) labels.moved[n] = class_found(&s->nearest, &found, n);
    }
    for (int64_t n = 0; n < count; n++) {
        if (labels.moved[n] == call->ignore_index) labels.moved[n] = -1;
        const int32_t label = labels.given[n] < 0 ? labels.moved[n] : labels.given[n];
        labels.fused[n] = label;
        used |= label >= 0;
        if (label >= 0) s->totals.counts[span * call->classes + label] += 1;
        ((int64_t *)call->labels)[at + n] = label < 0 ? call->ignore_index : label;
    }
    for (int64_t n = count; n < TILE; n++) labels.fused[n] = -1;
    if (call->transfer && s->targets.soft) fill_targets(s, image, start, count, labels.moved);
    if (call->counted.data) {
        read_masses(&s->targets, image, start, call->pixels, &w->masses);
        loses = !all_ignored(&w->masses);
    }
    if (!call->transfer && (loses || (used && call->wants_sums))) begin_tile(w, squared);
    if (used && call->wants_sums) add_tile(s, t, labels.fused, recent);
    if (loses) {
        if (!call->transfer || of_labels(s) != &s->prototypes)
            score_tile(&s->prototypes, t, w->logits);
        lose_tile(s, w, s->losses + span * call->classes);
    } else if (call->gradient.data) {
        clear_gradient(w, &call->gradient);
    }
    /* A pixel that is NaN may turn out ignored, when its class is left out. */
    for (int64_t n = 0; n < count; n++)
        if (!loses || w->lse[n] != w->lse[n]) w->lse[n] = INFINITY;
    write_pixels(call->values, at, count, found.value);
    write_pixels(call->lse, at, count, w->lse);
}

static int64_t scratch_bytes(const struct sweep *s) {
    const int64_t rows = s->call->classes, bytes = work_bytes(s->call->channels, rows);
    return (bytes + 63) / 64 * 64 + s->totals.part * (int64_t)sizeof(real);
}

static void pass_span(void *context, int64_t span, void *memory) {
    struct sweep *s = context;
    const int64_t C = s->call->classes, recently = recent_tiles(C);
    const int64_t part = s->totals.part * (int64_t)sizeof(real);
    struct work *w = laid_out(&s->call->features, s->call->channels, C, memory);
    real *recent = (real *)((char *)memory + scratch_bytes(s) - part);
    int64_t first, last;
    span_tiles(&s->spans, span, &first, &last);
    begin_totals(&s->totals, span, recent);
    for (int64_t c = 0; c < C; c++) s->losses[span * C + c] = 0;
    for (int64_t tile = first; tile < last; tile++) {
        pass_tile(s, w, span / s->spans.each, tile * TILE, span, recent);
        if ((tile - first + 1) % recently == 0) join_recent(&s->totals, span, recent);
    }
    join_recent(&s->totals, span, recent);
}

static int prepare(struct sweep *s) {
    const struct target_pass_call *call = s->call;
    const struct array *nearest = call->nearest.data ? &call->nearest : &call->prototypes;
    const int64_t C = call->classes, D = call->channels;
    if (prepare_prototypes(&s->prototypes, &call->prototypes, &call->present, C, D, 1,
                           (int)call->keep_absent, call->temperature))
        return -1;
    /* The similarity itself is wanted exactly, so 1/tau stays out of it. */
    if (call->transfer && (call->nearest.data || !call->confidence))
        if (prepare_prototypes(&s->others, nearest, &call->present, C, D, 1, 0,
                               call->confidence ? call->temperature : 1))
            return -1;
    s->class_weight = aligned_memory((C + 1) * (int64_t)sizeof(real));
    s->losses = aligned_memory(s->spans.count * C * (int64_t)sizeof *s->losses);
    if (!s->class_weight || !s->losses) return -1;
    for (int64_t c = 0; c < C; c++)
        s->class_weight[c] = s->prototypes.row_of[c] >= 0 && call->counted.data &&
                             ((const uint8_t *)call->counted.data)[c * call->counted.strides[0]];
    s->class_weight[C] = 0;
    s->labels = (struct array){call->labels, {call->pixels, 1, 0}, INT64};
    const int soft = call->targets.data != NULL;
    s->targets = (struct targets){soft ? &call->targets : &s->labels, &NONE,           &NONE,
                                  &s->prototypes,                     s->class_weight, soft,
                                  call->ignore_index,                 1};
    s->softmax = softmax_of(&s->prototypes, soft);
    if (prepare_nearest(&s->nearest, of_labels(s), (int)call->confidence, call->threshold, NULL))
        return -1;
    return prepare_totals(&s->totals, s->spans.count, C, D);
}

int NAME(target_pass)(const struct target_pass_call *call) {
    struct sweep s = {.call = call, .spans = spans_of(call->images, call->pixels)};
    const int64_t C = call->classes;
    int failed = prepare(&s);
    if (!failed)
        failed = run_spans(&s.spans, call->machine.threads, scratch_bytes(&s), pass_span, &s);
    if (!failed) {
        add_totals(&s.totals, &s.spans, 0, call->sums, call->counts);
        for (int64_t c = 0; c < C; c++) {
            double sum = 0;
            for (int64_t i = 0; i < s.spans.count; i++) sum += s.losses[i * C + c];
            ((real *)call->losses)[c] = (real)sum;
        }
    }
    free_totals(&s.totals);
    free(s.nearest.threshold);
    free(s.losses);
    free(s.class_weight);
    free(s.others.memory);
    free(s.prototypes.memory);
    return failed ? -1 : 0;
}
