/* Every kernel, one line each; and what this CPU can run. Dispatch, tests, benchmarks and explain() read this table.
 *
 * macs_per_cycle was measured by benchmarks/native_product.c on an Intel server core with AVX-512 on two ports (VPOPCNTDQ on one of them).
 * Cores with more popcount throughput favour bits more; the choice between bits and bytes is then on the safe side. */
#include "kernel.h"
#include "product.h"

#include <string.h>
#if defined(LOBIT_AMX)
#include <cpuid.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

const lb_product_kernel lb_product_kernels[] = {
    {"xor_popcount_scalar", LB_SCALAR, LB_XOR, 1, 16, 7.0, "", lb_pack_size_16, lb_pack_16, lb_xor_popcount_scalar},
    {"and_popcount_scalar", LB_SCALAR, LB_AND, 1, 16, 7.0, "", lb_pack_size_16, lb_pack_16, lb_and_popcount_scalar},
    {"dot8_scalar", LB_SCALAR, LB_DOT8, 1, 16, 0.6, "", lb_pack_size_16, lb_pack_16, lb_dot8_scalar},
#if defined(LOBIT_X86)
    {"xor_popcount_4x16_avx2", LB_AVX2, LB_XOR, 4, 16, 94.0, "", lb_pack_size_16, lb_pack_16, lb_xor_popcount_4x16_avx2},
    {"and_popcount_4x16_avx2", LB_AVX2, LB_AND, 4, 16, 94.0, "", lb_pack_size_16, lb_pack_16, lb_and_popcount_4x16_avx2},
    {"dot8_4x16_avx2", LB_AVX2, LB_DOT8, 4, 16, 17.0, "", lb_pack_size_pairs_avx2, lb_pack_pairs_avx2, lb_dot8_4x16_avx2},
    {"xor_carry_save_3x64_avx512", LB_AVX512, LB_XOR, 3, 64, 360.0, "avx512vpopcntdq", lb_pack_size_64, lb_pack_64,
     lb_xor_carry_save_3x64_avx512},
    {"and_carry_save_3x64_avx512", LB_AVX512, LB_AND, 3, 64, 360.0, "avx512vpopcntdq", lb_pack_size_64, lb_pack_64,
     lb_and_carry_save_3x64_avx512},
    {"dot8_vnni_6x64_avx512", LB_AVX512, LB_DOT8, 6, 64, 109.0, "avx512vnni", lb_pack_size_64, lb_pack_64, lb_dot8_vnni_6x64_avx512},
#if defined(LOBIT_AMX)
    {"dot8_32x32_amx", LB_AMX, LB_DOT8, 32, 64, 230.0, "", lb_pack_size_amx, lb_pack_amx, lb_dot8_32x32_amx},
#endif
#endif
};
const int lb_product_kernel_count = sizeof lb_product_kernels / sizeof *lb_product_kernels;

#if defined(LOBIT_AMX)
/* The processor has byte products on tiles, and the kernel lets this process use them: the tiles enlarge what it saves of a thread, so Linux
 * (5.16 and later) gives them only to a process that asks. Its threads and children have them too. */
static int ask_for_amx(void) {
    enum { TILE = 1 << 24, INT8 = 1 << 25, OSXSAVE = 1 << 27, TILE_STATE = 3 << 17, REQUEST = 0x1023, TILE_DATA = 18 };
    unsigned a, b, c, d, enabled, high;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & OSXSAVE)) return 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d & TILE) || !(d & INT8)) return 0;
    __asm__("xgetbv" : "=a"(enabled), "=d"(high) : "c"(0));
    return (enabled & TILE_STATE) == TILE_STATE && syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
}

static int has_amx(void) {
    static _Atomic int known; /* 0 not asked yet, 1 no, 2 yes; asking twice does no harm */
    int answer = atomic_load(&known);
    if (!answer) atomic_store(&known, answer = 1 + ask_for_amx());
    return answer == 2;
}
#endif

static int has_vectors(lb_isa isa) {
#if defined(LOBIT_X86)
    __builtin_cpu_init();
    if (isa == LB_AVX2) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq");
#else
    (void)isa;
    return 0;
#endif
}

int lb_has_isa(lb_isa isa) {
    switch (isa) {
    case LB_SCALAR: return 1;
    case LB_AVX2:
    case LB_AVX512: return has_vectors(isa);
#if defined(LOBIT_AMX)
    case LB_AMX: return has_vectors(LB_AVX512) && __builtin_cpu_supports("avx512vnni") && has_amx();
#endif
    default: return 0;
    }
}

lb_isa lb_best_isa(void) {
    lb_isa isa = LB_AMX;
    while (!lb_has_isa(isa)) isa--;
    return isa;
}

int lb_kernel_runs(const lb_product_kernel *kernel) {
    if (!lb_has_isa(kernel->isa)) return 0;
#if defined(LOBIT_X86)
    if (!strcmp(kernel->needs, "avx512vpopcntdq")) return !!__builtin_cpu_supports("avx512vpopcntdq");
    if (!strcmp(kernel->needs, "avx512vnni")) return !!__builtin_cpu_supports("avx512vnni");
#endif
    return !*kernel->needs;
}

const char *lb_isa_name(lb_isa isa) {
    static const char *const names[LB_ISA_COUNT] = {"scalar", "avx2", "avx512", "amx"};
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
