// Loading a model: what a file says of itself, every architecture and tensor type, and what is refused.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

#include "change.h"
#include "counting.h"
#include "ggml-cpu.h"
#include "model/model.h"
#include "tiny.h"

static char good[64], bad[64]; // files of this process, in the current folder

static int set_up(void **state) {
    (void)state;
    snprintf(good, sizeof good, "test_model.%d.good.gguf", (int)getpid());
    snprintf(bad, sizeof bad, "test_model.%d.bad.gguf", (int)getpid());
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    unlink(good);
    unlink(bad);
    return 0;
}

static pith_model *load(const char *path) {
    pith_model *model;
    pith_error err;
    if (pith_model_load(path, NULL, &model, &err) != PITH_OK) fail_msg("%s", err.msg);
    return model;
}

static pith_model *load_tiny(const tiny_spec *spec) {
    assert_true(tiny_model_write(good, spec));
    return load(good);
}

static void expect_file(const char *path, pith_status status, const char *part) {
    pith_model *model = (pith_model *)&model;
    pith_error err = {0};
    pith_status got = pith_model_load(path, NULL, &model, &err);
    if (got != status || !strstr(err.msg, part) || !strstr(err.msg, path))
        fail_msg("expected %s '%s', got %s '%s'", pith_status_name(status), part, pith_status_name(got), err.msg);
    assert_int_equal(err.status, status);
    assert_null(model);
    assert_null(strchr(err.msg, '\n'));
}

// ----------------------------------------------------------------------------------------------- accepted

static void test_describe(void **state) {
    (void)state;
    static const char *const archs[] = {"qwen2", "qwen3", "llama"};
    for (int a = 0; a < 3; a++) {
        tiny_spec spec = tiny_default(archs[a], GGML_TYPE_F32);
        spec.n_layers = 3, spec.d_ff = 224, spec.n_vocab = 401, spec.n_ctx = 777, spec.rope_base = 5000;
        pith_model *model = load_tiny(&spec);
        pith_model_info info;
        pith_model_describe(model, &info);
        assert_string_equal(info.name, "tiny");
        assert_string_equal(info.architecture, archs[a]);
        assert_int_equal(info.n_layers, 3);
        assert_int_equal(info.n_heads, 4);
        assert_int_equal(info.n_kv_heads, 2);
        assert_int_equal(info.head_dim, spec.head_dim);
        assert_int_equal(info.d_model, 128);
        assert_int_equal(info.d_ff, 224);
        assert_int_equal(info.n_vocab, 401);
        assert_int_equal(info.n_ctx, 777);
        assert_true(info.has_chat_template);
        assert_int_equal(info.weight_bytes, 4 * info.n_parameters);

        const pith_config *c = pith_model_config(model);
        assert_true(c->rope.neox == (a != 2));
        assert_int_equal(c->rope.n_rot, spec.head_dim);
        assert_true(c->rope.base == 5000.0f && c->rope.freq_scale == 1.0f && c->rope.ext_factor == 0.0f);
        assert_true(c->rope.attn_factor == 1.0f && c->rope.beta_fast == 32.0f && c->rope.beta_slow == 1.0f);
        assert_true(c->rms_eps == 1e-6f);
        assert_null(c->rope.factors);
        pith_model_free(model);
    }
}

