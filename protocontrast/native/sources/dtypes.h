/* Numbers of every dtype, widened on load and rounded to nearest even on the way back. */
#ifndef DTYPES_H
#define DTYPES_H

#include "call.h"
#include "variant.h"

/* By bits, not by a compiler's own 16-bit types, which are not everywhere, or call a library. */
static inline uint32_t bits_of(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline float float_of(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline float from_bfloat16(uint16_t h) { return float_of((uint32_t)h << 16); }

static inline uint16_t to_bfloat16(float x) {
    const uint32_t bits = bits_of(x);
    const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    return (uint16_t)(x != x ? 0x7fc0 : rounded);
}

/* 2^112 moves an exponent from float16's bias to float32's, subnormal numbers included. */
static inline float from_float16(uint16_t h) {
    const uint32_t sign = (uint32_t)(h & 0x8000) << 16, rest = (uint32_t)(h & 0x7fff) << 13;
    const uint32_t finite = bits_of(float_of(rest) * 0x1p112f);
    return float_of(sign | (rest >= 0x0f800000 ? rest | 0x7f800000 : finite));
}

static inline uint16_t to_float16(float x) {
    const uint32_t bits = bits_of(x), sign = (bits >> 16) & 0x8000;
    const float size = float_of(bits & 0x7fffffff);
    /* Adding a power of two leaves the last place of float16's subnormal numbers, rounded. */
    const uint32_t small = bits_of(size + 0.5f) - bits_of(0.5f);
    const uint32_t normal = bits_of(size) - 0x38000000;
    const uint32_t rounded = (normal + 0xfff + ((normal >> 13) & 1)) >> 13;
    const uint32_t finite = size < 0x1p-14f ? small : rounded;
    const uint32_t found = size < 65520.0f ? finite : 0x7c00;
    return (uint16_t)(sign | (x != x ? 0x7e00 : found));
}

static inline float same_float(float x) { return x; }
static inline double same_double(double x) { return x; }
static inline float narrowed_float(real x) { return (float)x; }
static inline double narrowed_double(real x) { return (double)x; }
static inline uint16_t narrowed_bfloat16(real x) { return to_bfloat16((float)x); }
static inline uint16_t narrowed_float16(real x) { return to_float16((float)x); }

/* EACH(dtype, type, widening function, narrowing function) for every floating dtype. */
#define FLOATING(EACH)                                                                             \
    EACH(FLOAT32, float, same_float, narrowed_float)                                               \
    EACH(FLOAT64, double, same_double, narrowed_double)                                            \
    EACH(BFLOAT16, uint16_t, from_bfloat16, narrowed_bfloat16)                                     \
    EACH(FLOAT16, uint16_t, from_float16, narrowed_float16)

/* One element of a floating tensor. */
static inline double element(const struct array *a, int64_t offset) {
    switch (a->dtype) {
#define EACH(DTYPE, TYPE, WIDEN, NARROW)                                                           \
    case DTYPE: return WIDEN(((const TYPE *)a->data)[offset]);
        FLOATING(EACH)
#undef EACH
    }
    return 0;
}

/* `count` elements from `offset` on, `stride` apart. */
static inline void widen(const struct array *a, int64_t offset, int64_t stride, int64_t count,
                         real *to) {
    switch (a->dtype) {
#define EACH(DTYPE, TYPE, WIDEN, NARROW)                                                           \
    case DTYPE: {                                                                                  \
        const TYPE *from = (const TYPE *)a->data + offset;                                         \
        if (stride == 1)                                                                           \
            for (int64_t i = 0; i < count; i++) to[i] = (real)WIDEN(from[i]);                      \
        else                                                                                       \
            for (int64_t i = 0; i < count; i++) to[i] = (real)WIDEN(from[i * stride]);             \
        break;                                                                                     \
    }
        FLOATING(EACH)
#undef EACH
    }
}

/* The way back. */
static inline void narrow(const struct array *a, int64_t offset, int64_t stride, int64_t count,
                   const real *from) {
    switch (a->dtype) {
#define EACH(DTYPE, TYPE, WIDEN, NARROW)                                                           \
    case DTYPE: {                                                                                  \
        TYPE *to = (TYPE *)a->data + offset;                                                       \
        if (stride == 1)                                                                           \
            for (int64_t i = 0; i < count; i++) to[i] = NARROW(from[i]);                           \
        else                                                                                       \
            for (int64_t i = 0; i < count; i++) to[i * stride] = NARROW(from[i]);                  \
        break;                                                                                     \
    }
        FLOATING(EACH)
#undef EACH
    }
}

/* Labels (n,) of any of the integer dtypes. */
static inline void read_labels(const struct array *a, int64_t offset, int64_t stride, int64_t count,
                        int64_t *to) {
    switch (a->dtype) {
    case UINT8:
        for (int64_t i = 0; i < count; i++) to[i] = ((const uint8_t *)a->data)[offset + i * stride];
        break;
    case INT32:
        for (int64_t i = 0; i < count; i++) to[i] = ((const int32_t *)a->data)[offset + i * stride];
        break;
    case INT64:
        for (int64_t i = 0; i < count; i++) to[i] = ((const int64_t *)a->data)[offset + i * stride];
        break;
    }
}

#define REAL_DTYPE (sizeof(real) == sizeof(double) ? FLOAT64 : FLOAT32)

#endif
