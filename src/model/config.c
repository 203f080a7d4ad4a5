#include "model/config.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char *const arch_names[] = {
    [PITH_ARCH_QWEN2] = "qwen2", [PITH_ARCH_QWEN3] = "qwen3", [PITH_ARCH_LLAMA] = "llama"};
enum { N_ARCHS = sizeof arch_names / sizeof *arch_names };

const char *pith_arch_name(pith_arch arch) { return arch_names[arch]; }

// Reads "<arch>.<name>" keys; the first error sticks.
typedef struct source {
    const pith_gguf *gguf;
    const char *arch;
    char key[96];
    pith_status status;
    pith_error *err;
} source;

static const char *set_key(source *s, const char *name) {
    snprintf(s->key, sizeof s->key, "%s.%s", s->arch, name);
    return s->key;
}

typedef enum presence { OPTIONAL, REQUIRED } presence;

static uint32_t read_u32(source *s, const char *name, presence need, uint32_t value, uint32_t least, uint32_t most) {
    if (s->status != PITH_OK) return value;
    s->status = pith_gguf_u32(s->gguf, set_key(s, name), need == REQUIRED, &value, s->err);
    if (s->status == PITH_OK && (value < least || value > most))
        s->status = pith_fail(s->err, PITH_E_FORMAT, "%s: %s: expected %u to %u, found %u", s->gguf->path, s->key,
                              least, most, value);
    return value;
}

static float read_f32(source *s, const char *name, presence need, float value, float least, float most) {
    if (s->status != PITH_OK) return value;
    s->status = pith_gguf_f32(s->gguf, set_key(s, name), need == REQUIRED, &value, s->err);
    if (s->status == PITH_OK && !(value >= least && value <= most)) // NaN too
        s->status = pith_fail(s->err, PITH_E_FORMAT, "%s: %s: expected %g to %g, found %g", s->gguf->path, s->key,
                              (double)least, (double)most, (double)value);
    return value;
}

// A number per layer, all equal, or one for all: head counts and ffn sizes may be written either way.
static uint32_t read_same(source *s, const char *name, presence need, uint32_t value, uint32_t least, uint32_t most) {
    const pith_gguf_value *v = s->status == PITH_OK ? pith_gguf_find(s->gguf, set_key(s, name)) : NULL;
    if (!v || v->type != PITH_GGUF_ARRAY) return read_u32(s, name, need, value, least, most);
    if ((v->item != PITH_GGUF_U32 && v->item != PITH_GGUF_I32) || v->n == 0) {
        s->status = pith_fail(s->err, PITH_E_FORMAT, "%s: %s: expected u32, found an array of %s", s->gguf->path,
                              s->key, pith_gguf_type_name(v->item));
        return value;
    }
    value = pith_gguf_u32_at(v, 0);
    for (uint64_t i = 1; i < v->n; i++)
        if (pith_gguf_u32_at(v, i) != value)
            s->status = pith_fail(s->err, PITH_E_UNSUPPORTED, "%s: %s: layers that differ cannot be run", s->gguf->path,
                                  s->key);
    if (s->status == PITH_OK && (value < least || value > most))
        s->status = pith_fail(s->err, PITH_E_FORMAT, "%s: %s: expected %u to %u, found %u", s->gguf->path, s->key,
                              least, most, value);
    return value;
}

// Refuses a feature that a key other than 0 asks for.
static void refuse_feature(source *s, const char *name, const char *what) {
    uint32_t n = read_u32(s, name, OPTIONAL, 0, 0, UINT32_MAX);
    if (s->status == PITH_OK && n > 0)
        s->status =
            pith_fail(s->err, PITH_E_UNSUPPORTED, "%s: %s: %s cannot be run, found %u", s->gguf->path, s->key, what, n);
}

