// Integer products (product_i8.h) with AVX-512 and VNNI: sixteen weight rows at a time, one per lane.
//
// The byte dot product multiplies unsigned by signed: codes q are the unsigned side, activations the signed one, and
// the constant z comes in through the sums' starting value.
#include "cpu/product_i8_pack.h"

#include "ggml.h"

#if defined(__x86_64__)

#include <immintrin.h>
#include <stdbool.h>
#include <string.h>

#define ISA __attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")))
#define INLINE static inline __attribute__((always_inline)) ISA
#define OUTLINE static __attribute__((noinline)) ISA
#define UNROLL _Pragma("GCC unroll 16")

enum {
    ROWS = 16,        // of a tile: lanes
    MAX_COLUMNS = 16, // of a tile: as many accumulators as fit beside eight weight vectors
    WORDS = 8,        // groups of four elements in a block
    IN_FLIGHT = 4,    // columns whose sums interleave, so that their latencies overlap
    MAX_UNIT = 256,   // bytes of a block or super-block at most
};

// One block of 32 weights of sixteen rows.
typedef struct block16 {
    __m512i q[WORDS]; // lane r of q[t]: codes 4t .. 4t+3 of row r
    __m512 s[2];      // scales of its halves
    __m512 m;         // minima
} block16;

// What a product needs; w, y and n_rows advance from tile to tile.
typedef struct job {
    const uint8_t *w;  // row r at w + r * row_bytes
    size_t row_bytes;
    int64_t k;
    const uint8_t *x;  // column c at x + c * x_bytes
    size_t x_bytes;
    float *y;          // y[c * y_stride + r]
    size_t y_stride;
    int64_t n_rows;    // 1 .. ROWS
} job;

// ------------------------------------------------------------------------------------------ transposition

INLINE __m512i rows32(const uint8_t *lo, const uint8_t *hi) {
    __m256i a = _mm256_loadu_si256((const void *)lo), b = _mm256_loadu_si256((const void *)hi);
    return _mm512_inserti64x4(_mm512_castsi256_si512(a), b, 1);
}

// In each 128-bit lane, four words of four rows become four rows of one word.
INLINE void transpose4(const __m512i z[4], __m512i out[4]) {
    __m512i a = _mm512_unpacklo_epi32(z[0], z[1]), b = _mm512_unpackhi_epi32(z[0], z[1]);
    __m512i c = _mm512_unpacklo_epi32(z[2], z[3]), d = _mm512_unpackhi_epi32(z[2], z[3]);
    out[0] = _mm512_unpacklo_epi64(a, c);
    out[1] = _mm512_unpackhi_epi64(a, c);
    out[2] = _mm512_unpacklo_epi64(b, d);
    out[3] = _mm512_unpackhi_epi64(b, d);
}

// 32 bytes of each row: out[t] gets bytes 4t .. 4t+3 of row r in lane r.
INLINE void transpose32(const uint8_t *at, size_t stride, __m512i out[8]) {
    __m512i z[4], g[2][4]; // g[h][t]: rows 8h .. 8h+3 of word t and of t+4, then rows 8h+4 .. 8h+7
    UNROLL for (size_t h = 0; h < 2; h++) {
        UNROLL for (size_t j = 0; j < 4; j++) z[j] = rows32(at + (8 * h + j) * stride, at + (8 * h + 4 + j) * stride);
        transpose4(z, g[h]);
    }
    UNROLL for (int t = 0; t < 4; t++) {
        out[t] = _mm512_shuffle_i64x2(g[0][t], g[1][t], 0x88);
        out[t + 4] = _mm512_shuffle_i64x2(g[0][t], g[1][t], 0xdd);
    }
}

// 16 bytes of each row: out[t], t < 4.
INLINE void transpose16(const uint8_t *at, size_t stride, __m512i out[4]) {
    __m512i z[4];
    UNROLL for (size_t j = 0; j < 4; j++) {
        z[j] = _mm512_castsi128_si512(_mm_loadu_si128((const void *)(at + j * stride)));
        z[j] = _mm512_inserti32x4(z[j], _mm_loadu_si128((const void *)(at + (4 + j) * stride)), 1);
        z[j] = _mm512_inserti32x4(z[j], _mm_loadu_si128((const void *)(at + (8 + j) * stride)), 2);
        z[j] = _mm512_inserti32x4(z[j], _mm_loadu_si128((const void *)(at + (12 + j) * stride)), 3);
    }
    transpose4(z, out);
}

