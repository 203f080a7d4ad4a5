// What counts as an answer, and which answers are the same.
#include "eval/answer.h"

#include "t.h"

static void reading(void **state) {
    (void)state;
    static const struct {
        const char *text, *answer; // NULL: none
    } cases[] = {
        {"", NULL},
        {"no box", NULL},
        {"\\boxed{7}", "7"},
        {"so \\boxed{7}, no, \\boxed{8}.", "8"},
        {"\\boxed {7}", "7"},
        {"\\boxed{}", ""},
        {"\\boxed{\\frac{1}{2}}", "\\frac{1}{2}"},
        {"\\boxed{\\{1, 2\\}}", "\\{1, 2\\}"}, // written braces are no groups
        {"\\boxed{\\boxed{7}}", "7"},
        {"{ \\boxed{7}", "7"},
        {"} \\boxed{7} }", "7"},
        {"\\boxed{7} \\boxed{8", "7"}, // the last one was cut off
        {"\\boxed{7", NULL},
        {"\\boxed 7", NULL},
        {"boxed{7}", NULL},
        {"\\boxedx{7}", NULL},
        {"\\boxed{1} </think> \\boxed{2}", "2"},
        {"\\boxed{1} </think> \\boxed{2} </think> \\boxed{3}", "3"},
        {"\\boxed{1} </think> it is 1", "1"}, // none behind the thought: of the whole
        {"<think> \\boxed{1}", "1"},
        {"\\boxed{1 </think> 2}", "1 </think> 2"}, // of the whole, where it balances
    };
    for (size_t i = 0; i < T_COUNT(cases); i++) {
        const size_t n = strlen(cases[i].text);
        t_guarded page = t_guard(n);
        memcpy(page.p, cases[i].text, n); // not terminated
        bool found;
        char *answer;
        assert_true(eval_answer_read(page.p, n, &found, &answer));
        if (found != (cases[i].answer != NULL)) fail_msg("%s: found %s", cases[i].text, found ? answer : "none");
        if (found) assert_string_equal(answer, cases[i].answer);
        else assert_null(answer);
        free(answer);
        t_unguard(&page);
    }
}

// A generation that says nothing but "\boxed{" takes a time that grows with its length, not with its square.
static void a_stutter_is_read_once(void **state) {
    (void)state;
    const size_t n = 1 << 20;
    char *text = t_new(7 * n + 1);
    for (size_t i = 0; i < n; i++) memcpy(text + 7 * i, "\\boxed{", 7);
    bool found;
    char *answer;
    assert_true(eval_answer_read(text, 7 * n, &found, &answer));
    assert_false(found);
    free(text);
}

static void comparing(void **state) {
    (void)state;
    static const struct {
        const char *a, *b;
        bool same;
    } cases[] = {
        {"7", "7", true},
        {"7", "8", false},
        {"007", "7", true},
        {"0", "000", true},
        {"-0", "0", true},
        {"+7", "7", true},
        {"-7", "7", false},
        {"-07", "-7", true},
        {"- 7", "-7", true},
        {" 7 ", "7", true},
        {"$7$", "7", true},
        {"7.", "7", true},
        {"1,234", "1234", true},
        {"1 234", "1234", true},
        {"1,234,567", "1234567", true},
        {"0,012", "12", true},
        {"1,2", "12", false}, // a list
        {"12,34", "1234", false},
        {"1234,567", "1234567", false},
        {"1,234 567", "1234567", false}, // one way to set thousands apart, not two
        {"1 2", "12", false},
        {"1,", "1", false},
        {"\\text{7}", "7", true},
        {"\\text{ 7 }.", "7", true},
        {"$\\text{7.}$", "7", true},
        {"\\text{a}\\text{b}", "a}\\text{b", false},
        {"7 apples", "7", false},
        {"7.0", "7", false},
        {"70", "7", false},
        {"7", "", false},
        {"+", "", false},
        {"123456789012345678901234567890", "0123456789012345678901234567890", true},
        {"123456789012345678901234567890", "123456789012345678901234567891", false},
        {"\\frac{1}{2}", " \\frac{1}{2} ", true},
        {"x + 1", "x  +\n1", true},
        {"x+1", "x + 1", false},
        {"Yes", "yes", false},
        {"(1, 2)", "(1, 2).", true},
    };
    for (size_t i = 0; i < T_COUNT(cases); i++) {
        if (eval_answer_same(cases[i].a, cases[i].b) != cases[i].same)
            fail_msg("\"%s\" and \"%s\": expected %s", cases[i].a, cases[i].b, cases[i].same ? "same" : "different");
        assert_int_equal(eval_answer_same(cases[i].b, cases[i].a), cases[i].same);
    }
}

// A normal form is its own normal form.
static void normal_forms_stay(void **state) {
    (void)state;
    static const char *const texts[] = {"",  "$", ".",    "..",      " . ", "\\text{}", "\\text{\\text{-0,001.}}.",
                                        "+", "-", "- 0 ", "\\text{a"};
    for (size_t i = 0; i < T_COUNT(texts); i++) {
        char *once = eval_answer_normal(texts[i]);
        assert_non_null(once);
        char *twice = eval_answer_normal(once);
        assert_string_equal(once, twice);
        free(once);
        free(twice);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reading),
        cmocka_unit_test(a_stutter_is_read_once),
        cmocka_unit_test(comparing),
        cmocka_unit_test(normal_forms_stay),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
