#include "cuda/product.cuh"

namespace pith {

constexpr uint32_t LEAST_STEPS = 4;

// Blocks that share a slab. One block more than the card holds at once costs as much as all of them again, so what fits
// into one wave is cut as finely as it goes; but at least LEAST_STEPS for a warp, or starting up costs more than it
// brings. Depends on the matrices alone, not on this card: the order of a sum must not depend on the number of tokens.
static uint32_t parts_of(uint32_t n_slabs, uint32_t n_steps, bool quant) {
    const uint32_t slots = SMS * (quant ? QUANT_BLOCKS : FLOAT_BLOCKS);
    const uint32_t most = max(n_steps / (LEAST_STEPS * WARPS), 1u);
    return min(min(max(slots / n_slabs, 1u), PITH_CUDA_MOST_PARTS), most);
}

__global__ void built_for() {}

cudaError_t has_hopper_code(bool *out) {
    cudaFuncAttributes of;
    const cudaError_t e = cudaFuncGetAttributes(&of, built_for);
    *out = e == cudaSuccess && of.ptxVersion >= 90;
    return e;
}

static bool on_16(const void *p) { return (uintptr_t)p % 16 == 0; }

static uint32_t slabs_of(const pith_cuda_product *p, uint32_t m) {
    return p->out == PITH_CUDA_OUT_SWIGLU ? (m + PITH_SLAB / 2 - 1) / (PITH_SLAB / 2) : pith_quant_slabs(m);
}

} // namespace pith

uint32_t pith_cuda_product_parts(const pith_cuda_product *p) {
    uint32_t n_slabs = 0;
    for (uint32_t i = 0; i < p->n_matrices; i++) n_slabs += pith::slabs_of(p, p->matrix[i].m);
    return n_slabs ? pith::parts_of(n_slabs, p->k / PITH_STEP, pith_quant_layout_of(p->type).block != 0) : 1;
}

cudaError_t pith_cuda_product_built(void) {
    cudaFuncAttributes of;
    const cudaError_t e = cudaFuncGetAttributes(&of, pith::built_for);
    cudaGetLastError(); // told here, and no error of what comes next
    return e;
}

cudaError_t pith_cuda_product_launch(const pith_cuda_product *in, cudaStream_t stream) {
    using namespace pith;
    const pith_quant_layout l = pith_quant_layout_of(in->type);
    const bool quant = l.block != 0, swiglu = in->out == PITH_CUDA_OUT_SWIGLU;
    const uint32_t n_matrices = !swiglu ? in->n_matrices : 1;
    if (!in->n || in->n > PITH_CUDA_PRODUCT_MAX_TOKENS || !in->k || in->k % (quant ? l.block : (uint32_t)PITH_STEP) ||
        !n_matrices || n_matrices > PITH_CUDA_PRODUCT_MAX_MATRICES || in->out == PITH_CUDA_OUT_ADD)
        return cudaErrorInvalidValue;
    if (swiglu && (in->n_matrices != (quant ? 1u : 2u) || (quant && in->matrix[0].bias) ||
                   (!quant && in->matrix[0].m != in->matrix[1].m)))
        return cudaErrorInvalidValue;
    if (!on_16(in->x)) return cudaErrorMisalignedAddress;

    ProductArgs a = {};
    uint32_t n_slabs = 0;
    for (uint32_t i = 0; i < n_matrices; i++) {
        const pith_cuda_matrix &m = in->matrix[i];
        ProductPart &p = a.part[i];
        if (!m.m || m.y_stride < m.m || (uint64_t)m.m * (in->k / 8) > UINT32_MAX) return cudaErrorInvalidValue;
        if (!on_16(m.w) || (swiglu && !quant && !on_16(in->matrix[1].w))) return cudaErrorMisalignedAddress;
        p.w = m.w, p.bias = m.bias, p.y = m.y, p.m = m.m, p.y_stride = m.y_stride, p.part_stride = m.part_stride;
        if (swiglu && !quant) p.w_up = in->matrix[1].w, p.bias_up = in->matrix[1].bias;
        p.n_slabs = slabs_of(in, m.m);
        n_slabs += p.n_slabs;
        p.slabs_end = n_slabs;
    }
    a.x = in->x, a.n = in->n, a.k = in->k, a.out = in->out;

    bool hopper = false;
    const cudaError_t e = has_hopper_code(&hopper);
    if (e != cudaSuccess) return e;
    a.n_parts = in->out == PITH_CUDA_OUT_PARTS ? parts_of(n_slabs, in->k / PITH_STEP, quant) : 1;
    const pith_cuda_follow follow = hopper ? in->follow : PITH_CUDA_AFTER;
    a.early = follow == PITH_CUDA_EARLY;
    const uint32_t n_blocks = n_slabs * a.n_parts;
    if (!quant) return launch_float(in->type, a, n_blocks, hopper, follow, stream);

    // More than 32 tokens: two halves. Twice the bytes of W are still fewer than bf16's, or about as many (Q8_0).
    const uint32_t first = in->n <= 32 ? in->n : (in->n + 15) / 16 * 8;
    for (uint32_t t = 0; t < in->n; t += first) {
        const uint32_t out_bytes = in->out == PITH_CUDA_OUT_F32 || in->out == PITH_CUDA_OUT_PARTS ? 4 : 2;
        ProductArgs some = a;
        some.x = (const uint16_t *)a.x + (size_t)t * in->k;
        some.n = in->n - t < first ? in->n - t : first;
        for (uint32_t i = 0; i < n_matrices; i++)
            some.part[i].y = (uint8_t *)a.part[i].y + (size_t)t * a.part[i].y_stride * out_bytes;
        const cudaError_t failed = launch_quant(in->type, some, n_blocks, follow, stream);
        if (failed != cudaSuccess) return failed;
    }
    return cudaSuccess;
}
