/* The one implementation of elementwise.h; elementwise_<isa>.c defines LB_ELEMENTWISE, the name of its table, and includes it.
 * Loops run over plain arrays, so that the compiler makes vectors of them; only bit masks are spelled with intrinsics. */
#include <math.h>
#include <string.h>
#ifdef __AVX2__
#include <immintrin.h>
#endif

#include "elementwise.h"

/* ---- bits ------------------------------------------------------------------------------------------------------------------ */

/* Bit `bit` of each of 32 bytes. */
static inline uint32_t gather_bits(const uint8_t *bytes, int bit) {
#if defined(__AVX2__)
    __m256i v = _mm256_loadu_si256((const __m256i *)bytes);
    return (uint32_t)_mm256_movemask_epi8(_mm256_slli_epi16(v, 7 - bit)); /* bits that cross a byte land below its top bit */
#else
    uint32_t word = 0;
    for (int i = 0; i < 4; i++) {
        uint64_t eight;
        memcpy(&eight, bytes + 8 * i, 8);
        eight = (eight >> bit) & 0x0101010101010101u;
        word |= (uint32_t)((eight * 0x0102040810204080u) >> 56) << (8 * i);
    }
    return word;
#endif
}

/* Bits of (s ^ flip) >= at for 32 columns. */
static inline uint32_t reached_bits(const int32_t *s, const int32_t *flip, const int32_t *at) {
#if defined(__AVX512BW__)
    __mmask16 half[2];
    for (int i = 0; i < 2; i++) {
        __m512i v = _mm512_xor_si512(_mm512_loadu_si512(s + 16 * i), _mm512_loadu_si512(flip + 16 * i));
        half[i] = _mm512_cmpge_epi32_mask(v, _mm512_loadu_si512(at + 16 * i));
    }
    /* Joined as masks: gcc 12 spills a 16-bit mask as two bytes and reloads it as four when it is widened to an integer. */
    return _cvtmask32_u32(_mm512_kunpackw(half[1], half[0]));
#elif defined(__AVX2__)
    uint32_t less = 0;
    for (int i = 0; i < 4; i++) {
        __m256i v = _mm256_xor_si256(_mm256_loadu_si256((const __m256i *)(s + 8 * i)), _mm256_loadu_si256((const __m256i *)(flip + 8 * i)));
        __m256i t = _mm256_loadu_si256((const __m256i *)(at + 8 * i));
        less |= (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpgt_epi32(t, v))) << (8 * i);
    }
    return ~less;
#else
    uint32_t word = 0;
    for (int i = 0; i < 32; i++) word |= (uint32_t)((s[i] ^ flip[i]) >= at[i]) << i;
    return word;
#endif
}

static inline uint32_t low_bits(int64_t n) { return n >= 32 ? ~0u : ((uint32_t)1 << n) - 1; }

/* Write n codes, given as bytes that may be read 31 beyond n, to columns c0 .. of one row; the row's tail becomes zero. */
static void write_codes(const lb_rows_out *out, int64_t row, int64_t c0, int64_t n, int64_t channels, const uint8_t *codes) {
    if (out->form == LB_FORM_BYTES) {
        uint8_t *to = (uint8_t *)out->data + row * out->ld + c0;
        int64_t tail = c0 + n == channels ? out->ld - channels : 0;
        if (n < 8) /* a call of memcpy would cost more */
            for (int64_t i = 0; i < n; i++) to[i] = codes[i];
        else
            memcpy(to, codes, (size_t)n);
        for (int64_t i = 0; i < tail; i++) to[n + i] = 0;
        return;
    }
    uint32_t *to = (uint32_t *)out->data + row * out->ld + c0 / 32;
    uint8_t field[32];
    for (int64_t c = 0; c < n; c += 32) {
        for (int i = 0; i < 32; i++) field[i] = (uint8_t)(codes[c + i] + out->levels.plane_add);
        for (int bit = 0; bit < out->levels.bits; bit++) to[bit * out->plane_words + c / 32] = gather_bits(field, bit) & low_bits(n - c);
    }
}

/* ---- chains ---------------------------------------------------------------------------------------------------------------- */