// Roles: each pointer is the tensor of that name, in the mapping, with the shape of the header.
static void test_roles(void **state) {
    (void)state;
    tiny_spec spec = tiny_default("llama", GGML_TYPE_F16);
    spec.biases = spec.rope_freqs = true;
    spec.head_dim = 40;
    pith_model *model = load_tiny(&spec);
    const pith_weights *w = pith_model_weights(model);
    assert_string_equal(w->embed->name, "token_embd.weight");
    assert_string_equal(w->norm->name, "output_norm.weight");
    assert_string_equal(w->head->name, "output.weight");
    const pith_layer_weights *l = &w->layers[1];
    const struct {
        const pith_weight *at;
        const char *name;
        int64_t cols, rows;
    } roles[] = {
        {l->attn_norm, "blk.1.attn_norm.weight", 128, 1},
        {l->wq, "blk.1.attn_q.weight", 128, 160},
        {l->wk, "blk.1.attn_k.weight", 128, 80},
        {l->wv, "blk.1.attn_v.weight", 128, 80},
        {l->wo, "blk.1.attn_output.weight", 160, 128},
        {l->bq, "blk.1.attn_q.bias", 160, 1},
        {l->bk, "blk.1.attn_k.bias", 80, 1},
        {l->bv, "blk.1.attn_v.bias", 80, 1},
        {l->bo, "blk.1.attn_output.bias", 128, 1},
        {l->ffn_norm, "blk.1.ffn_norm.weight", 128, 1},
        {l->gate, "blk.1.ffn_gate.weight", 128, 192},
        {l->up, "blk.1.ffn_up.weight", 128, 192},
        {l->down, "blk.1.ffn_down.weight", 192, 128},
        {l->bgate, "blk.1.ffn_gate.bias", 192, 1},
        {l->bup, "blk.1.ffn_up.bias", 192, 1},
        {l->bdown, "blk.1.ffn_down.bias", 128, 1},
    };
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++) {
        assert_string_equal(roles[i].at->name, roles[i].name);
        assert_int_equal(roles[i].at->ne[0], roles[i].cols);
        assert_int_equal(roles[i].at->ne[1], roles[i].rows);
        assert_int_equal((uintptr_t)roles[i].at->data % 32, 0);
    }
    assert_null(l->q_norm);
    assert_string_equal(pith_model_config(model)->rope.factors->name, "rope_freqs.weight");
    pith_model_free(model);

    // The values are those of the file, as ggml reads them.
    change c;
    assert_true(change_begin(&c, good));
    model = load(good);
    const pith_gguf *g = pith_model_gguf(model);
    assert_int_equal(g->n_tensors, c.n);
    for (uint32_t i = 0; i < g->n_tensors; i++) {
        assert_int_equal(g->tensors[i].bytes, ggml_nbytes(c.t[i]));
        assert_memory_equal(g->tensors[i].data, c.t[i]->data, g->tensors[i].bytes);
    }
    pith_model_free(model);
    assert_true(change_end(&c, bad));
}

static void test_tied_and_norms(void **state) {
    (void)state;
    tiny_spec spec = tiny_default("qwen3", GGML_TYPE_Q8_0);
    spec.tied = true;
    pith_model *model = load_tiny(&spec);
    const pith_weights *w = pith_model_weights(model);
    assert_ptr_equal(w->head, w->embed);
    assert_non_null(w->layers[0].q_norm);
    assert_int_equal(w->layers[0].q_norm->ne[0], spec.head_dim);
    assert_null(w->layers[0].bq);
    pith_model_free(model);
}

// ggml searches its tables for the codebook types for many seconds before it can quantise to them.
static bool is_slow_to_make(int type) {
    return type == GGML_TYPE_IQ1_S || type == GGML_TYPE_IQ1_M || type == GGML_TYPE_IQ2_XXS || type == GGML_TYPE_IQ2_XS ||
           type == GGML_TYPE_IQ2_S;
}

static void test_every_type(void **state) {
    (void)state;
    const bool quick = getenv("PITH_TEST_QUICK");
    int n = 0;
    for (int type = 0; type < GGML_TYPE_COUNT; type++) {
        bool stored = type == GGML_TYPE_F32 || ggml_get_type_traits((enum ggml_type)type)->to_float;
        if (!stored || !ggml_get_type_traits_cpu((enum ggml_type)type)->vec_dot) continue;
        if (quick && is_slow_to_make(type)) continue;
        tiny_spec spec = tiny_default("llama", (enum ggml_type)type);
        pith_model *model = load_tiny(&spec);
        assert_int_equal(pith_model_weights(model)->layers[0].wq->type, type);
        pith_model_free(model);
        n++;
    }
    print_message("%d tensor types\n", n);
    assert_true(n >= (quick ? 20 : 25));
}

