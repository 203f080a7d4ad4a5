// Our logits against libllama's on the same file, teacher-forced: every architecture, weight type, rope variant, across
// page borders (64 rows) and chunk borders.
//
// With f32 weights both differ by the order of sums alone. libllama rounds activations to f16 or bf16 in front of
// weights of those types, and to 8 bits in blocks of 32 or 256 in front of quantised ones; we keep f32 or use blocks
// of 32. So the wider bounds are libllama's rounding rather than ours; the table prints how much of each was used.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/rng.h"
#include "llama.h"
#include "pith.h"
#include "tiny.h"

enum { N_TOKENS = 230, N_PROMPT = 150, CHUNK = 64 };

static const char *path(void) {
    static char p[64];
    snprintf(p, sizeof p, "test_logits.%d.gguf", (int)getpid());
    return p;
}

static void silent(enum ggml_log_level level, const char *text, void *ctx) { (void)level, (void)text, (void)ctx; }

// (n, V) logits of libllama for the tokens in one sequence.
static float *oracle(const char *file, const pith_token *tokens, uint32_t n, uint32_t n_vocab, pith_kv_type kv) {
    llama_log_set(silent, NULL);
    struct llama_model_params mp = llama_model_default_params();
    struct llama_model *model = llama_model_load_from_file(file, mp);
    assert_non_null(model);
    struct llama_context_params cp = llama_context_default_params();
    cp.n_ctx = 1024, cp.n_batch = 512, cp.n_ubatch = 512, cp.n_threads = cp.n_threads_batch = 1;
    cp.type_k = cp.type_v = kv == PITH_KV_F32 ? GGML_TYPE_F32 : GGML_TYPE_F16;
    cp.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
    struct llama_context *ctx = llama_init_from_model(model, cp);
    assert_non_null(ctx);
    float *all = malloc((size_t)n * n_vocab * sizeof *all);
    struct llama_batch batch = llama_batch_init(1, 0, 1);
    for (uint32_t t = 0; t < n; t++) { // one by one, as we decode: its product for one column is ours
        batch.n_tokens = 1, batch.token[0] = tokens[t], batch.pos[0] = (llama_pos)t;
        batch.n_seq_id[0] = 1, batch.seq_id[0][0] = 0, batch.logits[0] = 1;
        assert_int_equal(llama_decode(ctx, batch), 0);
        memcpy(all + (size_t)t * n_vocab, llama_get_logits_ith(ctx, 0), n_vocab * sizeof *all);
    }
    llama_batch_free(batch);
    llama_free(ctx);
    llama_model_free(model);
    return all;
}

// Differences relative to the spread of the oracle's logits: the largest, and the root of the mean square.
typedef struct difference {
    double max, squares;
    size_t n;
} difference;

// The argmax must agree wherever the oracle's top two differ by more than the bound.
static void compare(const float *ours, const float *theirs, uint32_t n, double bound, uint32_t step, difference *out) {
    double mean = 0, var = 0;
    for (uint32_t i = 0; i < n; i++) mean += (double)theirs[i] / n;
    for (uint32_t i = 0; i < n; i++) var += pow((double)theirs[i] - mean, 2) / n;
    uint32_t best = 0, second = 1, mine = 0;
    for (uint32_t i = 0; i < n; i++) {
        assert_true(isfinite(ours[i]));
        double d = fabs((double)ours[i] - (double)theirs[i]) / sqrt(var);
        out->max = d > out->max ? d : out->max;
        out->squares += d * d, out->n++;
        if (theirs[i] > theirs[best]) second = best, best = i;
        else if (i != best && theirs[i] > theirs[second]) second = i;
        if (ours[i] > ours[mine]) mine = i;
    }
    if (mine != best && ((double)theirs[best] - (double)theirs[second]) / sqrt(var) > bound)
        fail_msg("step %u: argmax %u, libllama's %u, margin %g", step, mine, best,
                 (double)theirs[best] - (double)theirs[second]);
}

