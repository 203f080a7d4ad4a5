// The CUDA backend's insides, shared by its host files.
//
// One stream, in which everything runs in the order in which it was asked for. A step's inputs are written into pinned
// memory, copied in one piece, and read by the kernels of the plan; the only wait of the host is for drawn tokens.
//
// The first error of the runtime is kept and later calls do nothing: ops.check hands it out after the step.
#ifndef PITH_CUDA_DEVICE_H
#define PITH_CUDA_DEVICE_H

#include <cuda_runtime_api.h>

#include "cuda/backend.h"
#include "cuda/cache.h"
#include "cuda/gemm.h"
#include "cuda/product.h"

enum {
    INPUT_BLOCKS = 2, // pinned copies of a step's inputs: one is filled while the other is on its way
    MAIL_SEGMENTS = 4,
    UPDATES = 4096,                // page list entries that one copy carries
    WORKSPACE_BYTES = 32 << 20,    // of cuBLASLt, as NVIDIA advises for Hopper
    SLAB_BYTES = 64 << 20,         // of quantised weights expanded for a product of many rows
    MEASURED_BYTES = 512 << 20,    // that are read to measure the memory: ten times what L2 holds
    MASS_SCRATCH_BYTES = 256 << 20 // of scores at work; layers take turns where it is too little
};

// A sequence's page lists on the device: entry `slot` of the tables.
struct pith_table {
    struct pith_cuda *cuda;
    uint32_t slot;
};

typedef struct pith_update { // of a page list
    uint32_t at;             // index into cuda->lists
    pith_page_id id;
} pith_update;

// A weight matrix in device memory, or a vector in f32 (type is then meaningless).
typedef struct pith_device_weight {
    const pith_weight *of, *pair; // pair: gate's rows lie between up's, see quant.h
    pith_cuda_type type;
    uint32_t m, k;
    void *data;
    struct pith_device_weight *next;
} pith_device_weight;

typedef struct pith_logits_block { // memory of logits_create
    float *device;                 // (n, V)
    float *host;                   // (n, V), made when somebody reads
    uint32_t n, n_vocab;
    struct pith_logits_block *next;
} pith_logits_block;

typedef struct pith_cuda {
    pith_backend base;
    pith_ops ops; // base.ops points here
    const pith_allocator *alloc;
    int device;
    char name[64], arch[16];      // the card's name; "sm_90"
    double read_bytes_per_second; // of its memory, measured when the backend is made; 0: no room to
    cudaStream_t stream;
    pith_geometry geo;
    pith_half type; // of the cache
    uint32_t max_rows, max_sequences, n_threads;
    cudaError_t failed; // the first error, and what was being done
    const char *failed_at;

    // Weights.
    pith_device_weight *weights;
    uint64_t converted_bytes, converted_from; // of tensors that became bf16, and what they take in the file
    uint32_t n_converted;
    uint8_t *embedding; // of a table without data, on the host: made when a plan first asks for it
    size_t embedding_bytes;
    const pith_weight *embedding_of;
    uint8_t *staging[3]; // host memory through which weights pass while they are loaded
    size_t staging_bytes[3];

    // Cache. The tables are indexed by slot.
    pith_cuda_cache cache;    // .base is NULL before pool_create
    pith_page_id *lists;      // device (max_sequences, n_lanes, cap_pages)
    pith_page_id *host_lists; // the same on the host
    int32_t *first;           // device (max_sequences, n_lanes): where a lane begins in the lists
    uint32_t cap_pages;
    bool *slot_taken;     // (max_sequences)
    pith_update *updates; // (UPDATES): the first n_updates wait, with .at alone
    uint32_t n_updates;

    // Small things on their way to the device: mail.c. Two rings, pinned and device memory, of MAIL_SEGMENTS segments.
    uint8_t *mail, *device_mail;
    cudaEvent_t mail_read[MAIL_SEGMENTS]; // what the segment held has been used
    size_t mail_segment_bytes, mail_at;   // the latter in its segment
    uint32_t mail_segment;

    // Inputs of a step, in pinned memory: replay.c. Both copies begin with the tables.
    uint8_t *inputs[INPUT_BLOCKS];
    cudaEvent_t copied[INPUT_BLOCKS];
    size_t input_bytes;
    uint32_t next_input;
    uint8_t *tables; // (pith_cuda_tables().end) what was last said of each sequence, also of those that sit a step out

    // Values of all plans, which run one at a time.
    uint8_t *values;
    size_t values_bytes;
    uint64_t generation; // counts its growths: older plans are stale
    void *attend_plan, *attend_parts;
    uint32_t cap_items, n_attend_blocks;
    pith_cuda_gemm *gemm;
    void *workspace, *slab; // made when the first plan needs them

    // Logits and draws.
    pith_logits_block *logits;
    pith_draw *draws; // pinned (max_sequences)
    int32_t *drawn;   // pinned (max_sequences)
    int32_t *ids;     // device (max_sequences)
    void *sample_scratch;

    // Compression: compress.c.
    uint32_t event_n, event_slots;
    void *event_memory;
    uint32_t *event_rows;  // (n_layers, G, event_n)
    uint32_t *event_keep;  // (n_layers, G, event_n)
    float *event_mass;     // (n_layers, H, event_n); then, as integers, the rows that stay
    float *event_score[2]; // (n_layers, G, event_n) each: aggregated, pooled
    void *mass_scratch;    // (mass_layers layers)
    uint32_t mass_layers;
    size_t event_mass_bytes;
    int32_t *positions; // device (max_rows)
} pith_cuda;

