// Packed codes to bf16, two at a time, and packed scales to f32.
//
// A code of up to seven bits becomes a bf16 by an `or`: 0x4300 is 128, where one unit of the last place is 1, so
// 0x4300 | v is 128 + v. One fused multiply-add then takes 128 and the type's zero away; all of it is exact. (A product
// takes it from the sums instead, as the zero times the activations' sum.) Scales stay out of the tensor cores: the sum
// of a block's codes times activations is multiplied in f32, so a quantised weight is never rounded.
//
// These functions are the same on the host, so that a test can follow a whole product there.
#ifndef PITH_CUDA_QUANT_CUH
#define PITH_CUDA_QUANT_CUH

#include "cuda/quant.h"
#include "base/half.h"

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

// What a lane holds of a tile (64 rows, 32 k): codes, and the scales of one pair of rows.
template <pith_cuda_type TYPE> struct Tile {
    static constexpr int CODE_LOADS = TYPE == PITH_CUDA_Q8_0 ? 4 : TYPE == PITH_CUDA_Q6_K ? 3 : 2; // of 16 bytes
    static constexpr bool HAS_SUPER = TYPE == PITH_CUDA_Q4_K || TYPE == PITH_CUDA_Q6_K;
    uint4 code[CODE_LOADS];
    uint32_t scale;
    uint2 super; // Q6_K: x alone

    // What is to be taken from raw() for the element itself, twice as bf16, negative. Q8_0: nothing.
    static constexpr uint32_t MINUS_ZERO = TYPE == PITH_CUDA_Q4_0   ? 0xc308c308u // 136
                                           : TYPE == PITH_CUDA_Q4_K ? 0xc300c300u // 128
                                           : TYPE == PITH_CUDA_Q6_K ? 0xc320c320u // 160
                                                                    : 0;

    // Elements 2 j and 2 j + 1 of the lane's row g (upper 0) or g + 8 (upper 1) of 16-row tile mt, as two bf16.
    __host__ __device__ __forceinline__ uint32_t pair(int mt, int upper, int j) const {
        if constexpr (TYPE == PITH_CUDA_Q8_0) return raw(mt, upper, j);
        else return bf16_take(raw(mt, upper, j), MINUS_ZERO);
    }
    // The same, more by the type's zero.
    __host__ __device__ __forceinline__ uint32_t raw(int mt, int upper, int j) const {
        if constexpr (TYPE == PITH_CUDA_Q8_0) {
            // A signed byte is v - 128 s, with v its low seven bits and s its sign: 128 + v less 128 or 256.
            const uint32_t w = word_of(code[mt], 2 * upper + j / 2) >> (j % 2 * 8);
            return bf16_take((w & 0x007f007fu) | BF16_128_TWICE, (w & 0x00800080u) | 0xc300c300u);
        } else {
            const uint32_t w = word_of(code[mt / 2], mt % 2 * 2 + upper) >> (4 * j);
            uint32_t v = (w & 0x000f000fu) | BF16_128_TWICE;
            if constexpr (TYPE == PITH_CUDA_Q6_K) {
                const int at = 2 * (4 * upper + j); // of the two high bits, which belong at 4
                const uint32_t h = word_of(code[CODE_LOADS - 1], mt);
                v |= (at < 4 ? h << (4 - at) : h >> (at - 4)) & 0x00300030u;
            }
            return v;
        }
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
