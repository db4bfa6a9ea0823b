/* Networks through engine.h against reference.c, bit for bit: every value that the engine keeps, and the outputs; on every instruction set that
 * runs here, with every carrier, with one thread and with three.
 *
 * usage: test_engine [seed]     prints "N passed, M failed" */
#include "reference.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_VALUES = 32, MAX_BUFFERS = 256, MAX_STEPS = 8 };

static uint64_t state;
static int passed, failed;

static uint32_t random_word(void) { /* xorshift64* */
    state ^= state >> 12, state ^= state << 25, state ^= state >> 27;
    return (uint32_t)(state * 0x2545f4914f6cdd1dull >> 32);
}
static int64_t random_from(int64_t lo, int64_t hi) { return lo + random_word() % (uint32_t)(hi - lo + 1); }
static float random_float(float lo, float hi) { return lo + (hi - lo) * (float)random_word() / 4294967296.0f; }

/* A value as the engine numbers it and as the reference computed it. */
typedef struct {
    lb_type type;
    ref_shape shape;
    float *floats;
    int32_t *integers; /* sums or codes */
} value;

/* A program and its reference, built side by side. Values have the engine's numbers. */
typedef struct {
    lb_program *program;
    const char *title;
    value values[MAX_VALUES];
    void *buffers[MAX_BUFFERS];
    int buffer_count;
    const float *input;
} net;

static void *take(net *n, int64_t count, size_t size) {
    void *buffer = calloc((size_t)count, size);
    if (!buffer || n->buffer_count == MAX_BUFFERS) exit(2);
    return n->buffers[n->buffer_count++] = buffer;
}

static int enter(net *n, int id, ref_shape shape, float *floats, int32_t *integers) {
    if (id < 0 || id >= MAX_VALUES) {
        printf("FAILED %s: %s\n", n->title, lb_program_error(n->program));
        exit(1);
    }
    value *v = &n->values[id];
    *v = (value){.shape = shape, .floats = floats, .integers = integers};
    lb_value_type(n->program, id, &v->type);
    int64_t told = 1;
    for (int i = 0; i < v->type.rank; i++) told *= v->type.shape[i];
    if (told * shape.batch != ref_size(shape)) {
        printf("FAILED %s: value %d has the wrong shape\n", n->title, id);
        exit(1);
    }
    return id;
}

static int input(net *n, ref_shape s, int rank) {
    float *x = take(n, ref_size(s), sizeof *x);
    for (int64_t i = 0; i < ref_size(s); i++) x[i] = random_float(-1.5f, 1.5f);
    n->input = x;
    return enter(n, lb_add_input(n->program, "x", rank, (int64_t[]){s.channels, rank == 2 ? s.width : s.height, s.width}), s, x, NULL);
}

/* `ops` with random operands, one for each channel (or one for all, every other time); code NULL ends in floats. */
static int chain(net *n, const char *name, int from, const lb_step_op *ops, int count, const lb_code *code, int32_t zero) {
    const value v = n->values[from];
    const int64_t size = ref_size(v.shape), pixels = v.shape.height * v.shape.width;
    lb_step steps[MAX_STEPS];
    for (int i = 0; i < count; i++) {
        const int unary = ops[i] == LB_TO_FLOAT || ops[i] == LB_STEP_ROUND;
        const int64_t operands = i % 2 ? v.shape.channels : 1;
        float *k = take(n, operands, sizeof *k);
        for (int64_t c = 0; c < operands; c++) k[c] = random_float(0.05f, 2.0f) * (ops[i] == LB_STEP_ADD && random_word() % 2 ? -1 : 1);
        steps[i] = (lb_step){ops[i], unary ? NULL : k, unary ? 0 : operands};
    }
    float *floats = take(n, size, sizeof *floats);
    int32_t *codes = code ? take(n, size, sizeof *codes) : NULL;
    for (int64_t i = 0; i < size; i++) {
        const int64_t c = i / pixels % v.shape.channels;
        float x = v.floats ? v.floats[i] : (float)v.integers[i];
        for (int j = 0; j < count; j++)
            x = ref_step(steps[j].op, x, steps[j].operand ? steps[j].operand[steps[j].count > 1 ? c : 0] : 0.0f);
        floats[i] = x;
        if (code) codes[i] = ref_to_code(x, *code, zero);
    }
    return enter(n, lb_add_chain(n->program, name, from, steps, count, code, zero), v.shape, code ? NULL : floats, codes);
}

