/* lb_run: every thread walks all operators, meeting the others after each. */
#include <string.h>
#include <time.h>

#include "internal.h"

typedef struct {
    const lb_program *program;
    const lb_call *call;
    lb_context *context;
    lb_barrier barrier;
} run;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static const lb_value *root_of(const lb_program *p, int value) { return &p->values[p->values[value].root]; }

/* Copies out the tapped values that operator `op` made. */
static void copy_taps(run *r, const lb_env *env, int op) {
    for (int i = 0; i < r->call->tap_count; i++) {
        const lb_value *v = root_of(r->program, r->call->taps[i].value);
        const lb_tensor *tensor = &r->program->tensors[v->tensor];
        if (tensor->first != op) continue;
        lb_levels levels = v->type.kind == LB_CODES ? lb_levels_of(v->type.code) : (lb_levels){0};
        lb_store(tensor, env->tensors[v->tensor], levels, v->height * v->width, v->channels, r->call->taps[i].data, env);
        lb_barrier_wait(&r->barrier);
    }
}

static void walk(void *arg, int thread) {
    run *r = arg;
    const lb_program *p = r->program;
    const lb_context *context = r->context;
    lb_env env = {.elementwise = p->elementwise,
                  .batch = context->batch,
                  .tensors = context->tensors,
                  .outputs = r->call->outputs,
                  .thread = thread,
                  .threads = context->threads};
    env.scratch = context->memory + context->scratch_at + thread * context->scratch_bytes;
    double before = r->call->seconds ? now() : 0.0;
    for (int i = 0; i < p->op_count; i++) {
        p->ops[i].run(&p->ops[i], &env);
        lb_barrier_wait(&r->barrier);
        if (r->call->seconds && thread == 0) {
            double after = now();
            r->call->seconds[i] = after - before;
            before = after;
        }
        if (r->call->tap_count) copy_taps(r, &env, i);
    }
}

lb_status lb_run(lb_program *p, const lb_call *call) {
    if (!p->finished || call->batch < 0 || call->threads < 1 || call->threads > LB_MAX_THREADS) return LB_REFUSED;
    for (int i = 0; i < call->tap_count; i++)
        if (!lb_value_stored(p, call->taps[i].value)) return LB_REFUSED;
    if (call->seconds) memset(call->seconds, 0, (size_t)p->op_count * sizeof *call->seconds);
    if (!call->batch) return LB_OK;
    run r = {.program = p, .call = call, .context = lb_take_context(p, call->batch, call->threads), .barrier = {.threads = call->threads}};
    if (!r.context) return LB_NO_MEMORY;
    for (int t = 0; t < p->tensor_count; t++) {
        if (p->tensors[t].input >= 0) r.context->tensors[t] = (uint8_t *)(uintptr_t)call->inputs[p->tensors[t].input];
        if (p->tensors[t].output >= 0) r.context->tensors[t] = call->outputs[p->tensors[t].output];
    }
    int failed = lb_team_run(call->threads, walk, &r);
    lb_give_context(p, r.context);
    return failed ? LB_NO_THREADS : LB_OK;
}

int lb_all_finite(const float *x, int64_t n) {
    uint32_t bad = 0;
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, x + i, sizeof bits);
        bad |= (bits & 0x7f800000u) == 0x7f800000u;
    }
    return !bad;
}
