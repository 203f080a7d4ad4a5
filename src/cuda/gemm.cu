#include "cuda/gemm.h"

#include "cuda/asm.cuh"
#include "cuda/blas.h"
#include "cuda/half.cuh"
#include "cuda/launch.cuh"
#include "cuda/quant.cuh"

#include <cstring>
#include <new>

struct pith_cuda_gemm {
    struct Entry {
        pith_cuda_gemm_shape shape;
        cublasLtMatmulDesc_t op;
        cublasLtMatrixLayout_t w, x, y;
        cublasLtMatmulAlgo_t algo;
        size_t workspace_bytes;
    };
    pith_cuda_blas blas;
    cublasLtHandle_t handle;
    uint32_t n;
    Entry entry[PITH_CUDA_GEMM_MAX_SHAPES];
};

namespace pith {

static bool same(const pith_cuda_gemm_shape &a, const pith_cuda_gemm_shape &b) {
    return a.m == b.m && a.k == b.k && a.n == b.n && a.y_stride == b.y_stride && a.f16 == b.f16 && a.out == b.out;
}
static const pith_cuda_gemm::Entry *find(const pith_cuda_gemm *g, const pith_cuda_gemm_shape &shape) {
    for (uint32_t i = 0; i < g->n; i++)
        if (same(g->entry[i].shape, shape)) return &g->entry[i];
    return nullptr;
}
static void clear(const pith_cuda_blas &blas, pith_cuda_gemm::Entry &e) {
    if (e.op) blas.MatmulDescDestroy(e.op);
    if (e.w) blas.MatrixLayoutDestroy(e.w);
    if (e.x) blas.MatrixLayoutDestroy(e.x);
    if (e.y) blas.MatrixLayoutDestroy(e.y);
    memset(&e, 0, sizeof e);
}

// cuBLAS is column-major: our y (n, m) is its (m, n), w (m, k) its (k, m) to be transposed, x (n, k) its (k, n).
static bool describe(const pith_cuda_blas &blas, cublasLtHandle_t handle, pith_cuda_gemm::Entry &e) {
    const pith_cuda_gemm_shape &s = e.shape;
    const cudaDataType_t in = s.f16 ? CUDA_R_16F : CUDA_R_16BF, out = s.out == PITH_CUDA_OUT_16 ? in : CUDA_R_32F;
    const cublasOperation_t transposed = CUBLAS_OP_T;
    const auto ok = CUBLAS_STATUS_SUCCESS;
    if (blas.MatmulDescCreate(&e.op, CUBLAS_COMPUTE_32F, CUDA_R_32F) != ok) return false;
    if (blas.MatmulDescSetAttribute(e.op, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed) != ok ||
        blas.MatrixLayoutCreate(&e.w, in, s.k, s.m, s.k) != ok ||
        blas.MatrixLayoutCreate(&e.x, in, s.k, s.n, s.k) != ok ||
        blas.MatrixLayoutCreate(&e.y, out, s.m, s.n, s.y_stride) != ok)
        return false;

    cublasLtMatmulPreference_t preference = nullptr;
    if (blas.MatmulPreferenceCreate(&preference) != ok) return false;
    cublasLtMatmulHeuristicResult_t result;
    int n_found = 0;
    const bool found =
        blas.MatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &e.workspace_bytes,
                                          sizeof e.workspace_bytes) == ok &&
        blas.MatmulAlgoGetHeuristic(handle, e.op, e.w, e.x, e.y, e.y, preference, 1, &result, &n_found) == ok &&
        n_found == 1;
    blas.MatmulPreferenceDestroy(preference);
    if (found) e.algo = result.algo;
    return found;
}

} // namespace pith

cudaError_t pith_cuda_gemm_create(pith_cuda_gemm **out) {
    *out = nullptr;
    pith_cuda_gemm *g = new (std::nothrow) pith_cuda_gemm();
    if (!g) return cudaErrorMemoryAllocation;
    if (!pith_cuda_blas_open(&g->blas) || g->blas.Create(&g->handle) != CUBLAS_STATUS_SUCCESS) {
        pith_cuda_blas_close(&g->blas);
        delete g;
        return cudaErrorNotSupported;
    }
    *out = g;
    return cudaSuccess;
}

