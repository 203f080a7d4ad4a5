// Grammars of JSON schemas: which texts they let through, which schemas are refused with which words, and that whatever
// tokens are picked out of those that are allowed, the answer is JSON that satisfies its schema.
#include <jansson.h>

#include "calls.h"
#include "model/matcher.h"
#include "model/schema.h"
#include "tiny.h"

// ---------------------------------------------------------------------------------------------------- texts

static pith_matcher *matcher_of(const char *schema) {
    char *grammar, line[300];
    pith_matcher *m;
    if (pith_schema_grammar(schema, strlen(schema), &grammar, line, sizeof line) != PITH_SCHEMA_OK)
        fail_msg("%s: %s", schema, line);
    if (pith_matcher_new(grammar, &m) != PITH_MATCHER_OK) fail_msg("%s: %s", schema, grammar);
    free(grammar);
    return m;
}

// Whole, and byte by byte: where text is cut makes no difference.
static bool fits(const pith_matcher *m, const char *text) {
    const size_t n = strlen(text);
    pith_matcher *whole, *bytes;
    assert_int_equal(pith_matcher_clone(m, &whole), PITH_MATCHER_OK);
    assert_int_equal(pith_matcher_clone(m, &bytes), PITH_MATCHER_OK);
    const bool fit = pith_matcher_take(whole, text, n) == PITH_MATCHER_OK && pith_matcher_may_end(whole);
    bool follows = true;
    for (size_t i = 0; i < n && follows; i++) follows = pith_matcher_take(bytes, text + i, 1) == PITH_MATCHER_OK;
    assert_int_equal(follows && pith_matcher_may_end(bytes), fit);
    pith_matcher_free(whole);
    pith_matcher_free(bytes);
    return fit;
}

static bool accepts(const char *schema, const char *text) {
    pith_matcher *m = matcher_of(schema);
    const bool fit = fits(m, text);
    pith_matcher_free(m);
    return fit;
}

#define STRING(more) "{\"type\":\"string\"," more "}"
#define PATTERN(p) "{\"type\":\"string\",\"pattern\":\"" p "\"}"

