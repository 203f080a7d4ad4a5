// What the bytes of an answer become: whole characters, thoughts and content, stops; however the bytes are cut.
#include "server/speech.h"

#include "t.h"

enum { MOST = 4096 };

typedef struct heard {
    char part[2][MOST];
    size_t n[2];
} heard;

static void hear(void *ctx, speech_part part, const char *text, size_t bytes) {
    heard *h = ctx;
    assert_true(bytes > 0 && h->n[part] + bytes < MOST);
    memcpy(h->part[part] + h->n[part], text, bytes);
    h->n[part] += bytes;
}

// The text in pieces of `cut` bytes, each flush against an unmapped page.
static heard say(const char *text, size_t n, size_t cut, speech_state state, const char *const *stops, size_t n_stops) {
    heard h = {0};
    speech s;
    speech_begin(&s, state, stops, n_stops);
    for (size_t at = 0; at < n; at += cut) {
        const size_t bytes = n - at < cut ? n - at : cut;
        t_guarded page = t_guard(bytes);
        memcpy(page.p, text + at, bytes);
        speech_add(&s, page.p, bytes, hear, &h);
        t_unguard(&page);
    }
    speech_end(&s, hear, &h);
    return h;
}

static void expect(const char *text, size_t n, speech_state state, const char *const *stops, size_t n_stops,
                   const char *reasoning, const char *content) {
    for (size_t cut = 1; cut <= n; cut++) {
        const heard h = say(text, n, cut, state, stops, n_stops);
        if (strcmp(h.part[SPEECH_REASONING], reasoning) || strcmp(h.part[SPEECH_CONTENT], content))
            fail_msg("\"%s\" cut at %zu: reasoning \"%s\", content \"%s\"", text, cut, h.part[SPEECH_REASONING],
                     h.part[SPEECH_CONTENT]);
    }
}

static void thoughts(void **state) {
    (void)state;
    static const struct {
        speech_state from;
        const char *text, *reasoning, *content;
    } cases[] = {
        {SPEECH_START, "<think>a</think>b", "a", "b"},
        {SPEECH_START, "<think>\na\n</think>\n\nb\n", "a", "b\n"},
        {SPEECH_START, " \n<think>a</think>b", "a", "b"},
        {SPEECH_START, "  a<think>b", "", "  a<think>b"}, // only at the start
        {SPEECH_START, "<thin", "", "<thin"},
        {SPEECH_START, "<thinking>", "", "<thinking>"},
        {SPEECH_START, "", "", ""},
        {SPEECH_START, "                              a", "", "                              a"},
        {SPEECH_START, "<think>", "", ""},
        {SPEECH_START, "a</think>b", "", "a</think>b"},
        {SPEECH_OPENED, "a</think>b</think>c", "a", "b</think>c"},
        {SPEECH_OPENED, "\n\na\n\nb\n\n</think>\n\nc", "a\n\nb", "c"},
        {SPEECH_OPENED, "</think>a", "", "a"},
        {SPEECH_OPENED, "a</thi\n</think>b", "a</thi", "b"},
        {SPEECH_OPENED, "a<</think>b", "a<", "b"},
        {SPEECH_OPENED, "a\n</thi", "a\n</thi", ""}, // the end came in between
        {SPEECH_OPENED, "a</think>\n", "a", ""},
        {SPEECH_ANSWER, "<think>a</think>b", "", "<think>a</think>b"},
    };
    for (size_t i = 0; i < T_COUNT(cases); i++)
        expect(cases[i].text, strlen(cases[i].text), cases[i].from, NULL, 0, cases[i].reasoning, cases[i].content);
}

