/* Float layers: outside the exact class, yet the same on every ISA, batch and thread count, for the order of every sum is fixed. */
#include "internal.h"

enum { FLOAT_TILE = 32 }; /* columns are padded to whole tiles */

int lb_plan_float(lb_program *p, const lb_node *node) {
    lb_image image;
    if (lb_plan_image(p, node, LB_FORM_F32, 0, &image) < 0 || lb_place_value(p, node->out) < 0) return -1;
    const lb_value *y = &p->values[node->out];
    lb_float_layer layer = {.patches = image.patches, .groups = node->window.groups, .outputs = node->outputs};
    int64_t taps = node->window.kernel[0] * node->window.kernel[1], depth = image.patches.depth;
    layer.group_channels = depth / taps;
    layer.cols = node->outputs / layer.groups;
    layer.ldw = lb_round_up(layer.cols, FLOAT_TILE);
    layer.weights = lb_keep(p, lb_mul(layer.groups, depth), lb_mul(layer.ldw, sizeof(float)));
    layer.bias = node->bias;
    if (!layer.weights) return -1;
    for (int64_t o = 0; o < node->outputs; o++)
        for (int64_t c = 0; c < layer.group_channels; c++)
            for (int64_t tap = 0; tap < taps; tap++) {
                int64_t k = o / layer.cols * depth + tap * layer.group_channels + c;
                layer.weights[k * layer.ldw + o % layer.cols] = node->weights_f32[(o * layer.group_channels + c) * taps + tap];
            }
    lb_op *op = lb_new_op(p, node->name, node->op, image.tensor, -1, y->tensor);
    if (!op) return -1;
    op->run = lb_run_float;
    op->types = "f32 x f32 -> f32";
    op->kernel = lb_loop_name("float_product", p->options.isa);
    op->reason = "a float layer: its sums are rounded";
    op->weight_bytes = layer.groups * depth * layer.ldw * (int64_t)sizeof(float);
    op->macs = node->outputs * y->height * y->width * depth;
    op->inexact = 1;
    op->scratch_bytes = LB_TILE_ROWS * (int64_t)sizeof(int64_t);
    op->as.layer = layer;
    return 0;
}

void lb_run_float(const lb_op *op, const lb_env *env) {
    const lb_float_layer *layer = &op->as.layer;
    const lb_patches *patches = &layer->patches;
    int64_t *row = (int64_t *)(void *)env->scratch, from, to;
    lb_share(env->batch * patches->out_height * patches->out_width, 4, env, &from, &to);
    for (int64_t r = from; r < to; r += LB_TILE_ROWS) {
        lb_float_product args = {
            .row = row, .koff = patches->koff, .rows = lb_min64(LB_TILE_ROWS, to - r), .depth = patches->depth, .cols = layer->cols};
        args.ldw = layer->ldw;
        args.ldo = layer->outputs;
        lb_patch_rows(patches, r, args.rows, row, NULL);
        for (int64_t g = 0; g < layer->groups; g++) {
            args.x = (const float *)env->tensors[op->in[0]] + g * layer->group_channels;
            args.w = layer->weights + g * patches->depth * layer->ldw;
            args.bias = layer->bias ? layer->bias + g * layer->cols : NULL;
            args.out = (float *)env->tensors[op->out] + r * layer->outputs + g * layer->cols;
            env->elementwise->float_product(&args);
        }
    }
}
