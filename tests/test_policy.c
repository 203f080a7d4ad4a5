// The spec parser and what every policy must keep to.
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "policy/policy.h"

static void expect_text(const char *text, const char *canonical) {
    pith_spec spec;
    pith_error err = {0};
    const pith_status status = pith_spec_parse(text, &spec, &err);
    if (status) fail_msg("'%s': %s", text, err.msg);
    assert_string_equal(spec.text, canonical);
    // the canonical text means the same
    pith_spec again;
    assert_int_equal(pith_spec_parse(spec.text, &again, NULL), PITH_OK);
    assert_string_equal(again.text, canonical);
    assert_memory_equal(&again.params, &spec.params, sizeof spec.params);
}

// Refused with exactly this line; `spec` untouched.
static void expect_refusal(const char *text, const char *message, uint64_t offset) {
    pith_spec spec, before;
    memset(&spec, 0x5a, sizeof spec);
    memcpy(&before, &spec, sizeof spec);
    pith_error err = {0};
    assert_int_equal(pith_spec_parse(text, &spec, &err), PITH_E_ARG);
    assert_int_equal(err.status, PITH_E_ARG);
    assert_string_equal(err.msg, message);
    assert_int_equal(err.offset, offset);
    assert_memory_equal(&spec, &before, sizeof spec);
    assert_int_equal(pith_spec_parse(text, &spec, NULL), PITH_E_ARG);
}

static void test_canonical(void **state) {
    (void)state;
    expect_text(NULL, "full");
    expect_text("full", "full");
    expect_text("rpc", "rpc:p=1024,r=32,c=4,pool=avg7,agg=layer,sel=recent,compat=0");
    expect_text("rpc:c=8", "rpc:p=1024,r=32,c=8,pool=avg7,agg=layer,sel=recent,compat=0");
    expect_text("rpc:p=4096,c=4,r=32,pool=avg7,agg=layer,sel=recent",
                "rpc:p=4096,r=32,c=4,pool=avg7,agg=layer,sel=recent,compat=0");
    expect_text("rpc:compat=1,sel=prompt,agg=group,pool=max3,c=2.50,r=8,p=0064",
                "rpc:p=64,r=8,c=2.5,pool=max3,agg=group,sel=prompt,compat=1");
    expect_text("rpc:sel=new,agg=head,pool=none", "rpc:p=1024,r=32,c=4,pool=none,agg=head,sel=new,compat=0");
    // the limits of every range
    expect_text("rpc:p=1,r=1,c=1,pool=avg1", "rpc:p=1,r=1,c=1,pool=avg1,agg=layer,sel=recent,compat=0");
    expect_text("rpc:p=1048576,r=4096,c=1048576,pool=max255",
                "rpc:p=1048576,r=4096,c=1048576,pool=max255,agg=layer,sel=recent,compat=0");
    expect_text("rpc:p=1048576,r=4096,c=1048575.999999,pool=avg255,compat=0",
                "rpc:p=1048576,r=4096,c=1048575.999999,pool=avg255,agg=layer,sel=recent,compat=0");
    expect_text("rpc:c=1.000001", "rpc:p=1024,r=32,c=1.000001,pool=avg7,agg=layer,sel=recent,compat=0");
    expect_text("rpc:c=3.000000", "rpc:p=1024,r=32,c=3,pool=avg7,agg=layer,sel=recent,compat=0");
    expect_text("rpc:c=100,p=100",
                "rpc:p=100,r=32,c=100,pool=avg7,agg=layer,sel=recent,compat=0"); // checked at the end
    // a budget has another default of p
    expect_text("window", "window:p=1024,r=32,c=4");
    expect_text("window:c=2.50,r=8", "window:p=1024,r=8,c=2.5");
    expect_text("window:budget=512", "window:p=128,r=32,budget=512");
    expect_text("window:r=8,budget=9,p=1024", "window:p=1024,r=8,budget=9");
    expect_text("window:p=1,r=1,budget=2", "window:p=1,r=1,budget=2");
    expect_text("window:p=1048576,r=4096,c=1048575.999999", "window:p=1048576,r=4096,c=1048575.999999");
    expect_text("random", "random:p=1024,r=32,c=4,seed=0");
    expect_text("random:seed=7,c=8", "random:p=1024,r=32,c=8,seed=7");
    expect_text("random:p=1048576,r=4096,budget=1048576,seed=4294967295",
                "random:p=1048576,r=4096,budget=1048576,seed=4294967295");
}

#define WHOLE(n) "expected a whole number from 1 to " #n
#define DECIMAL "expected a number from 1 to 1048576 with at most 6 decimals"
#define WIDTH "expected avgN, maxN or none, N an odd number from 1 to 255"

