// Replay: a step's inputs go to the device in one piece, then the plan's launches run, for a decode step as one
// captured graph.
#include <string.h>

#include "base/mem.h"
#include "base/status.h"
#include "cuda/append.h"
#include "cuda/attend_decode.h"
#include "cuda/attend_prefill.h"
#include "cuda/norm.h"
#include "cuda/plan.h"

enum { ALIGN = 256 };

// ------------------------------------------------------------------------------------------------------- memory

static size_t lay(size_t *at, size_t bytes) {
    const size_t begin = *at;
    *at += (bytes + ALIGN - 1) / ALIGN * ALIGN;
    return begin;
}

pith_tables pith_cuda_tables(const pith_cuda *cuda) {
    pith_tables t;
    size_t at = 0;
    t.window_q = lay(&at, cuda->max_sequences * sizeof(float *));
    t.window_cap = lay(&at, cuda->max_sequences * sizeof(uint32_t));
    t.n_rows = lay(&at, (size_t)cuda->max_sequences * pith_n_lanes(&cuda->geo) * sizeof(int32_t));
    t.end = at;
    return t;
}

static size_t lay_out(pith_plan *p) {
    const pith_geometry *geo = &p->cuda->geo;
    const size_t n = p->n_padded, d = geo->head_dim, heads = geo->n_heads, kv = geo->n_kv_heads;
    size_t at = pith_cuda_tables(p->cuda).end;
    p->pos = lay(&at, n * sizeof(int32_t));
    p->slot = lay(&at, n * sizeof(int32_t));
    p->seq = lay(&at, n * sizeof(int32_t));
    p->at[PLACE_X] = lay(&at, n * p->d_model * sizeof(float));
    p->input_bytes = at;
    p->at[PLACE_NORM] = lay(&at, n * p->d_model * sizeof(uint16_t));
    p->at[PLACE_QKV] = lay(&at, p->most_parts * n * (heads + 2 * kv) * d * sizeof(float));
    p->at[PLACE_PARTS] = lay(&at, p->most_parts * n * p->d_model * sizeof(float));
    p->at[PLACE_Q] = lay(&at, n * heads * d * sizeof(uint16_t));
    p->at[PLACE_ATTENTION] = lay(&at, n * heads * d * sizeof(uint16_t));
    p->at[PLACE_WIDE] = lay(&at, n * p->d_wide * sizeof(float));
    p->at[PLACE_SWIGLU] = lay(&at, n * p->d_ff * sizeof(uint16_t));
    p->at[PLACE_ANGLES] = lay(&at, n * (p->rope ? p->rope->n_rot : 0) * sizeof(float));
    return at;
}

// Larger values for all plans: those that were recorded before point into memory that is gone.
static pith_status grow(pith_cuda *cuda, size_t values, size_t inputs, pith_error *err) {
    if (values > cuda->values_bytes) {
        uint8_t *memory = pith_cuda_new(cuda, values, "the values of a step", err);
        if (!memory) return PITH_E_MEMORY;
        cudaFree(cuda->values); // waits for what still runs
        cuda->values = memory, cuda->values_bytes = values;
        cuda->generation++;
        cuda->cache.n_rows = (const int32_t *)(const void *)(memory + pith_cuda_tables(cuda).n_rows);
        // Products of many rows read padding too, whatever it holds; a tool that looks for unset memory should not.
        PITH_CUDA_DO(cuda, cudaMemsetAsync(memory, 0, values, cuda->stream));
    }
    if (inputs > cuda->input_bytes) {
        PITH_CUDA_DO(cuda, cudaStreamSynchronize(cuda->stream));
        for (uint32_t i = 0; i < INPUT_BLOCKS; i++) {
            uint8_t *memory = pith_cuda_pinned(cuda, inputs, "the inputs of a step", err);
            if (!memory) return PITH_E_MEMORY;
            cudaFreeHost(cuda->inputs[i]);
            cuda->inputs[i] = memory;
        }
        cuda->input_bytes = inputs;
    }
    return cuda->base.ops->check(&cuda->base, err);
}