static void texts(void **state) {
    (void)state;
    static const struct {
        const char *schema;
        const char *good[8], *bad[10];
    } cases[] = {
        {"{}",
         {"1", "\"a\"", "null", "[]", "{}", "[1, {\"a\":\n\"b\"}]", "-0.5e-12"},
         {"", "nul", "01", "1.", "[1,]", "{\"a\"}", "1e123"}},
        {"{\"type\":\"object\"}",
         {"{}", "{ \"a\": 1}", "{\"a\":{\"b\":[true,false]}}"},
         {"[]", "1", "{a:1}", "{\"a\":1,}", "{} ", " {}"}},
        {"{\"type\":\"string\"}",
         {"\"\"", "\"\\u00e4\\n\\\\\"", "\"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80\"", "\"\\ud7ff\""},
         {"\"", "\"\n\"", "\"\\x\"", "\"\\ud800\"", "\"\\udfff\"", "\"\\u0000\"", "\"\xff\"", "\"\xed\xa0\x80\"",
          "\"\xc3\""}},
        {"{\"properties\":{\"a\":{\"type\":\"integer\"},\"b\":{\"type\":\"boolean\"},\"c\":{\"type\":\"null\"}},"
         "\"required\":[\"b\"]}",
         {"{\"a\":1,\"b\":true,\"c\":null}", "{\"b\":false}", "{\"a\": -12, \"b\": true}", "{\"b\":true,\"c\":null}"},
         {"{}", "{\"a\":1}", "{\"b\":true,\"a\":1}", "{\"b\":1}", "{\"b\":true,\"d\":1}", "{\"b\":true,}",
          "{,\"b\":true}", "{\"b\":true,\"b\":true}"}},
        {"{\"type\":\"object\",\"properties\":{\"a\":{},\"b\":{}},\"additionalProperties\":true}",
         {"{}", "{\"a\":1}", "{\"b\":1}", "{\"a\":1,\"b\":2}"},
         {"{\"b\":1,\"a\":2}", "{\"c\":1}"}},
        {"{\"type\":\"object\",\"additionalProperties\":{\"type\":\"integer\"}}",
         {"{}", "{\"x\":1}", "{\"x\":1,\"y\":2}"},
         {"{\"x\":\"1\"}", "{\"x\":1,}"}},
        {"{\"type\":\"object\",\"additionalProperties\":false}", {"{}", "{ }"}, {"{\"a\":1}"}},
        {"{\"type\":\"array\",\"items\":{\"type\":\"integer\"},\"minItems\":2,\"maxItems\":3}",
         {"[1,2]", "[ 1, 2, 3]"},
         {"[]", "[1]", "[1,2,3,4]", "[1,2,]", "[\"1\",2]"}},
        {"{\"type\":\"array\",\"maxItems\":1}", {"[]", "[null]"}, {"[1,2]"}},
        {"{\"type\":\"array\",\"maxItems\":0}", {"[]"}, {"[1]"}},
        {"{\"type\":\"array\",\"minItems\":2}", {"[1,2]", "[1,2,3,4,5]"}, {"[]", "[1]"}},
        {"{\"type\":\"array\",\"prefixItems\":[{\"type\":\"integer\"},{\"type\":\"string\"}],\"items\":false}",
         {"[1,\"a\"]"},
         {"[]", "[1]", "[\"a\",1]", "[1,\"a\",2]"}},
        {"{\"enum\":[\"a\\\"b\",\"\xc3\xa4\",7,null,{\"x\":[1]}]}",
         {"\"a\\\"b\"", "\"\xc3\xa4\"", "7", "null", "{\"x\":[1]}"},
         {"\"a\"", "8", "\"\xc3\xb6\""}},
        {"{\"type\":\"string\",\"enum\":[\"a\",1],\"const\":\"a\"}", {"\"a\""}, {"1"}},
        {"{\"const\":1.5}", {"1.5"}, {"1", "1.50"}},
        {"{\"type\":[\"integer\",\"null\"],\"minimum\":3}", {"3", "40", "null"}, {"2", "\"a\""}},
        {"{\"anyOf\":[{\"type\":\"integer\"},{\"type\":\"array\",\"items\":{\"$ref\":\"#\"}}]}",
         {"1", "[]", "[1,[2,[]]]"},
         {"[\"a\"]", "[1,[2,[]]", "null"}},
        {"{\"$defs\":{\"a/b\":{\"const\":1},\"a~c "
         "d\":{\"const\":2}},\"type\":\"array\",\"items\":{\"anyOf\":[{\"$ref\":"
         "\"#/$defs/a~1b\"},{\"$ref\":\"#/$defs/a~0c%20d\"}]}}",
         {"[1,2,1]"},
         {"[3]"}},
        {"{\"definitions\":{\"a_b\":{\"const\":1},\"a-b\":{\"const\":2}},\"prefixItems\":[{\"$ref\":\"#/definitions/"
         "a_b\"},"
         "{\"$ref\":\"#/definitions/a-b\"}]}",
         {"[1,2]"},
         {"[1,1]", "[2,2]"}},
        {"{\"allOf\":[{\"$ref\":\"#/$defs/"
         "x\"}],\"title\":\"t\",\"default\":1,\"x-y\":2,\"$defs\":{\"x\":{\"type\":\"null\"}}}",
         {"null"},
         {"1"}},
        {STRING("\"minLength\":2,\"maxLength\":3"),
         {"\"ab\"", "\"\xc3\xa4\\n\xf0\x9f\x98\x80\""},
         {"\"a\"", "\"abcd\"", "\"\""}},
        {STRING("\"maxLength\":0"), {"\"\""}, {"\"a\""}},
        {STRING("\"format\":\"date\""),
         {"\"2024-02-29\"", "\"2024-12-31\""},
         {"\"2024-02-30\"", "\"2024-04-31\"", "\"2024-13-01\"", "\"24-01-01\""}},
        {STRING("\"format\":\"date-time\""),
         {"\"2024-02-29T23:59:59Z\"", "\"2024-02-29T00:00:00.25+01:30\""},
         {"\"2024-02-29\"", "\"2024-02-29T24:00:00Z\""}},
        {STRING("\"format\":\"uuid\""),
         {"\"01234567-89ab-cdef-0123-456789abcdef\""},
         {"\"0123456789abcdef0123456789abcdef\""}},
        {STRING("\"format\":\"email\""), {"\"anything\""}, {"1"}},
        {PATTERN("^[a-c]+$"), {"\"abc\""}, {"\"\"", "\"abd\"", "\"ab"}},
        {PATTERN("b"), {"\"abc\"", "\"b\"", "\"\\nb\""}, {"\"\"", "\"ac\""}},
        {PATTERN("^a|b$"), {"\"ax\"", "\"xb\""}, {"\"xa\"", "\"bx\""}},
        {PATTERN("^(?:ab|c){2,3}?$"), {"\"abc\"", "\"cc\"", "\"ababab\""}, {"\"c\"", "\"cccc\"", "\"abab\\u0061b\""}},
        {PATTERN("^\\\\d{3}-\\\\w*\\\\.$"), {"\"123-ab_9.\"", "\"123-.\""}, {"\"12-.\"", "\"123-a\""}},
        {PATTERN("^.[^a]$"),
         {"\"xb\"", "\"\\\"\\\\\"", "\"\xc3\xa4\xe2\x82\xac\"", "\"x\\n\""},
         {"\"xa\"", "\"\"b\"", "\"\\\"", "\"\\nb\"", "\"x\n\""}},
        {PATTERN("^\\\\\\\\\\\"[\\\\]\\\\-x]\\\\u00e4$"),
         {"\"\\\\\\\"]\xc3\xa4\"", "\"\\\\\\\"-\xc3\xa4\""},
         {"\"\\\"]\xc3\xa4\""}},
        {PATTERN("^(a?){3}$"), {"\"\"", "\"aaa\""}, {"\"aaaa\""}},
        {PATTERN("^$"), {"\"\""}, {"\"a\""}},
    };
    for (size_t i = 0; i < T_COUNT(cases); i++) {
        for (size_t k = 0; k < T_COUNT(cases[i].good) && cases[i].good[k]; k++)
            if (!accepts(cases[i].schema, cases[i].good[k]))
                fail_msg("%s refuses %s", cases[i].schema, cases[i].good[k]);
        for (size_t k = 0; k < T_COUNT(cases[i].bad) && cases[i].bad[k]; k++)
            if (accepts(cases[i].schema, cases[i].bad[k])) fail_msg("%s accepts %s", cases[i].schema, cases[i].bad[k]);
    }
}