/* Columns of rows of (C, H, W) samples: pixels run in the inner loop, for they lie side by side. */
static void load_channels_first(float *to, const lb_stage *stage, const lb_rows_in *in, int64_t row, int64_t rows, int64_t c, int64_t n) {
    while (rows > 0) {
        int64_t pixel = row % in->pixels, here = in->pixels - pixel < rows ? in->pixels - pixel : rows;
        const float *from = (const float *)in->data + (row / in->pixels * stage->channels + c) * in->pixels + pixel;
        for (int64_t i = 0; i < n; i++)
            for (int64_t r = 0; r < here; r++) to[r * n + i] = from[i * in->pixels + r];
        to += here * n;
        row += here;
        rows -= here;
    }
}

/* n columns of each of `rows` rows, packed; `at` is the first element. */
static void load_floats(float *to, const lb_stage *stage, const lb_rows_in *in, int64_t at, int64_t rows, int64_t n) {
    if (in->ld == n) n *= rows, rows = 1;
    for (int64_t r = 0; r < rows; r++, to += n, at += in->ld) {
        if (in->form == LB_FORM_F32) {
            memcpy(to, (const float *)in->data + at, (size_t)n * sizeof *to);
        } else if (in->form == LB_FORM_I32) {
            const int32_t *from = (const int32_t *)in->data + at;
            for (int64_t i = 0; i < n; i++) to[i] = (float)from[i];
        } else {
            const uint8_t *from = (const uint8_t *)in->data + at;
            for (int64_t i = 0; i < n; i++) to[i] = (float)(from[i] * stage->in.spacing + stage->in.lo);
        }
    }
}

static void store_floats(const lb_rows_out *out, int64_t row, int64_t rows, int64_t c, int64_t n, const float *x) {
    if (out->ld == n) n *= rows, rows = 1;
    for (int64_t r = 0; r < rows; r++) memcpy((float *)out->data + (row + r) * out->ld + c, x + r * n, (size_t)n * sizeof *x);
}

static void run_steps(const lb_stage *stage, float *x, int64_t n, int64_t phase) {
    for (int s = 0; s < stage->step_count; s++) {
        const float *k = stage->steps[s].operand ? stage->steps[s].operand + phase : NULL;
        switch (stage->steps[s].op) {
        case LB_STEP_ADD:
            for (int64_t i = 0; i < n; i++) x[i] = x[i] + k[i];
            break;
        case LB_STEP_SUB:
            for (int64_t i = 0; i < n; i++) x[i] = x[i] - k[i];
            break;
        case LB_STEP_MUL:
            for (int64_t i = 0; i < n; i++) x[i] = x[i] * k[i];
            break;
        case LB_STEP_DIV:
            for (int64_t i = 0; i < n; i++) x[i] = x[i] / k[i];
            break;
        case LB_STEP_MAX:
            for (int64_t i = 0; i < n; i++) x[i] = x[i] > k[i] ? x[i] : k[i];
            break;
        case LB_STEP_MIN:
            for (int64_t i = 0; i < n; i++) x[i] = x[i] < k[i] ? x[i] : k[i];
            break;
        case LB_STEP_ROUND:
            for (int64_t i = 0; i < n; i++) x[i] = rintf(x[i]);
            break;
        case LB_TO_FLOAT: break; /* done by the load */
        }
    }
}

/* The nearest power of two on the scale of logarithms, 2^e for 2^e / sqrt(2) <= |x| < 2^e sqrt(2), from the bits of x: adding what the mantissa of
 * sqrt(2) lacks to 2 carries into the exponent. Below 2^-1/2 the code is 0, beyond 2^top it is 2^top; a NaN has the lowest code. */
static void to_powers(const lb_stage *stage, uint8_t *codes, const float *x, int64_t n) {
    enum { SQRT_TWO = 0x3504f3, TWO = 0x800000, INFINITE = 0x7f800000 };
    int32_t top = stage->top, lo = -(1 << top);
    for (int64_t i = 0; i < n; i++) {
        uint32_t word;
        memcpy(&word, x + i, sizeof word);
        uint32_t size = word & 0x7fffffff;
        int32_t e = (int32_t)((size + (TWO - SQRT_TWO)) >> 23) - 127;
        int32_t power = e < 0 ? 0 : 1 << (e < 0 ? 0 : e < top ? e : top);
        int32_t code = word >> 31 ? -power : power;
        codes[i] = (uint8_t)((size > INFINITE ? lo : code) - lo);
    }
}