pith_status pith_cuda_begin_values(pith_cuda *cuda, pith_error *err) {
    const pith_geometry *geo = &cuda->geo;
    cuda->tables = pith_new(cuda->alloc, pith_cuda_tables(cuda).end, 1);
    if (!cuda->tables) return pith_fail(err, PITH_E_MEMORY, "no memory for the inputs of a step");
    PITH_CUDA_DO(cuda, pith_cuda_attend_blocks(geo, cuda->type, &cuda->n_attend_blocks));
    PITH_CUDA_DO(cuda, pith_cuda_attend_prefill_init(geo, cuda->type));
    for (uint32_t i = 0; i < INPUT_BLOCKS; i++)
        PITH_CUDA_DO(cuda, cudaEventCreateWithFlags(&cuda->copied[i], cudaEventDisableTiming));
    cuda->cap_items = pith_cuda_attend_items(geo, cuda->max_sequences, cuda->max_rows);
    if (!(cuda->attend_plan =
              pith_cuda_new(cuda, pith_cuda_attend_plan_bytes(geo, cuda->cap_items), "attention", err)) ||
        !(cuda->attend_parts =
              pith_cuda_new(cuda, pith_cuda_attend_parts_bytes(geo, cuda->cap_items), "attention", err)))
        return PITH_E_MEMORY;
    PITH_CUDA_DO(cuda, pith_cuda_attend_reset(cuda->attend_parts, cuda->stream));
    return cuda->base.ops->check(&cuda->base, err);
}

void pith_cuda_free_values(pith_cuda *cuda) {
    pith_delete(cuda->alloc, cuda->tables, pith_cuda_tables(cuda).end, 1);
    cudaFree(cuda->values);
    cudaFree(cuda->attend_plan);
    cudaFree(cuda->attend_parts);
    cudaFree(cuda->workspace);
    cudaFree(cuda->slab);
    for (uint32_t i = 0; i < INPUT_BLOCKS; i++) {
        cudaFreeHost(cuda->inputs[i]);
        if (cuda->copied[i]) cudaEventDestroy(cuda->copied[i]);
    }
    pith_cuda_gemm_free(cuda->gemm);
}

// ---------------------------------------------------------------------------------------------- products of many rows

typedef struct slab { // rows of a matrix that are multiplied at once
    pith_cuda_gemm_shape shape;
    uint32_t row0;
} slab;

// Rows that the matrix has in memory: a pair's are those of both, padded.
static uint32_t rows_of(const pith_device_weight *w) {
    return w->pair ? (w->m + PITH_SLAB / 2 - 1) / (PITH_SLAB / 2) * PITH_SLAB : w->m;
}

// The i-th slab of matrix j of a launch; false behind the last. What is not packed is one slab.
static bool slab_of(const pith_plan *p, const pith_launch *l, uint32_t j, uint32_t i, slab *out) {
    const pith_device_weight *w = l->w[j];
    const uint32_t m = rows_of(w);
    uint32_t at_once = m;
    if (pith_quant_layout_of(w->type).block) {
        at_once = SLAB_BYTES / (w->k * 2) / PITH_SLAB * PITH_SLAB;
        if (at_once == 0) at_once = PITH_SLAB;
    }
    out->row0 = i * at_once;
    if (out->row0 >= m) return false;
    out->shape = (pith_cuda_gemm_shape){.m = m - out->row0 < at_once ? m - out->row0 : at_once,
                                        .k = w->k,
                                        .n = p->n_padded,
                                        .y_stride = l->y_stride,
                                        .f16 = w->type == PITH_CUDA_F16,
                                        .out = l->to};
    return true;
}

