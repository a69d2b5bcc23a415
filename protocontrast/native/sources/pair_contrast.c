/* Contrast of every anchor with single keys: loss and statistics, or the gradients of both sides.
 *
 * Rows that take part are copied, sorted by label. The keys of an anchor's class are then one
 * stretch, and a block of anchors needs its positives a second time in few tiles alone. Backward
 * finds the scores again: by blocks of anchors for their gradient, by tiles of keys for theirs. The
 * latter take the slopes that the former have found, where all of them are few enough to keep.
 */
#include "distances.h"
#include "functions.h"
#include "pair_rows.h"

#define BLOCK 48 /* anchors; of a block and a tile of keys the scores stay in a first cache */
#define KEPT (1 << 20) /* pairs whose slopes are kept; of more the scores are found once again */

/* What is known of each anchor; `first` and `last` are the stretch of its class, by side. */
struct anchor {
    int64_t first[2], last[2], self[2];
    real lse, per_positive, mass;
};

struct sweep {
    const struct pair_contrast_call *call;
    struct spans spans;
    struct side anchors, keys[2];
    int64_t sides;
    struct anchor *anchor;
    real distance; /* what a distance of the copies is multiplied by */
    real *slopes;  /* [blocks of anchors][tiles of keys][BLOCK][TILE], or null */
};

static int64_t tiles_in(const struct sweep *s) {
    return (s->keys[0].padded + s->keys[1].padded) / TILE;
}

static int64_t blocks_in(const struct sweep *s) { return (s->anchors.count + BLOCK - 1) / BLOCK; }

static void find_stretches(struct sweep *s) {
    for (int64_t i = 0; i < s->anchors.count; i++)
        for (int64_t k = 0; k < s->sides; k++) {
            struct anchor *a = s->anchor + i;
            const struct row row = s->anchors.row[i];
            const int again = i > 0 && row.label == s->anchors.row[i - 1].label;
            a->first[k] = again ? a[-1].first[k] : first_of(s->keys + k, row.label);
            a->last[k] = again ? a[-1].last[k] : a->first[k];
            while (!again && a->last[k] < s->keys[k].count &&
                   s->keys[k].row[a->last[k]].label == row.label)
                a->last[k]++;
            a->self[k] = s->call->exclude_self && row.place < s->call->keys_given
                             ? s->keys[k].sorted[row.place]
                             : -1;
        }
}

static int64_t positives_of(const struct sweep *s, const struct anchor *a) {
    int64_t count = 0;
    for (int64_t k = 0; k < s->sides; k++)
        if (s->keys[k].positives)
            count += a->last[k] - a->first[k] -
                     (a->self[k] >= a->first[k] && a->self[k] < a->last[k]);
    return count;
}

/* Scores [anchors][TILE] of a block's anchors and a tile's keys. */
static void score_block(const struct sweep *s, int64_t k, int64_t first, int64_t count,
                        int64_t start, real *scores) {
    const struct side *anchors = &s->anchors, *keys = s->keys + k;
    const int64_t width = anchors->width, channels = keys->channels;
    const struct factors f = {anchors->matrix + first * width, width, 1,
                              keys->panels + start * channels, PANEL, channels};
    if (s->call->similarity != EUCLIDEAN) {
        in_blocks(product_into, &f, count, TILE, channels, scores, TILE);
        return;
    }
    in_blocks(squares_into, &f, count, TILE, channels, scores, TILE);
    for (int64_t i = 0; i < count * TILE; i++) scores[i] = s->distance * SQRT(scores[i]);
}

/* How far a place lies beyond another, from none to a tile: so that it fits a word of float32. */
ALWAYS_INLINE word beyond(int64_t place, int64_t from) {
    return (word)(place < from ? 0 : place - from > TILE ? TILE : place - from);
}

/* Which keys n.. of a tile are an anchor's positives, and which are negatives. */
struct pairs {
    mask positive, negative;
};

ALWAYS_INLINE struct pairs pairs_of(const struct sweep *s, const struct anchor *a, int64_t k,
                                    int64_t start, int n) {
    const struct side *keys = s->keys + k;
    mask key;
    for (int i = 0; i < LANES; i++) key[i] = i;
    const int64_t from = start + n;
    const mask same = (key >= beyond(a->first[k], from)) & (key < beyond(a->last[k], from));
    const mask there = key < beyond(keys->count, from);
    const word self = a->self[k] >= from ? beyond(a->self[k], from) : -1;
    const mask none = {0};
    return (struct pairs){keys->positives ? same & (key != self) : none,
                          keys->negatives ? there & ~same : none};
}

