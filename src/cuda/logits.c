// Logits in device memory, and tokens drawn from them there.
#include <string.h>

#include "base/mem.h"
#include "base/status.h"
#include "cuda/device.h"
#include "cuda/sample.h"

static pith_status logits_create(pith_backend *backend, uint32_t n, uint32_t n_vocab, float **out, pith_error *err) {
    pith_cuda *cuda = pith_cuda_enter(backend);
    pith_logits_block *block = pith_new(cuda->alloc, 1, sizeof *block);
    if (!block) return pith_fail(err, PITH_E_MEMORY, "no memory for logits");
    if (!(block->device = pith_cuda_new(cuda, (size_t)n * n_vocab * sizeof(float), "logits", err))) {
        pith_delete(cuda->alloc, block, 1, sizeof *block);
        return PITH_E_MEMORY;
    }
    block->n = n, block->n_vocab = n_vocab, block->next = cuda->logits;
    cuda->logits = block;
    *out = block->device;
    return PITH_OK;
}

static void free_block(pith_cuda *cuda, pith_logits_block *block) {
    cudaFree(block->device);
    pith_delete(cuda->alloc, block->host, (size_t)block->n * block->n_vocab, sizeof(float));
    pith_delete(cuda->alloc, block, 1, sizeof *block);
}

static void logits_destroy(pith_backend *backend, float *logits, uint32_t n, uint32_t n_vocab) {
    (void)n, (void)n_vocab;
    pith_cuda *cuda = pith_cuda_enter(backend);
    for (pith_logits_block **at = &cuda->logits; *at; at = &(*at)->next)
        if ((*at)->device == logits) {
            pith_logits_block *block = *at;
            *at = block->next;
            free_block(cuda, block);
            return;
        }
}

// A mirror of the whole block, so that views of several sequences live side by side.
static const float *logits_read(pith_backend *backend, const float *row, uint32_t n_vocab) {
    pith_cuda *cuda = pith_cuda_enter(backend);
    pith_logits_block *block = cuda->logits;
    while (row < block->device || row >= block->device + (size_t)block->n * block->n_vocab) block = block->next;
    if (!block->host) block->host = pith_new(cuda->alloc, (size_t)block->n * block->n_vocab, sizeof(float));
    if (!block->host) return NULL;
    float *out = block->host + (row - block->device);
    PITH_CUDA_DO(cuda, cudaMemcpyAsync(out, row, n_vocab * sizeof(float), cudaMemcpyDeviceToHost, cuda->stream));
    PITH_CUDA_DO(cuda, cudaStreamSynchronize(cuda->stream));
    return out;
}

static pith_status sample_reserve(pith_backend *backend, uint32_t n, uint32_t n_vocab, pith_error *err) {
    pith_cuda *cuda = pith_cuda_enter(backend);
    if (n_vocab > PITH_CUDA_SAMPLE_MAX_VOCAB)
        return pith_fail(err, PITH_E_UNSUPPORTED, "cuda:%d: a vocabulary of %u tokens, expected %u at most",
                         cuda->device, n_vocab, PITH_CUDA_SAMPLE_MAX_VOCAB);
    if (!(cuda->draws = pith_cuda_pinned(cuda, n * sizeof *cuda->draws, "draws", err)) ||
        !(cuda->drawn = pith_cuda_pinned(cuda, n * sizeof *cuda->drawn, "draws", err)) ||
        !(cuda->ids = pith_cuda_new(cuda, n * sizeof *cuda->ids, "draws", err)) ||
        !(cuda->sample_scratch = pith_cuda_new(cuda, pith_cuda_sample_scratch(n, n_vocab), "draws", err)))
        return PITH_E_MEMORY;
    return PITH_OK;
}

// Rows that lie side by side are drawn from in one launch; nearly always all of them do.
static void sample(pith_backend *backend, const float *const *rows, const pith_draw *draws, uint32_t n,
                   uint32_t n_vocab, int32_t *ids) {
    pith_cuda *cuda = pith_cuda_enter(backend);
    memcpy(cuda->draws, draws, n * sizeof *draws);
    for (uint32_t i = 0, run; i < n; i += run) {
        for (run = 1; i + run < n && rows[i + run] == rows[i] + (size_t)run * n_vocab;) run++;
        PITH_CUDA_DO(cuda, pith_cuda_sample(rows[i], run, n_vocab, cuda->draws + i, NULL, cuda->sample_scratch,
                                            cuda->ids + i, cuda->drawn + i, cuda->stream));
    }
    PITH_CUDA_DO(cuda, cudaStreamSynchronize(cuda->stream));
    if (cuda->failed) memset(cuda->drawn, 0, n * sizeof *ids); // an id that exists; the step's check says the rest
    memcpy(ids, cuda->drawn, n * sizeof *ids);
}

void pith_cuda_free_logits(pith_cuda *cuda) {
    while (cuda->logits) {
        pith_logits_block *block = cuda->logits;
        cuda->logits = block->next;
        free_block(cuda, block);
    }
    cudaFreeHost(cuda->draws);
    cudaFreeHost(cuda->drawn);
    cudaFree(cuda->ids);
    cudaFree(cuda->sample_scratch);
}

void pith_cuda_table_logits(pith_ops *ops) {
    ops->logits_create = logits_create;
    ops->logits_destroy = logits_destroy;
    ops->logits_read = logits_read;
    ops->sample_reserve = sample_reserve;
    ops->sample = sample;
}
