/* Resizing: output row i is input row rows[i], or with weights a mix of it and the row behind it, and so along the columns. Nearest pixels are
 * copied, in either carrier; the mix is of floats: a + w * (b - a), rows first, each operation rounded once. */
#include <string.h>

#include "internal.h"

enum { MAX_EXTENT = 1 << 16 };

/* Whether n entries of a table name rows, or columns, of `size`. */
static int fits(const int32_t *table, int64_t n, int64_t size) {
    for (int64_t i = 0; i < n; i++)
        if (table[i] < 0 || table[i] >= size) return 0;
    return 1;
}

static int are_shares(const float *weights, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        if (!(weights[i] >= 0.0f && weights[i] <= 1.0f)) return 0;
    return 1;
}

int lb_add_resize2d(lb_program *p, const char *name, int x, const lb_resize_map *map) {
    int mix = map->row_weights != NULL;
    const lb_value *in = lb_input_of(p, name, x, mix ? 1 << LB_F32 : 1 << LB_F32 | 1 << LB_CODES, LB_IMAGE);
    if (!in) return -1;
    int row = in->type.rank == 2;
    if (map->height < 1 || map->width < 1 || map->height >= MAX_EXTENT || map->width >= MAX_EXTENT || (row && map->height != 1) ||
        lb_mul(in->channels, map->height * map->width) > (int64_t)1 << 28)
        return lb_refuse(p, "%s: no image of this size", name);
    if (!fits(map->rows, map->height, in->height) || !fits(map->columns, map->width, in->width))
        return lb_refuse(p, "%s: it reads rows and columns that its input has not", name);
    if (mix != (map->column_weights != NULL) ||
        (mix && !(are_shares(map->row_weights, map->height) && are_shares(map->column_weights, map->width))))
        return lb_refuse(p, "%s: its weights are from 0 to 1, of rows and of columns", name);
    lb_type type = in->type;
    type.shape[1] = row ? map->width : map->height;
    type.shape[2] = row ? 0 : map->width;
    lb_node *node = lb_new_node(p, LB_NODE_RESIZE, "resize2d", name, &x, 1);
    if (!node) return -1;
    node->resize = *map;
    node->resize.rows = lb_copy(p, map->rows, map->height, sizeof *map->rows);
    node->resize.columns = lb_copy(p, map->columns, map->width, sizeof *map->columns);
    if (mix) {
        node->resize.row_weights = lb_copy(p, map->row_weights, map->height, sizeof(float));
        node->resize.column_weights = lb_copy(p, map->column_weights, map->width, sizeof(float));
    }
    return p->status == LB_OK ? lb_new_value(p, node, &type, -1) : -1;
}

int lb_plan_resize(lb_program *p, const lb_node *node) {
    const lb_value *x = &p->values[node->in[0]];
    int from = lb_tensor_in(p, node->in[0], node->form);
    if (from < 0 || lb_place_value(p, node->out) < 0) return -1;
    const lb_value *y = &p->values[node->out];
    lb_op *op = lb_new_op(p, node->name, node->op, from, -1, y->tensor);
    if (!op) return -1;
    op->run = lb_run_resize;
    op->kernel = lb_loop_name("copy", p->options.isa);
    op->types = lb_type_text(p, &y->type);
    op->carrier = op->to.form == LB_FORM_PLANES ? "planes" : op->to.form == LB_FORM_BYTES ? "bytes" : "";
    op->reason = node->resize.row_weights ? "bilinear" : "nearest pixels";
    op->pixels = y->height * y->width;
    op->channels = y->channels;
    op->as.resize = (lb_resize){node->resize, x->height, x->width};
    return 0;
}

static void mix_pixel(const float *corner[4], float down, float right, float *out, int64_t channels) {
    for (int64_t c = 0; c < channels; c++) {
        float first = corner[0][c] + down * (corner[2][c] - corner[0][c]);
        float second = corner[1][c] + down * (corner[3][c] - corner[1][c]);
        out[c] = first + right * (second - first);
    }
}

void lb_run_resize(const lb_op *op, const lb_env *env) {
    const lb_resize *resize = &op->as.resize;
    const lb_resize_map *map = &resize->map;
    int64_t first, last, pixel = op->to.ld * (op->to.form == LB_FORM_BYTES ? 1 : 4), channels = op->channels;
    lb_share(env->batch * map->height, 1, env, &first, &last);
    for (int64_t r = first; r < last; r++) {
        const uint8_t *image = env->tensors[op->in[0]] + r / map->height * resize->height * resize->width * pixel;
        uint8_t *to = env->tensors[op->out] + r * map->width * pixel;
        int64_t i = r % map->height, top = map->rows[i], bottom = lb_min64(top + 1, resize->height - 1);
        for (int64_t j = 0; j < map->width; j++, to += pixel) {
            int64_t left = map->columns[j], right = lb_min64(left + 1, resize->width - 1);
            const uint8_t *here = image + (top * resize->width + left) * pixel;
            if (!map->row_weights) {
                memcpy(to, here, (size_t)pixel);
                continue;
            }
            const float *corner[4] = {(const float *)(const void *)here,
                                      (const float *)(const void *)(image + (top * resize->width + right) * pixel),
                                      (const float *)(const void *)(image + (bottom * resize->width + left) * pixel),
                                      (const float *)(const void *)(image + (bottom * resize->width + right) * pixel)};
            mix_pixel(corner, map->row_weights[i], map->column_weights[j], (float *)(void *)to, channels);
        }
    }
}
