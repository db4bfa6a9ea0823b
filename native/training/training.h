/* What quantizers add to a training step, each in one pass over memory: float32 codes forward, gradients backward. PyTorch's operators say the same
 * in many passes (src/lobit/quantizers/straight_through.py is the specification); results are equal bit for bit, sums apart.
 *
 * Elements lie in rows of `columns`, the last of which may be short; a row has one step. */
#ifndef LOBIT_TRAINING_H
#define LOBIT_TRAINING_H

#include <stdint.h>

#include "kernel.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    int64_t count, columns; /* elements in all, and in a row                                     */
    const float *x, *g;     /* values, and the gradient that comes back                          */
    const float *step;      /* NULL: no division                                                 */
    int64_t step_stride;    /* 0: one step for all rows, 1: one for each                         */
    const uint8_t *mask;    /* bit i % 8 of byte i / 8                                           */
    float lo, hi;           /* the window; infinite where it is open                             */
    float slope;            /* of a masked gradient                                              */
    float *out;             /* codes, or the gradient of x                                       */
    uint8_t *out_mask;      /* whole bytes are written; bits beyond the last element are zero    */
    const void *codes;      /* a byte each, signed or not                                        */
    int codes_unsigned;
    int zero; /* the byte of value 0 */
    uint8_t *out_codes;
    /* LB_TRAIN_PLANES and LB_TRAIN_PIXELS: a row is an image of `columns / channels` pixels. */
    int64_t channels, width;     /* width: pixels side by side */
    int64_t border[2];           /* pixels above and below an image, and before and after a line */
    const float *offset, *shift; /* NULL, or one for each channel */
    uint8_t *out_inside;         /* LB_TRAIN_ROUND: a byte an element, whether lo <= x / step <= hi; NULL: not asked for */
    double *sums;                /* one a row                                                         */
} lb_training;

typedef enum {
    LB_TRAIN_SIGN,       /* out = x >= 0 ? 1 : -1                                                              */
    LB_TRAIN_INSIDE,     /* out_mask = lo <= x <= hi                                                           */
    LB_TRAIN_ROUND,      /* out = rint(clamp(x / step, lo, hi)), half to even; NaN stays                        */
    LB_TRAIN_MASKED,     /* out = mask ? g * slope : 0                                                          */
    LB_TRAIN_ROUND_BACK, /* v = x / step: out = lo <= v <= hi ? g / step : 0; sums[row] = sum of g * v inside   */
    LB_TRAIN_EXPAND,     /* out = codes * step                                                                  */
    LB_TRAIN_SCALE_BACK, /* sums[row] = sum of g * codes; out = g * step. out may be g                          */
    LB_TRAIN_SIGNS,      /* out = mask ? 1 : -1                                                                 */
    LB_TRAIN_BYTES,      /* out_codes = x + zero; sums[row] = how many x are no integers in lo .. hi              */
    LB_TRAIN_PIXELS,     /* out_codes[p][c] = x[c][p] + zero in a border of zero; sums as those of LB_TRAIN_BYTES   */
    LB_TRAIN_PLANES,     /* back to planes: out[c][p] = (x[p][c] - offset[c]) * step[c] + shift[c]                 */
    LB_TRAIN_KINDS
} lb_training_kind;

/* Rows from .. to - 1. Masked kinds want columns in multiples of 8. */
typedef void (*lb_training_loop)(const lb_training *job, int64_t from, int64_t to);

extern const lb_training_loop lb_training_scalar[LB_TRAIN_KINDS];
#if defined(LOBIT_X86)
extern const lb_training_loop lb_training_avx2[LB_TRAIN_KINDS], lb_training_avx512[LB_TRAIN_KINDS];
#endif

/* Runs all rows by the best instruction set, on as many threads. Results do not depend on either.
 *
 * The threads are those of `lb_training_threads`, an OpenMP runtime that is in the process already (its GOMP_parallel), so that they are not in the way of its own, which
 * wait for work by spinning; without one they are the engine's. */
void lb_training_run(lb_training_kind kind, const lb_training *job, lb_isa isa, int threads);

typedef void (*lb_gomp_parallel)(void (*job)(void *), void *arg, unsigned threads, unsigned flags);
void lb_training_threads(lb_gomp_parallel parallel);

#ifdef __cplusplus
}
#endif

#endif