static pith_status prepare_gemm(pith_plan *p, pith_error *err) {
    pith_cuda *cuda = p->cuda;
    for (uint32_t at = 0; at < p->n_launches; at++) {
        const pith_launch *l = &p->launches[at];
        if (l->kind != LAUNCH_PRODUCT || !pith_cuda_is_many(p, l->in)) continue;
        if (!cuda->gemm) {
            if (!(cuda->workspace = pith_cuda_new(cuda, WORKSPACE_BYTES, "products", err)) ||
                !(cuda->slab = pith_cuda_new(cuda, SLAB_BYTES, "products", err)))
                return PITH_E_MEMORY;
            const cudaError_t e = pith_cuda_gemm_create(&cuda->gemm);
            if (e)
                return pith_fail(err, PITH_E_UNSUPPORTED, "cuda:%d: cuBLASLt is missing, too old, or has no memory",
                                 cuda->device);
        }
        slab s;
        for (uint32_t j = 0; j < l->n_matrices; j++)
            for (uint32_t i = 0; slab_of(p, l, j, i, &s); i++) {
                const cudaError_t e = pith_cuda_gemm_prepare(cuda->gemm, &s.shape, WORKSPACE_BYTES);
                if (e)
                    return pith_fail(err, PITH_E_DEVICE, "cuda:%d: cuBLASLt has no product (%u, %u) by (%u, %u)",
                                     cuda->device, s.shape.n, s.shape.k, s.shape.m, s.shape.k);
            }
    }
    return PITH_OK;
}

pith_status pith_cuda_prepare(pith_plan *p, pith_error *err) {
    const size_t bytes = lay_out(p);
    pith_status status = grow(p->cuda, bytes, p->input_bytes, err);
    p->generation = p->cuda->generation;
    return status == PITH_OK ? prepare_gemm(p, err) : status;
}

// ---------------------------------------------------------------------------------------------------- launches

static void *place(const pith_plan *p, pith_place where, size_t row, size_t row_bytes) {
    return p->cuda->values + p->at[where] + row * row_bytes;
}

// Memory of a value's first row.
static void *memory_of(const pith_plan *p, const pith_value *v) {
    switch (v->kind) {
    case VALUE_RESIDUAL: return place(p, PLACE_X, v->row0, v->width * sizeof(float));
    case VALUE_NORM: return place(p, PLACE_NORM, v->row0, v->width * sizeof(uint16_t));
    case VALUE_ATTENTION: return place(p, PLACE_ATTENTION, v->row0, v->width * sizeof(uint16_t));
    case VALUE_SWIGLU: return place(p, PLACE_SWIGLU, v->row0, v->width * sizeof(uint16_t));
    case VALUE_PRODUCT:
    case VALUE_HEAD_NORM:
    case VALUE_ROPE: break; // never in memory
    }
    return NULL;
}

// y of matrix j for the rows of l->in.
static uint8_t *result_of(const pith_plan *p, const pith_launch *l, uint32_t j, float *logits) {
    if (l->to_logits) return (uint8_t *)logits;
    const size_t elt = l->to == PITH_CUDA_OUT_SWIGLU ? sizeof(uint16_t) : sizeof(float);
    return (uint8_t *)place(p, l->y, l->in->row0, l->y_stride * elt) + l->y_column[j] * elt;
}

// Up to 64 rows at a time: each time the weights are read.
static void run_product(const pith_plan *p, const pith_launch *l, float *logits, pith_cuda_follow follow) {
    pith_cuda *cuda = p->cuda;
    const pith_device_weight *w = l->w[0];
    const size_t elt = l->to == PITH_CUDA_OUT_SWIGLU ? sizeof(uint16_t) : sizeof(float);
    for (uint32_t t = 0; t < l->in->n; t += PITH_CUDA_PRODUCT_MAX_TOKENS) {
        const uint32_t left = l->in->n - t;
        pith_cuda_product args = {.type = w->type,
                                  .out = l->to,
                                  .x = (const uint16_t *)memory_of(p, l->in) + (size_t)t * w->k,
                                  .n = left < PITH_CUDA_PRODUCT_MAX_TOKENS ? left : PITH_CUDA_PRODUCT_MAX_TOKENS,
                                  .k = w->k,
                                  .n_matrices = l->n_matrices,
                                  .follow = follow};
        for (uint32_t j = 0; j < l->n_matrices; j++)
            args.matrix[j] = (pith_cuda_matrix){.w = l->w[j]->data,
                                                .bias = l->bias[j],
                                                .y = result_of(p, l, j, logits) + (size_t)t * l->y_stride * elt,
                                                // a pair whose sums are wanted apart is one matrix of both's rows
                                                .m = l->to == PITH_CUDA_OUT_SWIGLU ? l->w[j]->m : rows_of(l->w[j]),
                                                .y_stride = l->y_stride,
                                                .part_stride = (size_t)p->n_padded * l->y_stride};
        PITH_CUDA_DO(cuda, pith_cuda_product_launch(&args, cuda->stream));
    }
}