static int threshold(net *n, const char *name, int from, lb_code code) {
    const value v = n->values[from];
    const int64_t size = ref_size(v.shape), channels = v.shape.channels, pixels = v.shape.height * v.shape.width;
    int16_t levels[256];
    const int many = ref_levels(code, levels) - 1;
    int32_t *at = take(n, channels * many, sizeof *at), *direction = take(n, channels, sizeof *direction);
    for (int64_t c = 0; c < channels; c++) {
        direction[c] = random_word() % 2 ? 1 : -1;
        int32_t t = (int32_t)random_from(-20, 5) * direction[c];
        for (int j = 0; j < many; j++, t += (int32_t)random_from(0, 9) * direction[c]) at[c * many + j] = t;
    }
    int32_t *codes = take(n, size, sizeof *codes);
    for (int64_t i = 0; i < size; i++) {
        const int64_t c = i / pixels % channels;
        codes[i] = ref_threshold(v.integers[i], code, at + c * many, direction[c]);
    }
    return enter(n, lb_add_threshold(n->program, name, from, code, 0, at, direction), v.shape, NULL, codes);
}

/* A product with random weights; window NULL is a linear layer. */
static int product(net *n, const char *name, int from, lb_code code, int64_t outputs, const lb_window *window) {
    const value v = n->values[from];
    const lb_window one = {{1, 1}, {1, 1}, {0, 0, 0, 0}, {1, 1}, 1}, *w = window ? window : &one;
    const int64_t count = outputs * v.shape.channels / w->groups * w->kernel[0] * w->kernel[1];
    int16_t levels[256], *weights = take(n, count, sizeof *weights);
    const int many = ref_levels(code, levels);
    for (int64_t i = 0; i < count; i++) weights[i] = levels[random_word() % (uint32_t)many];
    const ref_shape shape = ref_window_shape(v.shape, outputs, w);
    int32_t *sums = take(n, ref_size(shape), sizeof *sums);
    ref_product(v.integers, v.shape, v.type.zero, weights, outputs, w, sums);
    const int id = window ? lb_add_conv2d(n->program, name, from, code, outputs, window, weights)
                          : lb_add_linear(n->program, name, from, code, outputs, weights);
    return enter(n, id, shape, NULL, sums);
}

static int max_pool(net *n, const char *name, int from, const lb_window *w) {
    const value v = n->values[from];
    const ref_shape shape = ref_window_shape(v.shape, v.shape.channels, w);
    int32_t *out = take(n, ref_size(shape), sizeof *out);
    ref_max_pool(v.integers, v.shape, w, out);
    return enter(n, lb_add_max_pool2d(n->program, name, from, w), shape, NULL, out);
}

static int avg_pool(net *n, const char *name, int from, const lb_window *w, int64_t divisor) {
    const value v = n->values[from];
    const ref_shape shape = ref_window_shape(v.shape, v.shape.channels, w);
    float *out = take(n, ref_size(shape), sizeof *out);
    ref_avg_pool(v.floats, v.shape, w, divisor, out);
    return enter(n, lb_add_avg_pool2d(n->program, name, from, w, divisor), shape, out, NULL);
}

static int add(net *n, const char *name, int a, int b) {
    const value v = n->values[a];
    float *out = take(n, ref_size(v.shape), sizeof *out);
    for (int64_t i = 0; i < ref_size(v.shape); i++) out[i] = v.floats[i] + n->values[b].floats[i];
    return enter(n, lb_add_add(n->program, name, a, b), v.shape, out, NULL);
}

static int flatten(net *n, const char *name, int from) {
    const value v = n->values[from];
    const ref_shape flat = {v.shape.batch, v.shape.channels * v.shape.height * v.shape.width, 1, 1};
    return enter(n, lb_add_flatten(n->program, name, from), flat, v.floats, v.integers);
}

