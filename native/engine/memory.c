/* Memory and errors of a program under construction. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

int lb_out_of_memory(lb_program *p) {
    if (p->status == LB_OK) snprintf(p->error, sizeof p->error, "out of memory while the program was built");
    p->status = LB_NO_MEMORY;
    return -1;
}

int lb_refuse(lb_program *p, const char *format, ...) {
    if (p->status == LB_OK) {
        va_list args;
        va_start(args, format);
        vsnprintf(p->error, sizeof p->error, format, args);
        va_end(args);
        p->status = LB_REFUSED;
    }
    return -1;
}

int lb_grow(lb_program *p, void *array, int *count, int *room, size_t size, int limit) {
    void **slot = array;
    if (*count >= limit) return lb_refuse(p, "a program has at most %d of each part", limit);
    if (*count == *room) {
        int more = *room ? 2 * *room : 16;
        void *larger = realloc(*slot, (size_t)more * size);
        if (!larger) return lb_out_of_memory(p);
        *slot = larger;
        *room = more;
    }
    memset((char *)*slot + (size_t)*count * size, 0, size);
    return (*count)++;
}

/* What precedes a block: its place in the program's list, so that dropping one is quick, and its size. */
typedef struct {
    int64_t bytes;
    int at;
} header;

void *lb_keep(lb_program *p, int64_t count, int64_t size) {
    int64_t bytes = lb_round_up(lb_sum(lb_mul(count, size), LB_ALIGN), LB_ALIGN);
    if (bytes < 0) {
        lb_refuse(p, "a constant of %lld x %lld bytes is too large", (long long)count, (long long)size);
        return NULL;
    }
    if (p->memory_limit && bytes > p->memory_limit - p->kept_bytes) {
        lb_refuse(p, "it would take more than %lld bytes of memory, beyond what a network of its size may", (long long)p->memory_limit);
        return NULL;
    }
    int at = lb_grow(p, &p->kept, &p->kept_count, &p->kept_room, sizeof *p->kept, 1 << 24);
    if (at < 0) return NULL;
    header *block = aligned_alloc(LB_ALIGN, (size_t)bytes);
    if (!block) {
        p->kept_count--;
        lb_out_of_memory(p);
        return NULL;
    }
    memset(block, 0, (size_t)bytes);
    *block = (header){bytes, at};
    p->kept_bytes += bytes;
    p->kept[at] = block;
    return (char *)block + LB_ALIGN;
}

void *lb_copy(lb_program *p, const void *data, int64_t count, int64_t size) {
    void *block = lb_keep(p, count, size);
    if (block && count > 0) memcpy(block, data, (size_t)(count * size));
    return block;
}

void lb_drop(lb_program *p, void *data) {
    if (!data) return;
    header *block = (header *)(void *)((char *)data - LB_ALIGN), *last = p->kept[--p->kept_count];
    p->kept_bytes -= block->bytes;
    p->kept[block->at] = last;
    last->at = block->at;
    free(block);
}

char *lb_text(lb_program *p, const char *format, ...) {
    char line[2048];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    return lb_copy(p, line, (int64_t)strlen(line) + 1, 1);
}
