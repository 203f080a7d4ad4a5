// The operation table: everything that the forward pass, the cache and the policies ask of a device.
//
// Two kinds of operations. *Recording* ones describe a step: they are called once per plan, in the order of the
// transformer, and only build it. *Running* ones act at once: replay a plan with a step's inputs, and the work around a
// compression. forward.c knows the first kind, kv.c and the policies the second; nobody above knows a device.
//
// Shapes are written (slowest, ..., fastest), so (n, D) is n rows of D contiguous floats. Glossary: n tokens of the
// step, D model size, H query heads, G KV heads, g = H/G, d head size, F ffn size, V vocabulary.
//
// Rounding: activations are f32. K and V are rounded to the cache's type by append, to nearest even. Sums that select
// (mass, pooling, aggregation) are f32.
//
// A row's arithmetic depends on its class (decode or prefill) and never on its neighbours, its place among them or the
// number of threads.
#ifndef PITH_OPS_H
#define PITH_OPS_H

#include "base/status.h"
#include "ops/page.h"

// One tensor of the model file. `type` is ggml's numbering of tensor types, which is also GGUF's.
typedef struct pith_weight {
    const char *name; // borrowed from the model
    int type;
    int64_t ne[4];    // ne[0] is the contiguous dimension: (ne[1], ne[0]) for a matrix
    const void *data; // mapped from the file
    size_t bytes;
} pith_weight;

// The sequence's recent post-RoPE queries, kept for the policy.
typedef struct pith_window {
    float *q;     // (n_layers, cap, H, d)
    uint32_t cap; // slots; 0 when the policy observes nothing
} pith_window;

// Consecutive tokens of one sequence inside a step. Before the step the cache has grown every lane by n_tokens rows;
// token t of the segment is row lane->n_rows - n_tokens + t of each lane, and sees the rows up to its own.
typedef struct pith_segment {
    const pith_lane *lanes; // (n_layers, G), borrowed
    const pith_window *window;
    uint32_t first;    // index of its first token in the step
    uint32_t n_tokens;
} pith_segment;

// A plan's shape. DECODE: n_tokens segments of one token each. PREFILL: one segment of n_tokens tokens.
typedef enum pith_class { PITH_CLASS_DECODE, PITH_CLASS_PREFILL } pith_class;
typedef struct pith_shape {
    pith_class cls;
    uint32_t n_tokens;
    uint32_t n_out; // rows of logits: n_tokens for DECODE; 0 or 1 (the last token's) for PREFILL
} pith_shape;

// What changes from step to step.
typedef struct pith_step {
    const int32_t *ids;  // (n) token ids
    const int32_t *pos;  // (n) logical positions
    const int32_t *slot; // (n) slot of the segment's window that takes this token's query, -1: not observed
    const pith_segment *segments;
    uint32_t n_segments;
    float *logits; // (n_out, V) filled by the step
} pith_step;

// Rotary embedding, in the terms of YaRN (arXiv 2309.00071); plain RoPE is freq_scale 1, ext_factor 0, attn_factor 1.
typedef struct pith_rope {
    bool neox;      // pairs (i, i + n_rot/2) as in Qwen2; else (2i, 2i+1) as in GGUF's Llama
    uint32_t n_rot; // rotated elements of a head, from the first
    float base;
    float freq_scale; // 1/factor for linear and YaRN scaling
    float ext_factor; // 1 for YaRN
    float attn_factor;
    float beta_fast, beta_slow;
    uint32_t n_ctx_orig;
    const pith_weight *factors; // (n_rot/2) f32 divisors per frequency (Llama 3), or NULL
} pith_rope;

typedef struct pith_backend pith_backend;
typedef struct pith_plan pith_plan;
typedef struct pith_value pith_value; // (n, something) f32 inside a plan that is being recorded

// How weights of a window's queries over the candidates become one number per candidate.
typedef enum pith_aggregate { PITH_AGG_LAYER, PITH_AGG_GROUP, PITH_AGG_HEAD } pith_aggregate;
typedef enum pith_pool { PITH_POOL_NONE, PITH_POOL_AVG, PITH_POOL_MAX } pith_pool;

// Scores of one layer's candidates. Buffers are the backend's scratch, valid until the next candidates() call.
typedef struct pith_scores {
    uint32_t n;         // candidates per lane
    uint32_t n_sets;    // rows of `score`: H after mass; 1 or G after aggregate
    uint32_t *rows;     // (G, n) the candidates' physical rows, ascending
    float *score;       // (n_sets, n)
} pith_scores;

// Logical positions [begin, end).
typedef struct pith_span {
    int32_t begin, end;
} pith_span;

// Where the arithmetic of the authors' code differs from the text's: see policy/rpc.c.
typedef enum pith_arith {
    PITH_ARITH_F32,
    PITH_ARITH_BF16 // every tensor that PyTorch would hold in bf16 is rounded to bf16; pooling divides by the full width
} pith_arith;

// One draw from a distribution of logits: temperature, then top-k, top-p, min-p. temperature 0 is the largest logit,
// the lowest id on ties; top_k 0, top_p 1, min_p 0 are off.
typedef struct pith_draw {
    float temperature;
    uint32_t top_k;
    float top_p;
    float min_p;
    double uniform; // the random number, in [0, 1)
} pith_draw;

