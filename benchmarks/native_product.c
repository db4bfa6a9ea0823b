/* Speed of each product kernel beside the core's limit, probed in the same process; one JSON line a kernel and shape.
 *
 * Build and run, pinned to one core:   sh benchmarks/native_product.sh */
#include "kernel.h"
#include "probe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Rows and columns a call, as in the engine: sums and weights stay in cache, and rows pass over a block of weights before the next one. */
#define ROW_CHUNK 96
#define ROW_PANEL (4 * ROW_CHUNK)
#define COL_CHUNK 64

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

static void measure(const lb_product_kernel *kernel, int64_t rows, int64_t cols, int64_t inputs, const double limit[LB_PROBE_COUNT]) {
    const int64_t per_word = kernel->op == LB_DOT8 ? 4 : 32, depth = (inputs + per_word - 1) / per_word;
    uint32_t *x = malloc((size_t)(rows * depth) * 4), *w = malloc((size_t)(cols * depth) * 4);
    int32_t *out = aligned_alloc(64, ROW_CHUNK * COL_CHUNK * 4), *bias = calloc((size_t)cols, 4), *koff = malloc((size_t)depth * 4);
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
        for (int64_t panel = 0; panel < rows; panel += ROW_PANEL) {
            const int64_t end = least(rows, panel + ROW_PANEL);
            for (int64_t c = 0; c < cols; c += COL_CHUNK) {
                const char *w = (const char *)packed + (size_t)(c / kernel->nr) * kernel->pack_size(kernel->nr, depth);
                for (int64_t r = panel; r < end; r += ROW_CHUNK)
                    kernel->run(&(lb_product_args){x, row + r, koff, least(end - r, ROW_CHUNK), depth, least(cols - c, COL_CHUNK), w, out,
                                                   COL_CHUNK, bias, cols, NULL, 1, 0});
            }
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

/* argument: part of a kernel's name, to measure those alone */
int main(int argc, char **argv) {
    static const int64_t shapes[][3] = {{1020, 512, 4608}, {1020, 4096, 4096}, {100, 4096, 4096}, {100, 4096, 784}, {1, 4096, 4096}};
    double limit[LB_PROBE_COUNT];
    for (int i = 0; i < LB_PROBE_COUNT; i++) limit[i] = lb_probe_limit((lb_probe)i);
    printf("{\"limit_gmacs\": {\"one_bit\": %.0f, \"int8\": %.0f, \"fp32\": %.0f}}\n", limit[0] / 1e9, limit[1] / 1e9, limit[2] / 1e9);
    for (int i = 0; i < lb_product_kernel_count; i++)
        for (size_t s = 0; s < sizeof shapes / sizeof *shapes && lb_kernel_runs(&lb_product_kernels[i]) &&
                           (argc < 2 || strstr(lb_product_kernels[i].name, argv[1]));
             s++)
            measure(&lb_product_kernels[i], shapes[s][0], shapes[s][1], shapes[s][2], limit);
    return 0;
}
