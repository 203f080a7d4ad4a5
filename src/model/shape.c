#include "model/shape.h"

#include "base/machine.h"
#include "base/mem.h"
#include "base/rng.h"
#include "ggml.h"
#include "ops/random.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

// --------------------------------------------------------------------------------------------- hyper-parameters

static pith_status read_config(const pith_model_shape *s, pith_config *c, pith_error *err) {
    int arch = PITH_ARCH_QWEN2;
    while (arch <= PITH_ARCH_LLAMA && strcmp(pith_arch_name((pith_arch)arch), s->architecture) != 0) arch++;
    if (arch > PITH_ARCH_LLAMA)
        return pith_fail(err, PITH_E_ARG, "shape %s: architecture: expected one of qwen2, qwen3, llama, found '%.40s'",
                         s->name, s->architecture);
    const struct {
        const char *what;
        uint32_t value, most, multiple;
    } sizes[] = {
        {"layers", s->n_layers, PITH_MAX_LAYERS, 1},
        {"model size", s->d_model, PITH_MAX_WIDTH, 32},
        {"ffn size", s->d_ff, PITH_MAX_WIDTH, 32},
        {"heads", s->n_heads, PITH_MAX_HEADS, s->n_kv_heads ? s->n_kv_heads : 1},
        {"KV heads", s->n_kv_heads, PITH_MAX_HEADS, 1},
        {"head size", s->head_dim, PITH_MAX_HEAD_DIM, 8},
        {"vocabulary", s->n_vocab, PITH_MAX_VOCAB, 1},
        {"context", s->n_ctx, PITH_MAX_CONTEXT, 1},
        {"heads x head size", s->n_heads * s->head_dim, PITH_MAX_WIDTH, 32}, // rows of the output product
    };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (sizes[i].value < 1 || sizes[i].value > sizes[i].most || sizes[i].value % sizes[i].multiple != 0)
            return pith_fail(err, PITH_E_ARG, "shape %s: %s: expected a multiple of %u from 1 to %u, found %u", s->name,
                             sizes[i].what, sizes[i].multiple, sizes[i].most, sizes[i].value);
    if (!(s->rope_base >= 1 && s->rope_base <= 1e15f && s->rms_eps >= 0 && s->rms_eps <= 1))
        return pith_fail(err, PITH_E_ARG, "shape %s: rope base %g or eps %g is not possible", s->name,
                         (double)s->rope_base, (double)s->rms_eps);
    *c = (pith_config){
        .arch = (pith_arch)arch,
        .n_layers = s->n_layers,
        .d_model = s->d_model,
        .n_heads = s->n_heads,
        .n_kv_heads = s->n_kv_heads,
        .head_dim = s->head_dim,
        .d_ff = s->d_ff,
        .n_ctx = s->n_ctx,
        .rms_eps = s->rms_eps,
        .rope = {.neox = arch != PITH_ARCH_LLAMA,
                 .n_rot = s->head_dim,
                 .base = s->rope_base,
                 .freq_scale = 1,
                 .attn_factor = 1,
                 .beta_fast = 32,
                 .beta_slow = 1,
                 .n_ctx_orig = s->n_ctx},
    };
    return PITH_OK;
}

// --------------------------------------------------------------------------------------------------- types

typedef enum role { MATRIX, EMBED, HEAD, VALUE_OR_DOWN } role; // those that a mix of types tells apart

typedef struct mix {
    const char *name;
    int type;
    bool q4_k_m; // some of them q6_k
} mix;

static const mix mixes[] = {
    {"f32", GGML_TYPE_F32, false},   {"f16", GGML_TYPE_F16, false},   {"bf16", GGML_TYPE_BF16, false},
    {"q8_0", GGML_TYPE_Q8_0, false}, {"q4_0", GGML_TYPE_Q4_0, false}, {"q5_0", GGML_TYPE_Q5_0, false},
    {"q4_k", GGML_TYPE_Q4_K, false}, {"q6_k", GGML_TYPE_Q6_K, false}, {"q4_k_m", GGML_TYPE_Q4_K, true},
};
enum { N_MIXES = sizeof mixes / sizeof *mixes };

static const mix *find_mix(const char *name, pith_error *err) {
    for (size_t i = 0; i < N_MIXES; i++)
        if (!strcmp(mixes[i].name, name)) return &mixes[i];
    char known[120] = "";
    for (size_t i = 0; i < N_MIXES; i++)
        snprintf(known + strlen(known), sizeof known - strlen(known), "%s%s", i ? ", " : "", mixes[i].name);
    pith_fail(err, PITH_E_ARG, "type: expected one of %s, found '%.40s'", known, name);
    return NULL;
}

