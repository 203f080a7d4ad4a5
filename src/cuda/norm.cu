// One block per token: 512 threads keep their elements in registers, so that x is read once, and their weights, which
// are there before x is. Bound: latency, of one trip to L2 and two barriers.
//
// In a chain (chain.h) the product behind a norm starts when the norm's blocks have, so these must find room beside the
// blocks of the product in front of them: no more registers than a row of this length needs.
#include "cuda/norm.h"

#include "cuda/chain.cuh"
#include "cuda/half.cuh"
#include "cuda/product.h"

namespace pith {

constexpr int NORM_THREADS = 512, MOST_LOADS = 8; // 16 bytes each: up to 16384 elements

__device__ __forceinline__ void add(float4 &x, const float4 &y) { x.x += y.x, x.y += y.y, x.z += y.z, x.w += y.w; }

// What the thread has of a row, with its parts added: those of N times four elements are under way together.
template <int N> __device__ __forceinline__ void load_residual(const pith_cuda_norm &p, uint32_t at, float4 (&x)[N]) {
    const size_t row = (size_t)blockIdx.x * p.d;
    float4 part[N][PITH_CUDA_MOST_PARTS];
#pragma unroll
    for (int i = 0; i < N; i++) {
        const uint32_t here = at + i * NORM_THREADS * 4;
        x[i] = float4{0, 0, 0, 0};
        if (here < p.d) x[i] = __ldcg((const float4 *)(p.x + row + here));
#pragma unroll
        for (uint32_t s = 0; s < PITH_CUDA_MOST_PARTS; s++) {
            part[i][s] = float4{0, 0, 0, 0};
            if (s < p.n_parts && here < p.d)
                part[i][s] = __ldcg((const float4 *)(p.parts + s * p.part_stride + row + here));
        }
    }
#pragma unroll
    for (int i = 0; i < N; i++) {
        const uint32_t here = at + i * NORM_THREADS * 4;
#pragma unroll
        for (uint32_t s = 0; s < PITH_CUDA_MOST_PARTS; s++) add(x[i], part[i][s]); // 0 behind the last: no change
        if (p.n_parts && here < p.d) *(float4 *)(p.x + row + here) = x[i];
    }
}

template <typename T16, int LOADS>
__global__ void __launch_bounds__(NORM_THREADS) norm_kernel(pith_cuda_norm p, bool early) {
    constexpr int TOGETHER = LOADS < 2 ? LOADS : 2;
    __shared__ float warp_sum[NORM_THREADS / 32];
    let_next_start_early(early);
    float4 g[LOADS];
#pragma unroll
    for (int i = 0; i < LOADS; i++) {
        const uint32_t at = (i * NORM_THREADS + threadIdx.x) * 4;
        g[i] = at < p.d ? *(const float4 *)(p.weight + at) : float4{0, 0, 0, 0};
    }
    wait_and_let_next_start(early);

    const size_t row = (size_t)blockIdx.x * p.d;
    float4 v[LOADS];
    float sum = 0;
#pragma unroll
    for (int i = 0; i < LOADS; i += TOGETHER) {
        float4 some[TOGETHER];
        load_residual(p, (i * NORM_THREADS + threadIdx.x) * 4, some);
#pragma unroll
        for (int j = 0; j < TOGETHER; j++) v[i + j] = some[j];
    }
#pragma unroll
    for (int i = 0; i < LOADS; i++)
        sum = fmaf(v[i].w, v[i].w, fmaf(v[i].z, v[i].z, fmaf(v[i].y, v[i].y, fmaf(v[i].x, v[i].x, sum))));
#pragma unroll
    for (int m = 16; m; m /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, m);
    if (threadIdx.x % 32 == 0) warp_sum[threadIdx.x / 32] = sum;
    __syncthreads();
    float total = 0;
#pragma unroll
    for (int i = 0; i < NORM_THREADS / 32; i++) total += warp_sum[i];
    const float scale = 1.f / sqrtf(total / (float)p.d + p.eps);

#pragma unroll
    for (int i = 0; i < LOADS; i++) {
        const uint32_t at = (i * NORM_THREADS + threadIdx.x) * 4;
        if (at >= p.d) break;
        const uint32_t a = to16(v[i].x * scale * g[i].x, T16()), b = to16(v[i].y * scale * g[i].y, T16());
        const uint32_t c = to16(v[i].z * scale * g[i].z, T16()), e = to16(v[i].w * scale * g[i].w, T16());
        *(uint2 *)((uint16_t *)p.y + row + at) = uint2{a | b << 16, c | e << 16};
    }
}

using norm_kernel_of = void (*)(pith_cuda_norm, bool);
template <typename T16> norm_kernel_of kernel_for(uint32_t d) {
    const uint32_t loads = (d + NORM_THREADS * 4 - 1) / (NORM_THREADS * 4);
    return loads <= 1   ? norm_kernel<T16, 1>
           : loads <= 2 ? norm_kernel<T16, 2>
           : loads <= 4 ? norm_kernel<T16, 4>
                        : norm_kernel<T16, MOST_LOADS>;
}

} // namespace pith

cudaError_t pith_cuda_norm_launch(const pith_cuda_norm *p, pith_cuda_follow follow, cudaStream_t stream) {
    using namespace pith;
    if (!p->n || !p->d || p->d % 4 || p->d > NORM_THREADS * MOST_LOADS * 4 || p->n_parts > PITH_CUDA_MOST_PARTS ||
        p->part_stride % 4)
        return cudaErrorInvalidValue;
    if (((uintptr_t)p->x | (uintptr_t)p->parts | (uintptr_t)p->weight | (uintptr_t)p->y) % 16)
        return cudaErrorMisalignedAddress;
    return launch_chained(p->f16 ? kernel_for<__half>(p->d) : kernel_for<__nv_bfloat16>(p->d), dim3(p->n), NORM_THREADS,
                          0, follow, stream, *p, follow == PITH_CUDA_EARLY);
}