// Every number of a stretch around the bounds, inside and outside.
static void bounds(void **state) {
    (void)state;
    static const struct {
        int low, high;
    } cases[] = {{0, 0},      {0, 9},   {3, 7},     {0, 105}, {99, 100},   {100, 999},
                 {105, 1234}, {-7, -3}, {-120, 14}, {-1, 1},  {1000, 1001}};
    for (size_t i = 0; i < T_COUNT(cases); i++) {
        for (int k = 0; k < 4; k++) {
            const bool open_low = k & 1, open_high = k & 2;
            char schema[200], text[40];
            const char *types[] = {"integer", "number"};
            for (int t = 0; t < 2; t++) {
                snprintf(schema, sizeof schema, "{\"type\":\"%s\",\"%s\":%d,\"%s\":%d}", types[t],
                         open_low ? "exclusiveMinimum" : "minimum", cases[i].low,
                         open_high ? "exclusiveMaximum" : "maximum", cases[i].high);
                char *grammar, line[300];
                const bool none =
                    cases[i].high - cases[i].low < (t == 0 ? open_low + open_high : open_low || open_high);
                const pith_schema_result got = pith_schema_grammar(schema, strlen(schema), &grammar, line, sizeof line);
                free(grammar);
                assert_int_equal(got, none ? PITH_SCHEMA_REFUSED : PITH_SCHEMA_OK);
                if (none) continue;
                pith_matcher *m = matcher_of(schema);
                for (int x = 4 * (cases[i].low - 130); x <= 4 * (cases[i].high + 130); x++) { // quarters
                    if (x % 4 != 0 && (t == 0 || x % 4 == 2)) continue;
                    const double value = x / 4.0;
                    const bool inside = (open_low ? value > cases[i].low : value >= cases[i].low) &&
                                        (open_high ? value < cases[i].high : value <= cases[i].high);
                    snprintf(text, sizeof text, "%g", value);
                    if (fits(m, text) != inside) fail_msg("%s: %s", schema, text);
                }
                pith_matcher_free(m);
            }
        }
    }
    assert_true(accepts("{\"type\":\"integer\",\"minimum\":100}", "105"));
    assert_false(accepts("{\"type\":\"integer\",\"minimum\":100}", "10"));
    assert_true(accepts("{\"type\":\"integer\",\"minimum\":0.5,\"maximum\":1e300}", "9999999999999999"));
    assert_false(accepts("{\"type\":\"integer\",\"minimum\":0.5}", "0"));
    assert_true(accepts("{\"type\":\"integer\",\"minimum\":-9007199254740991,\"maximum\":9007199254740991}",
                        "-9007199254740991"));
    assert_false(accepts("{\"type\":\"integer\",\"minimum\":-9007199254740991,\"maximum\":9007199254740991}",
                         "9007199254740992"));
    assert_true(accepts("{\"type\":\"number\",\"minimum\":0,\"maximum\":1}", "0.75"));
    assert_true(accepts("{\"type\":\"number\",\"minimum\":0,\"maximum\":1}", "1.000"));
    assert_false(accepts("{\"type\":\"number\",\"minimum\":0,\"maximum\":1}", "1.001"));
}

static void long_strings(void **state) {
    (void)state;
    char text[5000];
    pith_matcher *both = matcher_of(STRING("\"minLength\":201,\"maxLength\":2050")),
                 *most = matcher_of(STRING("\"maxLength\":210"));
    for (size_t n = 0; n <= 2100; n += n < 190 ? 95 : n < 220 ? 1 : 99) {
        memset(text, 'a', sizeof text);
        text[0] = text[n + 1] = '"', text[n + 2] = 0;
        assert_int_equal(fits(both, text), n >= 201 && n <= 2050);
        assert_int_equal(fits(most, text), n <= 210);
    }
    pith_matcher_free(both);
    pith_matcher_free(most);
}

