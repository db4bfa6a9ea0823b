/* Speed of each product kernel beside the core's limit, probed in the same process; one JSON line a kernel and shape.
 *
 * Build and run, pinned to one core:   sh benchmarks/native_product.sh */
#include "kernel.h"
#include "probe.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define ROW_CHUNK 96 /* rows a call, as the engine does: their sums stay in cache */

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void measure(const lb_product_kernel *kernel, int64_t rows, int64_t cols, int64_t inputs, const double limit[LB_PROBE_COUNT]) {
    const int64_t per_word = kernel->op == LB_DOT8 ? 4 : 32, depth = (inputs + per_word - 1) / per_word;
    uint32_t *x = malloc((size_t)(rows * depth) * 4), *w = malloc((size_t)(cols * depth) * 4);
    int32_t *out = aligned_alloc(64, (size_t)(ROW_CHUNK * cols) * 4), *bias = calloc((size_t)cols, 4), *koff = malloc((size_t)depth * 4);
    int64_t *row = malloc((size_t)rows * 8);
    void *packed = aligned_alloc(64, kernel->pack_size(cols, depth));
    for (int64_t i = 0; i < rows * depth; i++) x[i] = (uint32_t)rand() * 2654435761u;
    for (int64_t i = 0; i < cols * depth; i++) w[i] = (uint32_t)rand() * 2654435761u;
    for (int64_t i = 0; i < rows; i++) row[i] = i * depth;
    for (int64_t k = 0; k < depth; k++) koff[k] = (int32_t)k;
    kernel->pack(packed, w, cols, depth);
    double best = 1e9, until = now() + (kernel->isa == LB_SCALAR ? 0.01 : 0.7);
    do {
        const double start = now();
        for (int64_t r = 0; r < rows; r += ROW_CHUNK) {
            const int64_t count = rows - r < ROW_CHUNK ? rows - r : ROW_CHUNK;
            kernel->run(&(lb_product_args){x, row + r, koff, count, depth, cols, packed, out, cols, bias, cols, NULL, 1, 0});
        }
        const double spent = now() - start;
        if (spent < best) best = spent;
    } while (now() < until);
    const double rate = (double)(rows * cols) * (double)inputs / best,
                 top = limit[kernel->op == LB_DOT8 ? LB_PROBE_INT8 : LB_PROBE_ONE_BIT];
    printf("{\"kernel\": \"%s\", \"rows\": %ld, \"cols\": %ld, \"inputs\": %ld, \"ms\": %.4f, \"gmacs\": %.1f, \"share_of_limit\": %.3f}\n",
           kernel->name, (long)rows, (long)cols, (long)inputs, best * 1e3, rate / 1e9, top ? rate / top : 0.0);
    free(x), free(w), free(out), free(bias), free(koff), free(row), free(packed);
}

int main(void) {
    static const int64_t shapes[][3] = {{1020, 512, 4608}, {1020, 4096, 4096}, {100, 4096, 4096}, {100, 4096, 784}, {1, 4096, 4096}};
    double limit[LB_PROBE_COUNT];
    for (int i = 0; i < LB_PROBE_COUNT; i++) limit[i] = lb_probe_limit((lb_probe)i);
    printf("{\"limit_gmacs\": {\"one_bit\": %.0f, \"int8\": %.0f, \"fp32\": %.0f}}\n", limit[0] / 1e9, limit[1] / 1e9, limit[2] / 1e9);
    for (int i = 0; i < lb_product_kernel_count; i++)
        for (size_t s = 0; s < sizeof shapes / sizeof *shapes && lb_kernel_runs(&lb_product_kernels[i]); s++)
            measure(&lb_product_kernels[i], shapes[s][0], shapes[s][1], shapes[s][2], limit);
    return 0;
}
