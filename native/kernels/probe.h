/* The core's limits: multiply-accumulates a second of a loop of independent register operations, what a kernel's speed is a share of. */
#ifndef LOBIT_PROBE_H
#define LOBIT_PROBE_H

typedef enum { LB_PROBE_ONE_BIT, LB_PROBE_INT8, LB_PROBE_FP32, LB_PROBE_COUNT } lb_probe;

/* Best of several repeats on the calling thread, about 50 ms; pin the thread first. 0 where this CPU has no instruction to probe. */
double lb_probe_limit(lb_probe what);

#endif
