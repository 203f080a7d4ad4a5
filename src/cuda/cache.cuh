// Device-side helpers of the kernels that touch the cache: addresses of rows, 16-bit types, tensor-core products.
#ifndef PITH_CUDA_CACHE_CUH
#define PITH_CUDA_CACHE_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "cuda/cache.h"

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

// c (16, 8) += a (16, 16) b (16, 8). Lane = 4 p + t holds
//     a[0] = A[p][2t..2t+1]  a[1] = A[p+8][2t..]  a[2] = A[p][2t+8..]  a[3] = A[p+8][2t+8..]
//     b0   = B[2t..2t+1][p]  b1   = B[2t+8..][p]
//     c[0..1] = C[p][2t..2t+1]   c[2..3] = C[p+8][2t..2t+1]
template <bool BF16>
__device__ __forceinline__ void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    if constexpr (BF16)
        asm volatile(
            "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    else
        asm volatile(
            "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// The transpose of an 8x8 matrix of 16-bit elements: in, lane 4 p + t holds M[p][2t..2t+1]; out, M[2t..2t+1][p].
__device__ __forceinline__ uint32_t transpose8(uint32_t x) {
    uint32_t y;
    asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(y) : "r"(x));
    return y;
}

__device__ __forceinline__ void copy16_async(void *shared, const void *global, bool valid) {
    const uint32_t at = (uint32_t)__cvta_generic_to_shared(shared);
    const int bytes = valid ? 16 : 0; // the rest of the 16 is filled with 0
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(at), "l"(global), "r"(bytes) : "memory");
}
__device__ __forceinline__ void copies_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N> __device__ __forceinline__ void copies_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
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
