/* Pools, the residual add, padding, concatenation and resizing. */
#include <stddef.h>

#include "lobit_internal.h"

/* The pixel of a window's tap, or -1 outside the image. */
static int32_t pixel_of(const lb_window *w, int32_t oy, int32_t ox, int32_t tap) {
    int32_t y = oy * w->stride[0] + w->start[0] + tap / w->kernel[1] * w->dilation[0];
    int32_t x = ox * w->stride[1] + w->start[1] + tap % w->kernel[1] * w->dilation[1];
    return y < 0 || y >= w->size[0] || x < 0 || x >= w->size[1] ? -1 : y * w->size[1] + x;
}

/* Codes of 32 channels at a time: from the top plane down, where the first difference stands, the larger one wins. */
void lb_max_planes(const lb_window *w, const lb_value *v, const uint32_t *x, uint32_t *to) {
    lb_cursor cursor = {to, 0};
    lb_value made = *v;
    made.plane_words = (uint32_t)(w->out[0] * w->out[1] * w->channels + 31) / 32;
    for (int32_t out = 0; out < w->out[0] * w->out[1]; out++) {
        for (int32_t c = 0; c < w->channels; c += LB_BLOCK) {
            int n = w->channels - c < LB_BLOCK ? (int)(w->channels - c) : LB_BLOCK, first = 1;
            uint32_t best[8] = {0}, here[8];
            for (int32_t tap = 0; tap < w->kernel[0] * w->kernel[1]; tap++) {
                int32_t pixel = pixel_of(w, out / w->out[1], out % w->out[1], tap);
                uint32_t larger = 0, equal = ~(uint32_t)0;
                if (pixel < 0) continue;
                for (int i = v->bits - 1; i >= 0; i--) {
                    here[i] = lb_bits(x + (uint32_t)i * v->plane_words, (uint32_t)(pixel * w->channels + c), n);
                    larger |= equal & (v->flip >> i & 1 ? ~here[i] & best[i] : here[i] & ~best[i]);
                    equal &= ~(here[i] ^ best[i]);
                }
                if (first) larger = ~(uint32_t)0, first = 0;
                for (int i = 0; i < v->bits; i++) best[i] ^= (best[i] ^ here[i]) & larger;
            }
            lb_put_planes(&made, &cursor, best, n);
        }
    }
}

void lb_max_bytes(const lb_window *w, const lb_value *v, const uint32_t *x, uint32_t *to) {
    const uint8_t *from = (const uint8_t *)x;
    lb_cursor cursor = {to, 0};
    for (int32_t out = 0; out < w->out[0] * w->out[1]; out++) {
        for (int32_t c = 0; c < w->channels; c++) {
            uint8_t best = 0;
            for (int32_t tap = 0; tap < w->kernel[0] * w->kernel[1]; tap++) {
                int32_t pixel = pixel_of(w, out / w->out[1], out % w->out[1], tap);
                if (pixel >= 0 && from[pixel * w->channels + c] > best) best = from[pixel * w->channels + c];
            }
            lb_put_levels(v, &cursor, &best, 1);
        }
    }
}

void lb_max_sums(const lb_window *w, const lb_value *v, const uint32_t *x, uint32_t *to) {
    (void)v;
    for (int32_t out = 0; out < w->out[0] * w->out[1]; out++) {
        for (int32_t c = 0; c < w->channels; c++) {
            int32_t best = INT32_MIN;
            for (int32_t tap = 0; tap < w->kernel[0] * w->kernel[1]; tap++) {
                int32_t pixel = pixel_of(w, out / w->out[1], out % w->out[1], tap);
                if (pixel >= 0 && lb_signed(x[pixel * w->channels + c]) > best) best = lb_signed(x[pixel * w->channels + c]);
            }
            *to++ = (uint32_t)best;
        }
    }
}

void lb_max_floats(const lb_window *w, const lb_value *v, const uint32_t *x, uint32_t *to) {
    (void)v;
    for (int32_t out = 0; out < w->out[0] * w->out[1]; out++) {
        for (int32_t c = 0; c < w->channels; c++) {
            float best = 0.0f;
            int first = 1;
            for (int32_t tap = 0; tap < w->kernel[0] * w->kernel[1]; tap++) {
                int32_t pixel = pixel_of(w, out / w->out[1], out % w->out[1], tap);
                float here;
                if (pixel < 0) continue;
                here = lb_as_float(x[pixel * w->channels + c]);
                if (first || here > best) best = here;
                first = 0;
            }
            *to++ = lb_as_word(best);
        }
    }
}

void lb_average(const lb_window *w, float divisor, const uint32_t *x, uint32_t *to) {
    for (int32_t out = 0; out < w->out[0] * w->out[1]; out++) {
        for (int32_t c = 0; c < w->channels; c++) {
            float total = 0.0f;
            for (int32_t tap = 0; tap < w->kernel[0] * w->kernel[1]; tap++) {
                int32_t pixel = pixel_of(w, out / w->out[1], out % w->out[1], tap);
                if (pixel >= 0) total = total + lb_as_float(x[pixel * w->channels + c]);
            }
            *to++ = lb_as_word(total / divisor);
        }
    }
}

