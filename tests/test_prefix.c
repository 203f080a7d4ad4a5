// Prompts that begin alike share the rows of their beginnings: the answers stay the same, the pages are counted, kept
// prefixes give way to whoever needs their memory.
#include "calls.h"

#include "base/rng.h"
#include "counting.h"
#include "pith.h"
#include "tiny.h"

enum { CHUNK = 64, MOST = 1024 };

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

static pith_engine *threaded_engine_of(uint32_t threads, bool shares, uint32_t sequences, uint64_t budget,
                                       const pith_allocator *alloc) {
    pith_engine_params p;
    pith_engine_params_init(&p);
    p.n_threads = threads, p.max_sequences = sequences, p.chunk = CHUNK, p.n_ctx = 1024, p.alloc = alloc;
    p.share_prefixes = shares, p.kv_budget_bytes = budget;
    pith_engine *engine;
    OK(pith_engine_new(model, &p, &engine, &err));
    return engine;
}

static pith_engine *engine_of(bool shares, uint32_t sequences, uint64_t budget, const pith_allocator *alloc) {
    return threaded_engine_of(1, shares, sequences, budget, alloc);
}

// n tokens, of which those in front of `own` are the same for every seed.
static void make_prompt(pith_token *tokens, uint32_t n, uint32_t own, uint64_t seed) {
    for (uint32_t i = 0; i < n; i++) tokens[i] = (pith_token)(pith_mix64((i < own ? 0 : seed * 1000) + i) % 256);
}

static pith_sequence *begin(pith_engine *engine, const char *policy, const pith_token *tokens, uint32_t n) {
    pith_sequence_params p;
    pith_sequence_params_init(&p);
    p.policy = policy, p.max_new = 100, p.ignore_end = true, p.sampling.seed = 5;
    pith_sequence *seq;
    OK(pith_sequence_new(engine, &p, &seq, &err));
    OK(pith_sequence_prompt(seq, tokens, n, &err));
    return seq;
}

static pith_engine_info engine_info_of(const pith_engine *engine) {
    pith_engine_info info;
    pith_engine_describe(engine, &info);
    return info;
}

// A whole answer; the sequence is gone afterwards. Returns how much of its prompt was taken over.
static uint32_t answer(pith_engine *engine, const char *policy, const pith_token *tokens, uint32_t n, pith_token *out) {
    pith_sequence *seq = begin(engine, policy, tokens, n);
    run_out(engine);
    size_t n_all;
    const pith_token *all = pith_sequence_tokens(seq, &n_all);
    assert_int_equal(n_all, n + 100);
    memcpy(out, all + n, 100 * sizeof *out);
    const uint32_t shared = info_of(seq).n_shared;
    pith_sequence_free(seq);
    return shared;
}

static void answers_stay_the_same(void **state) {
    (void)state;
    static const char *const policies[] = {"full", "rpc:p=32,r=8,c=4", "rpc:p=32,r=8,c=4,sel=prompt",
                                           "window:p=32,r=8,budget=24", "random:p=32,r=8,c=4"};
    static const struct {
        uint32_t n, own, shared; // tokens of the prompt, in common with those before, taken over
    } prompts[] = {
        {300, 300, 0},         // the first
        {300, 300, 4 * CHUNK}, // the same again
        {257, 300, 4 * CHUNK}, // one token is left to read
        {256, 300, 3 * CHUNK}, // its last token must be read
        {300, 200, 3 * CHUNK}, // parts at 200
        {300, 191, 2 * CHUNK}, // one token short of a chunk
        {600, 300, 4 * CHUNK}, // goes on
        {600, 300, 9 * CHUNK}, // and again: by seed it is the same as the one before
        {63, 63, 0},
    };
    pith_engine *plain = engine_of(false, 1, 0, NULL), *sharing = engine_of(true, 4, 0, NULL);
    for (size_t p = 0; p < T_COUNT(policies); p++) {
        for (size_t i = 0; i < T_COUNT(prompts); i++) {
            pith_token tokens[MOST], want[100], got[100];
            make_prompt(tokens, prompts[i].n, prompts[i].own, i == 7 ? 7 : i + 1);
            if (i == 6) make_prompt(tokens, prompts[i].n, prompts[i].own, 7);
            assert_int_equal(answer(plain, policies[p], tokens, prompts[i].n, want), 0);
            const uint32_t shared = answer(sharing, policies[p], tokens, prompts[i].n, got);
            assert_memory_equal(got, want, sizeof want);
            // Later policies find what earlier ones left, and sel=prompt reads the last queries' tokens itself.
            if (p == 0) assert_int_equal(shared, prompts[i].shared);
            else assert_true(shared % CHUNK == 0 && shared < prompts[i].n && (shared > 0 || prompts[i].n <= 72));
        }
    }
    assert_int_equal(engine_info_of(plain).prefix_bytes, 0);
    pith_engine_free(plain);
    const pith_engine_info info = engine_info_of(sharing);
    assert_true(info.prefix_bytes > 0);
    assert_int_equal(info.pool_used_bytes, info.prefix_bytes); // nobody else holds anything
    pith_engine_free(sharing);
}

