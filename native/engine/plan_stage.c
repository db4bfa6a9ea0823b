/* Chains and thresholds, made ready for rows of channels. */
#include <string.h>

#include "internal.h"

/* Logical index along axis 0 of the physical element e of a row of constants. */
static int64_t logical_index(const lb_value *v, int64_t period, int64_t e) {
    if (period == v->channels) return e;
    return e % v->channels * (period / v->channels) + e / v->channels; /* flattened: channels last here, channels first there */
}

/* Constants repeated so that LB_BLOCK of them can be read from any phase. */
static void *spread(lb_program *p, const lb_value *v, int64_t period, const void *values, int64_t count, int64_t stride, int64_t at) {
    uint32_t *out = lb_keep(p, lb_sum(period, LB_BLOCK), sizeof *out); /* float or int32 alike */
    for (int64_t e = 0; out && e < period + LB_BLOCK; e++) {
        int64_t index = count == 1 ? 0 : logical_index(v, period, e % period);
        memcpy(out + e, (const uint32_t *)values + index * stride + at, sizeof *out);
    }
    return out;
}

static int plan_chain(lb_program *p, const lb_node *node, const lb_value *v, lb_stage *stage) {
    lb_stage_step *steps = lb_keep(p, node->step_count, sizeof *steps);
    for (int i = 0; steps && i < node->step_count; i++) {
        if (node->steps[i].op == LB_TO_FLOAT) continue; /* loading does it */
        lb_stage_step *step = &steps[stage->step_count++];
        step->op = node->steps[i].op;
        if (node->steps[i].operand) step->operand = spread(p, v, stage->period, node->steps[i].operand, node->steps[i].count, 1, 0);
    }
    stage->steps = steps;
    stage->end = LB_END_F32;
    if (v->type.kind == LB_CODES) {
        lb_levels levels = lb_levels_of(v->type.code);
        lb_alphabet alphabet = v->type.code.alphabet;
        stage->end = alphabet == LB_ODD ? LB_END_SIGN : alphabet == LB_LOG2 ? LB_END_POWERS : LB_END_CODES;
        stage->top = (1 << (v->type.code.bits - 1)) - 2; /* of log2 */
        stage->lo = (float)(levels.lo - v->type.zero);
        stage->hi = (float)(levels.hi - v->type.zero);
    }
    return p->status == LB_OK ? 0 : -1;
}

static int plan_threshold(lb_program *p, const lb_node *node, const lb_value *v, lb_stage *stage) {
    int64_t channels = v->type.shape[0], count = node->step_count;
    int32_t *flip = lb_keep(p, channels, sizeof *flip), *at = lb_keep(p, lb_mul(channels, count), sizeof *at);
    if (p->status != LB_OK) return -1;
    for (int64_t c = 0; c < channels; c++) {
        flip[c] = node->direction[c] < 0 ? -1 : 0;
        for (int64_t j = 0; j < count; j++) at[c * count + j] = node->thresholds[c * count + j] ^ flip[c];
    }
    stage->end = LB_END_LEVELS;
    stage->threshold_count = (int)count;
    stage->flip = spread(p, v, stage->period, flip, channels == 1 ? 1 : 0, 1, 0);
    for (int64_t j = 0; j < count; j++) stage->at[j] = spread(p, v, stage->period, at, channels == 1 ? 1 : 0, count, j);
    lb_drop(p, flip);
    lb_drop(p, at);
    return p->status == LB_OK ? 0 : -1;
}

int lb_plan_stage(lb_program *p, const lb_node *node, lb_stage_op *out) {
    const lb_value *v = &p->values[node->out];
    lb_stage *stage = &out->stage;
    memset(out, 0, sizeof *out);
    out->pixels = v->height * v->width;
    stage->channels = v->channels;
    stage->period = v->type.rank == 1 ? out->pixels * v->channels : v->channels;
    stage->end = LB_END_I32;
    if (node->kind == LB_NODE_CHAIN || node->kind == LB_NODE_THRESHOLD) {
        const lb_type *in = &p->values[node->in[0]].type;
        if (in->kind == LB_CODES) stage->in = lb_levels_of(in->code);
        if ((node->kind == LB_NODE_CHAIN ? plan_chain : plan_threshold)(p, node, v, stage) < 0) return -1;
    }
    out->out = lb_rows_of(p, v->tensor, v->type.kind == LB_CODES ? lb_levels_of(v->type.code) : (lb_levels){0}, v->channels);
    return 0;
}
