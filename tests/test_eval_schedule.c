// Many samples through one engine: what a sample depends on, and that all of them come, however little room there is.
#include "eval/schedule.h"

#include "base/rng.h"
#include "calls.h"
#include "tiny.h"

enum { PROBLEMS = 5, SAMPLES = 3, JOBS = PROBLEMS * SAMPLES, MOST_TOKENS = 150 };

static pith_model *model;
static eval_prompt prompts[PROBLEMS];

static int setup(void **state) {
    (void)state;
    tiny_spec spec = tiny_default("qwen2", GGML_TYPE_Q8_0);
    spec.gain = 3;
    model = tiny_model_open(&spec);
    static const size_t lengths[PROBLEMS] = {1, 65, 300, 64, 20}; // a token, a page and one, two chunks, a page
    for (uint32_t i = 0; i < PROBLEMS; i++) {
        prompts[i] = (eval_prompt){"problem", NULL, t_new(lengths[i] * sizeof(pith_token)), lengths[i]};
        for (size_t t = 0; t < lengths[i]; t++) prompts[i].tokens[t] = (pith_token)(pith_mix64(1000 * i + t) % 256);
    }
    return model ? 0 : -1;
}

static int teardown(void **state) {
    (void)state;
    for (uint32_t i = 0; i < PROBLEMS; i++) free(prompts[i].tokens);
    pith_model_free(model);
    return 0;
}

typedef struct outcome {
    eval_sample sample;
    uint64_t text; // checksum
    uint32_t times;
} outcome;

typedef struct outcomes {
    outcome at[PROBLEMS][SAMPLES];
    uint32_t n, steps, most_steps; // most_steps 0: any number
} outcomes;

static pith_status on_done(void *ctx, eval_sample *s, const char *text, size_t bytes, pith_error *e) {
    (void)e;
    outcomes *all = ctx;
    outcome *o = &all->at[s->problem][s->sample];
    o->sample = *s, o->text = t_fnv(T_FNV_BEGIN, text, bytes), o->times++;
    all->n++;
    return PITH_OK;
}

static bool on_step(void *ctx, const eval_progress *progress) {
    outcomes *all = ctx;
    assert_int_equal(progress->n_done, all->n);
    return ++all->steps != all->most_steps;
}

static uint32_t list_jobs(eval_job *jobs) {
    uint32_t n = 0;
    for (uint32_t p = 0; p < PROBLEMS; p++)
        for (uint32_t s = 0; s < SAMPLES; s++) jobs[n++] = (eval_job){p, s};
    return n;
}

static pith_status run(const char *policy, uint32_t batch, uint64_t budget, const eval_job *jobs, size_t n,
                       outcomes *out) {
    pith_engine_params ep;
    pith_engine_params_init(&ep);
    ep.n_threads = 1, ep.max_sequences = batch + 1, ep.n_ctx = 512, ep.kv_budget_bytes = budget;
    pith_engine *engine;
    OK(pith_engine_new(model, &ep, &engine, &err));
    eval_schedule schedule = {.model = model,
                              .engine = engine,
                              .policy = policy,
                              .max_new = MOST_TOKENS,
                              .batch = batch,
                              .sampling = {.temperature = 0.8f, .top_p = 0.95f, .seed = 3},
                              .prompts = prompts,
                              .jobs = jobs,
                              .n_jobs = n,
                              .done = on_done,
                              .go_on = on_step,
                              .ctx = out};
    eval_progress progress;
    pith_status status = eval_schedule_run(&schedule, &progress, &err);
    pith_engine_info info;
    pith_engine_describe(engine, &info);
    assert_int_equal(info.pool_used_bytes, 0);
    pith_engine_free(engine);
    return status;
}