// ---------------------------------------------------------------------------------------------------- refusals

static char *repeated(const char *begin, const char *one, size_t n, const char *end) {
    char *text = t_new(strlen(begin) + n * strlen(one) + strlen(end) + 1), *at = text + sprintf(text, "%s", begin);
    for (size_t i = 0; i < n; i++) at += sprintf(at, "%s", one);
    strcpy(at, end);
    return text;
}

static void expect_refusal(const char *schema, const char *part) {
    const size_t n = strlen(schema);
    t_guarded page = t_guard(n);
    memcpy(page.p, schema, n); // not terminated
    char *grammar = NULL, line[300] = "";
    const pith_schema_result got = pith_schema_grammar(page.p, n, &grammar, line, sizeof line);
    t_unguard(&page);
    if (got != PITH_SCHEMA_REFUSED || grammar) fail_msg("%.200s: accepted", schema);
    if (!strstr(line, part)) fail_msg("%.200s: \"%s\"", schema, line);
}

static void refusals(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"", "not JSON"},
        {"{", "not JSON"},
        {"7", "#: expected a schema"},
        {"{\"a\":1}", "\"a\" is not supported"},
        {"{\"type\":7}", "type: expected"},
        {"{\"type\":\"text\"}", "type: expected"},
        {"{\"type\":[]}", "at least one"},
        {"{\"type\":[\"null\",7]}", "type: expected"},
        {"{\"type\":\"integer\",\"multipleOf\":2}", "\"multipleOf\" is not supported"},
        {"{\"type\":\"array\",\"uniqueItems\":true}", "\"uniqueItems\" is not supported"},
        {"{\"type\":\"object\",\"patternProperties\":{}}", "\"patternProperties\""},
        {"{\"not\":{}}", "\"not\" is not supported"},
        {"{\"anyOf\":[{}],\"type\":\"object\"}", "\"type\" is not supported beside anyOf"},
        {"{\"anyOf\":[]}", "anyOf: expected an array"},
        {"{\"anyOf\":{}}", "anyOf: expected an array"},
        {"{\"allOf\":[{},{}]}", "allOf: expected one entry"},
        {"{\"$ref\":\"#/a\",\"type\":\"object\"}", "beside $ref"},
        {"{\"$ref\":7}", "$ref: expected a string"},
        {"{\"$ref\":\"#/$defs/a\"}", "points to nothing"},
        {"{\"$ref\":\"https://example.com/a.json\"}", "does not point into the schema"},
        {"{\"$ref\":\"other.json#/a\"}", "does not point into the schema"},
        {"{\"$ref\":\"#\"}", "leads to itself"},
        {"{\"anyOf\":[{\"type\":\"null\"},{\"$ref\":\"#\"}]}", "leads to itself"},
        {"{\"$ref\":\"#/$defs/a\",\"$defs\":{\"a\":{\"$ref\":\"#/$defs/b\"},\"b\":{\"$ref\":\"#/$defs/a\"}}}",
         "leads to itself"},
        {"{\"enum\":[]}", "enum: expected"},
        {"{\"enum\":7}", "enum: expected"},
        {"{\"enum\":[1],\"type\":\"string\"}", "no value has the type"},
        {"{\"properties\":7}", "properties: expected an object"},
        {"{\"properties\":{\"a\":{\"properties\":{\"b\":7}}}}", "#/properties/a/properties/b: expected a schema"},
        {"{\"properties\":{},\"required\":[\"a\"]}", "\"a\" is not among the properties"},
        {"{\"properties\":{},\"required\":7}", "required: expected"},
        {"{\"properties\":{},\"required\":[7]}", "required: expected"},
        {"{\"type\":\"array\",\"minItems\":-1}", "minItems: expected a whole number"},
        {"{\"type\":\"array\",\"minItems\":1e99}", "minItems: expected a whole number"},
        {"{\"type\":\"array\",\"maxItems\":2001}", "up to 2000"},
        {"{\"type\":\"array\",\"minItems\":3,\"maxItems\":2}", "at most maxItems"},
        {"{\"prefixItems\":[{}],\"minItems\":2}", "which is 1"},
        {"{\"type\":\"string\",\"minLength\":3,\"maxLength\":2}", "at most maxLength"},
        {"{\"type\":\"string\",\"maxLength\":1.5}", "maxLength: expected a whole number"},
        {"{\"type\":\"string\",\"maxLength\":100001}", "up to 100000"},
        {"{\"type\":\"string\",\"pattern\":7}", "pattern: expected a string"},
        {"{\"type\":\"string\",\"pattern\":\"a\",\"minLength\":1}", "beside pattern"},
        {"{\"type\":\"integer\",\"minimum\":\"a\"}", "minimum: expected a number"},
        {"{\"type\":\"integer\",\"minimum\":2,\"maximum\":1}", "no integer"},
        {"{\"type\":\"number\",\"minimum\":0.5}", "minimum: expected a whole number"},
        {"{\"type\":\"number\",\"exclusiveMinimum\":1e300}", "no number"},
        {PATTERN("["), "pattern: it ends too early"},
        {PATTERN("("), "pattern: it ends too early"},
        {PATTERN(")"), "unexpected ')'"},
        {PATTERN("*"), "unexpected '*'"},
        {PATTERN("a**"), "unexpected '*'"},
        {PATTERN("a{2}{3}"), "unexpected '{'"},
        {PATTERN("a{3,2}"), "wrong order"},
        {PATTERN("a{2001}"), "at most 2000"},
        {PATTERN("a{99999999999999999999}"), "at most 2000"},
        {PATTERN("(a{100}){100}"), "multiply to more than 2000"},
        {PATTERN("((a?){40}){40}"), "may be empty too often"},
        {PATTERN("a^b"), "an anchor"},
        {PATTERN("(a$)b"), "an anchor"},
        {PATTERN("(?=a)"), "only (?:"},
        {PATTERN("(?<n>a)"), "only (?:"},
        {PATTERN("(a)\\\\1"), "\\1 is not supported"},
        {PATTERN("\\\\bword"), "\\b is not supported"},
        {PATTERN("\\\\p{L}"), "\\p is not supported"},
        {PATTERN("\\\\u12"), "hexadecimal"},
        {PATTERN("\\\\ud800"), "halves"},
        {PATTERN("[b-a]"), "wrong order"},
        {PATTERN("[]"), "there is none of"},
        {PATTERN("a\\\\"), "ends with a backslash"},
    };
    for (size_t i = 0; i < T_COUNT(cases); i++) expect_refusal(cases[i][0], cases[i][1]);
}

