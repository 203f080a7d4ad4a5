// Model files. Whatever the bytes, a file is refused with one line and nothing left behind, or accepted such that every
// table points inside it and means what it says; then its hyper-parameters, tensors and vocabulary are refused or
// accepted the same way.
#include <stdlib.h>
#include <string.h>

#include "ggml.h"
#include "gguf.h"
#include "model/config.h"
#include "model/vocab_check.h"
#include "model/weights.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds) {
    if (!holds) abort();
}

// PITH_OK and an untouched error, or a status and a line that is safe to show.
static bool accepted(pith_status status, const pith_error *err) {
    if (status == PITH_OK) return true;
    require(err->status == status && err->msg[0]);
    require(strncmp(err->msg, "model.gguf: ", 12) == 0);
    for (const char *c = err->msg; *c; c++) require((unsigned char)*c >= ' ' && *c != 0x7f);
    return false;
}

static bool inside(const pith_gguf *g, const void *p, uint64_t bytes) {
    const uint8_t *at = p;
    return at >= g->base && at <= g->base + g->bytes && bytes <= (uint64_t)(g->base + g->bytes - at);
}

static void check_values(const pith_gguf *g) {
    static const uint8_t width[PITH_GGUF_N_TYPES] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    require(g->n_values <= PITH_GGUF_MAX_KEYS);
    for (uint32_t i = 0; i < g->n_values; i++) {
        const pith_gguf_value *v = &g->values[i];
        require(v->key_length >= 1 && inside(g, v->key, v->key_length));
        require(v->type < PITH_GGUF_N_TYPES && v->item != PITH_GGUF_ARRAY);
        require(v->type == PITH_GGUF_ARRAY || (v->item == v->type && v->n == 1));
        char key[PITH_GGUF_MAX_KEY_BYTES + 1] = {0};
        memcpy(key, v->key, v->key_length);
        require(pith_gguf_find(g, key) == v); // so no other key is the same
        if (v->item != PITH_GGUF_STRING) {
            require(inside(g, v->data, v->n * width[v->item]));
            continue;
        }
        const uint8_t *at = v->data;
        for (uint64_t k = 0; k < v->n; k++) {
            require(inside(g, at, 8));
            pith_text t = pith_gguf_next_text(&at);
            require(inside(g, t.at, t.length) && at == (const uint8_t *)t.at + t.length);
        }
    }
}

static void check_tensors(const pith_gguf *g) {
    require(g->n_tensors <= PITH_GGUF_MAX_TENSORS && g->alignment >= 32);
    const uint8_t *end = g->base + (g->n_tensors ? g->data_offset : 0); // of the tensors before
    for (uint32_t i = 0; i < g->n_tensors; i++) {
        const pith_weight *t = &g->tensors[i];
        require(strlen(t->name) >= 1 && strlen(t->name) <= PITH_GGUF_MAX_NAME_BYTES);
        require(pith_gguf_tensor(g, t->name) == i);
        require(t->type >= 0 && t->type < GGML_TYPE_COUNT);
        for (int d = 0; d < 4; d++) require(t->ne[d] >= 1);
        size_t rows = (size_t)(t->ne[1] * t->ne[2] * t->ne[3]);
        require(t->bytes == rows * ggml_row_size((enum ggml_type)t->type, t->ne[0]) && t->bytes > 0);
        require(inside(g, t->data, t->bytes));
        const uint8_t *data = t->data;
        require(data >= end && (uint64_t)(data - g->base - (ptrdiff_t)g->data_offset) % g->alignment == 0);
        end = data + t->bytes;
    }
}

static void check_model(const pith_gguf *g) {
    pith_config c;
    pith_weights w;
    pith_error err = {0};
    if (!accepted(pith_config_read(g, &c, &err), &err)) return;
    require(c.n_heads % c.n_kv_heads == 0 && c.head_dim % 8 == 0 && c.head_dim <= PITH_MAX_HEAD_DIM);
    require(c.n_ctx >= 1 && c.n_ctx <= PITH_MAX_CONTEXT && c.rope.freq_scale > 0);
    if (!accepted(pith_weights_bind(g, &c, NULL, &w, &err), &err)) return;
    uint32_t n_roles = 2u + (w.head != w.embed) + (c.rope.factors != NULL);
    require(w.embed->ne[1] == c.n_vocab && w.head->ne[1] == c.n_vocab && w.norm->ne[0] == c.d_model);
    for (uint32_t i = 0; i < c.n_layers; i++) {
        const pith_layer_weights *l = &w.layers[i];
        require(l->attn_norm && l->wq && l->wk && l->wv && l->wo && l->ffn_norm && l->gate && l->up && l->down);
        require(l->wq->ne[1] == (int64_t)c.n_heads * c.head_dim && l->wk->ne[1] == (int64_t)c.n_kv_heads * c.head_dim);
        require((l->q_norm != NULL) == (c.arch == PITH_ARCH_QWEN3));
        const pith_weight *optional[] = {l->bq, l->bk, l->bv, l->bo, l->q_norm, l->k_norm, l->bgate, l->bup, l->bdown};
        n_roles += 9;
        for (size_t k = 0; k < sizeof optional / sizeof *optional; k++) n_roles += optional[k] != NULL;
    }
    require(n_roles == g->n_tensors); // every tensor has one role
    pith_weights_free(&w, NULL);
}

static void check_vocabulary(const pith_gguf *g) {
    pith_vocab_facts facts;
    pith_error err = {0};
    if (!accepted(pith_vocab_check(g, &facts, &err), &err)) return;
    const pith_gguf_value *tokens = pith_gguf_find(g, "tokenizer.ggml.tokens");
    require(tokens && tokens->n == facts.n_tokens && facts.n_tokens >= 1);
    require(facts.bos >= -1 && facts.bos < (int32_t)facts.n_tokens);
    require(facts.eos >= -1 && facts.eos < (int32_t)facts.n_tokens);
}

static void drop_log(enum ggml_log_level level, const char *text, void *user) { (void)level, (void)text, (void)user; }

// What we accept, ggml accepts, and sees the same tensors.
static void check_against_ggml(const pith_gguf *g) {
    ggml_log_set(drop_log, NULL);
    struct ggml_context *ctx = NULL;
    struct gguf_context *theirs = gguf_init_from_buffer(g->base, g->bytes, (struct gguf_init_params){true, &ctx});
    require(theirs && gguf_get_n_kv(theirs) == g->n_values && gguf_get_n_tensors(theirs) == g->n_tensors);
    for (uint32_t i = 0; i < g->n_tensors; i++) {
        require(gguf_get_tensor_size(theirs, i) == g->tensors[i].bytes);
        require(gguf_get_data_offset(theirs) + gguf_get_tensor_offset(theirs, i) ==
                (size_t)((const uint8_t *)g->tensors[i].data - g->base));
    }
    gguf_free(theirs);
    ggml_free(ctx);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    pith_gguf g;
    pith_error err = {0};
    if (accepted(pith_gguf_check(data, size, "model.gguf", NULL, &g, &err), &err)) {
        check_values(&g);
        check_tensors(&g);
        check_against_ggml(&g);
        check_model(&g);
        check_vocabulary(&g);
    }
    pith_gguf_free(&g);
    return 0;
}
