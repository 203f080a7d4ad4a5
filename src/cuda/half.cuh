// Numbers of 16 bits on the device.
#ifndef PITH_CUDA_HALF_CUH
#define PITH_CUDA_HALF_CUH

#include <cstdint>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

namespace pith {

__device__ __forceinline__ uint16_t to16(float v, __nv_bfloat16) {
    return __bfloat16_as_ushort(__float2bfloat16_rn(v));
}
__device__ __forceinline__ uint16_t to16(float v, __half) { return __half_as_ushort(__float2half_rn(v)); }

// Two f32 rounded to nearest even and packed, `lo` in the lower half. Both types keep the host's meaning: f16 overflows
// to infinity.
template <bool BF16> __device__ __forceinline__ uint32_t pack2(float lo, float hi) {
    if constexpr (BF16) {
        const __nv_bfloat162 p = __floats2bfloat162_rn(lo, hi);
        return reinterpret_cast<const uint32_t &>(p);
    } else {
        const __half2 p = __floats2half2_rn(lo, hi);
        return reinterpret_cast<const uint32_t &>(p);
    }
}

template <bool BF16> __device__ __forceinline__ float2 unpack2(uint32_t p) {
    if constexpr (BF16) return make_float2(__uint_as_float(p << 16), __uint_as_float(p & 0xffff0000u));
    else return __half22float2(reinterpret_cast<const __half2 &>(p));
}

template <bool BF16> __device__ __forceinline__ uint16_t half_bits(float x) { return (uint16_t)pack2<BF16>(x, 0.0f); }

} // namespace pith

#endif
