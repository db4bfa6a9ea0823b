/* Products on AVX2. kernel.h states the contract.
 *
 * A vector holds 8 output channels of 32 bits; a tile is up to 4 rows by 2 vectors. There is no popcount instruction: a byte's bits are
 * counted by two lookups of four bits (vpshufb), and byte counts are added up before they are widened. Bound: 8 a word and byte, so 31
 * words give at most 248 < 256.
 *
 * Bytes: vpmaddubsw would saturate (2 * 255 * 128 > 32767), so bytes are spread to 16 bits, even and odd ones apart, and multiplied by
 * vpmaddwd: 2 * 255 * 128 fits 32 bits. Weights are spread when they are packed.
 */
#include "kernel.h"
#include "product.h"

#include <immintrin.h>
#include <string.h>

#define NR 16
#define MAX_ROWS 4
#define WORDS_BEFORE_WIDENING 31
#define INLINE static inline __attribute__((always_inline))

/* Where a tile stands: rows from r, columns from c; w are the weights of its block. */
typedef struct {
    const lb_product_args *a;
    const void *w;
    int64_t r, c;
} place;

INLINE void finish(const place *p, int row, const __m256i sum[2]) {
    const lb_product_args *a = p->a;
    const int64_t r = p->r + row;
    int32_t *out = a->out + r * a->ldo + p->c;
    const int32_t *base = a->accumulate ? out : a->bias + (a->row_class ? a->row_class[r] : 0) * a->ldb + p->c;
    for (int v = 0; v < 2; v++) {
        const __m256i scaled = _mm256_mullo_epi32(sum[v], _mm256_set1_epi32(a->coef));
        const __m256i old = _mm256_loadu_si256((const __m256i *)(const void *)(base + 8 * v));
        _mm256_storeu_si256((__m256i *)(void *)(out + 8 * v), _mm256_add_epi32(old, scaled));
    }
}

INLINE __m256i byte_counts(__m256i word) {
    const __m256i count = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, 0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
    const __m256i low = _mm256_set1_epi8(15);
    const __m256i a = _mm256_shuffle_epi8(count, _mm256_and_si256(word, low));
    return _mm256_add_epi8(a, _mm256_shuffle_epi8(count, _mm256_and_si256(_mm256_srli_epi16(word, 4), low)));
}

INLINE __m256i widen(__m256i bytes) { return _mm256_madd_epi16(_mm256_maddubs_epi16(bytes, _mm256_set1_epi8(1)), _mm256_set1_epi16(1)); }

INLINE void bits_tile(const place *p, const lb_product_op op, const int rows) {
    const lb_product_args *a = p->a;
    const __m256i *w = p->w;
    const uint32_t *x[MAX_ROWS];
    __m256i sum[MAX_ROWS][2];
    for (int i = 0; i < rows; i++) {
        x[i] = a->x + a->row[p->r + i];
        sum[i][0] = sum[i][1] = _mm256_setzero_si256();
    }
    for (int64_t k = 0; k < a->depth;) {
        const int64_t end = a->depth - k < WORDS_BEFORE_WIDENING ? a->depth : k + WORDS_BEFORE_WIDENING;
        __m256i bytes[MAX_ROWS][2];
        for (int i = 0; i < rows; i++) bytes[i][0] = bytes[i][1] = _mm256_setzero_si256();
        for (; k < end; k++, w += 2) {
            const int64_t at = a->koff[k];
#pragma GCC unroll 4
            for (int i = 0; i < rows; i++) {
                const __m256i word = _mm256_set1_epi32((int)x[i][at]);
#pragma GCC unroll 2
                for (int v = 0; v < 2; v++) {
                    const __m256i hit = op == LB_XOR ? _mm256_xor_si256(word, w[v]) : _mm256_and_si256(word, w[v]);
                    bytes[i][v] = _mm256_add_epi8(bytes[i][v], byte_counts(hit));
                }
            }
        }
        for (int i = 0; i < rows; i++)
            for (int v = 0; v < 2; v++) sum[i][v] = _mm256_add_epi32(sum[i][v], widen(bytes[i][v]));
    }
    for (int i = 0; i < rows; i++) finish(p, i, sum[i]);
}

INLINE void dot8_tile(const place *p, const int rows) {
    const lb_product_args *a = p->a;
    const __m256i *w = p->w;
    const uint32_t *x[MAX_ROWS];
    __m256i sum[MAX_ROWS][2];
    for (int i = 0; i < rows; i++) {
        x[i] = a->x + a->row[p->r + i];
        sum[i][0] = sum[i][1] = _mm256_setzero_si256();
    }
    for (int64_t k = 0; k < a->depth; k++, w += 4) {
        const int64_t at = a->koff[k];
#pragma GCC unroll 4
        for (int i = 0; i < rows; i++) {
            const __m256i word = _mm256_set1_epi32((int)x[i][at]);
            const __m256i even = _mm256_and_si256(word, _mm256_set1_epi16(255)), odd = _mm256_srli_epi16(word, 8);
#pragma GCC unroll 2
            for (int v = 0; v < 2; v++) {
                const __m256i pair = _mm256_add_epi32(_mm256_madd_epi16(even, w[2 * v]), _mm256_madd_epi16(odd, w[2 * v + 1]));
                sum[i][v] = _mm256_add_epi32(sum[i][v], pair);
            }
        }
    }
    for (int i = 0; i < rows; i++) finish(p, i, sum[i]);
}

INLINE void tile(const place *p, const lb_product_op op, const int rows) {
    if (op == LB_DOT8)
        dot8_tile(p, rows);
    else
        bits_tile(p, op, rows);
}

INLINE void product(const lb_product_args *a, const lb_product_op op) {
    const int64_t block = a->depth * NR * (op == LB_DOT8 ? 2 : 1);
    place p = {.a = a};
    for (p.c = 0; p.c < a->cols; p.c += NR) {
        p.w = (const uint32_t *)a->w + p.c / NR * block;
        for (p.r = 0; p.r + 4 <= a->rows; p.r += 4) tile(&p, op, 4);
        switch (a->rows - p.r) {
        case 3: tile(&p, op, 3); break;
        case 2: tile(&p, op, 2); break;
        case 1: tile(&p, op, 1); break;
        default: break;
        }
    }
}

void lb_xor_popcount_4x16_avx2(const lb_product_args *a) { product(a, LB_XOR); }
void lb_and_popcount_4x16_avx2(const lb_product_args *a) { product(a, LB_AND); }
void lb_dot8_4x16_avx2(const lb_product_args *a) { product(a, LB_DOT8); }

size_t lb_pack_size_pairs_avx2(int64_t cols, int64_t depth) { return 2 * lb_pack_size_16(cols, depth); }

static uint32_t pair_of_bytes(uint32_t word, int shift) {
    const uint32_t low = (uint32_t)(int32_t)(int8_t)(word >> shift), high = (uint32_t)(int32_t)(int8_t)(word >> (shift + 16));
    return (low & 0xffff) | high << 16;
}

void lb_pack_pairs_avx2(void *dst, const uint32_t *src, int64_t cols, int64_t depth) {
    uint32_t *out = dst;
    memset(dst, 0, lb_pack_size_pairs_avx2(cols, depth));
    for (int64_t c = 0; c < cols; c++) {
        uint32_t *column = out + c / NR * depth * 2 * NR + c % NR / 8 * 16 + c % 8;
        for (int64_t k = 0; k < depth; k++) {
            column[k * 2 * NR] = pair_of_bytes(src[c * depth + k], 0);
            column[k * 2 * NR + 8] = pair_of_bytes(src[c * depth + k], 8);
        }
    }
}
