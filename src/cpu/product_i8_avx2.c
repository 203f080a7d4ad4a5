// Integer products (product_i8.h) with AVX2: eight weight rows at a time, one per lane.
//
// The byte product adds pairs into 16 bits, unsigned by signed. Codes below 64 fit: two pairs stay within 4 * 63 * 127.
// Codes of Q8_0 do not; there the unsigned side is the weight's magnitude and its sign goes to the activation.
#include "cpu/product_i8_pack.h"

#include "ggml.h"

#if defined(__x86_64__)

#include <immintrin.h>
#include <stdbool.h>
#include <string.h>

#define ISA __attribute__((target("avx2,fma,f16c")))
#define INLINE static inline __attribute__((always_inline)) ISA
#define OUTLINE static __attribute__((noinline)) ISA
#define UNROLL _Pragma("GCC unroll 8")

enum {
    ROWS = 8,        // of a tile: lanes
    MAX_COLUMNS = 8, // of a tile
    WORDS = 8,       // groups of four elements in a block
    IN_FLIGHT = 2,   // columns that share a loaded weight vector
    MAX_UNIT = 256,  // bytes of a block or super-block at most
};

// One block of 32 weights of eight rows.
typedef struct block8 {
    __m256i q[WORDS]; // lane r of q[t]: codes 4t .. 4t+3 of row r; signed for Q8_0
    __m256 s[2];      // scales of its halves
    __m256 m;         // minima
} block8;

typedef struct job {
    const uint8_t *w; // row r at w + r * row_bytes
    size_t row_bytes;
    int64_t k;
    const uint8_t *x; // column c at x + c * x_bytes
    size_t x_bytes;
    float *y;         // y[c * y_stride + r]
    size_t y_stride;
    int64_t n_rows;   // 1 .. ROWS
} job;

// ------------------------------------------------------------------------------------------ transposition

// In each 128-bit lane, four words of four rows become four rows of one word.
INLINE void transpose4(const __m256i z[4], __m256i out[4]) {
    __m256i a = _mm256_unpacklo_epi32(z[0], z[1]), b = _mm256_unpackhi_epi32(z[0], z[1]);
    __m256i c = _mm256_unpacklo_epi32(z[2], z[3]), d = _mm256_unpackhi_epi32(z[2], z[3]);
    out[0] = _mm256_unpacklo_epi64(a, c);
    out[1] = _mm256_unpackhi_epi64(a, c);
    out[2] = _mm256_unpacklo_epi64(b, d);
    out[3] = _mm256_unpackhi_epi64(b, d);
}

// 16 bytes of each row: out[t] gets bytes 4t .. 4t+3 of row r in lane r, t < 4.
INLINE void transpose16(const uint8_t *at, size_t stride, __m256i out[4]) {
    __m256i z[4];
    UNROLL for (size_t j = 0; j < 4; j++)
        z[j] = _mm256_loadu2_m128i((const void *)(at + (4 + j) * stride), (const void *)(at + j * stride));
    transpose4(z, out);
}

// 32 bytes of each row: out[t], t < 8.
INLINE void transpose32(const uint8_t *at, size_t stride, __m256i out[8]) {
    transpose16(at, stride, out);
    transpose16(at + 16, stride, out + 4);
}

INLINE int64_t half_at(const uint8_t *p) {
    uint16_t h;
    memcpy(&h, p, sizeof h);
    return h;
}

// One f16 of each row.
INLINE __m256 halves(const uint8_t *at, size_t stride) {
    int64_t v[2];
    UNROLL for (size_t i = 0; i < 2; i++) {
        const uint8_t *p = at + 4 * i * stride;
        v[i] = half_at(p) | half_at(p + stride) << 16 | half_at(p + 2 * stride) << 32 |
               (int64_t)((uint64_t)half_at(p + 3 * stride) << 48);
    }
    return _mm256_cvtph_ps(_mm_set_epi64x(v[1], v[0]));
}

