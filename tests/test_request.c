// Bodies of requests: what is read, and what is refused with which words.
#include "server/request.h"

#include "t.h"

static const request_defaults defaults = {.temperature = 0.6f, .top_p = 0.95f, .n_vocab = 1000, .most_choices = 4};

#define SCHEMA(s) "{\"type\":\"json_schema\",\"json_schema\":" s "}"
#define CHAT "\"messages\":[{\"role\":\"user\",\"content\":\"Why?\"}]"

static request read_or_fail(bool chat, const char *text) {
    request r;
    refusal no = {0};
    if (!request_parse(&r, chat, text, strlen(text), &defaults, &no)) fail_msg("%s: %s", text, no.message);
    return r;
}

static void defaults_hold(void **state) {
    (void)state;
    request r = read_or_fail(true, "{" CHAT "}");
    assert_int_equal(r.n_messages, 1);
    assert_string_equal(r.messages[0].role, "user");
    assert_string_equal(r.messages[0].content, "Why?");
    assert_true(r.temperature == 0.6f && r.top_p == 0.95f && r.min_p == 0);
    assert_int_equal(r.n, 1);
    assert_int_equal(r.max_new, 0);
    assert_int_equal(r.thinking_budget, REQUEST_UNBOUNDED);
    assert_false(r.stream || r.include_usage || r.cache_events || r.logprobs || r.seeded);
    assert_string_equal(r.policy, "");
    request_free(&r);
}

static void every_field(void **state) {
    (void)state;
    request r = read_or_fail(
        true,
        "{\"model\":\"m\",\"messages\":[{\"role\":\"developer\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},"
        "{\"type\":\"text\",\"text\":\"b\"}]},{\"role\":\"user\",\"content\":\"c\"},{\"role\":\"assistant\","
        "\"content\":null}],\"stream\":true,\"stream_options\":{\"include_usage\":true},\"cache_events\":true,"
        "\"n\":4,\"max_tokens\":7,\"max_completion_tokens\":9,\"temperature\":2,\"top_p\":0,\"top_k\":-1,\"min_p\":1,"
        "\"seed\":-1,\"stop\":[\"x\",\"yz\"],\"logprobs\":true,\"top_logprobs\":20,\"frequency_penalty\":-2,"
        "\"presence_penalty\":2.0,\"logit_bias\":{\"5\":-100,\"999\":1.5},\"cache_policy\":\"window\","
        "\"reasoning_effort\":\"low\",\"response_format\":{\"type\":\"text\"},\"user\":\"u\",\"ignore_eos\":true,"
        "\"tools\":[]}");
    assert_string_equal(r.model, "m");
    assert_int_equal(r.n_messages, 3);
    assert_string_equal(r.messages[0].role, "system");
    assert_string_equal(r.messages[0].content, "ab");
    assert_string_equal(r.messages[2].content, "");
    assert_true(r.stream && r.include_usage && r.cache_events && r.logprobs && r.ignore_end);
    assert_int_equal(r.n, 4);
    assert_int_equal(r.max_new, 9);
    assert_true(r.temperature == 2 && r.top_p > 0 && r.top_p < 1e-5f && r.min_p == 1);
    assert_int_equal(r.top_k, 0);
    assert_true(r.seeded && r.seed == UINT64_MAX);
    assert_int_equal(r.n_stops, 2);
    assert_string_equal(r.stops[1], "yz");
    assert_int_equal(r.top_logprobs, 20);
    assert_true(r.frequency_penalty == -2 && r.presence_penalty == 2);
    assert_int_equal(r.n_biases, 2);
    assert_true(r.biases[1].token == 999 && r.biases[1].bias == 1.5f);
    assert_memory_equal(r.policy, "window:", 7); // canonical
    assert_int_equal(r.thinking_budget, 1024);
    request_free(&r);
}

