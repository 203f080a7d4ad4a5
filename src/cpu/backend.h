// The CPU backend: the operation table on ggml and our own kernels.
#ifndef PITH_CPU_BACKEND_H
#define PITH_CPU_BACKEND_H

#include "ops/ops.h"

typedef struct pith_cpu_params {
    uint32_t n_threads;           // most threads of a step; 0: pith_cpu_default_threads()
    uint32_t max_rows;            // most rows a lane can have: sizes the scratch of split lanes
    const char *disabled;         // levels of our kernels not to use, comma-separated; NULL: none
    const pith_allocator *alloc;  // borrowed, must outlive the backend
} pith_cpu_params;

// PITH_E_UNSUPPORTED when ggml was built for a CPU with instructions that this one lacks; PITH_E_MEMORY.
pith_status pith_cpu_create(const pith_geometry *, const pith_cpu_params *, pith_backend **out, pith_error *);

// CPUs that affinity and the cgroup's quota leave to this process, at least 1.
uint32_t pith_cpu_default_threads(void);

#endif