static void run_many(const pith_plan *p, const pith_launch *l) {
    pith_cuda *cuda = p->cuda;
    const void *x = memory_of(p, l->in);
    slab s;
    for (uint32_t j = 0; j < l->n_matrices; j++) {
        const pith_device_weight *w = l->w[j];
        float *y = (float *)(void *)result_of(p, l, j, NULL);
        for (uint32_t i = 0; slab_of(p, l, j, i, &s); i++) {
            const void *rows = w->data;
            if (pith_quant_layout_of(w->type).block) {
                rows = cuda->slab;
                PITH_CUDA_DO(cuda, pith_cuda_dequant_launch(w->type, w->data, rows_of(w), w->k, s.row0, s.shape.m,
                                                            cuda->slab, cuda->stream));
            }
            PITH_CUDA_DO(
                cuda, pith_cuda_gemm_launch(cuda->gemm, &s.shape, rows, x, y + s.row0, cuda->workspace, cuda->stream));
        }
        if (l->bias[j])
            PITH_CUDA_DO(cuda, pith_cuda_bias_launch(y, l->bias[j], l->in->n, w->m, l->y_stride, cuda->stream));
    }
}

static void run_append(const pith_plan *p, const pith_launch *l, pith_cuda_follow follow) {
    pith_cuda *cuda = p->cuda;
    const pith_geometry *geo = &cuda->geo;
    const pith_tables t = pith_cuda_tables(cuda);
    const uint8_t *values = cuda->values;
    const float *qkv = place(p, PLACE_QKV, 0, 0);
    const size_t d = geo->head_dim;
    const pith_cuda_windows windows = {.q = (float *const *)(const void *)(values + t.window_q),
                                       .cap = (const uint32_t *)(const void *)(values + t.window_cap)};
    const pith_cuda_append args = {.q = qkv,
                                   .k = qkv + geo->n_heads * d,
                                   .v = qkv + (geo->n_heads + geo->n_kv_heads) * d,
                                   .stride = (geo->n_heads + 2 * geo->n_kv_heads) * d,
                                   .part_stride = (size_t)p->n_padded * (geo->n_heads + 2 * geo->n_kv_heads) * d,
                                   .q_parts = l->qkv_parts[0],
                                   .k_parts = l->qkv_parts[1],
                                   .v_parts = l->qkv_parts[2],
                                   .q_norm = l->q_norm,
                                   .k_norm = l->k_norm,
                                   .norm_eps = l->norm_eps,
                                   .angles = place(p, PLACE_ANGLES, 0, 0),
                                   .n_rot = l->rope ? l->rope->n_rot : 0,
                                   .neox = l->rope && l->rope->neox,
                                   .pos = (const int32_t *)(const void *)(values + p->pos),
                                   .slot = (const int32_t *)(const void *)(values + p->slot),
                                   .seq = (const int32_t *)(const void *)(values + p->seq),
                                   .q_out = place(p, PLACE_Q, 0, 0),
                                   .layer = l->layer,
                                   .n = p->shape.n_tokens};
    PITH_CUDA_DO(cuda, p->shape.cls == PITH_CLASS_DECODE
                           ? pith_cuda_append_decode(&cuda->cache, &windows, &args, follow, cuda->stream)
                           : pith_cuda_append_prefill(&cuda->cache, &windows, &args, cuda->stream));
}

