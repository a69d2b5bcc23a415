/* Threads are made for a call and end with it: there is no pool to lose in a fork. */
#include "spans.h"

#include <pthread.h>
#include <stdlib.h>
#ifdef __SSE2__
#include <immintrin.h>
#endif

#define MOST_SPANS 16        /* unless there are more images */
#define FEWEST_TILES 16      /* of a span, where its image has as many */
#define TILES_OF_A_THREAD 32 /* fewer are done before a thread has started */
#define MOST_THREADS 256

struct spans spans_of(int64_t images, int64_t pixels) {
    struct spans s = {images, pixels, (pixels + TILE - 1) / TILE, 0, 0};
    if (images <= 0 || pixels <= 0) return s;
    const int64_t wanted = (MOST_SPANS + images - 1) / images;
    const int64_t possible = (s.tiles + FEWEST_TILES - 1) / FEWEST_TILES;
    s.each = wanted < possible ? wanted : possible;
    s.count = s.each * images;
    return s;
}

void *aligned_memory(int64_t bytes) {
    void *found = NULL;
    return posix_memalign(&found, 64, bytes > 0 ? (size_t)bytes : 64) ? NULL : found;
}

struct work {
    const struct spans *spans;
    int64_t next, scratch_bytes;
    span_body *body;
    void *context;
    int failed;
};

static void *work_on(void *argument) {
    struct work *work = argument;
    void *scratch = aligned_memory(work->scratch_bytes);
    if (!scratch) {
        __atomic_store_n(&work->failed, 1, __ATOMIC_RELAXED);
        return NULL;
    }
    for (;;) {
        const int64_t span = __atomic_fetch_add(&work->next, 1, __ATOMIC_RELAXED);
        if (span >= work->spans->count) break;
        work->body(work->context, span, scratch);
    }
#ifdef __SSE2__
    _mm_sfence(); /* what was written past the caches is seen before this thread's end */
#endif
    free(scratch);
    return NULL;
}

int run_spans(const struct spans *spans, int64_t threads, int64_t scratch_bytes, span_body *body,
              void *context) {
    struct work work = {spans, 0, scratch_bytes, body, context, 0};
    pthread_t others[MOST_THREADS];
    int64_t useful = 1 + spans->tiles * spans->images / TILES_OF_A_THREAD, started = 0;
    if (useful > spans->count) useful = spans->count;
    if (useful > threads) useful = threads;
    if (useful > MOST_THREADS) useful = MOST_THREADS;
    /* Where no thread is to be had, those there are do its work. */
    while (started + 1 < useful && !pthread_create(&others[started], NULL, work_on, &work))
        started++;
    work_on(&work);
    for (int64_t i = 0; i < started; i++) pthread_join(others[i], NULL);
    return work.failed ? -1 : 0;
}
