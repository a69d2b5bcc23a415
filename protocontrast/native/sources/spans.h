/* How the pixels of a call are divided: by its shape alone, so that sums have one order. */
#ifndef SPANS_H
#define SPANS_H

#include <stdint.h>

#define TILE 64 /* pixels that are read, worked on and written at a time */

struct spans {
    int64_t images, pixels;
    int64_t tiles; /* of one image */
    int64_t each;  /* spans of one image */
    int64_t count; /* of all images */
};

struct spans spans_of(int64_t images, int64_t pixels);

/* The half-open range of a span's tiles within its image. */
static inline void span_tiles(const struct spans *s, int64_t span, int64_t *first, int64_t *last) {
    const int64_t part = span % s->each;
    *first = part * s->tiles / s->each;
    *last = (part + 1) * s->tiles / s->each;
}

/* The work on one span, with memory of its thread's own. */
typedef void span_body(void *context, int64_t span, void *scratch);

/* Runs the body for every span on up to `threads` threads; 0, or -1 where memory is short. */
int run_spans(const struct spans *spans, int64_t threads, int64_t scratch_bytes, span_body *body,
              void *context);

/* Memory that starts on a cache line; null where it is short, and freed by `free`. */
void *aligned_memory(int64_t bytes);

#endif
