// The device's side of chain.h, and launches that follow it.
#ifndef PITH_CUDA_CHAIN_CUH
#define PITH_CUDA_CHAIN_CUH

#include <cstdint>
#include <cuda_runtime.h>

#include "cuda/asm.cuh"
#include "cuda/chain.h"

namespace pith {

// The two places at which a kernel may let the next one start: first thing, and behind its wait.
__device__ __forceinline__ void let_next_start_early(bool early) {
    if (early) let_next_start();
}
__device__ __forceinline__ void wait_and_let_next_start(bool early) {
    wait_for_previous();
    if (!early) let_next_start();
}

// Is the code that runs on this device the one that has these instructions? In product.cu.
cudaError_t has_hopper_code(bool *out);

// A multiprocessor has one split between L1 and shared memory at a time, in percent of what shared memory can have, and
// rests when it changes: kernels that want different ones do not overlap there. All of a chain ask for the same: 164
// KB, which two blocks of a product of bf16 weights, two of attention or three of packed weights need. All of it, 228 KB,
// was slower: attention's pages and activations come through L1.
constexpr int CHAIN_CARVEOUT = 62;

// What a launch needs to follow as it is told. `attributes` has room for one more.
template <typename Kernel>
cudaError_t add_follow(cudaLaunchConfig_t &config, cudaLaunchAttribute *attributes, Kernel kernel,
                       pith_cuda_follow follow) {
    config.attrs = attributes;
    if (follow != PITH_CUDA_AFTER) {
        cudaLaunchAttribute &at = attributes[config.numAttrs++];
        at.id = cudaLaunchAttributeProgrammaticStreamSerialization;
        at.val.programmaticStreamSerializationAllowed = 1;
    }
    return cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, CHAIN_CARVEOUT);
}

template <typename... Parameters, typename... Arguments>
cudaError_t launch_chained(void (*kernel)(Parameters...), dim3 grid, uint32_t threads, size_t shared_bytes,
                           pith_cuda_follow follow, cudaStream_t stream, Arguments &&...arguments) {
    bool hopper = false;
    cudaLaunchAttribute attribute;
    cudaLaunchConfig_t config = {};
    config.gridDim = grid, config.blockDim = dim3(threads), config.dynamicSmemBytes = shared_bytes;
    config.stream = stream;
    cudaError_t e = has_hopper_code(&hopper);
    if (!e && hopper) e = add_follow(config, &attribute, kernel, follow);
    return e ? e : cudaLaunchKernelEx(&config, kernel, arguments...);
}

} // namespace pith

#endif