/* The tiles of a side that a block of anchors meets: all, or those of its positives alone. */
static void tiles_of(const struct sweep *s, int64_t k, int64_t first, int64_t count, int all,
                     int64_t *begin, int64_t *end) {
    const int64_t from = all ? 0 : s->anchor[first].first[k];
    const int64_t to = all ? s->keys[k].count : s->anchor[first + count - 1].last[k];
    *begin = from / TILE * TILE;
    *end = to > from ? (to + TILE - 1) / TILE * TILE : *begin;
}

static real sum_lanes(vec x) {
    real total = 0;
    for (int i = 0; i < LANES; i++) total += x[i];
    return total;
}

/* Adds the terms of a tile to what stands over `peak` in an anchor's log-sum-exp. */
static void add_terms(const struct sweep *s, const struct anchor *a, int64_t k, int64_t start,
                      const real *scores, real *peak, double *sum) {
    const vec gone = every(-(real)INFINITY), least = every(SMALLEST_EXPONENT);
    vec top = gone, total = {0};
    real highest = *peak;
    for (int n = 0; n < TILE; n += LANES) {
        const struct pairs p = pairs_of(s, a, k, start, n);
        const mask here = p.negative | (s->call->all_in_denominator ? p.positive : (mask){0});
        top = larger(choose(here, load(scores + n), gone), top);
    }
    for (int i = 0; i < LANES; i++) highest = top[i] > highest ? top[i] : highest;
    for (int n = 0; n < TILE; n += LANES) {
        const struct pairs p = pairs_of(s, a, k, start, n);
        const mask here = p.negative | (s->call->all_in_denominator ? p.positive : (mask){0});
        /* 0 at the peak, also at an infinite one, from which nothing can be taken away. */
        const vec score = load(scores + n), below = choose(score == highest, (vec){0}, score - highest);
        const vec term = exponential(choose(below < least, least, below));
        total += choose(here, term, (vec){0});
    }
    if (highest != *peak) *sum *= exp((double)*peak - (double)highest);
    *peak = highest;
    *sum += sum_lanes(total);
}

/* softplus of a vector of gaps, and its derivative. */
ALWAYS_INLINE vec softplus(vec gap, vec *slope) {
    const vec zero = {0}, one = every(1), least = every(SMALLEST_EXPONENT);
    const vec size = choose(gap > zero, -gap, gap);
    const vec small = exponential(choose(size < least, least, size));
    const vec term = choose(size < least, zero, small);
    *slope = choose(gap > zero, one, term) / (one + term);
    return larger(zero, gap) + logarithm(one + term); /* the larger of 0 and NaN is NaN here */
}

static void find_losses(const struct sweep *s, const struct anchor *a, int64_t k, int64_t start,
                        const real *scores, double *loss, double *mass) {
    vec losses = {0}, slopes = {0}, slope = {0};
    for (int n = 0; n < TILE; n += LANES) {
        const mask positive = pairs_of(s, a, k, start, n).positive;
        vec gap = every(a->lse) - load(scores + n);
        if (!s->call->all_in_denominator) gap = softplus(gap, &slope);
        losses += choose(positive, gap, (vec){0});
        slopes += choose(positive, slope, (vec){0});
    }
    *loss += sum_lanes(losses);
    *mass += sum_lanes(slopes);
}

static void loss_span(void *context, int64_t span, void *memory) {
    struct sweep *s = context;
    const struct pair_contrast_call *call = s->call;
    const struct array *weights = &call->anchor_weight;
    real *scores = memory, peak[BLOCK];
    double sum[BLOCK], loss[BLOCK] = {0}, mass[BLOCK] = {0};
    const int64_t first = span * BLOCK, rest = s->anchors.count - first;
    const int64_t count = rest < BLOCK ? rest : BLOCK, A = call->anchors_given;
    int64_t begin, end;
    for (int i = 0; i < BLOCK; i++) peak[i] = -(real)INFINITY, sum[i] = 0;
    for (int64_t k = 0; k < s->sides; k++) {
        if (!s->keys[k].negatives && !call->all_in_denominator) continue;
        tiles_of(s, k, first, count, s->keys[k].negatives, &begin, &end);
        for (; begin < end; begin += TILE) {
            score_block(s, k, first, count, begin, scores);
            for (int64_t i = 0; i < count; i++)
                add_terms(s, s->anchor + first + i, k, begin, scores + i * TILE, peak + i, sum + i);
        }
    }
    for (int64_t i = 0; i < count; i++)
        s->anchor[first + i].lse = (real)((double)peak[i] + log(sum[i])); /* -inf of none */
    for (int64_t k = 0; k < s->sides; k++) {
        if (!s->keys[k].positives) continue;
        tiles_of(s, k, first, count, 0, &begin, &end);
        for (; begin < end; begin += TILE) {
            score_block(s, k, first, count, begin, scores);
            for (int64_t i = 0; i < count; i++)
                find_losses(s, s->anchor + first + i, k, begin, scores + i * TILE, loss + i,
                            mass + i);
        }
    }
    for (int64_t i = 0; i < count; i++) {
        const struct anchor *a = s->anchor + first + i;
        const int64_t place = s->anchors.row[first + i].place, positives = positives_of(s, a);
        if (!positives) continue;
        const double weight = weights->data ? element(weights, place * weights->strides[0]) : 1;
        const double each = weight / (double)positives;
        ((real *)call->loss)[place] = (real)(each * loss[i]);
        ((real *)call->weight)[place] = (real)weight;
        real *found = (real *)call->found + place;
        found[0] = a->lse;
        found[A] = (real)each;
        found[2 * A] = (real)(call->all_in_denominator ? weight : each * mass[i]);
    }
}