static void read_arch(source *s, pith_config *c) {
    pith_text name;
    s->status = pith_gguf_text(s->gguf, "general.architecture", true, &name, s->err);
    if (s->status != PITH_OK) return;
    for (int i = 0; i < N_ARCHS; i++)
        if (pith_text_is(name, arch_names[i])) {
            c->arch = (pith_arch)i;
            s->arch = arch_names[i];
            return;
        }
    int shown = name.length > 60 ? 60 : (int)name.length;
    s->status = pith_fail(s->err, PITH_E_UNSUPPORTED,
                          "%s: general.architecture: expected one of qwen2, qwen3, llama, found '%.*s'", s->gguf->path,
                          shown, name.at);
}

static void read_sizes(source *s, pith_config *c) {
    refuse_feature(s, "expert_count", "a mixture of experts");
    refuse_feature(s, "nextn_predict_layers", "layers that predict further tokens");
    bool causal = true;
    if (s->status == PITH_OK)
        s->status = pith_gguf_bool(s->gguf, set_key(s, "attention.causal"), false, &causal, s->err);
    if (s->status == PITH_OK && !causal)
        s->status =
            pith_fail(s->err, PITH_E_UNSUPPORTED, "%s: %s: only causal models can be run", s->gguf->path, s->key);

    c->n_layers = read_u32(s, "block_count", REQUIRED, 0, 1, PITH_MAX_LAYERS);
    c->d_model = read_u32(s, "embedding_length", REQUIRED, 0, 1, PITH_MAX_WIDTH);
    c->d_ff = read_same(s, "feed_forward_length", REQUIRED, 0, 1, PITH_MAX_WIDTH);
    c->n_heads = read_same(s, "attention.head_count", REQUIRED, 0, 1, PITH_MAX_HEADS);
    c->n_kv_heads = read_same(s, "attention.head_count_kv", OPTIONAL, c->n_heads, 1, PITH_MAX_HEADS);
    c->n_ctx = read_u32(s, "context_length", REQUIRED, 0, 1, PITH_MAX_CONTEXT);
    c->rms_eps = read_f32(s, "attention.layer_norm_rms_epsilon", REQUIRED, 0, 0, 1);
}

static void read_heads(source *s, pith_config *c) {
    if (s->status != PITH_OK) return;
    if (c->n_heads % c->n_kv_heads != 0) {
        s->status = pith_fail(s->err, PITH_E_FORMAT,
                              "%s: %s.attention.head_count: expected a multiple of the %u KV heads, found %u",
                              s->gguf->path, s->arch, c->n_kv_heads, c->n_heads);
        return;
    }
    uint32_t d = c->d_model / c->n_heads; // when the file does not say
    c->head_dim = read_u32(s, "attention.key_length", OPTIONAL, d, 1, UINT32_MAX);
    uint32_t values = read_u32(s, "attention.value_length", OPTIONAL, d, 1, UINT32_MAX);
    if (s->status == PITH_OK && values != c->head_dim)
        s->status = pith_fail(s->err, PITH_E_UNSUPPORTED, "%s: %s: expected the keys' %u, found %u", s->gguf->path,
                              s->key, c->head_dim, values);
    if (s->status == PITH_OK && (c->head_dim % 8 != 0 || c->head_dim > PITH_MAX_HEAD_DIM))
        s->status = pith_fail(s->err, PITH_E_UNSUPPORTED, "%s: head size: expected a multiple of 8 up to %u, found %u",
                              s->gguf->path, PITH_MAX_HEAD_DIM, c->head_dim);
    // libllama insists on the same: no partial rotary embedding in these architectures.
    uint32_t n_rot = read_u32(s, "rope.dimension_count", OPTIONAL, c->head_dim, 0, UINT32_MAX);
    if (s->status == PITH_OK && n_rot != c->head_dim)
        s->status = pith_fail(s->err, PITH_E_UNSUPPORTED, "%s: %s: expected the head size, %u, found %u", s->gguf->path,
                              s->key, c->head_dim, n_rot);
}

typedef enum scaling { SCALING_NONE, SCALING_LINEAR, SCALING_YARN } scaling;

