/* Byte products on AMX tiles (TDPBUSD, u8 times s8). kernel.h states the contract.
 *
 * A tile instruction multiplies 16 rows x 64 bytes of activations by 16 words x 16 channels of weights: 16,384 products in 16 cycles. Two tiles
 * of rows by two of channels are summed at once, so each tile that is loaded serves twice.
 *
 * Weights of a block of 64 channels are [depth up to a multiple of 16][64] words, zero behind the depth: a tile of weights is 16 of those
 * lines. A tile of activations is read in place where 16 words of a patch are consecutive and the rows equally far apart; else it is copied
 * together first, with zeros for what is not there. A copy is at most MAX_STEPS deep, and the passes of a deeper product add up in `out`.
 *
 * Tried and lost: weights as tiles of 1 KiB instead of lines of 64 channels, and copying every tile of activations together; both were slower or
 * no faster, and the first cannot be shared with the VNNI kernel.
 *
 * A tile costs the same however few of its rows are used, so a handful of rows is left to the VNNI kernel, which reads the same blocks.
 *
 * Bounds: a byte product adds at most 4 * 255 * 128 a word; sums are modulo 2^32 and the plan proves that true sums fit. */
#include "kernel.h"
#include "product.h"

#include <immintrin.h>
#include <string.h>

#define NR 64
#define TILE 16 /* rows of a tile, its channels, and its words of depth */
#define WIDE (2 * TILE)
#define MAX_STEPS 16 /* of TILE words: 32 KiB of copied activations */
#define FEW_ROWS 4

#define INLINE static inline __attribute__((always_inline))

typedef struct {
    uint8_t palette, start_row, zero[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_config;

/* Where the tiles of activations of one pass are; `copy` is used by those that are not read in place. */
typedef struct {
    const void *from[2][MAX_STEPS];
    int64_t stride[2][MAX_STEPS]; /* bytes between rows */
    uint32_t copy[2][MAX_STEPS][TILE][TILE] __attribute__((aligned(64)));
} activations;

static int consecutive(const int32_t *koff, int words) {
    for (int k = 1; k < words; k++)
        if (koff[k] != koff[0] + k) return 0;
    return 1;
}

/* Words between one row and the next; 0 where they differ. */
static int64_t row_step(const int64_t *row) {
    const int64_t step = row[1] - row[0];
    for (int r = 2; r < TILE; r++)
        if (row[r] - row[r - 1] != step) return 0;
    return step;
}

static void copy_tile(uint32_t tile[TILE][TILE], const lb_product_args *a, const int64_t *row, int rows, int64_t k, int words, int line) {
    const __mmask16 used = (__mmask16)((1u << words) - 1);
    const __m512i at = _mm512_maskz_loadu_epi32(used, a->koff + k);
    for (int r = 0; r < rows; r++) {
        const uint32_t *x = a->x + row[r];
        _mm512_store_si512(tile[r], line ? _mm512_maskz_loadu_epi32(used, x + a->koff[k])
                                         : _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), used, at, x, 4));
    }
    for (int r = rows; r < TILE; r++) _mm512_store_si512(tile[r], _mm512_setzero_si512());
}

/* Prepares `steps` tiles of depth from word k0 on, for the `rows` (at most WIDE) rows from r0 on. */
static void find_activations(activations *found, const lb_product_args *a, int64_t r0, int rows, int64_t k0, int steps) {
    for (int half = 0; half < 2 && half * TILE < rows; half++) {
        const int64_t *row = a->row + r0 + half * TILE;
        const int here = rows - half * TILE < TILE ? rows - half * TILE : TILE;
        const int64_t step = here == TILE ? row_step(row) : 0;
        for (int s = 0; s < steps; s++) {
            const int64_t k = k0 + s * TILE, left = a->depth - k;
            const int words = left < TILE ? (int)left : TILE, line = consecutive(a->koff + k, words);
            const int in_place = line && step && words == TILE;
            if (!in_place) copy_tile(found->copy[half][s], a, row, here, k, words, line);
            found->from[half][s] = in_place ? (const void *)(a->x + row[0] + a->koff[k]) : found->copy[half][s];
            found->stride[half][s] = in_place ? step * (int64_t)sizeof *a->x : (int64_t)sizeof found->copy[half][s][0];
        }
    }
}