// device.c
// The backend, with its device current for the calling thread. The first thing of every operation: a thread may step an
// engine that another one made, and engines of several devices.
pith_cuda *pith_cuda_enter(pith_backend *);
// Notes an error; true when all is well, also with what went before.
bool pith_cuda_ok(pith_cuda *, cudaError_t, const char *doing);
// Device memory for `what`; NULL and PITH_E_MEMORY with bytes needed and bytes there.
void *pith_cuda_new(pith_cuda *, size_t bytes, const char *what, pith_error *err);
void *pith_cuda_pinned(pith_cuda *, size_t bytes, const char *what, pith_error *err);

// mail.c: device memory with a copy of `bytes` of `from`, for the launches until the next call. The host does not wait,
// unless the device is MAIL_SEGMENTS segments behind. bytes: at most mail_segment_bytes.
pith_status pith_cuda_begin_mail(pith_cuda *, pith_error *);
void pith_cuda_free_mail(pith_cuda *);
const void *pith_cuda_send(pith_cuda *, const void *from, size_t bytes);

// cache.c
pith_status pith_cuda_begin_cache(pith_cuda *, pith_error *);
void pith_cuda_free_cache(pith_cuda *);
void pith_cuda_flush_updates(pith_cuda *); // sends page list entries that wait
static inline size_t pith_cuda_window_floats(const pith_geometry *geo, uint32_t cap) { // of a window
    return (size_t)geo->n_layers * cap * geo->n_heads * geo->head_dim;
}

// weights.c: the device's copy, made when it is first asked for; NULL with *err filled. `halves`: an F16 matrix may
// stay F16, since everything that multiplies the same activations is F16.
const pith_device_weight *pith_cuda_load_matrix(pith_cuda *, const pith_weight *, const pith_weight *pair, bool halves,
                                                pith_error *);
pith_status pith_cuda_weights_fit(const pith_backend *, const pith_weight *, uint32_t n, const pith_weight *host,
                                  pith_error *); // an operation
const float *pith_cuda_load_vector(pith_cuda *, const pith_weight *, pith_error *);
bool pith_cuda_pairs(const pith_weight *gate, const pith_weight *up); // can they be packed as a pair?
void pith_cuda_free_staging(pith_cuda *);                             // when a plan has its weights
void pith_cuda_free_weights(pith_cuda *);
// The rows of an embedding table in host memory, as in the file; NULL with *err filled. Then row `id` of them in f32:
// out (ne[0]).
const void *pith_cuda_load_embedding(pith_cuda *, const pith_weight *table, pith_error *);
void pith_cuda_embed_row(const pith_weight *table, const void *rows, int32_t id, float *out);
void pith_cuda_free_embedding(pith_cuda *);

// The parts of the operation table, each filled by its file.
void pith_cuda_table_cache(pith_ops *);  // cache.c: pages, lists, windows
void pith_cuda_table_plan(pith_ops *);   // plan.c, replay.c: recording and replay
void pith_cuda_table_logits(pith_ops *); // logits.c: logits and draws
void pith_cuda_table_events(pith_ops *); // compress.c: the work around a compression

pith_status pith_cuda_begin_values(pith_cuda *, pith_error *);
void pith_cuda_free_values(pith_cuda *);
void pith_cuda_free_logits(pith_cuda *);
void pith_cuda_free_events(pith_cuda *);

#define PITH_CUDA_DO(cuda, call) pith_cuda_ok(cuda, (cuda)->failed ? (cuda)->failed : (call), #call)

#endif