/* Comparisons send a NaN to the lowest code, on every ISA alike. */
static void to_codes(const lb_stage *stage, uint8_t *codes, const float *x, int64_t n) {
    if (stage->end == LB_END_SIGN) {
        for (int64_t i = 0; i < n; i++) codes[i] = x[i] >= 0.0f;
        return;
    }
    if (stage->end == LB_END_POWERS) {
        to_powers(stage, codes, x, n);
        return;
    }
    float lo = stage->lo, hi = stage->hi;
    for (int64_t i = 0; i < n; i++) {
        float v = rintf(x[i]);
        v = v > lo ? v : lo;
        v = v < hi ? v : hi;
        codes[i] = (uint8_t)(int32_t)(v - lo);
    }
}

/* Counts the thresholds reached. Codes have one or two bits, so there are at most three; the loops are plain, for the compiler to make vectors of. */
static void to_levels(const lb_stage *stage, uint8_t *restrict codes, const int32_t *restrict s, int64_t n, int64_t phase) {
    const int32_t *restrict flip = stage->flip + phase, *restrict a = stage->at[0] + phase;
    const int32_t *restrict b = stage->threshold_count > 1 ? stage->at[1] + phase : a;
    const int32_t *restrict c = stage->threshold_count > 2 ? stage->at[2] + phase : a;
    switch (stage->threshold_count) {
    case 1:
        for (int64_t i = 0; i < n; i++) codes[i] = (uint8_t)((s[i] ^ flip[i]) >= a[i]);
        break;
    case 2:
        for (int64_t i = 0; i < n; i++) codes[i] = (uint8_t)(((s[i] ^ flip[i]) >= a[i]) + ((s[i] ^ flip[i]) >= b[i]));
        break;
    default:
        for (int64_t i = 0; i < n; i++)
            codes[i] = (uint8_t)(((s[i] ^ flip[i]) >= a[i]) + ((s[i] ^ flip[i]) >= b[i]) + ((s[i] ^ flip[i]) >= c[i]));
    }
}

/* One-bit thresholds go straight from comparisons to words. */
static void one_bit_row(const lb_stage *stage, const int32_t *s, uint32_t *to, int64_t n, int64_t phase) {
    const int32_t *flip = stage->flip + phase, *at = stage->at[0] + phase;
    int64_t c = 0;
    for (; c + 32 <= n; c += 32) to[c / 32] = reached_bits(s + c, flip + c, at + c);
    if (c < n) {
        int32_t last[32] = {0};
        memcpy(last, s + c, (size_t)(n - c) * sizeof *s);
        to[c / 32] = reached_bits(last, flip + c, at + c) & low_bits(n - c);
    }
}

static void threshold_rows(const lb_stage *stage, const lb_rows_in *in, const lb_rows_out *out, int64_t row0, int64_t rows, int64_t c0,
                           int64_t c1) {
    uint8_t codes[LB_BLOCK + 32];
    memset(codes, 0, sizeof codes);
    int direct = out->form == LB_FORM_PLANES && stage->threshold_count == 1 && out->levels.bits == 1;
    for (int64_t r = row0; r < row0 + rows; r++) {
        int64_t phase = r * stage->channels % stage->period;
        const int32_t *s = (const int32_t *)in->data + (r - row0) * in->ld;
        if (direct) {
            one_bit_row(stage, s, (uint32_t *)out->data + r * out->ld + c0 / 32, c1 - c0, phase + c0);
            continue;
        }
        for (int64_t c = c0; c < c1; c += LB_BLOCK) {
            int64_t n = c1 - c < LB_BLOCK ? c1 - c : LB_BLOCK;
            to_levels(stage, codes, s + (c - c0), n, phase + c);
            write_codes(out, r, c, n, stage->channels, codes);
        }
    }
}

static void store_rows(const lb_rows_in *in, const lb_rows_out *out, int64_t row0, int64_t rows, int64_t c0, int64_t c1) {
    for (int64_t r = 0; r < rows; r++)
        memcpy((int32_t *)out->data + (row0 + r) * out->ld + c0, (const int32_t *)in->data + r * in->ld,
               (size_t)(c1 - c0) * sizeof(int32_t));
}

