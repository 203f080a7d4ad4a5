// The products that cuBLASLt does on a device: d = a^T b, or added to c, as cuda/gemm.cu describes them. In place of
// cuda/blas.c, which looks for the library.
#include "cuda/blas.h"

#include <vector>

#include "base/half.h"
#include "emulate/block.h"

struct cublasLtMatrixLayoutOpaque {
    cudaDataType_t type;
    uint64_t rows, columns; // of a column-major matrix
    int64_t stride;
    float at(const void *from, uint64_t row, uint64_t column) const {
        const uint64_t i = column * (uint64_t)stride + row;
        if (type == CUDA_R_32F) return static_cast<const float *>(from)[i];
        const uint16_t bits = static_cast<const uint16_t *>(from)[i];
        return type == CUDA_R_16F ? pith_f16_to_f32(bits) : pith_bf16_to_f32(bits);
    }
    void set(void *to, uint64_t row, uint64_t column, float x) const {
        const uint64_t i = column * (uint64_t)stride + row;
        if (type == CUDA_R_32F) static_cast<float *>(to)[i] = x;
        else static_cast<uint16_t *>(to)[i] = type == CUDA_R_16F ? pith_f32_to_f16(x) : pith_f32_to_bf16(x);
    }
    std::vector<float> values(const void *from) const { // column after column
        std::vector<float> v;
        for (uint64_t column = 0; column < columns; column++)
            for (uint64_t row = 0; row < rows; row++) v.push_back(at(from, row, column));
        return v;
    }
};
struct cublasLtMatmulDescOpaque {
    cublasOperation_t on_a;
};

static void multiply(const cublasLtMatrixLayoutOpaque &la, const void *a, const cublasLtMatrixLayoutOpaque &lb,
                     const void *b, float beta, const cublasLtMatrixLayoutOpaque &ld, void *d) {
    const std::vector<float> w = la.values(a), x = lb.values(b);
    const uint64_t k = la.rows;
    for (uint64_t column = 0; column < ld.columns; column++)
        for (uint64_t row = 0; row < ld.rows; row++) {
            double sum = beta ? (double)beta * ld.at(d, row, column) : 0;
            for (uint64_t i = 0; i < k; i++) sum += (double)w[row * k + i] * x[column * k + i];
            ld.set(d, row, column, (float)sum);
        }
}

extern "C" {

cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle) { return *handle = nullptr, CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasLtDestroy(cublasLtHandle_t) { return CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *op, cublasComputeType_t, cudaDataType_t) {
    *op = new cublasLtMatmulDescOpaque{CUBLAS_OP_N};
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t op) {
    delete op;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t op, cublasLtMatmulDescAttributes_t,
                                              const void *value, size_t bytes) {
    memcpy(&op->on_a, value, bytes);
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *layout, cudaDataType_t type, uint64_t rows,
                                          uint64_t columns, int64_t stride) {
    *layout = new cublasLtMatrixLayoutOpaque{type, rows, columns, stride};
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
    delete layout;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *preference) {
    return *preference = nullptr, CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t) { return CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t, cublasLtMatmulPreferenceAttributes_t,
                                                    const void *, size_t) {
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t op, cublasLtMatrixLayout_t a,
                                              cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t,
                                              cublasLtMatrixLayout_t d, cublasLtMatmulPreference_t, int,
                                              cublasLtMatmulHeuristicResult_t *result, int *n_found) {
    *result = {};
    *n_found = op->on_a == CUBLAS_OP_T && a->rows == b->rows && d->rows == a->columns && d->columns == b->columns;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t, const void *alpha, const void *a,
                              cublasLtMatrixLayout_t la, const void *b, cublasLtMatrixLayout_t lb, const void *beta,
                              const void *c, cublasLtMatrixLayout_t, void *d, cublasLtMatrixLayout_t ld,
                              const cublasLtMatmulAlgo_t *, void *, size_t, cudaStream_t stream) {
    const float added = *static_cast<const float *>(beta);
    if (*static_cast<const float *>(alpha) != 1 || c != d) return CUBLAS_STATUS_NOT_SUPPORTED;
    emulate::enqueue(stream, [=, la = *la, lb = *lb, ld = *ld] { multiply(la, a, lb, b, added, ld, d); });
    return CUBLAS_STATUS_SUCCESS;
}

bool pith_cuda_blas_open(pith_cuda_blas *blas) {
#define F(name) blas->name = cublasLt##name;
    PITH_CUDA_BLAS_FUNCTIONS(F)
#undef F
    return true;
}
void pith_cuda_blas_close(pith_cuda_blas *blas) { *blas = {}; }

} // extern "C"