static void prompts(void **state) {
    (void)state;
    request r = read_or_fail(false, "{\"prompt\":\"a b\",\"logprobs\":0}");
    assert_string_equal(r.prompt, "a b");
    assert_true(r.logprobs && r.top_logprobs == 0);
    request_free(&r);
    r = read_or_fail(false, "{\"prompt\":[\"a\"]}");
    assert_string_equal(r.prompt, "a");
    request_free(&r);
    r = read_or_fail(false, "{\"prompt\":[1,2,999]}");
    assert_int_equal(r.n_tokens, 3);
    assert_int_equal(r.tokens[2], 999);
    request_free(&r);
    r = read_or_fail(true, "{" CHAT
                           ",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"schema\":{\"a\":1}}}}");
    assert_int_equal(r.format, REQUEST_JSON_SCHEMA);
    assert_string_equal(r.schema, "{\"a\":1}");
    request_free(&r);
    r = read_or_fail(
        true, "{" CHAT ",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"n\",\"description\":"
              "\"d\",\"strict\":null,\"schema\":{\"b\":{},\"a\":{}}}}}");
    assert_string_equal(r.schema, "{\"b\":{},\"a\":{}}"); // in its own order
    request_free(&r);
    r = read_or_fail(false, "{\"prompt\":\"a\",\"response_format\":{\"type\":\"json_object\"}}");
    assert_int_equal(r.format, REQUEST_JSON_OBJECT);
    assert_null(r.schema);
    request_free(&r);
}

