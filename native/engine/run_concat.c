/* Concatenation along the channels: every row of the output is the rows of the inputs, one behind the other. */
#include <string.h>

#include "internal.h"

int lb_plan_concat(lb_program *p, const lb_node *node) {
    lb_concat concat = {.count = node->in_count, .parts = lb_keep(p, node->in_count, sizeof *concat.parts)};
    int64_t at = 0, pixels = p->values[node->out].height * p->values[node->out].width;
    for (int k = 0; concat.parts && k < concat.count; k++) {
        const lb_value *x = &p->values[node->in[k]];
        int tensor = lb_tensor_in(p, node->in[k], node->form);
        if (tensor < 0) return -1;
        concat.parts[k] = (lb_part){tensor, p->tensors[tensor].ld, x->height * x->width / pixels, x->channels, at};
        at += x->type.shape[0];
    }
    if (!concat.parts || lb_place_value(p, node->out) < 0) return -1;
    const lb_value *y = &p->values[node->out];
    lb_op *op = lb_new_op(p, node->name, node->op, concat.parts[0].tensor, -1, y->tensor);
    if (!op) return -1;
    for (int k = 0; k < concat.count; k++) p->tensors[concat.parts[k].tensor].last = p->op_count - 1;
    concat.planes = op->to.form == LB_FORM_PLANES ? y->type.code.bits : 0;
    op->run = lb_run_concat;
    op->kernel = lb_loop_name("copy", p->options.isa);
    op->types = lb_type_text(p, &y->type);
    op->carrier = op->to.form == LB_FORM_PLANES ? "planes" : op->to.form == LB_FORM_BYTES ? "bytes" : "";
    op->reason = lb_text(p, "%d values along the channels", concat.count);
    op->pixels = y->height * y->width;
    op->channels = y->channels;
    op->as.concat = concat;
    return 0;
}

/* Elements of `size` bytes each. A flattened image is (C, rows), and lies as (rows, C). */
static void copy_elements(const lb_part *part, const uint8_t *from, uint8_t *to, int64_t size) {
    to += part->at * size;
    if (part->rows == 1) {
        memcpy(to, from, (size_t)(part->channels * size));
        return;
    }
    for (int64_t r = 0; r < part->rows; r++, from += part->ld * size)
        for (int64_t c = 0; c < part->channels; c++) memcpy(to + (c * part->rows + r) * size, from + c * size, (size_t)size);
}

/* A part's bits, into a row that is zero from there on. The tail of the part's last word is zero. */
static void copy_planes(const lb_part *part, const uint32_t *from, uint32_t *to, int planes, int64_t plane_words) {
    int64_t words = lb_ceil_div(part->channels, 32);
    int shift = (int)(part->at % 32);
    for (int plane = 0; plane < planes; plane++, from += words) {
        uint32_t *row = to + plane * plane_words + part->at / 32;
        for (int64_t w = 0; w < words; w++) {
            row[w] |= from[w] << shift;
            uint32_t over = shift ? from[w] >> (32 - shift) : 0;
            if (over) row[w + 1] |= over; /* else that word may not exist */
        }
    }
}

void lb_run_concat(const lb_op *op, const lb_env *env) {
    const lb_concat *concat = &op->as.concat;
    int64_t first, last, size = op->to.form == LB_FORM_BYTES ? 1 : 4, row_bytes = op->to.ld * size;
    lb_share(env->batch * op->pixels, 16, env, &first, &last);
    for (int64_t r = first; r < last; r++) {
        uint8_t *row = env->tensors[op->out] + r * row_bytes;
        if (op->to.form != LB_FORM_F32) memset(row, 0, (size_t)row_bytes);
        for (int k = 0; k < concat->count; k++) {
            const lb_part *part = &concat->parts[k];
            const uint8_t *from = env->tensors[part->tensor] + r * part->rows * part->ld * size;
            if (concat->planes)
                copy_planes(part, (const uint32_t *)(const void *)from, (uint32_t *)(void *)row, concat->planes,
                            lb_ceil_div(op->channels, 32));
            else
                copy_elements(part, from, row, size);
        }
    }
}
