/* Every loop of training.h, on every instruction set that runs here and on several threads, against plain C. Buffers end at a guard page, so that reading
 * or writing one byte too far stops the program.
 *
 * usage: test_training     prints "N passed, M failed" */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lstm.h"
#include "training.h"

enum { MAX_COUNT = 70001, BUFFERS = 9 };

static int passed, failed;
static char *ends[BUFFERS]; /* each buffer's end: the guard page */

static void check(int holds, const char *what, lb_isa isa, int64_t count) {
    if (holds) {
        passed++;
        return;
    }
    failed++;
    printf("FAILED: %s, isa %d, %lld elements\n", what, (int)isa, (long long)count);
}

static void map_buffers(void) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE), room = (sizeof(float) * MAX_COUNT + page - 1) / page * page;
    for (int i = 0; i < BUFFERS; i++) {
        char *base = mmap(NULL, room + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (base == MAP_FAILED || mprotect(base + room, page, PROT_NONE)) {
            perror("guarded buffer");
            exit(2);
        }
        ends[i] = base + room;
    }
}

static float *floats(int buffer, int64_t count) { return (float *)(void *)(ends[buffer] - count * (int64_t)sizeof(float)); }

static float random_float(void) { return (float)rand() / (float)RAND_MAX * 8.0f - 4.0f; }

static void one_size(int64_t count, int64_t columns, int per_row, lb_isa isa, int threads) {
    static const float special[] = {0.0f, -0.0f, 1.0f, -1.0f, 0.5f, 1.5f, -2.5f, INFINITY, -INFINITY, NAN};
    int64_t rows = (count + columns - 1) / columns, bytes = (count + 7) / 8;
    float *x = floats(0, count), *g = floats(1, count), *out = floats(2, count), *step = floats(3, per_row ? rows : 1);
    uint8_t *mask = (uint8_t *)ends[4] - bytes;
    double *sums = calloc((size_t)rows, sizeof *sums);
    for (int64_t i = 0; i < count; i++) x[i] = rand() % 16 ? random_float() : special[rand() % 10], g[i] = random_float();
    for (int64_t r = 0; r < (per_row ? rows : 1); r++) step[r] = 0.25f + (float)(rand() % 100) / 64.0f;
    lb_training job = {.count = count, .columns = columns, .x = x, .g = g, .out = out, .lo = -2.0f, .hi = 1.0f, .slope = 0.5f};

    int same = 1;
    lb_training_run(LB_TRAIN_SIGN, &job, isa, threads);
    for (int64_t i = 0; i < count; i++) same &= out[i] == (x[i] >= 0 ? 1.0f : -1.0f);
    check(same, "sign", isa, count);

    if (columns % 8 == 0) {
        job.out_mask = mask;
        memset(mask, 0xff, (size_t)bytes);
        lb_training_run(LB_TRAIN_INSIDE, &job, isa, threads);
        same = 1;
        for (int64_t i = 0; i < 8 * bytes; i++) same &= (mask[i / 8] >> (i % 8) & 1) == (i < count && x[i] >= -2.0f && x[i] <= 1.0f);
        check(same, "inside", isa, count);
        job.mask = mask;
        lb_training_run(LB_TRAIN_MASKED, &job, isa, threads);
        same = 1;
        for (int64_t i = 0; i < count; i++) same &= out[i] == (mask[i / 8] >> (i % 8) & 1 ? g[i] * 0.5f : 0.0f);
        check(same, "masked", isa, count);
        lb_training_run(LB_TRAIN_SIGNS, &job, isa, threads);
        same = 1;
        for (int64_t i = 0; i < count; i++) same &= out[i] == (mask[i / 8] >> (i % 8) & 1 ? 1.0f : -1.0f);
        check(same, "signs", isa, count);
    }

    job.step = step, job.step_stride = per_row, job.sums = sums;
    job.out_inside = (uint8_t *)ends[4] - count;
    lb_training_run(LB_TRAIN_ROUND, &job, isa, threads);
    same = 1;
    for (int64_t i = 0; i < count; i++) {
        float at = x[i] / step[per_row ? i / columns : 0];
        same &= job.out_inside[i] == (at >= -2.0f && at <= 1.0f);
        float v = x[i] / step[per_row ? i / columns : 0], clamped = v < -2.0f ? -2.0f : v > 1.0f ? 1.0f : v;
        same &= isnan(x[i]) ? isnan(out[i]) : out[i] == rintf(clamped);
    }
    check(same, "round", isa, count);

    lb_training_run(LB_TRAIN_ROUND_BACK, &job, isa, threads);
    same = 1;
    for (int64_t r = 0; r < rows; r++) {
        double sum = 0, size = 0;
        for (int64_t i = r * columns; i < count && i < (r + 1) * columns; i++) {
            float s = step[per_row ? r : 0], v = x[i] / s;
            int in = v >= -2.0f && v <= 1.0f;
            same &= out[i] == (in ? g[i] / s : 0.0f);
            sum += in ? (double)g[i] * v : 0, size += in ? fabs((double)g[i] * v) : 0;
        }
        same &= fabs(sums[r] - sum) <= 2e-6 * size;
    }
    check(same, "round_back", isa, count);

    int8_t *codes = (int8_t *)ends[4] - count;
    for (int64_t i = 0; i < count; i++) codes[i] = (int8_t)(rand() % 256 - 128);
    job.codes = codes;
    for (int is_unsigned = 0; is_unsigned < 2; is_unsigned++) {
        job.codes_unsigned = is_unsigned;
        lb_training_run(LB_TRAIN_EXPAND, &job, isa, threads);
        same = 1;
        for (int64_t i = 0; i < count; i++)
            same &= out[i] == (float)(is_unsigned ? (uint8_t)codes[i] : codes[i]) * step[per_row ? i / columns : 0];
        check(same, "expand", isa, count);
        lb_training_run(LB_TRAIN_SCALE_BACK, &job, isa, threads);
        same = 1;
        for (int64_t r = 0; r < rows; r++) {
            double sum = 0, size = 0;
            for (int64_t i = r * columns; i < count && i < (r + 1) * columns; i++) {
                double term = (double)g[i] * (is_unsigned ? (uint8_t)codes[i] : codes[i]);
                same &= out[i] == g[i] * step[per_row ? r : 0];
                sum += term, size += fabs(term);
            }
            same &= fabs(sums[r] - sum) <= 2e-6 * size;
        }
        check(same, "scale_back", isa, count);
    }
    free(sums);
}

