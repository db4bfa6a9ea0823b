/* A generated test on a system with an operating system: text goes to standard output, nothing is measured. */
#include <stdio.h>

#include "lobit_test.h"

void lb_write(const char *text) { fputs(text, stdout); }
void lb_write_number(uint32_t number) { printf("%lu", (unsigned long)number); }
void lb_begin(void) {}
void lb_end(const char *what) { (void)what; }
