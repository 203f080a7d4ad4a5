// The engine on a GPU against a transformer in double precision that rounds where the GPU does (reference.h), and
// against the engine on the CPU: the same model, the same tokens. Exits with 77 where no GPU is.
//
// Differences are in units of the logits' standard deviation. What the GPU does otherwise than the reference are sums
// in f32, angles in f32 and softmax weights of 16 bits; where that moves a value across the middle between two numbers
// of 16 bits it is rounded to the other one, and a few such values decide those of the layers behind anew. So
//
//     the first token       attends to itself with weight 1: few values are rounded to the other side, or none, which
//                           does less to it than all roundings together
//     the others            are one of many equally good roundings of the same arithmetic: two of those differ by
//                           sqrt(2) of what rounding does, which the test measures: the reference with and without it
//                           (a prompt of more than 64 tokens unpacks packed weights and rounds its activations to 16
//                           bits, the reference all to 8: what the GPU's own rounding does is then less)
//     against the CPU       whose own rounding (activations to 8 bits where weights are quantised) is measured in the
//                           same way: the two add up like independent errors, for which sqrt(2) is room
#include "t.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "pith.h"
#include "reference.h"
#include "tiny.h"

enum { CHUNK = 128, N_TOKENS = 300, N_VOCAB = 512, MOST_SEQS = 5 };

static const char *device;
static bool quick;                     // PITH_TEST_QUICK: few cases and short ones, for an emulated device
static uint32_t n_compared = N_TOKENS; // that logits are compared behind; fewer if quick

typedef struct rig {
    pith_model *model;
    pith_engine *engine;
    pith_sequence *seqs[MOST_SEQS];
    uint32_t n;
} rig;

static tiny_spec spec_of(const char *arch, enum ggml_type type) {
    tiny_spec s = tiny_default(arch, type);
    s.n_layers = 3, s.d_model = 256, s.n_heads = 4, s.n_kv_heads = 2, s.head_dim = 64, s.d_ff = 512;
    s.n_vocab = N_VOCAB;
    return s;
}

static void open_engine(rig *r, pith_model *model, const char *where, pith_kv_type kv, bool serves) {
    pith_error err = {0};
    pith_engine_params p;
    pith_engine_params_init(&p);
    p.device = where, p.kv_type = kv, p.chunk = CHUNK, p.n_ctx = 1024, p.max_sequences = MOST_SEQS;
    p.spread_compressions = p.share_prefixes = serves;
    *r = (rig){.model = model};
    if (pith_engine_new(model, &p, &r->engine, &err) != PITH_OK) fail_msg("%s", err.msg);
}

static pith_token token_of(uint32_t seq, uint32_t i) { return (pith_token)(pith_mix64(1000 * seq + i + 77) % 256); }

static void add_sequence(rig *r, uint32_t which, const char *policy, uint32_t n_prompt, uint32_t max_new) {
    pith_error err = {0};
    pith_sequence_params p;
    pith_sequence_params_init(&p);
    p.policy = policy, p.max_new = max_new, p.ignore_end = true;
    p.sampling.seed = 5, p.sampling.stream = which;
    pith_sequence **seq = &r->seqs[r->n++];
    if (pith_sequence_new(r->engine, &p, seq, &err) != PITH_OK) fail_msg("%s", err.msg);
    pith_token tokens[N_TOKENS];
    for (uint32_t i = 0; i < n_prompt; i++) tokens[i] = token_of(which, i);
    if (pith_sequence_prompt(*seq, tokens, n_prompt, &err) != PITH_OK) fail_msg("%s", err.msg);
}

static void step(rig *r) {
    pith_error err = {0};
    uint32_t n_active;
    if (pith_engine_step(r->engine, &n_active, &err) != PITH_OK) fail_msg("%s", err.msg);
}

static pith_phase phase_of(const pith_sequence *seq) {
    pith_sequence_info info;
    pith_sequence_describe(seq, &info);
    return info.phase;
}

// out (n_compared - n_prompt, N_VOCAB): logits behind each token from the prompt's last on, every token given.
static void forced_logits(rig *r, uint32_t n_prompt, float *out) {
    pith_error err = {0};
    add_sequence(r, 0, "full", n_prompt, n_compared);
    while (phase_of(r->seqs[0]) == PITH_PREFILL) step(r);
    for (uint32_t t = n_prompt; t < n_compared; t++) {
        memcpy(out + (size_t)(t - n_prompt) * N_VOCAB, pith_sequence_logits(r->seqs[0]), N_VOCAB * sizeof *out);
        assert_int_equal(pith_sequence_force(r->seqs[0], token_of(0, t), &err), PITH_OK);
        step(r);
    }
    pith_sequence_free(r->seqs[--r->n]);
}