static void run_attend(const pith_plan *p, const pith_launch *l, pith_cuda_follow follow) {
    pith_cuda *cuda = p->cuda;
    const uint16_t *q = place(p, PLACE_Q, 0, 0);
    uint16_t *out = memory_of(p, l->out);
    const pith_half type = l->out->halves ? PITH_HALF_F16 : PITH_HALF_BF16;
    const int32_t *seq = (const int32_t *)(const void *)(cuda->values + p->seq);
    PITH_CUDA_DO(cuda, p->shape.cls == PITH_CLASS_DECODE
                           ? pith_cuda_attend_decode(&cuda->cache, l->layer, q, p->shape.n_tokens, cuda->attend_plan,
                                                     cuda->attend_parts, cuda->cap_items, cuda->n_attend_blocks, out,
                                                     type, follow, cuda->stream)
                           : pith_cuda_attend_prefill(&cuda->cache, l->layer, q, seq, p->shape.n_tokens, out, type,
                                                      cuda->stream));
}

static void run_swiglu(const pith_plan *p, const pith_launch *l) {
    pith_cuda *cuda = p->cuda;
    const pith_value *v = l->out;
    const float *gate = place(p, PLACE_WIDE, v->row0, l->y_stride * sizeof(float));
    PITH_CUDA_DO(cuda, pith_cuda_swiglu_launch(gate, gate + l->up, v->n, v->width, l->y_stride, l->pair, v->halves,
                                               memory_of(p, v), cuda->stream));
}

static void run_norm(const pith_plan *p, const pith_launch *l, pith_cuda_follow follow) {
    pith_cuda *cuda = p->cuda;
    const size_t width = l->out->width;
    const pith_cuda_norm args = {.x = memory_of(p, l->in),
                                 .parts = place(p, PLACE_PARTS, l->in->row0, width * sizeof(float)),
                                 .part_stride = p->n_padded * width,
                                 .n_parts = l->n_parts,
                                 .weight = l->norm,
                                 .eps = l->eps,
                                 .y = memory_of(p, l->out),
                                 .f16 = l->out->halves,
                                 .n = l->out->n,
                                 .d = l->out->width};
    PITH_CUDA_DO(cuda, pith_cuda_norm_launch(&args, follow, cuda->stream));
}

static void run_launches(const pith_plan *p, float *logits) {
    pith_cuda *cuda = p->cuda;
    const uint32_t n = p->shape.n_tokens;
    if (p->rope)
        PITH_CUDA_DO(cuda,
                     pith_cuda_rope_angles(p->rope, p->factors, (const int32_t *)(const void *)(cuda->values + p->pos),
                                           n, place(p, PLACE_ANGLES, 0, 0), cuda->stream));
    if (p->shape.cls == PITH_CLASS_DECODE)
        PITH_CUDA_DO(cuda, pith_cuda_attend_plan(&cuda->cache, (const int32_t *)(const void *)(cuda->values + p->seq),
                                                 n, cuda->attend_plan, cuda->cap_items, cuda->stream));
    // A decode step is one chain, which begins behind the two launches above; in a prefill there are kernels among its
    // launches that do not take part in one.
    pith_cuda_follow follow = PITH_CUDA_AFTER;
    for (uint32_t i = 0; i < p->n_launches; i++) {
        const pith_launch *l = &p->launches[i];
        switch (l->kind) {
        case LAUNCH_NORM: run_norm(p, l, follow); break;
        case LAUNCH_PRODUCT:
            if (pith_cuda_is_many(p, l->in)) run_many(p, l);
            else run_product(p, l, logits, follow);
            break;
        case LAUNCH_SWIGLU: run_swiglu(p, l); break;
        case LAUNCH_APPEND: run_append(p, l, follow); break;
        case LAUNCH_ATTEND: run_attend(p, l, follow); break;
        }
        follow = p->shape.cls == PITH_CLASS_DECODE ? PITH_CUDA_EARLY : PITH_CUDA_OVERLAP;
    }
}

