/* Cross-entropy of bilinearly upsampled logits, and its gradient, in one sweep.
 *
 * A strip of at most 64 output columns goes down the map. The two rows of logits that its pixels
 * lie between are stretched to its width, each once; every output row blends them. What comes back
 * is added up beside the stretched rows, and is shrunk when the sweep leaves them.
 */
#include <stdlib.h>

#include "bilinear.h"
#include "functions.h"
#include "tile.h"

struct sweep {
    const struct upsampled_cross_entropy_call *call;
    struct spans spans;
    struct axis rows, columns;
    real *class_weight; /* (classes,), and 0 before them: that of a pixel without a label, -1 */
    real all;           /* their sum */
    int finite;         /* whether they are numbers */
    real *carry; /* [spans][classes][width], gradients of the row that the next span begins with */
    double *sums; /* [spans][2]: losses and weights */
};

/* A stretched row of logits in panels, less what is the same for all classes of an input. */
struct stretched {
    real *logits, *gradient;
    int plain; /* whether all are finite, and so near their peak that exp needs no other one */
};

/* What a thread works on; pixels that are ignored have no label. */
struct strip {
    struct tile inputs;
    struct stretched near, far;
    real *scores, *wide; /* one panel; and rows of the strip */
    int64_t first, count, from, read; /* output columns, and the input columns they read */
    word label[TILE];
    real own[TILE], even[TILE], grad_output[TILE], loss[TILE];
};

static int64_t scratch_bytes(int64_t classes) {
    const int64_t numbers = 5 * tile_numbers(classes) + 2 * row_numbers(classes) + PANEL * classes;
    return (int64_t)sizeof(struct strip) + 64 + numbers * (int64_t)sizeof(real);
}

static struct strip *laid_out(int64_t classes, void *memory) {
    struct strip *w = memory;
    const int64_t head = ((int64_t)sizeof *w + 63) / 64 * 64, panels = tile_numbers(classes);
    memset(memory, 0, (size_t)scratch_bytes(classes));
    real *room = (real *)((char *)memory + head);
    w->inputs.channels = classes;
    w->inputs.panels = room;
    w->near.logits = room + panels;
    w->near.gradient = room + 2 * panels;
    w->far.logits = room + 3 * panels;
    w->far.gradient = room + 4 * panels;
    w->inputs.rows = room + 5 * panels;
    w->wide = w->inputs.rows + row_numbers(classes);
    w->scores = w->wide + row_numbers(classes);
    return w;
}

static struct array at_row(struct array a, int64_t offset) {
    static const int8_t bytes[] = {4, 8, 2, 2};
    a.data = (char *)a.data + offset * bytes[a.dtype];
    return a;
}

/* Takes the largest logit from all of a finite input; whether the row is then plain. */
static int lower_peaks(struct tile *t) {
    const int64_t C = t->channels;
    const vec least = every(SMALLEST_EXPONENT), zero = {0};
    mask plain = zero == zero;
    for (int64_t n = 0; n < t->count; n += LANES) {
        real *x = t->panels + in_panels(n, C);
        vec peak = load(x), low = peak, odd = zero;
        for (int64_t c = 0; c < C; c++) {
            const vec logit = load(x + c * PANEL);
            peak = larger(logit, peak);
            low = choose(logit < low, logit, low);
            odd += logit - logit;
        }
        peak = choose(odd == zero, peak, zero);
        plain &= (odd == zero) & (low - peak >= least);
        for (int64_t c = 0; c < C; c++) store(x + c * PANEL, load(x + c * PANEL) - peak);
    }
    int all = 1;
    for (int i = 0; i < LANES; i++) all &= plain[i] != 0;
    return all;
}

