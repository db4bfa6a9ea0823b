/* Start of a Cortex-M3 or M4 without an operating system or libc: vector table, memory, stack painting, the end of the run. For QEMU's mps2-an385 and an386. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "board.h"

extern uint32_t lb_stack_top[], lb_stack_bottom[], lb_data_from[], lb_data_start[], lb_data_end[], lb_bss_start[], lb_bss_end[];

int main(void);
void reset_handler(void);
void fault_handler(void);

void *memcpy(void *restrict to, const void *restrict from, size_t n) {
    unsigned char *t = to;
    const unsigned char *f = from;
    while (n--) *t++ = *f++;
    return to;
}

void *memset(void *to, int value, size_t n) {
    unsigned char *t = to;
    while (n--) *t++ = (unsigned char)value;
    return to;
}

int memcmp(const void *a, const void *b, size_t n) {
    const unsigned char *x = a, *y = b;
    for (; n--; x++, y++)
        if (*x != *y) return *x - *y;
    return 0;
}

/* Semihosting SYS_EXIT_EXTENDED: the emulator ends with this status. */
static void end(uint32_t status) {
    uint32_t block[2] = {0x20026u, status};
    register uint32_t operation __asm__("r0") = 0x20u;
    register uint32_t *argument __asm__("r1") = block;
    __asm__ volatile("bkpt 0xab" : : "r"(operation), "r"(argument) : "memory");
    for (;;) {
    }
}

/* Fill what is below the stack pointer, so that lb_stack_used finds how deep a run went. */
void lb_paint_stack(void) {
    uint32_t here;
    volatile uint32_t *word = lb_stack_bottom;
    __asm__ volatile("mov %0, sp" : "=r"(here));
    while ((uint32_t)(uintptr_t)word < here - 64) *word++ = LB_PAINT;
}

uint32_t lb_stack_used(void) {
    uint32_t here;
    const volatile uint32_t *word = lb_stack_bottom;
    __asm__ volatile("mov %0, sp" : "=r"(here));
    while (*word == LB_PAINT) word++;
    return here - (uint32_t)(uintptr_t)word;
}

void reset_handler(void) {
#if defined(__ARM_FP)
    *(volatile uint32_t *)0xe000ed88u |= 0xfu << 20; /* CPACR: the FPU is off after reset */
    __asm__ volatile("dsb\n isb");
#endif
    memcpy(lb_data_start, lb_data_from, (size_t)((char *)lb_data_end - (char *)lb_data_start));
    memset(lb_bss_start, 0, (size_t)((char *)lb_bss_end - (char *)lb_bss_start));
    lb_board_start();
    end((uint32_t)main());
}

void fault_handler(void) {
    lb_write("FAULT\n");
    end(2);
}

__attribute__((section(".vectors"), used)) static void (*const vectors[16])(void) = {
    (void (*)(void))(uintptr_t)lb_stack_top, reset_handler, fault_handler, fault_handler, fault_handler, fault_handler, fault_handler,
};
