// The model's weights in device memory: matrices as they are, packed, or turned into bf16; vectors in f32.
//
// A copy is made when a plan first asks for it, by all threads of the host, and lives as long as the backend.
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "base/half.h"
#include "base/mem.h"
#include "base/status.h"
#include "cuda/device.h"
#include "ggml.h"
#include "ops/random.h"

enum { MOST_THREADS = 64, PIECE = 256 }; // PIECE: weights that are converted at a time, a multiple of every block

static size_t row_bytes(const pith_weight *w) { return ggml_row_size((enum ggml_type)w->type, w->ne[0]); }

// ------------------------------------------------------------------------------- a job for all threads of the host

typedef struct job {
    void (*slab)(const struct job *, uint32_t i); // PITH_SLAB rows of the result
    uint32_t n_slabs;
    atomic_uint next;
    const pith_weight *w;
    const void *file, *pair; // (m, k) in the file's type
    pith_cuda_type type;
    uint32_t m, k;
    uint8_t *out;
} job;

static void *work(void *arg) {
    job *j = arg;
    for (uint32_t i; (i = atomic_fetch_add(&j->next, 1)) < j->n_slabs;) j->slab(j, i);
    return NULL;
}

static void run(const pith_cuda *cuda, job *j) {
    pthread_t threads[MOST_THREADS];
    uint32_t n = 0;
    while (n + 1 < cuda->n_threads && n < MOST_THREADS && pthread_create(&threads[n], NULL, work, j) == 0) n++;
    work(j);
    for (uint32_t i = 0; i < n; i++) pthread_join(threads[i], NULL);
}

static void pack(const job *j, uint32_t i) { pith_quant_pack(j->type, j->file, j->pair, j->m, j->k, i, i + 1, j->out); }

static void make_random(const job *j, uint32_t i) {
    const uint32_t first = i * PITH_SLAB, left = j->m - first;
    pith_random_rows(j->w, first, left < PITH_SLAB ? left : PITH_SLAB, j->out + first * row_bytes(j->w));
}

static void to_f32(int type, const void *from, float *to, uint32_t n) {
    if (type == GGML_TYPE_F32) memcpy(to, from, n * sizeof *to);
    else ggml_get_type_traits((enum ggml_type)type)->to_float(from, to, n);
}

static void round_to_bf16(const job *j, uint32_t i) {
    const int type = j->w->type;
    for (uint32_t row = i * PITH_SLAB; row < (i + 1) * PITH_SLAB && row < j->m; row++) {
        const uint8_t *from = (const uint8_t *)j->file + row * row_bytes(j->w);
        uint16_t *to = (uint16_t *)(void *)j->out + (size_t)row * j->k;
        for (uint32_t at = 0; at < j->k; at += PIECE) {
            const uint32_t n = j->k - at < PIECE ? j->k - at : PIECE;
            float values[PIECE];
            to_f32(type, from + ggml_row_size((enum ggml_type)type, at), values, n);
            for (uint32_t e = 0; e < n; e++) to[at + e] = pith_f32_to_bf16(values[e]);
        }
    }
}

// Host memory of at least that size, which the next call for the same place may reuse.
static uint8_t *staging(pith_cuda *cuda, uint32_t place, size_t bytes) {
    if (cuda->staging_bytes[place] < bytes) {
        pith_delete(cuda->alloc, cuda->staging[place], cuda->staging_bytes[place], 1);
        cuda->staging[place] = pith_new(cuda->alloc, bytes, 1);
        cuda->staging_bytes[place] = cuda->staging[place] ? bytes : 0;
    }
    return cuda->staging[place];
}

void pith_cuda_free_staging(pith_cuda *cuda) {
    for (uint32_t i = 0; i < sizeof cuda->staging / sizeof *cuda->staging; i++) {
        pith_delete(cuda->alloc, cuda->staging[i], cuda->staging_bytes[i], 1);
        cuda->staging[i] = NULL, cuda->staging_bytes[i] = 0;
    }
}

// The matrix as a file would have it.
static const void *file_of(pith_cuda *cuda, const pith_weight *w, uint32_t place) {
    if (w->data) return w->data;
    job j = {.slab = make_random, .w = w, .m = (uint32_t)w->ne[1], .k = (uint32_t)w->ne[0]};
    j.n_slabs = pith_quant_slabs(j.m);
    if ((j.out = staging(cuda, place, w->bytes))) run(cuda, &j);
    return j.out;
}

// ---------------------------------------------------------------------------------------------------- matrices

