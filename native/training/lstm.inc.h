/* The one implementation of lstm.h; loops_<isa>.c defines LB_LSTM, the name of its table, and includes it. */
#include <math.h>

#include "lstm.h"

enum { LSTM_BLOCK = 256 };

/* Values of the grid for n <= LSTM_BLOCK pre-activations, times 16: out = table[round(clamp(v))], inside = whether the clamp left v alone. */
static inline void on_grid(const float *v, const float *table, float *out, uint8_t *inside, int64_t n) {
    int32_t place[LSTM_BLOCK];
    for (int64_t i = 0; i < n; i++) {
        float clamped = v[i] < -128.0f ? -128.0f : v[i];
        clamped = clamped > 127.0f ? 127.0f : clamped;
        if (inside) inside[i] = clamped == v[i];
        clamped = clamped == clamped ? rintf(clamped) : -129.0f;
        place[i] = (int32_t)clamped + 129;
    }
    for (int64_t i = 0; i < n; i++) out[i] = table[place[i]];
}

static void lstm_forward(const lb_lstm *step, int64_t from, int64_t to) {
    int64_t units = step->units;
    for (int64_t r = from; r < to; r++)
        for (int64_t u = 0; u < units; u += LSTM_BLOCK) {
            int64_t n = units - u < LSTM_BLOCK ? units - u : LSTM_BLOCK, at = r * units + u;
            float v[LSTM_BLOCK];
            float *gate[4];
            for (int64_t k = 0; k < 4; k++) {
                int64_t here = (r * 4 + k) * units + u;
                const float *sums = step->sums + here;
                gate[k] = step->gates + here;
                for (int64_t i = 0; i < n; i++) v[i] = gate[k][i] + sums[i];
                on_grid(v, k == 2 ? step->tables.tanh : step->tables.sigmoid, gate[k], step->inside ? step->inside + here : NULL, n);
            }
            float *c = step->c + at, *h = step->h + at, *tanh_c = step->tanh_c + at;
            if (step->cells)
                for (int64_t i = 0; i < n; i++) step->cells[at + i] = c[i];
            for (int64_t i = 0; i < n; i++) {
                float kept = c[i] * gate[1][i], added = gate[0][i] * gate[2][i];
                c[i] = kept + added;
                v[i] = c[i] * 16.0f;
            }
            on_grid(v, step->tables.tanh, tanh_c, step->new_inside ? step->new_inside + at : NULL, n);
            for (int64_t i = 0; i < n; i++) h[i] = gate[3][i] * tanh_c[i];
        }
}

static void lstm_backward(const lb_lstm *step, int64_t from, int64_t to) {
    int64_t units = step->units;
    for (int64_t r = from; r < to; r++) {
        const float *restrict gi = step->gates + r * 4 * units, *restrict gf = gi + units, *restrict gg = gf + units,
                              *restrict go = gg + units;
        const uint8_t *restrict ii = step->inside + r * 4 * units, *restrict jf = ii + units, *restrict ig = jf + units,
                                *restrict io = ig + units;
        float *restrict di = step->out + r * 4 * units, *restrict df = di + units, *restrict dg = df + units, *restrict d_o = dg + units;
        const float *restrict dh = step->h + r * units, *restrict y = step->tanh_c + r * units, *restrict before = step->cells + r * units;
        const uint8_t *restrict inside = step->new_inside + r * units;
        float *restrict dc = step->c + r * units;
        for (int64_t i = 0; i < units; i++) {
            float through = dh[i] * go[i] * (1.0f - y[i] * y[i]), d = dc[i] + (inside[i] ? through : 0.0f);
            d_o[i] = io[i] ? dh[i] * y[i] * (1.0f - go[i]) * go[i] : 0.0f;
            di[i] = ii[i] ? d * gg[i] * (1.0f - gi[i]) * gi[i] : 0.0f;
            df[i] = jf[i] ? d * before[i] * (1.0f - gf[i]) * gf[i] : 0.0f;
            dg[i] = ig[i] ? d * gi[i] * (1.0f - gg[i] * gg[i]) : 0.0f;
            dc[i] = d * gf[i];
        }
    }
}

const lb_lstm_loop LB_LSTM[2] = {lstm_forward, lstm_backward};