static void test_refusals(void **state) {
    (void)state;
    static const struct {
        const char *text, *message;
        uint64_t offset;
    } cases[] = {
        // names
        {"", "policy '': unknown policy, expected one of: full, rpc, window, random", 0},
        {"h2o", "policy 'h2o': unknown policy, expected one of: full, rpc, window, random", 0},
        {"RPC", "policy 'RPC': unknown policy, expected one of: full, rpc, window, random", 0},
        {"rp", "policy 'rp': unknown policy, expected one of: full, rpc, window, random", 0},
        {"rpc2:p=4", "policy 'rpc2': unknown policy, expected one of: full, rpc, window, random", 0},
        {":p=4", "policy '': unknown policy, expected one of: full, rpc, window, random", 0},
        {"rpc,p=4", "policy 'rpc,p=4': unknown policy, expected one of: full, rpc, window, random", 0},
        // the form of options
        {"rpc:", "policy 'rpc': option '': expected key=value", 4},
        {"full:", "policy 'full': option '': expected key=value", 5},
        {"rpc:p", "policy 'rpc': option 'p': expected key=value", 4},
        {"rpc:p=4,", "policy 'rpc': option '': expected key=value", 8},
        {"rpc:,p=4", "policy 'rpc': option '': expected key=value", 4},
        {"rpc:=4", "policy 'rpc': option '=4': expected key=value", 4},
        {"rpc:p=4,r,c=2", "policy 'rpc': option 'r': expected key=value", 8},
        {"rpc:p=8,p=4", "policy 'rpc': p=4: 'p' is given twice, expected once", 8},
        {"rpc:p=4,r=2,p=4", "policy 'rpc': p=4: 'p' is given twice, expected once", 12},
        {"rpc:p=4 ", "policy spec: byte 0x20 at offset 7: expected printable ASCII without spaces", 7},
        {"rpc: p=4", "policy spec: byte 0x20 at offset 4: expected printable ASCII without spaces", 4},
        {"rpc:p=4\n", "policy spec: byte 0x0a at offset 7: expected printable ASCII without spaces", 7},
        {"rpc:p=\xc2\xbd", "policy spec: byte 0xc2 at offset 6: expected printable ASCII without spaces", 6},
        // keys
        {"full:p=4", "policy 'full': p: expected no options, it has none", 5},
        {"rpc:q=4", "policy 'rpc': q: unknown option, expected one of: p, r, c, pool, agg, sel, compat", 4},
        {"rpc:P=4", "policy 'rpc': P: unknown option, expected one of: p, r, c, pool, agg, sel, compat", 4},
        {"rpc:poolx=avg7", "policy 'rpc': poolx: unknown option, expected one of: p, r, c, pool, agg, sel, compat", 4},
        // whole numbers
        {"rpc:p=", "policy 'rpc': p=: " WHOLE(1048576), 4},
        {"rpc:p=0", "policy 'rpc': p=0: " WHOLE(1048576), 4},
        {"rpc:p=1048577", "policy 'rpc': p=1048577: " WHOLE(1048576), 4},
        {"rpc:p=4294967297", "policy 'rpc': p=4294967297: " WHOLE(1048576), 4}, // 1 in 32 bits
        {"rpc:p=18446744073709551617", "policy 'rpc': p=18446744073709551617: " WHOLE(1048576), 4},
        {"rpc:p=-1", "policy 'rpc': p=-1: " WHOLE(1048576), 4},
        {"rpc:p=+4", "policy 'rpc': p=+4: " WHOLE(1048576), 4},
        {"rpc:p=4x", "policy 'rpc': p=4x: " WHOLE(1048576), 4},
        {"rpc:p=0x10", "policy 'rpc': p=0x10: " WHOLE(1048576), 4},
        {"rpc:p=1e3", "policy 'rpc': p=1e3: " WHOLE(1048576), 4},
        {"rpc:p=4=4", "policy 'rpc': p=4=4: " WHOLE(1048576), 4},
        {"rpc:p=64,r=0", "policy 'rpc': r=0: " WHOLE(4096), 9},
        {"rpc:r=4097", "policy 'rpc': r=4097: " WHOLE(4096), 4},
        // the ratio
        {"rpc:c=", "policy 'rpc': c=: " DECIMAL, 4},
        {"rpc:c=0", "policy 'rpc': c=0: " DECIMAL, 4},
        {"rpc:c=0.999999", "policy 'rpc': c=0.999999: " DECIMAL, 4},
        {"rpc:c=4.", "policy 'rpc': c=4.: " DECIMAL, 4},
        {"rpc:c=.5", "policy 'rpc': c=.5: " DECIMAL, 4},
        {"rpc:c=4.1234567", "policy 'rpc': c=4.1234567: " DECIMAL, 4},
        {"rpc:c=4.5.", "policy 'rpc': c=4.5.: " DECIMAL, 4},
        {"rpc:c=inf", "policy 'rpc': c=inf: " DECIMAL, 4},
        {"rpc:c=nan", "policy 'rpc': c=nan: " DECIMAL, 4},
        {"rpc:c=1048576.000001", "policy 'rpc': c=1048576.000001: " DECIMAL, 4},
        {"rpc:p=16,c=32", "policy 'rpc': c=32: expected at most p=16, or nothing would be kept", 0},
        {"rpc:c=16.000001,p=16", "policy 'rpc': c=16.000001: expected at most p=16, or nothing would be kept", 0},
        // pooling
        {"rpc:pool=avg8", "policy 'rpc': pool=avg8: the width 8 is even, expected an odd number from 1 to 255", 4},
        {"rpc:pool=max2", "policy 'rpc': pool=max2: the width 2 is even, expected an odd number from 1 to 255", 4},
        {"rpc:pool=avg", "policy 'rpc': pool=avg: " WIDTH, 4},
        {"rpc:pool=avg0", "policy 'rpc': pool=avg0: " WIDTH, 4},
        {"rpc:pool=avg257", "policy 'rpc': pool=avg257: " WIDTH, 4},
        {"rpc:pool=avg7x", "policy 'rpc': pool=avg7x: " WIDTH, 4},
        {"rpc:pool=7", "policy 'rpc': pool=7: " WIDTH, 4},
        {"rpc:pool=none7", "policy 'rpc': pool=none7: " WIDTH, 4},
        {"rpc:pool=", "policy 'rpc': pool=: " WIDTH, 4},
        // names of choices
        {"rpc:agg=all", "policy 'rpc': agg=all: expected one of: layer, group, head", 4},
        {"rpc:agg=", "policy 'rpc': agg=: expected one of: layer, group, head", 4},
        {"rpc:sel=newest", "policy 'rpc': sel=newest: expected one of: recent, new, prompt", 4},
        {"rpc:compat=2", "policy 'rpc': compat=2: expected one of: 0, 1", 4},
        {"rpc:compat=1,agg=head",
         "policy 'rpc': agg=head with compat=1: expected layer or group, the reference cannot run head", 0},
        // ratio or budget
        {"window:c=4,budget=512", "policy 'window': c=4 with budget=512: expected one of the two", 0},
        {"random:budget=512,c=2.5", "policy 'random': c=2.5 with budget=512: expected one of the two", 0},
        {"window:budget=32", "policy 'window': budget=32: expected more than r=32, the rows that always stay", 0},
        {"random:budget=100,r=200", "policy 'random': budget=100: expected more than r=200, the rows that always stay",
         0},
        {"window:budget=1", "policy 'window': budget=1: expected a whole number from 2 to 1048576", 7},
        {"window:budget=1048577", "policy 'window': budget=1048577: expected a whole number from 2 to 1048576", 7},
        {"window:p=2", "policy 'window': c=4: expected at most p=2, or nothing would be kept", 0}, // c by default
        {"random:c=2000", "policy 'random': c=2000: expected at most p=1024, or nothing would be kept", 0},
        {"random:p=0", "policy 'random': p=0: " WHOLE(1048576), 7},
        {"window:r=4097", "policy 'window': r=4097: " WHOLE(4096), 7},
        {"window:c=0", "policy 'window': c=0: " DECIMAL, 7},
        {"random:seed=-1", "policy 'random': seed=-1: expected a whole number from 0 to 4294967295", 7},
        {"random:seed=4294967296", "policy 'random': seed=4294967296: expected a whole number from 0 to 4294967295", 7},
        {"window:seed=1", "policy 'window': seed: unknown option, expected one of: p, r, c, budget", 7},
        {"random:agg=group", "policy 'random': agg: unknown option, expected one of: p, r, c, budget, seed", 7},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        expect_refusal(cases[i].text, cases[i].message, cases[i].offset);
}

// Absurdly long inputs get one short line, and take no longer than their length.
static void test_long(void **state) {
    (void)state;
    static char text[1 << 20];
    static const char *const heads[] = {"", "rpc:", "rpc:p=", "rpc:p=4,p=4,p"};
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) {
        memset(text, '7', sizeof text - 1);
        memcpy(text, heads[i], strlen(heads[i]));
        pith_spec spec;
        pith_error err;
        assert_int_equal(pith_spec_parse(text, &spec, &err), PITH_E_ARG);
        assert_in_range(strlen(err.msg), 20, 200);
    }
    memset(text, ',', sizeof text - 1);
    memcpy(text, "rpc:", 4);
    expect_refusal(text, "policy 'rpc': option '': expected key=value", 4);
}

