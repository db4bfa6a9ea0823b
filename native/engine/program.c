/* A program under construction: lb_add_* check what they are given and append a node and its value. */
#include <stdlib.h>
#include <string.h>

#include "internal.h"

enum { MAX_EXTENT = 1 << 16 };

lb_program *lb_program_new(void) { return calloc(1, sizeof(lb_program)); }

void lb_set_memory_limit(lb_program *p, int64_t bytes) { p->memory_limit = bytes; }

void lb_program_free(lb_program *p) {
    if (!p) return;
    lb_free_contexts(p);
    for (int i = 0; i < p->kept_count; i++) free(p->kept[i]);
    free(p->kept);
    free(p->nodes);
    free(p->values);
    free(p->inputs);
    free(p->tensors);
    free(p->ops);
    free(p);
}

const char *lb_program_error(const lb_program *p) { return p->error; }
lb_status lb_program_status(const lb_program *p) { return p->status; }

int lb_value_type(const lb_program *p, int value, lb_type *type) {
    if (value < 0 || value >= p->value_count) return -1;
    *type = p->values[value].type;
    return 0;
}

const lb_value *lb_input_of(lb_program *p, const char *name, int x, int kinds, int rank) {
    if (p->status != LB_OK) return NULL;
    if (p->finished)
        lb_refuse(p, "%s: the program is finished", name);
    else if (x < 0 || x >= p->value_count)
        lb_refuse(p, "%s: no value has the number %d", name, x);
    else if (!(kinds >> p->values[x].type.kind & 1))
        lb_refuse(p, "%s: its input is of the wrong kind", name);
    else if (rank == LB_VECTOR ? p->values[x].type.rank != 1 : rank == LB_IMAGE && p->values[x].type.rank < 2)
        lb_refuse(p, "%s: its input must have %s", name, rank == LB_VECTOR ? "one axis" : "two or three axes");
    else
        return &p->values[x];
    return NULL;
}

lb_node *lb_new_node(lb_program *p, lb_node_kind kind, const char *op, const char *name, const int *in, int in_count) {
    char *own = lb_copy(p, name, (int64_t)strlen(name) + 1, 1);
    const int *values = lb_copy(p, in, in_count, sizeof *in);
    int at = own && values ? lb_grow(p, &p->nodes, &p->node_count, &p->node_room, sizeof *p->nodes, LB_MAX_VALUES) : -1;
    if (at < 0) return NULL;
    lb_node *node = &p->nodes[at];
    node->kind = kind;
    node->op = op;
    node->name = own;
    node->in = values;
    node->in_count = in_count;
    node->out = -1;
    return node;
}

int lb_new_value(lb_program *p, lb_node *node, const lb_type *type, int like) {
    int64_t size = 1;
    if (type->rank < 1 || type->rank > 3) return lb_refuse(p, "%s: values have one to three axes", node->name);
    for (int i = 0; i < type->rank; i++) size = lb_mul(size, type->shape[i]);
    for (int i = 1; i < type->rank; i++)
        if (type->shape[i] > MAX_EXTENT) return lb_refuse(p, "%s: height and width are at most %d", node->name, MAX_EXTENT);
    if (size < 1 || size > (int64_t)1 << 28) return lb_refuse(p, "%s: a value holds 1 to 2^28 numbers", node->name);
    int at = lb_grow(p, &p->values, &p->value_count, &p->value_room, sizeof *p->values, LB_MAX_VALUES);
    if (at < 0) return -1;
    lb_value *value = &p->values[at];
    value->type = *type;
    value->node = (int)(node - p->nodes);
    value->root = at;
    value->height = like >= 0 ? p->values[like].height : type->rank == 3 ? type->shape[1] : 1;
    value->width = like >= 0 ? p->values[like].width : type->rank > 1 ? type->shape[type->rank - 1] : 1;
    value->channels = like >= 0 ? p->values[like].channels : type->shape[0];
    value->tensor = value->last_user = -1;
    for (int i = 0; i < LB_CARRIERS; i++) value->tensors[i] = -1;
    return node->out = at;
}

int lb_add_input(lb_program *p, const char *name, int rank, const int64_t *shape) {
    if (p->status != LB_OK) return -1;
    if (p->finished) return lb_refuse(p, "%s: the program is finished", name);
    lb_type type = {.kind = LB_F32, .rank = rank};
    for (int i = 0; i < rank && i < 3; i++) type.shape[i] = shape[i];
    lb_node *node = lb_new_node(p, LB_NODE_INPUT, "input", name, NULL, 0);
    int out = node ? lb_new_value(p, node, &type, -1) : -1;
    int at = out < 0 ? -1 : lb_grow(p, &p->inputs, &p->input_count, &p->input_room, sizeof *p->inputs, LB_MAX_VALUES);
    if (at < 0) return -1;
    p->inputs[at] = out;
    return out;
}

