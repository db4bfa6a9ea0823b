/* Places in values, and what stands between values and the caller's arrays. */
#include "lobit_internal.h"

void lb_put_planes(const lb_value *v, lb_cursor *to, const uint32_t *planes, int n) {
    for (int i = 0; i < v->bits; i++) lb_append(to->to + (uint32_t)i * v->plane_words, to->at, planes[i], n);
    to->at += (uint32_t)n;
}

void lb_put_levels(const lb_value *v, lb_cursor *to, const uint8_t *levels, int n) {
    if (v->kind == LB_BYTES) {
        uint8_t *bytes = (uint8_t *)to->to + to->at;
        for (int i = 0; i < n; i++) bytes[i] = levels[i];
        to->at += (uint32_t)n;
        return;
    }
    uint32_t planes[8] = {0};
    for (int i = 0; i < n; i++) {
        uint32_t field = levels[i] ^ (uint32_t)v->flip;
        for (int j = 0; j < v->bits; j++) planes[j] |= (field >> j & 1) << i;
    }
    lb_put_planes(v, to, planes, n);
}

void lb_put_words(lb_cursor *to, const uint32_t *words, int n) {
    for (int i = 0; i < n; i++) to->to[to->at + (uint32_t)i] = words[i];
    to->at += (uint32_t)n;
}

uint8_t lb_level(const lb_value *v, const uint32_t *x, uint32_t at) {
    if (v->kind == LB_BYTES) return ((const uint8_t *)x)[at];
    uint32_t field = 0;
    for (int j = 0; j < v->bits; j++) field |= (x[(uint32_t)j * v->plane_words + at / 32] >> at % 32 & 1) << j;
    return (uint8_t)(field ^ v->flip);
}

int lb_finite(const float *x, uint32_t n) {
    for (uint32_t i = 0; i < n; i++)
        if ((lb_as_word(x[i]) & 0x7f800000u) == 0x7f800000u) return 0;
    return 1;
}

int lb_codes_in(const lb_value *v, int low, int high, const uint8_t *codes, int is_signed, uint32_t *to, int32_t channels, int32_t pixels) {
    lb_cursor cursor = {to, 0};
    uint8_t levels[LB_BLOCK];
    int n = 0;
    for (int32_t e = 0; e < channels * pixels; e++) {
        int code = codes[e % channels * pixels + e / channels];
        if (is_signed && code > 127) code -= 256;
        if (code < low || code > high || (v->spacing == 2 && (code - low) % 2)) return LB_NO_CODE;
        levels[n++] = (uint8_t)((code - v->base) / v->spacing);
        if (n == LB_BLOCK || e == channels * pixels - 1) lb_put_levels(v, &cursor, levels, n), n = 0;
    }
    return LB_OK;
}

void lb_floats_out(float *to, const uint32_t *x, int32_t channels, int32_t pixels) {
    for (int32_t p = 0; p < pixels; p++)
        for (int32_t c = 0; c < channels; c++) to[c * pixels + p] = lb_as_float(*x++);
}

void lb_sums_out(int32_t *to, const uint32_t *x, int32_t channels, int32_t pixels) {
    for (int32_t p = 0; p < pixels; p++)
        for (int32_t c = 0; c < channels; c++) to[c * pixels + p] = lb_signed(*x++);
}

void lb_codes_out(int16_t *to, const lb_value *v, const uint32_t *x, int32_t channels, int32_t pixels) {
    uint32_t at = 0;
    for (int32_t p = 0; p < pixels; p++)
        for (int32_t c = 0; c < channels; c++) to[c * pixels + p] = (int16_t)(v->base + v->spacing * lb_level(v, x, at++));
}

void lb_flatten(const lb_value *v, const uint32_t *x, uint32_t *to, int32_t channels, int32_t pixels) {
    lb_cursor cursor = {to, 0};
    for (int32_t c = 0; c < channels; c++) {
        for (int32_t p = 0; p < pixels; p++) {
            uint32_t at = (uint32_t)(p * channels + c);
            if (v->kind >= LB_SUMS) {
                lb_put_words(&cursor, x + at, 1);
            } else {
                uint8_t level = lb_level(v, x, at);
                lb_put_levels(v, &cursor, &level, 1);
            }
        }
    }
}
