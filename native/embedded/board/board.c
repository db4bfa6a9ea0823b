/* Serial line and counter of the MPS2 boards. Under `qemu-system-arm -icount shift=0` an instruction takes one nanosecond of virtual time, and SysTick counts
 * the board's 25 MHz clock: 40 instructions a tick. What lb_end reports is instructions of an emulator, not cycles of a processor. */
#include "board.h"

#define UART ((volatile uint32_t *)0x40004000u)    /* CMSDK UART 0: data, state, control, interrupt, divider */
#define SYSTICK ((volatile uint32_t *)0xe000e010u) /* control, reload, value: 24 bits, counting down */
#define INSTRUCTIONS_PER_TICK 40u

static uint32_t began;

void lb_board_start(void) {
    UART[4] = 16;
    UART[2] = 1;
    SYSTICK[1] = 0xffffffu;
    SYSTICK[2] = 0;
    SYSTICK[0] = 5; /* on, from the processor's clock */
}

void lb_write(const char *text) {
    for (; *text; text++) {
        while (UART[1] & 1) {
        }
        UART[0] = (uint32_t)(unsigned char)*text;
    }
}

void lb_write_number(uint32_t number) {
    char digits[11];
    int at = 10;
    digits[10] = 0;
    do digits[--at] = (char)('0' + number % 10);
    while (number /= 10);
    lb_write(digits + at);
}

void lb_begin(void) {
    lb_paint_stack();
    began = SYSTICK[2];
}

void lb_end(const char *what) {
    uint32_t ticks = (began - SYSTICK[2]) & 0xffffffu, stack = lb_stack_used();
    lb_write("measured ");
    lb_write(what);
    lb_write(" instructions ");
    lb_write_number(ticks * INSTRUCTIONS_PER_TICK);
    lb_write(" stack ");
    lb_write_number(stack);
    lb_write("\n");
}