// As llama.cpp's llama-quant.cpp of the pinned tree has it for LLAMA_FTYPE_MOSTLY_Q4_K_M: values and ffn_down of the
// first and the last eighth of the layers and of every third one between them, and whatever makes the logits, are q6_k.
// What blocks of 256 do not fit falls back to a type with blocks of 32.
static int type_of(const mix *m, role r, bool tied, uint32_t layer, uint32_t n_layers, uint32_t cols) {
    int type = m->type;
    if (m->q4_k_m) {
        const uint32_t eighth = n_layers / 8;
        const bool more = layer < eighth || layer >= 7 * n_layers / 8 || (layer - eighth) % 3 == 2;
        if (r == HEAD || (r == EMBED && tied) || (r == VALUE_OR_DOWN && more)) type = GGML_TYPE_Q6_K;
    }
    if (cols % 256 != 0 && type == GGML_TYPE_Q4_K) return GGML_TYPE_Q5_0;
    if (cols % 256 != 0 && type == GGML_TYPE_Q6_K) return GGML_TYPE_Q8_0;
    return type;
}

// ------------------------------------------------------------------------------------------------- the table

typedef struct builder {
    const pith_model_shape *shape;
    const mix *mix;
    uint64_t seed;
    bool makes;
    pith_gguf *gguf; // tables NULL in the first round, which counts
    uint8_t *base;   // of the memory; NULL in the first round
    uint32_t n;      // tensors so far
    uint64_t bytes;  // of memory so far
    int layer;       // -1 outside the layers
} builder;

// The next tensor: its place in the table, or NULL while counting.
static pith_weight *add(builder *b, const char *name, int type, uint32_t cols, uint32_t rows, bool has_data) {
    const size_t bytes = ggml_row_size((enum ggml_type)type, cols) * rows;
    pith_weight *w = b->gguf->tensors ? &b->gguf->tensors[b->n] : NULL;
    if (w) {
        char *copy = b->gguf->names[b->n];
        if (b->layer < 0) snprintf(copy, sizeof b->gguf->names[0], "%s", name);
        else snprintf(copy, sizeof b->gguf->names[0], "blk.%d.%s", b->layer, name);
        pith_nameset_add(&b->gguf->index, copy, (uint32_t)strlen(copy), b->n);
        *w = (pith_weight){.name = copy,
                           .type = type,
                           .ne = {cols, rows, 1, 1},
                           .data = has_data ? b->base + b->bytes : NULL,
                           .bytes = bytes,
                           .seed = pith_mix64(b->seed) + b->n};
    }
    b->n++;
    if (has_data) b->bytes += (bytes + 63) / 64 * 64;
    return w;
}

// A product whose outputs have deviation `gain` for inputs of deviation 1: a uniform value's is scale / sqrt 3.
static void matrix(builder *b, role r, const char *name, uint32_t cols, uint32_t rows, float gain) {
    const uint32_t layer = b->layer < 0 ? 0 : (uint32_t)b->layer;
    const int type = type_of(b->mix, r, b->shape->tied, layer, b->shape->n_layers, cols);
    pith_weight *w = add(b, name, type, cols, rows, b->makes);
    if (!w) return;
    w->scale = gain * sqrtf(3.0f / (float)cols);
    if (w->data) pith_random_rows(w, 0, rows, (void *)(uintptr_t)w->data);
}

// Uniform in (center - spread, center + spread).
static void vector(builder *b, const char *name, uint32_t n, float center, float spread) {
    pith_weight *w = add(b, name, GGML_TYPE_F32, n, 1, true);
    if (!w) return;
    float *x = (void *)(uintptr_t)w->data;
    for (uint32_t i = 0; i < n; i++) x[i] = center + spread * (float)(2 * pith_uniform(w->seed, 0, i) - 1);
}

// Divisors of the rotary frequencies as Llama 3.1's config.json asks for them ("rope_scaling": factor 8, low 1, high 4,
// original context 8192): long waves are slowed down by 8, short ones not at all, those between in part.
static void llama3_factors(builder *b) {
    const float factor = 8, low = 1, high = 4, original = 8192;
    const uint32_t n = b->shape->head_dim / 2;
    pith_weight *w = add(b, "rope_freqs.weight", GGML_TYPE_F32, n, 1, true);
    if (!w) return;
    float *x = (void *)(uintptr_t)w->data;
    for (uint32_t i = 0; i < n; i++) {
        const float turns = original / (6.2831853f * powf(b->shape->rope_base, (float)i / (float)n)); // in the context
        const float part = (turns - low) / (high - low);
        x[i] = part >= 1 ? 1 : part <= 0 ? factor : 1 / ((1 - part) / factor + part);
    }
}

