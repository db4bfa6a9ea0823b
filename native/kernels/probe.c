/* Times the loops of probe_avx512.c. */
#define _POSIX_C_SOURCE 199309L
#include "probe.h"
#include "kernel.h"

#include <time.h>

#define REPEATS 25

typedef double (*round_fn)(void); /* runs about 2 ms of operations, returns how many multiply-accumulates */

#if defined(LOBIT_X86)
double lb_probe_one_bit_avx512(void);
double lb_probe_int8_avx512(void);
double lb_probe_fp32_avx512(void);
#endif

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

double lb_probe_limit(lb_probe what) {
    round_fn round = 0;
#if defined(LOBIT_X86)
    if (lb_has_isa(LB_AVX512)) {
        if (what == LB_PROBE_ONE_BIT && __builtin_cpu_supports("avx512vpopcntdq")) round = lb_probe_one_bit_avx512;
        if (what == LB_PROBE_INT8 && __builtin_cpu_supports("avx512vnni")) round = lb_probe_int8_avx512;
        if (what == LB_PROBE_FP32) round = lb_probe_fp32_avx512;
    }
#else
    (void)what; /* no instruction to probe */
#endif
    double best = 0;
    for (int i = 0; round && i < REPEATS; i++) {
        const double start = now(), done = round(), rate = done / (now() - start);
        if (rate > best) best = rate;
    }
    return best;
}
