/* The loops that a network exported to C runs on: plain C99, no memory of their own, nothing of libc but memcpy and memset.
 *
 * Values are channels-last: element p * channels + c is channel c of pixel p. Floats and sums take one word each. Codes are dense planes, bit e of plane
 * i at to[i * plane_words + e / 32] >> e % 32, or bytes. A level is a code counted from the lowest of its field: code = base + spacing * level.
 * Sums are formed modulo 2^32, which is exact: lobit refuses layers whose sums can leave 32 bits. docs/microcontrollers.md has the algebra. */
#ifndef LOBIT_C_H
#define LOBIT_C_H

#include <stdint.h>

#define LB_BLOCK 32 /* elements that a stage takes at a time: one word of a plane */

enum { LB_PLANES, LB_BYTES, LB_SUMS, LB_FLOATS };
enum { LB_OK = 0, LB_NOT_FINITE = 1, LB_NO_CODE = 2 };

/* How a value stands in memory. */
typedef struct {
    uint8_t kind;
    uint8_t bits;
    uint8_t flip; /* xor of a plane's field and its level: the sign bit of two's complement */
    uint8_t spacing;
    int16_t base;
    uint32_t plane_words;
} lb_value;

/* A place in a value: the element that is written next. */
typedef struct {
    uint32_t *to;
    uint32_t at;
} lb_cursor;

/* A window sliding over an image of `channels`; kernel, stride, dilation and size as height, width. */
typedef struct {
    int32_t channels, size[2], out[2], kernel[2], stride[2], start[2], dilation[2]; /* start: padding above and to the left, negated */
} lb_window;

typedef struct {
    void (*apply)(float *x, const float *constant, int each, int n);
    const float *constant;
    int each; /* 1: a constant for each channel, 0: one for all, and -1: none */
} lb_step;

/* What becomes of a row of sums (as words, modulo 2^32) or of the bits of floats: thresholds or steps, then codes, floats or sums. */
typedef struct {
    lb_value out;
    uint8_t floats;           /* the row holds the bits of floats */
    uint8_t first;            /* threshold: level of a sum that reaches none */
    uint16_t count;           /* thresholds a channel, or steps */
    const int32_t *reach;     /* threshold: (channels, count) */
    const uint32_t *falls;    /* threshold: bit c where channel c counts sums at or below, not at or above */
    const lb_step *steps;     /* chain */
    int32_t low, high, level; /* chain to codes: bounds of the rounded value, and the level of the lower one (to powers: 0) */
} lb_stage;

typedef void lb_finish(const lb_stage *stage, lb_cursor *to, const uint32_t *row, int c, int n);
lb_finish lb_threshold, lb_chain_to_codes, lb_chain_to_powers, lb_chain_to_sign, lb_chain_to_floats, lb_store;

/* A convolution or a linear layer. With x = sum_i x_coef[i] * plane_i + b and w = sum_j w_coef[j] * plane_j + w_base,
 *   sum x w = sum_ij x_coef[i] * w_coef[j] * popcount(x_i & w_j) + w_base * sum_i x_coef[i] * popcount(x_i) + bias. */
typedef struct lb_product {
    void (*sums)(const struct lb_product *p, const uint32_t *x, int planes, int o, int n, uint32_t *sums);
    lb_finish *finish;
    const lb_stage *stage;
    const void *weights;                    /* planes: words (output, plane, word); bytes: int8 (output, 4 * words) */
    const int32_t *bias;                    /* or NULL */
    const lb_window *window;                /* NULL: linear */
    const lb_window *pool;                  /* or NULL: the largest sum of each window that slides over the sums */
    int32_t outputs, groups, inputs, words; /* inputs and words: of one group's patch */
    lb_value x;
    uint8_t w_bits;
    uint8_t pad_plane; /* one more plane marks the taps outside the image: no code of x is zero there */
    int16_t w_base;
    int16_t x_coef[9], w_coef[8];
    uint8_t fill; /* field that stands outside the image */
} lb_product;

