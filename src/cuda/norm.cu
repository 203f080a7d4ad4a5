// One block per token: 512 threads keep their elements in registers, so that x is read once, and their weights, which
// are there before x is. Bound: latency, of one trip to L2 and two barriers.
//
// In a chain (chain.h) the product behind a norm starts when the norm's blocks have, so these must find room beside the
// blocks of the product in front of them: no more registers than a row of this length needs.
#include "cuda/norm.h"

#include "cuda/chain.cuh"
#include "cuda/half.cuh"

namespace pith {

constexpr int NORM_THREADS = 512, MOST_LOADS = 8; // 16 bytes each: up to 16384 elements

template <typename T16, int LOADS>
__global__ void __launch_bounds__(NORM_THREADS)
    norm_kernel(const float *x, const float *__restrict__ w, float eps, uint32_t d, uint16_t *y, bool early) {
    __shared__ float warp_sum[NORM_THREADS / 32];
    let_next_start_early(early);
    float4 g[LOADS];
#pragma unroll
    for (int i = 0; i < LOADS; i++) {
        const uint32_t at = (i * NORM_THREADS + threadIdx.x) * 4;
        g[i] = at < d ? *(const float4 *)(w + at) : float4{0, 0, 0, 0};
    }
    wait_and_let_next_start(early);

    const float *row = x + (size_t)blockIdx.x * d;
    uint4 v[LOADS];
    float sum = 0;
#pragma unroll
    for (int i = 0; i < LOADS; i++) {
        const uint32_t at = (i * NORM_THREADS + threadIdx.x) * 4;
        v[i] = at < d ? __ldcg((const uint4 *)(row + at)) : uint4{0, 0, 0, 0};
    }
#pragma unroll
    for (int i = 0; i < LOADS; i++) {
        const float a = __uint_as_float(v[i].x), b = __uint_as_float(v[i].y);
        const float c = __uint_as_float(v[i].z), e = __uint_as_float(v[i].w);
        sum = fmaf(e, e, fmaf(c, c, fmaf(b, b, fmaf(a, a, sum))));
    }
#pragma unroll
    for (int m = 16; m; m /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, m);
    if (threadIdx.x % 32 == 0) warp_sum[threadIdx.x / 32] = sum;
    __syncthreads();
    float total = 0;
#pragma unroll
    for (int i = 0; i < NORM_THREADS / 32; i++) total += warp_sum[i];
    const float scale = 1.f / sqrtf(total / (float)d + eps);

#pragma unroll
    for (int i = 0; i < LOADS; i++) {
        const uint32_t at = (i * NORM_THREADS + threadIdx.x) * 4;
        if (at >= d) break;
        const uint32_t a = to16(__uint_as_float(v[i].x) * scale * g[i].x, T16());
        const uint32_t b = to16(__uint_as_float(v[i].y) * scale * g[i].y, T16());
        const uint32_t c = to16(__uint_as_float(v[i].z) * scale * g[i].z, T16());
        const uint32_t e = to16(__uint_as_float(v[i].w) * scale * g[i].w, T16());
        *(uint2 *)(y + (size_t)blockIdx.x * d + at) = uint2{a | b << 16, c | e << 16};
    }
}

using norm_kernel_of = void (*)(const float *, const float *, float, uint32_t, uint16_t *, bool);
template <typename T16> norm_kernel_of kernel_for(uint32_t d) {
    const uint32_t loads = (d + NORM_THREADS * 4 - 1) / (NORM_THREADS * 4);
    return loads <= 1   ? norm_kernel<T16, 1>
           : loads <= 2 ? norm_kernel<T16, 2>
           : loads <= 4 ? norm_kernel<T16, 4>
                        : norm_kernel<T16, MOST_LOADS>;
}

} // namespace pith

cudaError_t pith_cuda_norm_launch(const float *x, const float *w, float eps, uint32_t n, uint32_t d, bool f16, void *y,
                                  pith_cuda_follow follow, cudaStream_t stream) {
    using namespace pith;
    if (!n || !d || d % 4 || d > NORM_THREADS * MOST_LOADS * 4) return cudaErrorInvalidValue;
    if (((uintptr_t)x | (uintptr_t)w | (uintptr_t)y) % 16) return cudaErrorMisalignedAddress;
    return launch_chained(f16 ? kernel_for<__half>(d) : kernel_for<__nv_bfloat16>(d), dim3(n), NORM_THREADS, 0, follow,
                          stream, x, w, eps, d, (uint16_t *)y, follow == PITH_CUDA_EARLY);
}