static int check_code(lb_program *p, const char *name, lb_code code, int32_t zero) {
    if (!lb_code_valid(code)) return lb_refuse(p, "%s: no such code type", name);
    lb_levels levels = lb_levels_of(code);
    int movable = code.alphabet == LB_UNSIGNED || code.alphabet == LB_SIGNED;
    if (movable ? zero < levels.lo || zero > levels.hi : zero != 0) return lb_refuse(p, "%s: zero %d is not a code", name, zero);
    return 0;
}

int lb_add_chain(lb_program *p, const char *name, int x, const lb_step *steps, int count, const lb_code *code, int32_t zero) {
    const lb_value *in = lb_input_of(p, name, x, 7, 0);
    if (!in) return -1;
    lb_type type = in->type;
    int first = type.kind != LB_F32; /* integers begin with to_float */
    if (count < first || (first && steps[0].op != LB_TO_FLOAT)) return lb_refuse(p, "%s: a chain of integers begins with to_float", name);
    type.kind = code ? LB_CODES : LB_F32;
    if (code) {
        if (check_code(p, name, *code, zero) < 0) return -1;
        if (code->alphabet == LB_ODD && code->bits > 1) return lb_refuse(p, "%s: no rounding to this code type", name);
        type.code = *code;
    }
    type.zero = code ? zero : 0;
    int64_t channels = type.shape[0];
    lb_step *own = lb_copy(p, steps, count, sizeof *steps);
    for (int i = 0; own && i < count; i++) {
        int unary = own[i].op == LB_TO_FLOAT || own[i].op == LB_STEP_ROUND;
        if (own[i].op > LB_STEP_MIN || (own[i].op == LB_TO_FLOAT && i >= first))
            return lb_refuse(p, "%s: step %d is unknown here", name, i);
        if (unary) {
            own[i].operand = NULL;
            continue;
        }
        if (!own[i].operand || (own[i].count != 1 && own[i].count != channels))
            return lb_refuse(p, "%s: the operand of step %d has the wrong size", name, i);
        own[i].operand = lb_copy(p, own[i].operand, own[i].count, sizeof(float));
    }
    lb_node *node = p->status == LB_OK ? lb_new_node(p, LB_NODE_CHAIN, "chain", name, &x, 1) : NULL;
    if (!node) return -1;
    node->steps = own;
    node->step_count = count;
    return lb_new_value(p, node, &type, x);
}

int lb_add_threshold(lb_program *p, const char *name, int x, lb_code code, int32_t zero, const int32_t *thresholds,
                     const int32_t *direction) {
    const lb_value *in = lb_input_of(p, name, x, 1 << LB_I32, 0);
    if (!in || check_code(p, name, code, zero) < 0) return -1;
    if (code.bits > 2 || code.alphabet == LB_LOG2) return lb_refuse(p, "%s: thresholds make codes of one or two bits", name);
    lb_type type = in->type;
    type.kind = LB_CODES;
    type.code = code;
    type.zero = zero;
    int64_t channels = type.shape[0];
    for (int64_t c = 0; c < channels; c++)
        if (direction[c] != 1 && direction[c] != -1) return lb_refuse(p, "%s: a direction is +1 or -1", name);
    lb_node *node = lb_new_node(p, LB_NODE_THRESHOLD, "threshold", name, &x, 1);
    if (!node) return -1;
    node->step_count = code.alphabet == LB_TERNARY ? 2 : (1 << code.bits) - 1;
    node->thresholds = lb_copy(p, thresholds, lb_mul(channels, node->step_count), sizeof *thresholds);
    node->direction = lb_copy(p, direction, channels, sizeof *direction);
    if (p->status != LB_OK) return -1;
    return lb_new_value(p, node, &type, x);
}

/* Output size of a window on an image; -1 refuses. */
static int window_size(lb_program *p, const char *name, const lb_value *x, const lb_window *w, int64_t out[2]) {
    int64_t size[2] = {x->height, x->width}, padded = x->channels;
    for (int a = 0; a < 2; a++) {
        const int64_t given[] = {w->kernel[a], w->stride[a], w->dilation[a], w->padding[a] + 1, w->padding[a + 2] + 1};
        for (int i = 0; i < 5; i++)
            if (given[i] < 1 || given[i] > MAX_EXTENT)
                return lb_refuse(p, "%s: a window's settings are 1 to %d, padding may be 0", name, MAX_EXTENT);
        int64_t room = size[a] + w->padding[a] + w->padding[a + 2];
        int64_t reach = w->dilation[a] * (w->kernel[a] - 1) + 1;
        if (room < reach) return lb_refuse(p, "%s: the kernel does not fit the padded image", name);
        out[a] = (room - reach) / w->stride[a] + 1;
        padded = lb_mul(padded, room);
    }
    if (padded < 0 || padded > (int64_t)1 << 28) return lb_refuse(p, "%s: its padded image is beyond 2^28 values", name);
    if (x->type.rank == 2 && out[0] != 1) return lb_refuse(p, "%s: of one row it must make one row", name);
    return 0;
}

