/* The one implementation of training.h; loops_<isa>.c defines LB_TRAINING, the name of its table, and includes it. The compiler makes vectors of the loops;
 * only bit masks are spelled with intrinsics. */
#include <math.h>
#include <string.h>
#ifdef __AVX2__
#include <immintrin.h>
#endif

#include "checked.h"
#include "training.h"

typedef struct {
    int64_t at, n; /* first element, and elements */
    float step;
} row;

static inline row row_of(const lb_training *job, int64_t r) {
    int64_t at = r * job->columns, left = job->count - at;
    return (row){at, left < job->columns ? left : job->columns, job->step ? job->step[r * job->step_stride] : 1.0f};
}

static void sign(const lb_training *job, int64_t from, int64_t to) {
    for (int64_t r = from; r < to; r++) {
        row w = row_of(job, r);
        const float *restrict x = job->x + w.at;
        float *restrict out = job->out + w.at;
        for (int64_t i = 0; i < w.n; i++) out[i] = x[i] >= 0.0f ? 1.0f : -1.0f;
    }
}

/* Whether lo <= x <= hi, of n <= 8 elements. */
static inline uint8_t inside_bits(const float *x, int64_t n, float lo, float hi) {
    uint8_t bits = 0;
    for (int64_t i = 0; i < n; i++) bits |= (uint8_t)((x[i] >= lo && x[i] <= hi) << i);
    return bits;
}

static void inside(const lb_training *job, int64_t from, int64_t to) {
    for (int64_t r = from; r < to; r++) {
        row w = row_of(job, r);
        const float *x = job->x + w.at;
        uint8_t *out = job->out_mask + w.at / 8;
        int64_t i = 0;
#if defined(__AVX512F__)
        __m512 lo = _mm512_set1_ps(job->lo), hi = _mm512_set1_ps(job->hi);
        for (; i + 16 <= w.n; i += 16) {
            __m512 v = _mm512_loadu_ps(x + i);
            uint16_t bits = _mm512_mask_cmp_ps_mask(_mm512_cmp_ps_mask(v, lo, _CMP_GE_OQ), v, hi, _CMP_LE_OQ);
            out[i / 8] = (uint8_t)bits;
            out[i / 8 + 1] = (uint8_t)(bits >> 8);
        }
#elif defined(__AVX2__)
        __m256 lo = _mm256_set1_ps(job->lo), hi = _mm256_set1_ps(job->hi);
        for (; i + 8 <= w.n; i += 8) {
            __m256 v = _mm256_loadu_ps(x + i);
            out[i / 8] = (uint8_t)_mm256_movemask_ps(_mm256_and_ps(_mm256_cmp_ps(v, lo, _CMP_GE_OQ), _mm256_cmp_ps(v, hi, _CMP_LE_OQ)));
        }
#endif
        for (; i < w.n; i += 8) out[i / 8] = inside_bits(x + i, w.n - i < 8 ? w.n - i : 8, job->lo, job->hi);
    }
}

static void masked(const lb_training *job, int64_t from, int64_t to) {
    for (int64_t r = from; r < to; r++) {
        row w = row_of(job, r);
        const float *g = job->g + w.at;
        const uint8_t *mask = job->mask + w.at / 8;
        float *out = job->out + w.at;
        int64_t i = 0;
#if defined(__AVX512F__)
        __m512 slope = _mm512_set1_ps(job->slope);
        for (; i + 16 <= w.n; i += 16) {
            __mmask16 bits = (__mmask16)(mask[i / 8] | mask[i / 8 + 1] << 8);
            _mm512_storeu_ps(out + i, _mm512_maskz_mul_ps(bits, _mm512_loadu_ps(g + i), slope));
        }
#elif defined(__AVX2__)
        __m256 slope = _mm256_set1_ps(job->slope);
        const __m256i each = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
        for (; i + 8 <= w.n; i += 8) {
            __m256i bits = _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(mask[i / 8]), each), each);
            _mm256_storeu_ps(out + i, _mm256_and_ps(_mm256_castsi256_ps(bits), _mm256_mul_ps(_mm256_loadu_ps(g + i), slope)));
        }