static void refusals(void **state) {
    (void)state;
    static const struct {
        bool chat;
        const char *text, *param, *part; // of the message
    } cases[] = {
        {true, "", "", "not JSON"},
        {true, "{", "", "not JSON"},
        {true, "[]", "", "expected an object, found an array"},
        {true, "{\"a\":\"\xff\"}", "", "not JSON"},
        {true, "{\"a\":\"\\u0000\"}", "", "not JSON"},
        {true, "{\"a\":1e400}", "", "not JSON"},
        {true, "{\"a\":99999999999999999999999}", "", "not JSON"},
        {true, "{}", "messages", "1 to 4096"},
        {true, "{\"messages\":[]}", "messages", "1 to 4096"},
        {true, "{\"messages\":\"a\"}", "messages", "1 to 4096"},
        {true, "{\"messages\":[1]}", "messages", "messages[0]"},
        {true, "{\"messages\":[{\"role\":7,\"content\":\"a\"}]}", "messages", "messages[0]"},
        {true, "{\"messages\":[{\"role\":\"wizard\",\"content\":\"a\"}]}", "messages", "\"wizard\""},
        {true, "{\"messages\":[{\"role\":\"user\"}]}", "messages", "messages[0].content"},
        {true, "{\"messages\":[{\"role\":\"user\",\"content\":7}]}", "messages", "messages[0].content"},
        {true, "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\"}]}]}", "messages", "type text"},
        {true, "{" CHAT ",\"n\":5}", "n", "1 to 4, found 5"},
        {true, "{" CHAT ",\"n\":0}", "n", "1 to 4, found 0"},
        {true, "{" CHAT ",\"n\":-1}", "n", "found -1"},
        {true, "{" CHAT ",\"n\":1.5}", "n", "whole number"},
        {true, "{" CHAT ",\"n\":\"1\"}", "n", "found a string"},
        {true, "{" CHAT ",\"max_tokens\":0}", "max_tokens", "found 0"},
        {true, "{" CHAT ",\"max_tokens\":9223372036854775807}", "max_tokens", "found 9223372036854775807"},
        {true, "{" CHAT ",\"temperature\":2.5}", "temperature", "0 to 2"},
        {true, "{" CHAT ",\"temperature\":\"hot\"}", "temperature", "found a string"},
        {true, "{" CHAT ",\"top_p\":1.5}", "top_p", "0 to 1"},
        {true, "{" CHAT ",\"top_k\":-2}", "top_k", "found -2"},
        {true, "{" CHAT ",\"min_p\":-0.1}", "min_p", "0 to 1"},
        {true, "{" CHAT ",\"seed\":0.5}", "seed", "whole number"},
        {true, "{" CHAT ",\"stop\":7}", "stop", "a string or an array"},
        {true, "{" CHAT ",\"stop\":[\"\"]}", "stop", "1 to 256"},
        {true, "{" CHAT ",\"stop\":[7]}", "stop", "1 to 256"},
        {true, "{" CHAT ",\"stream\":1}", "stream", "a boolean"},
        {true, "{" CHAT ",\"stream_options\":1}", "stream_options", "an object"},
        {true, "{" CHAT ",\"stream_options\":{\"include_usage\":1}}", "include_usage", "a boolean"},
        {true, "{" CHAT ",\"cache_events\":true}", "cache_events", "stream"},
        {true, "{" CHAT ",\"top_logprobs\":2}", "top_logprobs", "logprobs"},
        {true, "{" CHAT ",\"logprobs\":true,\"top_logprobs\":21}", "top_logprobs", "0 to 20"},
        {true, "{" CHAT ",\"frequency_penalty\":3}", "frequency_penalty", "-2 to 2"},
        {true, "{" CHAT ",\"logit_bias\":[1]}", "logit_bias", "an object"},
        {true, "{" CHAT ",\"logit_bias\":{\"1000\":1}}", "logit_bias", "below 1000"},
        {true, "{" CHAT ",\"logit_bias\":{\"-1\":1}}", "logit_bias", "below 1000"},
        {true, "{" CHAT ",\"logit_bias\":{\"1x\":1}}", "logit_bias", "below 1000"},
        {true, "{" CHAT ",\"logit_bias\":{\"1\":101}}", "logit_bias", "-100 to 100"},
        {true, "{" CHAT ",\"logit_bias\":{\"1\":\"a\"}}", "logit_bias", "-100 to 100"},
        {true, "{" CHAT ",\"cache_policy\":\"none\"}", "cache_policy", "full, rpc, window, random"},
        {true, "{" CHAT ",\"cache_policy\":\"rpc:p=0\"}", "cache_policy", "p=0"},
        {true, "{" CHAT ",\"cache_policy\":7}", "cache_policy", "a string"},
        {true, "{" CHAT ",\"reasoning_effort\":\"much\"}", "reasoning_effort", "none, minimal, low"},
        {true, "{" CHAT ",\"thinking_budget\":-1}", "thinking_budget", "found -1"},
        {true, "{" CHAT ",\"response_format\":{\"type\":\"xml\"}}", "response_format", "json_object"},
        {true, "{" CHAT ",\"response_format\":7}", "response_format", "json_object"},
        {true, "{" CHAT ",\"response_format\":{\"type\":7}}", "response_format", "json_object"},
        {true, "{" CHAT ",\"response_format\":{\"type\":\"json_schema\"}}", "response_format", "json_schema: expected"},
        {true, "{" CHAT ",\"response_format\":" SCHEMA("{}") "}", "response_format", "json_schema.schema"},
        {true, "{" CHAT ",\"response_format\":" SCHEMA("{\"name\":\"n\",\"schema\":[]}") "}", "response_format",
         "json_schema.schema"},
        {true, "{" CHAT ",\"response_format\":" SCHEMA("{\"name\":7,\"schema\":{}}") "}", "response_format",
         "json_schema.name"},
        {true, "{" CHAT ",\"response_format\":" SCHEMA("{\"strict\":7,\"schema\":{}}") "}", "response_format",
         "json_schema.strict"},
        {true, "{" CHAT ",\"tools\":[{}]}", "tools", "not supported"},
        {false, "{}", "prompt", "one string"},
        {false, "{\"prompt\":\"\"}", "prompt", "at least one"},
        {false, "{\"prompt\":[]}", "prompt", "one string"},
        {false, "{\"prompt\":[\"a\",\"b\"]}", "prompt", "one string"},
        {false, "{\"prompt\":[1,\"b\"]}", "prompt", "entry 1"},
        {false, "{\"prompt\":[1000]}", "prompt", "entry 0"},
        {false, "{\"prompt\":\"a\",\"echo\":true}", "echo", "not supported"},
        {false, "{\"prompt\":\"a\",\"suffix\":\"b\"}", "suffix", "not supported"},
        {false, "{\"prompt\":\"a\",\"best_of\":2}", "best_of", "value of n"},
        {false, "{\"prompt\":\"a\",\"logprobs\":true}", "logprobs", "whole number"},
    };
    for (size_t i = 0; i < T_COUNT(cases); i++) {
        request r;
        refusal no = {0};
        const size_t n = strlen(cases[i].text);
        t_guarded page = t_guard(n);
        memcpy(page.p, cases[i].text, n); // not terminated
        if (request_parse(&r, cases[i].chat, page.p, n, &defaults, &no)) fail_msg("%s was accepted", cases[i].text);
        t_unguard(&page);
        if (no.status != 400 || strcmp(no.param, cases[i].param) || !strstr(no.message, cases[i].part))
            fail_msg("%s: %d, \"%s\", \"%s\"", cases[i].text, no.status, no.param, no.message);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(defaults_hold), cmocka_unit_test(every_field),
                                       cmocka_unit_test(prompts), cmocka_unit_test(refusals)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
