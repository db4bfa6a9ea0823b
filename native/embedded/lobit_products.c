/* Products: a patch of the image is gathered once for all outputs, then each output is a few popcounts or a byte product over contiguous words. */
#include <stddef.h>
#include <string.h>

#include "lobit_internal.h"

#if defined(__ARM_FEATURE_DSP) && defined(__GNUC__) && !defined(LB_NO_DSP)
#define LB_DSP 1
#include <arm_acle.h>
#endif

/* Masks that the compiler must keep in registers: an `and` with a shifted operand is one instruction there, one with a constant two. */
#ifdef __GNUC__
#define IN_REGISTER(mask) __asm__("" : "+r"(mask))
#else
#define IN_REGISTER(mask) (void)(mask)
#endif

/* Bits of a word as counts in its nibbles. */
#define COUNT(word) (word -= ones & (word >> 1), (pairs & word) + (pairs & (word >> 2)))

static inline uint32_t sum_of_bytes(uint32_t bytes) {
    bytes = (bytes & 0x00ff00ffu) + (bytes >> 8 & 0x00ff00ffu);
    return (bytes + (bytes >> 16)) & 0xffffu;
}

/* popcount(x & w). Three words share the step from nibbles (at most 12) to bytes (at most 24), and ten such steps the sum of bytes (at most 240).
 * Carry-save adders ahead of this save less than they cost below some sixteen words. */
static uint32_t count_and(const uint32_t *x, const uint32_t *w, int32_t words) {
    uint32_t total = 0, ones = 0x55555555u, pairs = 0x33333333u, nibbles = 0x0f0f0f0fu;
    IN_REGISTER(ones);
    IN_REGISTER(pairs);
    IN_REGISTER(nibbles);
    do {
        uint32_t bytes = 0, a, b, c;
        const uint32_t *end = x + (words < 30 ? words / 3 * 3 : 30);
        words -= (int32_t)(end - x);
        while (x != end) {
            a = *x++ & *w++;
            b = *x++ & *w++;
            c = *x++ & *w++;
            a = COUNT(a);
            a += COUNT(b);
            a += COUNT(c);
            bytes += (nibbles & a) + (nibbles & (a >> 4));
        }
        if (words && words < 3) {
            a = *x++ & *w++;
            a = COUNT(a);
            if (--words) {
                b = *x++ & *w++;
                a += COUNT(b);
                words--;
            }
            bytes += (nibbles & a) + (nibbles & (a >> 4));
        }
        total += sum_of_bytes(bytes);
    } while (words);
    return total;
}

/* sums[k] += coef * sum_j w_coef[j] * popcount(x & w_kj), for n outputs whose planes follow each other. */
static void add_plane(const lb_product *p, const uint32_t *x, const uint32_t *w, uint32_t coef, int n, uint32_t *sums) {
    int32_t words = p->words;
    const int16_t *end = p->w_coef + p->w_bits;
    for (; n; n--, sums++) {
        for (const int16_t *w_coef = p->w_coef; w_coef != end; w_coef++, w += words)
            *sums += coef * (uint32_t)*w_coef * count_and(x, w, words);
    }
}

/* The same for x0 + 2 * x1: nibbles up to 4 + 8 and bytes up to 24, so ten words at a time. */
static void add_two_planes(const lb_product *p, const uint32_t *x0, const uint32_t *x1, const uint32_t *w, uint32_t coef, int n,
                           uint32_t *sums) {
    uint32_t ones = 0x55555555u, pairs = 0x33333333u, nibbles = 0x0f0f0f0fu;
    const int16_t *w_end = p->w_coef + p->w_bits;
    IN_REGISTER(ones);
    IN_REGISTER(pairs);
    IN_REGISTER(nibbles);
    for (; n; n--, sums++) {
        for (const int16_t *w_coef = p->w_coef; w_coef != w_end; w_coef++) {
            const uint32_t *from0 = x0, *from1 = x1;
            uint32_t count = 0;
            for (int32_t left = p->words; left > 0; left -= 10) {
                uint32_t bytes = 0;
                const uint32_t *end = w + (left < 10 ? left : 10);
                do {
                    uint32_t a = *from0++ & *w, b = *from1++ & *w++;
                    a = COUNT(a);
                    a += 2 * COUNT(b);
                    bytes += (nibbles & a) + (nibbles & (a >> 4));
                } while (w != end);
                count += sum_of_bytes(bytes);
            }
            *sums += coef * (uint32_t)*w_coef * count;
        }
    }
}

/* w_base * sum of x, without what x has beyond its planes. */
static uint32_t shared_term(const lb_product *p, const uint32_t *x, int planes) {
    uint32_t total = 0;
    if (p->w_base == 0) return 0;
    if (p->x.kind == LB_BYTES) {
        const uint8_t *bytes = (const uint8_t *)x;
        for (int32_t k = 0; k < p->inputs; k++) total += bytes[k];
        return total * (uint32_t)p->x_coef[0] * (uint32_t)p->w_base;
    }
    for (int i = 0; i < planes; i++, x += p->window ? (uint32_t)p->words : p->x.plane_words)
        total += (uint32_t)p->x_coef[i] * count_and(x, x, p->words);
    return total * (uint32_t)p->w_base;
}

