// The tables' statistics against values that were worked out apart.
#include "eval/stats.h"

#include "t.h"

#define CLOSE 1e-9

static t_bound bound = {.what = "distance to the values worked out apart"};

// n_eff by hand: the first has s2 = (3 * 0.25^2 + 0.75^2) / (4 * 3) = 1/16, so 0.1875 * 16 = 3. Bounds: the formula in
// eval/stats.h, in Python.
static void pass_rates(void **state) {
    (void)state;
    static const struct {
        eval_cluster clusters[5];
        size_t n;
        double mean, low, high;
    } cases[] = {
        {{{1, 1}, {1, 1}, {1, 1}, {1, 0}}, 4, 0.75, 0.2560926803, 0.9631588038},         // n_eff 3
        {{{4, 2}, {4, 2}}, 2, 0.5, 0.2152160622, 0.7847839378},                          // all alike: n_eff 8
        {{{4, 3}}, 1, 0.75, 0.1179095880, 0.9853650692},                                 // one problem: n_eff 1
        {{{4, 4}, {4, 3}, {4, 0}, {2, 1}, {1, 1}}, 5, 0.65, 0.2982870508, 0.8902743537}, // n_eff 6.5
    };
    for (size_t i = 0; i < T_COUNT(cases); i++) {
        eval_interval got = eval_pass_rate(cases[i].clusters, cases[i].n);
        t_within(&bound, got.mean, cases[i].mean, CLOSE);
        t_within(&bound, got.low, cases[i].low, CLOSE);
        t_within(&bound, got.high, cases[i].high, CLOSE);
    }
    assert_true(isnan(eval_pass_rate(NULL, 0).mean));
}

// Ten problems, all right or all wrong, are ten, however many samples each has: 10 / (10 + z^2) = 0.7225.
static void an_interval_has_a_width_at_its_ends(void **state) {
    (void)state;
    for (uint32_t samples = 1; samples <= 64; samples *= 8) {
        eval_cluster all[10], none[10];
        for (size_t i = 0; i < 10; i++) all[i] = (eval_cluster){samples, samples}, none[i] = (eval_cluster){samples, 0};
        eval_interval right = eval_pass_rate(all, 10), wrong = eval_pass_rate(none, 10);
        assert_true(right.mean == 1);
        t_within(&bound, right.low, 0.7224672001, CLOSE);
        t_within(&bound, right.high, 1, CLOSE);
        assert_true(wrong.mean == 0);
        t_within(&bound, wrong.low, 0, CLOSE);
        t_within(&bound, wrong.high, 1 - 0.7224672001, CLOSE);
    }
}

// More samples of the same problems help as far as they differ, and no more.
static void problems_are_the_unit(void **state) {
    (void)state;
    eval_cluster alike[30], apart[30];
    for (uint32_t i = 0; i < 30; i++) {
        alike[i] = (eval_cluster){8, i < 15 ? 8 : 0}; // samples of a problem agree
        apart[i] = (eval_cluster){8, 4};              // they do not
    }
    eval_interval wide = eval_pass_rate(alike, 30), narrow = eval_pass_rate(apart, 30);
    t_within(&bound, wide.mean, 0.5, CLOSE);
    t_within(&bound, narrow.mean, 0.5, CLOSE);
    assert_true(wide.high - wide.low > 2 * (narrow.high - narrow.low));
}

static void differences(void **state) {
    (void)state;
    assert_true(isnan(eval_mean_difference(NULL, 0).mean));
    const double one = 0.25;
    eval_interval got = eval_mean_difference(&one, 1);
    assert_true(got.mean == 0.25);
    assert_true(got.low == 0.25);
    assert_true(got.high == 0.25);

    const double two[] = {-1, 1}; // a quarter of all resamples is -1, a quarter 1
    got = eval_mean_difference(two, 2);
    assert_true(got.mean == 0);
    assert_true(got.low == -1);
    assert_true(got.high == 1);

    double many[400]; // deviation 1/2: the mean's is 1/40, the quantiles lie 1.96/40 = 0.049 away
    for (size_t i = 0; i < T_COUNT(many); i++) many[i] = (double)(i % 2);
    got = eval_mean_difference(many, T_COUNT(many));
    t_within(&bound, got.mean, 0.5, CLOSE);
    t_within(&bound, got.low, 0.5 - 0.049, 0.004);
    t_within(&bound, got.high, 0.5 + 0.049, 0.004);
    eval_interval again = eval_mean_difference(many, T_COUNT(many));
    assert_memory_equal(&got, &again, sizeof got);
}

static void quantiles(void **state) {
    (void)state;
    double x[] = {4, 1, 3, 2};
    eval_sort(x, 4);
    assert_true(eval_quantile(x, 4, 0) == 1);
    assert_true(eval_quantile(x, 4, 0.25) == 1.75); // type 7: at 0.25 * 3
    assert_true(eval_quantile(x, 4, 0.5) == 2.5);
    assert_true(eval_quantile(x, 4, 1) == 4);
    assert_true(eval_quantile(x, 1, 0.75) == 1);
    assert_true(isnan(eval_quantile(x, 0, 0.5)));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pass_rates),
        cmocka_unit_test(an_interval_has_a_width_at_its_ends),
        cmocka_unit_test(problems_are_the_unit),
        cmocka_unit_test(differences),
        cmocka_unit_test(quantiles),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    t_report(&bound);
    return failed;
}
