// Packed codes to bytes for a product, to bf16 for a matrix that is unpacked, packed scales to f32, and activations to
// 8 bits: all that defines a product of packed weights.
//
// A product multiplies codes and activations as integers, blocks of 32 k at a time, and the sum of a block is exact. It
// becomes a float without a conversion: sums begin at SUM_START, the bits of 1.5 * 2^23, where one unit of the last
// place is 1, so that adding d to the bits adds d to the float as long as |d| < 2^22. The largest are 32 * 127 * 128 in
// Q8_0, 32 * 127 * 15 in Q4_K, 32 * 127 * 8 in Q4_0 and 16 * 127 * 32 in Q6_K. Scales stay out of the tensor cores: a
// block's sum is multiplied in f32, so a quantised weight is never rounded.
//
// Unpacked, a code of up to seven bits becomes a bf16 by an `or`: 0x4300 is 128, where one unit of the last place is 1,
// so 0x4300 | v is 128 + v. One fused multiply-add then takes 128 and the type's zero away; all of it is exact.
//
// These functions are the same on the host, so that a test can follow a whole product there.
#ifndef PITH_CUDA_QUANT_CUH
#define PITH_CUDA_QUANT_CUH

#include "cuda/quant.h"
#include "base/half.h"

#include <cmath>
#include <cuda_fp16.h>

namespace pith {

constexpr uint32_t BF16_128_TWICE = 0x43004300u, BF16_ONE_TWICE = 0x3f803f80u;

// a - b for two pairs of bf16, given -b: exact for the integers here.
__host__ __device__ __forceinline__ uint32_t bf16_take(uint32_t a, uint32_t minus_b) {
#ifdef __CUDA_ARCH__
    uint32_t d;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(BF16_ONE_TWICE), "r"(minus_b));
    return d;
#else
    uint32_t out = 0;
    for (int i = 0; i < 2; i++) {
        const float s = pith_bf16_to_f32((uint16_t)(a >> (16 * i))) + pith_bf16_to_f32((uint16_t)(minus_b >> (16 * i)));
        out |= (uint32_t)pith_f32_to_bf16(s) << (16 * i);
    }
    return out;
#endif
}

__host__ __device__ __forceinline__ float f16_to_f32(uint32_t bits) {
#ifdef __CUDA_ARCH__
    return __half2float(__ushort_as_half((unsigned short)bits));
#else
    return pith_f16_to_f32((uint16_t)bits);
#endif
}

__host__ __device__ __forceinline__ uint32_t word_of(const uint4 &v, int i) {
    return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}

__host__ __device__ __forceinline__ float float_of(uint32_t bits) {
#ifdef __CUDA_ARCH__
    return __uint_as_float(bits);
#else
    return pith_f32_from_bits(bits);
#endif
}

// -------------------------------------------------------------------------------------------------------- activations

// A block of 32 activations of one token is a scale times integers of [-127, 127]: the scale is the block's largest
// magnitude over 127, an integer is its activation over the scale, rounded to nearest even. No largest magnitude counts
// as less than LEAST_LARGEST, so that a block of zeros is zeros and nothing divides by zero. A block with an infinity
// or NaN has such a scale too, and every sum of its token becomes infinite or NaN.
constexpr uint32_t SUM_START = 0x4b400000u, LEAST_LARGEST = 0x0d800000u; // 1.5 * 2^23, 2^-100
constexpr float SUM_START_FLOAT = 12582912.f;

__host__ __device__ __forceinline__ float activation_scale(float largest) { return largest * (1 / 127.f); }

// 1 / scale, rounded correctly. The scale of a bf16 has one of 128 mantissas, and for each of them one step of Newton's
// method leads there from wherever within 8 units of the last place the approximation is.
__host__ __device__ __forceinline__ float activation_inverse(float scale) {
#ifdef __CUDA_ARCH__
    float r;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(scale));
    return __fmaf_rn(r, __fmaf_rn(-scale, r, 1.f), r);
#else
    return 1.f / scale;
#endif
}

// The integer, in the low byte: adding 1.5 * 2^23 rounds and leaves it there.
__host__ __device__ __forceinline__ uint32_t activation_code(float x, float inverse) {
#ifdef __CUDA_ARCH__
    return __float_as_uint(__fmaf_rn(x, inverse, SUM_START_FLOAT));
#else
    return pith_f32_bits(fmaf(x, inverse, SUM_START_FLOAT));
#endif
}

// Which of a row's eight bytes in a lane (Tile::bytes) is element e; its activation is the same byte of the lane's.
template <pith_cuda_type TYPE> __host__ __device__ __forceinline__ uint32_t byte_of(uint32_t e) {
    if (TYPE == PITH_CUDA_Q8_0) return e / 4 * 4 + e % 2 * 2 + e / 2 % 2;
    return e / 2 % 2 * 4 + e % 2 * 2 + e / 4;
}

// ------------------------------------------------------------------------------------------------------------ weights

