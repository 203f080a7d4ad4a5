// Products of F32, F16 and BF16 weights with f32 activations: the arithmetic, the same bits at every instruction set
// level.
//
// Weights become f32, exactly. One output element is 16 lanes: lane l sums elements l, l+16, l+32, ... in ascending
// order, one fused multiply-add each, starting at 0; a last part of 16 is filled up with zeros. Then lanes l and l+8
// are added, then l and l+4, l+2, l+1.
//
// A packed activation row is its k floats, filled up with zeros to a multiple of 16.
#ifndef PITH_CPU_PRODUCT_FLOAT_H
#define PITH_CPU_PRODUCT_FLOAT_H

#include "cpu/product.h"

enum { PITH_FLOAT_LANES = 16 };

size_t pith_float_packed_bytes(const pith_product *, int64_t k);
void pith_float_pack(const pith_product *, const float *x, void *packed, int64_t k);

// The kernels of each level, ended by a NULL name; only that where the level was not compiled in.
extern const pith_product pith_float_portable[];
extern const pith_product pith_float_avx2[];
extern const pith_product pith_float_avx512[];

#endif
