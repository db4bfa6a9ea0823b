/* Everything between two products, on rows of channels: chains, thresholds, pools, packing. One implementation (elementwise.inc.h) is
 * compiled once per ISA; all are bit-identical: float32, each operation rounded once, none contracted, comparisons for max and min. */
#ifndef LOBIT_ELEMENTWISE_H
#define LOBIT_ELEMENTWISE_H

#include "engine.h"

enum { LB_BLOCK = 256, LB_MAX_THRESHOLDS = 3 };

/* Where values lie. All but LB_FORM_NCHW are rows of channels, one row a pixel. */
typedef enum { LB_FORM_F32, LB_FORM_I32, LB_FORM_BYTES, LB_FORM_PLANES, LB_FORM_NCHW } lb_form;

/* A code as it lies in memory: code = spacing * byte + lo; a plane holds one bit of (byte + plane_add). */
typedef struct {
    int32_t bits, spacing, lo, hi, plane_add;
} lb_levels;

typedef struct {
    lb_form form;
    const void *data; /* element (first row, first column); for NCHW the whole tensor */
    int64_t ld;       /* elements from row to row                                     */
    int64_t pixels;   /* NCHW only: height * width                                    */
} lb_rows_in;

typedef struct {
    lb_form form;
    void *data;          /* the whole tensor: rows are counted from its start               */
    int64_t ld;          /* floats, int32, bytes or words from row to row                   */
    int64_t plane_words; /* words of one plane of a row                                     */
    lb_levels levels;
} lb_rows_out;

typedef enum { LB_END_F32, LB_END_CODES, LB_END_SIGN, LB_END_POWERS, LB_END_LEVELS, LB_END_I32 } lb_stage_end;

typedef struct {
    lb_step_op op;
    const float *operand; /* period + LB_BLOCK floats: repeated, so that a block reads on from any phase */
} lb_stage_step;

/* A chain, a threshold or a plain store, ready to run on rows. Constants repeat after `period` elements, a multiple of `channels`:
 * one row, or, after flatten, all pixels of a sample. */
typedef struct {
    int64_t channels, period;
    int step_count;
    const lb_stage_step *steps;
    lb_stage_end end;
    float lo, hi;                                /* LB_END_CODES: clamp to these, both already less the zero          */
    int32_t top;                                 /* LB_END_POWERS: the largest exponent                                */
    int threshold_count;                         /* LB_END_LEVELS: level = #{j: (s ^ flip) >= at[j]}                   */
    const int32_t *flip, *at[LB_MAX_THRESHOLDS]; /* flip is 0, or -1 for direction -1: s <= t is the same as ~s >= ~t */
    lb_levels in;                                /* of a codes input                                                  */
} lb_stage;

typedef struct {
    int64_t height, width, channels, out_height, out_width;
    lb_window window;
    float divisor; /* of average pooling */
} lb_pool;

typedef struct {
    const float *x;
    const int64_t *row;
    const int32_t *koff;
    int64_t rows, depth, cols;
    const float *w;
    int64_t ldw;
    const float *bias;
    float *out;
    int64_t ldo;
} lb_float_product;

typedef struct {
    /* rows row0 .. row0+rows-1 and columns c0 .. c1-1 of the output; c0 a multiple of 32 */
    void (*stage)(const lb_stage *stage, const lb_rows_in *in, const lb_rows_out *out, int64_t row0, int64_t rows, int64_t c0, int64_t c1);
    /* output rows (pixels, counted through the batch) row0 .. row1-1; `in` is the whole tensor */
    void (*max_pool)(const lb_pool *pool, const lb_rows_in *in, const lb_rows_out *out, int64_t row0, int64_t row1);
    void (*avg_pool)(const lb_pool *pool, const float *in, float *out, int64_t row0, int64_t row1);
    void (*add)(const float *a, const float *b, float *out, int64_t n);
    /* bytes to planes: rows row0 .. row1-1 of whole tensors */
    void (*pack)(const lb_rows_in *in, const lb_rows_out *out, int64_t channels, int64_t row0, int64_t row1);
    /* out[r*ldo + o] = sum over k, rising, of x[row[r] + koff[k]] * w[k*ldw + o], then + bias[o] where there is a bias */
    void (*float_product)(const lb_float_product *args);
} lb_elementwise;

extern const lb_elementwise lb_elementwise_scalar;
#if defined(LOBIT_X86)
extern const lb_elementwise lb_elementwise_avx2, lb_elementwise_avx512;
#endif
const lb_elementwise *lb_elementwise_for(lb_isa isa);

#endif