// ------------------------------------------------------------------------------------------------------- replay

// Fills a pinned copy of the inputs and sends it. The tables go over whole: a sequence that is not in this step may be
// compressed behind it.
static void send_inputs(pith_plan *p, const pith_step *step) {
    pith_cuda *cuda = p->cuda;
    const pith_tables t = pith_cuda_tables(cuda);
    const uint32_t block = cuda->next_input, n_lanes = pith_n_lanes(&cuda->geo);
    cuda->next_input = (block + 1) % INPUT_BLOCKS;
    PITH_CUDA_DO(cuda, cudaEventSynchronize(cuda->copied[block]));
    uint8_t *to = cuda->inputs[block];
    float **window_q = (float **)(void *)(cuda->tables + t.window_q);
    uint32_t *window_cap = (uint32_t *)(void *)(cuda->tables + t.window_cap);
    int32_t *n_rows = (int32_t *)(void *)(cuda->tables + t.n_rows), *seq = (int32_t *)(void *)(to + p->seq);
    for (uint32_t i = 0; i < step->n_segments; i++) {
        const pith_segment *s = &step->segments[i];
        const uint32_t slot = s->table->slot;
        window_q[slot] = s->window->q, window_cap[slot] = s->window->cap;
        for (uint32_t lane = 0; lane < n_lanes; lane++)
            n_rows[(size_t)slot * n_lanes + lane] = (int32_t)s->lanes[lane].n_rows;
        for (uint32_t k = 0; k < s->n_tokens; k++) seq[s->first + k] = (int32_t)slot;
    }
    memcpy(to, cuda->tables, t.end);
    const size_t n = p->shape.n_tokens;
    memcpy(to + p->pos, step->pos, n * sizeof(int32_t));
    memcpy(to + p->slot, step->slot, n * sizeof(int32_t));
    float *x = (float *)(void *)(to + p->at[PLACE_X]);
    for (size_t i = 0; i < n; i++) pith_cuda_embed_row(p->table, p->rows, step->ids[i], x + i * p->d_model);
    PITH_CUDA_DO(cuda, cudaMemcpyAsync(cuda->values, to, p->input_bytes, cudaMemcpyHostToDevice, cuda->stream));
    PITH_CUDA_DO(cuda, cudaEventRecord(cuda->copied[block], cuda->stream));
}

void pith_cuda_forget(pith_plan *p) {
    if (p->graph) cudaGraphExecDestroy(p->graph);
    p->graph = NULL;
}

// The launches of a decode step differ from replay to replay in nothing but the memory that they read.
void pith_cuda_warm(pith_plan *p, float *logits) {
    pith_cuda *cuda = pith_cuda_enter(&p->cuda->base);
    pith_cuda_forget(p);
    cudaGraph_t graph = NULL;
    if (!PITH_CUDA_DO(cuda, cudaStreamBeginCapture(cuda->stream, cudaStreamCaptureModeThreadLocal))) return;
    run_launches(p, logits);
    const cudaError_t e = cudaStreamEndCapture(cuda->stream, &graph);
    pith_cuda_ok(cuda, e, "cudaStreamEndCapture");
    PITH_CUDA_DO(cuda, cudaGraphInstantiate(&p->graph, graph, 0));
    PITH_CUDA_DO(cuda, cudaGraphUpload(p->graph, cuda->stream));
    p->graph_logits = logits;
    if (graph) cudaGraphDestroy(graph);
}

void pith_cuda_replay(pith_plan *p, const pith_step *step) {
    pith_cuda *cuda = pith_cuda_enter(&p->cuda->base);
    pith_cuda_flush_updates(cuda);
    send_inputs(p, step);
    if (p->shape.cls != PITH_CLASS_DECODE) {
        run_launches(p, step->logits);
        return;
    }
    if (!p->graph || p->graph_logits != step->logits) pith_cuda_warm(p, step->logits);
    PITH_CUDA_DO(cuda, cudaGraphLaunch(p->graph, cuda->stream));
}
