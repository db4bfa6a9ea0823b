/* Rows of a job, shared out to threads that take the next blocks until none is left. */
#include <stdatomic.h>

#include "internal.h"
#include "lstm.h"
#include "training.h"

enum { BLOCK_ELEMENTS = 1 << 15 };

typedef void (*rows_of_job)(const void *job, int64_t from, int64_t to);

typedef struct {
    rows_of_job loop;
    const void *job;
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

static void share_out(rows_of_job loop, const void *job, int64_t rows, int64_t columns, int threads) {
    shared_job shared = {loop, job, rows, lb_max64(1, BLOCK_ELEMENTS / columns), 0};
    threads = (int)lb_min64(threads, lb_ceil_div(shared.rows, shared.block));
    if (threads <= 1)
        take_blocks(&shared);
    else if (gomp_parallel)
        gomp_parallel(take_blocks, &shared, (unsigned)threads, 0);
    else if (lb_team_run(threads, member, &shared) < 0)
        take_blocks(&shared); /* no threads to be had: this one does it all */
}

#if defined(LOBIT_X86)
#define FOR_ISA(name, isa, index) ((isa) >= LB_AVX512 ? name##_avx512[index] : (isa) == LB_AVX2 ? name##_avx2[index] : name##_scalar[index])
#else
#define FOR_ISA(name, isa, index) ((void)(isa), name##_scalar[index])
#endif

typedef struct {
    lb_training_loop loop;
    const lb_training *job;
} training_rows;

static void run_training(const void *job, int64_t from, int64_t to) {
    const training_rows *rows = job;
    rows->loop(rows->job, from, to);
}

void lb_training_run(lb_training_kind kind, const lb_training *job, lb_isa isa, int threads) {
    if (job->count <= 0) return;
    training_rows rows = {FOR_ISA(lb_training, isa, kind), job};
    share_out(run_training, &rows, lb_ceil_div(job->count, job->columns), job->columns, threads);
}

typedef struct {
    lb_lstm_loop loop;
    const lb_lstm *step;
} lstm_rows;

static void run_lstm(const void *job, int64_t from, int64_t to) {
    const lstm_rows *rows = job;
    rows->loop(rows->step, from, to);
}

static void lstm(const lb_lstm *step, lb_isa isa, int backward, int threads) {
    lstm_rows rows = {FOR_ISA(lb_lstm, isa, backward), step};
    share_out(run_lstm, &rows, step->rows, 16 * step->units, threads);
}

void lb_lstm_forward(const lb_lstm *step, lb_isa isa, int threads) { lstm(step, isa, 0, threads); }
void lb_lstm_backward(const lb_lstm *step, lb_isa isa, int threads) { lstm(step, isa, 1, threads); }