typedef struct bound {
    double max, rms;
} bound;

static bound compare(const float *ours, const float *theirs, uint32_t n_rows) {
    bound d = {0};
    double squares = 0;
    for (uint32_t row = 0; row < n_rows; row++) {
        const float *a = ours + (size_t)row * N_VOCAB, *b = theirs + (size_t)row * N_VOCAB;
        double mean = 0, var = 0;
        for (uint32_t i = 0; i < N_VOCAB; i++) mean += (double)b[i] / N_VOCAB;
        for (uint32_t i = 0; i < N_VOCAB; i++) var += pow((double)b[i] - mean, 2) / N_VOCAB;
        for (uint32_t i = 0; i < N_VOCAB; i++) {
            if (!isfinite(a[i])) fail_msg("row %u, logit %u: %g", row, i, (double)a[i]);
            const double x = fabs((double)a[i] - (double)b[i]) / sqrt(var);
            d.max = x > d.max ? x : d.max;
            squares += x * x;
        }
    }
    d.rms = sqrt(squares / ((double)n_rows * N_VOCAB));
    return d;
}

// out (n_compared - 1, N_VOCAB): logits behind each token but the last.
static void reference_logits(const pith_model *model, reference_rounding rounding, float *out) {
    reference r;
    reference_open(&r, model, n_compared, rounding);
    for (uint32_t t = 0; t + 1 < n_compared; t++) {
        reference_step(&r, token_of(0, t));
        for (uint32_t i = 0; i < N_VOCAB; i++) out[(size_t)t * N_VOCAB + i] = (float)r.logits[i];
    }
    reference_close(&r);
}

static bound larger(bound a, bound b) { return (bound){fmax(a.max, b.max), fmax(a.rms, b.rms)}; }

// One token; products of few rows; of many, a part of a chunk; several chunks.
static const uint32_t prompts[] = {1, 40, 100, 200}, few_prompts[] = {1, 135};

static void check_model(const tiny_spec *spec, const char *what, pith_kv_type kv) {
    static float gpu[N_TOKENS * N_VOCAB], cpu[N_TOKENS * N_VOCAB], exact[N_TOKENS * N_VOCAB], near[N_TOKENS * N_VOCAB];
    const bool has_reference = !spec->rope_scaling || strcmp(spec->rope_scaling, "yarn") != 0;
    pith_model *model = tiny_model_open(spec);
    assert_non_null(model);
    bound first = {0}, all_of_first = {0}, to_reference = {0}, to_cpu = {0}, rounding = {0}, of_cpu = {0};
    if (has_reference) {
        const reference_rounding as_gpu = {.cache = kv == PITH_KV_BF16 ? REF_BF16 : REF_F16,
                                           .activations = spec->type == GGML_TYPE_F16 ? REF_F16 : REF_BF16,
                                           .blocks = true,
                                           .foreign = true};
        reference_logits(model, (reference_rounding){0}, exact);
        reference_logits(model, as_gpu, near);
        rounding = compare(near, exact, n_compared - 1), all_of_first = compare(near, exact, 1);
    }
    rig a, b;
    open_engine(&a, model, "cpu", PITH_KV_F32, false);
    open_engine(&b, model, device, kv, false);
    for (size_t i = 0; i < (quick ? T_COUNT(few_prompts) : T_COUNT(prompts)); i++) {
        const uint32_t n_prompt = quick ? few_prompts[i] : prompts[i], n = n_compared - n_prompt;
        forced_logits(&a, n_prompt, cpu);
        forced_logits(&b, n_prompt, gpu);
        to_cpu = larger(to_cpu, compare(gpu, cpu, n));
        if (has_reference && n_prompt == 1) first = compare(gpu, near, 1);
        if (!has_reference) continue;
        to_reference = larger(to_reference, compare(gpu, near + (n_prompt - 1) * N_VOCAB, n));
        of_cpu = larger(of_cpu, compare(cpu, exact + (n_prompt - 1) * N_VOCAB, n));
    }
    pith_engine_free(a.engine);
    pith_engine_free(b.engine);
    pith_model_free(model);
    print_message(
        "%-6s %-8s %-14s rms to the reference: first %.1e others %.1e  to the CPU: %.1e  rounding: first %.1e "
        "others %.1e, the CPU's %.1e\n",
        spec->arch, ggml_type_name(spec->type), what, first.rms, to_reference.rms, to_cpu.rms, all_of_first.rms,
        rounding.rms, of_cpu.rms);
    if (!has_reference) return;
    assert_true(first.rms <= all_of_first.rms);
    assert_true(to_reference.rms <= sqrt(2) * rounding.rms);
    assert_true(to_cpu.rms <= sqrt(2) * hypot(rounding.rms, of_cpu.rms));
}

