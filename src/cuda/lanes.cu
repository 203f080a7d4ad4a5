#include "cuda/lanes.h"

#include "cuda/cache.cuh"
#include "cuda/launch.cuh"

using namespace pith;

namespace {

constexpr uint32_t THREADS = 256;

__global__ void update_kernel(uint32_t *pages, const uint2 *updates, uint32_t n) {
    const uint32_t i = blockIdx.x * THREADS + threadIdx.x;
    if (i < n) pages[updates[i].x] = updates[i].y;
}

__global__ void begin_kernel(int32_t *first, uint32_t n, uint32_t cap_pages) {
    const uint32_t i = blockIdx.x * THREADS + threadIdx.x;
    if (i < n) first[i] = (int32_t)(i * cap_pages);
}

__global__ void positions_kernel(sections at, const int32_t *pages, const int32_t *first, uint32_t entry, uint32_t n,
                                 int32_t *out) {
    const uint32_t row = blockIdx.x * THREADS + threadIdx.x;
    if (row < n) out[row] = page_pos(at, pages[first[entry] + row / PITH_PAGE_ROWS])[row % PITH_PAGE_ROWS];
}

uint32_t blocks(uint32_t n) { return (n + THREADS - 1) / THREADS; }

} // namespace

extern "C" cudaError_t pith_cuda_lists_update(uint32_t *pages, const void *updates, uint32_t n, cudaStream_t stream) {
    if (n == 0) return cudaSuccess;
    return launch_kernel(update_kernel, blocks(n), THREADS, 0, stream, pages, static_cast<const uint2 *>(updates), n);
}

extern "C" cudaError_t pith_cuda_lists_begin(int32_t *first, uint32_t n, uint32_t cap_pages, cudaStream_t stream) {
    if (n == 0) return cudaSuccess;
    return launch_kernel(begin_kernel, blocks(n), THREADS, 0, stream, first, n, cap_pages);
}

extern "C" cudaError_t pith_cuda_positions(const pith_cuda_cache *c, uint32_t entry, uint32_t n_rows, int32_t *out,
                                           cudaStream_t stream) {
    if (n_rows == 0) return cudaSuccess;
    return launch_kernel(positions_kernel, blocks(n_rows), THREADS, 0, stream, sections_of(*c), c->pages, c->first,
                         entry, n_rows, out);
}
