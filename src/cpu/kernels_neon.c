// AArch64's vectors (Advanced SIMD): 4 floats to a vector, 32 registers. See kernels_isa.h for the arithmetic.
#include "cpu/kernels_isa.h"

#if defined(__aarch64__)
#include <arm_neon.h>

#define INLINE static inline __attribute__((always_inline))

enum { LANES = 4, MAX_ROWS = 6 };

INLINE float32x4_t load(const void *b, size_t at, int half) {
    if (half) return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16((const uint16_t *)b + at)));
    return vld1q_f32((const float *)b + at);
}

// Rows [row, row + R) and columns [col, col + 4 W) of the panel; R, W and half are constants.
INLINE void tile(const pith_panel *p, const int half, const uint32_t R, const uint32_t W, uint32_t row, uint32_t col) {
    float32x4_t acc[MAX_ROWS][8], b[8];
    float *out = p->out + (size_t)row * p->n_cols + col;
    const float *a = p->a + row * p->a_stride;
    const size_t elt = half ? 2 : 4;
    const char *ahead = row == 0 ? (const char *)p->ahead.section : NULL; // once is enough
    const char *lines = row == 0 && col == 0 ? (const char *)p->ahead.lines : NULL;

    PITH_UNROLL for (uint32_t i = 0; i < R; i++)
        PITH_UNROLL for (uint32_t w = 0; w < W; w++)
            acc[i][w] = p->c ? vmulq_n_f32(load(out, (size_t)i * p->n_cols + w * LANES, 0), p->c[row + i])
                             : vdupq_n_f32(0.0f);
    for (uint32_t k = 0; k < p->depth; k++) {
        const size_t at = (size_t)k * p->n_cols + col;
        if (ahead) pith_fetch(ahead + at * elt, W * LANES * elt);
        if (lines) pith_fetch(lines + (size_t)k * 64, 64);
        PITH_UNROLL for (uint32_t w = 0; w < W; w++) b[w] = load(p->b, at + w * LANES, half);
        PITH_UNROLL for (uint32_t i = 0; i < R; i++) {
            const float x = a[i * p->a_stride + k];
            PITH_UNROLL for (uint32_t w = 0; w < W; w++) acc[i][w] = vfmaq_n_f32(acc[i][w], b[w], x);
        }
    }
    PITH_UNROLL for (uint32_t i = 0; i < R; i++)
        PITH_UNROLL for (uint32_t w = 0; w < W; w++) vst1q_f32(out + (size_t)i * p->n_cols + w * LANES, acc[i][w]);
}

// All columns of R rows. A single row takes a wider tile, to have enough sums under way for the latency of a
// multiply-add. n_cols is a multiple of 8.
INLINE void strip(const pith_panel *p, const int half, const uint32_t R, uint32_t row) {
    const uint32_t n = p->n_cols;
    uint32_t col = 0;
    if (R == 1)
        for (; col + 8 * LANES <= n; col += 8 * LANES) tile(p, half, R, 8, row, col);
    for (; col + 4 * LANES <= n; col += 4 * LANES) tile(p, half, R, 4, row, col);
    for (; col < n; col += 2 * LANES) tile(p, half, R, 2, row, col);
}

INLINE void panel(const pith_panel *p, const int half) {
    for (uint32_t row = 0, R; row < p->n_rows; row += R) {
        R = pith_tile_rows(p->n_rows - row, MAX_ROWS);
        switch (R) {
        case 1: strip(p, half, 1, row); break;
        case 2: strip(p, half, 2, row); break;
        case 3: strip(p, half, 3, row); break;
        case 4: strip(p, half, 4, row); break;
        case 5: strip(p, half, 5, row); break;
        default: strip(p, half, 6, row); break;
        }
    }
}
static void panel_f16(const pith_panel *p) { panel(p, 1); }
static void panel_f32(const pith_panel *p) { panel(p, 0); }

static void scores(const float *q, size_t stride, uint32_t n_q, const void *k, uint32_t elt_bytes, uint32_t d,
                   pith_ahead ahead, float *s) {
    const pith_panel p = pith_panel_of_scores(q, stride, n_q, k, d, ahead, s);
    if (elt_bytes == 2) panel_f16(&p);
    else panel_f32(&p);
}

static void weigh(float *acc, const float *c, const float *p, uint32_t n_q, const void *v, uint32_t elt_bytes,
                  uint32_t d, uint32_t n_rows, pith_ahead ahead) {
    const pith_panel values = pith_panel_of_weigh(acc, c, p, n_q, v, d, n_rows, ahead);
    if (elt_bytes == 2) panel_f16(&values);
    else panel_f32(&values);
}

