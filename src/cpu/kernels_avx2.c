// AVX2 with FMA and F16C: 8 floats to a vector, 16 registers. See kernels_isa.h for the arithmetic.
#include "cpu/kernels_isa.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define ISA __attribute__((target("avx2,fma,f16c")))
#define INLINE static inline __attribute__((always_inline)) ISA

enum { LANES = 8, MAX_ROWS = 4 };

INLINE __m256 load(const void *b, size_t at, int half) {
    if (half) return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)((const uint16_t *)b + at)));
    return _mm256_loadu_ps((const float *)b + at);
}

// Rows [row, row + R) and columns [col, col + 8 W) of the panel; R, W and half are constants.
INLINE void tile(const pith_panel *p, const int half, const uint32_t R, const uint32_t W, uint32_t row, uint32_t col) {
    __m256 acc[MAX_ROWS][8], x[MAX_ROWS];
    float *out = p->out + (size_t)row * p->n_cols + col;
    const float *a = p->a + row * p->a_stride;
    const size_t elt = half ? 2 : 4;
    const char *ahead = row == 0 ? (const char *)p->ahead.section : NULL; // once is enough
    const char *lines = row == 0 && col == 0 ? (const char *)p->ahead.lines : NULL;

    PITH_UNROLL for (uint32_t i = 0; i < R; i++) {
        const __m256 c = p->c ? _mm256_set1_ps(p->c[row + i]) : _mm256_setzero_ps();
        PITH_UNROLL for (uint32_t w = 0; w < W; w++)
            acc[i][w] = p->c ? _mm256_mul_ps(c, load(out, (size_t)i * p->n_cols + w * LANES, 0)) : c;
    }
    for (uint32_t k = 0; k < p->depth; k++) {
        const size_t at = (size_t)k * p->n_cols + col;
        if (ahead) pith_fetch(ahead + at * elt, W * LANES * elt);
        if (lines) pith_fetch(lines + (size_t)k * 64, 64);
        PITH_UNROLL for (uint32_t i = 0; i < R; i++) x[i] = _mm256_broadcast_ss(a + i * p->a_stride + k);
        PITH_UNROLL for (uint32_t w = 0; w < W; w++) {
            const __m256 b = load(p->b, at + w * LANES, half);
            PITH_UNROLL for (uint32_t i = 0; i < R; i++) acc[i][w] = _mm256_fmadd_ps(x[i], b, acc[i][w]);
        }
    }
    PITH_UNROLL for (uint32_t i = 0; i < R; i++)
        PITH_UNROLL for (uint32_t w = 0; w < W; w++)
            _mm256_storeu_ps(out + (size_t)i * p->n_cols + w * LANES, acc[i][w]);
}

// All columns of R rows: the fewer rows, the wider the tiles, so that there are enough sums under way for the latency
// of a multiply-add and no more than the registers hold.
INLINE void strip(const pith_panel *p, const int half, const uint32_t R, uint32_t row) {
    const uint32_t n = p->n_cols;
    uint32_t col = 0;
    if (R == 1)
        for (; col + 8 * LANES <= n; col += 8 * LANES) tile(p, half, R, 8, row, col);
    if (R <= 3)
        for (; col + 4 * LANES <= n; col += 4 * LANES) tile(p, half, R, 4, row, col);
    for (; col + 2 * LANES <= n; col += 2 * LANES) tile(p, half, R, 2, row, col);
    for (; col < n; col += LANES) tile(p, half, R, 1, row, col);
}

INLINE void panel(const pith_panel *p, const int half) {
    for (uint32_t row = 0, R; row < p->n_rows; row += R) {
        R = pith_tile_rows(p->n_rows - row, MAX_ROWS);
        switch (R) {
        case 1: strip(p, half, 1, row); break;
        case 2: strip(p, half, 2, row); break;
        case 3: strip(p, half, 3, row); break;
        default: strip(p, half, 4, row); break;
        }
    }
}
ISA static void panel_f16(const pith_panel *p) { panel(p, 1); }
ISA static void panel_f32(const pith_panel *p) { panel(p, 0); }

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

// pith_exp of 8 numbers.
INLINE __m256 exp8(__m256 x) {
    const __m256 keep = _mm256_cmp_ps(x, _mm256_set1_ps(PITH_EXP_MIN), _CMP_NLT_UQ); // NaN is kept
    x = _mm256_min_ps(_mm256_set1_ps(PITH_EXP_MAX), x);                              // NaN: the second operand
    const __m256 shift = _mm256_set1_ps(PITH_EXP_SHIFT), one = _mm256_set1_ps(1.0f);
    const __m256 t = _mm256_fmadd_ps(x, _mm256_set1_ps(PITH_EXP_LOG2E), shift), n = _mm256_sub_ps(t, shift);
    __m256 r = _mm256_fmadd_ps(n, _mm256_set1_ps(-PITH_EXP_LN2_HI), x);
    r = _mm256_fmadd_ps(n, _mm256_set1_ps(-PITH_EXP_LN2_LO), r);
    __m256 p = _mm256_fmadd_ps(_mm256_set1_ps(PITH_EXP_C6), r, _mm256_set1_ps(PITH_EXP_C5));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(PITH_EXP_C4));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(PITH_EXP_C3));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(PITH_EXP_C2));
    p = _mm256_fmadd_ps(p, r, one);
    p = _mm256_fmadd_ps(p, r, one);
    const __m256i n_bits = _mm256_slli_epi32(_mm256_castps_si256(t), 23);
    const __m256i scale = _mm256_add_epi32(n_bits, _mm256_set1_epi32(PITH_EXP_ONE_BITS));
    return _mm256_and_ps(keep, _mm256_mul_ps(p, _mm256_castsi256_ps(scale)));
}

