// The engine on tiny models: what does not change an answer, what is promised and kept, and what is refused.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "calls.h"
#include "base/rng.h"
#include "pith.h"
#include "tiny.h"

static pith_model *model;

static int setup(void **state) {
    (void)state;
    tiny_spec spec = tiny_default("qwen2", GGML_TYPE_Q8_0);
    spec.n_layers = 3, spec.gain = 3;
    model = tiny_model_open(&spec);
    return model ? 0 : -1;
}

static int teardown(void **state) {
    (void)state;
    pith_model_free(model);
    return 0;
}

static pith_engine *engine_of(uint32_t threads, uint32_t sequences, const pith_allocator *alloc) {
    pith_engine_params p;
    pith_engine_params_init(&p);
    p.n_threads = threads, p.max_sequences = sequences, p.chunk = 64, p.n_ctx = 2048, p.alloc = alloc;
    pith_engine *engine;
    OK(pith_engine_new(model, &p, &engine, &err));
    return engine;
}

static pith_sequence *sequence_of(pith_engine *engine, const char *policy, uint32_t max_new, uint64_t stream) {
    pith_sequence_params p;
    pith_sequence_params_init(&p);
    p.policy = policy, p.max_new = max_new, p.ignore_end = true;
    p.sampling.seed = 5, p.sampling.stream = stream;
    pith_sequence *seq;
    OK(pith_sequence_new(engine, &p, &seq, &err));
    return seq;
}

static void prompt(pith_sequence *seq, uint32_t n, uint64_t seed) {
    pith_token tokens[1024];
    for (uint32_t i = 0; i < n; i++) tokens[i] = (pith_token)(pith_mix64(seed * 1000 + i) % 256);
    OK(pith_sequence_prompt(seq, tokens, n, &err));
}

// ------------------------------------------------------------------------------------ what changes no answer

typedef struct task {
    const char *policy;
    uint32_t n_prompt, max_new, joins; // at this step
} task;

static const task jobs[] = {
    {"rpc:p=64,r=8,c=4", 100, 300, 0},
    {"full", 1, 250, 3},
    {"rpc:p=16,r=4,c=8,agg=group", 65, 200, 40},
    {"rpc:p=48,r=16,c=3,agg=head,pool=max5", 200, 180, 90},
    {"rpc:p=32,r=8,c=4,sel=prompt", 30, 120, 91},
};
// Two prompts of two chunks, one of them with a chunk of one token beside the other's decode steps; a compression.
static const task short_jobs[] = {
    {"rpc:p=16,r=4,c=4", 100, 24, 0},
    {"full", 65, 16, 1},
};
enum { N_JOBS = T_COUNT(jobs), MOST = 600 };

typedef struct answer {
    pith_token tokens[MOST];
    size_t n;
    uint64_t logits; // a checksum of all that tokens were drawn from: a wrong bit may well leave the tokens alone
} answer;

static void keep_answer(const pith_sequence *seq, answer *out) {
    const pith_token *tokens = pith_sequence_tokens(seq, &out->n);
    assert_in_range(out->n, 1, MOST);
    memcpy(out->tokens, tokens, out->n * sizeof *tokens);
}

static void note_logits(const pith_sequence *seq, answer *out) {
    const float *logits = pith_sequence_logits(seq);
    pith_model_info info;
    pith_model_describe(model, &info);
    if (logits) out->logits = t_fnv(out->logits, logits, info.n_vocab * sizeof *logits);
}

static void answers_alone(const task *job, size_t n_jobs, uint32_t threads, answer *out) {
    for (size_t i = 0; i < n_jobs; i++) {
        pith_engine *engine = engine_of(threads, 1, NULL);
        pith_sequence *seq = sequence_of(engine, job[i].policy, job[i].max_new, i);
        prompt(seq, job[i].n_prompt, i);
        out[i].logits = T_FNV_BEGIN;
        for (uint32_t n_active = 1; n_active > 0; note_logits(seq, &out[i]))
            OK(pith_engine_step(engine, &n_active, &err));
        keep_answer(seq, &out[i]);
        pith_engine_free(engine);
    }
}

