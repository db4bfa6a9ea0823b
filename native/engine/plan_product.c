/* From integer codes to kernel calls: which words the weights become, with which factors, and the constants that make each sum exact.
 *
 * Bytes: a code of x is sx * b + lo (b is the byte, sx is 1, or 2 for odd), a weight is aw * v + dw (v a signed byte). So
 *     sum (x - zero) w = sx aw sum b v + sx dw sum b + (lo - zero) sum w;
 * dw is 0 but for unsigned8 (v = w - 128) and odd8 (w = 2v + 1), which run a second product whose weights are all one.
 * Planes: x = sum_i c_i p_i and w = sum_j d_j q_j over planes of {0, 1} or, for odd, {-1, 1}; the terms p_i q_j are those of the table in
 * docs/architecture.md: P with AND, 2P - pop(w) with AND, pop(w) - P and K - 2P with XOR.
 * Sums are formed modulo 2^32; their true value fits 32 bits, which was checked when the layer was added.
 * Padding taps read one fixed code. Where that is not real 0, the bias of each border class takes its share back. */
#include <string.h>

#include "internal.h"

/* What a weight's plane or byte is made of. */
typedef struct {
    const lb_node *node;
    lb_form form;
    lb_levels levels;
    int64_t group_channels, group_words, taps, depth, cols;
} matrix;

static int64_t plane_weight(lb_code code, int plane) {
    int sign = (code.alphabet == LB_SIGNED || code.alphabet == LB_TERNARY) && plane == code.bits - 1;
    return sign ? -((int64_t)1 << plane) : (int64_t)1 << plane;
}

static int weight_at(const matrix *m, int64_t column, int64_t channel, int64_t tap) {
    return m->node->weights[(column * m->group_channels + channel) * m->taps + tap];
}

static unsigned plane_field(const matrix *m, int w) { return (unsigned)(m->levels.spacing == 2 ? (w + m->levels.hi) / 2 : w); }

/* The signed byte of a weight; the second term's is one. */
static int8_t byte_of(const matrix *m, int w, int term) {
    if (term) return 1;
    if (lb_dot8_terms(m->node->weight_code) == 1) return (int8_t)w;
    return (int8_t)(m->levels.spacing == 2 ? (w - 1) / 2 : w - 128); /* an odd w makes w - 1 even: no rounding */
}

/* Packs plane or term `part` of all groups. */
static uint8_t *pack_part(lb_program *p, const lb_product *product, const matrix *m, int part) {
    uint32_t *words = lb_keep(p, m->cols, lb_mul(m->depth, sizeof *words));
    uint8_t *packed = words ? lb_keep(p, product->groups, (int64_t)product->group_bytes) : NULL;
    if (!packed) return NULL;
    for (int64_t g = 0; g < product->groups; g++) {
        memset(words, 0, (size_t)(m->cols * m->depth) * sizeof *words);
        for (int64_t o = 0; o < m->cols; o++) {
            for (int64_t c = 0; c < m->group_channels; c++) {
                for (int64_t tap = 0; tap < m->taps; tap++) {
                    int w = weight_at(m, g * m->cols + o, c, tap);
                    uint32_t *patch = words + o * m->depth + tap * m->group_words;
                    if (m->form == LB_FORM_PLANES)
                        patch[c / 32] |= (uint32_t)(plane_field(m, w) >> part & 1) << (c % 32);
                    else
                        patch[c / 4] |= (uint32_t)(uint8_t)byte_of(m, w, part) << (8 * (c % 4));
                }
            }
        }
        product->kernel->pack(packed + g * (int64_t)product->group_bytes, words, m->cols, m->depth);
    }
    lb_drop(p, words);
    return packed;
}

static int plan_bytes(lb_program *p, lb_product *product, const matrix *m, const lb_type *x) {
    lb_levels xs = lb_levels_of(x->code);
    int odd = m->levels.spacing == 2, terms = lb_dot8_terms(m->node->weight_code);
    for (int term = 0; term < terms; term++) {
        int32_t factor = terms == 1 ? 1 : term ? (odd ? 1 : 128) : (odd ? 2 : 1);
        uint8_t *packed = pack_part(p, product, m, term);
        if (!packed) return -1;
        product->passes[product->pass_count++] = (lb_pass){0, xs.spacing * factor, packed};
    }
    return 0;
}