// ------------------------------------------------------------------------------------------------ decoding
// One unit, a block or a super-block, of eight rows `stride` apart.

INLINE __m256i low_half(__m256i v) { return _mm256_and_si256(v, _mm256_set1_epi8(0x0f)); }
INLINE __m256i high_half(__m256i v) { return low_half(_mm256_srli_epi16(v, 4)); }

OUTLINE void decode_q8_0(const uint8_t *at, size_t stride, block8 *out) {
    transpose32(at + Q8_0_CODES, stride, out->q);
    out->s[0] = halves(at, stride);
}

OUTLINE void decode_q4_0(const uint8_t *at, size_t stride, block8 *out) {
    __m256i v[4];
    transpose16(at + Q4_0_CODES, stride, v);
    UNROLL for (int t = 0; t < 4; t++) {
        out->q[t] = low_half(v[t]);
        out->q[t + 4] = high_half(v[t]);
    }
    out->s[0] = halves(at, stride);
}

// The f16 in the low half of each word.
INLINE __m256 words_to_float(__m256i v) {
    __m256i packed = _mm256_packus_epi32(_mm256_and_si256(v, _mm256_set1_epi32(0xffff)), _mm256_setzero_si256());
    return _mm256_cvtph_ps(_mm256_castsi256_si128(_mm256_permute4x64_epi64(packed, 0x08)));
}

// Scales and minima of a Q4_K or Q5_K super-block. The 12 bytes, as words A, B, C: blocks 0 to 3 have their scale in
// the low 6 bits of A's bytes and their minimum in B's; blocks 4 to 7 have the low 4 bits of the scale in the low half
// of C's bytes and of the minimum in the high half, and the upper 2 bits on top of A's and B's.
INLINE void decode_scales(const uint8_t *at, size_t stride, block8 out[8]) {
    __m256i h[4];
    transpose16(at, stride, h);
    __m256 d = words_to_float(h[0]), dmin = words_to_float(_mm256_srli_epi32(h[0], 16));
    const __m256i six = _mm256_set1_epi32(63), low = _mm256_set1_epi32(15), top = _mm256_set1_epi32(0x30);
    UNROLL for (int i = 0; i < 4; i++) {
        __m256i a = _mm256_srli_epi32(h[1], 8 * i), b = _mm256_srli_epi32(h[2], 8 * i);
        __m256i c = _mm256_srli_epi32(h[3], 8 * i);
        __m256i s = _mm256_or_si256(_mm256_and_si256(c, low), _mm256_and_si256(_mm256_srli_epi32(a, 2), top));
        __m256i m = _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi32(c, 4), low),
                                    _mm256_and_si256(_mm256_srli_epi32(b, 2), top));
        out[i].s[0] = _mm256_mul_ps(d, _mm256_cvtepi32_ps(_mm256_and_si256(a, six)));
        out[i].m = _mm256_mul_ps(dmin, _mm256_cvtepi32_ps(_mm256_and_si256(b, six)));
        out[i + 4].s[0] = _mm256_mul_ps(d, _mm256_cvtepi32_ps(s));
        out[i + 4].m = _mm256_mul_ps(dmin, _mm256_cvtepi32_ps(m));
    }
}

OUTLINE void decode_q4_k(const uint8_t *at, size_t stride, block8 out[8]) {
    decode_scales(at, stride, out);
    for (int j = 0; j < 8; j += 2) {
        __m256i v[8];
        transpose32(at + Q4_K_CODES + 16 * j, stride, v);
        UNROLL for (int t = 0; t < WORDS; t++) {
            out[j].q[t] = low_half(v[t]);
            out[j + 1].q[t] = high_half(v[t]);
        }
    }
}

// Bit j of each byte of v, as bit 4.
INLINE __m256i fifth_bit(__m256i v, int j) {
    __m256i moved = j < 4 ? _mm256_slli_epi16(v, 4 - j) : _mm256_srli_epi16(v, j - 4);
    return _mm256_and_si256(moved, _mm256_set1_epi8(0x10));
}

