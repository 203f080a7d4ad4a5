// Models without a file: their hyper-parameters against published numbers, their weights, and what they cannot do.
#include "t.h"

#include "counting.h"
#include "ggml.h"
#include "model/model.h"
#include "ops/random.h"

static pith_model *make(const char *shape, const char *type, const char *device) {
    pith_model *model;
    pith_error err;
    const pith_model_shape *s = pith_model_shape_find(shape);
    assert_non_null(s);
    if (pith_model_from_shape(s, type, 7, device, NULL, &model, &err) != PITH_OK) fail_msg("%s", err.msg);
    return model;
}

static pith_model_info info_of(const pith_model *model) {
    pith_model_info info;
    pith_model_describe(model, &info);
    return info;
}

// ------------------------------------------------------------------------------------------------ hyper-parameters

// Parameters as Hugging Face counts them in each repository's safetensors; the file of Llama has 64 more, divisors of
// the rotary frequencies.
static const struct {
    const char *name;
    uint64_t n_parameters;
} published[] = {
    {"r1-distill-qwen-1.5b", 1777088000},
    {"r1-distill-qwen-7b", 7615616512},
    {"r1-distill-qwen-14b", 14770033664},
    {"r1-distill-qwen-32b", 32763876352},
    {"qwq-32b", 32763876352},
    {"r1-distill-llama-8b", 8030261248 + 64},
    {"qwen3-0.6b", 596049920},
    {"qwen3-1.7b", 1720574976},
    {"qwen3-4b", 4022468096},
    {"qwen3-8b", 8190735360},
    {"qwen3-14b", 14768307200},
    {"qwen3-32b", 32762123264},
    {"qwen2-0.5b", 494032768},
};

static void test_parameters(void **state) {
    (void)state;
    size_t n_known = 0;
    while (pith_model_shape_at(n_known)) n_known++;
    assert_int_equal(n_known, T_COUNT(published) + 1); // and tiny
    for (size_t i = 0; i < T_COUNT(published); i++) {
        pith_model *model = make(published[i].name, "bf16", "cuda"); // whose weights take no memory here
        const pith_model_info info = info_of(model);
        const pith_model_shape *s = pith_model_shape_find(published[i].name);
        if (info.n_parameters != published[i].n_parameters)
            fail_msg("%s: %llu parameters, published %llu", published[i].name, (unsigned long long)info.n_parameters,
                     (unsigned long long)published[i].n_parameters);
        assert_string_equal(info.name, published[i].name);
        const uint64_t embedding = (uint64_t)2 * s->n_vocab * s->d_model;
        assert_int_equal(info.weight_bytes - info.step_bytes, s->tied ? 0 : embedding);
        pith_model_free(model);
    }
    assert_null(pith_model_shape_at(n_known));
    assert_null(pith_model_shape_find("gpt-2"));
}

// Bytes of tensors as llama.cpp's own quantiser makes them.
static void test_q4_k_m(void **state) {
    (void)state;
    pith_model *model = make("r1-distill-qwen-7b", "q4_k_m", "cuda");
    // The published file, Qwen2.5-7B-Instruct-Q4_K_M.gguf, has 4683074336 bytes, vocabulary included: some 6 MB.
    const uint64_t bytes = info_of(model).weight_bytes;
    assert_true(bytes < 4683074336u && bytes > 4683074336u - 8000000u);
    const pith_weights *w = pith_model_weights(model);
    assert_int_equal(w->embed->type, GGML_TYPE_Q4_K);
    assert_int_equal(w->head->type, GGML_TYPE_Q6_K);
    uint32_t more = 0;
    for (uint32_t l = 0; l < w->n_layers; l++) {
        assert_int_equal(w->layers[l].wq->type, GGML_TYPE_Q4_K);
        assert_int_equal(w->layers[l].down->type, w->layers[l].wv->type);
        more += w->layers[l].down->type == GGML_TYPE_Q6_K;
    }
    assert_int_equal(more, 14); // of 28: 3 first, 4 last, every third of the 21 between
    pith_model_free(model);

    model = make("qwen3-8b", "q4_k_m", "cuda"); // as llama.cpp's server reports it
    assert_int_equal(info_of(model).weight_bytes, 5021827072u);
    pith_model_free(model);

    model = make("qwen2-0.5b", "q4_k_m", "cuda"); // rows of 896: no blocks of 256; its embedding makes the logits
    w = pith_model_weights(model);
    assert_int_equal(w->layers[0].wq->type, GGML_TYPE_Q5_0);
    assert_int_equal(w->embed->type, GGML_TYPE_Q8_0);
    assert_int_equal(w->layers[0].down->type, GGML_TYPE_Q6_K); // rows of 4864
    pith_model_free(model);
}

static void test_llama3_factors(void **state) {
    (void)state;
    pith_model *model = make("r1-distill-llama-8b", "bf16", "cuda");
    const float *factor = pith_model_config(model)->rope.factors->data; // (64)
    for (int i = 0; i < 64; i++) {
        assert_true(factor[i] >= 1 && factor[i] <= 8);
        if (i > 0) assert_true(factor[i] >= factor[i - 1]);
    }
    assert_true(factor[0] == 1 && factor[63] == 8);
    pith_model_free(model);
}

