/* The part of the kernel table that multiplies nothing: loops over values, one row for each instruction set that they are compiled for. */
#ifndef LOBIT_LOOPS_H
#define LOBIT_LOOPS_H

#include "kernel.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    const char *name; /* "stage_avx512" */
    const char *op;   /* "stage"        */
    lb_isa isa;
} lb_loop;

extern const lb_loop lb_loops[];
extern const int lb_loop_count;

/* The name of the row for `op` with the highest isa that is not above the one given; NULL where there is no such op. */
const char *lb_loop_name(const char *op, lb_isa isa);

#ifdef __cplusplus
}
#endif

#endif