// What is nested, repeated or multiplied beyond reason ends in a line as well.
static void bombs(void **state) {
    (void)state;
    char doubling[8000], *at = doubling;
    at += sprintf(at, "{\"prefixItems\":[");
    for (int i = 39; i >= 0; i--) at += sprintf(at, "{\"$ref\":\"#/$defs/a%d\"}%s", i, i ? "," : "],\"$defs\":{");
    for (int i = 0; i < 40; i++)
        at += sprintf(at, "\"a%d\":{\"anyOf\":[{\"$ref\":\"#/$defs/a%d\"},{\"$ref\":\"#/$defs/a%d\"}]},", i, i + 1,
                      i + 1);
    sprintf(at, "\"a40\":{}}}");
    expect_refusal(doubling, "too many alternatives");
    struct {
        char *schema;
        const char *part;
    } cases[] = {
        {repeated("", "[", 100000, ""), "brackets inside each other"},
        {repeated("", "{\"items\":", 1000, "{}"), "brackets inside each other"},
        {repeated("{\"enum\":[1", ",1", 3000, "]}"), "at most 2000"},
        {repeated("{\"anyOf\":[{}", ",{}", 3000, "]}"), "at most 2000"},
        {repeated("{\"title\":\"", "a", 300000, "\"}"), "at most 262144 bytes"},
        {repeated("{\"properties\":{\"", "_", 70000, "\":{}}}"), "names of at most 256"},
        {repeated("{\"type\":\"string\",\"pattern\":\"", "(", 900, "\"}"), "nested too deeply"},
        {repeated("{\"type\":\"string\",\"pattern\":\"", "a", 1001, "\"}"), "at most 1000 bytes"},
        {repeated("{\"type\":\"string\",\"pattern\":\"((((((((((((a", "|)+", 12, "\"}"), "may be empty too often"},
    };
    for (size_t i = 0; i < T_COUNT(cases); i++) {
        expect_refusal(cases[i].schema, cases[i].part);
        free(cases[i].schema);
    }
    char counts[1000];
    at = counts + sprintf(counts, "{\"type\":\"string\",\"pattern\":\"");
    for (int i = 0; i < 15; i++) at += sprintf(at, "a{0,%d}", 2000 - i);
    sprintf(at, "\"}");
    expect_refusal(counts, "repetitions in all");
    static char chain[80000];
    at = chain + sprintf(chain, "{\"$ref\":\"#/$defs/a0\",\"$defs\":{");
    for (int i = 0; i < 500; i++) at += sprintf(at, "\"a%d\":{\"items\":{\"$ref\":\"#/$defs/a%d\"}},", i, i + 1);
    sprintf(at, "\"a500\":{}}}");
    expect_refusal(chain, "nested too deeply");
    // Backwards, each target is known before it is asked for.
    at = chain + sprintf(chain, "{\"prefixItems\":[");
    for (int i = 499; i >= 0; i--) at += sprintf(at, "{\"$ref\":\"#/$defs/a%d\"}%s", i, i ? "," : "");
    at += sprintf(at, "],\"$defs\":{\"a499\":{}");
    for (int i = 498; i >= 0; i--)
        at += sprintf(at, ",\"a%d\":{\"anyOf\":[{\"$ref\":\"#/$defs/a%d\"},{\"type\":\"null\"}]}", i, i + 1);
    sprintf(at, "}}");
    pith_matcher_free(matcher_of(chain));
    char *many = repeated("{\"properties\":{\"a\":{}", ",\"b\":{}", 0, ""), *end;
    many = realloc(many, 40000), end = many + strlen(many);
    for (int i = 0; i < 900; i++) end += sprintf(end, ",\"p%d\":{\"type\":\"null\"}", i);
    strcpy(end, "}}");
    assert_true(accepts(many, "{\"p0\":null,\"p899\":null}"));
    assert_false(accepts(many, "{\"p899\":null,\"p0\":null}"));
    free(many);
}