static void every_architecture_and_type(void **state) {
    (void)state;
    static const enum ggml_type types[] = {GGML_TYPE_F32,  GGML_TYPE_F16,  GGML_TYPE_BF16, GGML_TYPE_Q8_0,
                                           GGML_TYPE_Q4_0, GGML_TYPE_Q4_K, GGML_TYPE_Q6_K, GGML_TYPE_Q5_K};
    static const char *const archs[] = {"qwen2", "qwen3", "llama"};
    for (size_t a = 0; a < T_COUNT(archs); a++)
        for (size_t i = 0; i < T_COUNT(types); i++) {
            if (quick && !(a == 1 && types[i] == GGML_TYPE_Q8_0)) continue;
            const tiny_spec spec = spec_of(archs[a], types[i]);
            check_model(&spec, "", (a + i) % 2 ? PITH_KV_F16 : PITH_KV_BF16);
        }
}

static void other_models(void **state) {
    (void)state;
    tiny_spec s = spec_of("qwen2", GGML_TYPE_BF16);
    s.rope_scaling = "linear", s.rope_factor = 4, s.n_ctx_orig = 256;
    check_model(&s, "linear", PITH_KV_BF16);
    s.rope_scaling = "yarn";
    check_model(&s, "yarn", PITH_KV_BF16);
    s = spec_of("llama", GGML_TYPE_BF16);
    s.rope_freqs = true, s.tied = true;
    check_model(&s, "factors, tied", PITH_KV_F16);
    s = spec_of("llama", GGML_TYPE_Q8_0);
    s.biases = true; // so gate and up are no pair
    check_model(&s, "biases", PITH_KV_BF16);
    s = spec_of("qwen2", GGML_TYPE_BF16);
    s.head_dim = 128, s.n_heads = 14, s.n_kv_heads = 2, s.d_model = 1792, s.d_ff = 608, s.n_layers = 1;
    check_model(&s, "heads of 128", PITH_KV_BF16);
}

// Tokens drawn by five sequences of different lengths, policies and ages are those that each draws alone, the same
// again in a second run, and in a third as a server has them: compressions wait for one another, beginnings are shared.
static void neighbours_change_nothing(void **state) {
    (void)state;
    // The second and the fourth fall due in the same steps: two tokens more, and a start two steps earlier.
    static const char *const policies[MOST_SEQS] = {"full", "rpc:p=32,r=10,c=4", "rpc:p=64,r=16,c=2,agg=head",
                                                    "window:p=32,r=8,c=4", "random:p=48,r=8,c=3"};
    static const uint32_t n_prompts[MOST_SEQS] = {3, 130, 64, 17, 200};
    enum { NEW = 220 };
    const uint32_t n_new = quick ? 40 : NEW, n_seqs = quick ? 3 : MOST_SEQS;
    pith_token alone[MOST_SEQS][NEW];
    const tiny_spec spec = spec_of("qwen2", GGML_TYPE_Q8_0);
    pith_model *model = tiny_model_open(&spec);
    assert_non_null(model);
    for (int run = -1; run < 3; run++) { // first each by itself
        if (quick && run >= 0 && run < 2) continue;
        rig r;
        open_engine(&r, model, device, PITH_KV_AUTO, run == 2);
        for (uint32_t from = 0; from < n_seqs; from += run < 0 ? 1 : n_seqs) {
            const uint32_t n = run < 0 ? 1 : n_seqs;
            for (uint32_t i = 0; i < n; i++) {
                add_sequence(&r, from + i, policies[from + i], n_prompts[from + i], n_new);
                for (uint32_t ahead = 0; run == 1 && ahead < 7; ahead++) step(&r); // they join one after another
            }
            uint32_t n_active;
            pith_error err = {0};
            do
                if (pith_engine_step(r.engine, &n_active, &err) != PITH_OK) fail_msg("%s", err.msg);
            while (n_active > 0);
            for (uint32_t i = 0; i < n; i++) {
                size_t n_tokens;
                const pith_token *tokens = pith_sequence_tokens(r.seqs[i], &n_tokens) + n_prompts[from + i];
                assert_int_equal(n_tokens, n_prompts[from + i] + n_new);
                if (run < 0) memcpy(alone[from + i], tokens, n_new * sizeof *tokens);
                else assert_memory_equal(tokens, alone[from + i], n_new * sizeof *tokens);
            }
            for (; r.n > 0; r.n--) pith_sequence_free(r.seqs[r.n - 1]);
        }
        pith_engine_free(r.engine);
    }
    pith_model_free(model);
}

