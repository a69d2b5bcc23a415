/* What Python hands over: one struct per operator, laid out as in `calls.py`. */
#ifndef CALL_H
#define CALL_H

#include <stdint.h>

enum dtype { FLOAT32, FLOAT64, BFLOAT16, FLOAT16, UINT8, INT32, INT64 };

/* A tensor of up to three dimensions; strides count elements. `data` is null where it is absent. */
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

enum similarity { COSINE, DOT, EUCLIDEAN };

/* Features are (B, D, P), labels (B, P) or soft (B, C, P), prototypes (C, D). */
struct contrast_call {
    struct machine machine;
    int64_t images, channels, pixels, classes;
    struct array features, labels, prototypes, present, class_weight, pixel_weight, grad_output;
    struct array gradient, to_prototypes;
    void *loss, *weight, *lse; /* (B, P), dense */
    void *total;                      /* (), the summed loss */
    int64_t similarity, keep_absent, soft, mean, ignore_index;
    double temperature;
};

/* Sums (G, C, D) and counts (G, C), dense; G = B per image, else 1. */
struct class_sums_call {
    struct machine machine;
    int64_t images, channels, pixels, classes;
    struct array features, labels, pixel_weight;
    void *sums, *counts;
    int64_t normalize, per_image, ignore_index;
};

/* The gradient of the features from that of the sums (G, C, D), `groups` of them. */
struct class_sums_backward_call {
    struct machine machine;
    int64_t images, channels, pixels, classes, groups;
    struct array features, labels, pixel_weight, grad_output, gradient;
    int64_t normalize, ignore_index;
};

/* Labels and the measure's value (B, P), dense; thresholds (C,), if given, replace the one. */
struct transfer_call {
    struct machine machine;
    int64_t images, channels, pixels, classes;
    struct array features, prototypes, present, class_threshold;
    void *labels, *values;
    int64_t cosine, confidence, ignore_index;
    double threshold, temperature;
};

/* Given labels (B, P); targets (B, C, P), which take the transferred labels; filling (P,);
   prototypes and nearest (C, D); present and counted (C,). Losses and counts (C,), sums (C, D),
   labels, values and lse (B, P), dense. Where `counted` is absent no loss is taken. */
struct target_pass_call {
    struct machine machine;
    int64_t images, channels, pixels, classes;
    struct array features, given, targets, filling, prototypes, nearest, present, counted;
    struct array gradient;
    void *losses, *sums, *counts, *labels, *values, *lse;
    int64_t confidence, keep_absent, normalize, transfer, wants_sums, ignore_index;
    double threshold, temperature;
};

/* One side of a step: labels of its means, targets of its loss (which may be the labels), where its
   gradient goes and, dense, what its classes share of it (G, C, D); its loss (). */
struct domain {
    int64_t images, pixels;
    struct array features, labels, targets, gradient;
    void *share, *loss;
};

/* Source and target; pairs of images where `pairwise`, else G = 1. */
struct bidirectional_call {
    struct machine machine;
    int64_t channels, classes;
    struct domain domains[2];
    int64_t soft[2], keep_absent, pairwise, whole_class, ignore_index;
    double temperature;
};

/* Factors (C + 1,), the last one of pixels without a class; rows (G, C, D), if given. */
struct rescale_call {
    struct machine machine;
    int64_t images, channels, pixels, classes, groups;
    struct array gradient, labels, factors, rows;
    int64_t ignore_index;
    double row_factor;
};

/* Logits (B, C, h, w) and their gradient, rows apart, which is added to and of the wide dtype;
   labels and `grad_output` (B, H, W). */
struct upsampled_cross_entropy_call {
    struct machine machine;
    int64_t images, classes, height, width, out_height, out_width;
    struct array logits, labels, class_weight, grad_output, gradient;
    int64_t logits_row, gradient_row;
    void *loss;   /* (B, H, W), dense */
    void *totals; /* (2,), the sums of losses and of weights */
    int64_t align_corners, ignore_index;
    double label_smoothing;
};

/* Logits (B, C, P), dense, of a forward call; of a backward call `grad_output`, shaped alike. */
struct logits_call {
    struct machine machine;
    int64_t images, channels, pixels, classes;
    struct array features, prototypes, present, grad_output, gradient, to_prototypes;
    void *logits;
    int64_t similarity;
    double temperature;
};

/* Rows (A, D) and (K, D). Of a forward call loss and weight (A,), and `found` (3, A): log-sum-exp,
   weight of a positive, weight of the negatives; zeros, and +inf the first, before. Of a backward
   call `statistics` is the last, `anchor_weight` what comes back where an anchor counts. */
struct pair_contrast_call {
    struct machine machine;
    int64_t anchors_given, keys_given, channels;
    struct array anchors, anchor_labels, keys, positive_labels, negative_labels, anchor_weight;
    struct array statistics, to_anchors, to_keys;
    void *loss, *weight, *found;
    int64_t similarity, two_roles, all_in_denominator, exclude_self, ignore_index;
    double temperature;
};

/* Labels of up to three dimensions, which `sizes` and strides begin with 1 and 0 where they are
   fewer. */
struct labels_call {
    struct machine machine;
    int64_t sizes[3];
    struct array labels;
    int64_t classes, ignore_index;
};

#define EXPORTED __attribute__((visibility("default")))

#endif