/* Scores become slopes, dL/ds; of distances, slopes over the distance. */
static void find_slopes(const struct sweep *s, const struct anchor *a, int64_t k, int64_t start,
                        real *scores) {
    const vec zero = {0}, least = every(SMALLEST_EXPONENT);
    const int all = (int)s->call->all_in_denominator;
    for (int n = 0; n < TILE; n += LANES) {
        const struct pairs p = pairs_of(s, a, k, start, n);
        const vec score = load(scores + n), exponent = score - every(a->lse);
        const vec share = exponential(choose(exponent < least, least, exponent));
        const mask shared = p.negative | (all ? p.positive : (mask){0});
        vec slope = choose(shared, share * a->mass, zero), pull = every(1);
        if (!all) softplus(-exponent, &pull);
        slope -= choose(p.positive, pull * a->per_positive, zero);
        if (s->call->similarity == EUCLIDEAN)
            slope = choose(score == zero, zero, slope * every(s->distance) / score);
        store(scores + n, slope);
    }
}

/* out += the slopes times the other side's rows, or times how far these are from one's own. */
static void pull(const struct sweep *s, const struct side *own, int64_t first, int64_t rows,
                 const struct side *other, int64_t from, int64_t steps, const real *slopes,
                 int64_t across, int64_t along) {
    const int64_t width = own->width;
    real *out = own->gradient + first * width;
    const struct factors f = {slopes, across, along, other->matrix + from * width, width, steps};
    if (s->call->similarity == EUCLIDEAN)
        add_differences(rows, &f, own->matrix + first * width, out, width, own->channels);
    else in_blocks(product_onto, &f, rows, own->channels, 1, out, width);
}

/* Where the slopes of a block and a tile are kept, else in a thread's own memory. */
static real *place_of(const struct sweep *s, int64_t k, int64_t first, int64_t start,
                      void *memory) {
    const int64_t tile = (start + (k ? s->keys[0].padded : 0)) / TILE;
    return s->slopes ? s->slopes + (first / BLOCK * tiles_in(s) + tile) * BLOCK * TILE : memory;
}

static void slopes_of(const struct sweep *s, int64_t k, int64_t first, int64_t count, int64_t start,
                      real *scores) {
    score_block(s, k, first, count, start, scores);
    for (int64_t i = 0; i < count; i++)
        find_slopes(s, s->anchor + first + i, k, start, scores + i * TILE);
}

static void anchor_span(void *context, int64_t span, void *memory) {
    struct sweep *s = context;
    const int64_t first = span * BLOCK, rest = s->anchors.count - first;
    const int64_t count = rest < BLOCK ? rest : BLOCK;
    int64_t begin, end;
    for (int64_t k = 0; k < s->sides; k++) {
        tiles_of(s, k, first, count, s->keys[k].negatives, &begin, &end);
        for (; begin < end; begin += TILE) {
            real *slopes = place_of(s, k, first, begin, memory);
            slopes_of(s, k, first, count, begin, slopes);
            pull(s, &s->anchors, first, count, s->keys + k, begin, TILE, slopes, TILE, 1);
        }
    }
}

/* Spans are the tiles of one side, and then of the other. */
static void key_span(void *context, int64_t span, void *memory) {
    struct sweep *s = context;
    const int64_t others = s->keys[0].padded / TILE, k = span >= others;
    const int64_t start = (span - (k ? others : 0)) * TILE;
    for (int64_t first = 0; first < s->anchors.count; first += BLOCK) {
        const int64_t rest = s->anchors.count - first, count = rest < BLOCK ? rest : BLOCK;
        int64_t begin, end;
        tiles_of(s, k, first, count, s->keys[k].negatives, &begin, &end);
        if (start < begin || start >= end) continue;
        real *slopes = place_of(s, k, first, start, memory);
        if (!s->slopes) slopes_of(s, k, first, count, start, slopes);
        pull(s, s->keys + k, start, TILE, &s->anchors, first, count, slopes, 1, TILE);
    }
}

