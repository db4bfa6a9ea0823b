/* Which carrier each codes value has. A product wants the carrier of its cheapest kernel; a chain reads bytes. What only moves codes has the
 * carrier of its own consumers, and so has a max pool of one-bit codes (the larger of two bits is their OR). */
#include "internal.h"

enum { MAX_PLANES = 4 }; /* bit planes are for products of at most 4 x 4 bits */

/* Codes of one word: what a kernel without a measured speed is taken to do in a cycle. */
static double codes_per_word(lb_product_op op) { return op == LB_DOT8 ? 4.0 : 32.0; }

static double cycles(const lb_product_kernel *kernel, double words) {
    double speed = kernel->macs_per_cycle > 0 ? kernel->macs_per_cycle : codes_per_word(kernel->op);
    return words * codes_per_word(kernel->op) / speed;
}

/* Bits or bytes is decided by the vector kernels, whatever runs the bytes: AMX multiplies them faster than it can read them from memory, where a
 * byte for each weight of one bit is eight times the traffic. */
static lb_isa vector_isa(lb_isa isa) { return isa > LB_AVX512 ? LB_AVX512 : isa; }

int lb_dot8_terms(lb_code weight) { return weight.bits == 8 && weight.alphabet != LB_SIGNED ? 2 : 1; }

int64_t lb_group_words(const lb_node *node, const lb_value *x, lb_form form) {
    return lb_ceil_div(x->channels / node->window.groups, form == LB_FORM_PLANES ? 32 : 4);
}

const lb_product_kernel *lb_product_choice(lb_program *p, const lb_node *node, lb_form *form, const char **reason) {
    const lb_value *x = &p->values[node->in[0]];
    lb_code a = x->type.code, w = node->weight_code;
    const lb_product_kernel *dot = lb_pick(LB_DOT8, p->options.isa),
                            *planes = lb_pick(w.alphabet == LB_ODD ? LB_XOR : LB_AND, p->options.isa);
    double taps = (double)(node->window.kernel[0] * node->window.kernel[1]);
    double byte_cycles =
        cycles(lb_pick(LB_DOT8, vector_isa(p->options.isa)), taps * (double)lb_group_words(node, x, LB_FORM_BYTES) * lb_dot8_terms(w));
    double plane_cycles = cycles(planes, taps * (double)lb_group_words(node, x, LB_FORM_PLANES) * a.bits * w.bits);
    int allowed = a.bits <= MAX_PLANES && w.bits <= MAX_PLANES && a.alphabet != LB_LOG2 && w.alphabet != LB_LOG2;
    int forced = p->options.prefer != LB_PREFER_COST;
    int use = allowed && (forced ? p->options.prefer == LB_PREFER_PLANES : plane_cycles <= byte_cycles);
    *form = use ? LB_FORM_PLANES : LB_FORM_BYTES;
    const char *groups = node->window.groups > 1 ? lb_text(p, "; %lld groups, one product each", (long long)node->window.groups) : "";
    if (!allowed)
        *reason =
            lb_text(p, "%s%s", a.alphabet == LB_LOG2 || w.alphabet == LB_LOG2 ? "log2 codes run as bytes" : "more than 4 bits run as bytes",
                    groups);
    else
        *reason = lb_text(p, "%s%.4g cycles an output as %d x %d planes, %.4g as bytes by vectors%s", forced ? "forced; " : "",
                          plane_cycles, a.bits, w.bits, byte_cycles, groups);
    return use ? planes : dot;
}

/* The form in which a value is first written: bytes when anything reads bytes. */
lb_form lb_home_form(const lb_value *v) {
    if (v->type.kind != LB_CODES) return v->type.kind == LB_F32 ? LB_FORM_F32 : LB_FORM_I32;
    return v->wants == 1 << LB_FORM_PLANES ? LB_FORM_PLANES : LB_FORM_BYTES;
}

/* Whether a concatenation joins rows of channels: a flattened image is one row, in another order than its pixels have. */
static int joins_pixels(const lb_program *p, const lb_node *node) {
    const lb_value *y = &p->values[node->out];
    for (int k = 0; k < node->in_count; k++) {
        const lb_value *x = &p->values[node->in[k]];
        if (x->height * x->width != y->height * y->width) return 0;
    }
    return 1;
}

/* The form in which a node reads codes. Its own readers have chosen theirs. */
static lb_form read_form(lb_program *p, lb_node *node) {
    lb_form form = LB_FORM_BYTES;
    lb_value *out = &p->values[node->out];
    if (node->kind == LB_NODE_CONCAT && !joins_pixels(p, node)) out->wants |= 1 << LB_FORM_BYTES; /* its bits would have to change places */
    int planes = lb_home_form(out) == LB_FORM_PLANES;
    if (node->kind == LB_NODE_PRODUCT) node->kernel = lb_product_choice(p, node, &form, &node->reason);
    if (node->kind == LB_NODE_MAX_POOL && planes && p->values[node->in[0]].type.code.bits == 1) form = LB_FORM_PLANES;
    if ((node->kind == LB_NODE_PAD || node->kind == LB_NODE_CONCAT || node->kind == LB_NODE_RESIZE) && planes) form = LB_FORM_PLANES;
    return form;
}

int lb_choose_carriers(lb_program *p) {
    for (int i = p->node_count - 1; i >= 0; i--) {
        lb_node *node = &p->nodes[i];
        if (node->kind == LB_NODE_INPUT || node->kind == LB_NODE_FLATTEN) continue;
        if (p->values[node->in[0]].type.kind == LB_CODES) node->form = read_form(p, node);
        for (int k = 0; k < node->in_count; k++) {
            lb_value *root = &p->values[p->values[node->in[k]].root];
            root->uses++;
            root->last_user = root->last_user < 0 ? i : root->last_user;
            if (root->type.kind == LB_CODES) root->wants |= 1 << node->form;
        }
    }
    for (int i = 0; i < p->output_count; i++) {
        lb_value *root = &p->values[p->values[p->outputs[i]].root];
        root->uses++;
        root->output_uses++;
        root->last_user = -1;
    }
    return p->status == LB_OK ? 0 : -1;
}