/* Images as bytes in a border, and their sums back as planes. */
static void one_image(int64_t images, int64_t channels, int64_t height, int64_t width, int lo, lb_isa isa, int threads) {
    int64_t border[2] = {rand() % 3, rand() % 3}, high = height + 2 * border[0], wide = width + 2 * border[1];
    int64_t pixels = height * width, count = images * channels * pixels, framed = images * channels * high * wide;
    float *x = floats(0, count), *out = floats(1, count), *scale = floats(2, channels), *shift = floats(3, channels),
          *offset = floats(5, channels);
    uint8_t *codes = (uint8_t *)ends[4] - framed, *plain = (uint8_t *)ends[6] - count;
    double *sums = calloc((size_t)count + 1, sizeof *sums);
    int64_t amiss = 0;
    for (int64_t i = 0; i < count; i++) {
        static const float wrong[] = {0.5f, 2.0f, -129.0f, INFINITY, -INFINITY, NAN};
        int is_wrong = rand() % 64 == 0;
        x[i] = is_wrong ? wrong[rand() % 6] : (float)(lo + rand() % (2 - lo));
        amiss += is_wrong;
    }
    for (int64_t c = 0; c < channels; c++) scale[c] = random_float(), shift[c] = random_float(), offset[c] = (float)(rand() % 9);
    lb_training job = {
        .count = count, .columns = channels * pixels, .channels = channels, .width = width, .border = {border[0], border[1]}};
    job.x = x, job.out_codes = codes, job.sums = sums, job.lo = (float)lo, job.hi = 1.0f, job.zero = -lo;

    lb_training_run(LB_TRAIN_PIXELS, &job, isa, threads);
    int same = 1;
    double found = 0;
    for (int64_t n = 0; n < images; n++) {
        found += sums[n];
        for (int64_t y = 0; y < high; y++)
            for (int64_t at = 0; at < wide; at++)
                for (int64_t c = 0; c < channels; c++) {
                    int64_t in_y = y - border[0], in_x = at - border[1];
                    uint8_t code = codes[((n * high + y) * wide + at) * channels + c];
                    if (in_y < 0 || in_y >= height || in_x < 0 || in_x >= width) {
                        same &= code == -lo;
                        continue;
                    }
                    float value = x[((n * channels + c) * height + in_y) * width + in_x];
                    if (value >= (float)lo && value <= 1.0f && value == rintf(value)) same &= code == (int)value - lo;
                }
    }
    check(same, "pixels", isa, count);
    check(found == (double)amiss, "pixels that are no codes", isa, count);

    job.out_codes = plain, job.columns = 1 << 10, job.zero = 0;
    lb_training_run(LB_TRAIN_BYTES, &job, isa, threads);
    same = 1, found = 0;
    for (int64_t r = 0; r < (count + job.columns - 1) / job.columns; r++) found += sums[r];
    for (int64_t i = 0; i < count; i++)
        if (x[i] >= (float)lo && x[i] <= 1.0f && x[i] == rintf(x[i])) same &= (int8_t)plain[i] == (int)x[i];
    check(same, "bytes", isa, count);
    check(found == (double)amiss, "bytes that are no codes", isa, count);

    job.columns = channels * pixels, job.out = out;
    for (int parts = 0; parts < 4; parts++) {
        job.step = parts ? scale : NULL, job.step_stride = parts > 1, job.shift = parts > 1 ? shift : NULL,
        job.offset = parts > 2 ? offset : NULL;
        lb_training_run(LB_TRAIN_PLANES, &job, isa, threads);
        same = 1;
        for (int64_t n = 0; n < images; n++)
            for (int64_t c = 0; c < channels; c++)
                for (int64_t p = 0; p < pixels; p++) {
                    float value = x[(n * pixels + p) * channels + c] - (parts > 2 ? offset[c] : 0.0f);
                    if (parts) value = value * scale[parts > 1 ? c : 0];
                    if (parts > 1) value = value + shift[c];
                    float there = out[(n * channels + c) * pixels + p];
                    same &= isnan(value) ? isnan(there) : there == value;
                }
        check(same, "planes", isa, count);
    }
    free(sums);
}