// Joins at different steps, leaves when done.
static void answers_together(const task *job, size_t n_jobs, uint32_t threads, answer *out) {
    pith_engine *engine = engine_of(threads, (uint32_t)n_jobs, NULL);
    pith_sequence *seqs[N_JOBS] = {0};
    size_t done = 0;
    for (uint32_t step = 0; done < n_jobs; step++) {
        uint32_t n_active;
        for (size_t i = 0; i < n_jobs; i++)
            if (job[i].joins == step) {
                seqs[i] = sequence_of(engine, job[i].policy, job[i].max_new, i);
                prompt(seqs[i], job[i].n_prompt, i);
                out[i].logits = T_FNV_BEGIN;
            }
        OK(pith_engine_step(engine, &n_active, &err));
        for (size_t i = 0; i < n_jobs; i++) {
            if (!seqs[i]) continue;
            note_logits(seqs[i], &out[i]);
            if (info_of(seqs[i]).phase != PITH_LENGTH) continue;
            keep_answer(seqs[i], &out[i]);
            pith_sequence_free(seqs[i]);
            seqs[i] = NULL;
            done++;
        }
    }
    pith_engine_info e;
    pith_engine_describe(engine, &e);
    assert_int_equal(e.pool_used_bytes, 0);
    pith_engine_free(engine);
}

static void same(const char *model_name, const char *what, const answer *a, const answer *b, size_t n_jobs) {
    for (size_t i = 0; i < n_jobs; i++) {
        assert_true(a[i].logits != T_FNV_BEGIN); // some were seen
        const bool equal = a[i].n == b[i].n && !memcmp(a[i].tokens, b[i].tokens, a[i].n * sizeof(pith_token));
        if (!equal) fail_msg("%s, %s, answer %zu: other tokens", model_name, what, i);
        if (a[i].logits != b[i].logits) fail_msg("%s, %s, answer %zu: other logits", model_name, what, i);
    }
}

// Alone and in a batch, with one thread and with more.
static void check_threads_and_neighbours(const char *model_name, const task *job, size_t n_jobs, uint32_t most) {
    static answer one[N_JOBS], two[N_JOBS], batch_one[N_JOBS], batch_more[N_JOBS];
    answers_alone(job, n_jobs, 1, one);
    answers_alone(job, n_jobs, 2, two);
    answers_together(job, n_jobs, 1, batch_one);
    answers_together(job, n_jobs, most, batch_more);
    same(model_name, "two threads", one, two, n_jobs);
    same(model_name, "in a batch", one, batch_one, n_jobs);
    same(model_name, "in a batch, more threads", one, batch_more, n_jobs);
}

static void threads_and_neighbours(void **state) {
    (void)state;
    check_threads_and_neighbours("qwen2 q8_0", jobs, N_JOBS, 3);
}

// Types differ in their kernels, in decode steps and in prefill; architectures in their nodes. Each of both once:
// threads that have no CPU of their own wait long.
static void threads_and_neighbours_of_other_models(void **state) {
    (void)state;
    static const struct {
        const char *arch;
        enum ggml_type type;
    } models[] = {{"llama", GGML_TYPE_F32},
                  {"qwen3", GGML_TYPE_F16},
                  {"qwen2", GGML_TYPE_BF16},
                  {"llama", GGML_TYPE_Q4_K},
                  {"qwen3", GGML_TYPE_IQ2_XXS}};
    pith_model *usual = model;
    for (size_t i = 0; i < T_COUNT(models); i++) {
        tiny_spec spec = tiny_default(models[i].arch, models[i].type);
        spec.gain = 3;
        char name[64];
        snprintf(name, sizeof name, "%s %s", models[i].arch, ggml_type_name(models[i].type));
        model = tiny_model_open(&spec);
        assert_non_null(model);
        check_threads_and_neighbours(name, short_jobs, T_COUNT(short_jobs), 2);
        pith_model_free(model);
        model = usual;
    }
}

