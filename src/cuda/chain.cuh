// The device's side of chain.h, and launches that follow it.
#ifndef PITH_CUDA_CHAIN_CUH
#define PITH_CUDA_CHAIN_CUH

#include <cstdint>
#include <cuda_runtime.h>

#include "cuda/chain.h"

namespace pith {

// Before anything that an earlier kernel writes is read, and before anything that it reads is written.
__device__ __forceinline__ void wait_for_previous() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
__device__ __forceinline__ void let_next_start() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
// The two places at which a kernel may let the next one start: first thing, and behind its wait.
__device__ __forceinline__ void let_next_start_early(bool early) {
    if (early) let_next_start();
}
__device__ __forceinline__ void wait_and_let_next_start(bool early) {
    wait_for_previous();
    if (!early) let_next_start();
}

// Asks L2 for `bytes` at `p`, both multiples of 16, from one thread. A hint: nothing waits for it, and what is written
// there later is seen all the same, since L2 is where all multiprocessors meet.
__device__ __forceinline__ void prefetch_bytes(const void *p, uint32_t bytes) {
#if __CUDA_ARCH__ >= 900
    asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(p), "r"(bytes) : "memory");
#else
    for (uint32_t at = 0; at < bytes; at += 128)
        asm volatile("prefetch.global.L2 [%0];" ::"l"((const char *)p + at) : "memory");
#endif
}

// Is the code that runs on this device the one that has these instructions? Not the same as the device having them: a
// build for sm_80 alone runs on newer ones, translated, without. In product.cu.
cudaError_t has_hopper_code(bool *out);

template <typename... Parameters, typename... Arguments>
cudaError_t launch_chained(void (*kernel)(Parameters...), dim3 grid, uint32_t threads, size_t shared_bytes,
                           pith_cuda_follow follow, cudaStream_t stream, Arguments &&...arguments) {
    bool hopper = false;
    const cudaError_t e = has_hopper_code(&hopper);
    if (e != cudaSuccess) return e;
    cudaLaunchAttribute attribute = {};
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = grid, config.blockDim = dim3(threads), config.dynamicSmemBytes = shared_bytes;
    config.stream = stream;
    config.attrs = &attribute, config.numAttrs = hopper && follow != PITH_CUDA_AFTER;
    return cudaLaunchKernelEx(&config, kernel, arguments...);
}

} // namespace pith

#endif