INLINE uint64_t half_at(const uint8_t *p) {
    uint16_t h;
    memcpy(&h, p, sizeof h);
    return h;
}

// Four rows' halves. Put together in general registers, which have nothing else to do.
INLINE int64_t halves4(const uint8_t *at, size_t stride) {
    return (int64_t)(half_at(at) | half_at(at + stride) << 16 | half_at(at + 2 * stride) << 32 |
                     half_at(at + 3 * stride) << 48);
}

// One f16 of each row.
INLINE __m512 halves(const uint8_t *at, size_t stride) {
    __m256i h = _mm256_setr_epi64x(halves4(at, stride), halves4(at + 4 * stride, stride),
                                   halves4(at + 8 * stride, stride), halves4(at + 12 * stride, stride));
    return _mm512_cvtph_ps(h);
}

// --------------------------------------------------------------------------------------------- multiplying

INLINE const pith_i8_block *column(const uint8_t *x, size_t x_bytes, int c) {
    return (const pith_i8_block *)(const void *)(x + (size_t)c * x_bytes);
}

INLINE __m512i word(const pith_i8_block *a, int t) {
    int32_t v;
    memcpy(&v, a->a + 4 * t, sizeof v);
    return _mm512_set1_epi32(v);
}

// Adds one block to n (at most IN_FLIGHT) columns. z = 128 >> shift, or 0 when shift is negative. `halved`: its halves
// have scales of their own. `two_chains`: sum them apart all the same, which halves the wait for the last product when
// there are few columns to fill it.
INLINE void multiply_few(const int n, const int shift, const bool halved, const bool minima, const bool two_chains,
                         const block16 *b, const uint8_t *x, size_t x_bytes, __m512 *acc) {
    const bool two = halved || two_chains;
    __m512i sum[2][IN_FLIGHT];
    UNROLL for (int c = 0; c < n; c++) {
        const pith_i8_block *a = column(x, x_bytes, c);
        sum[0][c] = sum[1][c] = _mm512_setzero_si512();
        if (shift < 0) continue;
        sum[0][c] = _mm512_set1_epi32(halved ? a->start_half : a->start);
        if (halved) sum[1][c] = _mm512_sub_epi32(_mm512_set1_epi32(a->start), sum[0][c]);
        if (shift > 0) sum[0][c] = _mm512_srai_epi32(sum[0][c], (unsigned)shift);
        if (shift > 0 && halved) sum[1][c] = _mm512_srai_epi32(sum[1][c], (unsigned)shift);
    }
    UNROLL for (int t = 0; t < WORDS; t++) {
        UNROLL for (int c = 0; c < n; c++) {
            __m512i *to = &sum[two && t >= WORDS / 2][c];
            *to = _mm512_dpbusd_epi32(*to, b->q[t], word(column(x, x_bytes, c), t));
        }
    }
    UNROLL for (int c = 0; c < n; c++) {
        const pith_i8_block *a = column(x, x_bytes, c);
        __m512 d = _mm512_set1_ps(a->d);
        if (two && !halved) sum[0][c] = _mm512_add_epi32(sum[0][c], sum[1][c]);
        acc[c] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[0][c]), _mm512_mul_ps(b->s[0], d), acc[c]);
        if (halved) acc[c] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[1][c]), _mm512_mul_ps(b->s[1], d), acc[c]);
        if (minima) acc[c] = _mm512_fnmadd_ps(b->m, _mm512_set1_ps(a->e), acc[c]);
    }
}

// ------------------------------------------------------------------------------------------------ decoding
// One unit, a block or a super-block, of sixteen rows `stride` apart.

INLINE __m512i low_half(__m512i v) { return _mm512_and_si512(v, _mm512_set1_epi8(0x0f)); }
INLINE __m512i high_half(__m512i v) { return low_half(_mm512_srli_epi16(v, 4)); }

INLINE void decode_q8_0(const uint8_t *at, size_t stride, block16 *out) {
    transpose32(at + Q8_0_CODES, stride, out->q);
    UNROLL for (int t = 0; t < WORDS; t++)
        out->q[t] = _mm512_xor_si512(out->q[t], _mm512_set1_epi8((char)0x80)); // signed to unsigned: + 128
    out->s[0] = halves(at, stride);
}

