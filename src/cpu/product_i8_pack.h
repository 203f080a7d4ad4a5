// Packing of activations into blocks of 8 bits (product_i8.h), for a file of each instruction set level to compile: the
// loops become the vector code of whoever calls, and the bits are the same, since nothing is added in another order but
// integers.
#ifndef PITH_CPU_PRODUCT_I8_PACK_H
#define PITH_CPU_PRODUCT_I8_PACK_H

#include <math.h>
#include <string.h>

#include "base/half.h"
#include "cpu/product_i8.h"

// Magnitudes compare as their bits do, with infinities and NaNs above every number. Signed, since compilers then find
// vector instructions for it everywhere.
static inline __attribute__((always_inline)) int32_t largest_bits(const float *x) {
    int32_t largest = 0;
    for (int i = 0; i < PITH_I8_BLOCK; i++) {
        const int32_t bits = (int32_t)(pith_f32_bits(x[i]) & 0x7fffffffu);
        largest = bits > largest ? bits : largest;
    }
    return largest;
}

// In several short loops, each of which becomes vector code.
static inline __attribute__((always_inline)) void pack_block(const float *x, pith_i8_block *out) {
    const float largest = pith_f32_from_bits((uint32_t)largest_bits(x));
    memset(out, 0, sizeof *out);
    if (!isfinite(largest)) out->d = out->e = NAN;
    if (!isfinite(largest) || largest < 0x1p-100f) return; // the inverse below must be finite
    const float inverse = 127.0f / largest;
    // Adding 1.5 * 2^23 rounds to an integer, to nearest even, and leaves it in the low bits.
    const float round = 0x1.8p23f;
    int32_t a[PITH_I8_BLOCK], first = 0, second = 0;
    for (int i = 0; i < PITH_I8_BLOCK; i++)
        a[i] = (int32_t)(pith_f32_bits(x[i] * inverse + round) - pith_f32_bits(round));
    for (int i = 0; i < PITH_I8_BLOCK; i++) out->a[i] = (int8_t)a[i];
    for (int i = 0; i < 16; i++) first += a[i];
    for (int i = 16; i < PITH_I8_BLOCK; i++) second += a[i];
    out->d = largest / 127.0f;
    out->e = out->d * (float)(first + second);
    out->start = -128 * (first + second);
    out->start_half = -128 * first;
}

static inline __attribute__((always_inline)) void pith_i8_pack_blocks(const float *x, void *packed, int64_t k) {
    pith_i8_block *out = packed;
    for (int64_t i = 0; i < k / PITH_I8_BLOCK; i++) pack_block(x + i * PITH_I8_BLOCK, out + i);
}

#endif