/* Codes are padded with a random code, floats with a random number. */
static int pad(net *n, const char *name, int from, const int64_t padding[4]) {
    const value v = n->values[from];
    const lb_window w = {{1, 1}, {1, 1}, {padding[0], padding[1], padding[2], padding[3]}, {1, 1}, 1};
    const ref_shape shape = ref_window_shape(v.shape, v.shape.channels, &w);
    int16_t levels[256];
    const float fill = v.floats ? random_float(-1, 1) : levels[random_word() % (uint32_t)ref_levels(v.type.code, levels)];
    float *floats = v.floats ? take(n, ref_size(shape), sizeof *floats) : NULL;
    int32_t *codes = v.floats ? NULL : take(n, ref_size(shape), sizeof *codes);
    for (int64_t q = 0; q < ref_size(shape); q++) {
        const int64_t plane = q / (shape.height * shape.width), y = q / shape.width % shape.height - padding[0],
                      x = q % shape.width - padding[1], at = (plane * v.shape.height + y) * v.shape.width + x;
        const int inside = y >= 0 && y < v.shape.height && x >= 0 && x < v.shape.width;
        if (floats)
            floats[q] = inside ? v.floats[at] : fill;
        else
            codes[q] = inside ? v.integers[at] : (int32_t)fill;
    }
    return enter(n, lb_add_pad2d(n->program, name, from, padding, fill), shape, floats, codes);
}

static int concat(net *n, const char *name, const int *from, int count) {
    ref_shape shape = n->values[from[0]].shape;
    const int64_t pixels = shape.height * shape.width;
    for (int k = 1; k < count; k++) shape.channels += n->values[from[k]].shape.channels;
    float *floats = n->values[from[0]].floats ? take(n, ref_size(shape), sizeof *floats) : NULL;
    int32_t *codes = floats ? NULL : take(n, ref_size(shape), sizeof *codes);
    for (int64_t b = 0, at = 0; b < shape.batch; b++)
        for (int k = 0; k < count; k++) {
            const value *v = &n->values[from[k]];
            for (int64_t i = 0, size = v->shape.channels * pixels; i < size; i++, at++) {
                if (floats) floats[at] = v->floats[b * size + i];
                if (codes) codes[at] = v->integers[b * size + i];
            }
        }
    return enter(n, lb_add_concat(n->program, name, from, count), shape, floats, codes);
}

/* Random rows and columns; with weights, mixes of floats, each of a row with the next one. */
static int resize(net *n, const char *name, int from, int64_t height, int64_t width, int mix) {
    const value v = n->values[from];
    const ref_shape shape = {v.shape.batch, v.shape.channels, height, width};
    int32_t *rows = take(n, height, sizeof *rows), *columns = take(n, width, sizeof *columns);
    float *down = mix ? take(n, height, sizeof *down) : NULL, *right = mix ? take(n, width, sizeof *right) : NULL;
    float *floats = v.floats ? take(n, ref_size(shape), sizeof *floats) : NULL;
    int32_t *codes = v.floats ? NULL : take(n, ref_size(shape), sizeof *codes);
    for (int64_t i = 0; i < height; i++) rows[i] = (int32_t)random_from(0, v.shape.height - 1);
    for (int64_t j = 0; j < width; j++) columns[j] = (int32_t)random_from(0, v.shape.width - 1);
    for (int64_t i = 0; mix && i < height; i++) down[i] = random_word() % 4 ? random_float(0, 1) : (float)(random_word() % 2);
    for (int64_t j = 0; mix && j < width; j++) right[j] = random_float(0, 1);
    for (int64_t q = 0; q < ref_size(shape); q++) {
        const int64_t i = q / width % height, j = q % width, y = rows[i], x = columns[j], at = q / (height * width) * v.shape.height;
        const int64_t beside = x + 1 < v.shape.width, below = y + 1 < v.shape.height ? v.shape.width : 0,
                      first = (at + y) * v.shape.width + x;
        if (codes) codes[q] = v.integers[first];
        if (!floats) continue;
        floats[q] = v.floats[first];
        if (!mix) continue;
        const float change = v.floats[first + below] - floats[q], lower = down[i] * change, a = floats[q] + lower;
        const float other = v.floats[first + below + beside] - v.floats[first + beside], more = down[i] * other;
        const float b = v.floats[first + beside] + more, across = b - a, share = right[j] * across;
        floats[q] = a + share;
    }
    const lb_resize_map map = {height, width, rows, columns, down, right};
    return enter(n, lb_add_resize2d(n->program, name, from, &map), shape, floats, codes);
}

static int same(const value *v, const void *data) {
    for (int64_t i = 0; i < ref_size(v->shape); i++) {
        if (v->type.kind == LB_F32 && memcmp((const float *)data + i, v->floats + i, sizeof(float))) return 0;
        if (v->type.kind == LB_I32 && ((const int32_t *)data)[i] != v->integers[i]) return 0;
        if (v->type.kind == LB_CODES && ((const int16_t *)data)[i] != v->integers[i]) return 0;
    }
    return 1;
}