// ------------------------------------------------------------------------------------------------------- weights

static const char *const types[] = {"f32", "f16", "bf16", "q8_0", "q4_0", "q5_0", "q4_k", "q6_k", "q4_k_m"};

// Mean 0, deviation 1 / sqrt(columns), nothing beyond the scale.
static void test_values(void **state) {
    (void)state;
    enum { COLS = 512, ROWS = 512 };
    static const int ggml_types[] = {GGML_TYPE_F32,  GGML_TYPE_F16,  GGML_TYPE_BF16, GGML_TYPE_Q8_0,
                                     GGML_TYPE_Q4_0, GGML_TYPE_Q5_0, GGML_TYPE_Q4_K, GGML_TYPE_Q6_K};
    for (size_t t = 0; t < T_COUNT(ggml_types); t++) {
        const enum ggml_type type = (enum ggml_type)ggml_types[t];
        assert_true(pith_random_has(ggml_types[t]));
        const size_t row_bytes = ggml_row_size(type, COLS);
        const float scale = sqrtf(3.0f / COLS);
        const pith_weight w = {
            .type = ggml_types[t], .ne = {COLS, ROWS, 1, 1}, .bytes = row_bytes * ROWS, .seed = 3, .scale = scale};
        uint8_t *whole = t_new(w.bytes), *parts = t_new(w.bytes);
        pith_random_rows(&w, 0, ROWS, whole);
        for (int64_t r = 0; r < ROWS; r += 7)
            pith_random_rows(&w, r, r + 7 < ROWS ? 7 : ROWS - r, parts + (size_t)r * row_bytes);
        assert_memory_equal(whole, parts, w.bytes);

        double sum = 0, squares = 0;
        float x[COLS];
        for (size_t r = 0; r < ROWS; r++) {
            if (type == GGML_TYPE_F32) memcpy(x, whole + r * row_bytes, sizeof x);
            else ggml_get_type_traits(type)->to_float(whole + r * row_bytes, x, COLS);
            for (int i = 0; i < COLS; i++) {
                assert_true(fabsf(x[i]) <= scale * 1.01f);
                sum += (double)x[i], squares += (double)x[i] * (double)x[i];
            }
        }
        const double n = (double)COLS * ROWS, deviation = sqrt(squares / n) * sqrt(COLS);
        // Codes of few levels are as coarse as a half step at the end: q4_0 and q5_0 lie that far below 0.
        assert_true(fabs(sum / n) < 0.07 * (double)scale);
        assert_true(deviation > 0.97 && deviation < 1.03);
        free(whole);
        free(parts);
    }
    assert_false(pith_random_has(GGML_TYPE_IQ2_XXS));
}

static bool go(pith_engine *engine, pith_error *err) {
    uint32_t n_active;
    return pith_engine_step(engine, &n_active, err) == PITH_OK && n_active > 0;
}

// Every type runs, logits stay finite and are no constant, and the seed decides.
static void test_runs(void **state) {
    (void)state;
    pith_error err;
    for (size_t t = 0; t < T_COUNT(types); t++) {
        pith_model *model = make("tiny", types[t], "cpu");
        const uint32_t V = info_of(model).n_vocab;
        pith_engine_params params;
        pith_engine_params_init(&params);
        params.n_ctx = 512, params.n_threads = 1;
        pith_engine *engine;
        pith_sequence *seq;
        if (pith_engine_new(model, &params, &engine, &err) != PITH_OK) fail_msg("%s", err.msg);
        pith_sequence_params how;
        pith_sequence_params_init(&how);
        how.policy = "rpc:p=32,r=4", how.max_new = 200; // tokens of such a model end nothing
        assert_int_equal(pith_sequence_new(engine, &how, &seq, &err), PITH_OK);
        const pith_token prompt[] = {1, 2, 3, 500};
        assert_int_equal(pith_sequence_prompt(seq, prompt, T_COUNT(prompt), &err), PITH_OK);
        uint32_t n = 0;
        while (go(engine, &err)) {
            const float *logits = pith_sequence_logits(seq);
            if (!logits) continue;
            double sum = 0, squares = 0;
            for (uint32_t i = 0; i < V; i++) sum += (double)logits[i], squares += pow((double)logits[i], 2);
            const double variance = squares / V - pow(sum / V, 2);
            assert_true(isfinite(variance) && variance > 0.2 && variance < 5);
            n++;
        }
        assert_true(n > 190);
        pith_engine_free(engine);
        pith_model_free(model);
    }
}

