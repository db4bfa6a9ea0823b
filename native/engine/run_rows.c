/* Elementwise operators on whole tensors; threads share the rows. */
#include "internal.h"

void lb_run_stage(const lb_op *op, const lb_env *env) {
    const lb_stage_op *stage = &op->as.stage;
    int64_t first, last, size = op->from.form == LB_FORM_BYTES ? 1 : 4;
    lb_share(env->batch * stage->pixels, 16, env, &first, &last);
    lb_rows_in in = {op->from.form, env->tensors[op->in[0]], op->from.ld, stage->pixels};
    if (in.form != LB_FORM_NCHW) in.data = env->tensors[op->in[0]] + first * in.ld * size;
    lb_rows_out out = stage->out;
    out.data = env->tensors[op->out];
    if (first < last) env->elementwise->stage(&stage->stage, &in, &out, first, last - first, 0, stage->stage.channels);
}

void lb_run_max_pool(const lb_op *op, const lb_env *env) {
    int64_t first, last;
    lb_rows_in in = {op->from.form, env->tensors[op->in[0]], op->from.ld, 0};
    lb_rows_out out = {op->to.form, env->tensors[op->out], op->to.ld, lb_ceil_div(op->channels, 32), op->levels};
    lb_share(env->batch * op->pixels, 1, env, &first, &last);
    env->elementwise->max_pool(&op->as.pool, &in, &out, first, last);
}

void lb_run_avg_pool(const lb_op *op, const lb_env *env) {
    int64_t first, last;
    lb_share(env->batch * op->pixels, 1, env, &first, &last);
    env->elementwise->avg_pool(&op->as.pool, (const float *)env->tensors[op->in[0]], (float *)env->tensors[op->out], first, last);
}

void lb_run_add(const lb_op *op, const lb_env *env) {
    int64_t first, last;
    lb_share(env->batch * op->pixels * op->channels, LB_BLOCK, env, &first, &last);
    const float *a = (const float *)env->tensors[op->in[0]], *b = (const float *)env->tensors[op->in[1]];
    if (first < last) env->elementwise->add(a + first, b + first, (float *)env->tensors[op->out] + first, last - first);
}
