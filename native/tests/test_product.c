/* Every product kernel that runs here against the scalar one, bit for bit. Buffers end at a guard page, so that reading or writing one byte
 * too far stops the program; what a kernel may not write in front of that is checked by canaries.
 *
 * usage: test_product [seed]     prints "N passed, M failed" */
#include "kernel.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define CANARY 0x5ec7e75e
#define MAX_BUFFERS 16

static uint64_t state;
static int passed, failed;

static uint32_t random_word(void) { /* xorshift64* */
    state ^= state >> 12, state ^= state << 25, state ^= state >> 27;
    return (uint32_t)(state * 0x2545f4914f6cdd1dull >> 32);
}
static int64_t random_up_to(int64_t n) { return random_word() % (uint32_t)(n + 1); }

typedef struct {
    void *base;
    size_t mapped;
} mapping;
static mapping mappings[MAX_BUFFERS];
static int mapping_count;

/* `bytes` that end exactly where an inaccessible page begins; aligned to 64 when bytes is a multiple of 64. */
static void *guarded(size_t bytes) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), room = (bytes + page - 1) / page * page + page;
    char *base = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED || mprotect(base + room - page, page, PROT_NONE) || mapping_count == MAX_BUFFERS) {
        perror("guarded buffer");
        exit(2);
    }
    mappings[mapping_count++] = (mapping){base, room};
    return base + room - page - bytes;
}
static void release_all(void) {
    while (mapping_count) {
        mapping_count--;
        munmap(mappings[mapping_count].base, mappings[mapping_count].mapped);
    }
}

typedef enum { RANDOM_WORDS, ALL_ONES, ALL_ZERO, LOWEST, HIGHEST, FILL_COUNT } fill;
static uint32_t weight_word(fill how) {
    switch (how) {
    case ALL_ONES: return 0xffffffffu;
    case ALL_ZERO: return 0;
    case LOWEST: return 0x80808080u;  /* -128 */
    case HIGHEST: return 0x7f7f7f7fu; /* 127  */
    default: return random_word();
    }
}
static uint32_t x_word(fill how) { return how == RANDOM_WORDS ? random_word() : how == ALL_ZERO ? 0 : 0xffffffffu; }

typedef struct {
    int64_t rows, cols, depth;
    int32_t coef, accumulate;
    int classes; /* 0: no row_class */
    int plain;   /* words of a patch consecutive, patches one behind the other, as in a linear layer */
    fill how;
} shape;

static int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

