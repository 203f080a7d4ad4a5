// Products of weights with activations, decode class: y[c] = W x[c] for a few columns c, each column by itself.
//
// ggml's own product gives a column other bits when it has neighbours (for several types), and reads the weights once
// per tile. These read each weight row once for all columns, and compute every column in the same order of operations
// whatever their number and place: the result of a column depends on W and x alone.
//
// For every type: the activation row is first quantised to the type's partner (what ggml calls vec_dot_type; for Q8_0
// our own layout), then each output element is a dot product. Types without a kernel of ours use ggml's vec_dot, one
// row and one column at a time, which is its arithmetic for n = 1.
#ifndef PITH_CPU_PRODUCT_H
#define PITH_CPU_PRODUCT_H

#include <stddef.h>
#include <stdint.h>

#define PITH_PRODUCT_MAX_COLUMNS 64u

// A kernel for one weight type at the instruction set level in use. Chosen once per (type, level); constant.
typedef struct pith_product {
    int type; // ggml's
    const char *name;
    // Bytes of one packed activation row of k elements, a multiple of 64.
    size_t (*packed_bytes)(const struct pith_product *, int64_t k);
    // Packs one activation row of k floats.
    void (*pack)(const struct pith_product *, const float *x, void *packed, int64_t k);
    // y[c * y_stride + r] for rows r in [r0, r1) and columns c in [0, n): row r of w starts at w + r * row_bytes.
    // packed: n rows, packed_bytes apart.
    void (*rows)(const struct pith_product *, const void *w, size_t row_bytes, int64_t k, const void *packed, uint32_t n,
                 int64_t r0, int64_t r1, float *y, size_t y_stride);
} pith_product;

// The kernel for `type`, or NULL when ggml has no dot product for it. `disabled`: see pith_cpu_kernels_choose.
const pith_product *pith_product_for(int type, const char *disabled);

// May two types share packed activations? (Q, K and V products share one packed row when their types allow.)
int pith_product_same_pack(const pith_product *a, const pith_product *b);

#endif
