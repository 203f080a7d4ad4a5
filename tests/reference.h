// A plain transformer in double precision over a model's F32 weights: one token at a time, all keys and values kept for
// ever, evicted positions masked out of the softmax. What the engine's logits, cached keys and observed queries are
// compared with. Written from the architectures' definitions and not from our forward pass.
//
// Glossary as in ops.h: D model size, H query heads, G KV heads, g = H/G, d head size, F ffn size, V vocabulary.
#ifndef REFERENCE_H
#define REFERENCE_H

#include "model/model.h"

typedef struct reference {
    const pith_config *config;
    const pith_weights *weights; // F32 only
    bool f16;                    // keys and values are rounded to f16, as an f16 cache does
    uint32_t n;                  // tokens so far
    uint32_t capacity;
    double *q;      // (n_layers, capacity, H, d) after RoPE
    double *k, *v;  // (n_layers, capacity, G, d), keys after RoPE
    bool *hidden;   // (n_layers, G, capacity): evicted positions
    double *logits; // (V) of the last token
    double *work;   // scratch of a step
} reference;

// `model` is borrowed. Fails the test for weights that are not F32 and for YaRN.
void reference_open(reference *, const pith_model *model, uint32_t capacity, bool f16);
void reference_close(reference *);

// The next token of the timeline. It sees every position before it that is not hidden, and itself.
void reference_step(reference *, pith_token token);

// From the next step on, of the positions so far only the n in `kept` are seen in KV head `head` of `layer` (-1: in all
// of them). Fails the test when a position comes back that was evicted before.
void reference_keep(reference *, uint32_t layer, int32_t head, const int32_t *kept, uint32_t n);

static inline double *reference_query(const reference *r, uint32_t layer, uint32_t pos) { // (H, d)
    return r->q + ((size_t)layer * r->capacity + pos) * r->config->n_heads * r->config->head_dim;
}
static inline double *reference_key(const reference *r, uint32_t layer, uint32_t pos, uint32_t head) { // (d)
    return r->k + (((size_t)layer * r->capacity + pos) * r->config->n_kv_heads + head) * r->config->head_dim;
}
static inline double *reference_value(const reference *r, uint32_t layer, uint32_t pos, uint32_t head) { // (d)
    return r->v + (((size_t)layer * r->capacity + pos) * r->config->n_kv_heads + head) * r->config->head_dim;
}

#endif
