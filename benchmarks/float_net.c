/* The float net of the same shape as digits-convnet and mnist-convnet-small, as one writes it by hand: two 3x3 convolutions, each with its pool (or none),
 * batch norm as a multiply and an add, ReLU; two linear layers. What the table of docs/microcontrollers.md compares the bits with. */
#include "float_net.h"

static float image[FLOAT_VALUES], other[FLOAT_VALUES];

static void conv(const float *x, float *y, const float *w, const float *scale, const float *shift, int inputs, int outputs, int size,
                 int pool) {
    int made = size / pool;
    for (int o = 0; o < outputs; o++) {
        for (int p = 0; p < made * made; p++) {
            float best = -3e38f;
            for (int q = 0; q < pool * pool; q++) {
                int row = p / made * pool + q / pool, column = p % made * pool + q % pool;
                float sum = 0.0f;
                for (int c = 0; c < inputs; c++) {
                    for (int i = 0; i < 3; i++) {
                        int y0 = row + i - 1;
                        if (y0 < 0 || y0 >= size) continue;
                        for (int j = 0; j < 3; j++) {
                            int x0 = column + j - 1;
                            if (x0 >= 0 && x0 < size) sum += x[(c * size + y0) * size + x0] * w[((o * inputs + c) * 3 + i) * 3 + j];
                        }
                    }
                }
                if (sum > best) best = sum;
            }
            best = best * scale[o] + shift[o];
            y[o * made * made + p] = best > 0.0f ? best : 0.0f;
        }
    }
}

static void linear(const float *x, float *y, const float *w, const float *scale, const float *shift, int inputs, int outputs, int relu) {
    for (int o = 0; o < outputs; o++) {
        float sum = 0.0f;
        for (int k = 0; k < inputs; k++) sum += x[k] * w[o * inputs + k];
        sum = sum * scale[o] + shift[o];
        y[o] = relu && sum < 0.0f ? 0.0f : sum;
    }
}

void float_run(const float *input, float *output) {
    int first = SIZE / POOL, second = first / 2;
    conv(input, image, w0, scale, shift, 1, WIDTH, SIZE, POOL);
    conv(image, other, w1, scale, shift, WIDTH, 2 * WIDTH, first, 2);
    linear(other, image, w2, scale, shift, 2 * WIDTH * second * second, 4 * WIDTH, 1);
    linear(image, output, w3, scale, shift, 4 * WIDTH, 10, 0);
}
