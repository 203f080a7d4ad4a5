// Products of integer-quantised weights with activations quantised to 8 bits: the arithmetic, the same bits at every
// instruction set level, and the layout of a packed activation row.
//
// A weight is s * (q - z) - m: a small unsigned code q, the type's constant z, and a scale s and minimum m that belong
// to a block of 32 weights (s to one of 16 in Q6_K). An activation is d * a: an integer a in [-127, 127] and one d per
// block of 32. One output element, blocks ascending:
//
//     acc = fma(sum of (q - z) * a over the block, s * d, acc)     (the sum is an exact integer below 2^24)
//     acc = fma(-m, d * sum of a, acc)                             (types with minima)
//
// (Q6_K: the first line once for each half of the block.) Since the sums are exact, a level may compute them in any
// order, and since the chain belongs to one row and one column, it may compute any number of rows and columns at once:
// vector lanes are weight rows. Sixteen (eight) rows' blocks are transposed in registers as they come from the file, so
// that four bytes of each row meet the same four activations, and serve all columns before the next block is read.
//
// Block layouts are ggml's (ggml-common.h).
#ifndef PITH_CPU_PRODUCT_I8_H
#define PITH_CPU_PRODUCT_I8_H

#include "cpu/product.h"

enum { PITH_I8_BLOCK = 32 };

// A packed row of k activations is k/32 of these.
typedef struct pith_i8_block {
    int8_t a[PITH_I8_BLOCK];
    float d;
    float e;            // d * sum of a
    int32_t start;      // -128 * sum of a: with z = 128 >> j, the sum of (q - z) * a begins at start >> j
    int32_t start_half; // the same of the first 16 alone
} pith_i8_block;

// Sizes and offsets in bytes of ggml's blocks. K types are super-blocks of 256 weights.
enum {
    Q8_0_BYTES = 34, // d f16, 32 signed codes
    Q8_0_CODES = 2,
    Q4_0_BYTES = 18, // d f16, 16 bytes: element i in the low, i + 16 in the high half of byte i
    Q4_0_CODES = 2,
    Q4_K_BYTES = 144, // 16 bytes: d, dmin f16, 12 bytes of 6-bit scales and minima; 4 times 32: two blocks' halves
    Q4_K_CODES = 16,
    Q5_K_BYTES = 176, // like Q4_K with 32 bytes of fifth bits between: bit j of byte i for element i of block j
    Q5_K_HIGH = 16,
    Q5_K_CODES = 48,
    Q6_K_BYTES = 210, // per 128 weights 64 bytes of low halves; per 128 weights 32 bytes of 2 high bits; 16 scales; d
    Q6_K_HIGH = 128,
    Q6_K_SCALES = 192,
    Q6_K_D = 208,
};

size_t pith_i8_packed_bytes(const pith_product *, int64_t k);

// A block whose largest magnitude is below 2^-100 packs as zeros; one with an infinity or NaN gets NaN for d, so that
// every output of its column is NaN. The portable one; the other levels' give the same bits (product_i8_pack.h).
void pith_i8_pack(const pith_product *, const float *x, void *packed, int64_t k);

// The kernels of each level, ended by a NULL name; only that where the level was not compiled in.
extern const pith_product pith_i8_portable[];
extern const pith_product pith_i8_avx2[];
extern const pith_product pith_i8_avx512[];
extern const pith_arranged pith_i8_arranged_avx512[];

#endif