int lb_window_type(lb_program *p, const char *name, const lb_value *x, const lb_window *w, int64_t channels, lb_type *type) {
    int64_t size[2];
    if (window_size(p, name, x, w, size) < 0) return -1;
    int row = x->type.rank == 2;
    *type = x->type;
    type->shape[0] = channels;
    type->shape[1] = size[row];
    type->shape[2] = row ? 0 : size[1];
    return 0;
}

/* The node of a layer with weights; its output has `outputs` channels. */
static lb_node *new_layer(lb_program *p, lb_node_kind kind, const char *op, const char *name, int x, int64_t outputs,
                          const lb_window *window, lb_type *type) {
    const lb_value *in = lb_input_of(p, name, x, kind == LB_NODE_PRODUCT ? 1 << LB_CODES : 1 << LB_F32, window ? LB_IMAGE : LB_VECTOR);
    if (!in) return NULL;
    lb_window whole = {{in->height, in->width}, {1, 1}, {0, 0, 0, 0}, {1, 1}, 1};
    const lb_window *w = window ? window : &whole;
    if (outputs < 1 || w->groups < 1 || in->channels % w->groups || outputs % w->groups) {
        lb_refuse(p, "%s: groups must divide input and output channels", name);
        return NULL;
    }
    if (lb_window_type(p, name, in, w, outputs, type) < 0) return NULL;
    if (!window) type->shape[1] = 0;
    type->kind = kind == LB_NODE_PRODUCT ? LB_I32 : LB_F32;
    type->code = (lb_code){0};
    type->zero = 0;
    lb_node *node = lb_new_node(p, kind, op, name, &x, 1);
    if (!node) return NULL;
    node->window = *w;
    node->outputs = outputs;
    return node;
}

/* Weights of one output channel. */
static int64_t fan_in(const lb_program *p, const lb_node *node) {
    return lb_mul(p->values[node->in[0]].channels / node->window.groups, lb_mul(node->window.kernel[0], node->window.kernel[1]));
}

static int add_product(lb_program *p, const char *op, const char *name, int x, lb_code code, int64_t outputs, const lb_window *window,
                       const int16_t *weights) {
    lb_type type;
    lb_node *node = new_layer(p, LB_NODE_PRODUCT, op, name, x, outputs, window, &type);
    if (!node) return -1;
    if (!lb_code_valid(code)) return lb_refuse(p, "%s: no such code type", name);
    const lb_type *in = &p->values[x].type;
    lb_levels xs = lb_levels_of(in->code), ws = lb_levels_of(code);
    int64_t depth = fan_in(p, node), widest = lb_max64(llabs((int64_t)xs.lo - in->zero), llabs((int64_t)xs.hi - in->zero));
    int64_t bound = lb_mul(depth, widest * lb_code_max_abs(code));
    if (bound < 0 || bound > INT32_MAX) return lb_refuse(p, "%s: its sums can reach %lld, beyond 32 bits", name, (long long)bound);
    int64_t count = lb_mul(outputs, depth);
    for (int64_t i = 0; i < count; i++)
        if (weights[i] < ws.lo || weights[i] > ws.hi || (ws.spacing == 2 && !(weights[i] & 1)))
            return lb_refuse(p, "%s: weight %d is not a code", name, weights[i]);
    node->weight_code = code;
    node->weights = lb_copy(p, weights, count, sizeof *weights);
    return node->weights ? lb_new_value(p, node, &type, -1) : -1;
}

int lb_add_linear(lb_program *p, const char *name, int x, lb_code code, int64_t outputs, const int16_t *weights) {
    return add_product(p, "linear", name, x, code, outputs, NULL, weights);
}

int lb_add_conv2d(lb_program *p, const char *name, int x, lb_code code, int64_t outputs, const lb_window *window, const int16_t *weights) {
    return add_product(p, "conv2d", name, x, code, outputs, window, weights);
}

static int add_float(lb_program *p, const char *op, const char *name, int x, int64_t outputs, const lb_window *window, const float *weights,
                     const float *bias) {
    lb_type type;
    lb_node *node = new_layer(p, LB_NODE_FLOAT, op, name, x, outputs, window, &type);
    if (!node) return -1;
    node->weights_f32 = lb_copy(p, weights, lb_mul(outputs, fan_in(p, node)), sizeof *weights);
    node->bias = bias ? lb_copy(p, bias, outputs, sizeof *bias) : NULL;
    return p->status == LB_OK ? lb_new_value(p, node, &type, -1) : -1;
}