static void forks_answer_as_if_alone(void **state) {
    (void)state;
    enum { N = 4 };
    static answer shared[N], alone[N];
    const char *policy = "rpc:p=32,r=8,c=4";
    for (uint32_t n_prompt = 63; n_prompt <= 100; n_prompt += 37) { // with and without a shared page that is not full
        pith_engine *engine = engine_of(1, N, NULL);
        pith_sequence *seqs[N] = {sequence_of(engine, policy, 150, 0)};
        prompt(seqs[0], n_prompt, 9);
        uint32_t n_active;
        while (info_of(seqs[0]).phase == PITH_PREFILL) OK(pith_engine_step(engine, &n_active, &err));
        pith_engine_info before, after;
        pith_engine_describe(engine, &before);
        for (uint64_t i = 1; i < N; i++) {
            pith_sequence_params p;
            pith_sequence_params_init(&p);
            p.policy = policy, p.max_new = 150, p.ignore_end = true, p.sampling.seed = 5, p.sampling.stream = i;
            OK(pith_sequence_fork(seqs[0], &p, &seqs[i], &err));
        }
        pith_engine_describe(engine, &after);
        assert_int_equal(before.pool_used_bytes, after.pool_used_bytes); // the prompt is there once
        run_out(engine);
        for (size_t i = 0; i < N; i++) keep_answer(seqs[i], &shared[i]);
        pith_engine_free(engine);
        for (size_t i = 0; i < N; i++) {
            engine = engine_of(1, 1, NULL);
            pith_sequence *seq = sequence_of(engine, policy, 150, i);
            prompt(seq, n_prompt, 9);
            run_out(engine);
            keep_answer(seq, &alone[i]);
            pith_engine_free(engine);
            assert_int_equal(shared[i].n, alone[i].n);
            assert_memory_equal(shared[i].tokens, alone[i].tokens, shared[i].n * sizeof(pith_token));
        }
        assert_memory_not_equal(alone[0].tokens, alone[1].tokens, alone[0].n * sizeof(pith_token)); // streams differ
    }
}

// ------------------------------------------------------------------------------------------------- memory

typedef struct meter {
    size_t bytes, calls;
    bool forbidden;
    size_t fail_at; // the call that fails, 0: none
} meter;

static void *meter_alloc(void *ctx, size_t bytes) {
    meter *m = ctx;
    m->calls++;
    assert_false(m->forbidden);
    if (m->calls == m->fail_at) return NULL;
    void *p = aligned_alloc(64, (bytes + 63) / 64 * 64);
    assert_non_null(p);
    m->bytes += bytes;
    return memset(p, 0, bytes);
}

static void meter_release(void *ctx, void *p, size_t bytes) {
    ((meter *)ctx)->bytes -= bytes;
    free(p);
}

static void decode_steps_allocate_nothing(void **state) {
    (void)state;
    meter m = {0};
    const pith_allocator alloc = {&m, meter_alloc, meter_release};
    pith_engine *engine = engine_of(1, 2, &alloc);
    pith_sequence *a = sequence_of(engine, "rpc:p=16,r=4,c=4", 400, 0), *b = sequence_of(engine, "full", 300, 1);
    prompt(a, 70, 1);
    prompt(b, 10, 2);
    uint32_t n_active;
    while (info_of(a).phase == PITH_PREFILL || info_of(b).phase == PITH_PREFILL)
        OK(pith_engine_step(engine, &n_active, &err));
    m.forbidden = true;
    run_out(engine); // 400 steps, 24 compressions, a batch of two that becomes one
    m.forbidden = false;
    assert_int_equal(info_of(a).n_compressions, 24);
    pith_engine_free(engine);
    assert_int_equal(m.bytes, 0);
}

