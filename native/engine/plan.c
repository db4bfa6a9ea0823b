/* lb_finish: from nodes to operators. A product whose sums have one consumer, a threshold or a chain, runs it as its epilogue; an input read by
 * one chain only is transposed while it is loaded; a codes value read in both carriers is converted by an operator of its own. */
#include <string.h>

#include "internal.h"

int lb_new_tensor(lb_program *p, lb_form form, int64_t pixels, int64_t ld) {
    int64_t bytes = lb_mul(lb_mul(pixels, ld), form == LB_FORM_BYTES ? 1 : 4);
    if (bytes < 0) return lb_refuse(p, "a value is too large");
    int at = lb_grow(p, &p->tensors, &p->tensor_count, &p->tensor_room, sizeof *p->tensors, LB_MAX_VALUES);
    if (at >= 0)
        p->tensors[at] = (lb_tensor){
            .form = form, .sample_bytes = bytes, .ld = ld, .input = -1, .output = -1, .first = p->op_count, .last = p->op_count};
    return at;
}

lb_op *lb_new_op(lb_program *p, const char *name, const char *what, int in0, int in1, int out) {
    int at = lb_grow(p, &p->ops, &p->op_count, &p->op_room, sizeof *p->ops, LB_MAX_VALUES);
    if (at < 0) return NULL;
    lb_op *op = &p->ops[at];
    op->name = name;
    op->what = what;
    op->in[0] = in0;
    op->in[1] = in1;
    op->out = out;
    op->to_output = -1;
    op->types = op->carrier = op->reason = "";
    op->kernel = lb_loop_name("stage", p->options.isa);
    for (int k = 0; k < 2; k++)
        if (op->in[k] >= 0) p->tensors[op->in[k]].last = at;
    if (in0 >= 0) op->from = p->tensors[in0];
    if (out >= 0) {
        p->tensors[out].first = at;
        p->tensors[out].last = (int)lb_max64(at, p->tensors[out].last);
        op->to = p->tensors[out];
    }
    return op;
}

static int new_value_tensor(lb_program *p, const lb_value *v, lb_form form) {
    int64_t ld = v->channels;
    if (form == LB_FORM_BYTES) ld = lb_round_up(ld, 4);
    if (form == LB_FORM_PLANES) ld = lb_mul(v->type.code.bits, lb_ceil_div(ld, 32));
    return lb_new_tensor(p, form, lb_mul(v->height, v->width), ld);
}

/* Whether channels-last and channels-first are the same. */
static int same_layout(const lb_value *v) { return v->channels == 1 || v->height * v->width == 1; }

int lb_place_value(lb_program *p, int value) {
    lb_value *v = &p->values[value];
    lb_form form = lb_home_form(v);
    v->tensor = new_value_tensor(p, v, form);
    if (v->tensor < 0) return -1;
    if (v->type.kind == LB_CODES) v->tensors[form == LB_FORM_PLANES] = v->tensor;
    if (v->output_uses == 1 && v->type.kind != LB_CODES && same_layout(v))
        for (int i = 0; i < p->output_count; i++)
            if (p->values[p->outputs[i]].root == value) p->tensors[v->tensor].output = i;
    return 0;
}

int lb_tensor_in(lb_program *p, int value, lb_form form) {
    const lb_value *root = &p->values[p->values[value].root];
    return root->type.kind == LB_CODES ? root->tensors[form == LB_FORM_PLANES] : root->tensor;
}

lb_rows_out lb_rows_of(const lb_program *p, int tensor, lb_levels levels, int64_t channels) {
    const lb_tensor *t = &p->tensors[tensor];
    return (lb_rows_out){t->form, NULL, t->ld, lb_ceil_div(channels, 32), levels};
}

static const char *text_of_types(lb_program *p, const lb_node *node) {
    return lb_text(p, "%s -> %s", lb_type_text(p, &p->values[node->in[0]].type), lb_type_text(p, &p->values[node->out].type));
}

static const char *carrier_of(lb_form form) { return form == LB_FORM_PLANES ? "planes" : form == LB_FORM_BYTES ? "bytes" : ""; }

/* The chain that is the only reader of a node's value, or a threshold; else NULL. */
static lb_node *only_reader(lb_program *p, int value) {
    const lb_value *v = &p->values[value];
    if (v->uses != 1 || v->last_user < 0) return NULL;
    lb_node *user = &p->nodes[v->last_user];
    return user->kind == LB_NODE_CHAIN || user->kind == LB_NODE_THRESHOLD ? user : NULL;
}

static int input_index(const lb_program *p, int value) {
    int index = 0;
    while (p->inputs[index] != value) index++;
    return index;
}

static int plan_flatten(lb_program *p, const lb_node *node) {
    lb_value *v = &p->values[node->out];
    if (v->root != node->out) return 0;
    v->tensor = lb_new_tensor(p, LB_FORM_F32, 1, v->channels);
    if (v->tensor < 0) return -1;
    p->tensors[v->tensor].input = input_index(p, node->in[0]);
    return 0;
}