OUTLINE void decode_q5_k(const uint8_t *at, size_t stride, block8 out[8]) {
    decode_scales(at, stride, out);
    __m256i high[8];
    transpose32(at + Q5_K_HIGH, stride, high);
    UNROLL for (int j = 0; j < 8; j += 2) {
        __m256i v[8];
        transpose32(at + Q5_K_CODES + 16 * j, stride, v);
        UNROLL for (int t = 0; t < WORDS; t++) {
            out[j].q[t] = _mm256_or_si256(low_half(v[t]), fifth_bit(high[t], j));
            out[j + 1].q[t] = _mm256_or_si256(high_half(v[t]), fifth_bit(high[t], j + 1));
        }
    }
}

// Signed byte i of each word, times d.
INLINE __m256 sub_scale(__m256 d, __m256i v, int i) {
    return _mm256_mul_ps(d, _mm256_cvtepi32_ps(_mm256_srai_epi32(_mm256_slli_epi32(v, 24 - 8 * i), 24)));
}

OUTLINE void decode_q6_k(const uint8_t *at, size_t stride, block8 out[8]) {
    __m256i scale[4];
    transpose16(at + Q6_K_SCALES, stride, scale);
    __m256 d = halves(at + Q6_K_D, stride);
    _Pragma("GCC unroll 16") for (int i = 0; i < 16; i++) out[i / 2].s[i % 2] = sub_scale(d, scale[i / 4], i % 4);
    const __m256i two = _mm256_set1_epi8(0x30);
    for (int half = 0; half < 2; half++, out += 4) {
        __m256i high[8], v[8];
        transpose32(at + Q6_K_HIGH + 32 * half, stride, high);
        transpose32(at + 64 * half, stride, v);
        UNROLL for (int t = 0; t < WORDS; t++) {
            out[0].q[t] = _mm256_or_si256(low_half(v[t]), _mm256_and_si256(_mm256_slli_epi16(high[t], 4), two));
            out[2].q[t] = _mm256_or_si256(high_half(v[t]), _mm256_and_si256(high[t], two));
        }
        transpose32(at + 64 * half + 32, stride, v);
        UNROLL for (int t = 0; t < WORDS; t++) {
            out[1].q[t] = _mm256_or_si256(low_half(v[t]), _mm256_and_si256(_mm256_slli_epi16(high[t], 2), two));
            out[3].q[t] = _mm256_or_si256(high_half(v[t]), _mm256_and_si256(_mm256_srli_epi16(high[t], 2), two));
        }
    }
}

// --------------------------------------------------------------------------------------------- multiplying

INLINE const pith_i8_block *column(const uint8_t *x, size_t x_bytes, int c) {
    return (const pith_i8_block *)(const void *)(x + (size_t)c * x_bytes);
}

INLINE __m256i word(const pith_i8_block *a, int t) {
    int32_t v;
    memcpy(&v, a->a + 4 * t, sizeof v);
    return _mm256_set1_epi32(v);
}

// Words t and t+1 of a block: sums of their eight products in each lane.
INLINE __m256i products(const int type, const block8 *b, const pith_i8_block *a, int t) {
    const __m256i one = _mm256_set1_epi16(1), w0 = b->q[t], w1 = b->q[t + 1];
    if (type == GGML_TYPE_Q8_0) {
        __m256i p0 = _mm256_maddubs_epi16(_mm256_abs_epi8(w0), _mm256_sign_epi8(word(a, t), w0));
        __m256i p1 = _mm256_maddubs_epi16(_mm256_abs_epi8(w1), _mm256_sign_epi8(word(a, t + 1), w1));
        return _mm256_add_epi32(_mm256_madd_epi16(p0, one), _mm256_madd_epi16(p1, one));
    }
    __m256i p = _mm256_add_epi16(_mm256_maddubs_epi16(w0, word(a, t)), _mm256_maddubs_epi16(w1, word(a, t + 1)));
    return _mm256_madd_epi16(p, one);
}

