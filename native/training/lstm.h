/* The elementwise part of an LSTM's step in training, one pass for what src/lobit/nn/cells.py says in many: the values are equal bit for bit. */
#ifndef LOBIT_LSTM_H
#define LOBIT_LSTM_H

#include <stdint.h>

#include "kernel.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Where the values of the grid of pre-activations begin in a table: the place for NaN, then codes -128 .. 127. */
typedef struct {
    const float *sigmoid, *tanh;
} lb_gate_tables;

/* Rows of 4 * units gates in the order input, forget, cell, output; of units for all else. Masks are one byte an element; NULL where nothing is kept. */
typedef struct {
    int64_t rows, units;
    lb_gate_tables tables;
    const float *sums;            /* of the hidden state, times 16                                                     */
    float *gates;                 /* forward: the inputs' sums times 16 become the gates                               */
    uint8_t *inside, *new_inside; /* forward: whether a pre-activation was inside the grid's range; backward: read     */
    float *cells;                 /* forward: the cell state before the step is kept here; backward: read              */
    float *c;                     /* forward: the cell state; backward: its gradient                                   */
    float *tanh_c;                /* forward: made; backward: read                                                     */
    float *h;                     /* forward: the hidden state is made here; backward: its gradient                    */
    float *out;                   /* backward: the gradient of the pre-activations                                     */
} lb_lstm;

void lb_lstm_forward(const lb_lstm *step, lb_isa isa, int threads);
void lb_lstm_backward(const lb_lstm *step, lb_isa isa, int threads);

/* Rows from .. to - 1. */
typedef void (*lb_lstm_loop)(const lb_lstm *step, int64_t from, int64_t to);
extern const lb_lstm_loop lb_lstm_scalar[2];
#if defined(LOBIT_X86)
extern const lb_lstm_loop lb_lstm_avx2[2], lb_lstm_avx512[2];
#endif

#ifdef __cplusplus
}
#endif

#endif
