#include "cuda/tiles.h"

#ifdef __CUDACC__

// The driver's function, asked for by the runtime, so that nothing has to be linked against the driver.
static void *encoder(cudaError_t *e) {
    void *function = nullptr;
    cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
#if CUDART_VERSION >= 12050
    *e = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &found);
#else
    *e = cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &function, cudaEnableDefault, &found);
#endif
    if (*e == cudaSuccess && found != cudaDriverEntryPointSuccess) *e = cudaErrorNotSupported;
    return function;
}

extern "C" cudaError_t pith_cuda_map_tiles(pith_tile_map *map, const void *w, uint32_t m, uint32_t k) {
    using encode = CUresult (*)(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *, const cuuint64_t *,
                                const cuuint64_t *, const cuuint32_t *, const cuuint32_t *, CUtensorMapInterleave,
                                CUtensorMapSwizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill);
    cudaError_t e;
    void *function = encoder(&e);
    if (e) return e;
    const cuuint64_t sizes[2] = {k, m}, strides[1] = {(cuuint64_t)k * 2};
    const cuuint32_t tile[2] = {PITH_CUDA_TILE_K, PITH_CUDA_TILE_ROWS}, ones[2] = {1, 1};
    // What lies past the end comes as zeros. A tile's rows are half of what L2 can fetch at once, and the other half is
    // another warp's next.
    return ((encode)function)(map, CU_TENSOR_MAP_DATA_TYPE_UINT16, 2, const_cast<void *>(w), sizes, strides, tile, ones,
                              CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                              CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE)
               ? cudaErrorInvalidValue
               : cudaSuccess;
}

#else

extern "C" cudaError_t pith_cuda_map_tiles(pith_tile_map *, const void *, uint32_t, uint32_t) {
    return cudaErrorNotSupported;
}

#endif
