// The few instructions that the product kernels need and C++ does not have.
#ifndef PITH_CUDA_PRODUCT_ASM_CUH
#define PITH_CUDA_PRODUCT_ASM_CUH

#include <cstdint>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "cuda/chain.cuh"

namespace pith {

// ------------------------------------------------------------------------------------------------------------- memory

// Weights: read once, never written while a kernel runs. Past L1, which is for activations; the whole 128-byte line
// into L2, since another warp wants its other half at almost the same time.
__device__ __forceinline__ uint4 load_weights(const void *p) {
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(p));
    return v;
}
__device__ __forceinline__ uint32_t load_weights4(const void *p) {
    uint32_t v;
    asm volatile("ld.global.nc.L1::no_allocate.L2::128B.u32 %0, [%1];" : "=r"(v) : "l"(p));
    return v;
}
// Supers: eight steps share them, so these may stay in L1.
__device__ __forceinline__ uint2 load_shared8(const void *p) {
    uint2 v;
    asm volatile("ld.global.nc.v2.u32 {%0, %1}, [%2];" : "=r"(v.x), "=r"(v.y) : "l"(p));
    return v;
}
__device__ __forceinline__ uint32_t load_shared4(const void *p) {
    uint32_t v;
    asm volatile("ld.global.nc.u32 %0, [%1];" : "=r"(v) : "l"(p));
    return v;
}

// Activations. Never the read-only path: with overlapping launches the kernel that writes them may still run when the
// one that reads them starts, and only ordinary loads are ordered by wait_for_previous().
__device__ __forceinline__ uint4 load_x(const void *p) {
    uint4 v;
    asm volatile("ld.global.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(p)
                 : "memory");
    return v;
}
__device__ __forceinline__ uint2 load_x8(const void *p) {
    uint2 v;
    asm volatile("ld.global.v2.u32 {%0, %1}, [%2];" : "=r"(v.x), "=r"(v.y) : "l"(p) : "memory");
    return v;
}

__device__ __forceinline__ void prefetch_line(const void *p) { asm volatile("prefetch.global.L2 [%0];" ::"l"(p)); }

// ------------------------------------------------------------------------------------------------------------ clusters

__device__ __forceinline__ void cluster_sync() {
#if __CUDA_ARCH__ >= 900
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
#endif
}
// A float of shared memory at `address` of this block, in block `rank` of the cluster.
__device__ __forceinline__ float cluster_load(const float *address, uint32_t rank) {
    float v = 0;
#if __CUDA_ARCH__ >= 900
    const uint32_t here = (uint32_t)__cvta_generic_to_shared(address);
    uint32_t there;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(here), "r"(rank));
    asm volatile("ld.shared::cluster.f32 %0, [%1];" : "=f"(v) : "r"(there) : "memory");
#else
    (void)rank;
    v = *address;
#endif
    return v;
}

// ------------------------------------------------------------------------------------------------------- tensor cores

// c (16 rows, 8 tokens) += a (16 rows, 16 k) b (16 k, 8 tokens), f32 sums. With g = lane / 4, t = lane % 4 a lane has
// a[0], a[2] of row g and a[1], a[3] of row g + 8; b of token g; c[0], c[1] of row g and tokens 2 t, 2 t + 1; c[2],
// c[3] of row g + 8. The instruction pairs a[0], a[1] with b[0] and a[2], a[3] with b[1]; which k they stand for is up
// to us.
template <typename T16>
__device__ __forceinline__ void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    if constexpr (sizeof(T16) == 2 && __is_same(T16, __nv_bfloat16))
        asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
            "{%0, %1, %2, %3};"
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    else
        asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
            "{%0, %1, %2, %3};"
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ __forceinline__ uint16_t to16(float v, __nv_bfloat16) {
    return __bfloat16_as_ushort(__float2bfloat16_rn(v));
}
__device__ __forceinline__ uint16_t to16(float v, __half) { return __half_as_ushort(__float2half_rn(v)); }

} // namespace pith

#endif