// What a lane holds of a tile (64 rows, 32 k): codes, and the scales of one pair of rows.
template <pith_cuda_type TYPE> struct Tile {
    static constexpr int CODE_LOADS = TYPE == PITH_CUDA_Q8_0 ? 4 : TYPE == PITH_CUDA_Q6_K ? 3 : 2; // of 16 bytes
    static constexpr bool HAS_SUPER = TYPE == PITH_CUDA_Q4_K || TYPE == PITH_CUDA_Q6_K;
    uint4 code[CODE_LOADS];
    uint32_t scale;
    uint2 super; // Q6_K: x alone

    // The type's zero: what bytes() has too much of. Q4_K has a minimum instead.
    static constexpr int ZERO = TYPE == PITH_CUDA_Q4_0 ? 8 : TYPE == PITH_CUDA_Q6_K ? 32 : 0;

    // Codes of the lane's row g (upper 0) or g + 8 (upper 1) of 16-row tile mt: four of its eight elements as bytes,
    // signed in Q8_0.
    __host__ __device__ __forceinline__ uint32_t bytes(int mt, int upper, int half) const {
        if constexpr (TYPE == PITH_CUDA_Q8_0) {
            return word_of(code[mt], 2 * half + upper);
        } else {
            const uint32_t v = word_of(code[mt / 2], mt % 2 * 2 + upper) >> (4 * half) & 0x0f0f0f0fu;
            return TYPE == PITH_CUDA_Q6_K ? v | (high_bits(mt, 2 * upper + half) & 0x30303030u) : v;
        }
    }

    // Elements 2 j and 2 j + 1 of the same row, as two bf16, less the type's zero.
    __host__ __device__ __forceinline__ uint32_t pair(int mt, int upper, int j) const {
        if constexpr (TYPE == PITH_CUDA_Q8_0) {
            // A signed byte is v - 128 s, with v its low seven bits and s its sign: 128 + v less 128 or 256.
            const uint32_t w = word_of(code[mt], j / 2 * 2 + upper) >> (j % 2 * 8);
            return bf16_take((w & 0x007f007fu) | BF16_128_TWICE, (w & 0x00800080u) | 0xc300c300u);
        } else {
            const uint32_t w = word_of(code[mt / 2], mt % 2 * 2 + upper) >> (4 * j);
            uint32_t v = (w & 0x000f000fu) | BF16_128_TWICE;
            if constexpr (TYPE == PITH_CUDA_Q6_K) v |= high_bits(mt, 2 * upper + j % 2) >> (j / 2 * 8) & 0x00300030u;
            return bf16_take(v, (0x4300u + ZERO) * 0x10001u | 0x80008000u);
        }
    }

    // Q6_K: the two high bits of field `at` of each byte, in their place above the low four; others around them.
    __host__ __device__ __forceinline__ uint32_t high_bits(int mt, int at) const {
        const uint32_t h = word_of(code[CODE_LOADS - 1], mt);
        return at < 2 ? h << (4 - 2 * at) : h >> (2 * at - 4);
    }

    // For the pair of rows whose scales this lane holds: x, y of row g and z, w of row g + 8.
    //   Q8_0, Q4_0: scale, unused; Q4_K: scale, minimum; Q6_K: scales of the first and the second 16 weights
    __host__ __device__ __forceinline__ float4 scales() const {
        if constexpr (TYPE == PITH_CUDA_Q8_0 || TYPE == PITH_CUDA_Q4_0)
            return float4{f16_to_f32(scale & 0xffffu), 0.f, f16_to_f32(scale >> 16), 0.f};
        if constexpr (TYPE == PITH_CUDA_Q4_K)
            return float4{f16_to_f32(super.x & 0xffffu) * (float)(scale & 255u),
                          f16_to_f32(super.x >> 16) * (float)(scale >> 8 & 255u),
                          f16_to_f32(super.y & 0xffffu) * (float)(scale >> 16 & 255u),
                          f16_to_f32(super.y >> 16) * (float)(scale >> 24)};
        const float d0 = f16_to_f32(super.x & 0xffffu), d1 = f16_to_f32(super.x >> 16);
        return float4{d0 * (float)(int8_t)(scale & 255u), d0 * (float)(int8_t)(scale >> 8 & 255u),
                      d1 * (float)(int8_t)(scale >> 16 & 255u), d1 * (float)(int8_t)(scale >> 24)};
    }
};

// Byte offsets of a lane's parts of tile (slab, step) in the packed matrix.
struct TileAt {
    size_t code, scale, super;
};
template <pith_cuda_type TYPE>
__host__ __device__ __forceinline__ TileAt tile_at(uint32_t n_slabs, uint32_t k, uint32_t slab, uint32_t step,
                                                   uint32_t lane) {
    const pith_quant_layout l = pith_quant_layout_of(TYPE);
    const size_t at = (size_t)slab * (k / PITH_STEP) + step;
    const size_t super = (size_t)slab * (k / PITH_SUPER) + step / (PITH_SUPER / PITH_STEP);
    return TileAt{at * l.code_bytes + lane * 16, pith_quant_scales_at(l, n_slabs, k) + at * l.scale_bytes + lane * 4,
                  pith_quant_supers_at(l, n_slabs, k) + super * l.super_bytes + lane * (l.super_bytes / 32)};
}

} // namespace pith

#endif
