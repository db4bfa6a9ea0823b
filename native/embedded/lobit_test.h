/* What a generated test asks of the machine that it runs on: host.c or board/. */
#ifndef LOBIT_TEST_H
#define LOBIT_TEST_H

#include <stdint.h>

void lb_write(const char *text);
void lb_write_number(uint32_t number);
void lb_begin(void);
void lb_end(const char *what); /* a board reports what it measured since lb_begin */

#endif
