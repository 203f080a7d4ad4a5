// Hyper-parameters of a model, from GGUF metadata.
#ifndef PITH_MODEL_CONFIG_H
#define PITH_MODEL_CONFIG_H

#include "model/gguf.h"
#include "ops/ops.h"

typedef enum pith_arch { PITH_ARCH_QWEN2, PITH_ARCH_QWEN3, PITH_ARCH_LLAMA } pith_arch;

typedef struct pith_config {
    pith_arch arch;
    uint32_t n_layers;
    uint32_t d_model;    // D
    uint32_t n_heads;    // H
    uint32_t n_kv_heads; // G
    uint32_t head_dim;   // d; keys and values alike
    uint32_t d_ff;       // F
    uint32_t n_vocab;    // V; as the embedding has it, so 0 until the weights are bound
    uint32_t n_ctx;      // positions usable after rope scaling
    float rms_eps;
    pith_rope rope; // factors point into the weights
} pith_config;

// Largest values accepted: above anything real, and small enough that no size computed from them overflows.
#define PITH_MAX_LAYERS 1024u
#define PITH_MAX_HEADS 1024u
#define PITH_MAX_WIDTH (1u << 20) // of D and F
#define PITH_MAX_VOCAB (1u << 24)
#define PITH_MAX_CONTEXT (1u << 30) // positions are int32

// Reads and checks the keys of the architecture. PITH_E_FORMAT for a missing key, a wrong type, a value out of range or
// one that contradicts another; PITH_E_UNSUPPORTED for an architecture or a feature of it that the forward pass does
// not have (it names those there are).
pith_status pith_config_read(const pith_gguf *gguf, pith_config *out, pith_error *err);

const char *pith_arch_name(pith_arch arch); // "qwen2", "qwen3", "llama": general.architecture

#endif
