// The weights of a model, by role. Pointers are into the model's tensor table; NULL where the file has none.
#ifndef PITH_MODEL_WEIGHTS_H
#define PITH_MODEL_WEIGHTS_H

#include "model/config.h"

typedef struct pith_layer_weights {
    const pith_weight *attn_norm;           // (D)
    const pith_weight *wq, *wk, *wv, *wo;   // (H*d, D), (G*d, D), (G*d, D), (D, H*d)
    const pith_weight *bq, *bk, *bv, *bo;   // biases of these, or NULL
    const pith_weight *q_norm, *k_norm;     // (d), qwen3 only
    const pith_weight *ffn_norm;            // (D)
    const pith_weight *gate, *up, *down;    // (F, D), (F, D), (D, F)
    const pith_weight *bgate, *bup, *bdown; // biases of these, or NULL; llama only
} pith_layer_weights;

typedef struct pith_weights {
    const pith_weight *embed;   // (V, D)
    const pith_weight *norm;    // (D)
    const pith_weight *head;    // (V, D); the embedding when tied
    pith_layer_weights *layers; // (n_layers), owned
    uint32_t n_layers;
} pith_weights;

// Gives every tensor of the file its role, and sets n_vocab and rope.factors of the configuration. PITH_E_FORMAT for a
// tensor that is missing, has another shape than the configuration says or that no role takes (ignoring it would change
// results); PITH_E_UNSUPPORTED for a type that cannot be multiplied, or a norm or bias that is not f32. `gguf` must
// outlive the weights.
pith_status pith_weights_bind(const pith_gguf *gguf, pith_config *config, const pith_allocator *alloc,
                              pith_weights *out, pith_error *err);
void pith_weights_free(pith_weights *weights, const pith_allocator *alloc); // zeroed ones are allowed

#endif
