// Tiny seeded random models for tests: whole GGUF files that libllama runs as well as we do.
//
// A file has weights of every role its architecture knows (biases, query and key norms, rope factors), a byte-level
// BPE vocabulary with ChatML control tokens, and a ChatML template. The same spec gives the same bytes everywhere.
#ifndef TINY_H
#define TINY_H

#include "ggml.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct tiny_spec {
    const char *arch;     // "qwen2", "qwen3", "llama"
    enum ggml_type type;  // of every matrix; norms and biases are always f32
    enum ggml_type embed; // of the embedding; the same as `type` unless changed
    uint32_t n_layers;
    uint32_t d_model;
    uint32_t n_heads; // a multiple of n_kv_heads
    uint32_t n_kv_heads;
    uint32_t head_dim; // libllama wants n_heads * head_dim == d_model for qwen2
    uint32_t d_ff;
    uint32_t n_vocab; // at least TINY_MIN_VOCAB
    uint32_t n_ctx;
    float rope_base;
    const char *rope_scaling; // NULL, "none", "linear", "yarn"
    float rope_factor;        // with rope_scaling
    uint32_t n_ctx_orig;      // with rope_scaling; 0: no key
    bool rope_freqs;          // a rope_freqs.weight tensor, llama only
    bool tied;                // no output.weight
    bool biases;              // of Q, K and V; for llama of every product
    bool add_bos;             // begin-of-sequence token wanted
    bool thinks;              // the chat template opens a thought for the assistant
    float gain;               // of the Q and K products: above 1 attention is peaked, so that positions matter
    uint64_t seed;
} tiny_spec;

#define TINY_MIN_VOCAB 320u

// Sizes that suit the type's blocks: D 128 (256 for blocks of 256), 4 query and 2 KV heads, two layers, context 4096.
tiny_spec tiny_default(const char *arch, enum ggml_type type);

// Ids of the control tokens in a vocabulary of n_vocab.
typedef struct tiny_tokens {
    int32_t end_of_text, im_start, im_end, think, end_think;
} tiny_tokens;
tiny_tokens tiny_control_tokens(uint32_t n_vocab);

// Writes the file; false with a line on stderr when that fails. Needs memory for one tensor only.
bool tiny_model_write(const char *path, const tiny_spec *spec);

// The same, loaded: its file, in the current folder, is gone again when this returns. NULL after a line on stderr.
struct pith_model *tiny_model_open(const tiny_spec *spec);

#endif
