// Maps of weight matrices for the card's tensor copies (sm_90), which bring a tile of rows to shared memory without any
// warp: loads that warps issue queue in front of each other, and of whatever else a multiprocessor's warps want from
// memory, and at a whole card's bandwidth that is microseconds.
//
// A tile is 32 rows of 64 k, 4 KB. Its rows lie 128 bytes apart, and 16 bytes that belong at c of row r lie at c ^ r % 8:
// eight lanes that read pieces 2 t + h of two rows find them in different banks.
#ifndef PITH_CUDA_TILES_H
#define PITH_CUDA_TILES_H

#include <stdbool.h>
#include <stdint.h>

#include <cuda_runtime_api.h>
#ifdef __CUDACC__
#include <cuda.h>
#endif

#define PITH_CUDA_TILE_ROWS 32u
#define PITH_CUDA_TILE_K 64u
#define PITH_CUDA_TILE_BYTES (PITH_CUDA_TILE_ROWS * PITH_CUDA_TILE_K * 2)

#ifdef __CUDACC__
typedef CUtensorMap pith_tile_map;
#else
typedef struct pith_tile_map { // nothing: where there is no nvcc there are no tensor copies
    char none;
} pith_tile_map;
#endif

#ifdef __cplusplus
extern "C" {
#endif

// Of w (m, k), 16-bit elements on 16 bytes, k a multiple of 8. cudaErrorNotSupported where the driver has none.
cudaError_t pith_cuda_map_tiles(pith_tile_map *, const void *w, uint32_t m, uint32_t k);

#ifdef __cplusplus
}
#endif

#endif