// Every allocation may fail: a clean error, nothing leaked.
static void every_allocation_may_fail(void **state) {
    (void)state;
    size_t k = 1;
    for (bool finished = false; !finished; k++) {
        meter m = {.fail_at = k};
        const pith_allocator alloc = {&m, meter_alloc, meter_release};
        pith_engine_params p;
        pith_engine_params_init(&p);
        p.n_threads = 1, p.max_sequences = 2, p.chunk = 64, p.n_ctx = 512, p.alloc = &alloc;
        pith_engine *engine = NULL;
        pith_sequence *seq = NULL, *fork = NULL;
        pith_sequence_params sp;
        pith_sequence_params_init(&sp);
        sp.policy = "rpc:p=16,r=4,c=4", sp.max_new = 40;
        pith_token tokens[70] = {1};
        uint32_t n_active = 1;
        pith_status status = pith_engine_new(model, &p, &engine, &err);
        if (status == PITH_OK) status = pith_sequence_new(engine, &sp, &seq, &err);
        if (status == PITH_OK) status = pith_sequence_prompt(seq, tokens, 70, &err);
        while (status == PITH_OK && info_of(seq).phase == PITH_PREFILL)
            status = pith_engine_step(engine, &n_active, &err);
        if (status == PITH_OK) status = pith_sequence_fork(seq, &sp, &fork, &err);
        while (status == PITH_OK && n_active > 0) status = pith_engine_step(engine, &n_active, &err);
        pith_engine_free(engine);
        assert_int_equal(m.bytes, 0);
        finished = m.calls < k;
        assert_int_equal(status, finished ? PITH_OK : PITH_E_MEMORY);
    }
    print_message("%zu allocations, each failed once\n", k - 2);
    assert_true(k > 20);
}

static void peak_is_what_was_promised(void **state) {
    (void)state;
    const char *policies[] = {"full", "rpc:p=64,r=8,c=4", "rpc:p=16,r=32,c=3", "rpc:p=48,r=16,c=3,agg=head"};
    for (size_t i = 0; i < sizeof policies / sizeof *policies; i++)
        for (uint32_t max_new = 10; max_new < 400; max_new += 97) {
            pith_engine *engine = engine_of(1, 1, NULL);
            uint64_t promised;
            // the last token of a turn is drawn and gets no row
            OK(pith_peak_bytes(engine, policies[i], 100, max_new - 1, &promised, &err));
            pith_sequence *seq = sequence_of(engine, policies[i], max_new, 0);
            prompt(seq, 100, 3);
            run_out(engine);
            assert_int_equal(info_of(seq).bytes_peak, promised);
            pith_engine_free(engine);
        }
}

static void rows_follow_the_formula(void **state) {
    (void)state;
    pith_engine *engine = engine_of(1, 1, NULL);
    pith_sequence *seq = sequence_of(engine, "rpc:p=64,r=8,c=4", 500, 0);
    const uint32_t L = 50, P = 64, R = 8, T = 16;
    prompt(seq, L, 4);
    for (uint32_t n_active = 1; n_active > 0;) {
        OK(pith_engine_step(engine, &n_active, &err));
        pith_sequence_info s = info_of(seq);
        if (s.phase == PITH_PREFILL) continue;
        const uint32_t m = s.rows_full - L, k = m < R ? 0 : (m - R) / P;
        assert_int_equal(s.rows, L + k * T + (m - k * P));
        assert_int_equal(s.n_compressions, k);
    }
    assert_int_equal(info_of(seq).rows_peak, L + 6 * T + P + R); // before the seventh, at 7P + R = 456 tokens
    pith_engine_free(engine);
}

// ------------------------------------------------------------------------------------------------- turns

static int32_t kept[4096];
static uint32_t n_kept, events;
static void on_compress(void *ctx, const pith_compress_event *e) {
    (void)ctx;
    events++;
    n_kept = e->rows_after;
    memcpy(kept, e->kept, e->rows_after * sizeof *kept);
    for (uint32_t i = 1; i < e->rows_after; i++) assert_true(kept[i - 1] < kept[i]);
}

static bool has(int32_t pos) {
    for (uint32_t i = 0; i < n_kept; i++)
        if (kept[i] == pos) return true;
    return false;
}