/* What all outputs of a patch begin with. */
static void begin(const lb_product *p, uint32_t shared, int o, int n, uint32_t *sums) {
    for (int k = 0; k < n; k++) sums[k] = shared;
    if (p->bias)
        for (int k = 0; k < n; k++) sums[k] += (uint32_t)p->bias[o + k];
}

void lb_sums_planes(const lb_product *p, const uint32_t *x, int planes, int o, int n, uint32_t *sums) {
    const uint32_t *w = (const uint32_t *)p->weights + (uint32_t)o * p->w_bits * (uint32_t)p->words;
    uint32_t stride = p->window ? (uint32_t)p->words : p->x.plane_words;
    begin(p, shared_term(p, x, planes), o, n, sums);
    for (int i = 0; i < planes; i++, x += stride) {
        uint32_t coef = (uint32_t)p->x_coef[i];
        if (i + 1 < planes && p->x_coef[i + 1] == 2 * p->x_coef[i]) {
            add_two_planes(p, x, x + stride, w, coef, n, sums);
            x += stride, i++;
        } else {
            add_plane(p, x, w, coef, n, sums);
        }
    }
}

static inline uint32_t dot_bytes(const uint8_t *x, const int8_t *w, int32_t n) {
    uint32_t sum = 0;
#ifdef LB_DSP
    int32_t pairs = 0; /* modulo 2^32 as well: smlad wraps */
    for (; n >= 4; n -= 4, x += 4, w += 4) {
        uint32_t xs, ws;
        __builtin_memcpy(&xs, x, 4);
        __builtin_memcpy(&ws, w, 4);
        pairs = __smlad(__sxtb16(ws), __uxtb16(xs), pairs);
        pairs = __smlad(__sxtb16(ws >> 8 | ws << 24), __uxtb16(xs >> 8 | xs << 24), pairs);
    }
    sum = (uint32_t)pairs;
#else
    for (; n >= 4; n -= 4, x += 4, w += 4)
        sum += (uint32_t)(x[0] * w[0]) + (uint32_t)(x[1] * w[1]) + (uint32_t)(x[2] * w[2]) + (uint32_t)(x[3] * w[3]);
#endif
    for (; n > 0; n--) sum += (uint32_t)(*x++ * *w++);
    return sum;
}

void lb_sums_bytes(const lb_product *p, const uint32_t *x, int planes, int o, int n, uint32_t *sums) {
    const int8_t *w = (const int8_t *)p->weights + o * p->words * 4;
    uint32_t coef = (uint32_t)p->x_coef[0] * (uint32_t)p->w_coef[0];
    int32_t inputs = p->inputs, row = p->words * 4;
    begin(p, shared_term(p, x, planes), o, n, sums);
    for (int k = 0; k < n; k++, w += row) sums[k] += coef * dot_bytes((const uint8_t *)x, w, inputs);
}

void lb_linear(const lb_product *p, const uint32_t *x, uint32_t *to) {
    lb_cursor cursor = {to, 0};
    uint32_t sums[LB_BLOCK];
    for (int32_t o = 0; o < p->outputs; o += LB_BLOCK) {
        int n = p->outputs - o < LB_BLOCK ? (int)(p->outputs - o) : LB_BLOCK;
        p->sums(p, x, p->x.bits, (int)o, n, sums);
        p->finish(p->stage, &cursor, sums, (int)o, n);
    }
}

/* Append n fields: bits of a plane, or bytes. Without `from` they are all `fill`. */
static void copy_bits(uint32_t *to, uint32_t at, const uint32_t *from, uint32_t from_at, int32_t n, uint32_t fill) {
    for (int32_t left = n; left > 0; left -= 32, at += 32, from_at += 32) {
        int here = left < 32 ? (int)left : 32;
        lb_append(to, at, from ? lb_bits(from, from_at, here) : here < 32 ? fill & (((uint32_t)1 << here) - 1) : fill, here);
    }
}

static void copy_bytes(uint32_t *to, uint32_t at, const uint32_t *from, uint32_t from_at, int32_t n, uint32_t fill) {
    if (from)
        memcpy((uint8_t *)to + at, (const uint8_t *)from + from_at, (size_t)n);
    else
        memset((uint8_t *)to + at, (int)fill, (size_t)n);
}

typedef void copier(uint32_t *to, uint32_t at, const uint32_t *from, uint32_t from_at, int32_t n, uint32_t fill);