// What two threads have read, shared or not, is what one reads.
static void answers_stay_the_same_with_two_threads(void **state) {
    (void)state;
    static const struct {
        uint32_t n, own, shared; // as above; few and short, since threads without a CPU of their own wait long
    } prompts[] = {{130, 130, 0}, {130, 130, 2 * CHUNK}, {130, 100, CHUNK}};
    const char *policy = "rpc:p=32,r=8,c=4";
    pith_engine *one = engine_of(false, 1, 0, NULL), *plain = threaded_engine_of(2, false, 1, 0, NULL);
    pith_engine *sharing = threaded_engine_of(2, true, 4, 0, NULL);
    for (size_t i = 0; i < T_COUNT(prompts); i++) {
        pith_token tokens[MOST], want[100], got[100];
        make_prompt(tokens, prompts[i].n, prompts[i].own, i + 1);
        answer(one, policy, tokens, prompts[i].n, want);
        assert_int_equal(answer(plain, policy, tokens, prompts[i].n, got), 0);
        assert_memory_equal(got, want, sizeof want);
        assert_int_equal(answer(sharing, policy, tokens, prompts[i].n, got), prompts[i].shared);
        assert_memory_equal(got, want, sizeof want);
    }
    pith_engine_free(one);
    pith_engine_free(plain);
    pith_engine_free(sharing);
}

// Sequences that begin together: the second takes over what the first has read meanwhile.
static void neighbours_share(void **state) {
    (void)state;
    pith_token tokens[MOST], want[100];
    make_prompt(tokens, 300, 300, 1);
    pith_engine *plain = engine_of(false, 1, 0, NULL), *engine = engine_of(true, 4, 0, NULL);
    answer(plain, "rpc:p=32,r=8,c=4", tokens, 300, want);
    pith_sequence *seqs[3];
    for (size_t i = 0; i < 3; i++) seqs[i] = begin(engine, "rpc:p=32,r=8,c=4", tokens, 300);
    run_out(engine);
    for (size_t i = 0; i < 3; i++) {
        size_t n;
        const pith_token *all = pith_sequence_tokens(seqs[i], &n);
        assert_memory_equal(all + 300, want, sizeof want);
        assert_int_equal(info_of(seqs[i]).n_shared, i == 0 ? 0 : 4 * CHUNK);
    }
    // Their pages of the beginning are the same ones.
    const pith_engine_info info = engine_info_of(engine);
    const uint64_t apart = info_of(seqs[0]).bytes + info_of(seqs[1]).bytes + info_of(seqs[2]).bytes;
    assert_int_equal(info.pool_used_bytes, apart - 2 * info.prefix_bytes);
    // A fork of one that has taken over goes its own way.
    pith_sequence *again = begin(engine, "full", tokens, 300), *forked;
    uint32_t n_active;
    OK(pith_engine_step(engine, &n_active, &err));
    pith_sequence_params p;
    pith_sequence_params_init(&p);
    p.policy = "full", p.max_new = 100, p.ignore_end = true, p.sampling.seed = 5, p.sampling.stream = 1;
    pith_sequence_free(seqs[2]);
    OK(pith_sequence_fork(again, &p, &forked, &err));
    run_out(engine);
    assert_int_equal(info_of(forked).n_shared, 4 * CHUNK);
    pith_engine_free(engine);
    pith_engine_free(plain);
}

// A conversation on a sequence that has taken over: rewinding into shared pages copies what is written again.
static void a_rewind_leaves_shared_pages_alone(void **state) {
    (void)state;
    pith_token tokens[MOST], other[MOST], want[2][100], got[100];
    make_prompt(tokens, 300, 300, 1);
    make_prompt(other, 300, 100, 2);
    pith_engine *plain = engine_of(false, 1, 0, NULL), *engine = engine_of(true, 2, 0, NULL);
    answer(plain, "full", tokens, 300, want[0]);
    answer(engine, "full", tokens, 300, got);
    pith_sequence *seq = begin(engine, "full", tokens, 300);
    run_out(engine);
    size_t kept, n;
    OK(pith_sequence_rewind(seq, other, 300, &kept, &err));
    assert_int_equal(kept, 100);
    OK(pith_sequence_prompt(seq, other + kept, 300 - kept, &err));
    run_out(engine);
    pith_sequence *same = begin(plain, "full", tokens, 300);
    run_out(plain);
    OK(pith_sequence_rewind(same, other, 300, &kept, &err));
    OK(pith_sequence_prompt(same, other + kept, 300 - kept, &err));
    run_out(plain);
    memcpy(want[1], pith_sequence_tokens(same, &n) + 300, sizeof want[1]);
    assert_memory_equal(pith_sequence_tokens(seq, &n) + 300, want[1], sizeof want[1]);
    assert_int_equal(answer(engine, "full", tokens, 300, got), 4 * CHUNK);
    assert_memory_equal(got, want[0], sizeof got);
    pith_engine_free(engine);
    pith_engine_free(plain);
}