static void stretch(const struct sweep *s, struct strip *w, int64_t image, int64_t row,
                    struct stretched *to) {
    const struct upsampled_cross_entropy_call *call = s->call;
    const int64_t C = call->classes, width = row_width(C);
    const struct array logits = at_row(call->logits, row * call->logits_row);
    w->inputs.features = &logits;
    read_tile(&w->inputs, image, w->from, w->from + w->read);
    to->plain = lower_peaks(&w->inputs);
    panels_to_rows(w->inputs.panels, w->read, C, w->inputs.rows, width);
    for (int64_t n = 0; n < w->count; n++) {
        const real share = s->columns.share[w->first + n];
        const real *left = w->inputs.rows + (s->columns.lower[w->first + n] - w->from) * width;
        real *out = w->wide + n * width;
        if (share == 0) memcpy(out, left, sizeof(real) * (size_t)C);
        else blend_rows(out, left, left + width, share, C);
    }
    rows_to_panels(w->wide, width, w->count, C, to->logits);
}

/* The transpose of `stretch`: adds the gradient of a stretched row to that of its logits. */
static void shrink(const struct sweep *s, struct strip *w, const real *gradient, real *to,
                   int64_t along_classes, int64_t along_columns) {
    const int64_t C = s->call->classes, width = row_width(C);
    const int32_t *lower = s->columns.lower + w->first;
    real *rows = w->inputs.rows;
    panels_to_rows(gradient, w->count, C, w->wide, width);
    for (int64_t c = 0; c < C; c += LANES) {
        vec left = {0}, right = {0};
        int64_t at = 0;
        for (int64_t n = 0; n < w->count; n++) {
            for (; at < lower[n] - w->from; at++) {
                store(rows + at * width + c, left);
                left = right, right = (vec){0};
            }
            const real share = s->columns.share[w->first + n];
            const vec row = load(w->wide + n * width + c);
            left += (1 - share) * row;
            if (share != 0) right += share * row;
        }
        store(rows + at * width + c, left);
        if (at + 1 < w->read) store(rows + (at + 1) * width + c, right);
    }
    to += w->from * along_columns;
    for (int64_t c = 0; c < C; c++)
        for (int64_t n = 0; n < w->read; n++)
            to[c * along_classes + n * along_columns] += rows[n * width + c];
}

/* The row's labels and weights; whether any has a label. */
static int read_pixels(const struct sweep *s, struct strip *w, int64_t image, int64_t row, real a,
                       real b, const real *near, const real *far, const int plain,
                       double *weight) {
    const struct upsampled_cross_entropy_call *call = s->call;
    const struct array *labels = &call->labels, *up = &call->grad_output;
    const real smoothing = (real)call->label_smoothing;
    const int64_t C = call->classes;
    int64_t label[TILE];
    real own[TILE];
    int used = 0;
    for (int64_t n = w->count; n < TILE; n++) label[n] = call->ignore_index;
    read_labels(labels, offset_of(labels, image, row, w->first), labels->strides[2], w->count,
                label);
    /* What is no class was refused before; here it must still not be an index. */
    for (int64_t n = 0; n < TILE; n++) {
        /* All bits or none, so that there is no branch: which pixels are ignored is not foreseen. */
        const int64_t there =
            -(int64_t)((label[n] != call->ignore_index) & ((uint64_t)label[n] < (uint64_t)C));
        w->label[n] = (word)((label[n] & there) | ~there);
    }
    if (!plain)
        for (int64_t n = 0; n < w->count; n++) {
            if (w->label[n] < 0) continue;
            const int64_t at = in_panels(n, C) + w->label[n] * PANEL;
            /* The class is absent, and the pixel ignored. */
            if (a * near[at] + b * far[at] == -(real)INFINITY) w->label[n] = -1;
        }
    for (int64_t n = 0; n < TILE; n++) {
        int64_t class = w->label[n];
        ONE_BY_ONE(class);
        own[n] = s->class_weight[class];
    }
    *weight += sum_of(own, TILE);
    for (int64_t n = 0; n < TILE; n++) {
        w->own[n] = (1 - smoothing) * own[n];
        w->even[n] = w->label[n] < 0 ? 0 : smoothing;
        used |= w->label[n] >= 0;
    }
    if (up->data) {
        for (int64_t n = w->count; n < TILE; n++) w->grad_output[n] = 0;
        widen(up, offset_of(up, image, row, w->first), up->strides[2], w->count, w->grad_output);
    }
    return used;
}

