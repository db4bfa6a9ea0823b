/* The image that a layer reads, where its patches lie in it, and its border classes; padding as an operator of its own. */
#include <string.h>

#include "internal.h"

/* Class of each output position along an axis: positions whose patches lose the same taps to the padding share one. */
static int axis_classes(lb_program *p, const lb_window *w, int axis, int64_t size, int64_t out, int32_t **classes, lb_span **spans) {
    *classes = lb_keep(p, out, sizeof **classes);
    *spans = lb_keep(p, out, sizeof **spans);
    if (p->status != LB_OK) return -1;
    int count = 0;
    for (int64_t o = 0; o < out; o++) {
        int64_t start = o * w->stride[axis] - w->padding[axis], step = w->dilation[axis], kernel = w->kernel[axis];
        int64_t first = start < 0 ? lb_min64(lb_ceil_div(-start, step), kernel) : 0;
        int64_t last = start >= size ? first : lb_max64(first, lb_min64(kernel, lb_ceil_div(size - start, step)));
        /* both ends only fall as o rises, so equal spans stand together */
        if (!count || (*spans)[count - 1].first != first || (*spans)[count - 1].last != last) (*spans)[count++] = (lb_span){first, last};
        (*classes)[o] = count - 1;
    }
    return count;
}

static int plan_classes(lb_program *p, const lb_node *node, const lb_value *x, lb_patches *out) {
    int rows = axis_classes(p, &node->window, 0, x->height, out->out_height, &out->class_y, &out->spans_y);
    int cols = axis_classes(p, &node->window, 1, x->width, out->out_width, &out->class_x, &out->spans_x);
    if (p->status != LB_OK) return -1;
    if (lb_mul(rows, cols) > INT32_MAX) return lb_refuse(p, "%s: too many border classes", node->name);
    out->classes_x = cols;
    out->classes = rows * cols;
    return 0;
}

/* The pixel that has `value` in every channel: a float, or a code. */
static uint32_t *fill_pixel(lb_program *p, const lb_type *type, lb_form form, const lb_image_copy *copy, float value) {
    uint32_t *fill = lb_keep(p, copy->to_pixel_words, sizeof *fill);
    if (!fill) return NULL;
    if (form == LB_FORM_F32) {
        for (int64_t c = 0; c < copy->to_pixel_words; c++) memcpy(fill + c, &value, sizeof value);
        return fill;
    }
    lb_levels levels = lb_levels_of(type->code);
    int32_t byte = ((int32_t)value - levels.lo) / levels.spacing, field = byte + levels.plane_add;
    for (int64_t g = 0; g < copy->groups; g++) {
        for (int64_t c = 0; c < copy->group_channels; c++) {
            if (form == LB_FORM_BYTES) {
                ((uint8_t *)(fill + g * copy->group_words))[c] = (uint8_t)byte;
                continue;
            }
            for (int64_t plane = 0; plane < copy->planes; plane++)
                fill[(plane * copy->groups + g) * copy->group_words + c / 32] |= (uint32_t)(field >> plane & 1) << (c % 32);
        }
    }
    return fill;
}

static lb_op *copy_image(lb_program *p, const lb_node *node, const char *what, lb_image_copy copy, int from, int to) {
    const lb_window *w = &node->window;
    lb_op *op = lb_new_op(p, node->name, what, from, -1, to);
    if (!op) return NULL;
    op->run = lb_run_image;
    op->as.copy = copy;
    op->types = lb_type_text(p, &p->values[node->in[0]].type);
    op->kernel = lb_loop_name("copy", p->options.isa);
    op->reason = lb_text(p, "padding %lld %lld %lld %lld%s", (long long)w->padding[0], (long long)w->padding[1], (long long)w->padding[2],
                         (long long)w->padding[3], copy.regroup ? "; each group starts at a word" : "");
    return op;
}

static lb_image_copy image_copy(const lb_node *node, const lb_value *x, lb_form form) {
    const lb_window *w = &node->window;
    int64_t unit = form == LB_FORM_PLANES ? 32 : form == LB_FORM_BYTES ? 4 : 1;
    lb_image_copy copy = {.height = x->height,
                          .width = x->width,
                          .groups = w->groups,
                          .group_channels = x->channels / w->groups,
                          .top = w->padding[0],
                          .left = w->padding[1]};
    copy.padded_height = x->height + w->padding[0] + w->padding[2];
    copy.padded_width = x->width + w->padding[1] + w->padding[3];
    copy.planes = form == LB_FORM_PLANES ? x->type.code.bits : 1;
    copy.group_words = lb_ceil_div(copy.group_channels, unit);
    copy.from_plane_words = lb_ceil_div(x->channels, unit);
    copy.from_pixel_words = copy.planes * copy.from_plane_words;
    copy.to_pixel_words = copy.planes * copy.groups * copy.group_words;
    copy.regroup = copy.groups > 1 && copy.group_channels % unit != 0;
    return copy;
}