// Every tensor of a file of this architecture. Norms keep the deviations near 1 in every layer, so any depth and length
// stays finite.
static void list_tensors(builder *b, const pith_config *c) {
    const pith_model_shape *s = b->shape;
    const uint32_t D = s->d_model, F = s->d_ff, q_dim = s->n_heads * s->head_dim, kv_dim = s->n_kv_heads * s->head_dim;
    b->n = 0, b->bytes = 0, b->layer = -1;
    // A row of the embedding has deviation 1, unless logits are made with it.
    matrix(b, EMBED, "token_embd.weight", D, s->n_vocab, s->tied ? 1 : sqrtf((float)D));
    if (s->llama3) llama3_factors(b);
    for (b->layer = 0; b->layer < (int)s->n_layers; b->layer++) {
        vector(b, "attn_norm.weight", D, 1, 0.1f);
        matrix(b, MATRIX, "attn_q.weight", D, q_dim, 1);
        matrix(b, MATRIX, "attn_k.weight", D, kv_dim, 1);
        matrix(b, VALUE_OR_DOWN, "attn_v.weight", D, kv_dim, 1);
        if (c->arch == PITH_ARCH_QWEN2) {
            vector(b, "attn_q.bias", q_dim, 0, 0.1f);
            vector(b, "attn_k.bias", kv_dim, 0, 0.1f);
            vector(b, "attn_v.bias", kv_dim, 0, 0.1f);
        }
        if (c->arch == PITH_ARCH_QWEN3) {
            vector(b, "attn_q_norm.weight", s->head_dim, 1, 0.1f);
            vector(b, "attn_k_norm.weight", s->head_dim, 1, 0.1f);
        }
        matrix(b, MATRIX, "attn_output.weight", q_dim, D, 1);
        vector(b, "ffn_norm.weight", D, 1, 0.1f);
        matrix(b, MATRIX, "ffn_gate.weight", D, F, 1);
        matrix(b, MATRIX, "ffn_up.weight", D, F, 1);
        matrix(b, VALUE_OR_DOWN, "ffn_down.weight", F, D, 1);
    }
    b->layer = -1;
    vector(b, "output_norm.weight", D, 1, 0.1f);
    if (!s->tied) matrix(b, HEAD, "output.weight", D, s->n_vocab, 1);
}

// ------------------------------------------------------------------------------------------------ in memory

static pith_status get_memory(const builder *b, pith_mapping *memory, pith_error *err) {
    const uint64_t there = pith_available_bytes();
    void *base = MAP_FAILED;
    if (b->bytes <= there)
        base = mmap(NULL, (size_t)b->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED)
        return pith_fail(err, PITH_E_MEMORY, "%s in %s: the weights need %.2f GB of memory, %.2f GB are there",
                         b->shape->name, b->mix->name, 1e-9 * (double)b->bytes, 1e-9 * (double)there);
    *memory = (pith_mapping){base, (size_t)b->bytes};
    return PITH_OK;
}

pith_status pith_shape_build(const pith_model_shape *shape, const char *type, uint64_t seed, bool makes,
                             const char *name, const pith_allocator *alloc, pith_config *config, pith_gguf *gguf,
                             pith_mapping *memory, pith_error *err) {
    pith_status status = read_config(shape, config, err);
    if (status != PITH_OK) return status;
    builder b = {.shape = shape, .mix = find_mix(type, err), .seed = seed, .makes = makes, .gguf = gguf};
    if (!b.mix) return PITH_E_ARG;
    *gguf = (pith_gguf){.alloc = alloc, .path = name};
    list_tensors(&b, config);
    if ((status = get_memory(&b, memory, err)) != PITH_OK) return status;
    b.base = (uint8_t *)(uintptr_t)memory->base;

    gguf->n_tensors = b.n;
    gguf->tensors = pith_new(alloc, b.n, sizeof *gguf->tensors);
    gguf->names = pith_new(alloc, b.n, sizeof *gguf->names);
    if (gguf->tensors && gguf->names && pith_nameset_init(&gguf->index, alloc, b.n)) {
        list_tensors(&b, config);
        return PITH_OK;
    }
    pith_gguf_free(gguf);
    pith_mapping_close(memory);
    return pith_fail(err, PITH_E_MEMORY, "%s: no memory for its table of tensors", name);
}