static void test_rope_scaling(void **state) {
    (void)state;
    const struct {
        const char *kind;
        float factor;
        uint32_t original;
        float freq_scale, ext;
        uint32_t n_ctx_orig, n_ctx;
    } cases[] = {
        {"none", 4, 1024, 1.0f, 0, 1024, 4096},     {"linear", 4, 0, 0.25f, 0, 4096, 4096},
        {"linear", 4, 4096, 0.25f, 0, 4096, 16384}, {"yarn", 4, 1024, 0.25f, 1, 1024, 4096},
        {"yarn", 4, 4096, 0.25f, 1, 4096, 16384},   {"yarn", 0, 2048, 1.0f, 1, 2048, 4096},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        tiny_spec spec = tiny_default("qwen2", GGML_TYPE_F32);
        spec.rope_scaling = cases[i].kind, spec.rope_factor = cases[i].factor, spec.n_ctx_orig = cases[i].original;
        pith_model *model = load_tiny(&spec);
        const pith_rope *r = &pith_model_config(model)->rope;
        assert_true(r->freq_scale == cases[i].freq_scale && r->ext_factor == cases[i].ext);
        assert_int_equal(r->n_ctx_orig, cases[i].n_ctx_orig);
        assert_int_equal(pith_model_config(model)->n_ctx, cases[i].n_ctx);
        assert_true(fabsf(r->attn_factor - 1.0f) <= 0x1p-23f); // ggml's rotation has YaRN's own factor
        pith_model_free(model);
    }
}

// Head counts and sizes may be written once per layer, when all are equal.
static void test_equal_per_layer(void **state) {
    (void)state;
    tiny_spec spec = tiny_default("llama", GGML_TYPE_F32);
    assert_true(tiny_model_write(good, &spec));
    change c;
    assert_true(change_begin(&c, good));
    gguf_set_arr_data(c.keys, "llama.attention.head_count_kv", GGUF_TYPE_INT32, (const int32_t[]){2, 2}, 2);
    gguf_set_arr_data(c.keys, "llama.feed_forward_length", GGUF_TYPE_UINT32, (const uint32_t[]){192, 192}, 2);
    assert_true(change_end(&c, bad));
    pith_model *model = load(bad);
    assert_int_equal(pith_model_config(model)->n_kv_heads, 2);
    assert_int_equal(pith_model_config(model)->d_ff, 192);
    pith_model_free(model);
}

// ------------------------------------------------------------------------------------------ files refused

static void test_not_a_model(void **state) {
    (void)state;
    expect_file("no-such-file.gguf", PITH_E_IO, "No such file");
    expect_file(".", PITH_E_IO, "expected a model file, found a directory");
    expect_file("/dev/null", PITH_E_IO, "expected a regular file");
    unlink(bad);
    assert_int_equal(mkfifo(bad, 0600), 0);
    expect_file(bad, PITH_E_IO, "expected a regular file"); // and does not wait for a writer
    unlink(bad);
    FILE *f = fopen(bad, "wb");
    assert_non_null(f);
    fclose(f);
    expect_file(bad, PITH_E_FORMAT, "the file is empty");
    f = fopen(bad, "wb");
    assert_non_null(f);
    fputs("#!/bin/sh\necho not a model\n", f);
    fclose(f);
    expect_file(bad, PITH_E_FORMAT, "not a GGUF file");
    if (geteuid() != 0) { // root may read anything
        assert_int_equal(chmod(bad, 0), 0);
        expect_file(bad, PITH_E_IO, "Permission denied");
    }
    unlink(bad);

    // A path that would fill the line is named by its end.
    char path[1000], *end = path;
    for (int i = 0; i < 60; i++) end += snprintf(end, 16, "long-folder/");
    snprintf(end, 32, "missing.gguf");
    pith_model *model;
    pith_error err;
    assert_int_equal(pith_model_load(path, NULL, &model, &err), PITH_E_IO);
    assert_non_null(strstr(err.msg, "missing.gguf: No such file"));
}

