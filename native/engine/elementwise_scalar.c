#include "elementwise.h"

#define LB_ELEMENTWISE lb_elementwise_scalar
#include "elementwise.inc.h"

const lb_elementwise *lb_elementwise_for(lb_isa isa) {
#ifdef __x86_64__
    if (isa >= LB_AVX512) return &lb_elementwise_avx512;
    if (isa == LB_AVX2) return &lb_elementwise_avx2;
#endif
    (void)isa;
    return &lb_elementwise_scalar;
}
