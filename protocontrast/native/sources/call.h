/* What Python hands over: one struct per operator, laid out as in `calls.py`. */
#ifndef CALL_H
#define CALL_H

#include <stdint.h>

enum dtype { FLOAT32, FLOAT64, BFLOAT16, FLOAT16, UINT8, INT32, INT64 };

/* A tensor of up to three dimensions; strides count elements, and `data` is null where there is none. */
struct array {
    void *data;
    int64_t strides[3];
    int64_t dtype;
};

/* What every operator is told first. `wide` asks for float64 arithmetic, else it is float32. */
struct machine {
    int64_t variant;
    int64_t threads;
    int64_t wide;
};

/* Features are (B, D, P), labels (B, P) or soft (B, C, P), prototypes (C, D). */
struct contrast_call {
    struct machine machine;
    int64_t images, channels, pixels, classes;
    struct array features, labels, prototypes, present, class_weight, pixel_weight, upstream;
    struct array gradient, to_prototypes;
    void *loss, *weight, *normaliser; /* (B, P), dense */
    void *total;                      /* (), the summed loss */
    int64_t cosine, floor, soft, mean, ignore_index;
    double temperature;
};

#define EXPORTED __attribute__((visibility("default")))

#endif
