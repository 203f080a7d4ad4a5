// What the files of the single instruction set levels share: their tables, and the arithmetic that all of them follow
// bit for bit.
#ifndef PITH_CPU_KERNELS_ISA_H
#define PITH_CPU_KERNELS_ISA_H

#include "base/half.h"
#include "cpu/kernels.h"

extern const pith_cpu_kernels pith_kernels_portable;
#if defined(__x86_64__)
extern const pith_cpu_kernels pith_kernels_avx2, pith_kernels_avx512;
#elif defined(__aarch64__)
extern const pith_cpu_kernels pith_kernels_neon;
#endif

// scores and weigh are one product, C += A B, that differs only in its shapes: the k-th term of every C[a][j] is one
// fused multiply-add of A[a][k] and B[k][j], k ascending. How C is cut into tiles is each level's own business.
//
//              rows a   columns j   terms k   C starts as
//     scores   n_q      64          d         0              A = q, B = K (d, 64)
//     weigh    n_q      d           n_rows    acc[a] * c[a]  A = p, B = V (64, d)
typedef struct pith_panel {
    float *out;        // (n_rows, n_cols)
    const float *c;    // (n_rows) factors of what out holds, or NULL: out is only written
    const float *a;    // (n_rows, depth)
    size_t a_stride;   // floats between rows of a
    const void *b;     // (depth, n_cols), f16 or f32
    pith_ahead ahead; // section: as large as b; lines: one for each k
    uint32_t n_rows;
    uint32_t n_cols; // a multiple of 8
    uint32_t depth;
} pith_panel;

static inline pith_panel pith_panel_of_scores(const float *q, size_t stride, uint32_t n_q, const void *k, uint32_t d,
                                              pith_ahead ahead, float *s) {
    return (pith_panel){.out = s,
                        .c = NULL,
                        .a = q,
                        .a_stride = stride,
                        .b = k,
                        .ahead = ahead,
                        .n_rows = n_q,
                        .n_cols = PITH_PAGE_ROWS,
                        .depth = d};
}

static inline pith_panel pith_panel_of_weigh(float *acc, const float *c, const float *p, uint32_t n_q, const void *v,
                                             uint32_t d, uint32_t n_rows, pith_ahead ahead) {
    return (pith_panel){.out = acc,
                        .c = c,
                        .a = p,
                        .a_stride = PITH_PAGE_ROWS,
                        .b = v,
                        .ahead = ahead,
                        .n_rows = n_q,
                        .n_cols = d,
                        .depth = n_rows};
}

// Tiles keep their sums in registers, which takes loops of constant length to be unrolled at every optimisation level.
#if defined(__clang__)
#define PITH_UNROLL _Pragma("clang loop unroll(full)")
#else
#define PITH_UNROLL _Pragma("GCC unroll 8")
#endif

// Asks for memory to be brought into the L2 (an L1 takes too few lines at once to keep the memory busy); `bytes` is a
// constant where it matters.
static inline __attribute__((always_inline)) void pith_fetch(const void *at, size_t bytes) {
    for (size_t i = 0; i < bytes; i += 64) __builtin_prefetch((const char *)at + i, 0, 2);
}

// Rows of the next tile when `left` are left and at most `most` fit: as equal as possible, since a tile of few rows
// waits for its loads and its multiply-adds (9 rows are better cut 5 + 4 than 8 + 1).
static inline uint32_t pith_tile_rows(uint32_t left, uint32_t most) {
    const uint32_t n_tiles = (left + most - 1) / most;
    return (left + n_tiles - 1) / n_tiles;
}

// exp(x), every step in f32 with the fused operations written here, so that all levels agree bit for bit:
//
//     x = min(x, PITH_EXP_MAX)              NaN stays NaN
//     t = fma(x, log2(e), 1.5 * 2^23)       the low bits of t hold n = round(x / ln 2)
//     n = t - 1.5 * 2^23
//     r = fma(n, -ln2_lo, fma(n, -ln2_hi, x))        |r| <= ln(2)/2
//     p = 1 + r (1 + r (c2 + r (c3 + r (c4 + r (c5 + r c6)))))      Horner, fused
//     exp(x) = x < PITH_EXP_MIN ? 0 : p * 2^n
//
// PITH_EXP_MIN is the least f32 whose exp is a normal number: below it, where the true value is under 2^-126, the
// result is 0. exp(0) is exactly 1, exp(-inf) exactly 0; from 88.38 on (2^127.5) the result is +inf.
// c2..c6 minimise the largest relative error of p on |r| <= ln(2)/2 (3.1e-9; fitted one coefficient at a time, each
// rounded to f32 before the next). The error of the whole is below 0.9 units in the last place, measured over every
// f32 whose exponential is neither 0, 1 nor infinite.
#define PITH_EXP_MIN (-0x1.5d589ep+6f)
#define PITH_EXP_MAX 89.0f // any value whose n is 128, the exponent of infinity
#define PITH_EXP_LOG2E 0x1.715476p+0f
#define PITH_EXP_SHIFT 0x1.8p+23f
#define PITH_EXP_LN2_HI 0x1.62e43p-1f
#define PITH_EXP_LN2_LO (-0x1.05c61p-29f)
#define PITH_EXP_C2 0x1.fffffcp-2f
#define PITH_EXP_C3 0x1.555492p-3f
#define PITH_EXP_C4 0x1.5558bp-5f
#define PITH_EXP_C5 0x1.12398ep-7f
#define PITH_EXP_C6 0x1.6a4d5ap-10f
#define PITH_EXP_ONE_BITS 0x3f800000 // 1.0f; adding n << 23 gives 2^n

static inline float pith_exp(float x) {
    if (x < PITH_EXP_MIN) return 0.0f;
    if (x > PITH_EXP_MAX) x = PITH_EXP_MAX;
    const float t = __builtin_fmaf(x, PITH_EXP_LOG2E, PITH_EXP_SHIFT), n = t - PITH_EXP_SHIFT;
    const float r = __builtin_fmaf(n, -PITH_EXP_LN2_LO, __builtin_fmaf(n, -PITH_EXP_LN2_HI, x));
    float p = __builtin_fmaf(PITH_EXP_C6, r, PITH_EXP_C5);
    p = __builtin_fmaf(p, r, PITH_EXP_C4);
    p = __builtin_fmaf(p, r, PITH_EXP_C3);
    p = __builtin_fmaf(p, r, PITH_EXP_C2);
    p = __builtin_fmaf(p, r, 1.0f);
    p = __builtin_fmaf(p, r, 1.0f);
    return p * pith_f32_from_bits((pith_f32_bits(t) << 23) + PITH_EXP_ONE_BITS);
}

// The sum of 16 partial sums: lanes i and i + 8, then i + 4, i + 2, i + 1, as vector registers fold in halves.
static inline float pith_sum16(const float partial[16]) {
    float s[8];
    for (int i = 0; i < 8; i++) s[i] = partial[i] + partial[i + 8];
    for (int i = 0; i < 4; i++) s[i] += s[i + 4];
    s[0] += s[2], s[1] += s[3];
    return s[0] + s[1];
}

// What is subtracted in a softmax whose largest score is m. With all scores -inf any finite shift makes all weights 0,
// where -inf would make them NaN.
static inline float pith_soft_shift(float m) { return m == -__builtin_inff() ? 0.0f : m; }

#endif
