#include "reference.h"

#include <math.h>

int64_t ref_size(ref_shape s) { return s.batch * s.channels * s.height * s.width; }

static int64_t extent(int64_t size, const lb_window *w, int axis) {
    return (size + w->padding[axis] + w->padding[axis + 2] - w->dilation[axis] * (w->kernel[axis] - 1) - 1) / w->stride[axis] + 1;
}

ref_shape ref_window_shape(ref_shape x, int64_t channels, const lb_window *w) {
    return (ref_shape){x.batch, channels, extent(x.height, w, 0), extent(x.width, w, 1)};
}

int ref_levels(lb_code code, int16_t *levels) {
    const int n = 1 << code.bits;
    int count = 0;
    switch (code.alphabet) {
    case LB_UNSIGNED:
        for (int c = 0; c < n; c++) levels[count++] = (int16_t)c;
        break;
    case LB_SIGNED:
        for (int c = -n / 2; c < n / 2; c++) levels[count++] = (int16_t)c;
        break;
    case LB_ODD:
        for (int c = 1 - n; c < n; c += 2) levels[count++] = (int16_t)c;
        break;
    case LB_TERNARY:
        for (int c = -1; c <= 1; c++) levels[count++] = (int16_t)c;
        break;
    case LB_LOG2:
        for (int e = n / 2 - 2; e >= 0; e--) levels[count++] = (int16_t)-(1 << e);
        levels[count++] = 0;
        for (int e = 0; e <= n / 2 - 2; e++) levels[count++] = (int16_t)(1 << e);
        break;
    }
    return count;
}

float ref_step(lb_step_op op, float x, float k) {
    switch (op) {
    case LB_STEP_ROUND: return rintf(x);
    case LB_STEP_ADD: return x + k;
    case LB_STEP_SUB: return x - k;
    case LB_STEP_MUL: return x * k;
    case LB_STEP_DIV: return x / k;
    case LB_STEP_MAX: return x > k ? x : k;
    case LB_STEP_MIN: return x < k ? x : k;
    case LB_TO_FLOAT: break; /* the caller's conversion */
    }
    return x;
}

int32_t ref_to_code(float x, lb_code code, int32_t zero) {
    int16_t levels[256];
    const int count = ref_levels(code, levels);
    if (code.alphabet == LB_ODD) return x >= 0 ? 1 : -1;
    if (code.alphabet == LB_LOG2) { /* the larger of two neighbours from their geometric mean on */
        int32_t size = 0;
        for (int e = 0; e < (1 << code.bits) / 2 - 1; e++)
            if (fabsf(x) >= ldexpf(0x1.6a09e6p0f, e - 1)) size = 1 << e;
        return isnan(x) ? levels[0] : x < 0 ? -size : size;
    }
    const int32_t lo = levels[0] - zero, hi = levels[count - 1] - zero;
    const double rounded = rint(x);
    return (rounded < lo ? lo : rounded > hi ? hi : (int32_t)rounded) + zero;
}

int32_t ref_threshold(int32_t sum, lb_code code, const int32_t *thresholds, int32_t direction) {
    int16_t levels[256];
    const int count = ref_levels(code, levels);
    int level = 0;
    for (int j = 0; j < count - 1; j++) level += direction > 0 ? sum >= thresholds[j] : sum <= thresholds[j];
    return levels[level];
}

/* The number at (n, c) and the place that tap (i, j) of output (y, x) looks at, or -1 in the padding. */
static int64_t tap(ref_shape s, const lb_window *w, int64_t n, int64_t c, int64_t y, int64_t x, int64_t i, int64_t j) {
    const int64_t row = y * w->stride[0] + i * w->dilation[0] - w->padding[0],
                  column = x * w->stride[1] + j * w->dilation[1] - w->padding[1];
    if (row < 0 || row >= s.height || column < 0 || column >= s.width) return -1;
    return ((n * s.channels + c) * s.height + row) * s.width + column;
}

void ref_product(const int32_t *x, ref_shape s, int32_t zero, const int16_t *weights, int64_t outputs, const lb_window *w, int32_t *sums) {
    const ref_shape to = ref_window_shape(s, outputs, w);
    const int64_t inputs = s.channels / w->groups;
    for (int64_t n = 0; n < s.batch; n++)
        for (int64_t o = 0; o < outputs; o++)
            for (int64_t p = 0; p < to.height * to.width; p++) {
                int64_t sum = 0;
                for (int64_t k = 0; k < inputs * w->kernel[0] * w->kernel[1]; k++) {
                    const int64_t c = k / (w->kernel[0] * w->kernel[1]), i = k / w->kernel[1] % w->kernel[0], j = k % w->kernel[1];
                    const int64_t at = tap(s, w, n, o / (outputs / w->groups) * inputs + c, p / to.width, p % to.width, i, j);
                    if (at >= 0) sum += (int64_t)(x[at] - zero) * weights[o * inputs * w->kernel[0] * w->kernel[1] + k];
                }
                sums[(n * outputs + o) * to.height * to.width + p] = (int32_t)sum;
            }
}

void ref_max_pool(const int32_t *x, ref_shape s, const lb_window *w, int32_t *out) {
    const ref_shape to = ref_window_shape(s, s.channels, w);
    for (int64_t q = 0; q < ref_size(to); q++) {
        const int64_t plane = to.height * to.width, n = q / plane / s.channels, c = q / plane % s.channels, p = q % plane;
        int32_t best = INT32_MIN;
        for (int64_t k = 0; k < w->kernel[0] * w->kernel[1]; k++) {
            const int64_t at = tap(s, w, n, c, p / to.width, p % to.width, k / w->kernel[1], k % w->kernel[1]);
            if (at >= 0 && x[at] > best) best = x[at];
        }
        out[q] = best;
    }
}

void ref_avg_pool(const float *x, ref_shape s, const lb_window *w, int64_t divisor, float *out) {
    const ref_shape to = ref_window_shape(s, s.channels, w);
    for (int64_t q = 0; q < ref_size(to); q++) {
        const int64_t plane = to.height * to.width, n = q / plane / s.channels, c = q / plane % s.channels, p = q % plane;
        float sum = 0;
        for (int64_t k = 0; k < w->kernel[0] * w->kernel[1]; k++) {
            const int64_t at = tap(s, w, n, c, p / to.width, p % to.width, k / w->kernel[1], k % w->kernel[1]);
            sum += at >= 0 ? x[at] : 0.0f;
        }
        out[q] = sum / (float)divisor;
    }
}
