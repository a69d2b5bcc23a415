/* Sums of the rows of each class, and how many these are: span by span, to have one order. */
#ifndef TOTALS_H
#define TOTALS_H

#include <stdlib.h>

#include "members.h"

struct totals {
    int64_t classes, channels, width, part; /* of a row, and of all rows of a span */
    real *sums;                             /* [spans][classes][width] */
    double *counts;                         /* [spans][classes] */
};

/* 0, or -1 where memory is short. */
static int prepare_totals(struct totals *t, int64_t spans, int64_t classes, int64_t channels) {
    const int64_t width = row_width(channels), part = classes * width;
    *t = (struct totals){classes, channels, width, part, NULL, NULL};
    t->sums = aligned_memory(spans * part * (int64_t)sizeof(real));
    t->counts = aligned_memory(spans * classes * (int64_t)sizeof(double));
    return t->sums && t->counts ? 0 : -1;
}

static void free_totals(struct totals *t) {
    free(t->sums);
    free(t->counts);
}

/* Tiles that are added one pixel after another before their sum joins the others, to keep digits:
   so few that little is lost, and so many that the joining of all classes costs little. */
static inline int64_t recent_tiles(int64_t classes) { return classes > 32 ? classes / 4 : 8; }

static inline void begin_totals(const struct totals *t, int64_t span, real *recent) {
    for (int64_t i = 0; i < t->part; i++) t->sums[span * t->part + i] = recent[i] = 0;
    for (int64_t c = 0; c < t->classes; c++) t->counts[span * t->classes + c] = 0;
}

static inline void join_recent(const struct totals *t, int64_t span, real *recent) {
    for (int64_t i = 0; i < t->part; i++) {
        t->sums[span * t->part + i] += recent[i];
        recent[i] = 0;
    }
}

ALWAYS_INLINE void add_row(real *to, const real *row, real factor, int64_t count) {
    int64_t d = 0;
    for (; d + LANES <= count; d += LANES) store(to + d, load(to + d) + factor * load(row + d));
    for (; d < count; d++) to[d] += factor * row[d];
}

/* The spans of each group in order; one group, or one per image. */
static void add_totals(const struct totals *t, const struct spans *spans, int per_image,
                       real *sums, real *counts) {
    for (int64_t span = 0; span < spans->count; span++) {
        const int64_t group = per_image ? span / spans->each : 0;
        for (int64_t c = 0; c < t->classes; c++) {
            real *to = sums + (group * t->classes + c) * t->channels;
            const real *from = t->sums + span * t->part + c * t->width;
            for (int64_t d = 0; d < t->channels; d++) to[d] += from[d];
            counts[group * t->classes + c] += (real)t->counts[span * t->classes + c];
        }
    }
}

#endif