/* Whole rows of few channels are taken several at a time, so that the loops stay long. */
static void stage_rows(const lb_stage *stage, const lb_rows_in *in, const lb_rows_out *out, int64_t row0, int64_t rows, int64_t c0,
                       int64_t c1) {
    if (stage->end == LB_END_I32) {
        store_rows(in, out, row0, rows, c0, c1);
        return;
    }
    if (stage->end == LB_END_LEVELS) {
        threshold_rows(stage, in, out, row0, rows, c0, c1);
        return;
    }
    float x[LB_BLOCK];
    uint8_t codes[LB_BLOCK + 32];
    memset(codes, 0, sizeof codes);
    int64_t together = c0 == 0 && c1 == stage->channels && c1 < LB_BLOCK ? LB_BLOCK / c1 : 1, m;
    for (int64_t r = row0; r < row0 + rows; r += m) {
        m = row0 + rows - r < together ? row0 + rows - r : together;
        for (int64_t c = c0; c < c1; c += LB_BLOCK) {
            int64_t n = c1 - c < LB_BLOCK ? c1 - c : LB_BLOCK;
            if (in->form == LB_FORM_NCHW)
                load_channels_first(x, stage, in, r, m, c, n);
            else
                load_floats(x, stage, in, (r - row0) * in->ld + c - c0, m, n);
            run_steps(stage, x, m * n, r * stage->channels % stage->period + c);
            if (stage->end == LB_END_F32) {
                store_floats(out, r, m, c, n, x);
                continue;
            }
            to_codes(stage, codes, x, m * n);
            for (int64_t i = 0; i < m; i++) write_codes(out, r + i, c, n, stage->channels, codes + i * n);
        }
    }
}

static void pack_rows(const lb_rows_in *in, const lb_rows_out *out, int64_t channels, int64_t row0, int64_t row1) {
    uint8_t codes[LB_BLOCK + 32];
    memset(codes, 0, sizeof codes);
    for (int64_t r = row0; r < row1; r++) {
        for (int64_t c = 0; c < channels; c += LB_BLOCK) {
            int64_t n = channels - c < LB_BLOCK ? channels - c : LB_BLOCK;
            memcpy(codes, (const uint8_t *)in->data + r * in->ld + c, (size_t)n);
            write_codes(out, r, c, n, channels, codes);
        }
    }
}

static void add_floats(const float *a, const float *b, float *out, int64_t n) {
    for (int64_t i = 0; i < n; i++) out[i] = a[i] + b[i];
}

#include "elementwise_pools.inc.h"

/* ---- float layers ---------------------------------------------------------------------------------------------------------- */

enum { FLOAT_ROWS = 4, FLOAT_COLS = 32, FLOAT_DEPTH = 512 };

/* Whole tiles of padded columns; rows beyond the last repeat it. Partial sums of FLOAT_DEPTH products keep the rounding of long sums small. */
static void float_tile(const lb_float_product *a, int64_t r0, int64_t o, float sum[FLOAT_ROWS][FLOAT_COLS]) {
    const float *x[FLOAT_ROWS];
    for (int r = 0; r < FLOAT_ROWS; r++) {
        x[r] = a->x + a->row[r0 + r < a->rows ? r0 + r : a->rows - 1];
        for (int c = 0; c < FLOAT_COLS; c++) sum[r][c] = 0.0f;
    }
    for (int64_t k0 = 0; k0 < a->depth; k0 += FLOAT_DEPTH) {
        int64_t k1 = a->depth - k0 < FLOAT_DEPTH ? a->depth : k0 + FLOAT_DEPTH;
        float part[FLOAT_ROWS][FLOAT_COLS] = {{0.0f}};
        for (int64_t k = k0; k < k1; k++) {
            const float *w = a->w + k * a->ldw + o;
            int64_t at = a->koff[k];
            for (int r = 0; r < FLOAT_ROWS; r++) {
                float v = x[r][at];
                for (int c = 0; c < FLOAT_COLS; c++) part[r][c] = part[r][c] + v * w[c];
            }
        }
        for (int r = 0; r < FLOAT_ROWS; r++)
            for (int c = 0; c < FLOAT_COLS; c++) sum[r][c] = sum[r][c] + part[r][c];
    }
}

static void float_product(const lb_float_product *a) {
    float acc[FLOAT_ROWS][FLOAT_COLS];
    for (int64_t o = 0; o < a->cols; o += FLOAT_COLS) {
        int64_t n = a->cols - o < FLOAT_COLS ? a->cols - o : FLOAT_COLS;
        for (int64_t r0 = 0; r0 < a->rows; r0 += FLOAT_ROWS) {
            float_tile(a, r0, o, acc);
            for (int64_t r = 0; r < FLOAT_ROWS && r0 + r < a->rows; r++) {
                float *to = a->out + (r0 + r) * a->ldo + o;
                for (int64_t c = 0; c < n; c++) to[c] = a->bias ? acc[r][c] + a->bias[o + c] : acc[r][c];
            }
        }
    }
}

const lb_elementwise LB_ELEMENTWISE = {stage_rows, max_pool, avg_pool, add_floats, pack_rows, float_product};