static void test_seed(void **state) {
    (void)state;
    const pith_model_shape *tiny = pith_model_shape_find("tiny");
    pith_model *m[3];
    for (uint64_t i = 0; i < 3; i++)
        assert_int_equal(pith_model_from_shape(tiny, "q8_0", i / 2, "cpu", NULL, &m[i], NULL), PITH_OK);
    const pith_weight *w[3];
    for (int i = 0; i < 3; i++) w[i] = pith_model_weights(m[i])->layers[1].up;
    assert_memory_equal(w[0]->data, w[1]->data, w[0]->bytes);
    assert_int_not_equal(memcmp(w[0]->data, w[2]->data, w[0]->bytes), 0);
    // What a device would make of a matrix that was left to it is what the host has.
    pith_model *left = make("tiny", "q8_0", "cuda"), *made = make("tiny", "q8_0", NULL);
    const pith_weight *a = pith_model_weights(left)->layers[1].up, *b = pith_model_weights(made)->layers[1].up;
    assert_null(a->data);
    uint8_t *bytes = t_new(a->bytes);
    pith_random_rows(a, 0, a->ne[1], bytes);
    assert_memory_equal(bytes, b->data, b->bytes);
    assert_non_null(pith_model_weights(left)->layers[1].bq->data); // vectors are always there
    free(bytes);
    for (int i = 0; i < 3; i++) pith_model_free(m[i]);
    pith_model_free(left);
    pith_model_free(made);
}

// ------------------------------------------------------------------------------------------------------- refused

static void expect(const pith_model_shape *shape, const char *type, const char *part) {
    pith_model *model = (pith_model *)&model;
    pith_error err = {0};
    assert_int_equal(pith_model_from_shape(shape, type, 0, "cuda", NULL, &model, &err), PITH_E_ARG);
    if (!strstr(err.msg, part)) fail_msg("expected '%s', got '%s'", part, err.msg);
    assert_null(model);
}

static void test_refused(void **state) {
    (void)state;
    const pith_model_shape tiny = *pith_model_shape_find("tiny");
    pith_model_shape s = tiny;
    expect(&s, "q9", "q4_k_m, found 'q9'");
    s = tiny, s.architecture = "bert", expect(&s, "f32", "found 'bert'");
    s = tiny, s.n_heads = 3, expect(&s, "f32", "heads: expected a multiple of 2");
    s = tiny, s.n_kv_heads = 0, expect(&s, "f32", "KV heads");
    s = tiny, s.d_model = 100, expect(&s, "f32", "model size: expected a multiple of 32");
    s = tiny, s.head_dim = 264, expect(&s, "f32", "head size");
    s = tiny, s.n_layers = 100000, expect(&s, "f32", "layers");
    s = tiny, s.rope_base = NAN, expect(&s, "f32", "rope base");

    s = tiny, s.n_layers = 1000, s.d_model = s.d_ff = 1 << 20, s.n_vocab = 1 << 24; // hundreds of terabytes
    pith_model *model;
    pith_error err;
    assert_int_equal(pith_model_from_shape(&s, "f32", 0, "cpu", NULL, &model, &err), PITH_E_MEMORY);
    assert_non_null(strstr(err.msg, "GB of memory"));
}

static void test_no_vocabulary(void **state) {
    (void)state;
    pith_model *model = make("tiny", "f32", "cpu");
    pith_error err;
    pith_token tokens[8];
    size_t n;
    char text[8], *rendered = text;
    assert_int_equal(pith_tokenize(model, "a", 1, 0, tokens, 8, &n, &err), PITH_E_UNSUPPORTED);
    assert_non_null(strstr(err.msg, "tiny: "));
    assert_int_equal(pith_chat_render(model, &(pith_message){"user", "a"}, 1, &rendered, &err), PITH_E_UNSUPPORTED);
    assert_null(rendered);
    assert_int_equal(pith_token_text(model, 1, true, text, sizeof text), 0);
    assert_false(pith_token_ends(model, 0));
    assert_false(info_of(model).has_chat_template);
    pith_model_free(model);
}

static void test_other_device(void **state) {
    (void)state;
    pith_model *model = make("tiny", "f32", "cuda");
    pith_engine_params params;
    pith_engine_params_init(&params);
    params.n_ctx = 64;
    pith_engine *engine;
    pith_error err;
    assert_int_equal(pith_engine_new(model, &params, &engine, &err), PITH_E_UNSUPPORTED);
    assert_null(engine);
    pith_model_free(model);
}

static void test_out_of_memory(void **state) {
    (void)state;
    pith_model *model = NULL;
    uint64_t k = 0;
    for (pith_status status = PITH_E_MEMORY; status != PITH_OK;) {
        counting counts = {.fail_at = ++k};
        const pith_allocator alloc = counting_allocator(&counts);
        status = pith_model_from_shape(pith_model_shape_find("tiny"), "f32", 0, "cpu", &alloc, &model, NULL);
        assert_true(status == PITH_OK || status == PITH_E_MEMORY);
        pith_model_free(model);
        assert_int_equal(counts.live_calls, 0);
    }
    assert_true(k > 4);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parameters),     cmocka_unit_test(test_q4_k_m),
        cmocka_unit_test(test_llama3_factors), cmocka_unit_test(test_values),
        cmocka_unit_test(test_runs),           cmocka_unit_test(test_seed),
        cmocka_unit_test(test_refused),        cmocka_unit_test(test_no_vocabulary),
        cmocka_unit_test(test_other_device),   cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