/* What follows from two blended vectors of pixels: losses, and the gradient of their scores. */
ALWAYS_INLINE void soften(const struct sweep *s, struct strip *w, int n, real a, real b,
                          const struct stretched *near, const struct stretched *far,
                          const int plain, const int smooth) {
    const int64_t C = s->call->classes;
    const real *lower = near->logits + n * C, *upper = far->logits + n * C;
    const vec zero = {0}, one = every(1), least = every(SMALLEST_EXPONENT);
    const vec gone = every(-(real)INFINITY), first = every(a), second = every(b);
    real *scores = w->scores;
    mask label[2];
    memcpy(label, w->label + n, sizeof label);
    vec picked[2] = {zero, zero}, own[2] = {load(w->own + n), load(w->own + n + LANES)};
    vec peak[2] = {zero, zero}, sum[2] = {zero, zero}, spread[2] = {zero, zero};
    vec there[2] = {every((real)C), every((real)C)}, all[2] = {every(s->all), every(s->all)};
    if (!plain) {
        for (int i = 0; i < 2; i++) peak[i] = every(-(real)LARGEST), there[i] = all[i] = zero;
        for (int64_t c = 0; c < C; c++)
            for (int i = 0; i < 2; i++) {
                const int64_t at = c * PANEL + i * LANES;
                const vec logit = first * load(lower + at) + second * load(upper + at);
                peak[i] = larger(logit, peak[i]);
                there[i] += choose(logit == gone, zero, one);
                all[i] += choose(logit == gone, zero, every(s->class_weight[c]));
            }
    }
    for (int64_t c = 0; c < C; c++)
        for (int i = 0; i < 2; i++) {
            const int64_t at = c * PANEL + i * LANES;
            const vec logit = first * load(lower + at) + second * load(upper + at);
            vec exponent = logit - peak[i], share;
            if (!plain) exponent = choose(exponent < least, least, exponent);
            share = exponential(exponent);
            if (!plain) share = choose(logit == gone, zero, share);
            sum[i] += share;
            picked[i] = choose(label[i] == (word)c, logit, picked[i]);
            store(scores + at, share);
            if (!smooth) continue;
            const vec weight = every(s->class_weight[c]), part = weight * logit;
            const mask none = (logit == gone) | (weight == zero);
            spread[i] += plain ? part : choose(none, zero, part);
        }
    vec scale[2], even[2];
    mask unasked[2];
    for (int i = 0; i < 2; i++) {
        const int at = n + i * LANES;
        const vec up = load(w->grad_output + at);
        even[i] = smooth ? load(w->even + at) / larger(there[i], one) : zero;
        const vec rest = smooth ? choose(even[i] == zero, zero, even[i] * all[i]) : zero;
        const vec whole = own[i] + rest, pulled = choose(own[i] == zero, zero, own[i] * picked[i]);
        const vec loss = whole * (logarithm(sum[i]) + peak[i]) - pulled - even[i] * spread[i];
        store(w->loss + at, choose(whole == zero, zero, loss));
        const vec factor = whole * up;
        unasked[i] = (whole == zero) | (factor == zero);
        scale[i] = choose(unasked[i], zero, factor / sum[i]);
        even[i] = choose(unasked[i], zero, even[i] * up);
        own[i] = choose(unasked[i], zero, own[i] * up);
    }
    if (!near->gradient) return;
    real *to_lower = near->gradient + n * C, *to_upper = far->gradient + n * C;
    for (int64_t c = 0; c < C; c++)
        for (int i = 0; i < 2; i++) {
            const int64_t at = c * PANEL + i * LANES;
            const vec share = load(scores + at);
            vec slope = share * scale[i];
            if (!plain) slope = choose(unasked[i], zero, slope);
            slope -= choose(label[i] == (word)c, own[i], zero);
            if (smooth) {
                const vec part = even[i] * every(s->class_weight[c]);
                const mask none = (even[i] == zero) | (share == zero);
                slope -= plain ? part : choose(none, zero, part);
            }
            store(to_lower + at, load(to_lower + at) + first * slope);
            store(to_upper + at, load(to_upper + at) + second * slope);
        }
}

