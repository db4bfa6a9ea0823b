/* Products: tiles of sums, each handed to the epilogue while it is in the cache. */
#include <string.h>

#include "internal.h"

enum { PANEL_ROWS = 4 * LB_TILE_ROWS }; /* rows that pass over a block of weights before the next block is taken up */

typedef struct {
    int32_t *tile, *group_tile;
    int64_t *row;
    int32_t *row_class;
} scratch;

static void product_tile(const lb_product *product, const uint32_t *x, const scratch *s, int64_t group, int64_t c0, int64_t cols,
                         int64_t rows) {
    const lb_product_kernel *kernel = product->kernel;
    const lb_patches *patches = &product->patches;
    int one = product->groups == 1;
    lb_product_args args = {.row = s->row, .koff = patches->koff, .rows = rows, .depth = patches->depth, .cols = cols};
    args.out = one ? s->tile : s->group_tile;
    args.ldo = one ? product->tile_ld : product->group_ld;
    args.bias = product->bias + group * patches->classes * product->ldb + c0;
    args.ldb = product->ldb;
    args.row_class = patches->class_y ? s->row_class : NULL;
    size_t block = c0 ? (size_t)(c0 / kernel->nr) * kernel->pack_size(kernel->nr, patches->depth) : 0;
    for (int i = 0; i < product->pass_count; i++) {
        const lb_pass *pass = &product->passes[i];
        args.x = x + pass->x_offset + group * product->group_words;
        args.w = pass->weights + (size_t)group * product->group_bytes + block;
        args.coef = pass->coef;
        args.accumulate = i > 0;
        kernel->run(&args);
    }
    for (int64_t r = 0; !one && r < rows; r++)
        memcpy(s->tile + r * product->tile_ld + group * product->cols, s->group_tile + r * product->group_ld,
               (size_t)product->cols * sizeof *s->tile);
}

static void run_range(const lb_op *op, const lb_env *env, int64_t row0, int64_t row1, int64_t c0, int64_t c1) {
    const lb_product *product = &op->as.product;
    const uint32_t *x = (const uint32_t *)env->tensors[op->in[0]];
    scratch s;
    s.tile = (int32_t *)env->scratch;
    s.group_tile = s.tile + product->tile_rows * product->tile_ld;
    s.row = (int64_t *)(void *)(env->scratch + lb_round_up(product->tile_rows * (product->tile_ld + product->group_ld) * 4, LB_ALIGN));
    s.row_class = (int32_t *)(s.row + product->tile_rows);
    lb_rows_in in = {LB_FORM_I32, s.tile, product->tile_ld, 0};
    lb_rows_out out = product->epilogue.out;
    out.data = env->tensors[op->out];
    for (int64_t panel = row0; panel < row1; panel += PANEL_ROWS) {
        int64_t panel_end = lb_min64(row1, panel + PANEL_ROWS);
        for (int64_t c = c0; c < c1; c += product->tile_cols) {
            int64_t cols = lb_min64(product->tile_cols, c1 - c);
            for (int64_t r = panel; r < panel_end; r += product->tile_rows) {
                int64_t rows = lb_min64(product->tile_rows, panel_end - r);
                lb_patch_rows(&product->patches, r, rows, s.row, product->patches.class_y ? s.row_class : NULL);
                for (int64_t g = 0; g < product->groups; g++)
                    product_tile(product, x, &s, g, c, product->groups == 1 ? cols : product->cols, rows);
                env->elementwise->stage(&product->epilogue.stage, &in, &out, r, rows, c, c + cols);
            }
        }
    }
}

/* Threads share the rows; where those are few, blocks of columns. */
void lb_run_product(const lb_op *op, const lb_env *env) {
    const lb_product *product = &op->as.product;
    int64_t rows = env->batch * product->patches.out_height * product->patches.out_width, from, to;
    int64_t mr = product->kernel->mr;
    if (product->groups == 1 && rows < env->threads * 4 * mr && product->outputs > product->tile_cols) {
        lb_share(product->outputs, product->tile_cols, env, &from, &to);
        if (from < to) run_range(op, env, 0, rows, from, to);
    } else {
        lb_share(rows, mr, env, &from, &to);
        if (from < to) run_range(op, env, from, to, 0, product->outputs);
    }
}