static void test_truncated(void **state) {
    (void)state;
    tiny_spec spec = tiny_default("qwen2", GGML_TYPE_Q4_0);
    pith_model *model = load_tiny(&spec);
    long data = (long)pith_model_gguf(model)->data_offset, all = (long)pith_model_gguf(model)->bytes;
    pith_model_free(model);
    const struct {
        long bytes;
        const char *part;
    } cases[] = {
        {10, "truncated inside the header"},
        {100, "inside metadata"},
        {data - 200, "truncated"},
        {data + 100, "token_embd.weight: truncated inside tensor data"},
        {(data + all) / 2, "inside tensor data"},
        {all - 1, "output.weight: truncated inside tensor data"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_true(tiny_model_write(good, &spec));
        assert_int_equal(truncate(good, cases[i].bytes), 0);
        expect_file(good, PITH_E_FORMAT, cases[i].part);
    }
}

// ----------------------------------------------------------------------------------------- models refused

// Loads a changed copy of a tiny model of `arch`.
#define CASE(arch, edit, status, part)                                                                                 \
    do {                                                                                                               \
        tiny_spec spec = tiny_default(arch, GGML_TYPE_F32);                                                            \
        assert_true(tiny_model_write(good, &spec));                                                                    \
        change c;                                                                                                      \
        assert_true(change_begin(&c, good));                                                                           \
        edit;                                                                                                          \
        assert_true(change_end(&c, bad));                                                                              \
        expect_file(bad, status, part);                                                                                \
    } while (0)

static void test_architecture(void **state) {
    (void)state;
    CASE("llama", gguf_set_val_str(c.keys, "general.architecture", "gemma3"), PITH_E_UNSUPPORTED,
         "general.architecture: expected one of qwen2, qwen3, llama, found 'gemma3'");
    CASE("llama", gguf_remove_key(c.keys, "general.architecture"), PITH_E_FORMAT,
         "general.architecture: the key is missing");
    CASE("llama", gguf_set_val_u32(c.keys, "general.architecture", 1), PITH_E_FORMAT, "expected string, found u32");
    CASE("llama", gguf_set_val_u32(c.keys, "llama.expert_count", 8), PITH_E_UNSUPPORTED,
         "llama.expert_count: a mixture of experts cannot be run, found 8");
    CASE("qwen2", gguf_set_val_bool(c.keys, "qwen2.attention.causal", false), PITH_E_UNSUPPORTED, "only causal models");
}

static void test_hyper_parameters(void **state) {
    (void)state;
    CASE("qwen2", gguf_remove_key(c.keys, "qwen2.block_count"), PITH_E_FORMAT, "qwen2.block_count: the key is missing");
    CASE("qwen2", gguf_set_val_f32(c.keys, "qwen2.block_count", 2), PITH_E_FORMAT,
         "qwen2.block_count: expected u32, found f32");
    CASE("qwen2", gguf_set_val_u32(c.keys, "qwen2.block_count", 0), PITH_E_FORMAT, "expected 1 to 1024, found 0");
    CASE("qwen2", gguf_set_val_u32(c.keys, "qwen2.block_count", 1u << 31), PITH_E_FORMAT, "expected 1 to 1024");
    CASE("qwen2", gguf_set_val_u32(c.keys, "qwen2.embedding_length", UINT32_MAX), PITH_E_FORMAT,
         "qwen2.embedding_length");
    CASE("qwen2", gguf_set_val_u32(c.keys, "qwen2.attention.head_count", 0), PITH_E_FORMAT,
         "expected 1 to 1024, found 0");
    CASE("qwen2", gguf_set_val_u32(c.keys, "qwen2.attention.head_count_kv", 3), PITH_E_FORMAT,
         "qwen2.attention.head_count: expected a multiple of the 3 KV heads, found 4");
    CASE("qwen2",
         gguf_set_arr_data(c.keys, "qwen2.attention.head_count_kv", GGUF_TYPE_UINT32, (const uint32_t[]){2, 1}, 2),
         PITH_E_UNSUPPORTED, "qwen2.attention.head_count_kv: layers that differ cannot be run");
    CASE("qwen2", gguf_set_arr_data(c.keys, "qwen2.attention.head_count_kv", GGUF_TYPE_UINT32, NULL, 0), PITH_E_FORMAT,
         "qwen2.attention.head_count_kv: expected u32, found an array of u32");
    CASE("qwen2", gguf_set_val_u32(c.keys, "qwen2.attention.value_length", 64), PITH_E_UNSUPPORTED,
         "qwen2.attention.value_length: expected the keys' 32, found 64");
    CASE("qwen3",
         (gguf_set_val_u32(c.keys, "qwen3.attention.key_length", 60),
          gguf_set_val_u32(c.keys, "qwen3.attention.value_length", 60)),
         PITH_E_UNSUPPORTED, "head size: expected a multiple of 8 up to 256, found 60");
    CASE("qwen3",
         (gguf_set_val_u32(c.keys, "qwen3.attention.key_length", 264),
          gguf_set_val_u32(c.keys, "qwen3.attention.value_length", 264)),
         PITH_E_UNSUPPORTED, "head size: expected a multiple of 8 up to 256, found 264");
    CASE("llama", gguf_set_val_u32(c.keys, "llama.rope.dimension_count", 16), PITH_E_UNSUPPORTED,
         "llama.rope.dimension_count: expected the head size, 32, found 16");
    CASE("llama", gguf_set_val_u32(c.keys, "llama.context_length", 0), PITH_E_FORMAT, "llama.context_length");
    CASE("llama", gguf_set_val_f32(c.keys, "llama.attention.layer_norm_rms_epsilon", NAN), PITH_E_FORMAT,
         "llama.attention.layer_norm_rms_epsilon: expected 0 to 1, found");
    CASE("llama", gguf_set_val_f32(c.keys, "llama.rope.freq_base", -1), PITH_E_FORMAT, "llama.rope.freq_base");
    CASE("llama", gguf_set_val_str(c.keys, "llama.rope.scaling.type", "longrope"), PITH_E_UNSUPPORTED,
         "llama.rope.scaling.type: expected one of none, linear, yarn, found 'longrope'");
    CASE("llama", gguf_set_val_str(c.keys, "llama.rope.scaling.type", "su"), PITH_E_UNSUPPORTED, "found 'su'");
    CASE("llama", gguf_set_val_f32(c.keys, "llama.rope.scaling.factor", INFINITY), PITH_E_FORMAT,
         "llama.rope.scaling.factor");
    CASE("llama", gguf_set_val_f32(c.keys, "llama.rope.scaling.factor", 1e-30f), PITH_E_FORMAT,
         "llama.rope.scaling.factor");
}

static void test_tensors(void **state) {
    (void)state;
    CASE("qwen2", change_drop(&c, "blk.1.attn_k.weight"), PITH_E_FORMAT,
         "blk.1.attn_k.weight: expected (128, 64), found no such tensor");
    CASE("qwen2", change_shape(&c, "blk.1.attn_k.weight", GGML_TYPE_F32, 128, 32), PITH_E_FORMAT,
         "blk.1.attn_k.weight: expected (128, 64), found (128, 32)");
    CASE("qwen2", change_shape(&c, "blk.0.ffn_down.weight", GGML_TYPE_F32, 128, 192), PITH_E_FORMAT,
         "blk.0.ffn_down.weight: expected (192, 128), found (128, 192)");
    CASE("qwen2", change_shape(&c, "blk.0.attn_q.bias", GGML_TYPE_F32, 64, 1), PITH_E_FORMAT,
         "blk.0.attn_q.bias: expected (128), found (64)");
    CASE("qwen2", change_drop(&c, "token_embd.weight"), PITH_E_FORMAT, "token_embd.weight: the tensor is missing");
    CASE("qwen2", change_drop(&c, "output_norm.weight"), PITH_E_FORMAT,
         "output_norm.weight: expected (128), found no such");
    CASE("qwen2", change_shape(&c, "output.weight", GGML_TYPE_F32, 128, 383), PITH_E_FORMAT,
         "output.weight: expected (128, 384), found (128, 383)");
    CASE("qwen3", change_drop(&c, "blk.0.attn_q_norm.weight"), PITH_E_FORMAT,
         "blk.0.attn_q_norm.weight: expected (64)");
    CASE("qwen2", change_shape(&c, "blk.0.attn_norm.weight", GGML_TYPE_F16, 128, 1), PITH_E_UNSUPPORTED,
         "blk.0.attn_norm.weight: expected type f32, found f16");
    CASE("qwen2", change_shape(&c, "blk.0.attn_q.weight", GGML_TYPE_I32, 128, 128), PITH_E_UNSUPPORTED,
         "blk.0.attn_q.weight: products with type i32 cannot be computed");
    // Tensors without a role would change results if they were left aside.
    CASE("qwen2", ggml_set_name(change_tensor(&c, "blk.0.attn_q.bias"), "blk.0.attn_output.bias"), PITH_E_FORMAT,
         "blk.0.attn_output.bias: unexpected tensor; qwen2 has no use for it");
    CASE("qwen2", ggml_set_name(change_tensor(&c, "blk.0.attn_q.bias"), "blk.0.attn_q.scale"), PITH_E_FORMAT,
         "blk.0.attn_q.scale: unexpected tensor");
    CASE("qwen2", ggml_set_name(change_tensor(&c, "blk.0.attn_q.bias"), "blk.2.attn_q.bias"), PITH_E_FORMAT,
         "blk.2.attn_q.bias: unexpected tensor");
    CASE("qwen3", ggml_set_name(change_tensor(&c, "output.weight"), "cls.output.weight"), PITH_E_FORMAT,
         "cls.output.weight: unexpected tensor");
}

static void test_rope_factors(void **state) {
    (void)state;
    tiny_spec spec = tiny_default("llama", GGML_TYPE_F32);
    spec.rope_freqs = true;
    change c;
    assert_true(tiny_model_write(good, &spec) && change_begin(&c, good));
    ((float *)change_tensor(&c, "rope_freqs.weight")->data)[3] = 0;
    assert_true(change_end(&c, bad));
    expect_file(bad, PITH_E_FORMAT, "rope_freqs.weight: expected positive factors, found 0");

    assert_true(change_begin(&c, good));
    change_shape(&c, "rope_freqs.weight", GGML_TYPE_F32, 8, 1);
    assert_true(change_end(&c, bad));
    expect_file(bad, PITH_E_FORMAT, "rope_freqs.weight: expected (16), found (8)");

    spec = tiny_default("qwen2", GGML_TYPE_F32);
    spec.rope_freqs = true;
    assert_true(tiny_model_write(bad, &spec));
    expect_file(bad, PITH_E_FORMAT, "rope_freqs.weight: unexpected tensor; qwen2 has no use for it");
}

static void test_vocabulary_size(void **state) {
    (void)state;
    CASE("qwen2",
         (change_shape(&c, "token_embd.weight", GGML_TYPE_F32, 128, 383),
          change_shape(&c, "output.weight", GGML_TYPE_F32, 128, 383)),
         PITH_E_FORMAT, "tokenizer.ggml.tokens: expected the embedding's 383 tokens, found 384");
    CASE("qwen2", gguf_remove_key(c.keys, "tokenizer.ggml.model"), PITH_E_FORMAT,
         "tokenizer.ggml.model: the key is missing");
}

// ------------------------------------------------------------------------------------------------- memory

static void test_no_memory(void **state) {
    (void)state;
    tiny_spec spec = tiny_default("qwen2", GGML_TYPE_F32);
    assert_true(tiny_model_write(good, &spec));
    for (uint64_t k = 1;; k++) {
        counting c = {.fail_at = k};
        pith_allocator alloc = counting_allocator(&c);
        pith_model *model;
        pith_error err;
        pith_status status = pith_model_load(good, &alloc, &model, &err);
        pith_model_free(model);
        assert_int_equal(c.live_calls, 0);
        assert_int_equal(c.live_bytes, 0);
        if (status == PITH_OK) {
            assert_true(k > 8); // it did allocate
            return;
        }
        assert_int_equal(status, PITH_E_MEMORY);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_describe),        cmocka_unit_test(test_roles),
        cmocka_unit_test(test_tied_and_norms),  cmocka_unit_test(test_every_type),
        cmocka_unit_test(test_rope_scaling),    cmocka_unit_test(test_equal_per_layer),
        cmocka_unit_test(test_not_a_model),     cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_architecture),    cmocka_unit_test(test_hyper_parameters),
        cmocka_unit_test(test_tensors),         cmocka_unit_test(test_rope_factors),
        cmocka_unit_test(test_vocabulary_size), cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