int lb_add_linear_f32(lb_program *p, const char *name, int x, int64_t outputs, const float *weights, const float *bias) {
    return add_float(p, "linear_f32", name, x, outputs, NULL, weights, bias);
}

int lb_add_conv2d_f32(lb_program *p, const char *name, int x, int64_t outputs, const lb_window *window, const float *weights,
                      const float *bias) {
    return add_float(p, "conv2d_f32", name, x, outputs, window, weights, bias);
}

/* Whether the window that starts at `start` has a tap inside: the first tap at or after the edge must be one, and lie before the end. */
static int meets(int64_t start, int64_t size, int64_t step, int64_t kernel) {
    int64_t first = start < 0 ? lb_ceil_div(-start, step) : 0;
    return first < kernel && start + first * step < size;
}

/* Whether every window of both axes does. Ahead of the image the first window is the worst, unless the taps are so far apart that one can step
 * over the image: then each is looked at, and more than MAX_STEPPING refused. Behind it the last window is the worst. */
static int always_meets(const lb_value *x, const lb_window *w, const int64_t *out) {
    enum { MAX_STEPPING = 64 };
    int64_t size[2] = {x->height, x->width};
    for (int a = 0; a < 2; a++) {
        int64_t step = w->dilation[a], before = lb_min64(out[a], lb_ceil_div(w->padding[a], w->stride[a]));
        if (step > size[a] && before > MAX_STEPPING) return 0;
        for (int64_t o = 0; o < (step > size[a] ? before : lb_min64(before, 1)); o++)
            if (!meets(o * w->stride[a] - w->padding[a], size[a], step, w->kernel[a])) return 0;
        if (!meets((out[a] - 1) * w->stride[a] - w->padding[a], size[a], step, w->kernel[a])) return 0;
    }
    return 1;
}

static int add_pool(lb_program *p, lb_node_kind kind, const char *op, const char *name, int x, const lb_window *window, int64_t divisor) {
    const lb_value *in = lb_input_of(p, name, x, kind == LB_NODE_AVG_POOL ? 1 << LB_F32 : 7, LB_IMAGE);
    lb_type type;
    if (!in || lb_window_type(p, name, in, window, in->channels, &type) < 0) return -1;
    if (divisor < 1 || divisor > 1 << 24) return lb_refuse(p, "%s: a divisor is 1 to 2^24", name);
    if (kind == LB_NODE_MAX_POOL && !always_meets(in, window, type.rank == 2 ? (int64_t[]){1, type.shape[1]} : type.shape + 1))
        return lb_refuse(p, "%s: some windows lie wholly in the padding", name);
    lb_node *node = lb_new_node(p, kind, op, name, &x, 1);
    if (!node) return -1;
    node->window = *window;
    node->divisor = divisor;
    return lb_new_value(p, node, &type, -1);
}

int lb_add_max_pool2d(lb_program *p, const char *name, int x, const lb_window *window) {
    return add_pool(p, LB_NODE_MAX_POOL, "max_pool2d", name, x, window, 1);
}

int lb_add_avg_pool2d(lb_program *p, const char *name, int x, const lb_window *window, int64_t divisor) {
    return add_pool(p, LB_NODE_AVG_POOL, "avg_pool2d", name, x, window, divisor);
}

int lb_add_add(lb_program *p, const char *name, int a, int b) {
    const lb_value *left = lb_input_of(p, name, a, 1 << LB_F32, 0), *right = lb_input_of(p, name, b, 1 << LB_F32, 0);
    if (!left || !right) return -1;
    if (left->type.rank != right->type.rank || memcmp(left->type.shape, right->type.shape, (size_t)left->type.rank * sizeof(int64_t)))
        return lb_refuse(p, "%s: it adds values of one shape", name);
    int same = left->height == right->height && left->width == right->width;
    lb_type type = left->type;
    lb_node *node = lb_new_node(p, LB_NODE_ADD, "add", name, (int[]){a, b}, 2);
    if (!node) return -1;
    return lb_new_value(p, node, &type, same ? a : -1);
}

lb_status lb_set_outputs(lb_program *p, const int *values, int count) {
    if (p->status != LB_OK) return p->status;
    if (p->finished) lb_refuse(p, "the program is finished");
    for (int i = 0; i < count; i++)
        if (values[i] < 0 || values[i] >= p->value_count) lb_refuse(p, "no value has the number %d", values[i]);
    p->outputs = lb_copy(p, values, count, sizeof *values);
    p->output_count = count;
    return p->status;
}
