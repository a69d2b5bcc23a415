/* Both directions of a contrast between batches, each against the other's class means, and what
 * reaches the means: a row of each class, which all of its pixels share.
 *
 * dL/df_i = own_i + share_y with share_c = dL/dM_c / n_c. Only `own` is written here.
 */
#include <stdlib.h>

#include "dtypes.h"
#include "spans.h"

int NAME(class_sums)(const struct class_sums_call *call);
int NAME(contrast)(const struct contrast_call *call);

/* Of both domains, source first: means (G, C, D) and counts (G, C). */
struct step {
    const struct bidirectional_call *call;
    int64_t groups;
    real *means[2], *counts[2];
    real *class_weight, *to_means; /* (C,) and (C, D) */
    uint8_t *present[2];           /* (C,) */
};

static struct array dense(void *data, int64_t dtype, int64_t first, int64_t second) {
    return (struct array){data, {first, second, 0}, dtype};
}

static int64_t bytes_of(int64_t dtype) {
    switch (dtype) {
    case FLOAT64:
    case INT64: return 8;
    case FLOAT32:
    case INT32: return 4;
    case UINT8: return 1;
    }
    return 2;
}

/* The images of a group; all where there is one. */
static struct array of_group(struct array a, int64_t group) {
    if (a.data) a.data = (char *)a.data + group * a.strides[0] * bytes_of(a.dtype);
    return a;
}

/* Means of the classes in each group of a domain. */
static int average(const struct step *s, int which) {
    const struct bidirectional_call *call = s->call;
    const struct domain *d = &call->domains[which];
    const int64_t C = call->classes, D = call->channels;
    const struct class_sums_call sums = {
        .machine = call->machine, .images = d->images, .channels = D, .pixels = d->pixels,
        .classes = C, .features = d->features, .labels = d->labels, .sums = s->means[which],
        .counts = s->counts[which], .per_image = call->pairwise, .ignore_index = call->ignore_index,
    };
    memset(s->means[which], 0, (size_t)(s->groups * C * D) * sizeof(real));
    memset(s->counts[which], 0, (size_t)(s->groups * C) * sizeof(real));
    if (NAME(class_sums)(&sums)) return -1;
    for (int64_t i = 0; i < s->groups * C; i++)
        for (int64_t k = 0; k < D && s->counts[which][i] > 0; k++)
            s->means[which][i * D + k] /= s->counts[which][i];
    return 0;
}

/* What a class's pixels weigh in sum, of soft targets. */
static real mass_of(const struct domain *d, int64_t first, int64_t last, int64_t c) {
    double sum = 0;
    real mass[TILE];
    for (int64_t image = first; image < last; image++)
        for (int64_t start = 0; start < d->pixels; start += TILE) {
            const int64_t count = d->pixels - start < TILE ? d->pixels - start : TILE;
            const int64_t *strides = d->targets.strides;
            widen(&d->targets, image * strides[0] + c * strides[1] + start * strides[2],
                  strides[2], count, mass);
            for (int64_t n = 0; n < count; n++) sum += mass[n];
        }
    return (real)sum;
}

/* (C,): 1 of a class that both domains have; over its pixels where classes count alike. */
static void weigh(const struct step *s, int moved, int64_t group) {
    const struct bidirectional_call *call = s->call;
    const struct domain *d = &call->domains[moved];
    const int64_t C = call->classes, images = call->pairwise ? group + 1 : d->images;
    for (int64_t c = 0; c < C; c++) {
        s->class_weight[c] = s->present[0][c] && s->present[1][c];
        if (!call->whole_class || s->class_weight[c] == 0) continue;
        real pixels = s->counts[moved][group * C + c];
        if (call->soft[moved]) pixels = mass_of(d, call->pairwise ? group : 0, images, c);
        s->class_weight[c] /= pixels < call->whole_class ? (real)call->whole_class : pixels;
    }
}

/* One direction of a group: pixels of one domain move towards the means of the other. */
static int move(const struct step *s, int moved, int64_t group) {
    const struct bidirectional_call *call = s->call;
    const struct domain *d = &call->domains[moved], *fixed = &call->domains[1 - moved];
    const int64_t C = call->classes, D = call->channels, at = group * C;
    real loss = 0;
    struct contrast_call one = {
        .machine = call->machine,
        .images = call->pairwise ? 1 : d->images,
        .channels = D,
        .pixels = d->pixels,
        .classes = C,
        .features = of_group(d->features, group),
        .labels = of_group(d->targets, group),
        .prototypes = dense(s->means[1 - moved] + at * D, REAL_DTYPE, D, 1),
        .present = dense(s->present[1 - moved], UINT8, 1, 0),
        .class_weight = dense(s->class_weight, REAL_DTYPE, 1, 0),
        .gradient = of_group(d->gradient, group),
        .total = &loss,
        .similarity = COSINE,
        .keep_absent = call->keep_absent,
        .soft = call->soft[moved],
        .mean = 1,
        .ignore_index = call->ignore_index,
        .temperature = call->temperature,
    };
    if (fixed->share) one.to_prototypes = dense(s->to_means, REAL_DTYPE, D, 1);
    weigh(s, moved, group);
    if (NAME(contrast)(&one)) return -1;
    *(real *)d->loss += loss / (real)s->groups;
    for (int64_t c = 0; fixed->share && c < C; c++)
        for (int64_t k = 0; k < D; k++) {
            const real count = s->counts[1 - moved][at + c], row = s->to_means[c * D + k];
            ((real *)fixed->share)[(at + c) * D + k] = row / (count == 0 ? 1 : count);
        }
    return 0;
}

int NAME(bidirectional)(const struct bidirectional_call *call) {
    struct step s = {.call = call, .groups = call->pairwise ? call->domains[0].images : 1};
    const int64_t C = call->classes, D = call->channels, means = s.groups * C * D;
    char *memory = aligned_memory((2 * means + 2 * s.groups * C + C + C * D) *
                                  (int64_t)sizeof(real) + 2 * C);
    if (!memory) return -1;
    s.means[0] = (real *)memory;
    s.means[1] = s.means[0] + means;
    s.counts[0] = s.means[1] + means;
    s.counts[1] = s.counts[0] + s.groups * C;
    s.class_weight = s.counts[1] + s.groups * C;
    s.to_means = s.class_weight + C;
    s.present[0] = (uint8_t *)(s.to_means + C * D);
    s.present[1] = s.present[0] + C;
    int failed = average(&s, 0) || average(&s, 1);
    for (int64_t group = 0; group < s.groups && !failed; group++) {
        for (int i = 0; i < 2; i++)
            for (int64_t c = 0; c < C; c++) s.present[i][c] = s.counts[i][group * C + c] > 0;
        failed = move(&s, 1, group) || move(&s, 0, group);
    }
    free(memory);
    return failed ? -1 : 0;
}