INLINE void decode_q4_0(const uint8_t *at, size_t stride, block16 *out) {
    __m512i v[4];
    transpose16(at + Q4_0_CODES, stride, v);
    UNROLL for (int t = 0; t < 4; t++) {
        out->q[t] = low_half(v[t]);
        out->q[t + 4] = high_half(v[t]);
    }
    out->s[0] = halves(at, stride);
}

// Scales and minima of a Q4_K or Q5_K super-block. The 12 bytes, as words A, B, C: blocks 0 to 3 have their scale in
// the low 6 bits of A's bytes and their minimum in B's; blocks 4 to 7 have the low 4 bits of the scale in the low half
// of C's bytes and of the minimum in the high half, and the upper 2 bits on top of A's and B's.
INLINE void decode_scales(const uint8_t *at, size_t stride, block16 out[8]) {
    __m512i h[4];
    transpose16(at, stride, h);
    __m512 d = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(h[0]));
    __m512 dmin = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32(h[0], 16)));
    const __m512i six = _mm512_set1_epi32(63), low = _mm512_set1_epi32(15), top = _mm512_set1_epi32(0x30);
    UNROLL for (unsigned i = 0; i < 4; i++) {
        __m512i a = _mm512_srli_epi32(h[1], 8 * i), b = _mm512_srli_epi32(h[2], 8 * i);
        __m512i c = _mm512_srli_epi32(h[3], 8 * i);
        __m512i s = _mm512_or_si512(_mm512_and_si512(c, low), _mm512_and_si512(_mm512_srli_epi32(a, 2), top));
        __m512i m = _mm512_or_si512(_mm512_and_si512(_mm512_srli_epi32(c, 4), low),
                                    _mm512_and_si512(_mm512_srli_epi32(b, 2), top));
        out[i].s[0] = _mm512_mul_ps(d, _mm512_cvtepi32_ps(_mm512_and_si512(a, six)));
        out[i].m = _mm512_mul_ps(dmin, _mm512_cvtepi32_ps(_mm512_and_si512(b, six)));
        out[i + 4].s[0] = _mm512_mul_ps(d, _mm512_cvtepi32_ps(s));
        out[i + 4].m = _mm512_mul_ps(dmin, _mm512_cvtepi32_ps(m));
    }
}

OUTLINE void decode_q4_k(const uint8_t *at, size_t stride, block16 out[8]) {
    decode_scales(at, stride, out);
    for (int j = 0; j < 8; j += 2) {
        __m512i v[8];
        transpose32(at + Q4_K_CODES + 16 * j, stride, v);
        UNROLL for (int t = 0; t < WORDS; t++) {
            out[j].q[t] = low_half(v[t]);
            out[j + 1].q[t] = high_half(v[t]);
        }
    }
}

// Bit j of each byte of v, as bit 4.
INLINE __m512i fifth_bit(__m512i v, int j) {
    __m128i by = _mm_cvtsi32_si128(j < 4 ? 4 - j : j - 4);
    __m512i moved = j < 4 ? _mm512_sll_epi16(v, by) : _mm512_srl_epi16(v, by);
    return _mm512_and_si512(moved, _mm512_set1_epi8(0x10));
}

OUTLINE void decode_q5_k(const uint8_t *at, size_t stride, block16 out[8]) {
    decode_scales(at, stride, out);
    __m512i high[8];
    transpose32(at + Q5_K_HIGH, stride, high);
    UNROLL for (int j = 0; j < 8; j += 2) {
        __m512i v[8];
        transpose32(at + Q5_K_CODES + 16 * j, stride, v);
        UNROLL for (int t = 0; t < WORDS; t++) {
            out[j].q[t] = _mm512_or_si512(low_half(v[t]), fifth_bit(high[t], j));
            out[j + 1].q[t] = _mm512_or_si512(high_half(v[t]), fifth_bit(high[t], j + 1));
        }
    }
}

// Signed byte i of each word, times d.
INLINE __m512 sub_scale(__m512 d, __m512i v, unsigned i) {
    return _mm512_mul_ps(d, _mm512_cvtepi32_ps(_mm512_srai_epi32(_mm512_slli_epi32(v, 24 - 8 * i), 24)));
}