static int plan_planes(lb_program *p, lb_product *product, const matrix *m, const lb_type *x, int64_t plane_words) {
    lb_code w = m->node->weight_code;
    int32_t term = (w.alphabet == LB_ODD ? -1 : 1) * (x->code.alphabet == LB_ODD ? 2 : 1);
    for (int j = 0; j < w.bits; j++) {
        uint8_t *packed = pack_part(p, product, m, j);
        if (!packed) return -1;
        for (int i = 0; i < x->code.bits; i++) {
            int32_t coef = (int32_t)(term * plane_weight(x->code, i) * plane_weight(w, j));
            product->passes[product->pass_count++] = (lb_pass){i * plane_words, coef, packed};
        }
    }
    return 0;
}

/* What the passes leave out of the sum of a column when no tap is padding. */
static int64_t base_constant(const matrix *m, const lb_type *x, int64_t column, int64_t weight_sum) {
    lb_code w = m->node->weight_code;
    if (m->form == LB_FORM_BYTES) return (lb_levels_of(x->code).lo - x->zero) * weight_sum;
    int x_odd = x->code.alphabet == LB_ODD, w_odd = w.alphabet == LB_ODD;
    int64_t constant = 0, inputs = m->group_channels * m->taps;
    for (int j = 0; j < w.bits && (x_odd || w_odd); j++) {
        int64_t ones = 0;
        for (int64_t c = 0; c < m->group_channels; c++)
            for (int64_t tap = 0; tap < m->taps; tap++) ones += plane_field(m, weight_at(m, column, c, tap)) >> j & 1;
        int64_t term = x_odd && w_odd ? inputs : w_odd ? ones : -ones;
        for (int i = 0; i < x->code.bits; i++) constant += term * plane_weight(x->code, i) * plane_weight(w, j);
    }
    return constant - (int64_t)x->zero * weight_sum;
}

/* Sums of a column's weights over all channels and the taps above and left of (i, j): (kh + 1) x (kw + 1) numbers. */
static void sum_taps(const matrix *m, int64_t column, int64_t *sums) {
    int64_t height = m->node->window.kernel[0], width = m->node->window.kernel[1], row = width + 1;
    for (int64_t i = 0; i < height; i++) {
        for (int64_t j = 0; j < width; j++) {
            int64_t here = 0;
            for (int64_t c = 0; c < m->group_channels; c++) here += weight_at(m, column, c, i * width + j);
            sums[(i + 1) * row + j + 1] = here + sums[i * row + j + 1] + sums[(i + 1) * row + j] - sums[i * row + j];
        }
    }
}

/* Their part that a border class has inside the image. */
static int64_t inside_sum(const lb_patches *patches, const int64_t *sums, int64_t row, int32_t cls) {
    const lb_span *y = &patches->spans_y[cls / patches->classes_x], *x = &patches->spans_x[cls % patches->classes_x];
    return sums[y->last * row + x->last] - sums[y->first * row + x->last] - sums[y->last * row + x->first] +
           sums[y->first * row + x->first];
}

static int plan_bias(lb_program *p, lb_product *product, const matrix *m, const lb_type *x) {
    const lb_patches *patches = &product->patches;
    int64_t padding_code = lb_levels_of(x->code).lo; /* of an empty word, where zero is no code */
    int64_t row = m->node->window.kernel[1] + 1, count = lb_mul(m->node->window.kernel[0] + 1, row);
    int64_t *sums = lb_keep(p, count, sizeof *sums);
    product->bias = lb_keep(p, lb_mul(product->groups, patches->classes), lb_mul(product->ldb, sizeof *product->bias));
    if (p->status != LB_OK) return -1;
    for (int64_t column = 0; column < product->outputs; column++) {
        sum_taps(m, column, sums);
        int64_t all = sums[count - 1], base = base_constant(m, x, column, all);
        int32_t *bias = product->bias + column / m->cols * patches->classes * product->ldb + column % m->cols;
        for (int32_t cls = 0; cls < patches->classes; cls++) {
            int64_t outside = patches->spans_y ? all - inside_sum(patches, sums, row, cls) : 0;
            bias[cls * product->ldb] = (int32_t)(uint32_t)(base - (padding_code - x->zero) * outside);
        }
    }
    lb_drop(p, sums);
    return 0;
}