// A new sequence's state is all zeros, and asking a policy about the future changes nothing.
static void check_policy(const char *text) {
    pith_spec spec;
    assert_int_equal(pith_spec_parse(text, &spec, NULL), PITH_OK);
    const pith_policy *p = spec.policy;
    pith_policy_state state = {0};
    assert_false(p->due(&spec.params, &state));
    const uint32_t cap = p->window(&spec.params);
    for (uint32_t i = 0; i < 40; i++) {
        const int32_t slot = p->observe_prompt(&spec.params, &state, i, 40);
        assert_true(slot >= -1 && slot < (int32_t)cap);
    }
    for (uint32_t m = 0; m < 3000; m++) {
        const pith_policy_state before = state;
        // never more than the full cache, never less than what is there already, and no less for more tokens
        const uint32_t some = p->peak_rows(&spec.params, &state, 100 + m, 7, 50);
        const uint32_t more = p->peak_rows(&spec.params, &state, 100 + m, 7, 51);
        assert_in_range(some, 100 + m + 7, 100 + m + 57);
        assert_in_range(more, some, some + 1);
        assert_true(p->max_candidates(&spec.params, &state, 51) >= p->max_candidates(&spec.params, &state, 50));
        p->due(&spec.params, &state);
        assert_memory_equal(&state, &before, sizeof state);

        const int32_t slot = p->observe(&spec.params, &state);
        assert_true(slot >= -1 && slot < (int32_t)cap);
        p->advance(&spec.params, &state);
        if (p->due(&spec.params, &state)) {
            p->settle(&spec.params, &state);
            assert_false(p->due(&spec.params, &state));
        }
    }
}