// Adds one block to n (at most IN_FLIGHT) columns.
INLINE void multiply_few(const int type, const int n, const block8 *b, const uint8_t *x, size_t x_bytes, __m256 *acc) {
    const bool minima = type == GGML_TYPE_Q4_K || type == GGML_TYPE_Q5_K, halved = type == GGML_TYPE_Q6_K;
    const int shift = type == GGML_TYPE_Q4_0 ? 4 : type == GGML_TYPE_Q6_K ? 2 : -1; // of start; none: no constant z
    __m256i sum[2][IN_FLIGHT];
    UNROLL for (int c = 0; c < n; c++) {
        const pith_i8_block *a = column(x, x_bytes, c);
        sum[0][c] = sum[1][c] = _mm256_setzero_si256();
        if (shift < 0) continue;
        sum[0][c] = _mm256_srai_epi32(_mm256_set1_epi32(halved ? a->start_half : a->start), shift);
        if (halved) sum[1][c] = _mm256_srai_epi32(_mm256_set1_epi32(a->start - a->start_half), shift);
    }
    UNROLL for (int t = 0; t < WORDS; t += 2) {
        UNROLL for (int c = 0; c < n; c++) {
            __m256i *to = &sum[halved && t >= WORDS / 2][c];
            *to = _mm256_add_epi32(*to, products(type, b, column(x, x_bytes, c), t));
        }
    }
    UNROLL for (int c = 0; c < n; c++) {
        const pith_i8_block *a = column(x, x_bytes, c);
        __m256 d = _mm256_set1_ps(a->d);
        acc[c] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum[0][c]), _mm256_mul_ps(b->s[0], d), acc[c]);
        if (halved) acc[c] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum[1][c]), _mm256_mul_ps(b->s[1], d), acc[c]);
        if (minima) acc[c] = _mm256_fnmadd_ps(b->m, _mm256_set1_ps(a->e), acc[c]);
    }
}

// --------------------------------------------------------------------------------------------------- tiles

INLINE void decode(const int type, const uint8_t *at, size_t stride, block8 *out) {
    if (type == GGML_TYPE_Q8_0) decode_q8_0(at, stride, out);
    if (type == GGML_TYPE_Q4_0) decode_q4_0(at, stride, out);
    if (type == GGML_TYPE_Q4_K) decode_q4_k(at, stride, out);
    if (type == GGML_TYPE_Q5_K) decode_q5_k(at, stride, out);
    if (type == GGML_TYPE_Q6_K) decode_q6_k(at, stride, out);
}

// Weights come from memory once and in file order, though the tile reads eight rows at a time: the bytes of the tile
// after next are fetched front to back while this one is worked on. Into the L2: an L1 takes too few lines at once to
// keep the memory busy, and two tiles do not fit there.
INLINE void fetch(uintptr_t from, size_t bytes) {
    UNROLL for (size_t i = 0; i < bytes; i += 64) _mm_prefetch((const char *)(from + i), _MM_HINT_T1);
}

INLINE void tile(const int type, const size_t unit_bytes, const int n_blocks, const int C, const job *g) {
    __m256 acc[MAX_COLUMNS];
    UNROLL for (int c = 0; c < C; c++) acc[c] = _mm256_setzero_ps();
    const uint8_t *x = g->x, *w = g->w;
    uintptr_t ahead = (uintptr_t)w + 2 * ROWS * g->row_bytes;
    uint8_t staged[ROWS * MAX_UNIT];
    const bool stage = g->n_rows < ROWS;
    if (stage) memset(staged, 0, sizeof staged);
    for (int64_t i = g->k / (n_blocks * PITH_I8_BLOCK); i > 0; i--) {
        block8 blocks[8];
        if (stage) { // rows that are not there count as zeros
            for (size_t r = 0; r < (size_t)g->n_rows; r++)
                memcpy(staged + r * unit_bytes, w + r * g->row_bytes, unit_bytes);
            decode(type, staged, unit_bytes, blocks);
        } else {
            decode(type, w, g->row_bytes, blocks);
        }
        w += unit_bytes;
        _Pragma("GCC unroll 1") for (int b = 0; b < n_blocks; b++) {
            fetch(ahead, ROWS * unit_bytes / (size_t)n_blocks);
            ahead += ROWS * unit_bytes / (size_t)n_blocks;
            UNROLL for (int c = 0; c < C; c += IN_FLIGHT) {
                int n = C - c < IN_FLIGHT ? C - c : IN_FLIGHT;
                multiply_few(type, n, &blocks[b], x + (size_t)c * g->x_bytes, g->x_bytes, acc + c);
            }
            x += sizeof(pith_i8_block);
        }
    }
    UNROLL for (int c = 0; c < C; c++) {
        float lanes[ROWS];
        _mm256_storeu_ps(lanes, acc[c]);
        memcpy(g->y + (size_t)c * g->y_stride, lanes, (size_t)g->n_rows * sizeof(float));
    }
}

