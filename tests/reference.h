// A plain transformer in double precision over a model's weights of any type: one token at a time, all keys and values
// kept for ever, evicted positions masked out of the softmax. What the engine's logits, cached keys and observed
// queries are compared with. Written from the architectures' definitions and not from our forward pass.
//
// Glossary as in ops.h: D model size, H query heads, G KV heads, g = H/G, d head size, F ffn size, V vocabulary.
#ifndef REFERENCE_H
#define REFERENCE_H

#include "model/model.h"

// To what a device rounds: nothing, f16 or bf16.
typedef enum reference_round { REF_EXACT, REF_F16, REF_BF16 } reference_round;
typedef struct reference_rounding {
    reference_round cache;       // keys and values; queries too, where activations are rounded
    reference_round activations; // what a product multiplies
    bool blocks;                 // those that meet weights which a GPU has packed, to 8 bits in blocks of 32 then
    bool foreign;                // weights of types without kernels on a GPU, to bf16
} reference_rounding;

typedef struct reference_matrix { // a tensor's weights in f32
    const pith_weight *of;
    float *values;
} reference_matrix;

typedef struct reference {
    const pith_config *config;
    const pith_weights *weights;
    reference_rounding rounding;
    reference_matrix *matrices; // (n_matrices) met so far
    uint32_t n_matrices;
    uint32_t n; // tokens so far
    uint32_t capacity;
    double *q;      // (n_layers, capacity, H, d) after RoPE
    double *k, *v;  // (n_layers, capacity, G, d), keys after RoPE
    bool *hidden;   // (n_layers, G, capacity): evicted positions
    double *logits; // (V) of the last token
    double *work;   // scratch of a step
    double *blocks; // and of a product
} reference;

// `model` is borrowed. Fails the test for YaRN.
void reference_open(reference *, const pith_model *model, uint32_t capacity, reference_rounding);
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
