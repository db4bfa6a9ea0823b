/* Size arithmetic that cannot wrap: a result beyond 2^62, or made of such a result, is LB_BAD_SIZE. */
#ifndef LOBIT_CHECKED_H
#define LOBIT_CHECKED_H

#include <stdint.h>

#define LB_BAD_SIZE ((int64_t)-1)
#define LB_MAX_SIZE ((int64_t)1 << 62)

static inline int64_t lb_mul(int64_t a, int64_t b) {
    int64_t out;
    if (a < 0 || b < 0 || __builtin_mul_overflow(a, b, &out) || out > LB_MAX_SIZE) return LB_BAD_SIZE;
    return out;
}

static inline int64_t lb_sum(int64_t a, int64_t b) {
    if (a < 0 || b < 0 || a > LB_MAX_SIZE - b) return LB_BAD_SIZE;
    return a + b;
}

static inline int64_t lb_round_up(int64_t n, int64_t unit) {
    int64_t sum = lb_sum(n, unit - 1);
    return sum < 0 ? LB_BAD_SIZE : sum / unit * unit;
}

static inline int64_t lb_ceil_div(int64_t n, int64_t unit) { return n / unit + (n % unit != 0); }

static inline int64_t lb_min64(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t lb_max64(int64_t a, int64_t b) { return a > b ? a : b; }

#endif
