// Device-side helpers of the kernels that touch the cache: addresses of rows, softmax.
#ifndef PITH_CUDA_CACHE_CUH
#define PITH_CUDA_CACHE_CUH

#include "cuda/asm.cuh"
#include "cuda/cache.h"
#include "cuda/half.cuh"

namespace pith {

static constexpr uint32_t FULL = 0xffffffffu; // all lanes of a warp

// Section offsets are worked out on the host once per launch.
struct sections {
    uint8_t *base;
    size_t page_bytes, v_offset, pos_offset;
};

static inline sections sections_of(const pith_cuda_cache &c) {
    return {c.base, c.page_bytes, pith_page_v_offset(&c.geo), pith_page_pos_offset(&c.geo)};
}

__device__ __forceinline__ uint8_t *page_k(const sections &s, int32_t id) { return s.base + (size_t)id * s.page_bytes; }
__device__ __forceinline__ uint8_t *page_v(const sections &s, int32_t id) { return page_k(s, id) + s.v_offset; }
__device__ __forceinline__ int32_t *page_pos(const sections &s, int32_t id) {
    return reinterpret_cast<int32_t *>(page_k(s, id) + s.pos_offset);
}

// The softmax shift of a maximum m: with every score -inf any finite shift makes all weights 0, -inf would make them
// NaN.
__device__ __forceinline__ float soft_shift(float m) { return m == -INFINITY ? 0.0f : m; }

// exp as the CPU's kernels compute it (cpu/kernels_isa.h), operation by operation: the same bits.
__device__ __forceinline__ float exp_as_cpu(float x) {
    if (x < -0x1.5d589ep+6f) return 0.0f;
    if (x > 89.0f) x = 89.0f;
    const float t = __fmaf_rn(x, 0x1.715476p+0f, 0x1.8p+23f), n = __fadd_rn(t, -0x1.8p+23f);
    const float r = __fmaf_rn(n, 0x1.05c61p-29f, __fmaf_rn(n, -0x1.62e43p-1f, x));
    float p = __fmaf_rn(0x1.6a4d5ap-10f, r, 0x1.12398ep-7f);
    p = __fmaf_rn(p, r, 0x1.5558bp-5f);
    p = __fmaf_rn(p, r, 0x1.555492p-3f);
    p = __fmaf_rn(p, r, 0x1.fffffcp-2f);
    p = __fmaf_rn(p, r, 1.0f);
    p = __fmaf_rn(p, r, 1.0f);
    return __fmul_rn(p, __uint_as_float((__float_as_uint(t) << 23) + 0x3f800000u));
}

} // namespace pith

#endif
