/* Stages: what becomes of a row of sums or floats. Each step is one float operation, rounded once; steps stand in loops of their own, so that no
 * compiler can join two of them. */
#include "lobit_internal.h"

/* A float as the nearest integer, ties to even, held to low..high; NaN is low. */
static int32_t rounded(float x, int32_t low, int32_t high) {
    uint32_t word = lb_as_word(x), mantissa = (word & 0x007fffffu) | 0x00800000u;
    int exponent = (int)(word >> 23 & 0xff) - 150; /* x = mantissa * 2^exponent */
    int32_t value;
    if (exponent >= 0) { /* 2^23 and more, infinite, or NaN; bounds are far below */
        if ((word & 0x7fffffffu) > 0x7f800000u) return low;
        return word >> 31 ? low : high;
    }
    if (exponent < -24) {
        value = 0; /* below a half */
    } else {
        uint32_t whole = mantissa >> -exponent, rest = mantissa << (32 + exponent); /* rest / 2^32 is the fraction */
        whole += rest > 0x80000000u || (rest == 0x80000000u && whole & 1);
        value = (int32_t)whole;
    }
    if (word >> 31) value = -value;
    return value < low ? low : value > high ? high : value;
}

static void run_steps(const lb_stage *stage, float *x, const uint32_t *row, int c, int n) {
    if (stage->floats)
        for (int i = 0; i < n; i++) x[i] = lb_as_float(row[i]);
    else
        for (int i = 0; i < n; i++) x[i] = (float)lb_signed(row[i]);
    for (int s = 0; s < stage->count; s++) {
        const lb_step *step = stage->steps + s;
        step->apply(x, step->each == 1 ? step->constant + c : step->constant, step->each, n);
    }
}

void lb_add(float *x, const float *constant, int each, int n) {
    for (int i = 0; i < n; i++, constant += each) x[i] = x[i] + *constant;
}
void lb_sub(float *x, const float *constant, int each, int n) {
    for (int i = 0; i < n; i++, constant += each) x[i] = x[i] - *constant;
}
void lb_mul(float *x, const float *constant, int each, int n) {
    for (int i = 0; i < n; i++, constant += each) x[i] = x[i] * *constant;
}
void lb_div(float *x, const float *constant, int each, int n) {
    for (int i = 0; i < n; i++, constant += each) x[i] = x[i] / *constant;
}
void lb_max(float *x, const float *constant, int each, int n) {
    for (int i = 0; i < n; i++, constant += each) x[i] = x[i] > *constant ? x[i] : *constant;
}
void lb_min(float *x, const float *constant, int each, int n) {
    for (int i = 0; i < n; i++, constant += each) x[i] = x[i] < *constant ? x[i] : *constant;
}

void lb_round(float *x, const float *constant, int each, int n) {
    (void)constant, (void)each;
    for (int i = 0; i < n; i++) {
        uint32_t word = lb_as_word(x[i]), sign = word & 0x80000000u;
        if ((word & 0x7fffffffu) >= 0x4b000000u) continue; /* 2^23 and more are integers; infinite and NaN stay too */
        x[i] = lb_as_float(lb_as_word((float)rounded(lb_as_float(word ^ sign), 0, 1 << 23)) | sign);
    }
}

void lb_store(const lb_stage *stage, lb_cursor *to, const uint32_t *row, int c, int n) {
    (void)stage, (void)c;
    for (int i = 0; i < n; i++) to->to[to->at++] = row[i];
}

void lb_chain_to_floats(const lb_stage *stage, lb_cursor *to, const uint32_t *row, int c, int n) {
    float x[LB_BLOCK];
    run_steps(stage, x, row, c, n);
    for (int i = 0; i < n; i++) to->to[to->at++] = lb_as_word(x[i]);
}

void lb_chain_to_codes(const lb_stage *stage, lb_cursor *to, const uint32_t *row, int c, int n) {
    float x[LB_BLOCK];
    uint8_t levels[LB_BLOCK];
    run_steps(stage, x, row, c, n);
    for (int i = 0; i < n; i++) levels[i] = (uint8_t)(rounded(x[i], stage->low, stage->high) - stage->low + stage->level);
    lb_put_levels(&stage->out, to, levels, n);
}

/* The nearest power of two by logarithm: adding what the mantissa of sqrt(2) lacks to 2 carries into the exponent. NaN is low. */
void lb_chain_to_powers(const lb_stage *stage, lb_cursor *to, const uint32_t *row, int c, int n) {
    float x[LB_BLOCK];
    uint8_t levels[LB_BLOCK];
    run_steps(stage, x, row, c, n);
    for (int i = 0; i < n; i++) {
        uint32_t word = lb_as_word(x[i]), size = word & 0x7fffffffu;
        int exponent = (int)((size + (0x00800000u - 0x003504f3u)) >> 23) - 127;
        int32_t code = exponent < 0 ? 0 : exponent > 6 ? stage->high : (int32_t)1 << exponent;
        if (code > stage->high) code = stage->high;
        if (word >> 31) code = -code;
        if (size > 0x7f800000u) code = stage->low;
        levels[i] = (uint8_t)(code - stage->low);
    }
    lb_put_levels(&stage->out, to, levels, n);
}

void lb_chain_to_sign(const lb_stage *stage, lb_cursor *to, const uint32_t *row, int c, int n) {
    float x[LB_BLOCK];
    uint8_t levels[LB_BLOCK];
    run_steps(stage, x, row, c, n);
    for (int i = 0; i < n; i++) levels[i] = x[i] >= 0.0f;
    lb_put_levels(&stage->out, to, levels, n);
}

void lb_threshold(const lb_stage *stage, lb_cursor *to, const uint32_t *row, int c, int n) {
    const int32_t *reach = stage->reach + c * stage->count;
    uint8_t levels[LB_BLOCK];
    for (int i = 0; i < n; i++, c++) {
        int32_t sum = lb_signed(row[i]);
        int level = stage->first, falls = (int)(stage->falls[c / 32] >> c % 32 & 1);
        for (int j = 0; j < stage->count; j++, reach++) level += falls ? sum <= *reach : sum >= *reach;
        levels[i] = (uint8_t)level;
    }
    lb_put_levels(&stage->out, to, levels, n);
}

void lb_run_stage(lb_finish *finish, const lb_stage *stage, const lb_value *in, const uint32_t *x, uint32_t *to, int32_t channels,
                  int32_t pixels) {
    lb_cursor cursor = {to, 0};
    uint32_t row[LB_BLOCK];
    uint32_t at = 0;
    for (int32_t p = 0; p < pixels; p++) {
        for (int32_t c = 0; c < channels; c += LB_BLOCK) {
            int n = channels - c < LB_BLOCK ? (int)(channels - c) : LB_BLOCK;
            for (int i = 0; i < n; i++, at++)
                row[i] = in->kind >= LB_SUMS ? x[at] : (uint32_t)(in->base + in->spacing * lb_level(in, x, at));
            finish(stage, &cursor, row, (int)c, n);
        }
    }
}

void lb_run_input(lb_finish *finish, const lb_stage *stage, const float *x, uint32_t *to, int32_t channels, int32_t pixels) {
    lb_cursor cursor = {to, 0};
    uint32_t row[LB_BLOCK];
    for (int32_t p = 0; p < pixels; p++) {
        for (int32_t c = 0; c < channels; c += LB_BLOCK) {
            int n = channels - c < LB_BLOCK ? (int)(channels - c) : LB_BLOCK;
            for (int i = 0; i < n; i++) row[i] = lb_as_word(x[(c + i) * pixels + p]);
            finish(stage, &cursor, row, (int)c, n);
        }
    }
}