#endif
        for (; i < w.n; i++) out[i] = mask[i / 8] >> (i % 8) & 1 ? g[i] * job->slope : 0.0f;
    }
}

static void round_codes(const lb_training *job, int64_t from, int64_t to) {
    float lo = job->lo, hi = job->hi;
    for (int64_t r = from; r < to; r++) {
        row w = row_of(job, r);
        const float *restrict x = job->x + w.at;
        float *restrict out = job->out + w.at;
        for (int64_t i = 0; i < w.n; i++) {
            float v = x[i] / w.step; /* by 1 where there is no step */
            v = v < lo ? lo : v;
            v = v > hi ? hi : v;
            out[i] = rintf(v);
        }
        for (int64_t i = 0; job->out_inside && i < w.n; i++) {
            float v = x[i] / w.step;
            job->out_inside[w.at + i] = (v >= lo) & (v <= hi);
        }
    }
}

/* Sixteen floats, whatever the instruction set makes of them: terms are summed in the same order by all. */
typedef float lanes __attribute__((vector_size(64), aligned(4), may_alias));
typedef int32_t choice __attribute__((vector_size(64)));
typedef uint8_t bytes_of_lanes __attribute__((vector_size(16), aligned(1), may_alias));

/* A macro, for a function that returned a vector would have an ABI of its own on each instruction set. */
#define WHERE(mask, value) ((lanes)((choice)(value) & (mask)))

static void round_back(const lb_training *job, int64_t from, int64_t to) {
    enum { LANES = 16, BLOCK = 2048 };
    float lo = job->lo, hi = job->hi;
    for (int64_t r = from; r < to; r++) {
        row w = row_of(job, r);
        double sum = 0.0;
        for (int64_t b = 0; b < w.n; b += BLOCK) {
            int64_t n = w.n - b < BLOCK ? w.n - b : BLOCK, whole = n - n % LANES;
            const float *x = job->x + w.at + b, *g = job->g + w.at + b;
            float *out = job->out + w.at + b, terms[LANES];
            lanes total = {0.0f};
            for (int64_t i = 0; i < whole; i += LANES) {
                lanes v = *(const lanes *)(x + i) / w.step, grad = *(const lanes *)(g + i);
                choice in = (v >= lo) & (v <= hi);
                *(lanes *)(out + i) = WHERE(in, grad / w.step);
                total += WHERE(in, grad * v);
            }
            memcpy(terms, &total, sizeof terms);
            for (int64_t i = whole; i < n; i++) {
                float v = x[i] / w.step;
                int in = v >= lo && v <= hi;
                out[i] = in ? g[i] / w.step : 0.0f;
                terms[i - whole] += in ? g[i] * v : 0.0f;
            }
            for (int k = 0; k < LANES; k++) sum += terms[k];
        }
        if (job->sums) job->sums[r] = sum;
    }
}

static void expand(const lb_training *job, int64_t from, int64_t to) {
    for (int64_t r = from; r < to; r++) {
        row w = row_of(job, r);
        const int8_t *restrict s = (const int8_t *)job->codes + w.at;
        const uint8_t *restrict u = (const uint8_t *)job->codes + w.at;
        float *restrict out = job->out + w.at;
        if (job->codes_unsigned)
            for (int64_t i = 0; i < w.n; i++) out[i] = (float)u[i] * w.step;
        else
            for (int64_t i = 0; i < w.n; i++) out[i] = (float)s[i] * w.step;
    }
}

