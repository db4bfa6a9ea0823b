/* The board below a generated test. */
#ifndef LOBIT_BOARD_H
#define LOBIT_BOARD_H

#include "lobit_test.h"

#define LB_PAINT 0x5ac35ac3u

void lb_board_start(void);
void lb_paint_stack(void);
uint32_t lb_stack_used(void);

#endif
