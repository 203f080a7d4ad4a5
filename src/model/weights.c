#include "model/weights.h"

#include "ggml-cpu.h"
#include "ggml.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

// Takes tensors by name; the first error sticks.
typedef struct binder {
    const pith_gguf *gguf;
    bool *used; // (n_tensors)
    int layer;  // -1 outside the layers
    pith_status status;
    pith_error *err;
} binder;

typedef enum presence { OPTIONAL, REQUIRED } presence;

static void print_shape(const int64_t ne[4], char *out, size_t capacity) {
    int n_dims = 4;
    while (n_dims > 1 && ne[n_dims - 1] == 1) n_dims--;
    size_t at = 0;
    for (int i = 0; i < n_dims && at < capacity; i++)
        at += (size_t)snprintf(out + at, capacity - at, "%s%" PRId64, i ? ", " : "(", ne[i]);
    if (at < capacity) snprintf(out + at, capacity - at, ")");
}

// The tensor of that role, of shape (cols) or, as GGUF writes it, (cols, rows).
static const pith_weight *find(binder *b, presence need, const char *role, uint32_t cols, uint32_t rows) {
    char name[PITH_GGUF_MAX_NAME_BYTES + 1];
    if (b->layer < 0) snprintf(name, sizeof name, "%s", role);
    else snprintf(name, sizeof name, "blk.%d.%s", b->layer, role);
    if (b->status != PITH_OK) return NULL;
    uint32_t id = pith_gguf_tensor(b->gguf, name);
    if (id == PITH_NAME_NONE && need == OPTIONAL) return NULL;
    const int64_t ne[4] = {cols, rows ? rows : 1, 1, 1};
    char expected[100], found[100];
    print_shape(ne, expected, sizeof expected);
    if (id == PITH_NAME_NONE) {
        b->status = pith_fail(b->err, PITH_E_FORMAT, "%s: %s: expected %s, found no such tensor", b->gguf->path, name,
                              expected);
        return NULL;
    }
    const pith_weight *w = &b->gguf->tensors[id];
    b->used[id] = true;
    for (int i = 0; i < 4; i++)
        if (w->ne[i] != ne[i] && b->status == PITH_OK) {
            print_shape(w->ne, found, sizeof found);
            b->status =
                pith_fail(b->err, PITH_E_FORMAT, "%s: %s: expected %s, found %s", b->gguf->path, name, expected, found);
        }
    return w;
}

static const pith_weight *matrix(binder *b, presence need, const char *role, uint32_t cols, uint32_t rows) {
    const pith_weight *w = find(b, need, role, cols, rows);
    if (!w || b->status != PITH_OK) return w;
    enum ggml_type type = (enum ggml_type)w->type;
    // What ggml can multiply it stores as f32 or knows how to expand, which the embedding needs.
    bool runs =
        ggml_get_type_traits_cpu(type)->vec_dot && (type == GGML_TYPE_F32 || ggml_get_type_traits(type)->to_float);
    if (!runs)
        b->status = pith_fail(b->err, PITH_E_UNSUPPORTED, "%s: %s: products with type %s cannot be computed",
                              b->gguf->path, w->name, ggml_type_name(type));
    return w;
}

static const pith_weight *vector(binder *b, presence need, const char *role, uint32_t cols) {
    const pith_weight *w = find(b, need, role, cols, 0);
    if (w && b->status == PITH_OK && w->type != GGML_TYPE_F32)
        b->status = pith_fail(b->err, PITH_E_UNSUPPORTED, "%s: %s: expected type f32, found %s", b->gguf->path, w->name,
                              ggml_type_name((enum ggml_type)w->type));
    return w;
}

static void bind_layer(binder *b, const pith_config *c, pith_layer_weights *out) {
    bool qwen3 = c->arch == PITH_ARCH_QWEN3, llama = c->arch == PITH_ARCH_LLAMA;
    uint32_t D = c->d_model, F = c->d_ff, q_dim = c->n_heads * c->head_dim, kv_dim = c->n_kv_heads * c->head_dim;

    out->attn_norm = vector(b, REQUIRED, "attn_norm.weight", D);
    out->wq = matrix(b, REQUIRED, "attn_q.weight", D, q_dim);
    out->wk = matrix(b, REQUIRED, "attn_k.weight", D, kv_dim);
    out->wv = matrix(b, REQUIRED, "attn_v.weight", D, kv_dim);
    out->wo = matrix(b, REQUIRED, "attn_output.weight", q_dim, D);
    out->bq = vector(b, OPTIONAL, "attn_q.bias", q_dim);
    out->bk = vector(b, OPTIONAL, "attn_k.bias", kv_dim);
    out->bv = vector(b, OPTIONAL, "attn_v.bias", kv_dim);
    if (qwen3) out->q_norm = vector(b, REQUIRED, "attn_q_norm.weight", c->head_dim);
    if (qwen3) out->k_norm = vector(b, REQUIRED, "attn_k_norm.weight", c->head_dim);

    out->ffn_norm = vector(b, REQUIRED, "ffn_norm.weight", D);
    out->gate = matrix(b, REQUIRED, "ffn_gate.weight", D, F);
    out->up = matrix(b, REQUIRED, "ffn_up.weight", D, F);
    out->down = matrix(b, REQUIRED, "ffn_down.weight", F, D);
    if (!llama) return;
    out->bo = vector(b, OPTIONAL, "attn_output.bias", D);
    out->bgate = vector(b, OPTIONAL, "ffn_gate.bias", F);
    out->bup = vector(b, OPTIONAL, "ffn_up.bias", F);
    out->bdown = vector(b, OPTIONAL, "ffn_down.bias", D);
}