static void a_second_turn_goes_on(void **state) {
    (void)state;
    pith_engine *engine = engine_of(1, 1, NULL);
    pith_engine_on_compress(engine, on_compress, NULL);
    pith_sequence *seq = sequence_of(engine, "rpc:p=32,r=8,c=4", 100, 0);
    events = 0;
    prompt(seq, 20, 6);
    run_out(engine);
    pith_sequence_info first = info_of(seq);
    assert_int_equal(first.n_compressions, 2); // at 40 and 72 generated tokens; 99 have rows
    prompt(seq, 30, 7);
    run_out(engine);
    pith_sequence_info second = info_of(seq);
    assert_int_equal(second.n_generated, 100);
    assert_int_equal(second.n_prompt, 50);
    assert_int_equal(second.n_compressions, 5); // the counters went on: 104, 136, 168 of 199
    assert_int_equal(events, 5 * 3);
    for (int32_t pos = 0; pos < 20; pos++) assert_true(has(pos));
    for (int32_t pos = 120; pos < 150; pos++) assert_true(has(pos)); // the second prompt stands behind 120 tokens
    assert_int_equal(n_kept, 50 + 5 * 8 + 8);
    pith_engine_free(engine);
}

// A history that changes the past is rebuilt from the common part of the first prompt, and then answers as if fresh.
static void check_rewinding(const char *policy, uint32_t n_history, size_t n_kept_expected) {
    pith_token history[200];
    for (uint32_t i = 0; i < 200; i++) history[i] = (pith_token)(pith_mix64(i < 90 ? i : i + 1000) % 256);
    static answer fresh, rewound;

    pith_engine *engine = engine_of(1, 1, NULL);
    pith_sequence *seq = sequence_of(engine, policy, 100, 0);
    OK(pith_sequence_prompt(seq, history, n_history, &err));
    run_out(engine);
    keep_answer(seq, &fresh);
    pith_engine_free(engine);

    engine = engine_of(1, 1, NULL);
    seq = sequence_of(engine, policy, 100, 0);
    pith_token first[100];
    for (uint32_t i = 0; i < 100; i++) first[i] = i < 90 ? history[i] : 7;
    OK(pith_sequence_prompt(seq, first, 100, &err));
    run_out(engine);
    size_t n;
    OK(pith_sequence_rewind(seq, history, n_history, &n, &err));
    assert_int_equal(n, n_kept_expected);
    OK(pith_sequence_prompt(seq, history + n, n_history - n, &err));
    run_out(engine);
    keep_answer(seq, &rewound);
    assert_int_equal(fresh.n, rewound.n);
    assert_memory_equal(fresh.tokens, rewound.tokens, fresh.n * sizeof(pith_token));

    // A history that extends the timeline keeps all of it.
    const pith_token *tokens = pith_sequence_tokens(seq, &n);
    pith_token longer[MOST + 1];
    memcpy(longer, tokens, n * sizeof *tokens);
    longer[n] = 3;
    size_t same_n;
    OK(pith_sequence_rewind(seq, longer, n + 1, &same_n, &err));
    assert_int_equal(same_n, n);
    pith_engine_free(engine);
}

static void rewinding_is_exact(void **state) {
    (void)state;
    check_rewinding("rpc:p=32,r=8,c=4", 200, 90);
    check_rewinding("rpc:p=32,r=8,c=4,sel=prompt", 95, 87); // the last 8 tokens are read again for their queries
}

static void stopping_a_turn(void **state) {
    (void)state;
    pith_engine *engine = engine_of(1, 1, NULL);
    pith_sequence *seq = sequence_of(engine, "rpc:p=16,r=4,c=4", 100, 0);
    uint32_t n_active;
    prompt(seq, 200, 1);
    OK(pith_engine_step(engine, &n_active, &err)); // one chunk of 64
    pith_sequence_stop(seq);
    assert_int_equal(info_of(seq).n_tokens, 64);
    assert_int_equal(info_of(seq).phase, PITH_STOPPED);
    prompt(seq, 10, 2);
    run_out(engine);
    assert_int_equal(info_of(seq).n_tokens, 64 + 10 + 100);
    pith_engine_free(engine);
}

// ------------------------------------------------------------------------------------------------ refusals