int lb_plan_pad(lb_program *p, const lb_node *node) {
    const lb_value *x = &p->values[node->in[0]];
    int from = lb_tensor_in(p, node->in[0], node->form);
    if (from < 0 || lb_place_value(p, node->out) < 0) return -1;
    lb_image_copy copy = image_copy(node, x, node->form);
    copy.fill = fill_pixel(p, &x->type, node->form, &copy, node->fill);
    lb_op *op = copy_image(p, node, node->op, copy, from, p->values[node->out].tensor);
    if (!op) return -1;
    op->carrier = node->form == LB_FORM_PLANES ? "planes" : node->form == LB_FORM_BYTES ? "bytes" : "";
    return 0;
}

/* A copy of the image that a layer reads, around it what stands for real 0: the code zero, or of odd codes the lowest, whose words are empty. */
static int copy_for_layer(lb_program *p, const lb_node *node, lb_form form, lb_image_copy copy, int padded, lb_image *out) {
    const lb_type *type = &p->values[node->in[0]].type;
    int tensor =
        lb_new_tensor(p, form, lb_mul(copy.padded_height, copy.padded_width), copy.to_pixel_words * (form == LB_FORM_BYTES ? 4 : 1));
    float zero = type->kind == LB_F32 ? 0.0f : (float)(lb_zero_is_code(type) ? type->zero : lb_levels_of(type->code).lo);
    copy.fill = fill_pixel(p, type, form, &copy, zero);
    const char *what = padded ? (copy.regroup ? "pad + regroup" : "pad") : "regroup";
    if (tensor < 0 || !copy_image(p, node, what, copy, out->tensor, tensor)) return -1;
    out->tensor = tensor;
    return 0;
}

int lb_plan_image(lb_program *p, const lb_node *node, lb_form form, int classed, lb_image *out) {
    const lb_value *x = &p->values[node->in[0]];
    const lb_window *w = &node->window;
    lb_image_copy copy = image_copy(node, x, form);
    int padded = copy.padded_height != copy.height || copy.padded_width != copy.width;
    *out = (lb_image){
        .tensor = lb_tensor_in(p, node->in[0], form), .pixel_words = copy.to_pixel_words, .plane_words = copy.groups * copy.group_words};
    if (out->tensor < 0 || ((padded || copy.regroup) && copy_for_layer(p, node, form, copy, padded, out) < 0)) return -1;

    lb_patches *patches = &out->patches;
    const lb_value *y = &p->values[node->out];
    patches->out_height = y->height;
    patches->out_width = y->width;
    int64_t row_words = lb_mul(copy.padded_width, copy.to_pixel_words);
    patches->sample_words = lb_mul(copy.padded_height, row_words);
    patches->depth = lb_mul(lb_mul(w->kernel[0], w->kernel[1]), copy.group_words);
    if (patches->sample_words < 0 || patches->sample_words > INT32_MAX || patches->depth < 0)
        return lb_refuse(p, "%s: its image is beyond 2^31 words", node->name);
    patches->stride_y = w->stride[0] * row_words;
    patches->stride_x = w->stride[1] * copy.to_pixel_words;
    patches->koff = lb_keep(p, patches->depth, sizeof *patches->koff);
    if (!patches->koff) return -1;
    int32_t *k = patches->koff;
    for (int64_t i = 0; i < w->kernel[0]; i++)
        for (int64_t j = 0; j < w->kernel[1]; j++)
            for (int64_t word = 0; word < copy.group_words; word++)
                *k++ = (int32_t)(i * w->dilation[0] * row_words + j * w->dilation[1] * copy.to_pixel_words + word);
    patches->classes = patches->classes_x = 1;
    return padded && classed ? plan_classes(p, node, x, patches) : 0;
}

void lb_patch_rows(const lb_patches *patches, int64_t row0, int64_t rows, int64_t *row, int32_t *row_class) {
    int64_t per = patches->out_height * patches->out_width, sample = row0 / per, y = row0 % per / patches->out_width,
            x = row0 % patches->out_width;
    for (int64_t r = 0; r < rows; r++) {
        row[r] = sample * patches->sample_words + y * patches->stride_y + x * patches->stride_x;
        if (row_class) row_class[r] = patches->class_y[y] * patches->classes_x + patches->class_x[x];
        if (++x == patches->out_width) {
            x = 0;
            if (++y == patches->out_height) y = 0, sample++;
        }
    }
}