void pith_cuda_gemm_free(pith_cuda_gemm *g) {
    if (!g) return;
    for (uint32_t i = 0; i < g->n; i++) pith::clear(g->blas, g->entry[i]);
    g->blas.Destroy(g->handle);
    pith_cuda_blas_close(&g->blas);
    delete g;
}

cudaError_t pith_cuda_gemm_prepare(pith_cuda_gemm *g, const pith_cuda_gemm_shape *shape, size_t workspace_bytes) {
    if (pith::find(g, *shape)) return cudaSuccess;
    if (g->n == PITH_CUDA_GEMM_MAX_SHAPES || !shape->m || !shape->n || !shape->k || shape->out == PITH_CUDA_OUT_SWIGLU)
        return cudaErrorInvalidValue;
    pith_cuda_gemm::Entry &e = g->entry[g->n];
    e.shape = *shape, e.workspace_bytes = workspace_bytes;
    if (!pith::describe(g->blas, g->handle, e)) {
        pith::clear(g->blas, e);
        return cudaErrorInvalidValue;
    }
    g->n++;
    return cudaSuccess;
}

cudaError_t pith_cuda_gemm_launch(const pith_cuda_gemm *g, const pith_cuda_gemm_shape *shape, const void *w,
                                  const void *x, void *y, void *workspace, cudaStream_t stream) {
    const pith_cuda_gemm::Entry *e = pith::find(g, *shape);
    if (!e) return cudaErrorInvalidValue;
    const float one = 1, beta = shape->out == PITH_CUDA_OUT_ADD ? 1 : 0;
    const cublasStatus_t status = g->blas.Matmul(g->handle, e->op, &one, w, e->w, x, e->x, &beta, y, e->y, y, e->y,
                                                 &e->algo, workspace, e->workspace_bytes, stream);
    return status == CUBLAS_STATUS_SUCCESS ? cudaSuccess : cudaErrorUnknown;
}

// ---------------------------------------------------------------------------------------------------------- small ones

namespace pith {

// A warp per tile of 64 rows and 32 k; a lane writes its eight elements of a row as 16 bytes (Q6_K: twice 8), four
// lanes 64 bytes in a row. Bound: bytes written.
template <pith_cuda_type TYPE>
__global__ void __launch_bounds__(256)
    dequant_kernel(const uint8_t *packed, uint32_t m, uint32_t k, uint32_t row0, uint32_t end, uint16_t *y) {
    __shared__ float4 scratch[8][32];
    const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const uint32_t step = blockIdx.x * 8 + warp, slab = row0 / PITH_SLAB + blockIdx.y;
    if (step >= k / PITH_STEP) return;
    const TileAt at = tile_at<TYPE>(pith_quant_slabs(m), k, slab, step, lane);
    Tile<TYPE> tile = {};
#pragma unroll
    for (int i = 0; i < Tile<TYPE>::CODE_LOADS; i++) tile.code[i] = load_weights(packed + at.code + i * 512);
    tile.scale = load_weights4(packed + at.scale);
    if constexpr (TYPE == PITH_CUDA_Q4_K) tile.super = load_shared8(packed + at.super);
    if constexpr (TYPE == PITH_CUDA_Q6_K) tile.super.x = load_shared4(packed + at.super);
    scratch[warp][lane] = tile.scales();
    __syncwarp();
#pragma unroll
    for (int mt = 0; mt < 4; mt++)
#pragma unroll
        for (int upper = 0; upper < 2; upper++) {
            const uint32_t row = slab * PITH_SLAB + mt * 16 + upper * 8 + g;
            const float4 q = scratch[warp][mt * 8 + g];
            const float s = upper ? q.z : q.x, other = upper ? q.w : q.y; // minimum, or scale of the second half
            uint32_t out[4];
#pragma unroll
            for (int j = 0; j < 4; j++) {
                const uint32_t c = tile.pair(mt, upper, j);
                float a = __uint_as_float(c << 16), b = __uint_as_float(c & 0xffff0000u);
                if (TYPE == PITH_CUDA_Q4_K) a = fmaf(s, a, -other), b = fmaf(s, b, -other);
                else if (TYPE == PITH_CUDA_Q6_K && j >= 2) a *= other, b *= other;
                else a *= s, b *= s;
                out[j] = to16(a, __nv_bfloat16()) | (uint32_t)to16(b, __nv_bfloat16()) << 16;
            }
            if (row >= end) continue;
            uint16_t *p = y + (size_t)(row - row0) * k + step * PITH_STEP;
            *(uint2 *)(p + pith_quant_k(TYPE, t, 0)) = uint2{out[0], out[1]};
            *(uint2 *)(p + pith_quant_k(TYPE, t, 4)) = uint2{out[2], out[3]};
        }
}

__global__ void __launch_bounds__(256)
    bias_kernel(float *y, const float *__restrict__ bias, uint32_t m, uint32_t stride) {
    const uint32_t i = blockIdx.x * 256 + threadIdx.x;
    if (i < m) y[(size_t)blockIdx.y * stride + i] += bias[i];
}

template <typename T16>
__global__ void __launch_bounds__(256) swiglu_kernel(const float *__restrict__ gate, const float *__restrict__ up,
                                                     uint32_t f, uint32_t stride, bool pair, uint16_t *y) {
    const uint32_t i = blockIdx.x * 256 + threadIdx.x;
    if (i >= f) return;
    const size_t at = (size_t)blockIdx.y * stride + (pair ? i / 32 * 64 + i % 32 : i);
    const float g = gate[at];
    y[(size_t)blockIdx.y * f + i] = to16(g / (1.f + __expf(-g)) * up[at], T16());
}

} // namespace pith

