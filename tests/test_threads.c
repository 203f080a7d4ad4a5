// The governor that chooses how many threads take a step, driven with made-up step times: no clock is read here.
#include "t.h"

#include "cpu/threads.h"

// Seconds that step number i takes with n threads.
typedef double (*machine)(uint32_t n, uint32_t i, t_rng *noise);

typedef struct result {
    double seconds;
    uint32_t last;           // the count of the last step that was no probe
    uint32_t steps_with[PITH_MAX_THREADS + 1];
} result;

// Runs n steps from step `first` on.
static result drive(pith_threads *t, machine seconds, uint32_t first, uint32_t n, t_rng *noise) {
    result r = {0};
    for (uint32_t i = 0; i < n; i++) {
        uint32_t count;
        assert_non_null(pith_threads_begin(t, true, &count));
        assert_in_range(count, 1, t->max);
        const bool is_probe = t->probe != t->at;
        const double s = seconds(count, first + i, noise);
        pith_threads_end(t, s);
        r.seconds += s, r.steps_with[count]++;
        if (!is_probe) r.last = count;
    }
    return r;
}

static void init(pith_threads *t, uint32_t max) {
    pith_error err;
    if (pith_threads_init(t, max, &err) != PITH_OK) fail_msg("%s", err.msg);
}

// ------------------------------------------------------------------------------------------------- machines

// Memory is the limit: the second thread almost halves the time, more help less.
static double idle(uint32_t n, uint32_t i, t_rng *noise) {
    (void)i, (void)noise;
    return n == 1 ? 1 : n == 2 ? 0.53 : n == 4 ? 0.31 : 0.22;
}
static double idle_and_noisy(uint32_t n, uint32_t i, t_rng *noise) {
    return idle(n, i, noise) * (1 + 0.15 * fabs((double)t_unit(noise)));
}
static double idle_but_for_the_first(uint32_t n, uint32_t i, t_rng *noise) {
    return idle(n, i, noise) * (i == 0 ? 8 : 1);
}

// A niced competitor: whoever has a CPU spins for the one that has none.
static double niced(uint32_t n, uint32_t i, t_rng *noise) {
    (void)i, (void)noise;
    return n == 1 ? 1 : 10;
}
// A competitor that takes its share: seldom does the second thread help, mostly it is waited for.
static double contended(uint32_t n, uint32_t i, t_rng *noise) {
    (void)i;
    if (n == 1) return 1 + 0.1 * (double)fabsf(t_unit(noise));
    return t_below(noise, 4) ? 1.3 + 3 * (double)fabsf(t_unit(noise)) : 0.55;
}
static double niced_then_idle(uint32_t n, uint32_t i, t_rng *noise) {
    return i < 600 ? niced(n, i, noise) : idle(n, i, noise);
}
static double idle_then_niced(uint32_t n, uint32_t i, t_rng *noise) {
    return i < 600 ? idle(n, i, noise) : niced(n, i, noise);
}
// Four CPUs of eight are free.
static double four_free(uint32_t n, uint32_t i, t_rng *noise) { return n <= 4 ? idle(n, i, noise) : 3; }

// ---------------------------------------------------------------------------------------------------- tests

// Time over what the best count alone would have taken.
static double lost(const result *r, double best, uint32_t n) { return r->seconds / (best * n) - 1; }

static void an_idle_machine_loses_little(void **state) {
    (void)state;
    pith_threads t;
    t_rng rng = 1;
    for (uint32_t max = 2; max <= 8; max *= 2) {
        const double best = idle(max, 0, NULL);
        init(&t, max);
        const result start = drive(&t, idle, 0, 128, &rng), later = drive(&t, idle, 128, 4096, &rng);
        print_message("%u threads, idle: %.2f %% lost in 128 steps, then %.2f %%\n", max, 100 * lost(&start, best, 128),
                      100 * lost(&later, best, 4096));
        assert_true(lost(&start, best, 128) < 0.015);
        assert_true(lost(&later, best, 4096) < 0.005);
        assert_int_equal(later.last, max);
        pith_threads_free(&t);

        init(&t, max);
        const result noisy = drive(&t, idle_and_noisy, 0, 2048, &rng);
        const uint32_t with_fewer = 2048 - noisy.steps_with[max];
        print_message("%u threads, idle and noisy: %u of 2048 steps with fewer\n", max, with_fewer);
        assert_true(with_fewer < 20);
        pith_threads_free(&t);

        init(&t, max);
        drive(&t, idle_but_for_the_first, 0, 1, &rng);
        const result warm = drive(&t, idle_but_for_the_first, 1, 128, &rng);
        assert_true(lost(&warm, best, 128) < 0.015);
        pith_threads_free(&t);
    }
}