// One function for each type and number of columns.
typedef void (*tile_fn)(const job *);
#define TILE(type, C)                                                                                                  \
    static ISA void tile_##type##_##C(const job *g) {                                                                  \
        tile(GGML_TYPE_##type, type##_BYTES, type##_BYTES < 64 ? 1 : 8, C, g);                                         \
    }
#define TILES(type)                                                                                                    \
    TILE(type, 1) TILE(type, 2) TILE(type, 3) TILE(type, 4) TILE(type, 5) TILE(type, 6) TILE(type, 7) TILE(type, 8)    \
    static const tile_fn tiles_##type[MAX_COLUMNS] = {                                                                 \
        tile_##type##_1, tile_##type##_2, tile_##type##_3, tile_##type##_4,                                            \
        tile_##type##_5, tile_##type##_6, tile_##type##_7, tile_##type##_8};
TILES(Q8_0)
TILES(Q4_0)
TILES(Q4_K)
TILES(Q5_K)
TILES(Q6_K)

static void rows(const pith_product *self, const void *w, size_t row_bytes, int64_t k, const void *packed, uint32_t n,
                 int64_t r0, int64_t r1, float *y, size_t y_stride) {
    const tile_fn *tiles = self->type == GGML_TYPE_Q8_0   ? tiles_Q8_0
                           : self->type == GGML_TYPE_Q4_0 ? tiles_Q4_0
                           : self->type == GGML_TYPE_Q4_K ? tiles_Q4_K
                           : self->type == GGML_TYPE_Q5_K ? tiles_Q5_K
                                                          : tiles_Q6_K;
    const size_t x_bytes = pith_i8_packed_bytes(self, k);
    const uint32_t n_groups = (n + MAX_COLUMNS - 1) / MAX_COLUMNS;
    for (int64_t r = r0; r < r1; r += ROWS) {
        for (uint32_t i = 0; i < n_groups; i++) { // a second group finds the tile's weights in the cache
            uint32_t c0 = n * i / n_groups, c1 = n * (i + 1) / n_groups;
            job g = {(const uint8_t *)w + (size_t)r * row_bytes, row_bytes, k, (const uint8_t *)packed + c0 * x_bytes,
                     x_bytes, y + c0 * y_stride + r, y_stride, r1 - r < ROWS ? r1 - r : ROWS};
            tiles[c1 - c0 - 1](&g);
        }
    }
}

static ISA void pack(const pith_product *self, const float *x, void *packed, int64_t k) {
    (void)self;
    pith_i8_pack_blocks(x, packed, k);
}

#define KERNEL(type) {GGML_TYPE_##type, "avx2", pith_i8_packed_bytes, pack, rows}
const pith_product pith_i8_avx2[] = {KERNEL(Q8_0), KERNEL(Q4_0), KERNEL(Q4_K), KERNEL(Q5_K), KERNEL(Q6_K),
                                     {0, NULL, NULL, NULL, NULL}};

#else
const pith_product pith_i8_avx2[] = {{0, NULL, NULL, NULL, NULL}};
#endif
