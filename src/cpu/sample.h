#ifndef PITH_CPU_SAMPLE_H
#define PITH_CPU_SAMPLE_H

#include "cpu/kernels.h"
#include "ops/ops.h"

// One token of n by its logits; see ops.h. scratch: pith_sample_scratch(n) bytes.
int32_t pith_sample(const pith_cpu_kernels *, const float *logits, uint32_t n, const pith_draw *, void *scratch);
size_t pith_sample_scratch(uint32_t n);

#endif
