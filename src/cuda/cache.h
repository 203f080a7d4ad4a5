// The cache as kernels see it: pages in device memory and, per step, tables that say which pages make up which lane.
//
// Kernels never see pith_lane, whose pointers are the host's. A lane is an entry (sequence, layer, KV head) of the
// tables below; the tables lie in device memory and may be rewritten between two launches of one captured graph, so a
// graph stays valid while lanes grow and shrink.
//
// Inside a page (sizes and section offsets from ops/page.h):
//
//     K  (64, d)  16-bit keys after RoPE, row-major
//     V  (64, d)  16-bit values, row-major
//     P  (64)     int32 logical positions
//
// Rows are contiguous: append writes, gathers read and compaction moves whole rows of 2 d bytes, and a tensor core's
// operand takes 16 bytes of a key at a time. (The CPU's transposed keys would have it write 2-byte pieces 128 bytes
// apart.)
#ifndef PITH_CUDA_CACHE_H
#define PITH_CUDA_CACHE_H

#include <cuda_runtime_api.h>
#include <stdbool.h>

#include "ops/page.h"

typedef enum pith_half { PITH_HALF_F16, PITH_HALF_BF16 } pith_half; // a 16-bit type

// By value to every launch. All pointers are device memory.
typedef struct pith_cuda_cache {
    uint8_t *base; // page `id` starts at base + id * page_bytes
    size_t page_bytes;
    pith_geometry geo; // elt_bytes 2
    pith_half type;
    const int32_t *pages;  // every lane's page ids, one after another
    const int32_t *first;  // (n_seqs, n_layers, G) where a lane's ids begin in `pages`
    const int32_t *n_rows; // (n_seqs, n_layers, G) rows of a lane
} pith_cuda_cache;

// The query windows of all sequences.
typedef struct pith_cuda_windows {
    float *const *q;     // (n_seqs) device pointers to (n_layers, cap, H, d), NULL: that sequence observes nothing
    const uint32_t *cap; // (n_seqs) slots
} pith_cuda_windows;

#endif
