/* Weights into blocks of nr columns, [block][depth][nr], spare columns zero. */
#include "kernel.h"
#include "product.h"

#include <string.h>

static size_t blocks(int64_t cols, int64_t nr) { return (size_t)((cols + nr - 1) / nr); }

static size_t pack_size(int64_t cols, int64_t depth, int64_t nr) {
    return blocks(cols, nr) * (size_t)depth * (size_t)nr * sizeof(uint32_t);
}

/* In strips of 16 words of depth, so that the reads of a strip are whole cache lines of each column. */
static void pack(uint32_t *dst, const uint32_t *src, int64_t cols, int64_t depth, int64_t nr) {
    for (int64_t c = 0; c < cols; c += nr, dst += depth * nr) {
        const int64_t used = cols - c < nr ? cols - c : nr;
        if (used < nr) memset(dst, 0, (size_t)(depth * nr) * sizeof *dst);
        for (int64_t k0 = 0; k0 < depth; k0 += 16) {
            const int64_t k1 = depth - k0 < 16 ? depth : k0 + 16;
            for (int64_t j = 0; j < used; j++)
                for (int64_t k = k0; k < k1; k++) dst[k * nr + j] = src[(c + j) * depth + k];
        }
    }
}

size_t lb_pack_size_16(int64_t cols, int64_t depth) { return pack_size(cols, depth, 16); }
size_t lb_pack_size_64(int64_t cols, int64_t depth) { return pack_size(cols, depth, 64); }
void lb_pack_16(void *dst, const uint32_t *src, int64_t cols, int64_t depth) { pack(dst, src, cols, depth, 16); }
void lb_pack_64(void *dst, const uint32_t *src, int64_t cols, int64_t depth) { pack(dst, src, cols, depth, 64); }