OUTLINE void decode_q6_k(const uint8_t *at, size_t stride, block16 out[8]) {
    __m512i scale[4];
    transpose16(at + Q6_K_SCALES, stride, scale);
    __m512 d = halves(at + Q6_K_D, stride);
    UNROLL for (unsigned i = 0; i < 16; i++) out[i / 2].s[i % 2] = sub_scale(d, scale[i / 4], i % 4);
    const __m512i two = _mm512_set1_epi8(0x30);
    for (int half = 0; half < 2; half++, out += 4) {
        __m512i high[8], v[8];
        transpose32(at + Q6_K_HIGH + 32 * half, stride, high);
        transpose32(at + 64 * half, stride, v);
        UNROLL for (int t = 0; t < WORDS; t++) {
            out[0].q[t] = _mm512_or_si512(low_half(v[t]), _mm512_and_si512(_mm512_slli_epi16(high[t], 4), two));
            out[2].q[t] = _mm512_or_si512(high_half(v[t]), _mm512_and_si512(high[t], two));
        }
        transpose32(at + 64 * half + 32, stride, v);
        UNROLL for (int t = 0; t < WORDS; t++) {
            out[1].q[t] = _mm512_or_si512(low_half(v[t]), _mm512_and_si512(_mm512_slli_epi16(high[t], 2), two));
            out[3].q[t] = _mm512_or_si512(high_half(v[t]), _mm512_and_si512(_mm512_srli_epi16(high[t], 2), two));
        }
    }
}

// --------------------------------------------------------------------------------------------------- tiles

INLINE void decode(const int type, const uint8_t *at, size_t stride, block16 *out) {
    if (type == GGML_TYPE_Q8_0) decode_q8_0(at, stride, out);
    if (type == GGML_TYPE_Q4_0) decode_q4_0(at, stride, out);
    if (type == GGML_TYPE_Q4_K) decode_q4_k(at, stride, out);
    if (type == GGML_TYPE_Q5_K) decode_q5_k(at, stride, out);
    if (type == GGML_TYPE_Q6_K) decode_q6_k(at, stride, out);
}

INLINE void multiply(const int type, const int C, const block16 *b, const uint8_t *x, size_t x_bytes, __m512 *acc) {
    const bool minima = type == GGML_TYPE_Q4_K || type == GGML_TYPE_Q5_K, halved = type == GGML_TYPE_Q6_K;
    const int shift = type == GGML_TYPE_Q8_0 ? 0 : type == GGML_TYPE_Q4_0 ? 4 : type == GGML_TYPE_Q6_K ? 2 : -1;
    UNROLL for (int c = 0; c < C; c += IN_FLIGHT) {
        int n = C - c < IN_FLIGHT ? C - c : IN_FLIGHT;
        multiply_few(n, shift, halved, minima, C <= 2, b, x + (size_t)c * x_bytes, x_bytes, acc + c);
    }
}

// Weights come from memory once and in file order, though the tile reads sixteen rows at a time: the bytes of the tile
// after next are fetched front to back while this one is worked on. Into the L2: an L1 takes too few lines at once to
// keep the memory busy, and two tiles do not fit there.
INLINE void fetch(uintptr_t from, size_t bytes) {
    UNROLL for (size_t i = 0; i < bytes; i += 64) _mm_prefetch((const char *)(from + i), _MM_HINT_T1);
}

INLINE void tile(const int type, const size_t unit_bytes, const int n_blocks, const int C, const job *g) {
    __m512 acc[MAX_COLUMNS];
    UNROLL for (int c = 0; c < C; c++) acc[c] = _mm512_setzero_ps();
    const uint8_t *x = g->x, *w = g->w;
    uintptr_t ahead = (uintptr_t)w + 2 * ROWS * g->row_bytes;
    uint8_t staged[ROWS * MAX_UNIT];
    const bool stage = g->n_rows < ROWS;
    if (stage) memset(staged, 0, sizeof staged);
    for (int64_t i = g->k / (n_blocks * PITH_I8_BLOCK); i > 0; i--) {
        block16 blocks[8];
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
            multiply(type, C, &blocks[b], x, g->x_bytes, acc);
            x += sizeof(pith_i8_block);
        }
    }
    __mmask16 valid = (__mmask16)((1u << g->n_rows) - 1);
    UNROLL for (int c = 0; c < C; c++) _mm512_mask_storeu_ps(g->y + (size_t)c * g->y_stride, valid, acc[c]);
}