static void sweep_row(const struct sweep *s, struct strip *w, int64_t image, int64_t row,
                      double *sums) {
    const struct upsampled_cross_entropy_call *call = s->call;
    /* A row that reads one row alone is half of it and half of it: 0 times what is not read need
       not be 0. */
    const real share = s->rows.share[row], b = share == 0 ? (real)0.5 : share, a = 1 - b;
    const struct stretched *near = &w->near, *far = share == 0 ? near : &w->far;
    const int smooth = call->label_smoothing != 0;
    const int plain = near->plain && far->plain && (s->finite || !smooth);
    real *loss = call->loss;
    if (read_pixels(s, w, image, row, a, b, near->logits, far->logits, plain, sums + 1)) {
        for (int n = 0; n < w->count; n += PANEL) {
            if (plain && smooth) soften(s, w, n, a, b, near, far, 1, 1);
            else if (plain) soften(s, w, n, a, b, near, far, 1, 0);
            else if (smooth) soften(s, w, n, a, b, near, far, 0, 1);
            else soften(s, w, n, a, b, near, far, 0, 0);
        }
        sums[0] += sum_of(w->loss, w->count);
    } else {
        memset(w->loss, 0, sizeof w->loss);
    }
    if (loss)
        memcpy(loss + (image * call->out_height + row) * call->out_width + w->first, w->loss,
               sizeof(real) * (size_t)w->count);
}

/* One strip, over the output rows that lie between the input rows first..last. */
static void sweep_strip(const struct sweep *s, struct strip *w, int64_t image, int64_t first,
                        int64_t last, real *carry, double *sums) {
    const struct upsampled_cross_entropy_call *call = s->call;
    const struct array *to = &call->gradient;
    const size_t bytes = sizeof(real) * (size_t)tile_numbers(call->classes);
    int64_t out = 0;
    while (out < call->out_height && s->rows.lower[out] < first) out++;
    stretch(s, w, image, first, &w->near);
    if (to->data) memset(w->near.gradient, 0, bytes);
    for (int64_t row = first; row < last; row++) {
        if (row + 1 < call->height) stretch(s, w, image, row + 1, &w->far);
        if (to->data) memset(w->far.gradient, 0, bytes);
        for (; out < call->out_height && s->rows.lower[out] == row; out++)
            sweep_row(s, w, image, out, sums);
        if (to->data)
            shrink(s, w, w->near.gradient,
                   (real *)to->data + image * to->strides[0] + row * call->gradient_row,
                   to->strides[1], to->strides[2]);
        const struct stretched near = w->near;
        w->near = w->far;
        w->far = near;
    }
    if (to->data && last < call->height) shrink(s, w, w->near.gradient, carry, call->width, 1);
}

static void rows_of_span(const struct sweep *s, int64_t span, int64_t *first, int64_t *last) {
    const int64_t part = span % s->spans.each;
    *first = part * s->call->height / s->spans.each;
    *last = (part + 1) * s->call->height / s->spans.each;
}