// Stays in the file's type where a kernel reads it; everything else becomes bf16.
static pith_cuda_type type_for(const pith_weight *w, bool halves) {
    const uint32_t k = (uint32_t)w->ne[0];
    switch (w->type) {
    case GGML_TYPE_F16: return halves ? PITH_CUDA_F16 : PITH_CUDA_BF16;
    case GGML_TYPE_Q8_0: return PITH_CUDA_Q8_0;
    case GGML_TYPE_Q4_0: return PITH_CUDA_Q4_0;
    case GGML_TYPE_Q4_K: return k % PITH_SUPER ? PITH_CUDA_BF16 : PITH_CUDA_Q4_K;
    case GGML_TYPE_Q6_K: return k % PITH_SUPER ? PITH_CUDA_BF16 : PITH_CUDA_Q6_K;
    default: return PITH_CUDA_BF16;
    }
}

bool pith_cuda_pairs(const pith_weight *gate, const pith_weight *up) {
    return gate->type == up->type && pith_quant_layout_of(type_for(gate, false)).block != 0;
}

// Of the copy that load_matrix or load_vector will make, alone or as half of a pair.
static size_t copy_bytes(const pith_weight *w) {
    if (w->ne[1] == 1 && w->type == GGML_TYPE_F32) return w->bytes;
    const pith_quant_layout l = pith_quant_layout_of(type_for(w, true));
    if (!l.block) return (size_t)w->ne[1] * (size_t)w->ne[0] * sizeof(uint16_t);
    return pith_quant_bytes(l, pith_quant_slabs((uint32_t)w->ne[1]), (uint32_t)w->ne[0]);
}

pith_status pith_cuda_weights_fit(const pith_backend *backend, const pith_weight *weights, uint32_t n,
                                  const pith_weight *host, pith_error *err) {
    pith_device_info info;
    backend->ops->describe(backend, &info);
    const uint64_t there = info.bytes_total - info.bytes_used;
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < n; i++)
        if (&weights[i] != host) bytes += copy_bytes(&weights[i]);
    if (bytes <= there) return PITH_OK;
    return pith_fail(err, PITH_E_MEMORY, "cuda:%d: the weights need %llu bytes, %llu of %llu are free",
                     ((const pith_cuda *)(const void *)backend)->device, (unsigned long long)bytes,
                     (unsigned long long)there, (unsigned long long)info.bytes_total);
}

static bool is_as_in_file(const pith_weight *w, pith_cuda_type type) {
    return (type == PITH_CUDA_BF16 && w->type == GGML_TYPE_BF16) || type == PITH_CUDA_F16;
}

static void note_conversion(pith_cuda *cuda, const pith_weight *w, size_t bytes) {
    cuda->n_converted++;
    cuda->converted_bytes += bytes;
    cuda->converted_from += w->bytes;
}

static pith_status upload(pith_cuda *cuda, pith_device_weight *d, pith_error *err) {
    const pith_weight *w = d->of;
    const pith_quant_layout l = pith_quant_layout_of(d->type);
    const uint32_t n_slabs = d->pair ? (d->m + PITH_SLAB / 2 - 1) / (PITH_SLAB / 2) : pith_quant_slabs(d->m);
    const size_t bytes = l.block ? pith_quant_bytes(l, n_slabs, d->k) : (size_t)d->m * d->k * sizeof(uint16_t);
    d->data = pith_cuda_new(cuda, bytes, w->name, err);
    if (!d->data) return PITH_E_MEMORY;

    const void *from = file_of(cuda, w, 0), *pair = d->pair ? file_of(cuda, d->pair, 1) : NULL;
    if (from && !is_as_in_file(w, d->type)) {
        job j = {.slab = l.block ? pack : round_to_bf16, .n_slabs = n_slabs, .w = w, .file = from, .pair = pair};
        j.type = d->type, j.m = d->m, j.k = d->k, j.out = staging(cuda, 2, bytes);
        if (j.out) run(cuda, &j);
        from = j.out;
        if (!l.block) note_conversion(cuda, w, bytes);
    }
    if (!from || (d->pair && !pair)) return pith_fail(err, PITH_E_MEMORY, "no memory to load %s", w->name);
    PITH_CUDA_DO(cuda, cudaMemcpyAsync(d->data, from, bytes, cudaMemcpyHostToDevice, cuda->stream));
    PITH_CUDA_DO(cuda, cudaStreamSynchronize(cuda->stream)); // the staging is used again
    return cuda->base.ops->check(&cuda->base, err);
}