typedef struct pith_ops {
    const char *name; // "cpu"

    void (*free)(pith_backend *);
    const char *(*isa)(const pith_backend *); // level of own kernels in use

    // ------------------------------------------------------------------------------ memory of pages

    // Memory for `n` pages; contents unspecified. One pool per backend.
    pith_status (*pool_create)(pith_backend *, const pith_geometry *, uint32_t n, pith_pages *out, pith_error *);
    void (*pool_destroy)(pith_backend *, pith_pages *, uint32_t n);
    void (*page_copy)(pith_backend *, const pith_pages *, pith_page_id dst, pith_page_id src);

    // --------------------------------------------------------------------------------- recording

    pith_status (*plan_begin)(pith_backend *, const pith_geometry *, const pith_shape *, pith_plan **out, pith_error *);
    // Also reports what went wrong in the recording calls since plan_begin, which do not fail one by one: after a
    // failure they give NULL and take NULL. The plan is freed when this fails.
    pith_status (*plan_end)(pith_plan *, pith_error *);
    void (*plan_free)(pith_plan *);
    // Recording a larger plan may move memory that older plans point into: such a plan must be recorded again.
    bool (*plan_is_stale)(const pith_plan *);

    pith_value *(*embed)(pith_plan *, const pith_weight *table);                            // (V, D), ids -> (n, D)
    pith_value *(*rms_norm)(pith_plan *, pith_value *x, const pith_weight *w, float eps);   // (n, D), (D) -> (n, D)
    pith_value *(*product)(pith_plan *, const pith_weight *w, pith_value *x, const pith_weight *bias);
                                                              // (M, K), (n, K), (M) or NULL -> (n, M)
    pith_value *(*head_norm)(pith_plan *, pith_value *x, uint32_t d, const pith_weight *w, float eps);
                                                              // RMS norm of each head: (n, h*d), (d) -> (n, h*d)
    pith_value *(*rope)(pith_plan *, pith_value *x, uint32_t d, const pith_rope *);         // (n, h*d) -> (n, h*d)
    pith_value *(*add)(pith_plan *, pith_value *a, pith_value *b);
    pith_value *(*swiglu)(pith_plan *, pith_value *gate, pith_value *up); // silu(gate) * up
    pith_value *(*pick_out)(pith_plan *, pith_value *x);                  // the rows whose logits are wanted: (n_out, D)

    // (V, D), (n_out, D) -> the step's logits. The last call of a plan that has any; its arithmetic is that of a decode
    // row in both classes.
    void (*logits)(pith_plan *, const pith_weight *w, pith_value *x);

    // Writes k (n, G*d) and v (n, G*d) with their positions into the layer's lanes, and q (n, H*d) into the windows;
    // then attends: (n, H*d). Softmax of q.k/sqrt(d) over the rows a token sees, times V.
    pith_value *(*attend)(pith_plan *, uint32_t layer, pith_value *q, pith_value *k, pith_value *v);

    // ----------------------------------------------------------------------------------- running

    void (*replay)(pith_plan *, const pith_step *);

    // A token of n from its logits. Needs sample_reserve(n) once.
    pith_status (*sample_reserve)(pith_backend *, uint32_t n, pith_error *);
    int32_t (*sample)(pith_backend *, const float *logits, uint32_t n, const pith_draw *);

    // Room for the events of one layer with up to n candidates per lane, n_rows rows and n_slots queries; called at
    // admission, so that the calls below cannot fail. Grows only.
    pith_status (*events_reserve)(pith_backend *, const pith_geometry *, uint32_t n, uint32_t n_slots, pith_error *);

    // The rows of each of the layer's G lanes whose position is in no span of `protect` (n_protect spans, ascending),
    // less the last n_tail of them. Every lane must have the same number: the caller's invariant.
    void (*candidates)(pith_backend *, const pith_pages *, const pith_lane *lanes, const pith_span *protect,
                       uint32_t n_protect, uint32_t n_tail, pith_scores *out);

    // score[h][j] = sum over slots (in the order given, repetitions count) of softmax over the candidates of
    // q[slot][h].k[row j] / sqrt(d). `q` is the layer's part of the window: (cap, H, d).
    void (*mass)(pith_backend *, const pith_pages *, const pith_lane *lanes, const float *q, const uint32_t *slots,
                 uint32_t n_slots, pith_arith, pith_scores *);

    // LAYER: mean over all H, one set. GROUP: mean over the g heads of each KV head, G sets. HEAD: maximum over them.
    void (*aggregate)(pith_backend *, const pith_geometry *, pith_aggregate, pith_arith, pith_scores *);

    // 1-D pooling over the candidates in their order, odd width, stride 1. Averages divide by the entries inside the
    // range (F32) or always by the width (BF16).
    void (*pool)(pith_backend *, pith_pool, uint32_t width, pith_arith, pith_scores *);

    // The k best of each set, ties to the lower row, k <= n: keep[set] gets k candidate indices, ascending.
    // keep is (n_sets, k).
    void (*top)(pith_backend *, const pith_scores *, uint32_t k, uint32_t *keep);

    // Moves row rows[i] of the lane to row first + i, i < n, in place. rows ascending, rows[i] >= first + i. The lane's
    // n_rows does not change here. Only kv.c calls this.
    void (*compact)(pith_backend *, const pith_pages *, const pith_lane *, uint32_t first, const uint32_t *rows,
                    uint32_t n);
} pith_ops;

struct pith_backend {
    const pith_ops *ops; // every backend starts with its table
};

#endif
