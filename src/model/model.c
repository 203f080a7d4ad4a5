#include "model/model.h"

#include "model/chat.h"
#include "model/mapping.h"
#include "model/shape.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

struct pith_model {
    const pith_allocator *alloc;
    pith_mapping mapping; // the file, or memory that holds what a file would
    pith_gguf gguf;       // its tables; points into the mapping
    pith_config config;
    pith_weights weights; // points into gguf.tensors
    pith_vocab *vocab;    // NULL without a file
    pith_model_info info;
    char shape_name[96]; // without a file: what messages call it
};

const pith_config *pith_model_config(const pith_model *m) { return &m->config; }
const pith_weights *pith_model_weights(const pith_model *m) { return &m->weights; }
const pith_vocab *pith_model_vocab(const pith_model *m) { return m->vocab; }
const pith_gguf *pith_model_gguf(const pith_model *m) { return &m->gguf; }
const pith_allocator *pith_model_allocator(const pith_model *m) { return m->alloc; }

// ------------------------------------------------------------------------------------------------ loading

// general.name, or the file's name; control characters turned into spaces, since people will read it on a terminal.
static void set_name(pith_model *m, const char *path) {
    pith_text name;
    pith_gguf_text(&m->gguf, "general.name", false, &name, NULL);
    const char *slash = strrchr(path, '/');
    if (name.length == 0) snprintf(m->info.name, sizeof m->info.name, "%s", slash ? slash + 1 : path);
    else snprintf(m->info.name, sizeof m->info.name, "%.*s", (int)name.length, name.at);
    for (char *c = m->info.name; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 0x7f) *c = ' ';
}

static void describe(pith_model *m, const char *path) {
    const pith_config *c = &m->config;
    m->info = (pith_model_info){
        .n_layers = c->n_layers,
        .n_heads = c->n_heads,
        .n_kv_heads = c->n_kv_heads,
        .head_dim = c->head_dim,
        .d_model = c->d_model,
        .d_ff = c->d_ff,
        .n_vocab = c->n_vocab,
        .n_ctx = c->n_ctx,
        .has_chat_template = pith_gguf_find(&m->gguf, PITH_CHAT_KEY) != NULL,
    };
    set_name(m, path);
    snprintf(m->info.architecture, sizeof m->info.architecture, "%s", pith_arch_name(c->arch));
    for (uint32_t i = 0; i < m->gguf.n_tensors; i++) {
        const pith_weight *w = &m->gguf.tensors[i];
        m->info.n_parameters += (uint64_t)w->ne[0] * (uint64_t)w->ne[1] * (uint64_t)w->ne[2] * (uint64_t)w->ne[3];
        m->info.weight_bytes += w->bytes;
    }
    m->info.step_bytes = m->info.weight_bytes;
    if (m->weights.head != m->weights.embed) m->info.step_bytes -= m->weights.embed->bytes;
}

static pith_status load(pith_model *m, const char *path, pith_error *err) {
    pith_status status = pith_mapping_open(path, &m->mapping, err);
    if (status == PITH_OK) status = pith_gguf_check(m->mapping.base, m->mapping.bytes, path, m->alloc, &m->gguf, err);
    if (status == PITH_OK) status = pith_config_read(&m->gguf, &m->config, err);
    if (status == PITH_OK) status = pith_weights_bind(&m->gguf, &m->config, m->alloc, &m->weights, err);
    if (status == PITH_OK) status = pith_vocab_load(path, &m->gguf, m->alloc, &m->vocab, err);
    if (status != PITH_OK) return status;
    if (pith_vocab_size(m->vocab) != m->config.n_vocab)
        return pith_fail(err, PITH_E_FORMAT, "%s: tokenizer.ggml.tokens: expected the embedding's %u tokens, found %u",
                         m->gguf.path, m->config.n_vocab, pith_vocab_size(m->vocab));
    describe(m, path);
    // Only a hint, so a failure is none: start to read the weights while the caller sets up.
    madvise((void *)(uintptr_t)m->mapping.base, m->mapping.bytes, MADV_WILLNEED);
    return PITH_OK;
}

pith_status pith_model_load(const char *path, const pith_allocator *alloc, pith_model **out, pith_error *err) {
    *out = NULL;
    pith_model *m = pith_new(alloc, 1, sizeof *m);
    if (!m) return pith_fail(err, PITH_E_MEMORY, "%s: no memory for a model", pith_path_tail(path));
    m->alloc = alloc;
    pith_status status = load(m, path, err);
    if (status == PITH_OK) *out = m;
    else pith_model_free(m);
    return status;
}

static pith_status build(pith_model *m, const pith_model_shape *shape, const char *type, uint64_t seed, bool makes,
                         pith_error *err) {
    snprintf(m->shape_name, sizeof m->shape_name, "%s", shape->name);
    pith_status status =
        pith_shape_build(shape, type, seed, makes, m->shape_name, m->alloc, &m->config, &m->gguf, &m->mapping, err);
    if (status == PITH_OK) status = pith_weights_bind(&m->gguf, &m->config, m->alloc, &m->weights, err);
    if (status == PITH_OK) describe(m, m->shape_name);
    return status;
}

pith_status pith_model_from_shape(const pith_model_shape *shape, const char *type, uint64_t seed, const char *device,
                                  const pith_allocator *alloc, pith_model **out, pith_error *err) {
    *out = NULL;
    pith_model *m = pith_new(alloc, 1, sizeof *m);
    if (!m) return pith_fail(err, PITH_E_MEMORY, "%s: no memory for a model", shape->name);
    m->alloc = alloc;
    pith_status status = build(m, shape, type, seed, !device || !strcmp(device, "cpu"), err);
    if (status == PITH_OK) *out = m;
    else pith_model_free(m);
    return status;
}

void pith_model_free(pith_model *m) {
    if (!m) return;
    pith_vocab_free(m->vocab);
    pith_weights_free(&m->weights, m->alloc);
    pith_gguf_free(&m->gguf);
    pith_mapping_close(&m->mapping);
    pith_delete(m->alloc, m, 1, sizeof *m);
}

void pith_model_describe(const pith_model *m, pith_model_info *out) { *out = m->info; }

// ------------------------------------------------------------------------------------------- text and chat

static pith_status no_vocabulary(const pith_model *m, pith_error *err) {
    return pith_fail(err, PITH_E_UNSUPPORTED, "%s: a model that was made from a shape has no vocabulary", m->gguf.path);
}

pith_status pith_tokenize(const pith_model *m, const char *text, size_t bytes, int flags, pith_token *out,
                          size_t capacity, size_t *n, pith_error *err) {
    if (!m->vocab) return no_vocabulary(m, err);
    return pith_vocab_tokenize(m->vocab, text, bytes, flags, out, capacity, n, err);
}

size_t pith_token_text(const pith_model *m, pith_token token, bool special, char *out, size_t capacity) {
    return m->vocab ? pith_vocab_text(m->vocab, token, special, out, capacity) : 0;
}

bool pith_token_ends(const pith_model *m, pith_token token) { return m->vocab && pith_vocab_ends(m->vocab, token); }

pith_status pith_chat_render(const pith_model *m, const pith_message *messages, size_t n, char **out, pith_error *err) {
    *out = NULL;
    if (!m->vocab) return no_vocabulary(m, err);
    return pith_chat_apply(&m->gguf, m->vocab, messages, n, out, err);
}
