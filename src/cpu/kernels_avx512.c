// AVX-512: 16 floats to a vector, 32 registers. See kernels_isa.h for the arithmetic.
#include "cpu/kernels_isa.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define ISA __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,f16c,fma")))
#define INLINE static inline __attribute__((always_inline)) ISA

enum { LANES = 16, MAX_ROWS = 7 };

// The first n lanes, or all.
INLINE __mmask16 lanes(uint32_t n) { return (__mmask16)(n < LANES ? (1u << n) - 1u : 0xffffu); }

// 16 elements of b from index `at`; those outside the mask are not touched and read as 0.
INLINE __m512 load(const void *b, size_t at, int half, __mmask16 mask) {
    if (half) return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, (const uint16_t *)b + at));
    return _mm512_maskz_loadu_ps(mask, (const float *)b + at);
}

// Rows [row, row + R) and columns [col, col + 16 W) of the panel; R, W and half are constants. With W > 1 the mask is
// full.
INLINE void tile(const pith_panel *p, const int half, const uint32_t R, const uint32_t W, uint32_t row, uint32_t col,
                 __mmask16 mask) {
    __m512 acc[MAX_ROWS][4], b[4];
    float *out = p->out + (size_t)row * p->n_cols + col;
    const float *a = p->a + row * p->a_stride;
    const size_t elt = half ? 2 : 4;
    const char *ahead = row == 0 ? (const char *)p->ahead.section : NULL; // once is enough
    const char *lines = row == 0 && col == 0 ? (const char *)p->ahead.lines : NULL;

    PITH_UNROLL for (uint32_t i = 0; i < R; i++) {
        const __m512 c = p->c ? _mm512_set1_ps(p->c[row + i]) : _mm512_setzero_ps();
        PITH_UNROLL for (uint32_t w = 0; w < W; w++)
            acc[i][w] = p->c ? _mm512_mul_ps(c, load(out, (size_t)i * p->n_cols + w * LANES, 0, mask)) : c;
    }
    for (uint32_t k = 0; k < p->depth; k++) {
        const size_t at = (size_t)k * p->n_cols + col;
        if (ahead) pith_fetch(ahead + at * elt, W * LANES * elt);
        if (lines) pith_fetch(lines + (size_t)k * 64, 64);
        PITH_UNROLL for (uint32_t w = 0; w < W; w++) b[w] = load(p->b, at + w * LANES, half, mask);
        PITH_UNROLL for (uint32_t i = 0; i < R; i++) {
            const __m512 x = _mm512_set1_ps(a[i * p->a_stride + k]);
            PITH_UNROLL for (uint32_t w = 0; w < W; w++) acc[i][w] = _mm512_fmadd_ps(x, b[w], acc[i][w]);
        }
    }
    PITH_UNROLL for (uint32_t i = 0; i < R; i++)
        PITH_UNROLL for (uint32_t w = 0; w < W; w++)
            _mm512_mask_storeu_ps(out + (size_t)i * p->n_cols + w * LANES, mask, acc[i][w]);
}

// All columns of R rows. Tiles of 64 columns read b line after line, which the memory likes better than narrower ones
// with more rows: 7 rows of them are 28 sums, with 4 vectors of b all 32 registers.
INLINE void strip(const pith_panel *p, const int half, const uint32_t R, uint32_t row) {
    const uint32_t n = p->n_cols;
    uint32_t col = 0;
    for (; col + 4 * LANES <= n; col += 4 * LANES) tile(p, half, R, 4, row, col, 0xffff);
    for (; col + 2 * LANES <= n; col += 2 * LANES) tile(p, half, R, 2, row, col, 0xffff);
    for (; col + LANES <= n; col += LANES) tile(p, half, R, 1, row, col, 0xffff);
    if (col < n) tile(p, half, R, 1, row, col, 0x00ff); // n_cols is a multiple of 8
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
        case 6: strip(p, half, 6, row); break;
        default: strip(p, half, 7, row); break;
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

// pith_exp of 16 numbers.
INLINE __m512 exp16(__m512 x) {
    const __mmask16 keep = _mm512_cmp_ps_mask(x, _mm512_set1_ps(PITH_EXP_MIN), _CMP_NLT_UQ); // NaN is kept
    x = _mm512_min_ps(_mm512_set1_ps(PITH_EXP_MAX), x);                                      // NaN: the second operand
    const __m512 shift = _mm512_set1_ps(PITH_EXP_SHIFT), one = _mm512_set1_ps(1.0f);
    const __m512 t = _mm512_fmadd_ps(x, _mm512_set1_ps(PITH_EXP_LOG2E), shift), n = _mm512_sub_ps(t, shift);
    __m512 r = _mm512_fmadd_ps(n, _mm512_set1_ps(-PITH_EXP_LN2_HI), x);
    r = _mm512_fmadd_ps(n, _mm512_set1_ps(-PITH_EXP_LN2_LO), r);
    __m512 p = _mm512_fmadd_ps(_mm512_set1_ps(PITH_EXP_C6), r, _mm512_set1_ps(PITH_EXP_C5));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(PITH_EXP_C4));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(PITH_EXP_C3));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(PITH_EXP_C2));
    p = _mm512_fmadd_ps(p, r, one);
    p = _mm512_fmadd_ps(p, r, one);
    const __m512i n_bits = _mm512_slli_epi32(_mm512_castps_si512(t), 23);
    const __m512i scale = _mm512_add_epi32(n_bits, _mm512_set1_epi32(PITH_EXP_ONE_BITS));
    return _mm512_maskz_mul_ps(keep, p, _mm512_castsi512_ps(scale));
}