INLINE void sum_tiles(int32_t sums[WIDE][WIDE], const activations *from, const uint32_t *w, int steps, const int halves) {
    enum { LINE = NR * sizeof *w };
    _tile_zero(0);
    _tile_zero(1);
    if (halves > 1) {
        _tile_zero(2);
        _tile_zero(3);
    }
    for (int s = 0; s < steps; s++, w += TILE * NR) {
        _tile_loadd(6, w, LINE);
        _tile_loadd(4, from->from[0][s], from->stride[0][s]);
        _tile_dpbusd(0, 4, 6);
        _tile_loadd(7, w + TILE, LINE);
        _tile_dpbusd(1, 4, 7);
        if (halves > 1) {
            _tile_loadd(5, from->from[1][s], from->stride[1][s]);
            _tile_dpbusd(2, 5, 6);
            _tile_dpbusd(3, 5, 7);
        }
    }
    _tile_stored(0, sums[0], sizeof sums[0]);
    _tile_stored(1, sums[0] + TILE, sizeof sums[0]);
    if (halves > 1) {
        _tile_stored(2, sums[TILE], sizeof sums[0]);
        _tile_stored(3, sums[TILE] + TILE, sizeof sums[0]);
    }
}

static void finish(const lb_product_args *a, const int32_t sums[WIDE][WIDE], int64_t r0, int rows, int64_t c, int accumulate) {
    const __m512i coef = _mm512_set1_epi32(a->coef);
    for (int i = 0; i < rows; i++) {
        const int64_t r = r0 + i;
        int32_t *out = a->out + r * a->ldo + c;
        const int32_t *base = accumulate ? out : a->bias + (a->row_class ? a->row_class[r] : 0) * a->ldb + c;
        for (int j = 0; j < WIDE; j += TILE)
            _mm512_storeu_si512(out + j,
                                _mm512_add_epi32(_mm512_loadu_si512(base + j), _mm512_mullo_epi32(_mm512_load_si512(sums[i] + j), coef)));
    }
}

static void wide_rows(const lb_product_args *a, int64_t r, int rows, int64_t depth) {
    activations from;
    int32_t sums[WIDE][WIDE] __attribute__((aligned(64)));
    const int64_t block = depth * NR;
    int64_t k = 0;
    do {
        const int64_t left = (depth - k) / TILE;
        const int steps = left < MAX_STEPS ? (int)left : MAX_STEPS;
        find_activations(&from, a, r, rows, k, steps);
        for (int64_t c = 0; c < a->cols; c += WIDE) {
            const uint32_t *w = (const uint32_t *)a->w + c / NR * block + k * NR + c % NR;
            if (rows > TILE)
                sum_tiles(sums, &from, w, steps, 2);
            else
                sum_tiles(sums, &from, w, steps, 1);
            finish(a, (const int32_t (*)[WIDE])sums, r, rows, c, a->accumulate || k > 0);
        }
        k += MAX_STEPS * TILE;
    } while (k < depth);
}

static void few_rows(lb_product_args a, int64_t r, int64_t depth) {
    const lb_product_args all = a;
    a.rows = all.rows - r;
    a.row = all.row + r;
    a.row_class = all.row_class ? all.row_class + r : NULL;
    for (int64_t c = 0; c < all.cols; c += NR) {
        a.cols = all.cols - c < NR ? all.cols - c : NR;
        a.w = (const uint32_t *)all.w + c * depth;
        a.out = all.out + r * all.ldo + c;
        a.bias = all.bias + c;
        lb_dot8_vnni_6x64_avx512(&a);
    }
}

static int64_t whole_tiles(int64_t depth) { return (depth + TILE - 1) / TILE * TILE; }

void lb_dot8_32x32_amx(const lb_product_args *a) {
    const int64_t depth = whole_tiles(a->depth);
    int64_t r = 0;
    if (a->rows > FEW_ROWS) {
        tile_config config = {.palette = 1};
        for (int tile = 0; tile < 8; tile++) config.rows[tile] = TILE, config.row_bytes[tile] = TILE * sizeof(uint32_t);
        _tile_loadconfig(&config);
        for (; a->rows - r > FEW_ROWS; r += WIDE) wide_rows(a, r, a->rows - r < WIDE ? (int)(a->rows - r) : WIDE, depth);
        _tile_release();
    }
    if (r < a->rows) few_rows(*a, r, depth);
}

size_t lb_pack_size_amx(int64_t cols, int64_t depth) { return lb_pack_size_64(cols, whole_tiles(depth)); }

void lb_pack_amx(void *dst, const uint32_t *src, int64_t cols, int64_t depth) {
    const int64_t block = whole_tiles(depth) * NR;
    for (int64_t c = 0; c < cols; c += NR) {
        uint32_t *to = (uint32_t *)dst + c / NR * block;
        lb_pack_64(to, src + c * depth, cols - c < NR ? cols - c : NR, depth);
        memset(to + depth * NR, 0, (size_t)(block - depth * NR) * sizeof *to);
    }
}