static int plan_input(lb_program *p, const lb_node *node) {
    lb_value *v = &p->values[node->out];
    int direct = same_layout(v), fused = !direct && only_reader(p, node->out) != NULL;
    int outside = lb_new_tensor(p, direct ? LB_FORM_F32 : LB_FORM_NCHW, v->height * v->width, v->channels);
    if (outside < 0) return -1;
    p->tensors[outside].input = input_index(p, node->out);
    v->tensor = outside;
    if (direct || fused || !v->uses) return 0;
    int inside = new_value_tensor(p, v, LB_FORM_F32);
    lb_op *op = inside < 0 ? NULL : lb_new_op(p, node->name, "load", outside, -1, inside);
    if (!op) return -1;
    p->values[node->out].tensor = inside;
    op->run = lb_run_load;
    op->types = "f32";
    op->kernel = lb_loop_name("transpose", p->options.isa);
    op->reason = "channels last";
    op->pixels = v->height * v->width;
    op->channels = v->channels;
    return 0;
}

static int plan_rows(lb_program *p, const lb_node *node) {
    int in = lb_tensor_in(p, node->in[0], LB_FORM_BYTES);
    if (in < 0 || lb_place_value(p, node->out) < 0) return -1;
    lb_op *op = lb_new_op(p, node->name, node->op, in, -1, p->values[node->out].tensor);
    if (!op || lb_plan_stage(p, node, &op->as.stage) < 0) return -1;
    op->run = lb_run_stage;
    op->types = text_of_types(p, node);
    op->carrier = carrier_of(op->to.form);
    op->reason = op->from.form == LB_FORM_NCHW ? "transposes the input as it loads" : "";
    return 0;
}

static int plan_pool(lb_program *p, const lb_node *node) {
    const lb_value *x = &p->values[node->in[0]];
    int in = lb_tensor_in(p, node->in[0], node->form);
    if (in < 0 || lb_place_value(p, node->out) < 0) return -1;
    const lb_value *y = &p->values[node->out];
    lb_op *op = lb_new_op(p, node->name, node->op, in, -1, y->tensor);
    if (!op) return -1;
    op->run = node->kind == LB_NODE_MAX_POOL ? lb_run_max_pool : lb_run_avg_pool;
    op->kernel = lb_loop_name(node->kind == LB_NODE_MAX_POOL ? "max_pool" : "avg_pool", p->options.isa);
    op->types = text_of_types(p, node);
    op->carrier = carrier_of(op->to.form);
    op->as.pool = (lb_pool){x->height, x->width, x->channels, y->height, y->width, node->window, (float)node->divisor};
    op->pixels = y->height * y->width;
    op->channels = y->channels;
    op->levels = y->type.kind == LB_CODES ? lb_levels_of(y->type.code) : (lb_levels){0};
    return 0;
}

/* The tensor of a value as a plain vector in the logical order. */
static int plain_vector(lb_program *p, const lb_node *node, int value) {
    const lb_value *v = &p->values[value];
    int from = lb_tensor_in(p, value, LB_FORM_F32);
    if (same_layout(v)) return from;
    int to = lb_new_tensor(p, LB_FORM_F32, 1, v->type.shape[0]);
    lb_op *op = to < 0 ? NULL : lb_new_op(p, node->name, "reorder", from, -1, to);
    if (!op) return -1;
    op->run = lb_run_store;
    op->types = "f32";
    op->kernel = lb_loop_name("transpose", p->options.isa);
    op->reason = "the other operand lies in channels-first order";
    op->pixels = v->height * v->width;
    op->channels = v->channels;
    return to;
}

static int plan_add(lb_program *p, const lb_node *node) {
    const lb_value *y = &p->values[node->out], *a = &p->values[node->in[0]], *b = &p->values[node->in[1]];
    int alike = a->height == b->height && a->width == b->width;
    int left = alike ? lb_tensor_in(p, node->in[0], LB_FORM_F32) : plain_vector(p, node, node->in[0]);
    int right = alike ? lb_tensor_in(p, node->in[1], LB_FORM_F32) : plain_vector(p, node, node->in[1]);
    if (left < 0 || right < 0 || lb_place_value(p, node->out) < 0) return -1;
    lb_op *op = lb_new_op(p, node->name, node->op, left, right, y->tensor);
    if (!op) return -1;
    op->run = lb_run_add;
    op->kernel = lb_loop_name("add", p->options.isa);
    op->types = "f32 + f32 -> f32";
    op->pixels = y->height * y->width;
    op->channels = y->channels;
    return 0;
}