static void refusals(void **state) {
    (void)state;
    pith_engine *engine = engine_of(1, 1, NULL);
    pith_sequence *seq = sequence_of(engine, "full", 10, 0), *other;
    pith_sequence_params sp;
    pith_sequence_params_init(&sp);
    assert_int_equal(pith_sequence_new(engine, &sp, &other, &err), PITH_E_STATE);
    assert_null(other);
    assert_int_equal(pith_sequence_prompt(seq, NULL, 0, &err), PITH_E_ARG);
    pith_token tokens[2048] = {0};
    assert_int_equal(pith_sequence_prompt(seq, tokens, 2048, &err), PITH_E_CONTEXT);
    assert_non_null(strstr(err.msg, "2048"));
    tokens[3] = 1 << 20;
    assert_int_equal(pith_sequence_prompt(seq, tokens, 5, &err), PITH_E_ARG);
    tokens[3] = -1;
    assert_int_equal(pith_sequence_prompt(seq, tokens, 5, &err), PITH_E_ARG);
    assert_int_equal(pith_sequence_force(seq, 0, &err), PITH_E_STATE);
    assert_int_equal(pith_sequence_fork(seq, &sp, &other, &err), PITH_E_STATE);
    prompt(seq, 5, 0);
    assert_int_equal(pith_sequence_prompt(seq, tokens, 1, &err), PITH_E_STATE);
    run_out(engine);
    pith_engine_free(engine);

    pith_engine_params p;
    pith_engine_params_init(&p);
    p.max_sequences = 0;
    assert_int_equal(pith_engine_new(model, &p, &engine, &err), PITH_E_ARG);
    p.max_sequences = 1, p.chunk = 100;
    assert_int_equal(pith_engine_new(model, &p, &engine, &err), PITH_E_ARG);
    p.chunk = 0, p.device = "cuda";
    assert_int_equal(pith_engine_new(model, &p, &engine, &err), PITH_E_UNSUPPORTED);
    p.device = NULL, p.kv_budget_bytes = 100000;
    OK(pith_engine_new(model, &p, &engine, &err));
    sp.max_new = 100;
    OK(pith_sequence_new(engine, &sp, &seq, &err));
    tokens[3] = 0;
    assert_int_equal(pith_sequence_prompt(seq, tokens, 200, &err), PITH_E_MEMORY);
    assert_non_null(strstr(err.msg, "bytes"));
    pith_engine_free(engine);
}

// A turn that fills the context ends there.
static pith_sequence *fork_of(pith_sequence *seq, const char *policy, uint32_t max_new, uint64_t stream) {
    pith_sequence_params p;
    pith_sequence_params_init(&p);
    p.policy = policy, p.max_new = max_new, p.ignore_end = true;
    p.sampling.seed = 5, p.sampling.stream = stream;
    pith_sequence *fork;
    OK(pith_sequence_fork(seq, &p, &fork, &err));
    return fork;
}

static pith_engine *spreading_engine(uint32_t sequences) {
    pith_engine_params p;
    pith_engine_params_init(&p);
    p.n_threads = 1, p.max_sequences = sequences, p.chunk = 64, p.n_ctx = 2048, p.spread_compressions = true;
    pith_engine *engine;
    OK(pith_engine_new(model, &p, &engine, &err));
    return engine;
}

static uint32_t n_events; // of layer 0
static void count_event(void *ctx, const pith_compress_event *e) {
    (void)ctx;
    n_events += e->layer == 0;
}

