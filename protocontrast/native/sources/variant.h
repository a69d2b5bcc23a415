/* Names and types of one build: each source is compiled once per instruction set and precision. */
#ifndef VARIANT_H
#define VARIANT_H

#include <stdint.h>
#include <string.h>
#ifdef __SSE2__
#include <immintrin.h>
#endif

/* The build defines VARIANT and VECTOR_BYTES, and DOUBLE for the build in float64. */
#ifdef DOUBLE
typedef double real;
typedef int64_t word;
#define PRECISION double
#define SQRT __builtin_sqrt
#else
typedef float real;
typedef int32_t word;
#define PRECISION float
#define SQRT __builtin_sqrtf
#endif

#define JOIN_(stem, variant, precision) stem##_##variant##_##precision
#define JOIN(stem, variant, precision) JOIN_(stem, variant, precision)
#define NAME(stem) JOIN(stem, VARIANT, PRECISION)

#define LANES (VECTOR_BYTES / (int)sizeof(real))
typedef real vec __attribute__((vector_size(VECTOR_BYTES)));
typedef word mask __attribute__((vector_size(VECTOR_BYTES)));

/* Of 32 vector registers 24 hold sums, of 16 it is 12: what is left holds the factors. */
#if defined(__AVX512F__) || defined(__aarch64__)
#define ROWS 12
#else
#define ROWS 6
#endif

#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* An index whose use is not to become a gather: on many processors that is slower. */
#define ONE_BY_ONE(index) __asm__("" : "+r"(index))

ALWAYS_INLINE vec load(const real *from) {
    vec value;
    memcpy(&value, from, sizeof value);
    return value;
}

ALWAYS_INLINE void store(real *to, vec value) { memcpy(to, &value, sizeof value); }

/* Stores past the caches, where that is asked for and the processor can: `to` is then aligned. */
ALWAYS_INLINE void put(void *to, vec value, int past) {
#if defined(__AVX512F__)
    if (past) {
        _mm512_stream_si512(to, (__m512i)value);
        return;
    }
#elif defined(__AVX__)
    if (past) {
        _mm256_stream_si256(to, (__m256i)value);
        return;
    }
#elif defined(__SSE2__)
    if (past) {
        _mm_stream_si128(to, (__m128i)value);
        return;
    }
#else
    (void)past;
#endif
    memcpy(to, &value, sizeof value);
}

/* Less 0, and not plus: that is x for -0, too, so it costs no instruction. */
ALWAYS_INLINE vec every(real x) { return x - (vec){0}; }

ALWAYS_INLINE vec choose(mask where, vec yes, vec no) {
    return (vec)(((mask)yes & where) | ((mask)no & ~where));
}

ALWAYS_INLINE vec larger(vec a, vec b) { return choose(a > b, a, b); }

#endif
