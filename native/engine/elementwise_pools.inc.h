/* The pools of elementwise.inc.h. */

typedef struct {
    int64_t row;  /* the input row (pixel) of the window's first tap; may lie outside        */
    int64_t y, x; /* its place                                                               */
} window_at;

static inline window_at window_of(const lb_pool *pool, int64_t out_row) {
    int64_t per = pool->out_height * pool->out_width, sample = out_row / per, pixel = out_row % per;
    window_at at;
    at.y = pixel / pool->out_width * pool->window.stride[0] - pool->window.padding[0];
    at.x = pixel % pool->out_width * pool->window.stride[1] - pool->window.padding[1];
    at.row = (sample * pool->height + at.y) * pool->width + at.x;
    return at;
}

/* The input row of tap (i, j), or -1 outside the image. */
static inline int64_t tap_row(const lb_pool *pool, const window_at *at, int64_t i, int64_t j) {
    int64_t dy = i * pool->window.dilation[0], dx = j * pool->window.dilation[1];
    int inside = at->y + dy >= 0 && at->y + dy < pool->height && at->x + dx >= 0 && at->x + dx < pool->width;
    return inside ? at->row + dy * pool->width + dx : -1;
}

/* acc[0..n-1] = max over the window's taps in raster order; the first of equals stays, as in PyTorch. */
#define MAX_WINDOW(NAME, TYPE, JOIN)                                                                                                       \
    static void NAME(const lb_pool *pool, const window_at *at, const TYPE *in, int64_t ld, int64_t c, int64_t n, TYPE *acc) {              \
        int first = 1;                                                                                                                     \
        for (int64_t i = 0; i < pool->window.kernel[0]; i++) {                                                                             \
            for (int64_t j = 0; j < pool->window.kernel[1]; j++) {                                                                         \
                int64_t row = tap_row(pool, at, i, j);                                                                                     \
                if (row < 0) continue;                                                                                                     \
                const TYPE *from = in + row * ld + c;                                                                                      \
                if (first)                                                                                                                 \
                    memcpy(acc, from, (size_t)n * sizeof *acc);                                                                            \
                else                                                                                                                       \
                    for (int64_t k = 0; k < n; k++) acc[k] = JOIN(acc[k], from[k]);                                                        \
                first = 0;                                                                                                                 \
            }                                                                                                                              \
        }                                                                                                                                  \
    }
#define LARGER(a, b) ((b) > (a) ? (b) : (a))
#define EITHER(a, b) ((a) | (b))
MAX_WINDOW(max_f32, float, LARGER)
MAX_WINDOW(max_i32, int32_t, LARGER)
MAX_WINDOW(max_byte, uint8_t, LARGER)
MAX_WINDOW(max_bit, uint32_t, EITHER)

static void max_pool(const lb_pool *pool, const lb_rows_in *in, const lb_rows_out *out, int64_t row0, int64_t row1) {
    float f[LB_BLOCK];
    int32_t s[LB_BLOCK];
    uint32_t words[LB_BLOCK];
    uint8_t codes[LB_BLOCK + 32];
    memset(codes, 0, sizeof codes);
    int64_t width = in->form == LB_FORM_PLANES ? in->ld : pool->channels;
    for (int64_t r = row0; r < row1; r++) {
        window_at at = window_of(pool, r);
        for (int64_t c = 0; c < width; c += LB_BLOCK) {
            int64_t n = width - c < LB_BLOCK ? width - c : LB_BLOCK, to = r * out->ld + c;
            if (in->form == LB_FORM_F32) {
                max_f32(pool, &at, in->data, in->ld, c, n, f);
                memcpy((float *)out->data + to, f, (size_t)n * sizeof *f);
            } else if (in->form == LB_FORM_I32) {
                max_i32(pool, &at, in->data, in->ld, c, n, s);
                memcpy((int32_t *)out->data + to, s, (size_t)n * sizeof *s);
            } else if (in->form == LB_FORM_PLANES) { /* one-bit codes only: the larger of two bits is their OR */
                max_bit(pool, &at, in->data, in->ld, c, n, words);
                memcpy((uint32_t *)out->data + to, words, (size_t)n * sizeof *words);
            } else {
                max_byte(pool, &at, in->data, in->ld, c, n, codes);
                write_codes(out, r, c, n, pool->channels, codes);
            }
        }
    }
}

static void avg_pool(const lb_pool *pool, const float *in, float *out, int64_t row0, int64_t row1) {
    float acc[LB_BLOCK];
    for (int64_t r = row0; r < row1; r++) {
        window_at at = window_of(pool, r);
        for (int64_t c = 0; c < pool->channels; c += LB_BLOCK) {
            int64_t n = pool->channels - c < LB_BLOCK ? pool->channels - c : LB_BLOCK;
            for (int64_t k = 0; k < n; k++) acc[k] = 0.0f;
            for (int64_t i = 0; i < pool->window.kernel[0]; i++) {
                for (int64_t j = 0; j < pool->window.kernel[1]; j++) {
                    int64_t row = tap_row(pool, &at, i, j);
                    if (row < 0) continue;
                    const float *from = in + row * pool->channels + c;
                    for (int64_t k = 0; k < n; k++) acc[k] = acc[k] + from[k];
                }
            }
            for (int64_t k = 0; k < n; k++) out[r * pool->channels + c + k] = acc[k] / pool->divisor;
        }
    }
}