static void test_policies(void **state) {
    (void)state;
    size_t n = 0;
    for (; pith_policies[n]; n++) {
        const pith_policy *p = pith_policies[n];
        assert_true(p->name && p->summary && p->defaults && p->set && p->check && p->print && p->window &&
                    p->observe_prompt && p->observe && p->advance && p->due && p->select && p->settle && p->peak_rows &&
                    p->max_candidates && p->max_queries);
        assert_null(strpbrk(p->name, ":,= "));
        pith_spec spec;
        assert_int_equal(pith_spec_parse(p->name, &spec, NULL), PITH_OK);
        assert_ptr_equal(spec.policy, p);
        assert_int_equal(strncmp(spec.text, p->name, strlen(p->name)), 0);
        check_policy(p->name);
        for (size_t m = 0; m < n; m++) assert_string_not_equal(p->name, pith_policies[m]->name);
    }
    assert_int_equal(n, 4);
    check_policy("rpc:p=16,r=40,c=3");
    check_policy("rpc:p=100,r=7,c=100,sel=prompt");
    check_policy("rpc:p=33,r=1,c=1.1,sel=new,agg=head");
    check_policy("rpc:p=5,r=9,c=1,compat=1");
    check_policy("window:p=16,r=40,c=3");
    check_policy("window:p=5,r=9,budget=10");
    check_policy("random:p=33,r=1,c=1.1");
    check_policy("random:p=500,r=7,budget=64,seed=9");
}

static void test_full(void **state) {
    (void)state;
    pith_spec spec;
    assert_int_equal(pith_spec_parse("full", &spec, NULL), PITH_OK);
    pith_policy_state s = {0};
    assert_int_equal(spec.policy->window(&spec.params), 0);
    assert_int_equal(spec.policy->max_queries(&spec.params), 0);
    assert_int_equal(spec.policy->observe_prompt(&spec.params, &s, 0, 1), -1);
    assert_int_equal(spec.policy->observe(&spec.params, &s), -1);
    assert_int_equal(spec.policy->max_candidates(&spec.params, &s, UINT32_MAX), 0);
    assert_int_equal(spec.policy->peak_rows(&spec.params, &s, 5, 100, 1000), 1105);
    assert_int_equal(spec.policy->peak_rows(&spec.params, &s, UINT32_MAX, 1, UINT32_MAX), UINT32_MAX);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_canonical), cmocka_unit_test(test_refusals), cmocka_unit_test(test_long),
        cmocka_unit_test(test_policies),  cmocka_unit_test(test_full),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