/* Rows made ready; 0, or -1 where memory is short. */
static int prepare(struct sweep *s) {
    const struct pair_contrast_call *call = s->call;
    const int64_t D = call->channels, ignored = call->ignore_index;
    const struct array *labels[2] = {&call->positive_labels, &call->negative_labels};
    const int cosine = call->similarity == COSINE, apart = call->similarity == EUCLIDEAN;
    struct side *sides[3] = {&s->anchors, s->keys, s->keys + 1};
    if (gather(&s->anchors, &call->anchors, &call->anchor_labels, &call->anchor_weight,
               call->anchors_given, D, ignored))
        return -1;
    s->sides = call->two_roles ? 2 : 1;
    for (int64_t k = 0; k < s->sides; k++) {
        s->keys[k].positives = k == 0, s->keys[k].negatives = k == s->sides - 1;
        if (gather(s->keys + k, &call->keys, labels[k], NULL, call->keys_given, D, ignored))
            return -1;
    }
    s->distance = apart ? -bring_near(sides, 1 + s->sides) / (real)call->temperature : 0;
    for (int64_t k = 0; k < 1 + s->sides; k++)
        normalise(sides[k], cosine, k || apart ? 1 : (real)(1 / call->temperature));
    for (int64_t k = 0; k < s->sides; k++)
        rows_to_panels(s->keys[k].matrix, s->keys[k].width, s->keys[k].padded, D,
                       s->keys[k].panels);
    s->anchor = aligned_memory(s->anchors.count * (int64_t)sizeof *s->anchor);
    if (s->anchor) find_stretches(s);
    return s->anchor ? 0 : -1;
}

static int run_blocks(struct sweep *s, int64_t count, span_body *body) {
    const struct spans spans = {1, 0, tiles_in(s) * (s->anchors.count / BLOCK + 1), count, count};
    return run_spans(&spans, s->call->machine.threads, BLOCK * TILE * (int64_t)sizeof(real), body,
                     s);
}

/* What forward has found of each anchor, times what comes back to it. */
static void read_statistics(struct sweep *s) {
    const struct array *given = &s->call->statistics, *weight = &s->call->anchor_weight;
    for (int64_t i = 0; i < s->anchors.count; i++) {
        const int64_t place = s->anchors.row[i].place;
        real *to[3] = {&s->anchor[i].lse, &s->anchor[i].per_positive, &s->anchor[i].mass};
        for (int k = 0; k < 3; k++)
            widen(given, k * given->strides[0] + place * given->strides[1], 1, 1, to[k]);
        const real factor = (real)element(weight, place * weight->strides[0]);
        s->anchor[i].per_positive *= factor;
        s->anchor[i].mass *= factor;
    }
}

static int run_backward(struct sweep *s) {
    const struct pair_contrast_call *call = s->call;
    const int cosine = call->similarity == COSINE, apart = call->similarity == EUCLIDEAN;
    const real inverse = (real)(1 / call->temperature);
    const int64_t pairs = blocks_in(s) * tiles_in(s) * BLOCK * TILE;
    read_statistics(s);
    if (call->to_anchors.data && call->to_keys.data && pairs <= KEPT) {
        s->slopes = aligned_memory(pairs * (int64_t)sizeof(real));
        if (!s->slopes) return -1;
    }
    if (call->to_anchors.data && run_blocks(s, blocks_in(s), anchor_span)) return -1;
    if (call->to_keys.data && run_blocks(s, tiles_in(s), key_span)) return -1;
    if (call->to_anchors.data)
        finish(&s->anchors, cosine, inverse, apart ? 1 : inverse, &call->to_anchors);
    for (int64_t k = 0; call->to_keys.data && k < s->sides; k++)
        finish(s->keys + k, cosine, apart ? inverse : 1, 1, &call->to_keys);
    return 0;
}

int NAME(pair_contrast)(const struct pair_contrast_call *call) {
    struct sweep s = {.call = call};
    int failed = prepare(&s);
    if (!failed)
        failed = call->statistics.data
                     ? run_backward(&s)
                     : run_blocks(&s, blocks_in(&s), loss_span);
    free(s.slopes);
    free(s.anchor);
    free(s.anchors.memory);
    for (int64_t k = 0; k < 2; k++) free(s.keys[k].memory);
    return failed ? -1 : 0;
}