static void stops(void **state) {
    (void)state;
    static const char *const one[] = {"stop"}, *const two[] = {"abcd", "bc"}, *const self[] = {"aab"},
                             *const line[] = {"\n"}, *const character[] = {"\xe2\x82\xac"};
    static const struct {
        const char *const *stops;
        size_t n;
        speech_state from;
        const char *text, *reasoning, *content;
    } cases[] = {
        {one, 1, SPEECH_ANSWER, "go stop go", "", "go "},
        {one, 1, SPEECH_ANSWER, "go sto go st", "", "go sto go st"},
        {one, 1, SPEECH_ANSWER, "stop", "", ""},
        {two, 2, SPEECH_ANSWER, "xabcd", "", "xa"}, // the one that is complete first
        {two, 2, SPEECH_ANSWER, "xabd", "", "xabd"},
        {self, 1, SPEECH_ANSWER, "aaab", "", "a"},
        {one, 1, SPEECH_OPENED, "stop</think>go stop", "stop", "go "}, // not in a thought
        {one, 1, SPEECH_START, "stop", "", ""},
        {line, 1, SPEECH_START, "\n\nb", "", ""}, // what was held for a mark that did not come
        {character, 1, SPEECH_ANSWER, "1\xe2\x82\xac", "", "1"},
    };
    for (size_t i = 0; i < T_COUNT(cases); i++)
        expect(cases[i].text, strlen(cases[i].text), cases[i].from, cases[i].stops, cases[i].n, cases[i].reasoning,
               cases[i].content);
}

static void characters(void **state) {
    (void)state;
#define BAD "\xef\xbf\xbd"
    static const struct {
        const char *text;
        size_t n;
        const char *content;
    } cases[] = {
        {"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80", 9, "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80"},
        {"\xff", 1, BAD},
        {"\x80\x80", 2, BAD BAD},
        {"\xe2\x82", 2, BAD},      // cut off by the end
        {"\xe2\x82x", 3, BAD "x"}, // by another character
        {"\xe2\xe2\x82\xac", 4, BAD "\xe2\x82\xac"},
        {"\xc0\xaf", 2, BAD BAD},         // overlong
        {"\xed\xa0\x80", 3, BAD BAD BAD}, // a surrogate
        {"\xf4\x90\x80\x80", 4, BAD BAD BAD BAD},
        {"\xf0\x9f\x98", 3, BAD},
    };
    for (size_t i = 0; i < T_COUNT(cases); i++)
        expect(cases[i].text, cases[i].n, SPEECH_ANSWER, NULL, 0, "", cases[i].content);
}

// Nothing is held back that cannot become anything.
static void prompt(void **state) {
    (void)state;
    static const char *const stops[] = {"end"};
    heard h = {0};
    speech s;
    speech_begin(&s, SPEECH_OPENED, stops, 1);
    speech_add(&s, "why", 3, hear, &h);
    assert_string_equal(h.part[SPEECH_REASONING], "why");
    assert_true(speech_thinks(&s));
    speech_add(&s, "</think>so", 10, hear, &h);
    assert_false(speech_thinks(&s));
    assert_string_equal(h.part[SPEECH_CONTENT], "so");
    speech_add(&s, "e", 1, hear, &h);
    assert_string_equal(h.part[SPEECH_CONTENT], "so"); // may become "end"
    speech_add(&s, "x", 1, hear, &h);
    assert_string_equal(h.part[SPEECH_CONTENT], "soex");
}

// Random bytes, cut at random, give the same as in one piece, and always UTF-8.
static void random_cuts(void **state) {
    (void)state;
    static const char *const stops[] = {"ab</", "\n\n\n", "zz"};
    static const char *const words[] = {"<think>", "</think>", "\n", "ab", "</", "z", "\xe2\x82", "\xac", "x", " "};
    t_rng rng = 7;
    for (size_t round = 0; round < 2000; round++) {
        char text[256];
        size_t n = 0;
        for (size_t i = 0; i < 24; i++) {
            const char *word = words[t_below(&rng, T_COUNT(words))];
            memcpy(text + n, word, strlen(word));
            n += strlen(word);
        }
        const speech_state from = round % 3 == 0 ? SPEECH_START : round % 3 == 1 ? SPEECH_OPENED : SPEECH_ANSWER;
        const heard whole = say(text, n, n, from, stops, 3), cut = say(text, n, 1 + t_below(&rng, 9), from, stops, 3);
        for (size_t part = 0; part < 2; part++) {
            assert_string_equal(whole.part[part], cut.part[part]);
            assert_null(strstr(whole.part[SPEECH_CONTENT], "zz"));
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(thoughts), cmocka_unit_test(stops),
                                       cmocka_unit_test(characters), cmocka_unit_test(prompt),
                                       cmocka_unit_test(random_cuts)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