static pith_device_weight *find(pith_cuda *cuda, const pith_weight *w, const pith_weight *pair, pith_cuda_type type) {
    for (pith_device_weight *d = cuda->weights; d; d = d->next)
        if (d->of == w && d->pair == pair && d->type == type) return d;
    return NULL;
}

static pith_device_weight *add(pith_cuda *cuda, const pith_device_weight *init, pith_error *err) {
    pith_device_weight *d = pith_new(cuda->alloc, 1, sizeof *d);
    if (!d) return pith_fail(err, PITH_E_MEMORY, "no memory to load %s", init->of->name), NULL;
    *d = *init;
    d->next = cuda->weights;
    cuda->weights = d;
    return d;
}

static void drop_newest(pith_cuda *cuda) {
    pith_device_weight *d = cuda->weights;
    cuda->weights = d->next;
    cudaFree(d->data);
    pith_delete(cuda->alloc, d, 1, sizeof *d);
}

const pith_device_weight *pith_cuda_load_matrix(pith_cuda *cuda, const pith_weight *w, const pith_weight *pair,
                                                bool halves, pith_error *err) {
    const pith_cuda_type type = type_for(w, halves);
    pith_device_weight *d = find(cuda, w, pair, type);
    if (d) return d;
    if (w->ne[0] % PITH_STEP)
        return pith_fail(err, PITH_E_UNSUPPORTED, "%s: rows of %lld weights, on a GPU expected a multiple of %d",
                         w->name, (long long)w->ne[0], PITH_STEP),
               NULL;
    const pith_device_weight init = {
        .of = w, .pair = pair, .type = type, .m = (uint32_t)w->ne[1], .k = (uint32_t)w->ne[0]};
    if (!(d = add(cuda, &init, err))) return NULL;
    if (upload(cuda, d, err) == PITH_OK) return d;
    drop_newest(cuda);
    return NULL;
}

const float *pith_cuda_load_vector(pith_cuda *cuda, const pith_weight *w, pith_error *err) {
    const pith_cuda_type none = PITH_CUDA_BF16; // vectors and matrices are never the same tensor
    pith_device_weight *d = find(cuda, w, NULL, none);
    if (d) return d->data;
    const pith_device_weight init = {.of = w, .type = none, .m = 1, .k = (uint32_t)w->ne[0]};
    if (!(d = add(cuda, &init, err))) return NULL;
    if ((d->data = pith_cuda_new(cuda, w->bytes, w->name, err))) {
        PITH_CUDA_DO(cuda, cudaMemcpyAsync(d->data, w->data, w->bytes, cudaMemcpyHostToDevice, cuda->stream));
        PITH_CUDA_DO(cuda, cudaStreamSynchronize(cuda->stream));
        if (cuda->base.ops->check(&cuda->base, err) == PITH_OK) return d->data;
    }
    drop_newest(cuda);
    return NULL;
}

void pith_cuda_free_weights(pith_cuda *cuda) {
    pith_cuda_free_staging(cuda);
    pith_cuda_free_embedding(cuda);
    while (cuda->weights) drop_newest(cuda);
}

// ---------------------------------------------------------------------------------------------------- embedding

// A table without data is made once, as it would lie in a file: a step waits for its tokens' rows.
const void *pith_cuda_load_embedding(pith_cuda *cuda, const pith_weight *table, pith_error *err) {
    if (table->data) return table->data;
    if (cuda->embedding_of == table) return cuda->embedding;
    pith_cuda_free_embedding(cuda);
    job j = {.slab = make_random, .w = table, .m = (uint32_t)table->ne[1], .k = (uint32_t)table->ne[0]};
    j.n_slabs = pith_quant_slabs(j.m);
    if (!(j.out = pith_new(cuda->alloc, table->bytes, 1)))
        return pith_fail(err, PITH_E_MEMORY, "no memory for %s: %zu bytes", table->name, table->bytes), NULL;
    run(cuda, &j);
    cuda->embedding = j.out, cuda->embedding_bytes = table->bytes, cuda->embedding_of = table;
    return j.out;
}

void pith_cuda_free_embedding(pith_cuda *cuda) {
    pith_delete(cuda->alloc, cuda->embedding, cuda->embedding_bytes, 1);
    cuda->embedding = NULL, cuda->embedding_of = NULL;
}

void pith_cuda_embed_row(const pith_weight *table, const void *rows, int32_t id, float *out) {
    to_f32(table->type, (const uint8_t *)rows + (size_t)id * row_bytes(table), out, (uint32_t)table->ne[0]);
}