static void check(net *n, int output, lb_options options) {
    lb_program *p = n->program;
    if (lb_set_outputs(p, &output, 1) || lb_finish(p, &options)) {
        printf("FAILED %s: %s\n", n->title, lb_program_error(p));
        exit(1);
    }
    const int64_t batch = n->values[output].shape.batch;
    for (int threads = 1; threads <= 3; threads += 2) {
        lb_tap taps[MAX_VALUES];
        int count = 0;
        for (int i = 0; i < MAX_VALUES; i++)
            if (n->values[i].shape.batch && lb_value_stored(p, i))
                taps[count++] = (lb_tap){i, take(n, ref_size(n->values[i].shape), sizeof(float))};
        void *y = take(n, ref_size(n->values[output].shape), sizeof(float));
        const lb_call call = {batch, threads, &n->input, &y, taps, count, NULL};
        const int ran = lb_run(p, &call) == LB_OK;
        int wrong = ran ? same(&n->values[output], y) ? -1 : output : output;
        for (int i = 0; ran && i < count; i++)
            if (!same(&n->values[taps[i].value], taps[i].data)) wrong = taps[i].value;
        if (wrong >= 0)
            printf("FAILED %s: value %d, %s, carrier %d, %d thread(s)\n", n->title, wrong, lb_isa_name(options.isa), options.prefer,
                   threads);
        wrong >= 0 ? failed++ : passed++;
    }
    lb_program_free(p);
    for (int i = 0; i < n->buffer_count; i++) free(n->buffers[i]);
}

static net begin(const char *title) {
    net n = {.program = lb_program_new(), .title = title};
    if (!n.program) exit(2);
    return n;
}

static void mlp(lb_code a, lb_code w, lb_code hidden, lb_options options) {
    net n = begin("mlp");
    const int32_t zero = a.alphabet == LB_UNSIGNED && a.bits > 1 ? (int32_t)random_from(0, 2) : 0;
    int x = input(&n, (ref_shape){random_from(1, 5), random_from(1, 150), 1, 1}, 1);
    x = chain(&n, "input", x, (lb_step_op[]){LB_STEP_MUL, LB_STEP_ADD}, 2, &a, zero);
    x = product(&n, "fc1", x, w, random_from(1, 140), NULL);
    x = threshold(&n, "act1", x, hidden);
    x = product(&n, "fc2", x, w, random_from(1, 20), NULL);
    x = chain(&n, "out", x, (lb_step_op[]){LB_TO_FLOAT, LB_STEP_MUL, LB_STEP_SUB}, 3, NULL, 0);
    check(&n, x, options);
}

static void convnet(lb_code a, lb_code w, lb_options options) {
    net n = begin("convnet");
    const int64_t channels = 2 * random_from(1, 18), groups = random_word() % 2 ? 2 : 1;
    const lb_window three = {{3, 3}, {1, 1}, {1, 1, 1, 1}, {1, 1}, groups}, wide = {{3, 2}, {2, 1}, {2, 0, 1, 1}, {2, 1}, 1},
                    pool = {{2, 2}, {2, 1}, {0, 0, 1, 0}, {1, 1}, 1};
    int x = input(&n, (ref_shape){random_from(1, 3), random_from(1, 5), random_from(5, 9), random_from(5, 9)}, 3);
    x = chain(&n, "input", x, (lb_step_op[]){LB_STEP_DIV}, 1, &a, 0);
    x = resize(&n, "near", x, random_from(5, 11), random_from(5, 11), 0);
    x = product(&n, "conv1", pad(&n, "pad1", x, (int64_t[]){0, 1, 2, 0}), w, channels, &wide);
    const int shortcut = chain(&n, "norm1", x, (lb_step_op[]){LB_TO_FLOAT, LB_STEP_MUL, LB_STEP_ADD}, 3, NULL, 0);
    x = chain(&n, "act1", shortcut, (lb_step_op[]){LB_STEP_MAX, LB_STEP_DIV, LB_STEP_MIN}, 3, &a, 0);
    const int other = chain(&n, "act3", shortcut, (lb_step_op[]){LB_STEP_MAX, LB_STEP_DIV}, 2, &a, 0);
    x = product(&n, "conv2", concat(&n, "join1", (int[]){x, other}, 2), w, channels, &three);
    x = chain(&n, "norm2", x, (lb_step_op[]){LB_TO_FLOAT, LB_STEP_DIV, LB_STEP_SUB}, 3, NULL, 0);
    x = resize(&n, "mix", add(&n, "add", x, shortcut), random_from(2, 8), random_from(2, 8), 1);
    x = avg_pool(&n, "mean", pad(&n, "pad2", x, (int64_t[]){1, 0, 0, 3}), &pool, 4);
    x = chain(&n, "act2", x, (lb_step_op[]){LB_STEP_ROUND, LB_STEP_MUL}, 2, &a, 0);
    x = flatten(&n, "flatten", max_pool(&n, "pool", x, &(lb_window){{2, 1}, {1, 1}, {1, 0, 0, 0}, {1, 1}, 1}));
    x = concat(&n, "join2", (int[]){x, flatten(&n, "flatten1", other)}, 2);
    check(&n, product(&n, "fc", x, w, 10, NULL), options);
}

