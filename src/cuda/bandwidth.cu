#include "cuda/bandwidth.h"

#include "cuda/launch.cuh"

namespace pith {
namespace {

constexpr uint32_t THREADS = 512, LOADS = 8, BLOCKS_PER_SM = 4, RUNS = 6;

// Eight loads of 16 bytes on their way per thread, 2048 threads per multiprocessor: 256 KB.
__global__ void __launch_bounds__(THREADS, BLOCKS_PER_SM) read_kernel(const uint4 *from, size_t n, uint32_t *sink) {
    const size_t stride = (size_t)gridDim.x * THREADS;
    uint32_t seen = 0;
    size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x;
    for (; i + (LOADS - 1) * stride < n; i += LOADS * stride) {
        uint4 v[LOADS];
#pragma unroll
        for (uint32_t l = 0; l < LOADS; l++) v[l] = __ldcs(from + i + l * stride);
#pragma unroll
        for (uint32_t l = 0; l < LOADS; l++) seen |= v[l].x & v[l].y & v[l].z & v[l].w;
    }
    for (; i < n; i += stride) seen |= __ldcs(from + i).x;
    if (n == SIZE_MAX) *sink = seen; // never: what is read must only seem to matter
}

} // namespace
} // namespace pith

cudaError_t pith_cuda_read_bandwidth(const void *from, size_t bytes, uint32_t *sink, double *out, cudaStream_t stream) {
    using namespace pith;
    *out = 0;
    const size_t n = bytes / sizeof(uint4);
    if (!n) return cudaErrorInvalidValue;
    if ((uintptr_t)from % sizeof(uint4)) return cudaErrorMisalignedAddress;
    int device = 0, n_sm = 0;
    cudaEvent_t begin = nullptr, end = nullptr;
    cudaError_t e = cudaGetDevice(&device);
    if (!e) e = cudaDeviceGetAttribute(&n_sm, cudaDevAttrMultiProcessorCount, device);
    if (!e) e = cudaEventCreate(&begin);
    if (!e) e = cudaEventCreate(&end);
    for (uint32_t run = 0; !e && run < RUNS; run++) {
        float ms = 0;
        e = cudaEventRecord(begin, stream);
        if (!e)
            e = launch_kernel(read_kernel, (uint32_t)n_sm * BLOCKS_PER_SM, THREADS, 0, stream, (const uint4 *)from, n,
                              sink);
        if (!e) e = cudaEventRecord(end, stream);
        if (!e) e = cudaEventSynchronize(end);
        if (!e) e = cudaEventElapsedTime(&ms, begin, end);
        if (!e && run && (double)(n * sizeof(uint4)) / (ms * 1e-3) > *out)
            *out = (double)(n * sizeof(uint4)) / (ms * 1e-3);
    }
    if (begin) cudaEventDestroy(begin);
    if (end) cudaEventDestroy(end);
    return e;
}
