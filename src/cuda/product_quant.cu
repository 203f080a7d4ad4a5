#include "cuda/product.cuh"

namespace pith {

template <pith_cuda_type TYPE>
static cudaError_t launch_type(const ProductArgs &a, uint32_t n_blocks, pith_cuda_follow follow, cudaStream_t s) {
    if (a.n == 1) return launch<QuantRows<TYPE, true>, 1>(a, n_blocks, follow, s);
    return launch_tokens<QuantRows<TYPE>>(a, n_blocks, follow, s);
}

cudaError_t launch_quant(pith_cuda_type type, const ProductArgs &a, uint32_t n_blocks, pith_cuda_follow follow,
                         cudaStream_t s) {
    switch (type) {
    case PITH_CUDA_Q8_0: return launch_type<PITH_CUDA_Q8_0>(a, n_blocks, follow, s);
    case PITH_CUDA_Q4_0: return launch_type<PITH_CUDA_Q4_0>(a, n_blocks, follow, s);
    case PITH_CUDA_Q4_K: return launch_type<PITH_CUDA_Q4_K>(a, n_blocks, follow, s);
    case PITH_CUDA_Q6_K: return launch_type<PITH_CUDA_Q6_K>(a, n_blocks, follow, s);
    default: return cudaErrorInvalidValue;
    }
}

} // namespace pith
