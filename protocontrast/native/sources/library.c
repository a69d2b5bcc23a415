/* What the library exports: each operator in the variant and precision that a call names. */
#include "call.h"

#define QUOTED_(text) #text
#define QUOTED(text) QUOTED_(text)

/* The sources that this was built from: a library of others would read another struct. */
EXPORTED const char *protocontrast_digest(void) { return QUOTED(DIGEST); }

/* The widest instruction set that both this library and the processor have. */
EXPORTED int64_t protocontrast_variant(void) {
#ifdef HAVE_X86
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        return 2;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return 1;
#endif
    return 0;
}

#ifdef HAVE_X86
#define VARIANTS(EACH) EACH(baseline) EACH(avx2) EACH(avx512)
#else
#define VARIANTS(EACH) EACH(baseline)
#endif

/* One exported function per operator, from a table [variant][precision]. */
#define EXPORT(stem)                                                                               \
    VARIANTS(DECLARE_##stem)                                                                       \
    typedef int stem##_function(const struct stem##_call *);                                       \
    static stem##_function *const stem##_table[][2] = {VARIANTS(ENTER_##stem)};                    \
    EXPORTED int protocontrast_##stem(const struct stem##_call *call) {                            \
        return stem##_table[call->machine.variant][call->machine.wide](call);                      \
    }
#define DECLARE(stem, variant)                                                                     \
    int stem##_##variant##_float(const struct stem##_call *);                                      \
    int stem##_##variant##_double(const struct stem##_call *);
#define ENTER(stem, variant) {stem##_##variant##_float, stem##_##variant##_double},


#define DECLARE_contrast(variant) DECLARE(contrast, variant)
#define ENTER_contrast(variant) ENTER(contrast, variant)
EXPORT(contrast)

#define DECLARE_class_sums(variant) DECLARE(class_sums, variant)
#define ENTER_class_sums(variant) ENTER(class_sums, variant)
EXPORT(class_sums)

#define DECLARE_class_sums_backward(variant) DECLARE(class_sums_backward, variant)
#define ENTER_class_sums_backward(variant) ENTER(class_sums_backward, variant)
EXPORT(class_sums_backward)

#define DECLARE_transfer(variant) DECLARE(transfer, variant)
#define ENTER_transfer(variant) ENTER(transfer, variant)
EXPORT(transfer)

#define DECLARE_upsampled_cross_entropy(variant) DECLARE(upsampled_cross_entropy, variant)
#define ENTER_upsampled_cross_entropy(variant) ENTER(upsampled_cross_entropy, variant)
EXPORT(upsampled_cross_entropy)

#define DECLARE_labels(variant) DECLARE(labels, variant)
#define ENTER_labels(variant) ENTER(labels, variant)
EXPORT(labels)

#define DECLARE_logits(variant) DECLARE(logits, variant)
#define ENTER_logits(variant) ENTER(logits, variant)
EXPORT(logits)

#define DECLARE_pair_contrast(variant) DECLARE(pair_contrast, variant)
#define ENTER_pair_contrast(variant) ENTER(pair_contrast, variant)
EXPORT(pair_contrast)

#define DECLARE_target_pass(variant) DECLARE(target_pass, variant)
#define ENTER_target_pass(variant) ENTER(target_pass, variant)
EXPORT(target_pass)

#define DECLARE_bidirectional(variant) DECLARE(bidirectional, variant)
#define ENTER_bidirectional(variant) ENTER(bidirectional, variant)
EXPORT(bidirectional)

#define DECLARE_rescale(variant) DECLARE(rescale, variant)
#define ENTER_rescale(variant) ENTER(rescale, variant)
EXPORT(rescale)
