// AVX2 with FMA and F16C: 8 floats to a vector, 16 registers. See kernels_isa.h for the arithmetic.
#include "cpu/kernels_isa.h"

#if defined(__x86_64__)
#include <immintrin.h>
#include <stdbool.h>

#define ISA __attribute__((target("avx2,fma,f16c")))
#define INLINE static inline __attribute__((always_inline)) ISA
// For a loop that spends more time on counting than on the few multiply-adds of a term.
#if defined(__clang__)
#define PITH_UNROLL_2 _Pragma("clang loop unroll_count(2)")
#else
#define PITH_UNROLL_2 _Pragma("GCC unroll 2")
#endif

enum { LANES = 8, MAX_ROWS = 4, MAX_COLUMNS = 3 * LANES, MAX_DEPTH = PITH_MAX_HEAD_DIM };

INLINE __m256 load(const void *b, size_t at, int half) {
    if (half) return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)((const uint16_t *)b + at)));
    return _mm256_loadu_ps((const float *)b + at);
}

// Where a tile has its b from. Conversions take time from multiply-adds, so what several tiles read is converted once:
// the first one keeps it.
enum { F32, F16, F16_TO_KEEP, KEPT };

// Rows [row, row + R) and columns [col, col + 8 W) of the panel; R, W and `from` are constants. kept: (depth, 8 W), or
// NULL where nothing is kept.
// 4 rows and 3 vectors of columns are 12 sums, with the vectors of b and one number of a all 16 registers.
INLINE void tile(const pith_panel *p, const int from, const uint32_t R, const uint32_t W, uint32_t row, uint32_t col,
                 float *kept) {
    __m256 acc[MAX_ROWS][8], b[8];
    const size_t n_cols = p->n_cols, stride = p->a_stride, elt = from == F32 ? 4 : 2;
    float *out = p->out + row * n_cols + col;
    const float *a = p->a + row * stride;
    const char *at = (const char *)p->b + col * elt;
    // Once is enough. Where nothing is to be fetched, what is at hand is: that costs less than a question each time.
    const bool section = p->ahead.section && row == 0, lines = p->ahead.lines && row == 0 && col == 0;
    const char *ahead = section ? (const char *)p->ahead.section + col * elt : at;
    const char *line = lines ? p->ahead.lines : (const char *)a;
    const size_t next_line = lines ? 64 : 0;

    PITH_UNROLL for (uint32_t i = 0; i < R; i++) {
        const __m256 c = p->c ? _mm256_set1_ps(p->c[row + i]) : _mm256_setzero_ps();
        PITH_UNROLL for (uint32_t w = 0; w < W; w++)
            acc[i][w] = p->c ? _mm256_mul_ps(c, load(out, i * n_cols + w * LANES, 0)) : c;
    }
    PITH_UNROLL_2 for (uint32_t k = p->depth; k > 0; k--) {
        if (from != KEPT) {
            pith_fetch(ahead, W * LANES * elt), pith_fetch(line, 64);
            ahead += n_cols * elt, line += next_line;
        }
        PITH_UNROLL for (uint32_t w = 0; w < W; w++) {
            b[w] = from == KEPT ? load(kept, w * LANES, 0) : load(at, w * LANES, from != F32);
            if (from == F16_TO_KEEP) _mm256_storeu_ps(kept + w * LANES, b[w]);
        }
        PITH_UNROLL for (uint32_t i = 0; i < R; i++) {
            const __m256 x = _mm256_broadcast_ss(a + i * stride);
            PITH_UNROLL for (uint32_t w = 0; w < W; w++) acc[i][w] = _mm256_fmadd_ps(x, b[w], acc[i][w]);
        }
        a++, at += n_cols * elt;
        if (from == F16_TO_KEEP || from == KEPT) kept += W * LANES;
    }
    PITH_UNROLL for (uint32_t i = 0; i < R; i++)
        PITH_UNROLL for (uint32_t w = 0; w < W; w++) _mm256_storeu_ps(out + i * n_cols + w * LANES, acc[i][w]);
}

INLINE void rows_of(const pith_panel *p, const int from, const uint32_t W, uint32_t n, uint32_t row, uint32_t col,
                    float *kept) {
    switch (n) {
    case 1: tile(p, from, 1, W, row, col, kept); break;
    case 2: tile(p, from, 2, W, row, col, kept); break;
    case 3: tile(p, from, 3, W, row, col, kept); break;
    default: tile(p, from, 4, W, row, col, kept); break;
    }
}

// All rows of W vectors of columns.
INLINE void strip(const pith_panel *p, const int half, const uint32_t W, uint32_t col, float *kept) {
    for (uint32_t row = 0, n; row < p->n_rows; row += n) {
        n = pith_tile_rows(p->n_rows - row, MAX_ROWS);
        if (!half) rows_of(p, F32, W, n, row, col, kept);
        else if (row > 0) rows_of(p, KEPT, W, n, row, col, kept);
        else if (n < p->n_rows) rows_of(p, F16_TO_KEEP, W, n, row, col, kept);
        else rows_of(p, F16, W, n, row, col, kept);
    }
}

