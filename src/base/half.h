// Half and bfloat conversions in portable C, bit for bit what the conversion instructions of x86 (F16C) and AArch64 do:
// rounding to nearest, ties to even; overflow to infinity; subnormals kept; a NaN stays a NaN, made quiet, with its
// sign and the high bits of its payload. No floating-point operation is used, so that no rounding mode or
// flush-to-zero setting of the thread can change a result.
//
// This header is shared with CUDA sources: valid C and C++.
#ifndef PITH_BASE_HALF_H
#define PITH_BASE_HALF_H

#include <stdint.h>
#include <string.h>

static inline uint32_t pith_f32_bits(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}
static inline float pith_f32_from_bits(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

// value / 2^shift, to nearest, ties to even; shift 1..31.
static inline uint32_t pith_shift_round(uint32_t value, uint32_t shift) {
    uint32_t kept = value >> shift, rest = value & ((1u << shift) - 1u), half = 1u << (shift - 1u);
    return kept + (rest > half || (rest == half && (kept & 1u)));
}

// f16: 1 sign bit, 5 of exponent (bias 15), 10 of mantissa; f32: 1, 8 (bias 127), 23.
static inline uint16_t pith_f32_to_f16(float x) {
    const uint32_t bits = pith_f32_bits(x), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
    uint32_t h;
    if (magnitude > 0x7f800000u) h = 0x7e00u | (magnitude >> 13 & 0x3ffu); // NaN
    else if (magnitude >= 0x47800000u) h = 0x7c00u;                        // 2^16 and more: infinity
    else if (magnitude >= 0x38800000u)                                     // 2^-14 and more: normal
        h = pith_shift_round(magnitude - (112u << 23), 13); // a carry goes on into the exponent, up to infinity
    else if (magnitude >= 0x33000000u)                      // 2^-25 and more: subnormal, in units of 2^-24
        h = pith_shift_round((magnitude & 0x7fffffu) | 0x800000u, 126u - (magnitude >> 23));
    else h = 0;
    return (uint16_t)(sign | h);
}

static inline float pith_f16_to_f32(uint16_t h) {
    const uint32_t sign = (h & 0x8000u) << 16, exponent = h >> 10 & 0x1fu;
    uint32_t mantissa = h & 0x3ffu, bits;
    if (exponent == 0x1fu) {
        bits = 0x7f800000u | mantissa << 13 | (mantissa ? 0x400000u : 0u);
    } else if (exponent) {
        bits = (exponent + 112u) << 23 | mantissa << 13;
    } else if (mantissa) { // subnormal: every one is a normal f32
        uint32_t e = 113u;
        while (!(mantissa & 0x400u)) mantissa <<= 1, e--;
        bits = e << 23 | (mantissa & 0x3ffu) << 13;
    } else {
        bits = 0;
    }
    return pith_f32_from_bits(sign | bits);
}

// bf16 is the upper half of an f32.
static inline uint16_t pith_f32_to_bf16(float x) {
    const uint32_t bits = pith_f32_bits(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(bits >> 16 | 0x40u);
    return (uint16_t)pith_shift_round(bits, 16);
}
static inline float pith_bf16_to_f32(uint16_t b) { return pith_f32_from_bits((uint32_t)b << 16); }

// x rounded to bf16, as an f32.
static inline float pith_bf16_round(float x) { return pith_bf16_to_f32(pith_f32_to_bf16(x)); }

#endif