static float gate(const float *table, float v) {
    float clamped = v < -128.0f ? -128.0f : v > 127.0f ? 127.0f : v;
    return table[isnan(v) ? 0 : 129 + (int)rintf(clamped)];
}

/* A step of an LSTM: values equal, gradients to the last places. */
static void one_step(int64_t rows, int64_t units, lb_isa isa, int threads) {
    int64_t wide = rows * 4 * units, narrow = rows * units;
    static float tables[2][257], was[4 * 20 * 257], cell[20 * 257];
    for (int i = 0; i < 257; i++) {
        tables[0][i] = (float)(1.0 / (1.0 + exp(-(i - 129) / 16.0)));
        tables[1][i] = (float)tanh((i - 129) / 16.0);
    }
    float *sums = floats(0, wide), *gates = floats(1, wide), *cells = floats(2, narrow), *c = floats(3, narrow), *y = floats(5, narrow),
          *h = floats(6, narrow);
    uint8_t *inside = (uint8_t *)ends[4] - wide, *new_inside = (uint8_t *)ends[7] - narrow;
    for (int64_t i = 0; i < wide; i++) sums[i] = random_float() * 20.0f, was[i] = gates[i] = rand() % 50 ? random_float() * 20.0f : NAN;
    for (int64_t i = 0; i < narrow; i++) cell[i] = c[i] = random_float();
    lb_lstm step = {.rows = rows,
                    .units = units,
                    .tables = {tables[0], tables[1]},
                    .sums = sums,
                    .gates = gates,
                    .inside = inside,
                    .new_inside = new_inside,
                    .cells = cells,
                    .c = c,
                    .tanh_c = y,
                    .h = h,
                    .out = floats(8, wide)};
    lb_lstm_forward(&step, isa, threads);
    int same = 1;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t u = 0; u < units; u++) {
            float g[4];
            for (int64_t k = 0; k < 4; k++) {
                int64_t at = (r * 4 + k) * units + u;
                float v = was[at] + sums[at];
                g[k] = gate(tables[k == 2], v);
                same &= gates[at] == g[k] && inside[at] == (v >= -128.0f && v <= 127.0f);
            }
            int64_t at = r * units + u;
            float kept = cell[at] * g[1], added = g[0] * g[2], next = kept + added, v = next * 16.0f, t = gate(tables[1], v);
            same &= c[at] == next && cells[at] == cell[at] && y[at] == t && h[at] == g[3] * t &&
                    new_inside[at] == (v >= -128.0f && v <= 127.0f);
        }
    check(same, "lstm forward", isa, wide);
    for (int64_t i = 0; i < narrow; i++) h[i] = random_float(), cell[i] = c[i] = random_float();
    lb_lstm_backward(&step, isa, threads);
    same = 1;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t u = 0; u < units; u++) {
            const float *g = gates + r * 4 * units + u, *out = step.out + r * 4 * units + u;
            const uint8_t *in = inside + r * 4 * units + u;
            int64_t at = r * units + u;
            double i = g[0], f = g[units], n = g[2 * units], o = g[3 * units], t = y[at];
            double d = cell[at] + (new_inside[at] ? h[at] * o * (1 - t * t) : 0);
            double wanted[5] = {d * n * (1 - i) * i, d * cells[at] * (1 - f) * f, d * i * (1 - n * n), h[at] * t * (1 - o) * o, d * f};
            for (int64_t k = 0; k < 4; k++) same &= fabs(out[k * units] - (in[k * units] ? wanted[k] : 0)) <= 1e-5;
            same &= fabs(c[at] - wanted[4]) <= 1e-5;
        }
    check(same, "lstm backward", isa, wide);
}