static void *to_the_end(void *of) {
    rig *r = of;
    add_sequence(r, 0, "rpc:p=16,r=4,c=4", 20, 40);
    while (phase_of(r->seqs[0]) == PITH_PREFILL || phase_of(r->seqs[0]) == PITH_READY ||
           phase_of(r->seqs[0]) == PITH_DECODE)
        step(r);
    return NULL;
}

// Whoever steps an engine need not be the thread that made it, whose device is then another one's: on the second device
// where there are two.
static void a_thread_may_step_what_another_made(void **state) {
    (void)state;
    const tiny_spec spec = spec_of("qwen2", GGML_TYPE_F16);
    pith_model *model = tiny_model_open(&spec);
    assert_non_null(model);
    pith_engine_params p;
    pith_engine_params_init(&p);
    p.device = "cuda:1", p.n_ctx = 1024, p.chunk = CHUNK, p.max_sequences = MOST_SEQS;
    rig r[2];
    open_engine(&r[0], model, device, PITH_KV_AUTO, false);
    r[1] = (rig){.model = model};
    if (pith_engine_new(model, &p, &r[1].engine, NULL) != PITH_OK)
        open_engine(&r[1], model, device, PITH_KV_AUTO, false);
    to_the_end(&r[0]); // the first one's device is this thread's again
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, to_the_end, &r[1]), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    size_t n[2];
    const pith_token *a = pith_sequence_tokens(r[0].seqs[0], &n[0]), *b = pith_sequence_tokens(r[1].seqs[0], &n[1]);
    assert_int_equal(n[0], 60);
    assert_int_equal(n[1], 60);
    assert_memory_equal(a, b, n[0] * sizeof *a);
    for (int i = 0; i < 2; i++) pith_engine_free(r[i].engine);
    pith_model_free(model);
}

// What was kept. A policy that scores rows decides close calls otherwise where activations are rounded otherwise: how
// many events and rows there are is the same, which rows nearly so. (On inputs that leave nothing to rounding the rows
// are the same bit for bit: cuda/test_rpc_device.c.)
typedef struct kept {
    uint32_t n_events, n_rows;
    int32_t rows[4096]; // positions, event after event
    uint32_t starts[256];
} kept;

static void note(void *ctx, const pith_compress_event *e) {
    kept *k = ctx;
    k->starts[k->n_events++] = k->n_rows;
    for (uint32_t i = 0; i < e->rows_after && k->n_rows < 4096; i++) k->rows[k->n_rows++] = e->kept[i];
}

static void compressions_keep_what_the_cpu_keeps(void **state) {
    (void)state;
    static const char *const policies[] = {"rpc:p=32,r=8,c=4",
                                           "rpc:p=32,r=8,c=4,agg=group",
                                           "rpc:p=32,r=8,c=4,agg=head,pool=max3",
                                           "rpc:p=32,r=8,c=4,sel=prompt",
                                           "rpc:p=32,r=8,c=4,sel=new",
                                           "rpc:p=32,r=8,c=4,compat=1",
                                           "window:p=32,r=8,c=4",
                                           "random:p=32,r=8,c=4"};
    // In bf16 there would be more close calls; and with attention that is peaked many weights would be too small for a
    // float, which the two backends round to zero from different sizes on.
    const tiny_spec spec = spec_of("qwen2", GGML_TYPE_F16);
    pith_model *model = tiny_model_open(&spec);
    assert_non_null(model);
    static kept seen[2];
    for (size_t p = 0; p < (quick ? 1 : T_COUNT(policies)); p++) {
        for (int gpu = 0; gpu < 2; gpu++) {
            rig r;
            open_engine(&r, model, gpu ? device : "cpu", PITH_KV_F16, false);
            seen[gpu] = (kept){0};
            pith_engine_on_compress(r.engine, note, &seen[gpu]);
            add_sequence(&r, 0, policies[p], 20, 120);
            pith_error err = {0};
            while (phase_of(r.seqs[0]) == PITH_PREFILL) step(&r);
            for (uint32_t t = 20; t < 130; t++) {
                assert_int_equal(pith_sequence_force(r.seqs[0], token_of(0, t), &err), PITH_OK);
                step(&r);
            }
            pith_engine_free(r.engine);
        }
        assert_int_equal(seen[0].n_events, seen[1].n_events);
        assert_int_equal(seen[0].n_rows, seen[1].n_rows);
        assert_memory_equal(seen[0].starts, seen[1].starts, sizeof seen[0].starts);
        uint32_t same = 0;
        for (uint32_t e = 0; e < seen[0].n_events; e++) {
            const uint32_t begin = seen[0].starts[e],
                           end = e + 1 < seen[0].n_events ? seen[0].starts[e + 1] : seen[0].n_rows;
            for (uint32_t i = begin; i < end; i++)
                for (uint32_t j = begin; j < end; j++) same += seen[0].rows[i] == seen[1].rows[j];
        }
        const double share = (double)same / seen[0].n_rows;
        print_message("%-40s %u events, %.2f %% of the kept rows the CPU's\n", policies[p], seen[0].n_events,
                      100 * share);
        assert_true(seen[0].n_events > 0);
        assert_true(strncmp(policies[p], "rpc", 3) ? same == seen[0].n_rows : share > 0.95);
    }
    pith_model_free(model);
}

