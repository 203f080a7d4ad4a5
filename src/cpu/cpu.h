// The CPU backend's insides, shared by its files.
//
// A plan is a ggml graph. What touches the cache is a custom node of ours (attend_node.c), and so is most of a decode
// step: between two nodes all threads wait for one another, so a step has as few of them as it can, five a layer for
// one sequence. Products of one input are one node (product_node.c), which also adds the residual stream; norms and
// activations are a part of packing a product's input (inputs.c), rotation and append of attention. The rest, and
// everything else in prefill, are ggml's nodes. Values of all plans lie in one compute buffer, since plans run one at a
// time.
#ifndef PITH_CPU_CPU_H
#define PITH_CPU_CPU_H

#include <stdatomic.h>

#include "cpu/backend.h"
#include "cpu/events.h"
#include "cpu/kernels.h"
#include "cpu/product.h"
#include "cpu/threads.h"
#include "ggml-alloc.h"
#include "ggml-cpu.h"
#include "ggml.h"

enum {
    PREFILL_QUERY_ROWS = 32, // query rows that share one pass over a page in prefill
    MAX_TYPES = 64,          // more than ggml has tensor types
    MOST_JOINT = 3,          // products that are one node: Q, K and V
    SPLIT_PER_THREAD = 4,    // lanes of a step, at most, when their parts go to different threads
    SRC_RESIDUAL = 2,        // a product node's sources: its input, packed or of up to two tensors, and what is added
};

// Attention's scratch of one thread, for up to n_rows query rows.
typedef struct pith_cpu_scratch {
    float *q;             // (n_rows, d), multiplied by 1/sqrt(d)
    uint32_t *n_seen;     // (n_rows)
    pith_partial sum;     // the merged parts
    pith_partial part;    // the part just read
    float *work;          // pith_attend_scratch(n_rows)
} pith_cpu_scratch;

// A weight matrix as a decode product reads it.
typedef struct pith_matrix {
    const pith_product *product; // NULL: there is none for its type
    const uint8_t *data;         // row r, a multiple of PITH_PRODUCT_ROW_STEP, starts at data + r * row_bytes
    size_t row_bytes;
    int64_t m, k; // rows, columns
} pith_matrix;

// Copies of weights in an order that reads faster. weights.c
typedef struct pith_cpu_copy {
    const pith_weight *of;
    const uint8_t *data;
} pith_cpu_copy;
typedef struct pith_cpu_weights {
    uint8_t *base; // all copies; NULL: there can be none
    size_t bytes, used;
    pith_cpu_copy *copies; // (cap)
    uint32_t n, cap;
} pith_cpu_weights;

typedef struct pith_cpu {
    pith_backend base;
    pith_ops ops; // base.ops points here
    const pith_allocator *alloc;
    const pith_cpu_kernels *kernels;
    const pith_product *products[MAX_TYPES]; // by ggml type, NULL where there is none
    const pith_arranged *arranged[MAX_TYPES]; // the same
    pith_cpu_weights weights;
    pith_threads threads;

    struct ggml_gallocr *values; // the compute buffer of all plans
    size_t values_bytes;         // its size when the last plan was recorded: when it grows, older plans are stale
    uint64_t generation;         // counts those growths
    uint8_t *work;               // ggml's work buffer, (work_bytes)
    size_t work_bytes;

    pith_pages pages; // the pool's memory

    uint8_t *scratch_memory; // all threads' attention scratch
    size_t scratch_bytes;
    pith_cpu_scratch scratch[PITH_MAX_THREADS];
    // Parts of long lanes that several threads read at once: (max_split_tasks * max_parts) partials of g rows.
    uint8_t *split_memory;
    size_t split_bytes;
    uint32_t max_parts;
    atomic_uint split_read[SPLIT_PER_THREAD * PITH_MAX_THREADS]; // parts read of each such lane; 0 between nodes
    pith_geometry geo;

    // One custom node that runs any job of ours on the step's threads.
    struct ggml_context *job_ctx;
    struct ggml_cgraph *job_graph;
    void (*job_fn)(struct pith_cpu *, int thread, uint32_t task, void *arg);
    void *job_arg;
    uint32_t job_tasks;
    atomic_uint job_next;

    // events_reserve
    uint32_t max_rows; // of a lane
    uint32_t event_n, event_slots;
    uint8_t *event_memory;
    size_t event_bytes;
    uint32_t *event_rows;  // (G, event_n)
    float *event_score;    // (H, event_n)
    uint32_t *event_keep;  // (G, event_n)
    uint32_t *event_moves; // (max_rows)
    float *event_work;     // (threads, event_work_floats)
    size_t event_work_floats;
    uint32_t *event_u32;   // (threads, event_n)

    void *sample_memory; // sample_reserve
    size_t sample_bytes;
} pith_cpu;

// One of the products that are a node.
typedef struct pith_joint {
    pith_matrix matrix;
    const float *bias; // (M) or NULL
    int64_t first;     // its first row among those of all, each matrix taking up a multiple of PITH_PRODUCT_ROW_STEP
    size_t y;          // where its results (n, M) begin in the node's, in floats
} pith_joint;