// pith_sum16 of the lanes of lo and then hi.
INLINE float sum16(__m256 lo, __m256 hi) {
    const __m256 s8 = _mm256_add_ps(lo, hi);
    const __m128 s4 = _mm_add_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
    const __m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));
    return _mm_cvtss_f32(_mm_add_ss(s2, _mm_movehdup_ps(s2)));
}

INLINE float max8(__m256 x) {
    const __m128 m4 = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    const __m128 m2 = _mm_max_ps(m4, _mm_movehl_ps(m4, m4));
    return _mm_cvtss_f32(_mm_max_ss(m2, _mm_movehdup_ps(m2)));
}

ISA static float exp_sum(float *x, uint32_t n, float shift) {
    const __m256 by = _mm256_set1_ps(shift);
    __m256 lo = _mm256_setzero_ps(), hi = lo;
    uint32_t i = 0;
    for (; i + 16 <= n; i += 16) {
        const __m256 y0 = exp8(_mm256_sub_ps(_mm256_loadu_ps(x + i), by));
        const __m256 y1 = exp8(_mm256_sub_ps(_mm256_loadu_ps(x + i + 8), by));
        lo = _mm256_add_ps(lo, y0), hi = _mm256_add_ps(hi, y1);
        _mm256_storeu_ps(x + i, y0), _mm256_storeu_ps(x + i + 8, y1);
    }
    if (i == n) return sum16(lo, hi);

    float partial[16];
    _mm256_storeu_ps(partial, lo), _mm256_storeu_ps(partial + 8, hi);
    for (; i < n; i++) {
        x[i] = pith_exp(x[i] - shift);
        partial[i % 16] += x[i];
    }
    return pith_sum16(partial);
}

ISA static void soften_row(float *s, uint32_t n_visible, float *m, float *l, float *c) {
    for (uint32_t r = n_visible; r < PITH_PAGE_ROWS; r++) s[r] = -__builtin_inff(); // weight 0

    // max(a, b) is a where a > b, else b: a NaN score is no maximum.
    __m256 top = _mm256_set1_ps(*m);
    for (uint32_t r = 0; r < PITH_PAGE_ROWS; r += LANES) top = _mm256_max_ps(_mm256_loadu_ps(s + r), top);
    const float new_m = max8(top), shift = pith_soft_shift(new_m);
    const float sum = exp_sum(s, PITH_PAGE_ROWS, shift);
    *c = _mm256_cvtss_f32(exp8(_mm256_set1_ps(*m - shift)));
    *l = _mm_cvtss_f32(_mm_fmadd_ss(_mm_set_ss(*l), _mm_set_ss(*c), _mm_set_ss(sum)));
    *m = new_m + 0.0f;
}

ISA static void soften(float *s, uint32_t n_q, uint32_t n_visible, float *m, float *l, float *c) {
    for (uint32_t a = 0; a < n_q; a++) soften_row(s + (size_t)a * PITH_PAGE_ROWS, n_visible, m + a, l + a, c + a);
}

ISA static void swiglu(const float *gate, const float *up, uint32_t n, float *y) {
    uint32_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        const __m256 x = _mm256_loadu_ps(gate + i), e = exp8(_mm256_sub_ps(_mm256_setzero_ps(), x));
        const __m256 silu = _mm256_div_ps(x, _mm256_add_ps(_mm256_set1_ps(1.0f), e));
        _mm256_storeu_ps(y + i, _mm256_mul_ps(silu, _mm256_loadu_ps(up + i)));
    }
    for (; i < n; i++) y[i] = gate[i] / (1.0f + pith_exp(-gate[i])) * up[i];
}

ISA static void to_f16(const float *x, uint16_t *y, uint32_t n) {
    uint32_t i = 0;
    for (; i + LANES <= n; i += LANES)
        _mm_storeu_si128((__m128i *)(void *)(y + i),
                         _mm256_cvtps_ph(_mm256_loadu_ps(x + i), _MM_FROUND_TO_NEAREST_INT));
    for (; i < n; i++) y[i] = pith_f32_to_f16(x[i]);
}

const pith_cpu_kernels pith_kernels_avx2 = {"avx2", scores, soften, weigh, exp_sum, swiglu, to_f16};

#else
typedef int pith_no_avx2; // a translation unit may not be empty
#endif
