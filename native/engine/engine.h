/* The engine's C ABI: build a program of typed values and operators, finish it, run it. It needs no Python.
 *
 *     lb_program *p = lb_program_new();
 *     int x = lb_add_input(p, "x", 1, (int64_t[]){784});
 *     int s = lb_add_linear(p, "fc", x_codes, ...);          every lb_add_* returns a value's number, or -1: see lb_program_error
 *     lb_set_outputs(p, &s, 1);
 *     lb_finish(p, &options);                                 chooses carriers and kernels, fuses, packs weights
 *     lb_run(p, &call);                                       any number of threads may call it at once on a finished program
 *
 * What the operators mean stands in docs/architecture.md, "The graph". Shapes are logical, without the batch axis: (C), (C, L) or (C, H, W);
 * (C, L) is an image of one row, (C, 1, L), for every operator with a window. */
#ifndef LOBIT_ENGINE_H
#define LOBIT_ENGINE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#include "kernel.h"

typedef enum { LB_OK = 0, LB_REFUSED = 1, LB_NO_MEMORY = 2, LB_NO_THREADS = 3 } lb_status;

typedef enum { LB_UNSIGNED, LB_SIGNED, LB_ODD, LB_TERNARY, LB_LOG2 } lb_alphabet;
typedef struct {
    lb_alphabet alphabet;
    int32_t bits;
} lb_code;

typedef enum { LB_F32, LB_I32, LB_CODES } lb_kind;
typedef struct {
    lb_kind kind;
    lb_code code; /* of codes only */
    int32_t zero;
    int32_t rank;
    int64_t shape[3];
} lb_type;

typedef enum { LB_TO_FLOAT, LB_STEP_ROUND, LB_STEP_ADD, LB_STEP_SUB, LB_STEP_MUL, LB_STEP_DIV, LB_STEP_MAX, LB_STEP_MIN } lb_step_op;
typedef struct {
    lb_step_op op;
    const float *operand; /* NULL for to_float and round */
    int64_t count;        /* 1, or one per channel        */
} lb_step;

/* Kernel, stride, dilation as height, width; padding as top, left, bottom, right. */
typedef struct {
    int64_t kernel[2], stride[2], padding[4], dilation[2], groups;
} lb_window;

typedef enum { LB_PREFER_COST = 0, LB_PREFER_PLANES = 1, LB_PREFER_BYTES = 2 } lb_prefer;
typedef struct {
    lb_isa isa;       /* highest instruction set to use         */
    lb_prefer prefer; /* carrier of codes where there is a choice */
} lb_options;

typedef struct lb_program lb_program;

lb_program *lb_program_new(void); /* NULL without memory */
/* A program whose constants would take more than this is refused; 0, the default, is no limit. */
void lb_set_memory_limit(lb_program *p, int64_t bytes);
void lb_program_free(lb_program *program);
const char *lb_program_error(const lb_program *program); /* of the last refusal while building */
lb_status lb_program_status(const lb_program *program);

int lb_add_input(lb_program *p, const char *name, int rank, const int64_t *shape);
/* code NULL: the chain ends in f32. */
int lb_add_chain(lb_program *p, const char *name, int x, const lb_step *steps, int count, const lb_code *code, int32_t zero);
/* thresholds (C, 2^bits - 1 or 2 for ternary), direction (C) of +1 or -1. */
int lb_add_threshold(lb_program *p, const char *name, int x, lb_code code, int32_t zero, const int32_t *thresholds,
                     const int32_t *direction);
/* weights are integer codes, (outputs, K). */
int lb_add_linear(lb_program *p, const char *name, int x, lb_code code, int64_t outputs, const int16_t *weights);
/* weights (outputs, C / groups, kh, kw). */
int lb_add_conv2d(lb_program *p, const char *name, int x, lb_code code, int64_t outputs, const lb_window *window, const int16_t *weights);
/* bias may be NULL. */
int lb_add_linear_f32(lb_program *p, const char *name, int x, int64_t outputs, const float *weights, const float *bias);
int lb_add_conv2d_f32(lb_program *p, const char *name, int x, int64_t outputs, const lb_window *window, const float *weights,
                      const float *bias);
int lb_add_max_pool2d(lb_program *p, const char *name, int x, const lb_window *window);
int lb_add_avg_pool2d(lb_program *p, const char *name, int x, const lb_window *window, int64_t divisor);
int lb_add_add(lb_program *p, const char *name, int a, int b);
int lb_add_flatten(lb_program *p, const char *name, int x);
/* padding as top, left, bottom, right; value is a code of codes, a finite float of floats. */
int lb_add_pad2d(lb_program *p, const char *name, int x, const int64_t padding[4], float value);
/* 2 to LB_MAX_INPUTS values of one type and size, f32 or codes, one behind the other along the channels. */
enum { LB_MAX_INPUTS = 64 };
int lb_add_concat(lb_program *p, const char *name, const int *x, int count);
/* Output row i is input row rows[i], output column j input column columns[j], of f32 or codes; with weights, of floats, a mix of it and the next one
 * (the last one's next is itself): a + weight * (b - a), rows first. Both weights or none, each from 0 to 1. */
typedef struct {
    int64_t height, width; /* of the output; height 1 where x has one row */
    const int32_t *rows, *columns;
    const float *row_weights, *column_weights;
} lb_resize_map;
int lb_add_resize2d(lb_program *p, const char *name, int x, const lb_resize_map *map);

lb_status lb_set_outputs(lb_program *p, const int *values, int count);
lb_status lb_finish(lb_program *p, const lb_options *options);

/* A value to copy out while the program runs: f32 as float, i32 as int32_t, codes as int16_t, (batch, *shape) in the logical order. */
typedef struct {
    int value;
    void *data;
} lb_tap;

typedef struct {
    int64_t batch;
    int threads;
    const float *const *inputs; /* (batch, *shape), one per input in the order they were added */
    void *const *outputs;       /* one per output, laid out as a tap is                         */
    const lb_tap *taps;         /* values for which lb_value_stored is true; NULL when none     */
    int tap_count;
    double *seconds; /* NULL, or lb_op_count numbers: the time of each operator      */
} lb_call;
lb_status lb_run(lb_program *p, const lb_call *call);

int lb_value_type(const lb_program *p, int value, lb_type *type); /* 0, or -1 for no such value */
/* Whether the finished program writes the value to memory (it may be fused away instead). */
int lb_value_stored(const lb_program *p, int value);

/* What the finished program does, one entry per operator that runs. */
typedef struct {
    const char *name;    /* of the layers in it: "conv1 + act1"                 */
    const char *op;      /* "conv2d + threshold"                                */
    const char *types;   /* "signed2 x unsigned2 -> unsigned1"                  */
    const char *kernel;  /* name in the kernel table, or the engine's own loop  */
    const char *carrier; /* how codes lie: "planes", "bytes", ""                */
    const char *reason;
    int64_t weight_bytes; /* as packed for the kernel                            */
    int64_t macs;         /* multiply-accumulates of one sample                  */
    int inexact;
} lb_op_info;
int lb_op_count(const lb_program *p);
int lb_get_op_info(const lb_program *p, int index, lb_op_info *info); /* 0, or -1 */

/* Whether all n floats are finite. */
int lb_all_finite(const float *x, int64_t n);

#ifdef __cplusplus
}
#endif
#endif
