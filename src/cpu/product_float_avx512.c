// Products of F32, F16 and BF16 weights (product_float.h) with AVX-512: the 16 lanes are one register.
#include "cpu/product_float.h"

#include "ggml.h"

#if defined(__x86_64__)

#include <immintrin.h>
#include <string.h>

#define ISA __attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")))
#define INLINE static inline __attribute__((always_inline)) ISA
#define UNROLL _Pragma("GCC unroll 8")

// Four by four: sixteen accumulators, and few enough columns that their activations stay in the first cache.
enum { LANES = PITH_FLOAT_LANES, ROWS = 4, MAX_COLUMNS = 4 };

typedef struct job {
    const uint8_t *w[ROWS]; // rows, repeated where there are fewer
    int n_rows;             // that are stored
    int64_t k;
    const uint8_t *x; // column c at x + c * x_bytes
    size_t x_bytes;
    float *y; // y[c * y_stride + r]
    size_t y_stride;
    uintptr_t ahead; // the next tile's rows
} job;

// 16 weights, those of `mask` (the last part of a row: no byte past its end is touched).
INLINE __m512 weights(const int type, const uint8_t *at, __mmask16 mask) {
    if (type == GGML_TYPE_F32) return _mm512_maskz_loadu_ps(mask, at);
    __m256i half = _mm256_maskz_loadu_epi16(mask, at);
    if (type == GGML_TYPE_F16) return _mm512_cvtph_ps(half);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

INLINE float fold(__m512 v) {
    __m256 a = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}

INLINE void add_part(const int type, const int C, const job *g, int64_t i, __mmask16 mask,
                     __m512 acc[ROWS][MAX_COLUMNS]) {
    const int bytes = type == GGML_TYPE_F32 ? 4 : 2;
    __m512 w[ROWS];
    UNROLL for (int r = 0; r < ROWS; r++) w[r] = weights(type, g->w[r] + i * bytes, mask);
    UNROLL for (int c = 0; c < C; c++) {
        __m512 x = _mm512_load_ps((const float *)(const void *)(g->x + (size_t)c * g->x_bytes) + i);
        UNROLL for (int r = 0; r < ROWS; r++) acc[r][c] = _mm512_fmadd_ps(w[r], x, acc[r][c]);
    }
}

INLINE void tile(const int type, const int C, const job *g) {
    const int bytes = type == GGML_TYPE_F32 ? 4 : 2;
    __m512 acc[ROWS][MAX_COLUMNS];
    UNROLL for (int r = 0; r < ROWS; r++) {
        UNROLL for (int c = 0; c < C; c++) acc[r][c] = _mm512_setzero_ps();
    }
    // A tile reads several rows side by side; the next one's are fetched front to back meanwhile, as memory likes it, and
    // into the L2, since an L1 takes too few lines at once to keep the memory busy.
    uintptr_t ahead = g->ahead;
    const uintptr_t part = (uintptr_t)(ROWS * LANES * bytes);
    int64_t i = 0;
    for (; i + LANES <= g->k; i += LANES) {
        UNROLL for (uintptr_t j = 0; j < part; j += 64) _mm_prefetch((const char *)(ahead + j), _MM_HINT_T1);
        ahead += part;
        add_part(type, C, g, i, 0xffff, acc);
    }
    if (i < g->k) add_part(type, C, g, i, (__mmask16)((1u << (g->k - i)) - 1), acc);
    UNROLL for (int c = 0; c < C; c++) {
        UNROLL for (int r = 0; r < ROWS; r++)
            if (r < g->n_rows) g->y[(size_t)c * g->y_stride + (size_t)r] = fold(acc[r][c]);
    }
}

// One function for each type and number of columns.
typedef void (*tile_fn)(const job *);
#define TILE(type, C)                                                                                                  \
    static ISA void tile_##type##_##C(const job *g) { tile(GGML_TYPE_##type, C, g); }
#define TILES(type)                                                                                                    \
    TILE(type, 1) TILE(type, 2) TILE(type, 3) TILE(type, 4)                                                            \
    static const tile_fn tiles_##type[MAX_COLUMNS] = {tile_##type##_1, tile_##type##_2, tile_##type##_3,               \
                                                      tile_##type##_4};
TILES(F32)
TILES(F16)
TILES(BF16)

static void rows(const pith_product *self, const void *w, size_t row_bytes, int64_t k, const void *packed, uint32_t n,
                 int64_t r0, int64_t r1, float *y, size_t y_stride) {
    const tile_fn *tiles = self->type == GGML_TYPE_F32   ? tiles_F32
                           : self->type == GGML_TYPE_F16 ? tiles_F16
                                                         : tiles_BF16;
    const size_t x_bytes = pith_float_packed_bytes(self, k);
    const uint32_t n_groups = (n + MAX_COLUMNS - 1) / MAX_COLUMNS;
    for (int64_t r = r0; r < r1; r += ROWS) {
        for (uint32_t i = 0; i < n_groups; i++) { // a second group finds the tile's weights in the cache
            const uint32_t c0 = n * i / n_groups, c1 = n * (i + 1) / n_groups;
            job g = {.k = k, .x = (const uint8_t *)packed + c0 * x_bytes, .x_bytes = x_bytes,
                     .y = y + c0 * y_stride + r, .y_stride = y_stride,
                     .n_rows = r1 - r < ROWS ? (int)(r1 - r) : ROWS};
            for (int j = 0; j < ROWS; j++)
                g.w[j] = (const uint8_t *)w + (size_t)(r + (j < g.n_rows ? j : 0)) * row_bytes;
            g.ahead = (uintptr_t)g.w[0] + (size_t)ROWS * row_bytes;
            tiles[c1 - c0 - 1](&g);
        }
    }
}

#define KERNEL(type) {GGML_TYPE_##type, "avx512", pith_float_packed_bytes, pith_float_pack, rows}
const pith_product pith_float_avx512[] = {KERNEL(F32), KERNEL(F16), KERNEL(BF16), {0, NULL, NULL, NULL, NULL}};

#else
const pith_product pith_float_avx512[] = {{0, NULL, NULL, NULL, NULL}};
#endif