// Strips of three vectors, and twos where those would leave one alone, whose few sums wait for their multiply-adds. For
// the same reason a single row has eight.
INLINE void panel(const pith_panel *p, const int half) {
    float kept[MAX_DEPTH * MAX_COLUMNS];
    const uint32_t n = p->n_cols;
    uint32_t col = 0;
    if (p->n_rows == 1)
        for (; n - col >= 8 * LANES; col += 8 * LANES) tile(p, half ? F16 : F32, 1, 8, 0, col, NULL);
    for (; n - col > 4 * LANES || n - col == 3 * LANES; col += 3 * LANES) strip(p, half, 3, col, kept);
    for (; n - col >= 2 * LANES; col += 2 * LANES) strip(p, half, 2, col, kept);
    for (; col < n; col += LANES) strip(p, half, 1, col, kept);
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

// exp(x[i] - shift) into x for n entries, a multiple of 16; sum: the partial sums so far, 8 and 8.
INLINE void exp_into(float *x, uint32_t n, float shift, __m256 sum[2]) {
    const __m256 by = _mm256_set1_ps(shift);
    PITH_UNROLL_2 for (uint32_t i = 0; i < n; i += 16) {
        const __m256 y0 = exp8(_mm256_sub_ps(_mm256_loadu_ps(x + i), by));
        const __m256 y1 = exp8(_mm256_sub_ps(_mm256_loadu_ps(x + i + 8), by));
        sum[0] = _mm256_add_ps(sum[0], y0), sum[1] = _mm256_add_ps(sum[1], y1);
        _mm256_storeu_ps(x + i, y0), _mm256_storeu_ps(x + i + 8, y1);
    }
}

ISA static float exp_sum(float *x, uint32_t n, float shift) {
    __m256 sum[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    const uint32_t whole = n / 16 * 16;
    exp_into(x, whole, shift, sum);
    if (n == whole) return sum16(sum[0], sum[1]);

    float partial[16];
    _mm256_storeu_ps(partial, sum[0]), _mm256_storeu_ps(partial + 8, sum[1]);
    for (uint32_t i = whole; i < n; i++) {
        x[i] = pith_exp(x[i] - shift);
        partial[i % 16] += x[i];
    }
    return pith_sum16(partial);
}

// Up to 8 rows together: what there is one of for each row (m, l, c) is a lane, and the rows' long chains of dependent
// operations overlap.
INLINE void soften_rows(float *s, uint32_t n, uint32_t n_visible, float *m, float *l, float *c) {
    const __m256i rows = _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    const __m256 none = _mm256_set1_ps(-__builtin_inff());
    float top[LANES] = {0}, shift[LANES], sum[LANES] = {0};
    for (uint32_t a = 0; a < n; a++) {
        float *row = s + a * PITH_PAGE_ROWS;
        for (uint32_t r = n_visible; r < PITH_PAGE_ROWS; r++) row[r] = -__builtin_inff(); // weight 0
        __m256 most = none; // max(a, b) is a where a > b, else b: a NaN score is no maximum
        PITH_UNROLL for (uint32_t i = 0; i < 8; i++) most = _mm256_max_ps(_mm256_loadu_ps(row + i * LANES), most);
        top[a] = max8(most);
    }
    const __m256 old_m = _mm256_maskload_ps(m, rows), new_m = _mm256_max_ps(_mm256_loadu_ps(top), old_m);
    const __m256 by = _mm256_and_ps(_mm256_cmp_ps(new_m, none, _CMP_NEQ_OQ), new_m); // pith_soft_shift
    const __m256 factor = exp8(_mm256_sub_ps(old_m, by));
    _mm256_storeu_ps(shift, by);
    for (uint32_t a = 0; a < n; a++) {
        __m256 partial[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
        exp_into(s + a * PITH_PAGE_ROWS, PITH_PAGE_ROWS, shift[a], partial);
        sum[a] = sum16(partial[0], partial[1]);
    }
    const __m256 new_l = _mm256_fmadd_ps(_mm256_maskload_ps(l, rows), factor, _mm256_loadu_ps(sum));
    _mm256_maskstore_ps(c, rows, factor);
    _mm256_maskstore_ps(l, rows, new_l);
    _mm256_maskstore_ps(m, rows, _mm256_add_ps(new_m, _mm256_setzero_ps()));
}

ISA static void soften(float *s, uint32_t n_q, uint32_t n_visible, float *m, float *l, float *c) {
    for (uint32_t a = 0; a < n_q; a += LANES)
        soften_rows(s + (size_t)a * PITH_PAGE_ROWS, n_q - a < LANES ? n_q - a : LANES, n_visible, m + a, l + a, c + a);
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
