/* Loops of 12 independent register operations: enough to hide the latency of each. Registers are named, as gcc would keep an array of sums
 * in memory. Sums are zmm0 to zmm11, temporaries zmm12 to zmm23, the other operand zmm24; what they hold does not matter to the speed. */
#define CHAINS 12
#define ROUNDS 20000

#define EACH(M) M(0, 12) M(1, 13) M(2, 14) M(3, 15) M(4, 16) M(5, 17) M(6, 18) M(7, 19) M(8, 20) M(9, 21) M(10, 22) M(11, 23)
#define ONE_BIT(s, t)                                                                                                                      \
    "vpxord %%zmm24, %%zmm" #s ", %%zmm" #t "\n\t"                                                                                         \
    "vpopcntd %%zmm" #t ", %%zmm" #t "\n\t"                                                                                                \
    "vpaddd %%zmm" #t ", %%zmm" #s ", %%zmm" #s "\n\t"
#define INT8(s, t) "vpdpbusd %%zmm24, %%zmm24, %%zmm" #s "\n\t"
#define FP32(s, t) "vfmadd231ps %%zmm24, %%zmm24, %%zmm" #s "\n\t"
#define CLOBBERED                                                                                                                          \
    "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15",  \
        "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23", "xmm24"
#define CLEAR(s, t) "vpxord %%zmm" #s ", %%zmm" #s ", %%zmm" #s "\n\t"

/* One assembly block for the whole loop, so that nothing between the rounds touches a register. */
#define LOOP(M)                                                                                                                            \
    do {                                                                                                                                   \
        long rounds = ROUNDS;                                                                                                              \
        __asm__ volatile("vpxord %%zmm24, %%zmm24, %%zmm24\n\t" EACH(CLEAR) "1:\n\t" EACH(M) "dec %0\n\tjnz 1b"                            \
                         : "+r"(rounds)::CLOBBERED, "cc");                                                                                 \
    } while (0)

double lb_probe_one_bit_avx512(void);
double lb_probe_int8_avx512(void);
double lb_probe_fp32_avx512(void);

double lb_probe_one_bit_avx512(void) {
    LOOP(ONE_BIT);
    return (double)ROUNDS * CHAINS * 512;
}

double lb_probe_int8_avx512(void) {
    LOOP(INT8);
    return (double)ROUNDS * CHAINS * 64;
}

double lb_probe_fp32_avx512(void) {
    LOOP(FP32);
    return (double)ROUNDS * CHAINS * 16;
}
