/* Every kernel, one line each; and what this CPU can run. Dispatch, tests, benchmarks and explain() read this table.
 *
 * macs_per_cycle was measured by benchmarks/native_product.c on an Intel server core with AVX-512 on two ports (VPOPCNTDQ on one of them).
 * Cores with more popcount throughput favour bits more; the choice between bits and bytes is then on the safe side. */
#include "kernel.h"
#include "product.h"

#include <string.h>

const lb_product_kernel lb_product_kernels[] = {
    {"xor_popcount_scalar", LB_SCALAR, LB_XOR, 1, 16, 7.0, "", lb_pack_size_16, lb_pack_16, lb_xor_popcount_scalar},
    {"and_popcount_scalar", LB_SCALAR, LB_AND, 1, 16, 7.0, "", lb_pack_size_16, lb_pack_16, lb_and_popcount_scalar},
    {"dot8_scalar", LB_SCALAR, LB_DOT8, 1, 16, 0.6, "", lb_pack_size_16, lb_pack_16, lb_dot8_scalar},
#if defined(__x86_64__)
    {"xor_popcount_4x16_avx2", LB_AVX2, LB_XOR, 4, 16, 94.0, "", lb_pack_size_16, lb_pack_16, lb_xor_popcount_4x16_avx2},
    {"and_popcount_4x16_avx2", LB_AVX2, LB_AND, 4, 16, 94.0, "", lb_pack_size_16, lb_pack_16, lb_and_popcount_4x16_avx2},
    {"dot8_4x16_avx2", LB_AVX2, LB_DOT8, 4, 16, 17.0, "", lb_pack_size_pairs_avx2, lb_pack_pairs_avx2, lb_dot8_4x16_avx2},
    {"xor_popcount_6x64_avx512", LB_AVX512, LB_XOR, 6, 64, 316.0, "avx512vpopcntdq", lb_pack_size_64, lb_pack_64,
     lb_xor_popcount_6x64_avx512},
    {"and_popcount_6x64_avx512", LB_AVX512, LB_AND, 6, 64, 316.0, "avx512vpopcntdq", lb_pack_size_64, lb_pack_64,
     lb_and_popcount_6x64_avx512},
    {"xor_carry_save_3x64_avx512", LB_AVX512, LB_XOR, 3, 64, 360.0, "avx512vpopcntdq", lb_pack_size_64, lb_pack_64,
     lb_xor_carry_save_3x64_avx512},
    {"and_carry_save_3x64_avx512", LB_AVX512, LB_AND, 3, 64, 360.0, "avx512vpopcntdq", lb_pack_size_64, lb_pack_64,
     lb_and_carry_save_3x64_avx512},
    {"dot8_vnni_6x64_avx512", LB_AVX512, LB_DOT8, 6, 64, 109.0, "avx512vnni", lb_pack_size_64, lb_pack_64, lb_dot8_vnni_6x64_avx512},
#endif
};
const int lb_product_kernel_count = sizeof lb_product_kernels / sizeof *lb_product_kernels;

lb_isa lb_best_isa(void) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq"))
        return LB_AVX512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return LB_AVX2;
#endif
    return LB_SCALAR;
}

int lb_kernel_runs(const lb_product_kernel *kernel) {
    if (kernel->isa > lb_best_isa()) return 0;
#if defined(__x86_64__)
    if (!strcmp(kernel->needs, "avx512vpopcntdq")) return !!__builtin_cpu_supports("avx512vpopcntdq");
    if (!strcmp(kernel->needs, "avx512vnni")) return !!__builtin_cpu_supports("avx512vnni");
#endif
    return !*kernel->needs;
}

const char *lb_isa_name(lb_isa isa) {
    static const char *const names[LB_ISA_COUNT] = {"scalar", "avx2", "avx512"};
    return names[isa];
}

const lb_product_kernel *lb_pick(lb_product_op op, lb_isa isa) {
    const lb_product_kernel *best = NULL;
    for (int i = 0; i < lb_product_kernel_count; i++) {
        const lb_product_kernel *k = &lb_product_kernels[i];
        if (k->op == op && k->isa <= isa && lb_kernel_runs(k) && (!best || k->macs_per_cycle > best->macs_per_cycle)) best = k;
    }
    return best;
}
