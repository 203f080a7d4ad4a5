// The CUDA backend: the operation table on own kernels and cuBLASLt. A build without CUDA has none.c in its place,
// whose every answer is that it was not built in.
#ifndef PITH_CUDA_BACKEND_H
#define PITH_CUDA_BACKEND_H

#include "ops/ops.h"

typedef struct pith_cuda_params {
    uint32_t device;             // ordinal
    bool kv_bf16;                // the cache's type; else f16
    uint32_t max_rows;           // most rows a lane can have
    uint32_t max_sequences;      // most sequences alive at once
    uint32_t n_threads;          // of the host, for packing weights; at least 1
    const pith_allocator *alloc; // borrowed, must outlive the backend
} pith_cuda_params;

// PITH_E_UNSUPPORTED with one line that says which: CUDA not built in, no driver, no such device, a device too old, a
// head size without kernels. PITH_E_MEMORY names the bytes needed and the bytes there.
pith_status pith_cuda_create(const pith_geometry *, const pith_cuda_params *, pith_backend **out, pith_error *err);

#endif