// A batch in lockstep: all compressions fall due in the same steps, few are done in each, and every answer is the one
// of a sequence that is alone.
static void compressions_are_spread(void **state) {
    (void)state;
    enum { N = 17, AT_ONCE = 1 + N / 8 };
    pith_engine *alone = engine_of(1, 1, NULL), *crowd = spreading_engine(N);
    pith_engine_on_compress(crowd, count_event, NULL);
    pith_sequence *seqs[N];
    uint32_t n_spread = 0, n_all = 0, n_active = 1;
    seqs[0] = sequence_of(crowd, "rpc:p=32,r=8,c=4", 120, 0);
    prompt(seqs[0], 20, 1);
    OK(pith_engine_step(crowd, &n_active, &err));
    for (uint32_t i = 1; i < N; i++) seqs[i] = fork_of(seqs[0], "rpc:p=32,r=8,c=4", 120, i);
    for (; n_active > 0; n_all += n_events) {
        n_events = 0;
        OK(pith_engine_step(crowd, &n_active, &err));
        assert_true(n_events <= AT_ONCE);
        n_spread += n_events == AT_ONCE;
    }
    assert_int_equal(n_all, N * 3);
    assert_int_equal(n_spread, 3 * (N / AT_ONCE));
    for (uint32_t i = 0; i < N; i++) {
        pith_sequence *seq = sequence_of(alone, "rpc:p=32,r=8,c=4", 120, i);
        prompt(seq, 20, 1);
        run_out(alone);
        size_t n, m;
        const pith_token *want = pith_sequence_tokens(seq, &n), *got = pith_sequence_tokens(seqs[i], &m);
        assert_int_equal(n, m);
        assert_memory_equal(got, want, n * sizeof *got);
        const pith_sequence_info a = info_of(seq), b = info_of(seqs[i]);
        assert_true(a.rows == b.rows && a.rows_peak == b.rows_peak && a.n_compressions == b.n_compressions);
        pith_sequence_free(seq);
    }
    pith_engine_free(alone);
    pith_engine_free(crowd);
}

// A sequence that waits for its compression draws nothing and has no logits; stopping it leaves nothing outstanding.
static void waiting_for_a_compression(void **state) {
    (void)state;
    enum { N = 4 };
    pith_engine *engine = spreading_engine(N);
    pith_sequence *first = sequence_of(engine, "rpc:p=32,r=8,c=4", 200, 0), *seqs[N] = {first};
    prompt(first, 20, 1);
    uint32_t n_active, n_waiting = 0;
    OK(pith_engine_step(engine, &n_active, &err));
    for (uint32_t i = 1; i < N; i++) seqs[i] = fork_of(first, "rpc:p=32,r=8,c=4", 200, i); // all in step
    for (uint32_t step = 0; step < 60 && n_waiting == 0; step++) {
        OK(pith_engine_step(engine, &n_active, &err));
        for (uint32_t i = 0; i < N; i++) {
            if (pith_sequence_logits(seqs[i])) {
                OK(pith_sequence_force(seqs[i], 1, &err));
                continue;
            }
            n_waiting++;
            assert_int_equal(pith_sequence_force(seqs[i], 1, &err), PITH_E_STATE);
            pith_sequence_stop(seqs[i]);
            assert_int_equal(info_of(seqs[i]).n_compressions, 1); // the one that was due, done by now
            prompt(seqs[i], 20, 2);                               // and the next turn goes on
        }
    }
    assert_true(n_waiting > 0);
    run_out(engine);
    pith_engine_free(engine);
}

static void the_context_ends_a_turn(void **state) {
    (void)state;
    pith_engine_params p;
    pith_engine_params_init(&p);
    p.n_threads = 1, p.n_ctx = 80;
    pith_engine *engine;
    OK(pith_engine_new(model, &p, &engine, &err));
    pith_sequence *seq = sequence_of(engine, "rpc:p=16,r=4,c=4", 1000, 0);
    prompt(seq, 30, 0);
    run_out(engine);
    assert_int_equal(info_of(seq).phase, PITH_LENGTH);
    assert_int_equal(info_of(seq).n_tokens, 80);
    pith_engine_free(engine);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_and_neighbours),
        cmocka_unit_test(threads_and_neighbours_of_other_models),
        cmocka_unit_test(forks_answer_as_if_alone),
        cmocka_unit_test(decode_steps_allocate_nothing),
        cmocka_unit_test(every_allocation_may_fail),
        cmocka_unit_test(peak_is_what_was_promised),
        cmocka_unit_test(rows_follow_the_formula),
        cmocka_unit_test(a_second_turn_goes_on),
        cmocka_unit_test(rewinding_is_exact),
        cmocka_unit_test(stopping_a_turn),
        cmocka_unit_test(refusals),
        cmocka_unit_test(the_context_ends_a_turn),
        cmocka_unit_test(compressions_are_spread),
        cmocka_unit_test(waiting_for_a_compression),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