cudaError_t pith_cuda_dequant_launch(pith_cuda_type type, const void *packed, uint32_t m, uint32_t k, uint32_t row0,
                                     uint32_t n_rows, void *y, cudaStream_t stream) {
    using namespace pith;
    const pith_quant_layout l = pith_quant_layout_of(type);
    if (!l.block || !k || k % l.block || row0 % PITH_SLAB || row0 >= m || !n_rows) return cudaErrorInvalidValue;
    const uint32_t end = n_rows < m - row0 ? row0 + n_rows : m;
    const dim3 grid((k / PITH_STEP + 7) / 8, pith_quant_slabs(end - row0));
    const uint8_t *w = (const uint8_t *)packed;
    uint16_t *out = (uint16_t *)y;
    const auto run = type == PITH_CUDA_Q8_0   ? dequant_kernel<PITH_CUDA_Q8_0>
                     : type == PITH_CUDA_Q4_0 ? dequant_kernel<PITH_CUDA_Q4_0>
                     : type == PITH_CUDA_Q4_K ? dequant_kernel<PITH_CUDA_Q4_K>
                                              : dequant_kernel<PITH_CUDA_Q6_K>;
    return launch_kernel(run, grid, 256, 0, stream, w, m, k, row0, end, out);
}

cudaError_t pith_cuda_bias_launch(float *y, const float *bias, uint32_t n, uint32_t m, uint32_t y_stride,
                                  cudaStream_t stream) {
    if (!n || n > 65535 || !m) return cudaErrorInvalidValue;
    return pith::launch_kernel(pith::bias_kernel, dim3((m + 255) / 256, n), 256, 0, stream, y, bias, m, y_stride);
}

cudaError_t pith_cuda_swiglu_launch(const float *gate, const float *up, uint32_t n, uint32_t f, uint32_t stride,
                                    bool pair, bool f16, void *y, cudaStream_t stream) {
    if (!n || n > 65535 || !f) return cudaErrorInvalidValue;
    const dim3 grid((f + 255) / 256, n);
    const auto run = f16 ? pith::swiglu_kernel<__half> : pith::swiglu_kernel<__nv_bfloat16>;
    return pith::launch_kernel(run, grid, 256, 0, stream, gate, up, f, stride, pair, (uint16_t *)y);
}
