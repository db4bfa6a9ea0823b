/* lb_add_* of operators that move values and compute nothing. */
#include <math.h>

#include "internal.h"

/* A flattened image keeps its memory, channels last; a flattened input is read as it came, one row a sample. */
int lb_add_flatten(lb_program *p, const char *name, int x) {
    const lb_value *in = lb_input_of(p, name, x, 7, LB_IMAGE);
    if (!in) return -1;
    int of_input = p->nodes[in->node].kind == LB_NODE_INPUT;
    lb_type type = in->type;
    type.rank = 1;
    for (int i = 1; i < in->type.rank; i++) type.shape[0] = lb_mul(type.shape[0], in->type.shape[i]);
    type.shape[1] = type.shape[2] = 0;
    lb_node *node = lb_new_node(p, LB_NODE_FLATTEN, "flatten", name, &x, 1);
    int out = node ? lb_new_value(p, node, &type, of_input ? -1 : x) : -1;
    if (out >= 0 && !of_input) p->values[out].root = p->values[x].root;
    return out;
}

int lb_add_pad2d(lb_program *p, const char *name, int x, const int64_t padding[4], float value) {
    const lb_value *in = lb_input_of(p, name, x, 1 << LB_F32 | 1 << LB_CODES, LB_IMAGE);
    lb_window window = {{1, 1}, {1, 1}, {padding[0], padding[1], padding[2], padding[3]}, {1, 1}, 1};
    lb_type type;
    if (!in || lb_window_type(p, name, in, &window, in->channels, &type) < 0) return -1;
    if (!isfinite(value)) return lb_refuse(p, "%s: it pads with a finite value", name);
    if (type.kind == LB_CODES && !(fabsf(value) <= 255.0f && value == truncf(value) && lb_is_code(type.code, (int32_t)value)))
        return lb_refuse(p, "%s: it pads codes with a code", name);
    lb_node *node = lb_new_node(p, LB_NODE_PAD, "pad2d", name, &x, 1);
    if (!node) return -1;
    node->window = window;
    node->fill = value;
    return lb_new_value(p, node, &type, -1);
}

/* Whether two types differ in their channels at most. */
static int joins(const lb_type *a, const lb_type *b) {
    if (a->kind != b->kind || a->rank != b->rank) return 0;
    for (int i = 1; i < a->rank; i++)
        if (a->shape[i] != b->shape[i]) return 0;
    return a->kind != LB_CODES || (a->code.alphabet == b->code.alphabet && a->code.bits == b->code.bits && a->zero == b->zero);
}

int lb_add_concat(lb_program *p, const char *name, const int *x, int count) {
    if (p->status != LB_OK) return -1;
    if (count < 2 || count > LB_MAX_INPUTS) return lb_refuse(p, "%s: it joins 2 to %d values", name, LB_MAX_INPUTS);
    const lb_value *first = lb_input_of(p, name, x[0], 1 << LB_F32 | 1 << LB_CODES, LB_ANY_RANK);
    if (!first) return -1;
    lb_type type = first->type;
    type.shape[0] = 0;
    for (int k = 0; k < count; k++) {
        const lb_value *in = lb_input_of(p, name, x[k], 1 << type.kind, LB_ANY_RANK);
        if (!in) return -1;
        if (!joins(&type, &in->type)) return lb_refuse(p, "%s: it joins values of one type and size", name);
        type.shape[0] += in->type.shape[0]; /* at most 64 x 2^28 */
    }
    lb_node *node = lb_new_node(p, LB_NODE_CONCAT, "concat", name, x, count);
    return node ? lb_new_value(p, node, &type, -1) : -1;
}
