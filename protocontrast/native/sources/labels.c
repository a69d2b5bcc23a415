/* Whether a label is neither a class nor ignored: asked before anything else of a call is read. */
#include "call.h"
#include "variant.h"

int NAME(labels)(const struct labels_call *call) {
    const struct array *a = &call->labels;
    const uint64_t classes = (uint64_t)call->classes;
    const int64_t ignored = call->ignore_index, count = call->sizes[2], along = a->strides[2];
    for (int64_t row = 0; row < call->sizes[0] * call->sizes[1]; row++) {
        const int64_t offset = row / call->sizes[1] * a->strides[0] +
                               row % call->sizes[1] * a->strides[1];
        int wrong = 0;
        switch (a->dtype) {
#define WRONG(label) (((uint64_t)(int64_t)(label) >= classes) & ((label) != ignored))
#define EACH(DTYPE, TYPE)                                                                          \
    case DTYPE: {                                                                                  \
        const TYPE *from = (const TYPE *)a->data + offset;                                         \
        if (along == 1)                                                                            \
            for (int64_t i = 0; i < count; i++) wrong |= WRONG(from[i]);                           \
        else                                                                                       \
            for (int64_t i = 0; i < count; i++) wrong |= WRONG(from[i * along]);                   \
        break;                                                                                     \
    }
            EACH(UINT8, uint8_t)
            EACH(INT32, int32_t)
            EACH(INT64, int64_t)
        }
        if (wrong) return 1;
    }
    return 0;
}
