/* Operators that only move numbers: padding and regrouping, packing, loading, storing. */
#include <string.h>

#include "internal.h"

void lb_share(int64_t total, int64_t unit, const lb_env *env, int64_t *from, int64_t *to) {
    int64_t units = lb_ceil_div(total, unit), each = units / env->threads, rest = units % env->threads, t = env->thread;
    int64_t first = t * each + lb_min64(t, rest);
    *from = lb_min64(total, first * unit);
    *to = lb_min64(total, (first + each + (t < rest)) * unit);
}

/* count bits that start at bit `at`; reads no word beyond the last bit. */
static uint32_t bits_at(const uint32_t *words, int64_t at, int64_t count) {
    int shift = (int)(at % 32);
    uint32_t low = words[at / 32] >> shift;
    if (shift + count > 32) low |= words[at / 32 + 1] << (32 - shift);
    return count >= 32 ? low : low & (((uint32_t)1 << count) - 1);
}

static void regroup_pixel(const lb_image_copy *copy, lb_form form, const uint32_t *from, uint32_t *to) {
    int64_t n = copy->group_channels;
    if (form == LB_FORM_BYTES) {
        memset(to, 0, (size_t)copy->to_pixel_words * sizeof *to);
        for (int64_t g = 0; g < copy->groups; g++) memcpy(to + g * copy->group_words, (const uint8_t *)from + g * n, (size_t)n);
        return;
    }
    for (int64_t plane = 0; plane < copy->planes; plane++)
        for (int64_t g = 0; g < copy->groups; g++)
            for (int64_t c = 0; c < n; c += 32)
                to[(plane * copy->groups + g) * copy->group_words + c / 32] =
                    bits_at(from + plane * copy->from_plane_words, g * n + c, lb_min64(32, n - c));
}

static void fill_pixels(const lb_image_copy *copy, uint32_t *to, int64_t pixels) {
    for (int64_t i = 0; i < pixels; i++) memcpy(to + i * copy->to_pixel_words, copy->fill, (size_t)copy->to_pixel_words * sizeof *to);
}

void lb_run_image(const lb_op *op, const lb_env *env) {
    const lb_image_copy *copy = &op->as.copy;
    const uint32_t *from = (const uint32_t *)env->tensors[op->in[0]];
    uint32_t *to = (uint32_t *)env->tensors[op->out];
    int64_t first, last, in_row = copy->width * copy->from_pixel_words, out_row = copy->padded_width * copy->to_pixel_words;
    lb_share(env->batch * copy->padded_height, 1, env, &first, &last);
    for (int64_t r = first; r < last; r++) {
        int64_t sample = r / copy->padded_height, y = r % copy->padded_height - copy->top;
        uint32_t *row = to + r * out_row;
        if (y < 0 || y >= copy->height) {
            fill_pixels(copy, row, copy->padded_width);
            continue;
        }
        const uint32_t *source = from + (sample * copy->height + y) * in_row;
        fill_pixels(copy, row, copy->left);
        row += copy->left * copy->to_pixel_words;
        if (!copy->regroup) memcpy(row, source, (size_t)in_row * sizeof *row);
        for (int64_t x = 0; copy->regroup && x < copy->width; x++)
            regroup_pixel(copy, op->from.form, source + x * copy->from_pixel_words, row + x * copy->to_pixel_words);
        fill_pixels(copy, row + copy->width * copy->to_pixel_words, copy->padded_width - copy->left - copy->width);
    }
}

void lb_run_pack(const lb_op *op, const lb_env *env) {
    int64_t first, last;
    lb_rows_in in = {op->from.form, env->tensors[op->in[0]], op->from.ld, 0};
    lb_rows_out out = {op->to.form, env->tensors[op->out], op->to.ld, lb_ceil_div(op->channels, 32), op->levels};
    lb_share(env->batch * op->pixels, 1, env, &first, &last);
    env->elementwise->pack(&in, &out, op->channels, first, last);
}

enum { STRIP = 16 }; /* pixels transposed together, so that both sides stay in the cache */

void lb_run_load(const lb_op *op, const lb_env *env) {
    const float *from = (const float *)env->tensors[op->in[0]];
    float *to = (float *)env->tensors[op->out];
    int64_t first, last, pixels = op->pixels, channels = op->channels;
    lb_share(env->batch * pixels, STRIP, env, &first, &last);
    for (int64_t r = first; r < last; r++) {
        const float *source = from + r / pixels * pixels * channels + r % pixels;
        for (int64_t c = 0; c < channels; c++) to[r * channels + c] = source[c * pixels];
    }
}

static int32_t code_at(const lb_tensor *t, const uint8_t *pixel, lb_levels levels, int64_t c, int64_t plane_words) {
    int32_t byte = 0;
    if (t->form == LB_FORM_BYTES)
        byte = pixel[c];
    else {
        const uint32_t *words = (const uint32_t *)(const void *)pixel;
        for (int bit = 0; bit < levels.bits; bit++) byte |= (int32_t)(words[bit * plane_words + c / 32] >> (c % 32) & 1) << bit;
        byte = (byte - levels.plane_add) & ((1 << levels.bits) - 1);
    }
    return levels.spacing * byte + levels.lo;
}

void lb_store(const lb_tensor *t, const uint8_t *data, lb_levels levels, int64_t pixels, int64_t channels, void *to, const lb_env *env) {
    int64_t first, last, size = t->form == LB_FORM_BYTES ? 1 : 4, plane_words = lb_ceil_div(channels, 32);
    lb_share(env->batch * pixels, STRIP, env, &first, &last);
    for (int64_t r = first; r < last; r++) {
        const uint8_t *pixel = data + r * t->ld * size;
        int64_t at = r / pixels * pixels * channels + r % pixels;
        for (int64_t c = 0; c < channels; c++) {
            if (t->form == LB_FORM_F32 || t->form == LB_FORM_I32)
                memcpy((uint32_t *)to + at + c * pixels, pixel + 4 * c, 4);
            else
                ((int16_t *)to)[at + c * pixels] = (int16_t)code_at(t, pixel, levels, c, plane_words);
        }
    }
}

void lb_run_store(const lb_op *op, const lb_env *env) {
    void *to = op->to_output >= 0 ? env->outputs[op->to_output] : env->tensors[op->out];
    lb_store(&op->from, env->tensors[op->in[0]], op->levels, op->pixels, op->channels, to, env);
}