// What a custom node of ours needs beside its source tensors.
typedef struct pith_node {
    struct pith_plan *plan;
    struct pith_node *pack;       // PRODUCT: the node that each thread packs its input like; NULL: src 0 is packed
    const pith_product *product;  // PACK
    const float *norm;            // PACK: (K) weights of a norm in front, or NULL
    float eps;                    // PACK, ATTEND: of norms
    uint32_t n;                   // PACK, PRODUCT: columns
    size_t packed_bytes;          // PACK, PRODUCT: of one column
    pith_joint joint[MOST_JOINT]; // PRODUCT: (n_joint)
    uint32_t n_joint;
    int64_t m;                    // PRODUCT: rows of all
    struct pith_node *then;       // PRODUCT, ATTEND: the plan's next product, NULL when it was the last
    bool to_step;                 // PRODUCT: write into the step's logits
    uint32_t layer;               // APPEND, ATTEND
    const float *q_norm, *k_norm; // ATTEND in decode: (d) weights of the heads' norms, or NULL
    uint32_t n_rot;               // the same: rotated elements of a head
    bool neox;                    // the same: pairs are (i, i + n_rot/2), else (2i, 2i+1)
    atomic_uint next;             // next task to be claimed; 0 before a replay
} pith_node;

struct pith_plan {
    pith_cpu *cpu;
    pith_geometry geo;
    pith_shape shape;
    struct ggml_context *ctx;
    struct ggml_cgraph *graph;
    uint8_t *ctx_memory;
    size_t ctx_bytes;
    pith_node *nodes; // (cap_nodes)
    uint32_t n_nodes, cap_nodes;
    struct ggml_tensor *ids, *pos, *out; // inputs: (n), (n), (n_out)
    // The last product of a decode plan, which others of the same input join: Q, K and V are one, gate and up another.
    struct ggml_tensor *product_of, *product;
    pith_node *product_node;
    const pith_product *pack_by;
    pith_node *unlinked[2]; // the last product and the last attend, until the next product is known
    int32_t *inputs; // memory of ids, pos and out
    // Decode: unit vectors (n, n_rot), a 1 where a pair's first element is, rotated once in a step for all its layers.
    float *units;
    struct ggml_tensor *angles; // those of `rope`, NULL before the first
    const pith_rope *rope;
    const pith_step *step; // during replay
    uint64_t generation;
    size_t pack_bytes; // most bytes that a thread needs for an input of its own
    size_t work_bytes;
    bool failed;
    pith_error error;
};

// Sizes that allocation and use share.
static inline uint32_t pith_cpu_prefill_block(uint32_t g) { // tokens
    return g < PREFILL_QUERY_ROWS ? PREFILL_QUERY_ROWS / g : 1;
}
static inline uint32_t pith_cpu_split_tasks(const pith_cpu *cpu) { // (sequence, KV head)s
    return SPLIT_PER_THREAD * cpu->threads.max;
}
static inline size_t pith_cpu_partial_floats(uint32_t n_q, uint32_t d) { // acc, m, l; a multiple of a cache line
    return ((size_t)n_q * d + 2 * (size_t)n_q + 15) / 16 * 16;
}

// The graph that pith_cpu_run needs; false: no memory.
bool pith_cpu_job_create(pith_cpu *);

// Runs fn for every task in [0, n) on the step's threads. Bodies on different tasks must not depend on one another.
void pith_cpu_run(pith_cpu *, uint32_t n, void (*fn)(pith_cpu *, int thread, uint32_t task, void *arg), void *arg);

// run.c: one ggml graph on the threads that a step may use. `adaptive`: let the governor choose and learn.
void pith_cpu_compute(pith_cpu *, struct ggml_cgraph *, bool adaptive);

// weights.c: how a decode product reads a weight. Makes the copy that it reads, where there is to be one and none yet:
// not to be called during a replay. The weight must outlive the backend.
bool pith_cpu_weights_init(pith_cpu *); // false: no memory
void pith_cpu_weights_free(pith_cpu *);
pith_matrix pith_cpu_matrix(pith_cpu *, const pith_weight *);

// inputs.c: bytes of a packing node's result, or of a thread's room for a single column, for columns of k activations.
size_t pith_cpu_input_bytes(const pith_node *pack, int64_t k);
// y = x / sqrt(mean of x^2 + eps) * w, for k elements.
void pith_cpu_norm(const float *x, const float *w, float eps, int64_t k, float *y);
// The one column of a product, packed by thread ith for itself: until the node ends.
const uint8_t *pith_cpu_pack_own(const pith_node *pack, const struct ggml_tensor *x, const struct ggml_tensor *up,
                                 int ith);

// product_node.c: the first bytes that a thread will read of a product, at most `most`: of the one matrix that its
// first row is in.
pith_stream pith_cpu_first_bytes(const pith_node *product, int ith, int nth, size_t most);

// Bodies of the custom nodes.
void pith_node_pack(struct ggml_tensor *dst, int ith, int nth, void *userdata);    // inputs.c
void pith_node_product(struct ggml_tensor *dst, int ith, int nth, void *userdata); // product_node.c
void pith_node_decode(struct ggml_tensor *dst, int ith, int nth, void *userdata);  // attend_node.c
void pith_node_append(struct ggml_tensor *dst, int ith, int nth, void *userdata);
void pith_node_prefill(struct ggml_tensor *dst, int ith, int nth, void *userdata);

// The parts of the operation table, each filled by its file.
void pith_cpu_table_plan(pith_ops *);   // plan.c: recording and replay
void pith_cpu_table_events(pith_ops *); // compress.c: the work around a compression

static inline uint8_t *pith_align64(void *p) { return (uint8_t *)(((uintptr_t)p + 63) & ~(uintptr_t)63); }

#endif