// Room for one and a half: every prompt is admitted, whatever was kept before, and a recent one stays while there is
// room.
static void kept_prefixes_give_way(void **state) {
    (void)state;
    pith_engine *probe = engine_of(false, 1, 0, NULL);
    uint64_t one;
    OK(pith_peak_bytes(probe, "full", 300, 100, &one, &err));
    pith_engine_free(probe);
    pith_engine *engine = engine_of(true, 2, one * 2 + one / 2, NULL);
    pith_token tokens[MOST], out[100];
    for (uint64_t seed = 1; seed < 12; seed++) {
        make_prompt(tokens, 300, 0, seed);
        assert_int_equal(answer(engine, "full", tokens, 300, out), 0);
        assert_int_equal(answer(engine, "full", tokens, 300, out), 4 * CHUNK); // still there
        const pith_engine_info info = engine_info_of(engine);
        assert_int_equal(info.pool_used_bytes, info.prefix_bytes);
        assert_true(info.prefix_bytes <= info.pool_bytes);
    }
    make_prompt(tokens, 300, 0, 1);
    assert_int_equal(answer(engine, "full", tokens, 300, out), 0); // long gone
    // Two at once need nearly everything, and both get it.
    for (uint64_t seed = 20; seed < 22; seed++) {
        make_prompt(tokens, 300, 0, seed);
        begin(engine, "full", tokens, 300);
    }
    run_out(engine);
    // What would never fit evicts nothing.
    const uint64_t before = engine_info_of(engine).prefix_bytes;
    pith_engine_free(engine);
    engine = engine_of(true, 1, one, NULL);
    make_prompt(tokens, 300, 0, 1);
    answer(engine, "full", tokens, 300, out);
    const uint64_t held = engine_info_of(engine).prefix_bytes;
    pith_sequence_params p;
    pith_sequence_params_init(&p);
    p.policy = "full", p.max_new = 700;
    pith_sequence *seq;
    OK(pith_sequence_new(engine, &p, &seq, &err));
    assert_int_equal(pith_sequence_prompt(seq, tokens, 300, &err), PITH_E_MEMORY);
    assert_int_equal(engine_info_of(engine).prefix_bytes, held);
    assert_true(before > 0 && held > 0);
    pith_engine_free(engine);
}

// Stopping while a prompt is read, and memory that is short: nothing is lost, nothing is left.
static void interruptions(void **state) {
    (void)state;
    counting count = {0};
    const pith_allocator alloc = counting_allocator(&count);
    pith_token tokens[MOST], out[100], want[100];
    make_prompt(tokens, 600, 0, 1);
    pith_engine *engine = engine_of(true, 2, 0, &alloc);
    pith_sequence *seq = begin(engine, "full", tokens, 600);
    uint32_t n_active;
    for (int i = 0; i < 3; i++) OK(pith_engine_step(engine, &n_active, &err));
    pith_sequence_stop(seq);
    pith_sequence *other = begin(engine, "full", tokens, 600);
    OK(pith_engine_step(engine, &n_active, &err));
    assert_int_equal(info_of(other).n_shared, 3 * CHUNK);
    pith_sequence_free(seq);
    pith_sequence_free(other);
    assert_int_equal(answer(engine, "full", tokens, 600, want), 4 * CHUNK);

    make_prompt(tokens, 600, 0, 2);
    seq = begin(engine, "full", tokens, 600);
    OK(pith_engine_step(engine, &n_active, &err));
    count.fail_at = count.calls + 1; // the next node finds no memory: the prompt is read all the same
    OK(pith_engine_step(engine, &n_active, &err));
    count.fail_at = 0;
    run_out(engine);
    pith_sequence_free(seq);
    assert_int_equal(answer(engine, "full", tokens, 600, out), CHUNK);
    pith_engine_free(engine);
    assert_int_equal(count.live_bytes, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_stay_the_same),  cmocka_unit_test(answers_stay_the_same_with_two_threads),
        cmocka_unit_test(neighbours_share),       cmocka_unit_test(a_rewind_leaves_shared_pages_alone),
        cmocka_unit_test(kept_prefixes_give_way), cmocka_unit_test(interruptions)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
