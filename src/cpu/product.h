// Products of weights with activations, decode class: y[c] = W x[c] for a few columns c, each column by itself.
//
// ggml's own product gives a column other bits when it has neighbours (for several types), and reads the weights once
// per tile. These read each weight row once for all columns, and compute every column in the same order of operations
// whatever their number and place: the result of a column depends on W and x alone.
//
// A column of activations is packed first, then multiplied with any range of rows by any thread. For Q8_0, Q4_0, Q4_K,
// Q5_K and Q6_K it is quantised to 8 bits with one scale per 32 and multiplied by kernels of ours, the same bits at
// every instruction set level (product_i8.h); for F32, F16 and BF16 it stays f32 (product_float.h). The other types use
// ggml's vec_dot, one row and one column at a time, which is its arithmetic for n = 1.
//
// Everything here is a pure function of its arguments and may run on any thread. ggml_cpu_init() must have been called
// in the process before: ggml's dot products read tables that it fills.
#ifndef PITH_CPU_PRODUCT_H
#define PITH_CPU_PRODUCT_H

#include <stddef.h>
#include <stdint.h>

#define PITH_PRODUCT_MAX_COLUMNS 64u

// Kernels work on this many rows at a time. A range of rows that is a multiple of it wastes nothing, and a range of
// many of them runs faster than as many small ones, since each set of rows fetches the next one's from memory.
#define PITH_PRODUCT_ROW_STEP 16

// A kernel for one weight type at the instruction set level in use. Constant and static: nothing to free.
typedef struct pith_product {
    int type;         // ggml's
    const char *name; // whose: "avx512", "avx2", "portable", or "ggml"
    // Bytes of one packed activation row of k elements, a multiple of 64.
    size_t (*packed_bytes)(const struct pith_product *, int64_t k);
    // Packs one activation row of k floats. `packed` starts on 64 bytes.
    void (*pack)(const struct pith_product *, const float *x, void *packed, int64_t k);
    // y[c * y_stride + r] for rows r in [r0, r1) and columns c in [0, n), n <= PITH_PRODUCT_MAX_COLUMNS. Row r of w
    // starts at w + r * row_bytes, on any byte; k is a multiple of the type's block. packed: n rows, packed_bytes
    // apart, packed by this kernel or one of the same pack. Reads nothing outside these rows.
    void (*rows)(const struct pith_product *, const void *w, size_t row_bytes, int64_t k, const void *packed,
                 uint32_t n, int64_t r0, int64_t r1, float *y, size_t y_stride);
} pith_product;

// The kernel for `type`, or NULL when ggml has no dot product for it. `disabled`: comma-separated levels not to use, as
// pith_cpu_kernels_choose takes them; may be NULL. Asks the CPU: call it once and keep the answer.
const pith_product *pith_product_for(int type, const char *disabled);

// A kernel that reads weights in an order of its own, without shuffling them and front to back as memory likes it. The
// numbers are those of the type's other kernel, bit for bit, and so are the packed activations.
typedef struct pith_arranged {
    // rows: w and row_bytes as said below, r0 a multiple of PITH_PRODUCT_ROW_STEP. It may read the whole step of rows
    // that r1 - 1 is one of.
    pith_product product;
    // Arranged weights: PITH_PRODUCT_ROW_STEP rows take as many times this, the last ones too when there are fewer. A
    // multiple of 4.
    size_t (*row_bytes)(int64_t k);
    // Arranges rows [r0, r1) of w, in the file's order with `w_row_bytes` a row, into a buffer for all rows that starts
    // on 64 bytes. r0 is a multiple of PITH_PRODUCT_ROW_STEP, r1 too unless it is the number of rows.
    void (*arrange)(const void *w, size_t w_row_bytes, int64_t k, int64_t r0, int64_t r1, void *out);
} pith_arranged;

// The same question as pith_product_for; NULL where no arrangement is faster.
const pith_arranged *pith_arranged_for(int type, const char *disabled);

// May two types share packed activations? (Q, K and V products share one packed row when their types allow.)
int pith_product_same_pack(const pith_product *a, const pith_product *b);

#endif