// One function for each type and number of columns.
typedef void (*tile_fn)(const job *);
#define TILE(type, C)                                                                                                  \
    static ISA void tile_##type##_##C(const job *g) {                                                                  \
        tile(GGML_TYPE_##type, type##_BYTES, type##_BYTES < 64 ? 1 : 8, C, g);                                         \
    }
#define TILES(type)                                                                                                    \
    TILE(type, 1) TILE(type, 2) TILE(type, 3) TILE(type, 4) TILE(type, 5) TILE(type, 6) TILE(type, 7) TILE(type, 8)    \
    TILE(type, 9) TILE(type, 10) TILE(type, 11) TILE(type, 12) TILE(type, 13) TILE(type, 14) TILE(type, 15)            \
    TILE(type, 16)                                                                                                     \
    static const tile_fn tiles_##type[MAX_COLUMNS] = {                                                                 \
        tile_##type##_1,  tile_##type##_2,  tile_##type##_3,  tile_##type##_4,  tile_##type##_5,  tile_##type##_6,     \
        tile_##type##_7,  tile_##type##_8,  tile_##type##_9,  tile_##type##_10, tile_##type##_11, tile_##type##_12,    \
        tile_##type##_13, tile_##type##_14, tile_##type##_15, tile_##type##_16};
TILES(Q8_0)
TILES(Q4_0)
TILES(Q4_K)
TILES(Q5_K)
TILES(Q6_K)

static void all_tiles(const tile_fn *tiles, const pith_product *self, const void *w, size_t row_bytes, int64_t k,
                      const void *packed, uint32_t n, int64_t r0, int64_t r1, float *y, size_t y_stride) {
    size_t x_bytes = pith_i8_packed_bytes(self, k);
    uint32_t n_groups = (n + MAX_COLUMNS - 1) / MAX_COLUMNS;
    for (int64_t r = r0; r < r1; r += ROWS) {
        for (uint32_t i = 0; i < n_groups; i++) { // a second group finds the tile's weights in the cache
            uint32_t c0 = n * i / n_groups, c1 = n * (i + 1) / n_groups;
            job g = {(const uint8_t *)w + (size_t)r * row_bytes, row_bytes, k, (const uint8_t *)packed + c0 * x_bytes,
                     x_bytes, y + c0 * y_stride + r, y_stride, r1 - r < ROWS ? r1 - r : ROWS};
            tiles[c1 - c0 - 1](&g);
        }
    }
}

static void rows(const pith_product *self, const void *w, size_t row_bytes, int64_t k, const void *packed, uint32_t n,
                 int64_t r0, int64_t r1, float *y, size_t y_stride) {
    const tile_fn *tiles = self->type == GGML_TYPE_Q8_0   ? tiles_Q8_0
                           : self->type == GGML_TYPE_Q4_0 ? tiles_Q4_0
                           : self->type == GGML_TYPE_Q4_K ? tiles_Q4_K
                           : self->type == GGML_TYPE_Q5_K ? tiles_Q5_K
                                                          : tiles_Q6_K;
    all_tiles(tiles, self, w, row_bytes, k, packed, n, r0, r1, y, y_stride);
}

static ISA void pack(const pith_product *self, const float *x, void *packed, int64_t k) {
    (void)self;
    pith_i8_pack_blocks(x, packed, k);
}

#define KERNEL(type) {GGML_TYPE_##type, "avx512", pith_i8_packed_bytes, pack, rows}
const pith_product pith_i8_avx512[] = {KERNEL(Q8_0), KERNEL(Q4_0), KERNEL(Q4_K), KERNEL(Q5_K), KERNEL(Q6_K),
                                       {0, NULL, NULL, NULL, NULL}};

// --------------------------------------------------------------------------------------------- arranged weights
// Q8_0: of 16 rows and two blocks, 16 f16 scales for each block, then 8 vectors of codes for each, unsigned and
// transposed as decode_q8_0 leaves them. These are 17 lines, and as many bytes as in the file. An odd last block has a
// line of scales of its own.

enum { CODES_BYTES = WORDS * 64, PAIR_BYTES = 64 + 2 * CODES_BYTES, AHEAD_BYTES = 8 * PAIR_BYTES };