/* Values of two axes: images of one row. */
static void row(lb_code a, lb_code w, lb_options options) {
    net n = begin("row");
    const lb_window along = {{1, 3}, {2, 2}, {0, 1, 0, 2}, {1, 2}, 1}, pool = {{1, 2}, {1, 1}, {0, 0, 0, 1}, {1, 1}, 1};
    int x = input(&n, (ref_shape){random_from(1, 4), random_from(1, 40), 1, random_from(4, 20)}, 2);
    x = chain(&n, "input", avg_pool(&n, "mean", x, &pool, 2), (lb_step_op[]){LB_STEP_MUL, LB_STEP_ADD}, 2, &a, 0);
    x = resize(&n, "near", x, 1, random_from(4, 20), 0);
    x = product(&n, "conv1", pad(&n, "pad", x, (int64_t[]){0, 2, 0, 1}), w, random_from(1, 40), &along);
    x = chain(&n, "act1", x, (lb_step_op[]){LB_TO_FLOAT, LB_STEP_DIV}, 2, &a, 0);
    x = concat(&n, "join", (int[]){x, max_pool(&n, "pool", x, &(lb_window){{1, 3}, {1, 1}, {0, 1, 0, 1}, {1, 1}, 1}), x}, 3);
    check(&n, product(&n, "fc", flatten(&n, "flatten", x), w, 9, NULL), options);
}

int main(int argc, char **argv) {
    static const lb_code activations[] = {{LB_ODD, 1},      {LB_UNSIGNED, 1}, {LB_UNSIGNED, 2}, {LB_SIGNED, 2}, {LB_TERNARY, 2},
                                          {LB_UNSIGNED, 4}, {LB_SIGNED, 5},   {LB_UNSIGNED, 8}, {LB_SIGNED, 8}, {LB_LOG2, 4}},
                         weights[] = {{LB_ODD, 1},    {LB_UNSIGNED, 1}, {LB_SIGNED, 2}, {LB_TERNARY, 2},  {LB_ODD, 3},
                                      {LB_SIGNED, 4}, {LB_LOG2, 4},     {LB_SIGNED, 8}, {LB_UNSIGNED, 8}, {LB_ODD, 8}},
                         hidden[] = {{LB_ODD, 1}, {LB_UNSIGNED, 1}, {LB_UNSIGNED, 2}, {LB_SIGNED, 2}, {LB_TERNARY, 2}};
    state = argc > 1 ? strtoull(argv[1], NULL, 10) : 1609;
    if (!state) state = 1;
    printf("seed %llu, best instruction set %s\n", (unsigned long long)state, lb_isa_name(lb_best_isa()));
    for (size_t i = 0; i < sizeof activations / sizeof *activations; i++)
        for (size_t j = 0; j < sizeof weights / sizeof *weights; j++)
            for (int isa = LB_SCALAR; isa <= (int)lb_best_isa(); isa++)
                for (int prefer = LB_PREFER_COST; prefer <= LB_PREFER_BYTES; prefer++) {
                    const lb_options options = {(lb_isa)isa, (lb_prefer)prefer};
                    mlp(activations[i], weights[j], hidden[(i + j) % (sizeof hidden / sizeof *hidden)], options);
                    convnet(activations[i], weights[j], options);
                    row(activations[i], weights[j], options);
                }
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