static void compare(const lb_product_kernel *kernel, shape s) {
    const lb_product_kernel *spec = lb_pick(kernel->op, LB_SCALAR);
    const int64_t wide = round_up(s.cols, kernel->nr), ldo = round_up(wide, 16) + 16 * random_up_to(1), ldb = wide + random_up_to(3);
    const int64_t gap = s.plain ? 0 : random_up_to(2), span = s.depth * (1 + gap);
    const int classes = s.classes ? s.classes : 1;

    /* Unless plain, x holds the patches one after another from the last, words of a patch in random order and gap words apart. */
    uint32_t *x = guarded((size_t)(s.rows * span) * 4);
    int64_t *row = guarded((size_t)s.rows * 8);
    int32_t *koff = guarded((size_t)s.depth * 4), *row_class = guarded((size_t)s.rows * 4), *bias = guarded((size_t)(classes * ldb) * 4);
    for (int64_t i = 0; i < s.rows * span; i++) x[i] = x_word(s.how);
    for (int64_t r = 0; r < s.rows; r++) row[r] = (s.plain ? r : s.rows - 1 - r) * span, row_class[r] = (int32_t)random_up_to(classes - 1);
    for (int64_t k = 0; k < s.depth; k++) koff[k] = (int32_t)(k * (1 + gap) + gap);
    for (int64_t k = s.depth - 1; k > 0 && !s.plain; k--) {
        const int64_t j = random_up_to(k);
        const int32_t t = koff[k];
        koff[k] = koff[j], koff[j] = t;
    }
    for (int64_t i = 0; i < classes * ldb; i++) bias[i] = (int32_t)random_word();

    uint32_t *w = guarded((size_t)(s.cols * s.depth) * 4);
    for (int64_t i = 0; i < s.cols * s.depth; i++) w[i] = weight_word(s.how);
    void *packed = guarded(kernel->pack_size(s.cols, s.depth)), *spec_packed = guarded(spec->pack_size(s.cols, s.depth));
    memset(packed, 0xa5, kernel->pack_size(s.cols, s.depth)); /* pack leaves nothing as it found it */
    memset(spec_packed, 0x5a, spec->pack_size(s.cols, s.depth));
    kernel->pack(packed, w, s.cols, s.depth);
    spec->pack(spec_packed, w, s.cols, s.depth);

    /* out ends, after the last row's spare columns, at the guard page; ldo may leave more behind every other row. */
    const size_t out_words = s.rows ? (size_t)((s.rows - 1) * ldo + round_up(wide, 16)) : 0;
    int32_t *out = guarded(out_words * 4), *expected = malloc(out_words * 4 + 1);
    for (size_t i = 0; i < out_words; i++)
        out[i] = expected[i] = (int32_t)i % (int32_t)ldo < wide ? (int32_t)random_word() : (int32_t)CANARY;

    lb_product_args args = {x,      row,         koff, s.rows, s.depth, s.cols, packed, out, ldo, bias, ldb, s.classes ? row_class : NULL,
                            s.coef, s.accumulate};
    kernel->run(&args);
    args.w = spec_packed, args.out = expected;
    spec->run(&args);

    int wrong = 0;
    for (size_t i = 0; i < out_words && !wrong; i++) {
        const int64_t c = (int64_t)i % ldo;
        wrong = (c < s.cols || c >= wide) && out[i] != expected[i];
    }
    if (wrong)
        printf("FAILED %s: rows %ld cols %ld depth %ld coef %d accumulate %d classes %d plain %d fill %d\n", kernel->name, (long)s.rows,
               (long)s.cols, (long)s.depth, s.coef, s.accumulate, s.classes, s.plain, (int)s.how);
    wrong ? failed++ : passed++;
    free(expected);
    release_all();
}

/* The scalar kernel against sums written out here, so that the specification has an oracle too. */
static void check_specification(lb_product_op op) {
    const lb_product_kernel *spec = lb_pick(op, LB_SCALAR);
    const uint32_t x[2] = {0xff00a501u, random_word()}, w[2] = {0x80ff7f01u, random_word()};
    const int64_t row = 0;
    const int32_t koff[2] = {1, 0}, bias[16] = {7};
    int32_t out[16] __attribute__((aligned(64))) = {0};
    void *packed = aligned_alloc(64, spec->pack_size(1, 2));
    spec->pack(packed, w, 1, 2);
    const lb_product_args args = {x, &row, koff, 1, 2, 1, packed, out, 16, bias, 16, NULL, -3, 0};
    spec->run(&args);
    int32_t sum = 0;
    for (int k = 0; k < 2; k++) {
        for (int bit = 0; bit < 32 && op != LB_DOT8; bit++) {
            const int a = x[koff[k]] >> bit & 1, b = w[k] >> bit & 1;
            sum += op == LB_XOR ? a != b : a && b;
        }
        for (int byte = 0; byte < 4 && op == LB_DOT8; byte++) {
            const int b = (int)(w[k] >> 8 * byte & 255);
            sum += (int)(x[koff[k]] >> 8 * byte & 255) * (b < 128 ? b : b - 256);
        }
    }
    if (out[0] == 7 - 3 * sum)
        passed++;
    else
        failed++, printf("FAILED %s against a hand sum: %d, not %d\n", spec->name, out[0], 7 - 3 * sum);
    free(packed);
}