// What a device says of itself: its memory, and what that can be read at, measured.
static void what_it_says(void **state) {
    (void)state;
    const tiny_spec spec = spec_of("qwen2", GGML_TYPE_BF16);
    pith_model *model = tiny_model_open(&spec);
    rig r;
    open_engine(&r, model, device, PITH_KV_AUTO, false);
    pith_engine_info info;
    pith_engine_describe(r.engine, &info);
    print_message("%s, %s, %.0f GB/s\n", info.device, info.isa, info.read_bytes_per_second * 1e-9);
    assert_true(info.device_bytes_used > 0 && info.device_bytes_used <= info.device_bytes_total);
    assert_true(info.read_bytes_per_second > 0);
    pith_engine_free(r.engine);
    pith_model_free(model);
}

// Weights that a device cannot hold are refused before any of them is made. Only a small device can be asked that: the
// emulated one has room for a third of these.
static void too_many_weights_are_refused_at_once(void **state) {
    (void)state;
    pith_error err = {0};
    pith_model *model;
    assert_int_equal(pith_model_from_shape(pith_model_shape_find("qwen3-0.6b"), "bf16", 0, device, NULL, &model, &err),
                     PITH_OK);
    pith_model_info info;
    pith_model_describe(model, &info);
    pith_engine_params p;
    pith_engine_params_init(&p);
    p.device = device, p.n_ctx = 1024;
    pith_engine *engine;
    const pith_status status = pith_engine_new(model, &p, &engine, &err);
    pith_engine_free(engine);
    pith_model_free(model);
    if (status == PITH_OK) skip();
    assert_int_equal(status, PITH_E_MEMORY);
    unsigned long long needed, there, all;
    assert_int_equal(
        sscanf(strchr(err.msg, ' '), " the weights need %llu bytes, %llu of %llu are free", &needed, &there, &all), 3);
    assert_int_equal(needed, info.weight_bytes); // tied: the embedding is the head
    assert_true(there < needed && there <= all);
}

int main(void) {
    device = getenv("PITH_TEST_DEVICE") ? getenv("PITH_TEST_DEVICE") : "cuda";
    quick = getenv("PITH_TEST_QUICK") != NULL;
    if (quick) n_compared = 140;
    const tiny_spec spec = spec_of("qwen2", GGML_TYPE_BF16);
    pith_model *model = tiny_model_open(&spec);
    pith_engine_params p;
    pith_engine_params_init(&p);
    p.device = device;
    pith_engine *engine = NULL;
    pith_error err = {0};
    const pith_status status = model ? pith_engine_new(model, &p, &engine, &err) : PITH_E_IO;
    pith_engine_free(engine);
    pith_model_free(model);
    if (status == PITH_E_UNSUPPORTED) return printf("skipped: %s\n", err.msg), 77;
    if (status != PITH_OK) return printf("%s\n", err.msg), 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_architecture_and_type), cmocka_unit_test(neighbours_change_nothing),
        cmocka_unit_test(a_thread_may_step_what_another_made), cmocka_unit_test(compressions_keep_what_the_cpu_keeps),
        cmocka_unit_test(too_many_weights_are_refused_at_once)};
    const struct CMUnitTest others[] = {cmocka_unit_test(other_models), cmocka_unit_test(what_it_says)};
    const int n_failed = cmocka_run_group_tests(tests, NULL, NULL);
    return quick ? n_failed : n_failed + cmocka_run_group_tests(others, NULL, NULL);
}
