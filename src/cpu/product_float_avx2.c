// Products of F32, F16 and BF16 weights (product_float.h) with AVX2: the 16 lanes are two registers.
#include "cpu/product_float.h"

#include "ggml.h"

#if defined(__x86_64__)

#include <immintrin.h>
#include <string.h>

#define ISA __attribute__((target("avx2,fma,f16c")))
#define INLINE static inline __attribute__((always_inline)) ISA
#define UNROLL _Pragma("GCC unroll 8")

enum { LANES = PITH_FLOAT_LANES, MAX_ROWS = 4, MAX_COLUMNS = 4 };

typedef struct job {
    const uint8_t *w[MAX_ROWS]; // rows, repeated where there are fewer
    int n_rows;                 // that are stored
    int64_t k;
    const uint8_t *x; // column c at x + c * x_bytes
    size_t x_bytes;
    float *y; // y[c * y_stride + r]
    size_t y_stride;
    uintptr_t ahead; // the next tile's rows
} job;

// 8 weights.
INLINE __m256 weights(const int type, const uint8_t *at) {
    if (type == GGML_TYPE_F32) return _mm256_loadu_ps((const float *)(const void *)at);
    __m128i half = _mm_loadu_si128((const void *)at);
    if (type == GGML_TYPE_F16) return _mm256_cvtph_ps(half);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}

INLINE float fold(__m256 low, __m256 high) {
    __m256 a = _mm256_add_ps(low, high);
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}

INLINE void add_part(const int type, const int R, const int C, const job *g, const uint8_t *const *row, int64_t i,
                     __m256 acc[MAX_ROWS][MAX_COLUMNS][2]) {
    const int bytes = type == GGML_TYPE_F32 ? 4 : 2;
    UNROLL for (int h = 0; h < 2; h++) {
        __m256 w[MAX_ROWS];
        UNROLL for (int r = 0; r < R; r++) w[r] = weights(type, row[r] + 8 * h * bytes);
        UNROLL for (int c = 0; c < C; c++) {
            __m256 x = _mm256_load_ps((const float *)(const void *)(g->x + (size_t)c * g->x_bytes) + i + 8 * h);
            UNROLL for (int r = 0; r < R; r++) acc[r][c][h] = _mm256_fmadd_ps(w[r], x, acc[r][c][h]);
        }
    }
}

INLINE void tile(const int type, const int R, const int C, const job *g) {
    const int bytes = type == GGML_TYPE_F32 ? 4 : 2;
    __m256 acc[MAX_ROWS][MAX_COLUMNS][2];
    UNROLL for (int r = 0; r < R; r++) {
        UNROLL for (int c = 0; c < C; c++) acc[r][c][0] = acc[r][c][1] = _mm256_setzero_ps();
    }
    const uint8_t *row[MAX_ROWS];
    UNROLL for (int r = 0; r < R; r++) row[r] = g->w[r];
    // A tile reads several rows side by side; the next one's are fetched front to back meanwhile, as memory likes it, and
    // into the L2, since an L1 takes too few lines at once to keep the memory busy.
    uintptr_t ahead = g->ahead;
    const uintptr_t part = (uintptr_t)(R * LANES * bytes);
    int64_t i = 0;
    for (; i + LANES <= g->k; i += LANES) {
        UNROLL for (uintptr_t j = 0; j < part; j += 64) _mm_prefetch((const char *)(ahead + j), _MM_HINT_T1);
        ahead += part;
        add_part(type, R, C, g, row, i, acc);
        UNROLL for (int r = 0; r < R; r++) row[r] += LANES * bytes;
    }
    if (i < g->k) { // the last part, filled up: no byte past a row's end is touched
        uint8_t rest[MAX_ROWS][LANES * 4] = {{0}};
        const uint8_t *filled[MAX_ROWS];
        for (int r = 0; r < R; r++) filled[r] = memcpy(rest[r], row[r], (size_t)(g->k - i) * (size_t)bytes);
        add_part(type, R, C, g, filled, i, acc);
    }
    UNROLL for (int c = 0; c < C; c++) {
        UNROLL for (int r = 0; r < R; r++)
            if (r < g->n_rows) g->y[(size_t)c * g->y_stride + (size_t)r] = fold(acc[r][c][0], acc[r][c][1]);
    }
}

// One function for each type and number of columns; as many rows as leave accumulators in registers.
typedef void (*tile_fn)(const job *);
#define TILE(type, R, C)                                                                                               \
    static ISA void tile_##type##_##C(const job *g) { tile(GGML_TYPE_##type, R, C, g); }
#define TILES(type)                                                                                                    \
    TILE(type, 4, 1) TILE(type, 2, 2) TILE(type, 1, 3) TILE(type, 1, 4)                                                \
    static const tile_fn tiles_##type[MAX_COLUMNS] = {tile_##type##_1, tile_##type##_2, tile_##type##_3,               \
                                                      tile_##type##_4};
static const int tile_rows[MAX_COLUMNS] = {4, 2, 1, 1};
TILES(F32)
TILES(F16)
TILES(BF16)

static void rows(const pith_product *self, const void *w, size_t row_bytes, int64_t k, const void *packed, uint32_t n,
                 int64_t r0, int64_t r1, float *y, size_t y_stride) {
    if (n == 0) return;
    const tile_fn *tiles = self->type == GGML_TYPE_F32   ? tiles_F32
                           : self->type == GGML_TYPE_F16 ? tiles_F16
                                                         : tiles_BF16;
    const size_t x_bytes = pith_float_packed_bytes(self, k);
    const uint32_t n_groups = (n + MAX_COLUMNS - 1) / MAX_COLUMNS, widest = (n + n_groups - 1) / n_groups;
    const int step = tile_rows[widest - 1]; // narrower groups take as many rows or more
    for (int64_t r = r0; r < r1; r += step) {
        for (uint32_t i = 0; i < n_groups; i++) { // a second group finds the tile's weights in the cache
            const uint32_t c0 = n * i / n_groups, c1 = n * (i + 1) / n_groups;
            job g = {.k = k, .x = (const uint8_t *)packed + c0 * x_bytes, .x_bytes = x_bytes,
                     .y = y + c0 * y_stride + r, .y_stride = y_stride,
                     .n_rows = r1 - r < step ? (int)(r1 - r) : step};
            for (int j = 0; j < MAX_ROWS; j++)
                g.w[j] = (const uint8_t *)w + (size_t)(r + (j < g.n_rows ? j : 0)) * row_bytes;
            g.ahead = (uintptr_t)g.w[0] + (size_t)step * row_bytes;
            tiles[c1 - c0 - 1](&g);
        }
    }
}

#define KERNEL(type) {GGML_TYPE_##type, "avx2", pith_float_packed_bytes, pith_float_pack, rows}
const pith_product pith_float_avx2[] = {KERNEL(F32), KERNEL(F16), KERNEL(BF16), {0, NULL, NULL, NULL, NULL}};

#else
const pith_product pith_float_avx2[] = {{0, NULL, NULL, NULL, NULL}};
#endif
