// The kernels in portable C: complete by themselves, and the definition of the bits of the others. A compiler that has
// fused multiply-add instructions at hand uses them for __builtin_fmaf; without, it is a slow, correct library call.
#include "cpu/kernels_isa.h"

static void panel_f16(const pith_panel *p) {
    const uint16_t *b = (const uint16_t *)p->b;
    for (uint32_t k = 0; k < p->depth; k++, b += p->n_cols)
        for (uint32_t j = 0; j < p->n_cols; j++) {
            const float bkj = pith_f16_to_f32(b[j]);
            for (uint32_t a = 0; a < p->n_rows; a++) {
                float *out = &p->out[(size_t)a * p->n_cols + j];
                *out = __builtin_fmaf(p->a[a * p->a_stride + k], bkj, *out);
            }
        }
}

static void panel_f32(const pith_panel *p) {
    const float *b = (const float *)p->b;
    for (uint32_t k = 0; k < p->depth; k++, b += p->n_cols)
        for (uint32_t a = 0; a < p->n_rows; a++) {
            const float x = p->a[a * p->a_stride + k];
            float *out = &p->out[(size_t)a * p->n_cols];
            for (uint32_t j = 0; j < p->n_cols; j++) out[j] = __builtin_fmaf(x, b[j], out[j]);
        }
}

static void panel(const pith_panel *p, uint32_t elt_bytes) {
    for (uint32_t a = 0; a < p->n_rows; a++)
        for (uint32_t j = 0; j < p->n_cols; j++) {
            float *out = &p->out[(size_t)a * p->n_cols + j];
            *out = p->c ? *out * p->c[a] : 0.0f;
        }
    if (elt_bytes == 2) panel_f16(p);
    else panel_f32(p);
}

static void scores(const float *q, size_t stride, uint32_t n_q, const void *k, uint32_t elt_bytes, uint32_t d,
                   pith_ahead ahead, float *s) {
    const pith_panel p = pith_panel_of_scores(q, stride, n_q, k, d, ahead, s);
    panel(&p, elt_bytes);
}

static void weigh(float *acc, const float *c, const float *p, uint32_t n_q, const void *v, uint32_t elt_bytes,
                  uint32_t d, uint32_t n_rows, pith_ahead ahead) {
    const pith_panel values = pith_panel_of_weigh(acc, c, p, n_q, v, d, n_rows, ahead);
    panel(&values, elt_bytes);
}

static float exp_sum(float *x, uint32_t n, float shift) {
    float partial[16] = {0};
    for (uint32_t i = 0; i < n; i++) {
        x[i] = pith_exp(x[i] - shift);
        partial[i % 16] += x[i];
    }
    return pith_sum16(partial);
}

static void soften_row(float *s, uint32_t n_visible, float *m, float *l, float *c) {
    float top = *m;
    for (uint32_t r = 0; r < n_visible; r++) top = s[r] > top ? s[r] : top; // a NaN is no maximum, but stays in s
    const float shift = pith_soft_shift(top);
    const float sum = exp_sum(s, n_visible, shift);
    for (uint32_t r = n_visible; r < PITH_PAGE_ROWS; r++) s[r] = 0.0f;
    *c = pith_exp(*m - shift);
    *l = __builtin_fmaf(*l, *c, sum);
    *m = top + 0.0f; // the maximum of 0 and -0 is either, depending on the level; the sum is 0
}

static void soften(float *s, uint32_t n_q, uint32_t n_visible, float *m, float *l, float *c) {
    for (uint32_t a = 0; a < n_q; a++) soften_row(s + (size_t)a * PITH_PAGE_ROWS, n_visible, m + a, l + a, c + a);
}

static void swiglu(const float *gate, const float *up, uint32_t n, float *y) {
    for (uint32_t i = 0; i < n; i++) y[i] = gate[i] / (1.0f + pith_exp(-gate[i])) * up[i];
}

static void to_f16(const float *x, uint16_t *y, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) y[i] = pith_f32_to_f16(x[i]);
}

const pith_cpu_kernels pith_kernels_portable = {"portable", scores, soften, weigh, exp_sum, swiglu, to_f16};