// The largest difference; the mean one must stay within a quarter of the bound.
static double run(const char *file, pith_kv_type kv, uint32_t n_prompt, double bound) {
    pith_error err = {0};
    pith_model *model;
    if (pith_model_load(file, NULL, &model, &err) != PITH_OK) fail_msg("%s", err.msg);
    pith_model_info info;
    pith_model_describe(model, &info);
    pith_token tokens[N_TOKENS];
    for (uint32_t i = 0; i < N_TOKENS; i++) tokens[i] = (pith_token)(pith_mix64(i + 77) % 256);

    pith_engine_params ep;
    pith_engine_params_init(&ep);
    ep.n_threads = 1, ep.kv_type = kv, ep.chunk = CHUNK, ep.n_ctx = info.n_ctx < 1024 ? info.n_ctx : 1024;
    pith_engine *engine;
    if (pith_engine_new(model, &ep, &engine, &err) != PITH_OK) fail_msg("%s", err.msg);
    pith_sequence_params sp;
    pith_sequence_params_init(&sp);
    sp.max_new = N_TOKENS, sp.ignore_end = true;
    pith_sequence *seq;
    if (pith_sequence_new(engine, &sp, &seq, &err) != PITH_OK) fail_msg("%s", err.msg);
    if (pith_sequence_prompt(seq, tokens, n_prompt, &err) != PITH_OK) fail_msg("%s", err.msg);

    float *theirs = oracle(file, tokens, N_TOKENS, info.n_vocab, kv);
    difference diff = {0};
    uint32_t n_active;
    pith_sequence_info now;
    do {
        assert_int_equal(pith_engine_step(engine, &n_active, &err), PITH_OK);
        pith_sequence_describe(seq, &now);
    } while (now.phase == PITH_PREFILL);
    for (uint32_t t = n_prompt - 1; t + 1 < N_TOKENS; t++) {
        compare(pith_sequence_logits(seq), theirs + (size_t)t * info.n_vocab, info.n_vocab, bound, t, &diff);
        assert_int_equal(pith_sequence_force(seq, tokens[t + 1], &err), PITH_OK);
        assert_int_equal(pith_engine_step(engine, &n_active, &err), PITH_OK);
    }
    free(theirs);
    pith_engine_free(engine);
    pith_model_free(model);
    const double rms = sqrt(diff.squares / (double)diff.n);
    if (rms > bound / 4) fail_msg("%s: mean difference %g, a quarter of the bound is %g", file, rms, bound / 4);
    return diff.max;
}

// What may differ, in units of the logits' standard deviation. `decode`: every row decoded on both sides, f32 cache:
// the same products. `prefill`: our prompt rows went through the product for many rows, whose sums have another order.
// `f16`: with an f16 cache libllama also rounds queries and attention weights to f16, we do not.
typedef struct bounds {
    double decode, prefill, f16;
} bounds;

static void check(tiny_spec spec, const char *what, bounds b) {
    assert_true(tiny_model_write(path(), &spec));
    double decode = run(path(), PITH_KV_F32, 1, b.decode), prefill = run(path(), PITH_KV_F32, N_PROMPT, b.prefill);
    double f16 = run(path(), PITH_KV_F16, N_PROMPT, b.f16);
    print_message("%-6s %-8s %-12s decode %.0e of %.0e  prefill %.0e of %.0e  f16 cache %.0e of %.0e\n", spec.arch,
                  ggml_type_name(spec.type), what, decode, b.decode, prefill, b.prefill, f16, b.f16);
    assert_true(decode <= b.decode && prefill <= b.prefill && f16 <= b.f16);
    remove(path());
}

static const char *const archs[] = {"qwen2", "qwen3", "llama"};
static const bounds float_bounds = {1e-4, 1e-4, 2e-2}, in_blocks_of_32 = {2e-1, 2e-1, 2e-1},
                    in_blocks_of_256 = {3e-1, 3e-1, 3e-1};

static void every_type(void **state) {
    (void)state;
    const struct {
        enum ggml_type type;
        bounds b;
    } types[] = {
        {GGML_TYPE_F32, float_bounds},         {GGML_TYPE_F16, {2e-2, 2e-2, 2e-2}},
        {GGML_TYPE_BF16, {8e-2, 8e-2, 8e-2}},  {GGML_TYPE_Q8_0, in_blocks_of_32},
        {GGML_TYPE_Q4_0, in_blocks_of_32},     {GGML_TYPE_Q4_K, in_blocks_of_256},
        {GGML_TYPE_Q6_K, in_blocks_of_256},    {GGML_TYPE_Q5_K, in_blocks_of_256},
        {GGML_TYPE_Q2_K, in_blocks_of_256},    {GGML_TYPE_IQ4_XS, in_blocks_of_256},
        {GGML_TYPE_IQ2_XXS, in_blocks_of_256},
    };
    for (size_t a = 0; a < 3; a++)
        for (size_t i = 0; i < sizeof types / sizeof *types; i++)
            check(tiny_default(archs[a], types[i].type), "", types[i].b);
}

static void every_rope(void **state) {
    (void)state;
    tiny_spec spec = tiny_default("qwen2", GGML_TYPE_F32);
    spec.rope_scaling = "yarn", spec.rope_factor = 4, spec.n_ctx_orig = 128;
    check(spec, "yarn", float_bounds);
    spec.rope_scaling = "linear";
    check(spec, "linear", float_bounds);
    spec = tiny_default("llama", GGML_TYPE_F32);
    spec.rope_freqs = true;
    check(spec, "rope factors", float_bounds);
    spec.tied = true;
    check(spec, "tied head", float_bounds);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_type), cmocka_unit_test(every_rope)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
