// A recorded step: what forward.c asked for, as values that know how they are made, and the launches that make them.
//
// Recording is lazy. A norm, a product, a rotation are only noted; what reads them decides how they are computed: Q, K
// and V in one launch, gate and up in one with SwiGLU behind, the residual inside the product that is added to it. So
// forward.c stays one text for all backends, and each fusion is one function of plan.c.
#ifndef PITH_CUDA_PLAN_H
#define PITH_CUDA_PLAN_H

#include "cuda/device.h"

// Memory of a plan, rows of one thing each. n rows, padded where products of many rows want it.
typedef enum pith_place {
    PLACE_X,         // (n, D) f32: the residual, which begins as the embedded tokens
    PLACE_NORM,      // (n, D) 16 bits
    PLACE_QKV,       // (parts, n, (H + 2G) d) f32
    PLACE_Q,         // (n, H d) 16 bits, rotated
    PLACE_ATTENTION, // (n, H d) 16 bits
    PLACE_WIDE,      // (n, gate and up) f32, where they are not one launch with SwiGLU
    PLACE_SWIGLU,    // (n, F) 16 bits
    PLACE_PARTS,     // (parts, n, D) f32: what a product has for the residual, until a norm adds it (norm.h)
    PLACE_ANGLES,    // (n, n_rot) f32
    N_PLACES
} pith_place;

typedef enum pith_value_kind {
    VALUE_RESIDUAL,  // products are added to it in place
    VALUE_NORM,      // of a residual
    VALUE_PRODUCT,   // of a norm, an attention or a SwiGLU; never in memory by itself
    VALUE_HEAD_NORM, // of a product
    VALUE_ROPE,      // of a product or a head norm
    VALUE_ATTENTION,
    VALUE_SWIGLU // of two products
} pith_value_kind;

struct pith_value {
    pith_value_kind kind;
    struct pith_value *in, *in2; // what it is computed from; SWIGLU: gate and up
    struct pith_value *whole;    // of some rows of another value: that one; else itself
    const pith_weight *w, *bias;
    const pith_rope *rope;
    float eps;
    uint32_t width;   // elements of a row
    uint32_t row0, n; // rows, of its place
    bool made;        // NORM, SWIGLU: its launch is recorded
    bool halves;      // 16-bit kinds, of the whole: f16, else bf16; what reads it decides
};

typedef enum pith_launch_kind {
    LAUNCH_NORM,
    LAUNCH_PRODUCT, // up to three matrices of one type that multiply one value
    LAUNCH_SWIGLU,
    LAUNCH_APPEND,
    LAUNCH_ATTEND
} pith_launch_kind;

typedef struct pith_launch {
    pith_launch_kind kind;
    const pith_value *in;  // what is read: NORM, PRODUCT
    const pith_value *out; // what is made: NORM, SWIGLU, ATTEND, and a PRODUCT with SwiGLU
    // NORM; n_parts: of PLACE_PARTS, 0: nothing is added to the residual
    const float *norm;
    float eps;
    // PRODUCT: y of matrix i begins at column y_column[i] of its place, or is the step's logits.
    const pith_device_weight *w[PITH_CUDA_PRODUCT_MAX_MATRICES];
    const float *bias[PITH_CUDA_PRODUCT_MAX_MATRICES]; // (m) or NULL
    uint32_t n_matrices;
    pith_cuda_out to;
    uint32_t n_parts; // PARTS
    pith_place y;
    uint32_t y_column[PITH_CUDA_PRODUCT_MAX_MATRICES], y_stride;
    bool to_logits;
    // SWIGLU: gate at column 0 and up at column `up` of PLACE_WIDE, rows y_stride apart; `pair`: see gemm.h
    uint32_t up;
    bool pair;
    // APPEND
    uint32_t qkv_parts[3];
    const pith_rope *rope;
    const float *q_norm, *k_norm;
    float norm_eps;
    uint32_t layer; // ATTEND too
} pith_launch;

struct pith_plan {
    pith_cuda *cuda;
    pith_shape shape;
    uint32_t n_padded;  // rows of memory
    pith_value *values; // (cap_values)
    uint32_t n_values, cap_values;
    pith_launch *launches; // (cap_launches)
    uint32_t n_launches, cap_launches;
    const pith_weight *table;       // embedding
    uint32_t d_model, d_ff, d_wide; // D, F, columns of PLACE_WIDE
    uint32_t most_parts;            // of PLACE_QKV and PLACE_PARTS
    uint32_t pending;               // parts in PLACE_PARTS that no norm has added yet
    const pith_rope *rope;          // NULL: no rotation
    const float *factors;           // its frequency factors in device memory, or NULL
    size_t at[N_PLACES];            // offsets in cuda->values
    size_t pos, slot, seq;          // offsets of the step's (n) i32
    size_t input_bytes;             // what is copied from the host for a step: tables, pos, slot, seq, x
    uint64_t generation;
    cudaGraphExec_t graph;     // DECODE, from its first replay on
    const float *graph_logits; // that it writes
    const void *rows;          // of the embedding, on the host
    bool failed;
    pith_error error;
};

// Offsets of the inputs that all plans have in the same place: what the cache's kernels read about sequences.
typedef struct pith_tables {
    size_t window_q;   // (max_sequences) device pointers
    size_t window_cap; // (max_sequences) u32
    size_t n_rows;     // (max_sequences, n_lanes) i32
    size_t end;
} pith_tables;

// Is a product of that value one of many rows, by cuBLASLt?
static inline bool pith_cuda_is_many(const pith_plan *p, const pith_value *x) {
    return p->shape.cls == PITH_CLASS_PREFILL && x->n > PITH_CUDA_PRODUCT_MAX_TOKENS;
}

// replay.c
pith_tables pith_cuda_tables(const pith_cuda *);
pith_status pith_cuda_prepare(pith_plan *, pith_error *); // memory and algorithms that the launches need
void pith_cuda_warm(pith_plan *, float *logits); // captures a decode step
void pith_cuda_replay(pith_plan *, const pith_step *);
void pith_cuda_forget(pith_plan *); // the captured graph

#endif
