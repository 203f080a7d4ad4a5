#include "cuda/product.cuh"

namespace pith {

cudaError_t launch_float(pith_cuda_type type, const ProductArgs &a, uint32_t n_blocks, pith_cuda_follow follow,
                         cudaStream_t s) {
    if (type == PITH_CUDA_BF16) return launch_tokens<FloatRows<__nv_bfloat16>>(a, n_blocks, follow, s);
    return launch_tokens<FloatRows<__half>>(a, n_blocks, follow, s);
}

} // namespace pith