/* One plane, or the bytes, of what the window sees of a group at (y, x): row by row, and at once what lies side by side. */
static void gather(const lb_product *p, copier *copy, uint32_t *to, const uint32_t *from, int32_t y, int32_t x, int32_t group,
                   uint32_t fill) {
    const lb_window *w = p->window;
    int32_t per = w->channels / p->groups, joined = p->groups == 1 && w->dilation[1] == 1, step = joined ? w->kernel[1] : 1;
    uint32_t at = 0;
    for (int32_t i = 0; i < w->kernel[0]; i++, y += w->dilation[0]) {
        for (int32_t j = 0; j < w->kernel[1]; j += step) {
            int32_t first = x + j * w->dilation[1], before = first < 0 ? -first : 0,
                    after = first + step > w->size[1] ? first + step - w->size[1] : 0;
            if (y < 0 || y >= w->size[0] || before >= step || after >= step) before = step, after = 0;
            int32_t inside = step - before - after;
            if (before) copy(to, at, NULL, 0, before * per, fill);
            at += (uint32_t)(before * per);
            if (inside) copy(to, at, from, (uint32_t)((y * w->size[1] + first + before) * w->channels + group * per), inside * per, 0);
            at += (uint32_t)(inside * per);
            if (after) copy(to, at, NULL, 0, after * per, fill);
            at += (uint32_t)(after * per);
        }
    }
}

/* Gather the patch of an output position; return how many planes it has. */
static int patch(const lb_product *p, const uint32_t *x, uint32_t *to, int32_t oy, int32_t ox, int32_t group) {
    const lb_window *w = p->window;
    int32_t y = oy * w->stride[0] + w->start[0], left = ox * w->stride[1] + w->start[1];
    if (p->x.kind == LB_BYTES) {
        gather(p, copy_bytes, to, x, y, left, group, p->fill);
        return 1;
    }
    for (int i = 0; i < p->x.bits; i++)
        gather(p, copy_bits, to + i * p->words, x + (uint32_t)i * p->x.plane_words, y, left, group, p->fill >> i & 1 ? ~(uint32_t)0 : 0);
    if (!p->pad_plane || (y >= 0 && left >= 0 && y + (w->kernel[0] - 1) * w->dilation[0] < w->size[0] &&
                          left + (w->kernel[1] - 1) * w->dilation[1] < w->size[1]))
        return p->x.bits;
    gather(p, copy_bits, to + p->x.bits * p->words, NULL, y, left, group, ~(uint32_t)0);
    return p->x.bits + 1;
}

void lb_conv2d(const lb_product *p, const uint32_t *x, uint32_t *to, uint32_t *scratch) {
    lb_cursor cursor = {to, 0};
    uint32_t sums[LB_BLOCK];
    int32_t per = p->outputs / p->groups;
    for (int32_t out = 0; out < p->window->out[0] * p->window->out[1]; out++) {
        for (int32_t group = 0; group < p->groups; group++) {
            int planes = patch(p, x, scratch, out / p->window->out[1], out % p->window->out[1], group);
            for (int32_t k = 0; k < per; k += LB_BLOCK) {
                int n = per - k < LB_BLOCK ? (int)(per - k) : LB_BLOCK;
                p->sums(p, scratch, planes, (int)(group * per + k), n, sums);
                p->finish(p->stage, &cursor, sums, (int)(group * per + k), n);
            }
        }
    }
}

/* The sums of one position, each kept where it is the largest so far. */
static void largest(const lb_product *p, const uint32_t *x, uint32_t *scratch, uint32_t *best, int32_t oy, int32_t ox) {
    uint32_t sums[LB_BLOCK];
    int32_t per = p->outputs / p->groups;
    for (int32_t group = 0; group < p->groups; group++) {
        int planes = patch(p, x, scratch, oy, ox, group);
        for (int32_t k = 0; k < per; k += LB_BLOCK) {
            int n = per - k < LB_BLOCK ? (int)(per - k) : LB_BLOCK;
            uint32_t *to = best + group * per + k;
            p->sums(p, scratch, planes, (int)(group * per + k), n, sums);
            for (int i = 0; i < n; i++)
                if (lb_signed(sums[i]) > lb_signed(to[i])) to[i] = sums[i];
        }
    }
}

void lb_conv2d_pooled(const lb_product *p, const uint32_t *x, uint32_t *to, uint32_t *scratch) {
    const lb_window *pool = p->pool;
    uint32_t *best = scratch + (p->x.kind == LB_BYTES ? 1 : p->x.bits + p->pad_plane) * p->words;
    lb_cursor cursor = {to, 0};
    for (int32_t out = 0; out < pool->out[0] * pool->out[1]; out++) {
        for (int32_t o = 0; o < p->outputs; o++) best[o] = 0x80000000u;
        for (int32_t i = 0; i < pool->kernel[0]; i++) {
            for (int32_t j = 0; j < pool->kernel[1]; j++) {
                int32_t y = out / pool->out[1] * pool->stride[0] + pool->start[0] + i * pool->dilation[0];
                int32_t left = out % pool->out[1] * pool->stride[1] + pool->start[1] + j * pool->dilation[1];
                if (y >= 0 && y < pool->size[0] && left >= 0 && left < pool->size[1]) largest(p, x, scratch, best, y, left);
            }
        }
        for (int32_t o = 0; o < p->outputs; o += LB_BLOCK)
            p->finish(p->stage, &cursor, best + o, (int)o, p->outputs - o < LB_BLOCK ? (int)(p->outputs - o) : LB_BLOCK);
    }
}