static void scale_back(const lb_training *job, int64_t from, int64_t to) {
    enum { LANES = 16, BLOCK = 2048 };
    for (int64_t r = from; r < to; r++) {
        row w = row_of(job, r);
        const int8_t *s = (const int8_t *)job->codes + w.at;
        const uint8_t *u = (const uint8_t *)job->codes + w.at;
        const float *g = job->g + w.at;
        float *out = job->out + w.at;
        double sum = 0.0;
        for (int64_t b = 0; b < w.n; b += BLOCK) {
            int64_t n = w.n - b < BLOCK ? w.n - b : BLOCK;
            float codes[BLOCK], terms[LANES];
            lanes total = {0.0f};
            if (job->codes_unsigned)
                for (int64_t i = 0; i < n; i++) codes[i] = u[b + i];
            else
                for (int64_t i = 0; i < n; i++) codes[i] = s[b + i];
            for (int64_t i = 0; i + LANES <= n; i += LANES) {
                lanes grad = *(const lanes *)(g + b + i);
                total += grad * *(const lanes *)(codes + i);
                *(lanes *)(out + b + i) = grad * w.step;
            }
            memcpy(terms, &total, sizeof terms);
            for (int64_t i = n - n % LANES; i < n; i++) {
                terms[i % LANES] += g[b + i] * codes[i];
                out[b + i] = g[b + i] * w.step;
            }
            for (int k = 0; k < LANES; k++) sum += terms[k];
        }
        job->sums[r] = sum;
    }
}

static void signs(const lb_training *job, int64_t from, int64_t to) {
    for (int64_t r = from; r < to; r++) {
        row w = row_of(job, r);
        const uint8_t *mask = job->mask + w.at / 8;
        float *out = job->out + w.at;
        int64_t i = 0;
#if defined(__AVX512F__)
        __m512 one = _mm512_set1_ps(1.0f), minus = _mm512_set1_ps(-1.0f);
        for (; i + 16 <= w.n; i += 16)
            _mm512_storeu_ps(out + i, _mm512_mask_mov_ps(minus, (__mmask16)(mask[i / 8] | mask[i / 8 + 1] << 8), one));
#elif defined(__AVX2__)
        __m256 one = _mm256_set1_ps(1.0f), minus = _mm256_set1_ps(-1.0f);
        const __m256i each = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
        for (; i + 8 <= w.n; i += 8) {
            __m256i bits = _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(mask[i / 8]), each), each);
            _mm256_storeu_ps(out + i, _mm256_blendv_ps(minus, one, _mm256_castsi256_ps(bits)));
        }
#endif
        for (; i < w.n; i++) out[i] = mask[i / 8] >> (i % 8) & 1 ? 1.0f : -1.0f;
    }
}

/* A value as a byte; counts those that are no codes. NaN is none, and has no conversion. */
static inline uint8_t byte_of(const lb_training *job, float value, int32_t *others) {
    int32_t code = (int32_t)(value >= job->lo && value <= job->hi ? value : job->lo);
    *others += value != (float)code;
    return (uint8_t)(code + job->zero);
}

static void bytes(const lb_training *job, int64_t from, int64_t to) {
    for (int64_t r = from; r < to; r++) {
        row w = row_of(job, r);
        const float *restrict x = job->x + w.at;
        uint8_t *restrict out = job->out_codes + w.at;
        int32_t others = 0;
        for (int64_t i = 0; i < w.n; i++) out[i] = byte_of(job, x[i], &others);
        job->sums[r] = others;
    }
}

#define ZIP_LOW(a, b) __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
#define ZIP_HIGH(a, b) __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)

/* Sixteen rows of sixteen, `stride` apart, as columns: rows that are zipped with those eight further down are so after four turns. */
static inline void transpose(const float *x, int64_t stride, lanes out[16]) {
    lanes between[16];
    for (int i = 0; i < 16; i++) out[i] = *(const lanes *)(x + i * stride);
    for (int turn = 0; turn < 2; turn++) {
        for (int i = 0; i < 8; i++) between[2 * i] = ZIP_LOW(out[i], out[i + 8]), between[2 * i + 1] = ZIP_HIGH(out[i], out[i + 8]);
        for (int i = 0; i < 8; i++) out[2 * i] = ZIP_LOW(between[i], between[i + 8]), out[2 * i + 1] = ZIP_HIGH(between[i], between[i + 8]);
    }
}