// pith_exp of 4 numbers. A comparison with NaN is false, so NaN passes both.
INLINE float32x4_t exp4(float32x4_t x) {
    const float32x4_t max = vdupq_n_f32(PITH_EXP_MAX), shift = vdupq_n_f32(PITH_EXP_SHIFT), one = vdupq_n_f32(1.0f);
    const uint32x4_t drop = vcltq_f32(x, vdupq_n_f32(PITH_EXP_MIN));
    x = vbslq_f32(vcgtq_f32(x, max), max, x);
    const float32x4_t t = vfmaq_n_f32(shift, x, PITH_EXP_LOG2E), n = vsubq_f32(t, shift);
    const float32x4_t r = vfmaq_n_f32(vfmaq_n_f32(x, n, -PITH_EXP_LN2_HI), n, -PITH_EXP_LN2_LO);
    float32x4_t p = vfmaq_f32(vdupq_n_f32(PITH_EXP_C5), vdupq_n_f32(PITH_EXP_C6), r);
    p = vfmaq_f32(vdupq_n_f32(PITH_EXP_C4), p, r);
    p = vfmaq_f32(vdupq_n_f32(PITH_EXP_C3), p, r);
    p = vfmaq_f32(vdupq_n_f32(PITH_EXP_C2), p, r);
    p = vfmaq_f32(one, p, r);
    p = vfmaq_f32(one, p, r);
    const uint32x4_t scale = vaddq_u32(vshlq_n_u32(vreinterpretq_u32_f32(t), 23), vdupq_n_u32(PITH_EXP_ONE_BITS));
    const float32x4_t y = vmulq_f32(p, vreinterpretq_f32_u32(scale));
    return vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(y), drop));
}

// pith_sum16 of the lanes of the four vectors.
INLINE float sum16(const float32x4_t sum[4]) {
    const float32x4_t s4 = vaddq_f32(vaddq_f32(sum[0], sum[2]), vaddq_f32(sum[1], sum[3]));
    const float32x2_t s2 = vadd_f32(vget_low_f32(s4), vget_high_f32(s4));
    return vget_lane_f32(s2, 0) + vget_lane_f32(s2, 1);
}

static float exp_sum(float *x, uint32_t n, float shift) {
    const float32x4_t by = vdupq_n_f32(shift);
    float32x4_t sum[4] = {vdupq_n_f32(0.0f), vdupq_n_f32(0.0f), vdupq_n_f32(0.0f), vdupq_n_f32(0.0f)};
    uint32_t i = 0;
    for (; i + 16 <= n; i += 16)
        PITH_UNROLL for (uint32_t w = 0; w < 4; w++) {
            const float32x4_t y = exp4(vsubq_f32(vld1q_f32(x + i + w * LANES), by));
            sum[w] = vaddq_f32(sum[w], y);
            vst1q_f32(x + i + w * LANES, y);
        }
    if (i == n) return sum16(sum);

    float partial[16];
    for (uint32_t w = 0; w < 4; w++) vst1q_f32(partial + w * LANES, sum[w]);
    for (; i < n; i++) {
        x[i] = pith_exp(x[i] - shift);
        partial[i % 16] += x[i];
    }
    return pith_sum16(partial);
}

// a where a > b, else b: a NaN score is no maximum (which the instruction for maxima would not honour).
INLINE float32x4_t greater(float32x4_t a, float32x4_t b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }

static void soften_row(float *s, uint32_t n_visible, float *m, float *l, float *c) {
    for (uint32_t r = n_visible; r < PITH_PAGE_ROWS; r++) s[r] = -__builtin_inff(); // weight 0

    float32x4_t top = vdupq_n_f32(*m);
    for (uint32_t r = 0; r < PITH_PAGE_ROWS; r += LANES) top = greater(vld1q_f32(s + r), top);
    const float new_m = vmaxvq_f32(top), shift = pith_soft_shift(new_m);
    const float sum = exp_sum(s, PITH_PAGE_ROWS, shift);
    *c = pith_exp(*m - shift);
    *l = __builtin_fmaf(*l, *c, sum);
    *m = new_m + 0.0f;
}

static void soften(float *s, uint32_t n_q, uint32_t n_visible, float *m, float *l, float *c) {
    for (uint32_t a = 0; a < n_q; a++) soften_row(s + (size_t)a * PITH_PAGE_ROWS, n_visible, m + a, l + a, c + a);
}

static void swiglu(const float *gate, const float *up, uint32_t n, float *y) {
    const float32x4_t one = vdupq_n_f32(1.0f);
    uint32_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        const float32x4_t x = vld1q_f32(gate + i), silu = vdivq_f32(x, vaddq_f32(one, exp4(vnegq_f32(x))));
        vst1q_f32(y + i, vmulq_f32(silu, vld1q_f32(up + i)));
    }
    for (; i < n; i++) y[i] = gate[i] / (1.0f + pith_exp(-gate[i])) * up[i];
}

static void to_f16(const float *x, uint16_t *y, uint32_t n) {
    uint32_t i = 0;
    for (; i + LANES <= n; i += LANES) vst1_u16(y + i, vreinterpret_u16_f16(vcvt_f16_f32(vld1q_f32(x + i))));
    for (; i < n; i++) y[i] = pith_f32_to_f16(x[i]);
}

const pith_cpu_kernels pith_kernels_neon = {"neon", scores, soften, weigh, exp_sum, swiglu, to_f16};

#else
typedef int pith_no_neon; // a translation unit may not be empty
#endif