/* A codes value that is read in both carriers is written as bytes; this packs the planes. */
static int plan_second_carrier(lb_program *p, const lb_node *node) {
    lb_value *v = &p->values[node->out];
    if (v->type.kind != LB_CODES || v->wants != (1 << LB_FORM_BYTES | 1 << LB_FORM_PLANES)) return 0;
    int planes = new_value_tensor(p, v, LB_FORM_PLANES);
    lb_op *op = planes < 0 ? NULL : lb_new_op(p, node->name, "pack", v->tensor, -1, planes);
    if (!op) return -1;
    v->tensors[1] = planes;
    op->run = lb_run_pack;
    op->kernel = lb_loop_name("pack", p->options.isa);
    op->types = lb_type_text(p, &v->type);
    op->carrier = "bytes -> planes";
    op->reason = "its readers use both carriers";
    op->pixels = v->height * v->width;
    op->channels = v->channels;
    op->levels = lb_levels_of(v->type.code);
    return 0;
}

static int plan_node(lb_program *p, int index) {
    lb_node *node = &p->nodes[index], *reader = only_reader(p, node->out);
    switch (node->kind) {
    case LB_NODE_INPUT: return plan_input(p, node);
    case LB_NODE_CHAIN:
    case LB_NODE_THRESHOLD: return node->fused ? 0 : plan_rows(p, node);
    case LB_NODE_PRODUCT:
        if (reader) reader->fused = 1;
        return lb_plan_product(p, node, reader) < 0 ? -1 : reader ? plan_second_carrier(p, reader) : 0;
    case LB_NODE_FLOAT: return lb_plan_float(p, node);
    case LB_NODE_MAX_POOL:
    case LB_NODE_AVG_POOL: return plan_pool(p, node);
    case LB_NODE_ADD: return plan_add(p, node);
    case LB_NODE_FLATTEN: return plan_flatten(p, node);
    case LB_NODE_PAD: return lb_plan_pad(p, node);
    case LB_NODE_CONCAT: return lb_plan_concat(p, node);
    case LB_NODE_RESIZE: return lb_plan_resize(p, node);
    }
    return 0;
}

static int plan_output(lb_program *p, int index) {
    const lb_value *root = &p->values[p->values[p->outputs[index]].root];
    const lb_tensor *tensor = &p->tensors[root->tensor];
    if (tensor->output == index) return 0;
    lb_op *op = lb_new_op(p, p->nodes[root->node].name, "store", root->tensor, -1, -1);
    if (!op) return -1;
    op->run = lb_run_store;
    op->to_output = index;
    op->types = lb_type_text(p, &root->type);
    op->kernel = lb_loop_name("transpose", p->options.isa);
    op->reason = "an output, channels first";
    op->pixels = root->height * root->width;
    op->channels = root->channels;
    op->levels = root->type.kind == LB_CODES ? lb_levels_of(root->type.code) : (lb_levels){0};
    return 0;
}

static void drop_node_constants(lb_program *p) {
    for (int i = 0; i < p->node_count; i++) {
        lb_node *node = &p->nodes[i];
        lb_drop(p, node->weights);
        lb_drop(p, node->weights_f32);
        lb_drop(p, node->thresholds);
        lb_drop(p, node->direction);
        for (int s = 0; node->kind == LB_NODE_CHAIN && s < node->step_count; s++) lb_drop(p, (void *)(uintptr_t)node->steps[s].operand);
        node->weights = NULL;
        node->weights_f32 = NULL;
    }
}

lb_status lb_finish(lb_program *p, const lb_options *options) {
    if (p->status != LB_OK) return p->status;
    if (p->finished || !p->output_count || !p->input_count) lb_refuse(p, "a program is finished once, with inputs and outputs");
    if (options->isa < LB_SCALAR || options->isa >= LB_ISA_COUNT || !lb_has_isa(options->isa))
        lb_refuse(p, "this CPU does not have the instruction set asked for");
    if (p->status != LB_OK) return p->status;
    p->options = *options;
    p->elementwise = lb_elementwise_for(options->isa);
    if (lb_choose_carriers(p) < 0) return p->status;
    for (int i = 0; i < p->node_count && p->status == LB_OK; i++) {
        const lb_node *node = &p->nodes[i];
        if (plan_node(p, i) == 0 && node->kind != LB_NODE_PRODUCT && !node->fused) plan_second_carrier(p, node);
    }
    for (int i = 0; i < p->output_count && p->status == LB_OK; i++) plan_output(p, i);
    if (p->status != LB_OK) return p->status;
    for (int i = 0; i < p->op_count; i++) p->scratch_bytes = lb_max64(p->scratch_bytes, p->ops[i].scratch_bytes);
    drop_node_constants(p);
    p->finished = 1;
    return LB_OK;
}

int lb_value_stored(const lb_program *p, int value) {
    if (!p->finished || value < 0 || value >= p->value_count) return 0;
    const lb_value *root = &p->values[p->values[value].root];
    return root->tensor >= 0 && p->tensors[root->tensor].input < 0;
}

int lb_op_count(const lb_program *p) { return p->op_count; }

int lb_get_op_info(const lb_program *p, int index, lb_op_info *info) {
    if (index < 0 || index >= p->op_count) return -1;
    const lb_op *op = &p->ops[index];
    *info = (lb_op_info){op->name, op->what, op->types, op->kernel, op->carrier, op->reason, op->weight_bytes, op->macs, op->inexact};
    return 0;
}
