/* One-bit products on AVX-512 with a carry-save step: words are taken in pairs, and only the carry of a pair is counted.
 *
 * For hits h1, h2 (each x ^ w or x & w) and the running word `ones`, bit by bit:
 *     d = ones ^ h1,   next = d ^ h2,   carry = majority(ones, h1, h2) = d ? ~next : ones,
 *     ones + h1 + h2 = next + 2 * carry.
 * vpternlogd takes x and w as they are, so d and next need no separate xor or and. A pair costs three logic operations, one vpopcntd and
 * one vpaddd: 2.5 a word, where counting every word costs 3; operations on the two vector ports are what limits these kernels. A second
 * level would save a vpopcntd and a vpaddd and cost two vpternlogd: nothing. At the end the sum is 2 * twos + popcount(ones).
 *
 * Each sum takes two registers, so a tile is up to 3 rows by 4 vectors of 16 output channels: 24 registers, 2 activation words, and
 * temporaries; weights come from memory. An odd last word is counted as it is. Weights are packed, and columns are the outer loop, as in
 * product_avx512.c.
 *
 * Bounds: a pair adds at most 32 to `twos`; sums are modulo 2^32 and the plan proves that true sums fit.
 */
#include "kernel.h"
#include "product.h"

#include <immintrin.h>

#define NR 64
#define INLINE static inline __attribute__((always_inline))

/* Truth tables of vpternlogd, bit 4A + 2B + C, where A is the overwritten operand: w, ones or d, x; and for the carry d, ones, next. */
#define B_XOR_A_XOR_C "0x96"
#define B_XOR_A_AND_C "0x6c"
#define A_THEN_NOT_C_ELSE_B "0x5c"

/* In assembly for the reason product_avx512.c gives: gcc 12 spills sums that it has interleaved itself. */
#define ADD_PAIR(HIT)                                                                                                                      \
    __asm__("vmovdqa64 %[w1], %[d]\n\t"                                                                                                    \
            "vpternlogd $" HIT ", %[x1], %[ones], %[d]\n\t"                                                                                \
            "vmovdqa64 %[w2], %[next]\n\t"                                                                                                 \
            "vpternlogd $" HIT ", %[x2], %[d], %[next]\n\t"                                                                                \
            "vpternlogd $" A_THEN_NOT_C_ELSE_B ", %[next], %[ones], %[d]\n\t"                                                              \
            "vmovdqa64 %[next], %[ones]\n\t"                                                                                               \
            "vpopcntd %[d], %[d]\n\t"                                                                                                      \
            "vpaddd %[d], %[twos], %[twos]"                                                                                                \
            : [ones] "+v"(*ones), [twos] "+v"(*twos), [d] "=&v"(d), [next] "=&v"(next)                                                     \
            : [x1] "v"(x1), [x2] "v"(x2), [w1] "m"(*w1), [w2] "m"(*w2))

INLINE void add_pair(const lb_product_op op, __m512i *ones, __m512i *twos, __m512i x1, __m512i x2, const __m512i *w1, const __m512i *w2) {
    __m512i d, next;
    if (op == LB_XOR)
        ADD_PAIR(B_XOR_A_XOR_C);
    else
        ADD_PAIR(B_XOR_A_AND_C);
}

/* The bits of one more word. */
INLINE __m512i count(const lb_product_op op, __m512i x, const __m512i *w) {
    return _mm512_popcnt_epi32(op == LB_XOR ? _mm512_xor_si512(x, *w) : _mm512_and_si512(x, *w));
}

/* Where a tile stands: rows from r, columns from c; w are the weights of its block. */
typedef struct {
    const lb_product_args *a;
    const __m512i *w;
    int64_t r, c;
} place;

INLINE void finish(const place *p, int row, int vector, __m512i ones, __m512i twos) {
    const lb_product_args *a = p->a;
    const int64_t r = p->r + row, c = p->c + 16 * vector;
    int32_t *out = a->out + r * a->ldo + c;
    const int32_t *base = a->accumulate ? out : a->bias + (a->row_class ? a->row_class[r] : 0) * a->ldb + c;
    const __m512i sum = _mm512_add_epi32(_mm512_add_epi32(twos, twos), ones);
    _mm512_storeu_si512(out, _mm512_add_epi32(_mm512_loadu_si512(base), _mm512_mullo_epi32(sum, _mm512_set1_epi32(a->coef))));
}