static void assert_same_sample(const eval_sample *x, const eval_sample *y) {
    assert_int_equal(x->prompt_tokens, y->prompt_tokens);
    assert_int_equal(x->completion_tokens, y->completion_tokens);
    assert_int_equal(x->finished, y->finished);
    assert_int_equal(x->compressions, y->compressions);
    assert_int_equal(x->rows_peak, y->rows_peak);
    assert_int_equal(x->rows_full, y->rows_full);
    assert_int_equal(x->bytes_peak, y->bytes_peak);
    assert_int_equal(x->bytes_full, y->bytes_full);
    assert_true(x->rows_mean == y->rows_mean);
    assert_true(x->rows_full_mean == y->rows_full_mean);
    assert_true(x->bytes_mean == y->bytes_mean);
    assert_true(x->bytes_full_mean == y->bytes_full_mean);
    assert_int_equal(x->n_points, y->n_points);
    assert_memory_equal(x->points, y->points, x->n_points * sizeof *x->points);
}

static void assert_same(const outcomes *a, const outcomes *b, const eval_job *jobs, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const outcome *x = &a->at[jobs[i].problem][jobs[i].sample], *y = &b->at[jobs[i].problem][jobs[i].sample];
        assert_int_equal(x->times, 1);
        assert_int_equal(y->times, 1);
        assert_int_equal(x->text, y->text);
        assert_same_sample(&x->sample, &y->sample);
    }
}

static const char *const policies[] = {"full", "rpc:p=16,r=4,c=4", "rpc:p=16,r=8,c=2,agg=head,sel=prompt",
                                       "random:p=16,r=4,c=4"};

static uint64_t peak_of(const char *policy, uint32_t problem) {
    pith_engine_params ep;
    pith_engine_params_init(&ep);
    ep.n_threads = 1, ep.n_ctx = 512;
    pith_engine *engine;
    uint64_t bytes;
    OK(pith_engine_new(model, &ep, &engine, &err));
    OK(pith_peak_bytes(engine, policy, (uint32_t)prompts[problem].n, MOST_TOKENS, &bytes, &err));
    pith_engine_free(engine);
    return bytes;
}

// Alone, in batches of several sizes, with a cache that holds one, or two, or a problem's prompt and its forks.
static void a_sample_depends_on_its_key_alone(void **state) {
    (void)state;
    eval_job jobs[JOBS];
    const uint32_t n = list_jobs(jobs);
    for (size_t p = 0; p < T_COUNT(policies); p++) {
        static outcomes alone, other;
        memset(&alone, 0, sizeof alone);
        OK(run(policies[p], 1, 0, jobs, n, &alone));
        assert_int_equal(alone.n, JOBS);
        const uint64_t peak = peak_of(policies[p], 2);
        const struct {
            uint32_t batch;
            uint64_t budget;
        } ways[] = {{5, 0}, {5, 2 * peak}, {2, 0}, {JOBS, 0}, {5, peak}, {5, 3 * peak}, {1, peak}};
        const size_t n_ways = getenv("PITH_TEST_QUICK") ? 2 : T_COUNT(ways);
        for (size_t w = 0; w < n_ways; w++) {
            memset(&other, 0, sizeof other);
            OK(run(policies[p], ways[w].batch, ways[w].budget, jobs, n, &other));
            assert_int_equal(other.n, JOBS);
            assert_same(&alone, &other, jobs, n);
        }
        assert_true(other.steps > 0);
    }
}

// Some jobs, in another order, give what they give among all: as after a resume, or in a shard.
static void neighbours_do_not_matter(void **state) {
    (void)state;
    static const eval_job few[] = {{4, 2}, {1, 1}, {1, 0}, {3, 2}, {0, 1}};
    eval_job jobs[JOBS];
    const uint32_t n = list_jobs(jobs);
    static outcomes all, some;
    memset(&all, 0, sizeof all), memset(&some, 0, sizeof some);
    OK(run(policies[1], 4, 0, jobs, n, &all));
    OK(run(policies[1], 3, 0, few, T_COUNT(few), &some));
    assert_int_equal(some.n, T_COUNT(few));
    assert_same(&all, &some, few, T_COUNT(few));
}

