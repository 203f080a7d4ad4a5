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

enum { PITH_TENSOR_F16 = 1 }; // the one type that those above a backend must know

// One tensor of the model file. `type` is ggml's numbering of tensor types, which is also GGUF's.
//
// A matrix of a model without a file may have no data: the backend that runs it makes it in its own memory, from `seed`
// and `scale` (ops/random.h). The CPU's backend wants data.
typedef struct pith_weight {
    const char *name; // borrowed from the model
    int type;
    int64_t ne[4];    // ne[0] is the contiguous dimension: (ne[1], ne[0]) for a matrix
    const void *data; // mapped from the file; NULL: see above
    size_t bytes;
    uint64_t seed; // of a matrix without a file
    float scale;
} pith_weight;

// A backend's copy of a sequence's page lists, for kernels that cannot read the host's; NULL where there is none.
typedef struct pith_table pith_table;

// The sequence's recent post-RoPE queries, kept for the policy.
typedef struct pith_window {
    float *q;     // (n_layers, cap, H, d), the backend's memory
    uint32_t cap; // slots; 0 when the policy observes nothing
} pith_window;

// Consecutive tokens of one sequence inside a step. Before the step the cache has grown every lane by n_tokens rows;
// token t of the segment is row lane->n_rows - n_tokens + t of each lane, and sees the rows up to its own.
typedef struct pith_segment {
    const pith_lane *lanes; // (n_layers, G), borrowed
    const pith_table *table;
    const pith_window *window;
    uint32_t first; // index of its first token in the step
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
    float *logits; // (n_out, V) of logits_create, filled by the step
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

// Consecutive layers of one sequence that a compression handles at once: at most pith_ops.event_layers of them.
typedef struct pith_group {
    const pith_pages *pages;
    const pith_lane *lanes; // (n_layers, G) of these layers
    const pith_table *table;
    const pith_window *window; // of the whole sequence
    uint32_t layer, n_layers;  // [layer, layer + n_layers)
} pith_group;

// Candidates of a group, their scores, and which of them survive. Buffers are the backend's own memory and scratch,
// valid until the next candidates() call.
typedef struct pith_scores {
    uint32_t n_layers;
    uint32_t n;      // candidates per lane
    uint32_t n_sets; // rows of `score` in a layer: H after mass; 1 or G after aggregate
    uint32_t n_keep; // survivors in a set
    uint32_t *rows;  // (n_layers, G, n) the candidates' physical rows, ascending
    float *score;    // (n_layers, n_sets, n)
    uint32_t *keep;  // (n_layers, n_sets, n_keep) candidate indices, ascending
} pith_scores;

// Logical positions [begin, end).
typedef struct pith_span {
    int32_t begin, end;
} pith_span;

// Where the arithmetic of the authors' code differs from the text's: see policy/rpc.c.
typedef enum pith_arith {
    PITH_ARITH_F32,
    PITH_ARITH_BF16 // every tensor that PyTorch would hold in bf16 is rounded to bf16; pooling divides by the full
                    // width
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

// What a device says of itself: see pith_engine_info.
typedef struct pith_device_info {
    char name[64];
    char isa[16];
    uint64_t bytes_used, bytes_total;
    double read_bytes_per_second;
    char note[120];
} pith_device_info;

typedef struct pith_ops {
    const char *name;      // "cpu", "cuda"
    uint32_t event_layers; // layers that a compression handles at once

    void (*free)(pith_backend *);
    void (*describe)(const pith_backend *, pith_device_info *);
    // Bytes that a pool of pages may take when nobody says how many.
    uint64_t (*spare_bytes)(const pith_backend *);
    // NULL, or asked before the first plan, which makes the device's copies of these n weights: PITH_E_MEMORY, with the
    // bytes of all and the bytes that are there, if they cannot fit. `host`: one of them that no plan multiplies by, or
    // NULL.
    pith_status (*weights_fit)(const pith_backend *, const pith_weight *weights, uint32_t n, const pith_weight *host,
                               pith_error *);
    // Running operations do not fail one by one. Asked after each step: what a device has reported since it was made,
    // after which nothing that it computed can be believed.
    pith_status (*check)(const pith_backend *, pith_error *);
    // NULL, or returns when everything that was asked for is done. Nothing needs it but a clock.
    void (*wait)(pith_backend *);

    // ------------------------------------------------------------------------------ memory

    // Memory for `n` pages; contents unspecified. One pool per backend.
    pith_status (*pool_create)(pith_backend *, const pith_geometry *, uint32_t n, pith_pages *out, pith_error *);
    void (*pool_destroy)(pith_backend *, pith_pages *, uint32_t n);
    void (*page_copy)(pith_backend *, const pith_pages *, pith_page_id dst, pith_page_id src);

    // A table for lanes of up to cap_pages pages, which kv.c keeps equal to the lanes' lists: index `at` of lane `lane`
    // (of n_layers * G) is now page `id`. Entries behind a lane's last page mean nothing.
    pith_status (*table_create)(pith_backend *, const pith_geometry *, uint32_t cap_pages, pith_table **out,
                                pith_error *);
    void (*table_destroy)(pith_backend *, pith_table *);
    void (*table_set)(pith_table *, uint32_t lane, uint32_t at, pith_page_id id);

    // Zeroed memory of a window of `cap` slots, which may be 0; destroy takes a zeroed window too.
    pith_status (*window_create)(pith_backend *, const pith_geometry *, uint32_t cap, pith_window *out, pith_error *);
    void (*window_destroy)(pith_backend *, const pith_geometry *, pith_window *);
    void (*window_copy)(pith_backend *, const pith_geometry *, const pith_window *dst, const pith_window *src);

    // Memory of n rows of logits, (n, V). The pointers are for replay, sample and logits_read only.
    pith_status (*logits_create)(pith_backend *, uint32_t n, uint32_t n_vocab, float **out, pith_error *);
    void (*logits_destroy)(pith_backend *, float *logits, uint32_t n, uint32_t n_vocab);
    // The host's view of one row, valid until the next replay.
    const float *(*logits_read)(pith_backend *, const float *row, uint32_t n_vocab);

    // --------------------------------------------------------------------------------- recording

    pith_status (*plan_begin)(pith_backend *, const pith_geometry *, const pith_shape *, pith_plan **out, pith_error *);
    // Also reports what went wrong in the recording calls since plan_begin, which do not fail one by one: after a
    // failure they give NULL and take NULL. The plan is freed when this fails.
    pith_status (*plan_end)(pith_plan *, pith_error *);
    void (*plan_free)(pith_plan *);
    // Recording a larger plan may move memory that older plans point into: such a plan must be recorded again.
    bool (*plan_is_stale)(const pith_plan *);
    // NULL, or does for a decode plan whose steps write these logits what its first replay would have to do: then plans
    // are best made before anybody waits for a step.
    void (*plan_warm)(pith_plan *, float *logits);

    pith_value *(*embed)(pith_plan *, const pith_weight *table);                          // (V, D), ids -> (n, D)
    pith_value *(*rms_norm)(pith_plan *, pith_value *x, const pith_weight *w, float eps); // (n, D), (D) -> (n, D)
    pith_value *(*product)(pith_plan *, const pith_weight *w, pith_value *x, const pith_weight *bias);
    // (M, K), (n, K), (M) or NULL -> (n, M)
    pith_value *(*head_norm)(pith_plan *, pith_value *x, uint32_t d, const pith_weight *w, float eps);
    // RMS norm of each head: (n, h*d), (d) -> (n, h*d)
    pith_value *(*rope)(pith_plan *, pith_value *x, uint32_t d, const pith_rope *); // (n, h*d) -> (n, h*d)
    pith_value *(*add)(pith_plan *, pith_value *a, pith_value *b);
    pith_value *(*swiglu)(pith_plan *, pith_value *gate, pith_value *up); // silu(gate) * up
    pith_value *(*pick_out)(pith_plan *, pith_value *x); // the rows whose logits are wanted: (n_out, D)

    // (V, D), (n_out, D) -> the step's logits. The last call of a plan that has any; its arithmetic is that of a decode
    // row in both classes.
    void (*logits)(pith_plan *, const pith_weight *w, pith_value *x);

    // Writes k (n, G*d) and v (n, G*d) with their positions into the layer's lanes, and q (n, H*d) into the windows;
    // then attends: (n, H*d). Softmax of q.k/sqrt(d) over the rows a token sees, times V.
    pith_value *(*attend)(pith_plan *, uint32_t layer, pith_value *q, pith_value *k, pith_value *v);

    // ----------------------------------------------------------------------------------- running

    void (*replay)(pith_plan *, const pith_step *);

    // ids (n): a token for each of n rows of logits, drawn as draws (n) say. A row may be named more than once. Needs
    // sample_reserve once, for as many rows and that vocabulary.
    pith_status (*sample_reserve)(pith_backend *, uint32_t n, uint32_t n_vocab, pith_error *);
    void (*sample)(pith_backend *, const float *const *rows, const pith_draw *draws, uint32_t n, uint32_t n_vocab,
                   int32_t *ids);

    // ------------------------------------------------------------------------------- compression

    // Room for the events of one group with up to n candidates per lane and n_slots queries; called at admission, so
    // that the calls below cannot fail. Grows only.
    pith_status (*events_reserve)(pith_backend *, const pith_geometry *, uint32_t n, uint32_t n_slots, pith_error *);

    // The rows of each of the group's lanes whose position is in no span of `protect` (n_protect spans, ascending,
    // every position of which has a row), less the last n_tail of them. Every lane has as many rows as the others: the
    // caller's invariant.
    void (*candidates)(pith_backend *, const pith_group *, const pith_span *protect, uint32_t n_protect,
                       uint32_t n_tail, pith_scores *out);

    // score[h][j] = sum over slots (in the order given, repetitions count) of softmax over the candidates of
    // q[slot][h].k[row j] / sqrt(d), with the queries of the group's window. F32: as the backend's attention takes a
    // query, in f32 on the CPU, rounded to the cache's type on CUDA.
    void (*mass)(pith_backend *, const pith_group *, const uint32_t *slots, uint32_t n_slots, pith_arith,
                 pith_scores *);

    // LAYER: mean over all H, one set. GROUP: mean over the g heads of each KV head, G sets. HEAD: maximum over them.
    void (*aggregate)(pith_backend *, const pith_geometry *, pith_aggregate, pith_arith, pith_scores *);

    // 1-D pooling over the candidates in their order, odd width, stride 1. Averages divide by the entries inside the
    // range (F32) or always by the width (BF16).
    void (*pool)(pith_backend *, pith_pool, uint32_t width, pith_arith, pith_scores *);

    // The n_keep best of each set survive, ties to the lower row, n_keep <= n.
    void (*top)(pith_backend *, pith_scores *, uint32_t n_keep);
    // These survive: keep (n_layers, n_sets, n_keep) in the host's memory, ascending, n_sets 1 or G.
    void (*choose)(pith_backend *, pith_scores *, uint32_t n_sets, uint32_t n_keep, const uint32_t *keep);

    // Moves the rows that are no candidates and the surviving candidates of each lane down, in place and in their
    // order, over those that do not survive. The lanes' n_rows and lists do not change here. Only kv.c calls this.
    void (*compact)(pith_backend *, const pith_group *, const pith_scores *);

    // out: the logical positions of the rows of one of the group's lanes (of n_layers * G).
    void (*positions)(pith_backend *, const pith_group *, uint32_t lane, int32_t *out);
} pith_ops;

struct pith_backend {
    const pith_ops *ops; // every backend starts with its table
};

#endif