#define VECTORS(M, i)                                                                                                                      \
    M(i, 0);                                                                                                                               \
    M(i, 1);                                                                                                                               \
    M(i, 2);                                                                                                                               \
    M(i, 3);
#define OPEN_SUM(i, v) __m512i ones##i##v = zero, twos##i##v = zero
#define PAIR_SUM(i, v)                                                                                                                     \
    if (vectors > v) add_pair(op, &ones##i##v, &twos##i##v, first, second, w + v, w + 4 + v)
#define LAST_SUM(i, v)                                                                                                                     \
    if (vectors > v) ones##i##v = _mm512_add_epi32(ones##i##v, count(op, word, w + v))
#define COUNT_SUM(i, v) ones##i##v = _mm512_popcnt_epi32(ones##i##v)
#define CLOSE_SUM(i, v)                                                                                                                    \
    if (vectors > v) finish(p, i, v, ones##i##v, twos##i##v)

#define OPEN(i)                                                                                                                            \
    const uint32_t *row##i = a->x + a->row[p->r + i];                                                                                      \
    __asm__("" : "+r"(row##i)); /* one pointer a row, not base plus row plus offset in every round */                                      \
    VECTORS(OPEN_SUM, i)
#define PAIR(i)                                                                                                                            \
    {                                                                                                                                      \
        const __m512i first = _mm512_set1_epi32((int)row##i[koff[k]]), second = _mm512_set1_epi32((int)row##i[koff[k + 1]]);               \
        VECTORS(PAIR_SUM, i)                                                                                                               \
    }
#define COUNT(i) VECTORS(COUNT_SUM, i)
#define LAST(i)                                                                                                                            \
    {                                                                                                                                      \
        const __m512i word = _mm512_set1_epi32((int)row##i[koff[depth - 1]]);                                                              \
        VECTORS(LAST_SUM, i)                                                                                                               \
    }
#define CLOSE(i) VECTORS(CLOSE_SUM, i)
#define ROWS_1(M) M(0)
#define ROWS_2(M) ROWS_1(M) M(1)
#define ROWS_3(M) ROWS_2(M) M(2)

#define DEFINE_TILE(rows)                                                                                                                  \
    INLINE void tile_##rows(const place *p, const lb_product_op op, const int vectors) {                                                   \
        const lb_product_args *const a = p->a;                                                                                             \
        const int32_t *const koff = a->koff;                                                                                               \
        const int64_t depth = a->depth;                                                                                                    \
        const __m512i *w = p->w;                                                                                                           \
        const __m512i zero = _mm512_setzero_si512();                                                                                       \
        ROWS_##rows(OPEN);                                                                                                                 \
        for (int64_t k = 0; k + 1 < depth; k += 2, w += 8) {                                                                               \
            ROWS_##rows(PAIR)                                                                                                              \
        }                                                                                                                                  \
        ROWS_##rows(COUNT);                                                                                                                \
        if (depth & 1) {                                                                                                                   \
            ROWS_##rows(LAST)                                                                                                              \
        }                                                                                                                                  \
        ROWS_##rows(CLOSE);                                                                                                                \
    }

DEFINE_TILE(1)
DEFINE_TILE(2)
DEFINE_TILE(3)

INLINE void all_rows(place p, const lb_product_op op, const int vectors) {
    const int64_t rows = p.a->rows;
    for (p.r = 0; p.r + 3 <= rows; p.r += 3) tile_3(&p, op, vectors);
    if (rows - p.r == 2) tile_2(&p, op, vectors);
    if (rows - p.r == 1) tile_1(&p, op, vectors);
}

INLINE void product(const lb_product_args *a, const lb_product_op op) {
    place p = {.a = a, .w = a->w};
    for (p.c = 0; p.c < a->cols; p.c += NR, p.w += a->depth * 4) {
        switch ((a->cols - p.c + 15) / 16) {
        case 1: all_rows(p, op, 1); break;
        case 2: all_rows(p, op, 2); break;
        case 3: all_rows(p, op, 3); break;
        default: all_rows(p, op, 4); break;
        }
    }
}

void lb_xor_carry_save_3x64_avx512(const lb_product_args *a) { product(a, LB_XOR); }
void lb_and_carry_save_3x64_avx512(const lb_product_args *a) { product(a, LB_AND); }