// A sample's numbers against what is known of full caches and of RPC's schedule.
static void measurements(void **state) {
    (void)state;
    eval_job jobs[JOBS];
    const uint32_t n = list_jobs(jobs);
    static outcomes full, rpc;
    memset(&full, 0, sizeof full), memset(&rpc, 0, sizeof rpc);
    OK(run("full", 4, 0, jobs, n, &full));
    OK(run("rpc:p=16,r=4,c=4", 4, 0, jobs, n, &rpc));
    t_bound bound = {.what = "mean rows of a full cache"};
    bool differ = false, finished = false, cut_off = false;
    for (uint32_t i = 0; i < JOBS; i++) {
        const uint32_t problem = jobs[i].problem;
        const eval_sample *s = &full.at[problem][jobs[i].sample].sample, *r = &rpc.at[problem][jobs[i].sample].sample;
        const uint32_t prompt = (uint32_t)prompts[problem].n, made = s->completion_tokens;
        assert_int_equal(s->prompt_tokens, prompt);
        assert_int_equal(s->compressions, 0);
        assert_int_equal(s->rows_full, prompt + made - 1); // the last token is drawn and not read
        assert_int_equal(s->rows_peak, s->rows_full);
        assert_int_equal(s->bytes_peak, s->bytes_full);
        // After n of `made` tokens there are prompt + n rows, and one fewer after the last.
        const double mean = prompt + (made + 1) / 2.0 - 1.0 / made;
        t_within(&bound, s->rows_mean, mean, 1e-9);
        t_within(&bound, s->rows_full_mean, mean, 1e-9);
        const uint32_t stride = s->points[0].generated;
        assert_int_equal(s->n_points, made / stride);
        for (uint32_t k = 0; k < s->n_points; k++) {
            assert_int_equal(s->points[k].generated, (k + 1) * stride);
            assert_int_equal(s->points[k].rows, prompt + s->points[k].generated - (s->points[k].generated == made));
        }
        finished = finished || s->finished, cut_off = cut_off || !s->finished;
        if (!s->finished) assert_int_equal(made, MOST_TOKENS);

        const uint32_t read = r->completion_tokens - 1;
        assert_int_equal(r->compressions, read < 20 ? 0 : (read - 4) / 16); // at 20, 36, ... rows of generated tokens
        assert_int_equal(r->rows_full, prompt + read);
        if (r->compressions > 0) assert_true(r->rows_peak < r->rows_full || r->compressions == 1);
        assert_true(r->rows_mean <= r->rows_full_mean && r->bytes_mean <= r->bytes_full_mean);
        assert_true(r->n_points > 0 && r->n_points <= EVAL_POINTS);
        differ = differ || full.at[problem][0].text != full.at[problem][jobs[i].sample].text;
    }
    assert_true(differ); // samples of a problem are not copies
    assert_true(finished && cut_off);
    t_report(&bound);
}

static void it_stops_when_asked(void **state) {
    (void)state;
    eval_job jobs[JOBS];
    const uint32_t n = list_jobs(jobs);
    static outcomes out;
    for (uint32_t steps = 1; steps < 200; steps += 33) {
        memset(&out, 0, sizeof out);
        out.most_steps = steps;
        OK(run("full", 3, 0, jobs, n, &out));
        assert_int_equal(out.steps, steps);
        assert_true(out.n < JOBS);
    }
}

static void a_problem_without_room_is_named(void **state) {
    (void)state;
    eval_job jobs[JOBS];
    const uint32_t n = list_jobs(jobs);
    static outcomes out;
    memset(&out, 0, sizeof out);
    assert_int_equal(run("full", 3, peak_of("full", 2) - 1, jobs, n, &out), PITH_E_MEMORY);
    assert_int_equal(strncmp(err.msg, "problem: ", 9), 0);
    assert_int_equal(out.n, 2 * SAMPLES); // the two in front of it fit
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sample_depends_on_its_key_alone),
        cmocka_unit_test(neighbours_do_not_matter),
        cmocka_unit_test(measurements),
        cmocka_unit_test(it_stops_when_asked),
        cmocka_unit_test(a_problem_without_room_is_named),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