// Llama 3's divisors of the frequencies. libllama uses them for llama only, and refuses them elsewhere.
static void bind_rope_factors(binder *b, pith_config *c) {
    if (c->arch != PITH_ARCH_LLAMA) return;
    const pith_weight *w = vector(b, OPTIONAL, "rope_freqs.weight", c->rope.n_rot / 2);
    if (!w || b->status != PITH_OK) return;
    const float *factor = w->data;
    for (uint32_t i = 0; i < c->rope.n_rot / 2; i++)
        if (!(factor[i] > 0 && isfinite(factor[i])) && b->status == PITH_OK)
            b->status = pith_fail(b->err, PITH_E_FORMAT, "%s: %s: expected positive factors, found %g", b->gguf->path,
                                  w->name, (double)factor[i]);
    c->rope.factors = w;
}

// The vocabulary's size is what the embedding says; the vocabulary itself must agree, see model.c.
static uint32_t embedding_rows(binder *b) {
    uint32_t id = pith_gguf_tensor(b->gguf, "token_embd.weight");
    if (id == PITH_NAME_NONE)
        b->status = pith_fail(b->err, PITH_E_FORMAT, "%s: token_embd.weight: the tensor is missing", b->gguf->path);
    int64_t rows = id == PITH_NAME_NONE ? 0 : b->gguf->tensors[id].ne[1];
    if (rows > PITH_MAX_VOCAB)
        b->status = pith_fail(b->err, PITH_E_FORMAT, "%s: token_embd.weight: %" PRId64 " tokens are not possible",
                              b->gguf->path, rows);
    return (uint32_t)rows;
}

static void bind_all(binder *b, pith_config *c, pith_weights *out) {
    b->layer = -1;
    c->n_vocab = embedding_rows(b);
    out->embed = matrix(b, REQUIRED, "token_embd.weight", c->d_model, c->n_vocab);
    out->norm = vector(b, REQUIRED, "output_norm.weight", c->d_model);
    out->head = matrix(b, OPTIONAL, "output.weight", c->d_model, c->n_vocab);
    if (!out->head) out->head = out->embed;
    bind_rope_factors(b, c);
    for (b->layer = 0; b->layer < (int)c->n_layers; b->layer++) bind_layer(b, c, &out->layers[b->layer]);
    for (uint32_t i = 0; i < b->gguf->n_tensors && b->status == PITH_OK; i++)
        if (!b->used[i])
            b->status = pith_fail(b->err, PITH_E_FORMAT, "%s: %s: unexpected tensor; %s has no use for it",
                                  b->gguf->path, b->gguf->tensors[i].name, pith_arch_name(c->arch));
}

pith_status pith_weights_bind(const pith_gguf *gguf, pith_config *config, const pith_allocator *alloc,
                              pith_weights *out, pith_error *err) {
    binder b = {.gguf = gguf, .used = pith_new(alloc, gguf->n_tensors, sizeof *b.used), .err = err};
    *out =
        (pith_weights){.layers = pith_new(alloc, config->n_layers, sizeof *out->layers), .n_layers = config->n_layers};
    if (!b.used || !out->layers)
        b.status = pith_fail(err, PITH_E_MEMORY, "%s: no memory for its weights' table", gguf->path);
    else bind_all(&b, config, out);
    pith_delete(alloc, b.used, gguf->n_tensors, sizeof *b.used);
    if (b.status != PITH_OK) pith_weights_free(out, alloc);
    return b.status;
}

void pith_weights_free(pith_weights *weights, const pith_allocator *alloc) {
    pith_delete(alloc, weights->layers, weights->n_layers, sizeof *weights->layers);
    *weights = (pith_weights){0};
}