// A schema that makes the number of readings double with every bracket ends, and does not fill the memory.
static void ambiguity(void **state) {
    (void)state;
    static const char twice[] =
        "{\"anyOf\":[{\"type\":\"array\",\"items\":{\"$ref\":\"#\"}},{\"type\":\"array\",\"items\":{\"$ref\":\"#\"},"
        "\"maxItems\":7}]}";
    pith_matcher *m = matcher_of(twice);
    char text[100];
    memset(text, '[', sizeof text);
    assert_int_equal(pith_matcher_take(m, text, sizeof text), PITH_MATCHER_AMBIGUOUS);
    assert_int_equal(pith_matcher_take(m, "]", 1), PITH_MATCHER_REFUSED);
    assert_false(pith_matcher_may_end(m));
    pith_matcher_free(m);
    assert_true(accepts(twice, "[[[[[[]]]]]]"));
    // More ways to read a text than can be counted, and all of them end in the same places.
    static const char many[] = PATTERN("^((a?){10}){20}$");
    m = matcher_of(many);
    assert_true(fits(m, "\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\""));
    assert_false(fits(m, "\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab\""));
    pith_matcher_free(m);
    static const char empty[] = PATTERN("^(|a)*$");
    char *grammar, line[300];
    assert_int_equal(pith_schema_grammar(empty, strlen(empty), &grammar, line, sizeof line), PITH_SCHEMA_OK);
    assert_int_equal(pith_matcher_new(grammar, &m), PITH_MATCHER_REFUSED);
    assert_null(m);
    free(grammar);
}

// ---------------------------------------------------------------------------------------------------- an oracle

static bool satisfies(const json_t *value, const json_t *schema, const json_t *root);

static bool is_of_type(const json_t *value, const char *type) {
    return !strcmp(type, "object")    ? json_is_object(value)
           : !strcmp(type, "array")   ? json_is_array(value)
           : !strcmp(type, "string")  ? json_is_string(value)
           : !strcmp(type, "integer") ? json_is_integer(value)
           : !strcmp(type, "number")  ? json_is_number(value)
           : !strcmp(type, "boolean") ? json_is_boolean(value)
                                      : json_is_null(value);
}

static bool has_type(const json_t *value, const json_t *type) {
    bool has = !type || (json_is_string(type) && is_of_type(value, json_string_value(type)));
    for (size_t i = 0; i < json_array_size(type); i++)
        has |= is_of_type(value, json_string_value(json_array_get(type, i)));
    return has;
}

static bool within(double x, const json_t *schema, const char *least, const char *most) {
    const json_t *low = json_object_get(schema, least), *high = json_object_get(schema, most);
    return (!low || x >= json_number_value(low)) && (!high || x <= json_number_value(high));
}

static bool object_satisfies(json_t *value, const json_t *schema, const json_t *root) {
    const json_t *properties = json_object_get(schema, "properties"), *required = json_object_get(schema, "required");
    const json_t *more = json_object_get(schema, "additionalProperties");
    for (size_t i = 0; i < json_array_size(required); i++)
        if (!json_object_get(value, json_string_value(json_array_get(required, i)))) return false;
    const char *key;
    json_t *one;
    json_object_foreach(value, key, one) {
        const json_t *its = json_object_get(properties, key);
        if (!its && json_is_false(more)) return false;
        if (!its && json_is_object(more)) its = more;
        if (its && !satisfies(one, its, root)) return false;
    }
    return true;
}