void lb_sums_planes(const lb_product *p, const uint32_t *x, int planes, int o, int n, uint32_t *sums);
void lb_sums_bytes(const lb_product *p, const uint32_t *x, int planes, int o, int n, uint32_t *sums);

void lb_linear(const lb_product *p, const uint32_t *x, uint32_t *to);
/* scratch: (bits + pad_plane) * words for a patch, then `outputs` words where there is a pool. */
void lb_conv2d(const lb_product *p, const uint32_t *x, uint32_t *to, uint32_t *scratch);
void lb_conv2d_pooled(const lb_product *p, const uint32_t *x, uint32_t *to, uint32_t *scratch);

/* A stage on a stored value. */
void lb_run_stage(lb_finish *finish, const lb_stage *stage, const lb_value *in, const uint32_t *x, uint32_t *to, int32_t channels,
                  int32_t pixels);
/* The same on floats in PyTorch's order, (channels, pixels). */
void lb_run_input(lb_finish *finish, const lb_stage *stage, const float *x, uint32_t *to, int32_t channels, int32_t pixels);

/* Pools. `v` is the value that is read; what is made has its code type. */
void lb_max_planes(const lb_window *w, const lb_value *v, const uint32_t *x, uint32_t *to);
void lb_max_bytes(const lb_window *w, const lb_value *v, const uint32_t *x, uint32_t *to);
void lb_max_sums(const lb_window *w, const lb_value *v, const uint32_t *x, uint32_t *to);
void lb_max_floats(const lb_window *w, const lb_value *v, const uint32_t *x, uint32_t *to);
void lb_average(const lb_window *w, float divisor, const uint32_t *x, uint32_t *to);
void lb_add_floats(const uint32_t *a, const uint32_t *b, uint32_t *to, uint32_t n);
/* Padding with a level, or with the bits of a float; `w` has the sizes and where the image begins. */
void lb_pad(const lb_window *w, const lb_value *in, const lb_value *out, uint32_t fill, const uint32_t *x, uint32_t *to);
/* Values side by side: of each pixel the channels of all parts, in order. */
typedef struct {
    lb_value value;
    uint32_t channels;
} lb_part;
void lb_concat(const lb_part *parts, int count, const lb_value *out, const uint32_t *const *x, uint32_t *to, uint32_t pixels);
/* Resizing: output row i is input row rows[i], or with weights a mix of it and the next one (the last one's next is itself), and so the columns. */
typedef struct {
    int32_t channels, size[2], out[2];
    const int32_t *rows, *columns;
    const float *row_weights, *column_weights; /* or NULL */
} lb_resizing;
void lb_resize_nearest(const lb_resizing *r, const lb_value *in, const lb_value *out, const uint32_t *x, uint32_t *to);
/* a + weight * (b - a) of floats, rows first. */
void lb_resize_mixed(const lb_resizing *r, const uint32_t *x, uint32_t *to);
/* From channels-last to PyTorch's order. */
void lb_flatten(const lb_value *v, const uint32_t *x, uint32_t *to, int32_t channels, int32_t pixels);

void lb_add(float *x, const float *constant, int each, int n);
void lb_sub(float *x, const float *constant, int each, int n);
void lb_mul(float *x, const float *constant, int each, int n);
void lb_div(float *x, const float *constant, int each, int n);
void lb_max(float *x, const float *constant, int each, int n);
void lb_min(float *x, const float *constant, int each, int n);
void lb_round(float *x, const float *constant, int each, int n);

/* Between the caller's arrays, in PyTorch's order, and values. */
int lb_finite(const float *x, uint32_t n);
int lb_codes_in(const lb_value *v, int low, int high, const uint8_t *codes, int is_signed, uint32_t *to, int32_t channels, int32_t pixels);
void lb_floats_out(float *to, const uint32_t *x, int32_t channels, int32_t pixels);
void lb_sums_out(int32_t *to, const uint32_t *x, int32_t channels, int32_t pixels);
void lb_codes_out(int16_t *to, const lb_value *v, const uint32_t *x, int32_t channels, int32_t pixels);

#endif
