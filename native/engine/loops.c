#include "loops.h"
#include "elementwise.h"

#include <string.h>

#define LOOP(op, isa, level) {#op "_" #isa, #op, level}

const lb_loop lb_loops[] = {
    LOOP(stage, scalar, LB_SCALAR),     LOOP(max_pool, scalar, LB_SCALAR),  LOOP(avg_pool, scalar, LB_SCALAR),
    LOOP(add, scalar, LB_SCALAR),       LOOP(pack, scalar, LB_SCALAR),      LOOP(float_product, scalar, LB_SCALAR),
    LOOP(transpose, scalar, LB_SCALAR), LOOP(copy, scalar, LB_SCALAR),
#if defined(LOBIT_X86)
    LOOP(stage, avx2, LB_AVX2),         LOOP(stage, avx512, LB_AVX512),     LOOP(max_pool, avx2, LB_AVX2),
    LOOP(max_pool, avx512, LB_AVX512),  LOOP(avg_pool, avx2, LB_AVX2),      LOOP(avg_pool, avx512, LB_AVX512),
    LOOP(add, avx2, LB_AVX2),           LOOP(add, avx512, LB_AVX512),       LOOP(pack, avx2, LB_AVX2),
    LOOP(pack, avx512, LB_AVX512),      LOOP(float_product, avx2, LB_AVX2), LOOP(float_product, avx512, LB_AVX512),
#endif
};
const int lb_loop_count = sizeof lb_loops / sizeof *lb_loops;

const char *lb_loop_name(const char *op, lb_isa isa) {
    const lb_loop *best = NULL;
    for (int i = 0; i < lb_loop_count; i++)
        if (!strcmp(lb_loops[i].op, op) && lb_loops[i].isa <= isa && (!best || lb_loops[i].isa > best->isa)) best = &lb_loops[i];
    return best ? best->name : NULL;
}

/* The compilation that those rows stand for. */
const lb_elementwise *lb_elementwise_for(lb_isa isa) {
#if defined(LOBIT_X86)
    if (isa >= LB_AVX512) return &lb_elementwise_avx512;
    if (isa == LB_AVX2) return &lb_elementwise_avx2;
#endif
    (void)isa;
    return &lb_elementwise_scalar;
}