static void plan_tile(lb_product *product) {
    int64_t nr = product->kernel->nr, cols = nr;
    while (cols % LB_TILE_COLS) cols += nr;
    int one = product->groups == 1;
    product->tile_cols = one ? cols : product->outputs;
    product->tile_ld = lb_round_up(product->tile_cols, 16);
    product->group_ld = one ? 0 : lb_round_up(lb_round_up(product->cols, nr), 16);
    product->tile_rows = lb_max64(1, lb_min64(LB_TILE_ROWS, LB_TILE_ROWS * 256 / (product->tile_ld + product->group_ld)));
}

int lb_plan_product(lb_program *p, const lb_node *node, const lb_node *epilogue) {
    const lb_type x = p->values[node->in[0]].type;
    lb_image image;
    if (lb_plan_image(p, node, node->form, !lb_zero_is_code(&x), &image) < 0) return -1;
    lb_product product = {.kernel = node->kernel, .patches = image.patches, .groups = node->window.groups, .outputs = node->outputs};
    matrix m = {
        node, node->form, lb_levels_of(node->weight_code), p->values[node->in[0]].channels / product.groups, 0, 0, image.patches.depth, 0};
    m.taps = node->window.kernel[0] * node->window.kernel[1];
    m.group_words = product.group_words = image.patches.depth / m.taps;
    m.cols = product.cols = product.outputs / product.groups;
    product.ldb = lb_round_up(product.cols, product.kernel->nr);
    product.group_bytes = product.kernel->pack_size(product.cols, m.depth);
    product.passes = lb_keep(p, LB_MAX_PASSES, sizeof *product.passes);
    if (!product.passes) return -1;
    if ((m.form == LB_FORM_PLANES ? plan_planes(p, &product, &m, &x, image.plane_words) : plan_bytes(p, &product, &m, &x)) < 0) return -1;
    if (plan_bias(p, &product, &m, &x) < 0) return -1;
    plan_tile(&product);

    const lb_node *last = epilogue ? epilogue : node;
    if (lb_place_value(p, last->out) < 0) return -1;
    const lb_value *y = &p->values[last->out];
    const char *name = epilogue ? lb_text(p, "%s + %s", node->name, epilogue->name) : node->name;
    const char *what = epilogue ? lb_text(p, "%s + %s", node->op, epilogue->op) : node->op;
    lb_op *op = lb_new_op(p, name, what, image.tensor, -1, y->tensor);
    if (!op || lb_plan_stage(p, epilogue ? epilogue : node, &product.epilogue) < 0) return -1;
    op->run = lb_run_product;
    op->types = lb_text(p, "%s x %s -> %s", lb_code_text(p, node->weight_code, 0), lb_type_text(p, &x), lb_type_text(p, &y->type));
    op->kernel = product.kernel->name;
    op->carrier = node->form == LB_FORM_PLANES ? "planes" : "bytes";
    op->reason = node->reason;
    int parts = node->form == LB_FORM_PLANES ? node->weight_code.bits : lb_dot8_terms(node->weight_code);
    op->weight_bytes = parts * product.groups * (int64_t)product.group_bytes;
    op->macs = product.outputs * y->height * y->width * m.group_channels * m.taps;
    op->scratch_bytes =
        lb_round_up(product.tile_rows * (product.tile_ld + product.group_ld) * 4, LB_ALIGN) + lb_round_up(product.tile_rows * 12, LB_ALIGN);
    op->as.product = product;
    return p->status == LB_OK ? 0 : -1;
}
