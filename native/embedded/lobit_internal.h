/* What the loops share: words as sums and floats, places in values. */
#ifndef LOBIT_INTERNAL_H
#define LOBIT_INTERNAL_H

#include "lobit_c.h"

#if defined(__FAST_MATH__) || (defined(__FLT_EVAL_METHOD__) && __FLT_EVAL_METHOD__ != 0)
#error "lobit needs floats that are rounded after each operation: no -ffast-math, and SSE rather than x87"
#endif
#ifdef __clang__
#pragma STDC FP_CONTRACT OFF
#endif

static inline int32_t lb_signed(uint32_t word) { return word <= INT32_MAX ? (int32_t)word : -(int32_t)(~word) - 1; }

static inline float lb_as_float(uint32_t word) {
    union {
        uint32_t word;
        float number;
    } both;
    both.word = word;
    return both.number;
}

static inline uint32_t lb_as_word(float number) {
    union {
        uint32_t word;
        float number;
    } both;
    both.number = number;
    return both.word;
}

/* n bits (1 to 32) from bit `at` on; reads no word beyond the last bit. */
static inline uint32_t lb_bits(const uint32_t *from, uint32_t at, int n) {
    uint32_t shift = at % 32, word;
    from += at / 32;
    word = from[0] >> shift;
    if (shift + (uint32_t)n > 32) word |= from[1] << (32 - shift);
    return n < 32 ? word & (((uint32_t)1 << n) - 1) : word;
}

/* Append n bits (1 to 32; those above them zero): words are assigned when first touched, so that unused bits of the last one are zero. */
static inline void lb_append(uint32_t *to, uint32_t at, uint32_t word, int n) {
    uint32_t shift = at % 32;
    to += at / 32;
    if (shift)
        to[0] |= word << shift;
    else
        to[0] = word;
    if (shift + (uint32_t)n > 32) to[1] = word >> (32 - shift);
}

/* Append n codes, given as the fields' planes. */
void lb_put_planes(const lb_value *v, lb_cursor *to, const uint32_t *planes, int n);
/* Append n codes, given as levels. */
void lb_put_levels(const lb_value *v, lb_cursor *to, const uint8_t *levels, int n);
uint8_t lb_level(const lb_value *v, const uint32_t *x, uint32_t at);
void lb_put_words(lb_cursor *to, const uint32_t *words, int n);

#endif
