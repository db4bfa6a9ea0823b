/* The memory of a run, planned once per batch size and kept for the next: values that are alive at the same time lie apart, others share. */
#include <stdlib.h>

#include "internal.h"

enum { MAX_IDLE = 8 };

/* Offsets of all tensors, first fit among those alive; the bytes in all, or LB_BAD_SIZE. */
static int64_t plan_offsets(const lb_program *p, int64_t batch, int64_t *offsets) {
    int *alive = malloc(((size_t)p->tensor_count + 1) * sizeof *alive), count = 0; /* by rising offset */
    int *order = calloc((size_t)p->tensor_count + (size_t)p->op_count + 2, sizeof *order);
    int64_t total = 0;
    if (!alive || !order) total = LB_BAD_SIZE;
    int *starts = order ? order + p->tensor_count : NULL, placed = 0;
    for (int t = 0; total >= 0 && t < p->tensor_count; t++) starts[p->tensors[t].first + 1]++;
    for (int i = 0; total >= 0 && i < p->op_count; i++) starts[i + 1] += starts[i];
    for (int t = 0; total >= 0 && t < p->tensor_count; t++) order[starts[p->tensors[t].first]++] = t;
    for (; total >= 0 && placed < p->tensor_count; placed++) {
        int t = order[placed], kept = 0, at = 0;
        const lb_tensor *tensor = &p->tensors[t];
        offsets[t] = 0;
        if (tensor->input >= 0 || tensor->output >= 0) continue;
        int64_t size = lb_round_up(lb_mul(tensor->sample_bytes, batch), LB_ALIGN), offset = 0;
        if (size < 0) {
            total = LB_BAD_SIZE;
            break;
        }
        for (int i = 0; i < count; i++)
            if (p->tensors[alive[i]].last >= tensor->first) alive[kept++] = alive[i];
        count = kept;
        for (; at < count && offsets[alive[at]] - offset < size; at++)
            offset = offsets[alive[at]] + lb_round_up(p->tensors[alive[at]].sample_bytes * batch, LB_ALIGN);
        for (int i = count++; i > at; i--) alive[i] = alive[i - 1];
        alive[at] = t;
        offsets[t] = offset;
        int64_t end = lb_sum(offset, size);
        total = end < 0 ? LB_BAD_SIZE : lb_max64(total, end);
    }
    free(alive);
    free(order);
    return total;
}

static void free_context(lb_context *context) {
    if (!context) return;
    free(context->memory);
    free(context->offsets);
    free(context->tensors);
    free(context);
}

static lb_context *new_context(const lb_program *p, int64_t batch, int threads) {
    lb_context *context = calloc(1, sizeof *context);
    if (!context) return NULL;
    context->batch = batch;
    context->threads = threads;
    context->offsets = calloc((size_t)p->tensor_count + 1, sizeof *context->offsets);
    context->tensors = calloc((size_t)p->tensor_count + 1, sizeof *context->tensors);
    context->scratch_at = context->offsets && context->tensors ? plan_offsets(p, batch, context->offsets) : LB_BAD_SIZE;
    context->scratch_bytes = lb_round_up(p->scratch_bytes, 2 * LB_ALIGN);
    int64_t bytes = lb_sum(context->scratch_at, lb_mul(context->scratch_bytes, threads));
    if (bytes >= 0) context->memory = aligned_alloc(LB_ALIGN, (size_t)lb_max64(LB_ALIGN, lb_round_up(bytes, LB_ALIGN)));
    if (!context->memory) {
        free_context(context);
        return NULL;
    }
    for (int t = 0; t < p->tensor_count; t++) context->tensors[t] = context->memory + context->offsets[t];
    return context;
}

lb_context *lb_take_context(lb_program *p, int64_t batch, int threads) {
    lb_engine_lock();
    lb_context **slot = &p->idle;
    while (*slot && ((*slot)->batch != batch || (*slot)->threads != threads)) slot = &(*slot)->next;
    lb_context *found = *slot;
    if (found) *slot = found->next;
    lb_engine_unlock();
    return found ? found : new_context(p, batch, threads);
}

void lb_give_context(lb_program *p, lb_context *context) {
    lb_context *oldest = NULL;
    lb_engine_lock();
    context->next = p->idle;
    p->idle = context;
    int count = 0;
    for (lb_context **slot = &p->idle; *slot; slot = &(*slot)->next) {
        if (++count <= MAX_IDLE) continue;
        oldest = *slot;
        *slot = NULL;
        break;
    }
    lb_engine_unlock();
    free_context(oldest);
}

void lb_free_contexts(lb_program *p) {
    while (p->idle) {
        lb_context *next = p->idle->next;
        free_context(p->idle);
        p->idle = next;
    }
}