static bool satisfies(const json_t *value, const json_t *schema, const json_t *root) {
    const json_t *ref = json_object_get(schema, "$ref"), *any = json_object_get(schema, "anyOf");
    const json_t *values = json_object_get(schema, "enum"), *only = json_object_get(schema, "const");
    if (ref) { // "#", or "#/$defs/name"
        const char *text = json_string_value(ref);
        return satisfies(value, strlen(text) > 1 ? json_object_get(json_object_get(root, "$defs"), text + 8) : root,
                         root);
    }
    bool found = !any && !values;
    for (size_t i = 0; i < json_array_size(any); i++) found |= satisfies(value, json_array_get(any, i), root);
    for (size_t i = 0; i < json_array_size(values); i++) found |= json_equal(value, json_array_get(values, i)) != 0;
    if (!found || (only && !json_equal(value, only)) || !has_type(value, json_object_get(schema, "type"))) return false;
    if (json_is_number(value)) return within(json_number_value(value), schema, "minimum", "maximum");
    if (json_is_object(value)) return object_satisfies((json_t *)(uintptr_t)value, schema, root);
    if (json_is_array(value)) {
        if (!within((double)json_array_size(value), schema, "minItems", "maxItems")) return false;
        const json_t *items = json_object_get(schema, "items");
        for (size_t i = 0; items && i < json_array_size(value); i++)
            if (!satisfies(json_array_get(value, i), items, root)) return false;
    }
    if (json_is_string(value)) {
        size_t n = 0; // characters
        for (const char *c = json_string_value(value); *c; c++) n += (*c & 0xc0) != 0x80;
        return within((double)n, schema, "minLength", "maxLength");
    }
    return true;
}

// ---------------------------------------------------------------------------------------------------- walks

static const char *const walked[] = {
    NULL, // any object
    "{}",
    "{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\",\"minLength\":1,\"maxLength\":5},\"age\":{"
    "\"type\":\"integer\","
    "\"minimum\":0,\"maximum\":150},\"tags\":{\"type\":\"array\",\"items\":{\"enum\":[\"a\",\"b\",\"\xc3\xa4\"]},"
    "\"minItems\":1,"
    "\"maxItems\":4},\"note\":{\"type\":[\"string\",\"null\"]}},\"required\":[\"name\",\"tags\"],"
    "\"additionalProperties\":false}",
    "{\"$ref\":\"#/$defs/"
    "tree\",\"$defs\":{\"tree\":{\"type\":\"object\",\"properties\":{\"v\":{\"type\":\"number\",\"minimum\":-2,"
    "\"maximum\":17},\"l\":{\"anyOf\":[{\"type\":\"null\"},{\"$ref\":\"#/$defs/tree\"}]},\"r\":{\"anyOf\":[{\"$ref\":"
    "\"#/$defs/tree\"},{\"type\":\"null\"}]}},\"required\":[\"v\",\"l\",\"r\"],\"additionalProperties\":false}}}",
    "{\"type\":\"object\",\"additionalProperties\":{\"type\":\"array\",\"items\":{\"type\":\"boolean\"},\"maxItems\":2}"
    "}",
    "{\"anyOf\":[{\"type\":\"object\",\"properties\":{\"kind\":{\"const\":\"a\"},\"x\":{\"type\":\"number\"}},"
    "\"required\":[\"kind\",\"x\"]},"
    "{\"type\":\"object\",\"properties\":{\"kind\":{\"const\":\"b\"},\"y\":{\"type\":\"string\",\"maxLength\":3}},"
    "\"required\":[\"kind\",\"y\"]}]}",
};

// Any token out of the allowed ones, every second time one that moves things towards an end.
static pith_token pick(t_rng *rng, const pith_model *model, const float *logits, uint32_t n_vocab) {
    const bool ends = t_below(rng, 2) == 0;
    uint32_t n = 0;
    pith_token picked = -1;
    for (uint32_t i = 0; i < n_vocab; i++) {
        char text[8];
        const size_t bytes = pith_token_text(model, (pith_token)i, false, text, sizeof text);
        if (logits[i] == -INFINITY || (ends && bytes == 1 && !strchr("\"}]n,", *text)) || (ends && bytes > 1)) continue;
        if (t_below(rng, ++n) == 0) picked = (pith_token)i;
    }
    for (uint32_t i = 0; picked < 0 && i < n_vocab; i++)
        if (logits[i] > -INFINITY && t_below(rng, ++n) == 0) picked = (pith_token)i;
    return picked;
}