static scaling read_scaling(source *s) {
    pith_text name;
    if (s->status == PITH_OK)
        s->status = pith_gguf_text(s->gguf, set_key(s, "rope.scaling.type"), false, &name, s->err);
    if (s->status != PITH_OK) return SCALING_NONE;
    if (!name.at || pith_text_is(name, "linear")) return SCALING_LINEAR; // harmless without a factor
    if (pith_text_is(name, "yarn")) return SCALING_YARN;
    if (pith_text_is(name, "none")) return SCALING_NONE;
    int shown = name.length > 60 ? 60 : (int)name.length;
    s->status = pith_fail(s->err, PITH_E_UNSUPPORTED, "%s: %s: expected one of none, linear, yarn, found '%.*s'",
                          s->gguf->path, s->key, shown, name.at);
    return SCALING_NONE;
}

// What libllama makes of the same keys (its llama_model_base::load_hparams and llama_context), in the same order of
// operations.
//
// ggml's rotation multiplies sines and cosines by attn_factor * (1 + 0.1 ln factor) when ext_factor is not 0. So YaRN's
// own factor, 1 + 0.1 ln factor (arXiv 2309.00071, equation 22), is already in there, and what is passed on cancels to
// 1 up to rounding, or for factors below 1 removes it.
//
// The keys yarn_ext_factor, yarn_attn_factor, yarn_beta_fast, yarn_beta_slow and yarn_log_multiplier are read by
// libllama for other architectures only. We follow it, and so use YaRN's defaults.
static void read_rope(source *s, pith_config *c) {
    pith_rope *rope = &c->rope;
    *rope =
        (pith_rope){.neox = c->arch != PITH_ARCH_LLAMA, .n_rot = c->head_dim, .beta_fast = 32.0f, .beta_slow = 1.0f};
    rope->base = read_f32(s, "rope.freq_base", OPTIONAL, 10000.0f, 1.0f, 1e15f);
    scaling kind = read_scaling(s);
    float factor = read_f32(s, "rope.scale_linear", OPTIONAL, 0, 0, 65536.0f); // the old name
    factor = read_f32(s, "rope.scaling.factor", OPTIONAL, factor, 0, 65536.0f);
    rope->attn_factor = read_f32(s, "rope.scaling.attn_factor", OPTIONAL, 1.0f, 0, 65536.0f);
    uint32_t original = read_u32(s, "rope.scaling.original_context_length", OPTIONAL, 0, 0, PITH_MAX_CONTEXT);
    if (s->status == PITH_OK && factor != 0 && factor < 1.0f / 65536.0f)
        s->status = pith_fail(s->err, PITH_E_FORMAT, "%s: %s.rope.scaling.factor: %g is not possible", s->gguf->path,
                              s->arch, (double)factor);
    if (s->status != PITH_OK) return;

    rope->n_ctx_orig = original ? original : c->n_ctx;
    rope->freq_scale = kind == SCALING_NONE || factor == 0.0f ? 1.0f : 1.0f / factor;
    if (kind == SCALING_YARN) {
        rope->ext_factor = 1.0f;
        float f = 1.0f / rope->freq_scale;
        float own = f <= 1.0f ? 1.0f : 0.1f * 1.0f * logf(f) + 1.0f;
        own *= 1.0f / (1.0f + 0.1f * logf(f));
        rope->attn_factor *= own;
    }
    // context_length is max_position_embeddings of the original model. Some write the scaled length there (Llama 3.1,
    // Phi), some the length before scaling (Qwen 2.5 with YaRN): the product tells when the original is given as well.
    double scaled = kind == SCALING_NONE ? 0.0 : (double)original * (double)factor;
    if (scaled > c->n_ctx) c->n_ctx = scaled < PITH_MAX_CONTEXT ? (uint32_t)scaled : PITH_MAX_CONTEXT;
}

pith_status pith_config_read(const pith_gguf *gguf, pith_config *out, pith_error *err) {
    source s = {.gguf = gguf, .err = err};
    pith_config c = {0};
    read_arch(&s, &c);
    read_sizes(&s, &c);
    read_heads(&s, &c);
    read_rope(&s, &c);
    // attention.sliding_window, which some Mistral files have, is ignored, as libllama does for these architectures:
    // the result is the model's own up to that many positions.
    *out = c;
    return s.status;
}
