/* What the engine's operators mean, one number at a time: docs/architecture.md, "The graph", in the simplest loops. Shares no code with the engine.
 * Arrays are (batch, C, H, W), or (batch, C) with H = W = 1; codes and sums are int32. */
#ifndef LOBIT_REFERENCE_H
#define LOBIT_REFERENCE_H

#include "engine.h"

typedef struct {
    int64_t batch, channels, height, width;
} ref_shape;

int64_t ref_size(ref_shape s);
ref_shape ref_window_shape(ref_shape x, int64_t channels, const lb_window *w);

/* Every code of a type, rising; returns how many there are, at most 256. */
int ref_levels(lb_code code, int16_t *levels);

/* One step on one number, operand k. */
float ref_step(lb_step_op op, float x, float k);
int32_t ref_to_code(float x, lb_code code, int32_t zero);
int32_t ref_threshold(int32_t sum, lb_code code, const int32_t *thresholds, int32_t direction);

/* Codes x less their zero, times weights (outputs, C / groups, kh, kw); padding adds nothing. */
void ref_product(const int32_t *x, ref_shape s, int32_t zero, const int16_t *weights, int64_t outputs, const lb_window *w, int32_t *sums);
void ref_max_pool(const int32_t *x, ref_shape s, const lb_window *w, int32_t *out);
void ref_avg_pool(const float *x, ref_shape s, const lb_window *w, int64_t divisor, float *out);

#endif