static void walk(const pith_model *model, const char *schema, uint64_t seed, size_t *n_ended) {
    enum { MOST = 1500 };
    pith_model_info info;
    pith_model_describe(model, &info);
    pith_grammar *g, *twin;
    OK(pith_grammar_new(model, schema, schema ? strlen(schema) : 0, &g, &err));
    float *logits = t_new(info.n_vocab * sizeof *logits);
    char text[16 * MOST];
    size_t n_text = 0;
    t_rng rng = seed;
    bool ended = false;
    for (int k = 0; k < MOST && !(ended = ended || pith_grammar_done(g)); k++) {
        uint32_t n_left, n_allowed = 0;
        memset(logits, 0, info.n_vocab * sizeof *logits);
        OK(pith_grammar_mask(g, logits, &n_left, &err));
        for (uint32_t i = 0; i < info.n_vocab; i++) {
            const bool allowed = pith_grammar_allows(g, (pith_token)i);
            assert_int_equal(allowed, logits[i] == 0);
            n_allowed += allowed;
        }
        assert_int_equal(n_left, n_allowed);
        assert_true(n_left > 0);
        const pith_token token = pick(&rng, model, logits, info.n_vocab);
        if (k == 5) { // a clone goes on from here by itself
            OK(pith_grammar_clone(g, &twin, &err));
            OK(pith_grammar_accept(twin, token, &err));
            pith_grammar_free(twin);
            assert_true(pith_grammar_allows(g, token));
        }
        OK(pith_grammar_accept(g, token, &err));
        if (pith_token_ends(model, token)) ended = true;
        else n_text += pith_token_text(model, token, true, text + n_text, sizeof text - n_text);
    }
    if (ended) {
        json_error_t error;
        json_t *value = json_loadb(text, n_text, JSON_DECODE_ANY, &error),
               *asked = json_loads(schema ? schema : "{\"type\":\"object\"}", 0, NULL);
        if (!value) fail_msg("%s: %.*s: %s", schema, (int)n_text, text, error.text);
        if (!satisfies(value, asked, asked)) fail_msg("%s: %.*s", schema, (int)n_text, text);
        json_decref(value);
        json_decref(asked);
        ++*n_ended;
    }
    free(logits);
    pith_grammar_free(g);
}

static void walks(void **state) {
    const uint64_t n_seeds = getenv("PITH_TEST_QUICK") ? 6 : 30;
    for (size_t i = 0; i < T_COUNT(walked); i++) {
        size_t n_ended = 0;
        for (uint64_t seed = 0; seed < n_seeds; seed++) walk(*state, walked[i], seed, &n_ended);
        if (n_ended < n_seeds / 2) fail_msg("%s: %zu of the walks ended", walked[i], n_ended);
    }
}

static pith_token token_of(const pith_model *model, const char *text) {
    pith_token tokens[16];
    size_t n;
    OK(pith_tokenize(model, text, strlen(text), PITH_TOKENS_SPECIAL, tokens, 16, &n, &err));
    assert_int_equal(n, 1);
    return tokens[0];
}

static void control_tokens(void **state) {
    const pith_model *model = *state;
    pith_grammar *g;
    const char schema[] = "{\"type\":\"integer\"}";
    OK(pith_grammar_new(model, schema, strlen(schema), &g, &err));
    const pith_token end = token_of(model, "<|im_end|>"), start = token_of(model, "<|im_start|>");
    assert_true(pith_token_ends(model, end));
    assert_false(pith_grammar_allows(g, end));
    assert_int_equal(pith_grammar_accept(g, end, &err), PITH_E_ARG);
    OK(pith_grammar_accept(g, token_of(model, "7"), &err));
    assert_true(pith_grammar_allows(g, end) && pith_grammar_allows(g, token_of(model, "1")));
    assert_false(pith_grammar_done(g));
    OK(pith_grammar_accept(g, end, &err));
    pith_grammar_free(g);

    const char text[] = "{\"const\":\"<|im_start|>\"}"; // letter by letter, never by its token
    OK(pith_grammar_new(model, text, strlen(text), &g, &err));
    OK(pith_grammar_accept(g, token_of(model, "\""), &err));
    assert_false(pith_grammar_allows(g, start));
    assert_true(pith_grammar_allows(g, token_of(model, "<")));
    assert_false(pith_grammar_allows(g, -1) || pith_grammar_allows(g, 1 << 30));
    pith_grammar_free(g);

    assert_int_equal(pith_grammar_new(model, "{", 1, &g, &err), PITH_E_FORMAT);
    assert_null(g);
    assert_int_equal(pith_grammar_new(model, "[1]", 3, &g, &err), PITH_E_FORMAT);
    const char empty[] = PATTERN("^(|a)*$");
    assert_int_equal(pith_grammar_new(model, empty, strlen(empty), &g, &err), PITH_E_UNSUPPORTED);
    pith_model *shape;
    OK(pith_model_from_shape(pith_model_shape_at(0), "q4_0", 1, "none", NULL, &shape, &err));
    assert_int_equal(pith_grammar_new(shape, NULL, 0, &g, &err), PITH_E_UNSUPPORTED);
    pith_model_free(shape);
}

static int open_model(void **state) {
    const tiny_spec spec = tiny_default("qwen2", GGML_TYPE_F32);
    return (*state = tiny_model_open(&spec)) == NULL;
}

static int close_model(void **state) {
    pith_model_free(*state);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(texts),        cmocka_unit_test(bounds),
                                       cmocka_unit_test(long_strings), cmocka_unit_test(refusals),
                                       cmocka_unit_test(bombs),        cmocka_unit_test(ambiguity),
                                       cmocka_unit_test(walks),        cmocka_unit_test(control_tokens)};
    return cmocka_run_group_tests(tests, open_model, close_model);
}