int main(void) {
    static const int64_t counts[] = {1, 7, 8, 9, 15, 16, 17, 31, 33, 100, 2047, 2049, 16385, MAX_COUNT}, columns[] = {8, 9, 27, 512, 16384};
    srand(1);
    map_buffers();
    for (lb_isa isa = LB_SCALAR; isa <= lb_best_isa(); isa++)
        for (size_t c = 0; c < sizeof counts / sizeof *counts; c++)
            for (size_t k = 0; k < sizeof columns / sizeof *columns; k++)
                for (int per_row = 0; per_row < 2; per_row++)
                    for (int threads = 1; threads <= 3; threads += 2) one_size(counts[c], columns[k], per_row, isa, threads);
    static const int64_t units[] = {1, 7, 16, 255, 257};
    for (lb_isa isa = LB_SCALAR; isa <= lb_best_isa(); isa++)
        for (size_t u = 0; u < sizeof units / sizeof *units; u++)
            for (int64_t rows = 1; rows <= 20; rows += 19)
                for (int threads = 1; threads <= 3; threads += 2) one_step(rows, units[u], isa, threads);
    static const int64_t channels[] = {1, 3, 15, 16, 17, 48}, sizes[][2] = {{1, 8}, {3, 3}, {4, 4}, {5, 7}, {12, 13}};
    for (lb_isa isa = LB_SCALAR; isa <= lb_best_isa(); isa++)
        for (size_t c = 0; c < sizeof channels / sizeof *channels; c++)
            for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++)
                for (int images = 1; images <= 3; images += 2)
                    one_image(images, channels[c], sizes[k][0], sizes[k][1], -(rand() % 3) * 64, isa, images);
    printf("%d passed, %d failed\n", passed, failed);
    return failed ? 1 : 0;
}
