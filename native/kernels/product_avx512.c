/* Byte products on AVX-512 (VNNI). kernel.h states the contract; product_carry_avx512.c has the products of bits.
 *
 * A vector holds 16 output channels; the activation word is broadcast from memory, so no sum runs across lanes. A tile is up to 6 rows by
 * up to 4 vectors: 24 sums, 4 weight vectors, and the rest for temporaries. Sums are named variables: gcc 12 keeps an array of them in
 * memory too.
 *
 * Weights of a block of 64 channels are [depth][64] words. Columns are the outer loop, so a block stays in cache while the rows pass.
 * Cutting the depth so that a block fits the first level of cache was tried and gained nothing.
 *
 * Bounds: a byte product adds at most 4 * 255 * 128 a word; sums are modulo 2^32 and the plan proves that true sums
 * fit.
 */
#include "kernel.h"
#include "product.h"

#include <immintrin.h>

#define NR 64
#define INLINE static inline __attribute__((always_inline))

/* sum += x * w for 16 channels. Written in assembly because gcc 12, given intrinsics, interleaves the 24 sums of a tile until they no longer fit
 * the registers and spills them in every round: half the speed. */
INLINE __m512i add_product(__m512i sum, __m512i x, __m512i w) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(x), "v"(w));
    return sum;
}

/* Where a tile stands: rows from r, columns from c; w are the weights of its block. */
typedef struct {
    const lb_product_args *a;
    const uint32_t *w;
    int64_t r, c;
} place;

INLINE void finish(const place *p, int row, int vector, __m512i sum) {
    const lb_product_args *a = p->a;
    const int64_t r = p->r + row, c = p->c + 16 * vector;
    int32_t *out = a->out + r * a->ldo + c;
    const int32_t *base = a->accumulate ? out : a->bias + (a->row_class ? a->row_class[r] : 0) * a->ldb + c;
    _mm512_storeu_si512(out, _mm512_add_epi32(_mm512_loadu_si512(base), _mm512_mullo_epi32(sum, _mm512_set1_epi32(a->coef))));
}

#define OPEN(i)                                                                                                                            \
    const uint32_t *x##i = a->x + a->row[p->r + i];                                                                                        \
    __asm__("" : "+r"(x##i)); /* one pointer a row, not base plus row plus offset in every round */                                        \
    __m512i s##i##0 = zero, s##i##1 = zero, s##i##2 = zero, s##i##3 = zero;
#define STEP(i)                                                                                                                            \
    {                                                                                                                                      \
        const __m512i x = _mm512_set1_epi32((int)x##i[at]);                                                                                \
        s##i##0 = add_product(s##i##0, x, w0);                                                                                             \
        if (vectors > 1) s##i##1 = add_product(s##i##1, x, w1);                                                                            \
        if (vectors > 2) s##i##2 = add_product(s##i##2, x, w2);                                                                            \
        if (vectors > 3) s##i##3 = add_product(s##i##3, x, w3);                                                                            \
    }
#define CLOSE(i)                                                                                                                           \
    finish(p, i, 0, s##i##0);                                                                                                              \
    if (vectors > 1) finish(p, i, 1, s##i##1);                                                                                             \
    if (vectors > 2) finish(p, i, 2, s##i##2);                                                                                             \
    if (vectors > 3) finish(p, i, 3, s##i##3);
#define ROWS_1(M) M(0)
#define ROWS_2(M) ROWS_1(M) M(1)
#define ROWS_3(M) ROWS_2(M) M(2)
#define ROWS_4(M) ROWS_3(M) M(3)
#define ROWS_5(M) ROWS_4(M) M(4)
#define ROWS_6(M) ROWS_5(M) M(5)

#define DEFINE_TILE(rows)                                                                                                                  \
    INLINE void tile_##rows(const place *p, const int vectors) {                                                                           \
        const lb_product_args *const a = p->a;                                                                                             \
        const int32_t *const koff = a->koff;                                                                                               \
        const uint32_t *w = p->w;                                                                                                          \
        const __m512i zero = _mm512_setzero_si512();                                                                                       \
        ROWS_##rows(OPEN) for (int64_t k = 0, depth = a->depth; k < depth; k++, w += NR) {                                                 \
            const int64_t at = koff[k];                                                                                                    \
            const __m512i w0 = _mm512_load_si512(w);                                                                                       \
            const __m512i w1 = vectors > 1 ? _mm512_load_si512(w + 16) : zero;                                                             \
            const __m512i w2 = vectors > 2 ? _mm512_load_si512(w + 32) : zero;                                                             \
            const __m512i w3 = vectors > 3 ? _mm512_load_si512(w + 48) : zero;                                                             \
            ROWS_##rows(STEP)                                                                                                              \
        }                                                                                                                                  \
        ROWS_##rows(CLOSE)                                                                                                                 \
    }

DEFINE_TILE(1)
DEFINE_TILE(2)
DEFINE_TILE(3)
DEFINE_TILE(4)
DEFINE_TILE(5)
DEFINE_TILE(6)

INLINE void all_rows(place p, const int vectors) {
    const int64_t rows = p.a->rows;
    for (p.r = 0; p.r + 6 <= rows; p.r += 6) tile_6(&p, vectors);
    switch (rows - p.r) {
    case 5: tile_5(&p, vectors); break;
    case 4: tile_4(&p, vectors); break;
    case 3: tile_3(&p, vectors); break;
    case 2: tile_2(&p, vectors); break;
    case 1: tile_1(&p, vectors); break;
    default: break;
    }
}

void lb_dot8_vnni_6x64_avx512(const lb_product_args *a) {
    place p = {.a = a, .w = a->w};
    for (p.c = 0; p.c < a->cols; p.c += NR, p.w += a->depth * NR) {
        switch ((a->cols - p.c + 15) / 16) {
        case 1: all_rows(p, 1); break;
        case 2: all_rows(p, 2); break;
        case 3: all_rows(p, 3); break;
        default: all_rows(p, 4); break;
        }
    }
}