static void one_thread_under_a_competitor(void **state) {
    (void)state;
    pith_threads t;
    t_rng rng = 2;
    for (uint32_t max = 2; max <= 8; max *= 2) {
        init(&t, max);
        const result start = drive(&t, niced, 0, 256, &rng), later = drive(&t, niced, 256, 4096, &rng);
        print_message("%u threads, niced competitor: %.3f of one thread's rate in 256 steps, then %.3f\n", max,
                      256 / start.seconds, 4096 / later.seconds);
        assert_true(256 / start.seconds > (max == 2 ? 0.85 : 0.6)); // more counts, more to try
        assert_true(4096 / later.seconds > 0.96);
        assert_int_equal(later.last, 1);
        pith_threads_free(&t);
    }
    double worst = 1;
    for (uint32_t seed = 0; seed < 20; seed++) {
        rng = 100 + seed;
        init(&t, 2);
        const result r = drive(&t, contended, 0, 1024, &rng);
        const double rate = 1.05 * 1024 / r.seconds;
        worst = rate < worst ? rate : worst;
        pith_threads_free(&t);
    }
    print_message("2 threads, greedy competitor: at least %.3f of one thread's rate in 1024 steps\n", worst);
    assert_true(worst > 0.85);
}

// The count follows when a competitor comes, and when it goes.
static void the_count_follows_the_machine(void **state) {
    (void)state;
    pith_threads t;
    t_rng rng = 3;
    init(&t, 2);
    result r = drive(&t, idle_then_niced, 0, 600, &rng);
    assert_int_equal(r.last, 2);
    r = drive(&t, idle_then_niced, 600, 256, &rng);
    print_message("a competitor comes: %u slow steps of 256\n", r.steps_with[2]);
    assert_int_equal(r.last, 1);
    assert_true(r.steps_with[2] <= 4);
    pith_threads_free(&t);

    init(&t, 2);
    r = drive(&t, niced_then_idle, 0, 600, &rng);
    assert_int_equal(r.last, 1);
    uint32_t steps = 600;
    do r = drive(&t, niced_then_idle, steps++, 1, &rng);
    while (r.last != 2 && steps < 2000);
    print_message("it goes: back at two threads after %u steps\n", steps - 600);
    assert_true(steps - 600 <= 520);
    pith_threads_free(&t);

    init(&t, 8);
    r = drive(&t, four_free, 0, 256, &rng);
    assert_int_equal(r.last, 4);
    print_message("8 threads, 4 free: %.1f %% lost in 256 steps\n", 100 * lost(&r, idle(4, 0, NULL), 256));
    r = drive(&t, four_free, 256, 4096, &rng);
    assert_int_equal(r.last, 4);
    assert_true(lost(&r, idle(4, 0, NULL), 4096) < 0.03);
    pith_threads_free(&t);
}

static void counts_are_powers_of_two_and_the_maximum(void **state) {
    (void)state;
    static const struct {
        uint32_t max, n, counts[5];
    } want[] = {{1, 1, {1}}, {2, 2, {1, 2}}, {3, 3, {1, 2, 3}}, {8, 4, {1, 2, 4, 8}}, {12, 5, {1, 2, 4, 8, 12}}};
    pith_threads t;
    uint32_t n;
    for (size_t i = 0; i < T_COUNT(want); i++) {
        init(&t, want[i].max);
        assert_int_equal(t.n_counts, want[i].n);
        assert_memory_equal(t.counts, want[i].counts, want[i].n * sizeof *t.counts);
        struct ggml_threadpool *all = pith_threads_begin(&t, false, &n); // prefill: all of them
        assert_int_equal(n, want[i].max);
        assert_true(pith_threads_current(&t, &n) == all);
        pith_threads_free(&t);
    }
}

static void one_thread_never_probes(void **state) {
    (void)state;
    pith_threads t;
    t_rng rng = 4;
    init(&t, 1);
    const result r = drive(&t, idle_and_noisy, 0, 1000, &rng);
    assert_int_equal(r.steps_with[1], 1000);
    pith_threads_free(&t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_idle_machine_loses_little),    cmocka_unit_test(one_thread_under_a_competitor),
        cmocka_unit_test(the_count_follows_the_machine),   cmocka_unit_test(counts_are_powers_of_two_and_the_maximum),
        cmocka_unit_test(one_thread_never_probes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