// pith_sum16.
INLINE float sum16(__m512 x) {
    const __m256 s8 = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
    const __m128 s4 = _mm_add_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
    const __m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));
    return _mm_cvtss_f32(_mm_add_ss(s2, _mm_movehdup_ps(s2)));
}

INLINE float max16(__m512 x) {
    const __m256 m8 = _mm256_max_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
    const __m128 m4 = _mm_max_ps(_mm256_castps256_ps128(m8), _mm256_extractf128_ps(m8, 1));
    const __m128 m2 = _mm_max_ps(m4, _mm_movehl_ps(m4, m4));
    return _mm_cvtss_f32(_mm_max_ss(m2, _mm_movehdup_ps(m2)));
}

ISA static float exp_sum(float *x, uint32_t n, float shift) {
    __m512 sum = _mm512_setzero_ps();
    for (uint32_t i = 0; i < n; i += LANES) {
        const __mmask16 mask = lanes(n - i);
        const __m512 y = exp16(_mm512_sub_ps(_mm512_maskz_loadu_ps(mask, x + i), _mm512_set1_ps(shift)));
        sum = _mm512_mask_add_ps(sum, mask, sum, y);
        _mm512_mask_storeu_ps(x + i, mask, y);
    }
    return sum16(sum);
}

// Up to 16 rows together: what there is one of for each row (m, l, c) is a lane, and the rows' long chains of dependent
// operations overlap.
INLINE void soften_rows(float *s, uint32_t n, uint32_t n_visible, float *m, float *l, float *c) {
    const __mmask16 rows = lanes(n);
    const __m512 none = _mm512_set1_ps(-__builtin_inff());
    float top[LANES] = {0}, shift[LANES], sum[LANES] = {0};
    for (uint32_t a = 0; a < n; a++) {
        for (uint32_t r = n_visible; r < PITH_PAGE_ROWS; r++) s[a * PITH_PAGE_ROWS + r] = -__builtin_inff(); // weight 0
        __m512 most = none; // max(a, b) is a where a > b, else b: a NaN score is no maximum
        PITH_UNROLL for (uint32_t i = 0; i < 4; i++)
            most = _mm512_max_ps(_mm512_loadu_ps(s + a * PITH_PAGE_ROWS + i * LANES), most);
        top[a] = max16(most);
    }
    const __m512 old_m = _mm512_maskz_loadu_ps(rows, m), new_m = _mm512_max_ps(_mm512_loadu_ps(top), old_m);
    const __m512 by = _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(new_m, none, _CMP_NEQ_OQ), new_m); // pith_soft_shift
    const __m512 factor = exp16(_mm512_sub_ps(old_m, by));
    _mm512_storeu_ps(shift, by);
    for (uint32_t a = 0; a < n; a++) {
        __m512 sum16s = _mm512_setzero_ps();
        PITH_UNROLL for (uint32_t i = 0; i < 4; i++) {
            float *at = s + a * PITH_PAGE_ROWS + i * LANES;
            const __m512 p = exp16(_mm512_sub_ps(_mm512_loadu_ps(at), _mm512_set1_ps(shift[a])));
            sum16s = _mm512_add_ps(sum16s, p);
            _mm512_storeu_ps(at, p);
        }
        sum[a] = sum16(sum16s);
    }
    const __m512 new_l = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(rows, l), factor, _mm512_loadu_ps(sum));
    _mm512_mask_storeu_ps(c, rows, factor);
    _mm512_mask_storeu_ps(l, rows, new_l);
    _mm512_mask_storeu_ps(m, rows, _mm512_add_ps(new_m, _mm512_setzero_ps()));
}

ISA static void soften(float *s, uint32_t n_q, uint32_t n_visible, float *m, float *l, float *c) {
    for (uint32_t a = 0; a < n_q; a += LANES)
        soften_rows(s + (size_t)a * PITH_PAGE_ROWS, n_q - a < LANES ? n_q - a : LANES, n_visible, m + a, l + a, c + a);
}

ISA static void swiglu(const float *gate, const float *up, uint32_t n, float *y) {
    for (uint32_t i = 0; i < n; i += LANES) {
        const __mmask16 mask = lanes(n - i);
        const __m512 x = _mm512_maskz_loadu_ps(mask, gate + i), e = exp16(_mm512_sub_ps(_mm512_setzero_ps(), x));
        const __m512 silu = _mm512_div_ps(x, _mm512_add_ps(_mm512_set1_ps(1.0f), e));
        _mm512_mask_storeu_ps(y + i, mask, _mm512_mul_ps(silu, _mm512_maskz_loadu_ps(mask, up + i)));
    }
}

ISA static void to_f16(const float *x, uint16_t *y, uint32_t n) {
    for (uint32_t i = 0; i < n; i += LANES) {
        const __mmask16 mask = lanes(n - i);
        const __m512 v = _mm512_maskz_loadu_ps(mask, x + i);
        const __m256i rounded = _mm512_maskz_cvtps_ph(mask, v, _MM_FROUND_TO_NEAREST_INT);
        _mm256_mask_storeu_epi16(y + i, mask, rounded);
    }
}

const pith_cpu_kernels pith_kernels_avx512 = {"avx512", scores, soften, weigh, exp_sum, swiglu, to_f16};

#else
typedef int pith_no_avx512; // a translation unit may not be empty
#endif