static void sweep_span(void *context, int64_t span, void *memory) {
    struct sweep *s = context;
    const struct upsampled_cross_entropy_call *call = s->call;
    const int64_t carried = call->classes * call->width;
    struct strip *w = laid_out(call->classes, memory);
    real *carry = s->carry ? s->carry + span * carried : NULL;
    double sums[2] = {0, 0};
    int64_t first, last, next;
    rows_of_span(s, span, &first, &last);
    for (int n = 0; n < TILE; n++) w->grad_output[n] = 1;
    if (carry) memset(carry, 0, sizeof(real) * (size_t)carried);
    else w->near.gradient = w->far.gradient = NULL;
    for (w->first = 0; first < last && w->first < call->out_width; w->first = next) {
        w->from = s->columns.lower[w->first];
        w->read = 0;
        for (next = w->first; next < call->out_width && next - w->first < TILE; next++) {
            const int64_t upper = s->columns.lower[next] + (s->columns.share[next] != 0);
            const int64_t read = upper + 1 - w->from;
            if (read > TILE) break;
            w->read = read;
        }
        w->count = next - w->first;
        sweep_strip(s, w, span / s->spans.each, first, last, carry, sums);
    }
    s->sums[2 * span] = sums[0];
    s->sums[2 * span + 1] = sums[1];
}

/* The spans in order: their sums, and what each has for the row that the next begins with. */
static void join_spans(const struct sweep *s) {
    const struct upsampled_cross_entropy_call *call = s->call;
    const struct array *to = &call->gradient;
    double sums[2] = {0, 0};
    for (int64_t span = 0; span < s->spans.count; span++) {
        int64_t first, last;
        rows_of_span(s, span, &first, &last);
        for (int i = 0; i < 2; i++) sums[i] += s->sums[2 * span + i];
        if (!s->carry || first == last || last == call->height) continue;
        const real *carry = s->carry + span * call->classes * call->width;
        real *row = (real *)to->data + span / s->spans.each * to->strides[0] +
                    last * call->gradient_row;
        for (int64_t c = 0; c < call->classes; c++)
            for (int64_t n = 0; n < call->width; n++)
                row[c * to->strides[1] + n * to->strides[2]] += carry[c * call->width + n];
    }
    for (int i = 0; i < 2; i++) ((real *)call->totals)[i] = (real)sums[i];
}

int NAME(upsampled_cross_entropy)(const struct upsampled_cross_entropy_call *call) {
    struct sweep s = {.call = call, .finite = 1};
    const int64_t H = call->out_height, W = call->out_width, C = call->classes;
    s.spans = spans_of(call->images, H * W);
    const int64_t count = s.spans.count;
    const int64_t carried = call->gradient.data ? count * C * call->width : 0;
    char *memory = aligned_memory(2 * count * (int64_t)sizeof(double) +
                                  (H + W + C + 1 + carried) * (int64_t)sizeof(real) +
                                  (H + W) * (int64_t)sizeof(int32_t));
    if (!memory) return -1;
    s.sums = (double *)memory;
    s.rows.share = (real *)(s.sums + 2 * count);
    s.columns.share = s.rows.share + H;
    s.class_weight = s.columns.share + W + 1;
    s.class_weight[-1] = 0;
    real *carry = s.class_weight + C;
    if (carried) s.carry = carry;
    s.rows.lower = (int32_t *)(carry + carried);
    s.columns.lower = s.rows.lower + H;
    fill_axis(&s.rows, call->height, H, (int)call->align_corners);
    fill_axis(&s.columns, call->width, W, (int)call->align_corners);
    for (int64_t c = 0; c < C; c++) {
        s.class_weight[c] = 1;
        if (call->class_weight.data)
            widen(&call->class_weight, c * call->class_weight.strides[0], 1, 1, s.class_weight + c);
        s.all += s.class_weight[c];
        s.finite &= s.class_weight[c] - s.class_weight[c] == 0;
    }
    const int failed =
        run_spans(&s.spans, call->machine.threads, scratch_bytes(C), sweep_span, &s);
    if (!failed) join_spans(&s);
    free(memory);
    return failed ? -1 : 0;
}