static void pixels(const lb_training *job, int64_t from, int64_t to) {
    enum { TILE = 16 };
    const float lo = job->lo, hi = job->hi;
    int64_t channels = job->channels, pixels = job->columns / channels, height = pixels / job->width;
    int64_t line = (job->width + 2 * job->border[1]) * channels, image = (height + 2 * job->border[0]) * line;
    for (int64_t r = from; r < to; r++) {
        const float *x = job->x + r * job->columns;
        uint8_t *out = job->out_codes + r * image;
        int32_t others = 0;
        choice amiss = {0};
        memset(out, job->zero, (size_t)image);
        for (int64_t p = 0; p < pixels; p += TILE) {
            int64_t np = lb_min64(pixels - p, TILE), c = 0;
            uint8_t *to_pixel[TILE];
            for (int64_t i = 0; i < np; i++) {
                int64_t y = (p + i) / job->width + job->border[0], at = (p + i) % job->width + job->border[1];
                to_pixel[i] = out + y * line + at * channels;
            }
            for (; np == TILE && c + TILE <= channels; c += TILE) {
                lanes values[TILE];
                transpose(x + c * pixels + p, pixels, values);
                for (int i = 0; i < TILE; i++) {
                    lanes v = values[i];
                    choice code = __builtin_convertvector(WHERE((v >= lo) & (v <= hi), v - lo) + lo, choice);
                    amiss += v != __builtin_convertvector(code, lanes); /* -1 each */
                    *(bytes_of_lanes *)(to_pixel[i] + c) = __builtin_convertvector(code + job->zero, bytes_of_lanes);
                }
            }
            for (; c < channels; c++)
                for (int64_t i = 0; i < np; i++) to_pixel[i][c] = byte_of(job, x[c * pixels + p + i], &others);
        }
        for (int k = 0; k < TILE; k++) others -= amiss[k];
        job->sums[r] = others;
    }
}

/* Some pixels at a time, so that what their channels share of a cache line stays in the cache, and a few channels at a time, so that their pages do. */
static void planes(const lb_training *job, int64_t from, int64_t to) {
    enum { TILE = 16, BLOCK = 128 };
    int64_t channels = job->channels, pixels = job->columns / channels;
    for (int64_t r = from; r < to; r++)
        for (int64_t b = 0; b < pixels; b += BLOCK)
            for (int64_t c = 0; c < channels; c += TILE) {
                int64_t nc = lb_min64(channels - c, TILE), end = lb_min64(pixels, b + BLOCK), p = b;
                const float *x = job->x + r * job->columns + c;
                float *out = job->out + r * job->columns + c * pixels, offset[TILE], scale[TILE], shift[TILE];
                for (int64_t k = 0; k < nc; k++) {
                    offset[k] = job->offset ? job->offset[c + k] : 0.0f;
                    scale[k] = job->step ? job->step[job->step_stride * (c + k)] : 1.0f;
                    shift[k] = job->shift ? job->shift[c + k] : -0.0f; /* that of -0.0 is -0.0 */
                }
                for (; nc == TILE && p + TILE <= end; p += TILE) {
                    lanes values[TILE];
                    transpose(x + p * channels, channels, values);
                    for (int k = 0; k < TILE; k++) *(lanes *)(out + k * pixels + p) = (values[k] - offset[k]) * scale[k] + shift[k];
                }
                for (int64_t k = 0; k < nc; k++)
                    for (int64_t i = p; i < end; i++) out[k * pixels + i] = (x[i * channels + k] - offset[k]) * scale[k] + shift[k];
            }
}

const lb_training_loop LB_TRAINING[LB_TRAIN_KINDS] = {sign,       inside, round_codes, masked, round_back, expand,
                                                      scale_back, signs,  bytes,       pixels, planes};
