// Random weights by key: what stands in for a tensor that no file has. The same seed gives the same bytes wherever they
// are made and in whatever pieces, so that two devices, or a device and the host, hold the same model.
//
// A value is uniform in (-scale, scale), rounded to the tensor's type. In the quantised types the codes are uniform and
// every block has the same scale, which makes their range that of the values.
#ifndef PITH_OPS_RANDOM_H
#define PITH_OPS_RANDOM_H

#include "ops/ops.h"

// Can a tensor of that type (ggml's number) be made? f32, f16, bf16, q8_0, q4_0, q5_0, q4_k, q6_k.
bool pith_random_has(int type);

// Rows [first, first + n) of a matrix whose data is NULL, n * bytes / ne[1] of them, into `out`.
void pith_random_rows(const pith_weight *w, int64_t first, int64_t n, void *out);

#endif