void lb_add_floats(const uint32_t *a, const uint32_t *b, uint32_t *to, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) to[i] = lb_as_word(lb_as_float(a[i]) + lb_as_float(b[i]));
}

/* Append n elements of a value from element `at` on. */
static void append(const lb_value *in, const lb_value *out, lb_cursor *to, const uint32_t *x, uint32_t at, uint32_t n) {
    for (uint32_t end = at + n; at < end; at += LB_BLOCK) {
        int here = end - at < LB_BLOCK ? (int)(end - at) : LB_BLOCK;
        if (in->kind >= LB_SUMS) {
            lb_put_words(to, x + at, here);
        } else if (in->kind == LB_PLANES && out->kind == LB_PLANES) {
            uint32_t planes[8];
            for (int i = 0; i < in->bits; i++) planes[i] = lb_bits(x + (uint32_t)i * in->plane_words, at, here);
            lb_put_planes(out, to, planes, here);
        } else {
            uint8_t levels[LB_BLOCK];
            for (int i = 0; i < here; i++) levels[i] = lb_level(in, x, at + (uint32_t)i);
            lb_put_levels(out, to, levels, here);
        }
    }
}

/* Append n times a level, or a word of floats. */
static void append_fill(const lb_value *out, lb_cursor *to, uint32_t fill, uint32_t n) {
    for (uint32_t at = 0; at < n; at += LB_BLOCK) {
        int here = n - at < LB_BLOCK ? (int)(n - at) : LB_BLOCK;
        uint32_t words[LB_BLOCK];
        uint8_t levels[LB_BLOCK];
        for (int i = 0; i < here; i++) words[i] = fill, levels[i] = (uint8_t)fill;
        if (out->kind >= LB_SUMS)
            lb_put_words(to, words, here);
        else
            lb_put_levels(out, to, levels, here);
    }
}

void lb_pad(const lb_window *w, const lb_value *in, const lb_value *out, uint32_t fill, const uint32_t *x, uint32_t *to) {
    lb_cursor cursor = {to, 0};
    uint32_t channels = (uint32_t)w->channels, row = channels * (uint32_t)w->size[1], left = channels * (uint32_t)-w->start[1],
             right = channels * (uint32_t)w->out[1] - left - row;
    for (int32_t oy = 0; oy < w->out[0]; oy++) {
        int32_t y = oy + w->start[0];
        if (y < 0 || y >= w->size[0]) {
            append_fill(out, &cursor, fill, left + row + right);
            continue;
        }
        append_fill(out, &cursor, fill, left);
        append(in, out, &cursor, x, (uint32_t)y * row, row);
        append_fill(out, &cursor, fill, right);
    }
}

void lb_concat(const lb_part *parts, int count, const lb_value *out, const uint32_t *const *x, uint32_t *to, uint32_t pixels) {
    lb_cursor cursor = {to, 0};
    for (uint32_t p = 0; p < pixels; p++)
        for (int k = 0; k < count; k++) append(&parts[k].value, out, &cursor, x[k], p * parts[k].channels, parts[k].channels);
}

void lb_resize_nearest(const lb_resizing *r, const lb_value *in, const lb_value *out, const uint32_t *x, uint32_t *to) {
    lb_cursor cursor = {to, 0};
    uint32_t channels = (uint32_t)r->channels;
    for (int32_t i = 0; i < r->out[0]; i++)
        for (int32_t j = 0; j < r->out[1]; j++)
            append(in, out, &cursor, x, (uint32_t)(r->rows[i] * r->size[1] + r->columns[j]) * channels, channels);
}

static float mix(float a, float b, float weight) {
    float change = b - a;
    float share = weight * change;
    return a + share;
}

void lb_resize_mixed(const lb_resizing *r, const uint32_t *x, uint32_t *to) {
    for (int32_t i = 0; i < r->out[0]; i++) {
        int32_t top = r->rows[i], bottom = top + 1 < r->size[0] ? top + 1 : top;
        for (int32_t j = 0; j < r->out[1]; j++) {
            int32_t left = r->columns[j], right = left + 1 < r->size[1] ? left + 1 : left;
            for (int32_t c = 0; c < r->channels; c++) {
                float first = mix(lb_as_float(x[(top * r->size[1] + left) * r->channels + c]),
                                  lb_as_float(x[(bottom * r->size[1] + left) * r->channels + c]), r->row_weights[i]);
                float second = mix(lb_as_float(x[(top * r->size[1] + right) * r->channels + c]),
                                   lb_as_float(x[(bottom * r->size[1] + right) * r->channels + c]), r->row_weights[i]);
                *to++ = lb_as_word(mix(first, second, r->column_weights[j]));
            }
        }
    }
}