static size_t arranged_row_bytes(int64_t k) {
    const size_t n_blocks = (size_t)(k / PITH_I8_BLOCK);
    return (n_blocks / 2 * PAIR_BYTES + n_blocks % 2 * (64 + CODES_BYTES)) / ROWS;
}

ISA static void arrange_tile(const uint8_t *w, size_t row_bytes, int64_t k, int64_t n_rows, uint8_t *out) {
    for (int64_t i = 0; i < k / PITH_I8_BLOCK; i++) {
        uint8_t staged[ROWS * Q8_0_BYTES] = {0}; // rows that are not there have scale 0
        for (int64_t r = 0; r < n_rows; r++)
            memcpy(staged + r * Q8_0_BYTES, w + (size_t)r * row_bytes + i * Q8_0_BYTES, Q8_0_BYTES);
        block16 b;
        decode_q8_0(staged, Q8_0_BYTES, &b);
        uint8_t *pair = out + i / 2 * PAIR_BYTES;
        for (int r = 0; r < ROWS; r++) memcpy(pair + i % 2 * 32 + 2 * r, staged + r * Q8_0_BYTES, 2);
        for (int t = 0; t < WORDS; t++) _mm512_store_si512(pair + 64 + i % 2 * CODES_BYTES + t * 64, b.q[t]);
    }
}

static void arrange(const void *w, size_t w_row_bytes, int64_t k, int64_t r0, int64_t r1, void *out) {
    for (int64_t r = r0; r < r1; r += ROWS)
        arrange_tile((const uint8_t *)w + (size_t)r * w_row_bytes, w_row_bytes, k, r1 - r < ROWS ? r1 - r : ROWS,
                     (uint8_t *)out + (size_t)r * arranged_row_bytes(k));
}

// A single column asks for so many lines in so little time that the processor itself reads ahead far enough, and better
// than when it is told to; more columns leave it waiting.
INLINE void arranged_tile(const int C, const job *g) {
    __m512 acc[MAX_COLUMNS];
    UNROLL for (int c = 0; c < C; c++) acc[c] = _mm512_setzero_ps();
    const uint8_t *x = g->x, *w = g->w;
    for (int64_t left = g->k / PITH_I8_BLOCK; left > 0; left -= 2, w += PAIR_BYTES) {
        if (C > 1) fetch((uintptr_t)w + AHEAD_BYTES, PAIR_BYTES);
        UNROLL for (int i = 0; i < 2; i++) {
            if (i == left) break;
            block16 b;
            UNROLL for (int t = 0; t < WORDS; t++) b.q[t] = _mm512_load_si512(w + 64 + i * CODES_BYTES + t * 64);
            b.s[0] = _mm512_cvtph_ps(_mm256_load_si256((const void *)(w + i * 32)));
            multiply(GGML_TYPE_Q8_0, C, &b, x, g->x_bytes, acc);
            x += sizeof(pith_i8_block);
        }
    }
    __mmask16 valid = (__mmask16)((1u << g->n_rows) - 1);
    UNROLL for (int c = 0; c < C; c++) _mm512_mask_storeu_ps(g->y + (size_t)c * g->y_stride, valid, acc[c]);
}

#undef TILE
#define TILE(type, C)                                                                                                  \
    static ISA void tile_##type##_##C(const job *g) { arranged_tile(C, g); }
TILES(ARRANGED)

static void arranged_rows(const pith_product *self, const void *w, size_t row_bytes, int64_t k, const void *packed,
                          uint32_t n, int64_t r0, int64_t r1, float *y, size_t y_stride) {
    all_tiles(tiles_ARRANGED, self, w, row_bytes, k, packed, n, r0, r1, y, y_stride);
}

const pith_arranged pith_i8_arranged_avx512[] = {
    {{GGML_TYPE_Q8_0, "avx512", pith_i8_packed_bytes, pack, arranged_rows}, arranged_row_bytes, arrange},
    {{0, NULL, NULL, NULL, NULL}, NULL, NULL}};

#else
const pith_product pith_i8_avx512[] = {{0, NULL, NULL, NULL, NULL}};
const pith_arranged pith_i8_arranged_avx512[] = {{{0, NULL, NULL, NULL, NULL}, NULL, NULL}};
#endif
