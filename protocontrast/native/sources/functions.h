/* Sums; exp and log of vectors, in float32 by polynomials (Cephes), in float64 by the C library. */
#ifndef FUNCTIONS_H
#define FUNCTIONS_H

#include "variant.h"

/* Several at a time: one after another would wait for each other. */
static inline double sum_of(const real *values, int64_t count) {
    double part[8] = {0};
    int64_t n = 0;
    for (; n + 8 <= count; n += 8)
        for (int i = 0; i < 8; i++) part[i] += values[n + i];
    for (int i = 0; n + i < count; i++) part[i] += values[n + i];
    return ((part[0] + part[1]) + (part[2] + part[3])) +
           ((part[4] + part[5]) + (part[6] + part[7]));
}

#ifdef DOUBLE

#include <math.h>

#define SMALLEST_EXPONENT (-600.0)

static inline vec exponential(vec x) {
    for (int i = 0; i < LANES; i++) x[i] = exp(x[i]);
    return x;
}

static inline vec logarithm(vec x) {
    for (int i = 0; i < LANES; i++) x[i] = log(x[i]);
    return x;
}

#else

#include <float.h>

/* Beside exp(0), exp of this is nothing; times a weight it is still a normal number. Subnormal ones
   take many times as long. */
#define SMALLEST_EXPONENT (-60.0f)

#define LOG2_HIGH 0.693359375f /* of so few bits that its product with an exponent is exact */
#define LOG2_LOW -2.12194440e-4f

/* Of exponents from -87 to 87, or NaN. */
ALWAYS_INLINE vec exponential(vec x) {
    const vec magic = every(12582912.0f); /* 1.5 * 2^23: adding it rounds to an integer */
    vec n = (x * 1.44269504088896341f + magic) - magic;
    vec r = x - n * LOG2_HIGH;
    r = r - n * LOG2_LOW;
    vec p = every(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    mask power = (__builtin_convertvector(n, mask) + 127) << 23;
    return p * (vec)power;
}

/* Of positive normal numbers, infinity or NaN. */
ALWAYS_INLINE vec logarithm(vec x) {
    mask bits = (mask)x;
    mask e = ((bits >> 23) & 255) - 126;
    vec m = (vec)((bits & 0x007fffff) | 0x3f000000); /* in [0.5, 1) */
    mask low = m < every(0.707106781186547524f);
    e += low; /* a comparison that holds is -1 */
    m = m + (vec)((mask)m & low) - 1.0f;
    vec exponent = __builtin_convertvector(e, vec), z = m * m;
    vec p = every(7.0376836292e-2f);
    p = p * m - 1.1514610310e-1f;
    p = p * m + 1.1676998740e-1f;
    p = p * m - 1.2420140846e-1f;
    p = p * m + 1.4249322787e-1f;
    p = p * m - 1.6668057665e-1f;
    p = p * m + 2.0000714765e-1f;
    p = p * m - 2.4999993993e-1f;
    p = p * m + 3.3333331174e-1f;
    p = p * m * z + exponent * LOG2_LOW - z * 0.5f;
    return choose(x <= every(FLT_MAX), m + p + exponent * LOG2_HIGH, x);
}

#endif

/* A logit less the largest one, and exactly 0 there, so that what stands alone has a share of
   exactly 1. The compiler may take the product that a logit is into the difference, which is then
   what its rounding left. */
ALWAYS_INLINE vec from_peak(vec logit, vec peak) {
    return choose(logit >= peak, (vec){0}, logit - peak);
}

/* The same where exp reaches. */
ALWAYS_INLINE vec below_peak(vec logit, vec peak) {
    const vec least = every(SMALLEST_EXPONENT), exponent = from_peak(logit, peak);
    return choose(exponent < least, least, exponent);
}

#endif
