/* The contract of every kernel, and the table that lists them. See docs/architecture.md, "Sessions and kernels". */
#ifndef LOBIT_KERNEL_H
#define LOBIT_KERNEL_H

/* Codes are packed into words byte by byte and read back as words, in kernels and engine alike. */
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "lobit runs on little-endian processors only: its words of codes would come out in the wrong order here"
#endif

#include <stddef.h>
#include <stdint.h>

/* The vector kernels exist on x86-64, unless the build leaves them out (cmake -DLOBIT_GENERIC=ON). */
#if defined(__x86_64__) && !defined(LOBIT_GENERIC)
#define LOBIT_X86 1
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef enum { LB_SCALAR = 0, LB_AVX2 = 1, LB_AVX512 = 2, LB_AMX = 3, LB_ISA_COUNT } lb_isa; /* later: neon */

/* What a product does with one u32 word of activations x and one of weights w. */
typedef enum {
    LB_XOR = 0,  /* popcount(x ^ w): 32 one-bit codes a word     */
    LB_AND = 1,  /* popcount(x & w)                              */
    LB_DOT8 = 2, /* sum of 4 products, x u8 times w s8: 4 codes a word */
    LB_PRODUCT_COUNT
} lb_product_op;

/* out[r*ldo + c] = bias[row_class[r]*ldb + c] + coef * sum_{k<depth} f(x[row[r] + koff[k]], w(c, k))     (accumulate == 0)
 * out[r*ldo + c] += coef * sum_k f(...)                                                                    (accumulate == 1)
 * for r < rows, c < cols. All arithmetic is modulo 2^32; the plan proves that every true result fits int32.
 * cols is any number: out, bias hold columns rounded up to a multiple of nr (rows of out have at least that many int32);
 * what a kernel writes in those spare columns is of no account, but it writes no further. row_class may be NULL: all zero.
 * x is read at row[r] + koff[k] only, never beyond. */
typedef struct {
    const uint32_t *x;
    const int64_t *row;  /* [rows] word offset of each output row's patch                        */
    const int32_t *koff; /* [depth] word offset of each word of a patch                          */
    int64_t rows, depth, cols;
    const void *w; /* packed by the kernel's own `pack`, 64-byte aligned                   */
    int32_t *out;  /* 64-byte aligned, ldo a multiple of 16                                */
    int64_t ldo;
    const int32_t *bias;
    int64_t ldb;
    const int32_t *row_class;
    int32_t coef;
    int32_t accumulate;
} lb_product_args;

typedef void (*lb_product_fn)(const lb_product_args *);
/* Bytes that `pack` writes for a matrix of cols x depth words, a multiple of 64. Column blocks of nr are contiguous and equal in
 * size, so the block that starts at column j (a multiple of nr) is at byte (j / nr) * pack_size(nr, depth). */
typedef size_t (*lb_pack_size_fn)(int64_t cols, int64_t depth);
/* src[c*depth + k] are the words of column c; spare columns are packed as zero. */
typedef void (*lb_pack_fn)(void *dst, const uint32_t *src, int64_t cols, int64_t depth);

typedef struct {
    const char *name; /* its contract: "xor_carry_save_3x64_avx512" */
    lb_isa isa;
    lb_product_op op;
    int32_t mr, nr;        /* register tile: rows x columns */
    double macs_per_cycle; /* measured; 0 when not. One-bit products or byte products a cycle */
    const char *needs;     /* CPU features beyond the ISA's own, "" or "avx512vpopcntdq", "avx512vnni" */
    lb_pack_size_fn pack_size;
    lb_pack_fn pack;
    lb_product_fn run;
} lb_product_kernel;

extern const lb_product_kernel lb_product_kernels[];
extern const int lb_product_kernel_count;

/* Best ISA that this CPU and operating system can run; and whether a kernel's `isa` and `needs` are met. */
int lb_has_isa(lb_isa isa); /* asks the system for the tiles when `isa` is LB_AMX, and only then */
lb_isa lb_best_isa(void);
int lb_kernel_runs(const lb_product_kernel *kernel);
const char *lb_isa_name(lb_isa isa);
/* The kernel for `op` with the highest macs_per_cycle among those with kernel.isa <= isa that run here. Never NULL: scalar has all. */
const lb_product_kernel *lb_pick(lb_product_op op, lb_isa isa);

#ifdef __cplusplus
}
#endif

#endif
