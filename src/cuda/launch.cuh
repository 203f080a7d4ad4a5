// A launch, in C++: kernel<<<grid, threads, shared_bytes, stream>>>(arguments...).
#ifndef PITH_CUDA_LAUNCH_CUH
#define PITH_CUDA_LAUNCH_CUH

#include <cuda_runtime.h>

namespace pith {

template <typename... Parameters, typename... Arguments>
cudaError_t launch_kernel(void (*kernel)(Parameters...), dim3 grid, unsigned threads, size_t shared_bytes,
                          cudaStream_t stream, Arguments &&...arguments) {
    cudaLaunchConfig_t config = {};
    config.gridDim = grid, config.blockDim = dim3(threads), config.dynamicSmemBytes = shared_bytes;
    config.stream = stream;
    return cudaLaunchKernelEx(&config, kernel, arguments...);
}

} // namespace pith

#endif