/* kernel.h: the block that starts at column j is at (j / nr) * pack_size(nr, depth), a multiple of 64. */
static void check_blocks(const lb_product_kernel *kernel) {
    const int64_t depth = 1 + random_up_to(40), cols = 3 * kernel->nr, from = kernel->nr;
    const size_t block = kernel->pack_size(kernel->nr, depth);
    uint32_t *w = malloc((size_t)(cols * depth) * 4);
    for (int64_t i = 0; i < cols * depth; i++) w[i] = random_word();
    char *whole = aligned_alloc(64, kernel->pack_size(cols, depth)), *part = aligned_alloc(64, block);
    kernel->pack(whole, w, cols, depth);
    kernel->pack(part, w + from * depth, kernel->nr, depth);
    if (block % 64 == 0 && kernel->pack_size(cols, depth) == 3 * block && !memcmp(whole + block, part, block))
        passed++;
    else
        failed++, printf("FAILED %s: blocks of columns are not contiguous and equal\n", kernel->name);
    free(w), free(whole), free(part);
}

/* kernel.h: spare columns are packed as zero, so the packed bytes are those of a matrix that has the spare columns, zero, written out. */
static void check_spare_columns(const lb_product_kernel *kernel, int64_t cols) {
    const int64_t depth = 1 + random_up_to(40), wide = round_up(cols, kernel->nr);
    const size_t size = kernel->pack_size(cols, depth);
    uint32_t *w = calloc((size_t)(wide * depth), 4);
    for (int64_t i = 0; i < cols * depth; i++) w[i] = random_word();
    char *narrow = aligned_alloc(64, size), *filled = aligned_alloc(64, size);
    memset(narrow, 0xa5, size), memset(filled, 0x5a, size);
    kernel->pack(narrow, w, cols, depth);
    kernel->pack(filled, w, wide, depth);
    if (kernel->pack_size(wide, depth) == size && !memcmp(narrow, filled, size))
        passed++;
    else
        failed++, printf("FAILED %s: spare columns of %ld are not packed as zero\n", kernel->name, (long)cols);
    free(w), free(narrow), free(filled);
}

static void check_kernel(const lb_product_kernel *kernel) {
    static const int64_t rows[] = {0, 1, 2, 3, 4, 5, 6, 7, 11, 13, 16, 17, 32, 36, 37, 53, 70},
                         depths[] = {0, 1, 2, 3, 15, 16, 31, 32, 33, 62, 63, 70, 256, 300};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (size_t j = 0; j < sizeof depths / sizeof *depths; j++)
            for (int n = 0; n < 6; n++)
                compare(kernel, (shape){rows[i], 1 + random_up_to(129), depths[j], (int32_t)random_up_to(6) - 3, n % 2,
                                        (int)random_up_to(3), n / 2 % 2, RANDOM_WORDS});
    for (int64_t cols = 1; cols <= 130; cols++) compare(kernel, (shape){7, cols, 9, 1, 0, 2, 0, RANDOM_WORDS});
    for (fill how = 0; how < FILL_COUNT; how++) { /* 65,536 inputs: 16,384 words of bytes, 2048 of bits */
        compare(kernel, (shape){7, 20, kernel->op == LB_DOT8 ? 16384 : 2048, -128, 0, 0, 0, how});
        compare(kernel, (shape){2, 65, kernel->op == LB_DOT8 ? 16384 : 2048, 1, 1, 0, 1, how});
    }
    check_blocks(kernel);
    for (int64_t cols = 1; cols <= 2 * kernel->nr; cols += 5) check_spare_columns(kernel, cols);
}

int main(int argc, char **argv) {
    state = argc > 1 ? strtoull(argv[1], NULL, 10) : 1609;
    if (!state) state = 1;
    printf("seed %llu, best instruction set %s\n", (unsigned long long)state, lb_isa_name(lb_best_isa()));
    for (int op = 0; op < LB_PRODUCT_COUNT; op++)
        for (int n = 0; n < 50; n++) check_specification((lb_product_op)op);
    for (int i = 0; i < lb_product_kernel_count; i++) {
        const lb_product_kernel *kernel = &lb_product_kernels[i];
        if (lb_kernel_runs(kernel))
            check_kernel(kernel);
        else
            printf("not run here: %s needs %s %s\n", kernel->name, lb_isa_name(kernel->isa), kernel->needs);
    }
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
