/* Rows of a training job, shared out to threads that take the next blocks until none is left. */
#include <stdatomic.h>

#include "internal.h"
#include "training.h"

enum { BLOCK_ELEMENTS = 1 << 15 };

typedef struct {
    lb_training_loop loop;
    const lb_training *job;
    int64_t rows, block; /* rows of a block */
    _Atomic int64_t next;
} shared_job;

static lb_gomp_parallel gomp_parallel;

void lb_training_threads(lb_gomp_parallel parallel) { gomp_parallel = parallel; }

static void take_blocks(void *arg) {
    shared_job *shared = arg;
    for (;;) {
        int64_t from = atomic_fetch_add(&shared->next, shared->block);
        if (from >= shared->rows) return;
        shared->loop(shared->job, from, lb_min64(from + shared->block, shared->rows));
    }
}

static void member(void *arg, int thread) {
    (void)thread;
    take_blocks(arg);
}

static lb_training_loop loop_for(lb_training_kind kind, lb_isa isa) {
#if defined(LOBIT_X86)
    if (isa >= LB_AVX512) return lb_training_avx512[kind];
    if (isa == LB_AVX2) return lb_training_avx2[kind];
#endif
    (void)isa;
    return lb_training_scalar[kind];
}

void lb_training_run(lb_training_kind kind, const lb_training *job, lb_isa isa, int threads) {
    if (job->count <= 0) return;
    shared_job shared = {loop_for(kind, isa), job, lb_ceil_div(job->count, job->columns), lb_max64(1, BLOCK_ELEMENTS / job->columns), 0};
    threads = (int)lb_min64(threads, lb_ceil_div(shared.rows, shared.block));
    if (threads <= 1)
        take_blocks(&shared);
    else if (gomp_parallel)
        gomp_parallel(take_blocks, &shared, (unsigned)threads, 0);
    else if (lb_team_run(threads, member, &shared) < 0)
        take_blocks(&shared); /* no threads to be had: this one does it all */
}
