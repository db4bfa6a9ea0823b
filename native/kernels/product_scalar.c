/* The specification of the products in plain C: one row, one column, one word at a time, modulo 2^32. Every other kernel is tested to equal
 * it. */
#include "kernel.h"
#include "product.h"

#define NR 16

static uint32_t bits_set(uint32_t word) {
    word -= word >> 1 & 0x55555555u;                                 /* counts of 2 bits  */
    word = (word & 0x33333333u) + (word >> 2 & 0x33333333u);         /* of 4              */
    return ((word + (word >> 4)) & 0x0f0f0f0fu) * 0x01010101u >> 24; /* of 8, then all 32 */
}

static uint32_t xor_word(uint32_t x, uint32_t w) { return bits_set(x ^ w); }
static uint32_t and_word(uint32_t x, uint32_t w) { return bits_set(x & w); }

/* Four u8 of x times four s8 of w. */
static uint32_t dot8_word(uint32_t x, uint32_t w) {
    int32_t sum = 0;
    for (int i = 0; i < 32; i += 8) sum += (int32_t)(x >> i & 255) * (((int32_t)(w >> i & 255) ^ 128) - 128);
    return (uint32_t)sum;
}

static inline void product(const lb_product_args *a, uint32_t (*f)(uint32_t, uint32_t)) {
    const uint32_t *w = a->w;
    for (int64_t r = 0; r < a->rows; r++) {
        const int32_t *bias = a->accumulate ? 0 : a->bias + (a->row_class ? a->row_class[r] : 0) * a->ldb;
        for (int64_t c = 0; c < a->cols; c++) {
            const uint32_t *column = w + c / NR * NR * a->depth + c % NR;
            uint32_t sum = 0;
            for (int64_t k = 0; k < a->depth; k++) sum += f(a->x[a->row[r] + a->koff[k]], column[k * NR]);
            int32_t *out = a->out + r * a->ldo + c;
            *out = (int32_t)((uint32_t)(a->accumulate ? *out : bias[c]) + (uint32_t)a->coef * sum);
        }
    }
}

void lb_xor_popcount_scalar(const lb_product_args *a) { product(a, xor_word); }
void lb_and_popcount_scalar(const lb_product_args *a) { product(a, and_word); }
void lb_dot8_scalar(const lb_product_args *a) { product(a, dot8_word); }
