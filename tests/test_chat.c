// Chat templates against Jinja2's output for the same conversations (golden/chat, made by oracle_chat.py), and what
// broken or hostile templates get.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <time.h>
#include <unistd.h>

#include "change.h"
#include "model/chat.h"
#include "model/jinja.h"
#include "tiny.h"

static const char thought[] = "<think>\nThe user greets me.\n</think>\n\nHello!";

// The conversations of oracle_chat.py.
static const struct conversation {
    const char *name;
    size_t n;
    pith_message messages[3];
} conversations[] = {
    {"user", 1, {{"user", "What is 2 + 2?"}}},
    {"system", 2, {{"system", "Be brief."}, {"user", "Gr\u00fc\u00dfe, \u4f60\u597d & <b>'quotes\"</b>\n\ttab"}}},
    {"history", 3, {{"user", "Hi"}, {"assistant", thought}, {"user", "And 3 < 4?"}}},
};
enum { N_CONVERSATIONS = sizeof conversations / sizeof *conversations };

static const struct {
    const char *name, *file, *bos, *eos;
} templates[] = {
    {"r1-distill-qwen", "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B", "<\uff5cbegin\u2581of\u2581sentence\uff5c>",
     "<\uff5cend\u2581of\u2581sentence\uff5c>"},
    {"r1-distill-llama", "deepseek-ai-DeepSeek-R1-Distill-Llama-8B", "<\uff5cbegin\u2581of\u2581sentence\uff5c>",
     "<\uff5cend\u2581of\u2581sentence\uff5c>"},
    {"qwq", "Qwen-QwQ-32B", "", "<|im_end|>"},
    {"qwen3", "Qwen-Qwen3-0.6B", "", "<|im_end|>"},
    {"qwen2.5", "Qwen-Qwen2.5-7B-Instruct", "", "<|im_end|>"},
    {"llama-3.1", "meta-llama-Llama-3.1-8B-Instruct", "<|begin_of_text|>", "<|eot_id|>"},
    {"llama-3.2", "meta-llama-Llama-3.2-3B-Instruct", "<|begin_of_text|>", "<|eot_id|>"},
    {"llama-3.3", "meta-llama-Llama-3.3-70B-Instruct", "<|begin_of_text|>", "<|eot_id|>"},
    {"mistral-nemo", "mistralai-Mistral-Nemo-Instruct-2407", "<s>", "</s>"},
    {"hermes", "NousResearch-Hermes-3-Llama-3.1-8B-tool_use", "<|begin_of_text|>", "<|im_end|>"},
};

static const int64_t now = 1749254400; // 2025-06-07 00:00:00 UTC

static char *read_file(const char *path) { // NULL when it is not there
    FILE *f = fopen(path, "rb");
    if (!f) return NULL;
    char *text = calloc(1, 1 << 17);
    size_t n = fread(text, 1, (1 << 17) - 1, f);
    (void)n;
    fclose(f);
    return text;
}

static void expect_golden(const char *name, const char *conversation, const char *text) {
    char path[512];
    snprintf(path, sizeof path, "%s/tests/golden/chat/%s.%s.txt", getenv("PITH_ROOT"), name, conversation);
    char *golden = read_file(path);
    if (!golden) fail_msg("%s is missing", path);
    if (strcmp(golden, text) != 0) fail_msg("%s, %s: expected\n%s\nfound\n%s", name, conversation, golden, text);
    free(golden);
}

static void test_templates(void **state) {
    (void)state;
    const char *tree = getenv("PITH_LLAMA_CPP");
    assert_non_null(getenv("PITH_ROOT"));
    int n = 0;
    for (size_t i = 0; i < sizeof templates / sizeof *templates; i++) {
        char path[512];
        snprintf(path, sizeof path, "%s/models/templates/%s.jinja", tree ? tree : ".", templates[i].file);
        char *source = read_file(path);
        if (!source) {
            print_message("%s is missing\n", path);
            skip();
        }
        for (int k = 0; k < N_CONVERSATIONS; k++) {
            char *text;
            pith_error err;
            pith_text whole = {source, (uint32_t)strlen(source)};
            if (pith_chat_apply_template("model.gguf", whole, templates[i].bos, templates[i].eos, now,
                                         conversations[k].messages, conversations[k].n, &text, &err) != PITH_OK)
                fail_msg("%s: %s", templates[i].name, err.msg);
            expect_golden(templates[i].name, conversations[k].name, text);
            pith_text_free(text);
            n++;
        }
        free(source);
    }
    print_message("%d conversations as Jinja2 renders them\n", n);
}

// TinyLlama's template is inside the model, which only a complete set-up has.
static void test_tinyllama(void **state) {
    (void)state;
    char path[512];
    snprintf(path, sizeof path, "%s/models/tinyllama-1.1b-chat.gguf", getenv("PITH_ROOT"));
    if (access(path, R_OK) != 0) {
        print_message("%s is missing\n", path);
        skip();
    }
    pith_model *model;
    pith_error err;
    if (pith_model_load(path, NULL, &model, &err) != PITH_OK) fail_msg("%s", err.msg);
    for (int k = 0; k < N_CONVERSATIONS; k++) {
        char *text;
        assert_int_equal(pith_chat_render(model, conversations[k].messages, conversations[k].n, &text, &err), PITH_OK);
        expect_golden("tinyllama", conversations[k].name, text);
        pith_text_free(text);
    }
    pith_model_free(model);
}

static void test_model(void **state) {
    (void)state;
    char path[64];
    snprintf(path, sizeof path, "test_chat.%d.gguf", (int)getpid());
    tiny_spec spec = tiny_default("qwen2", GGML_TYPE_F32);
    assert_true(tiny_model_write(path, &spec));
    pith_model *model;
    pith_error err;
    assert_int_equal(pith_model_load(path, NULL, &model, &err), PITH_OK);
    char *text;
    assert_int_equal(pith_chat_render(model, conversations[0].messages, 1, &text, &err), PITH_OK);
    assert_string_equal(text, "<|im_start|>user\nWhat is 2 + 2?<|im_end|>\n<|im_start|>assistant\n");
    pith_text_free(text);
    assert_int_equal(pith_chat_render(model, NULL, 0, &text, &err), PITH_E_ARG);
    assert_null(text);
    pith_message odd = {"user", "ab\xfe"};
    assert_int_equal(pith_chat_render(model, &odd, 1, &text, &err), PITH_E_FORMAT);
    assert_string_equal(err.msg, "chat: message 0: not UTF-8: byte 0xfe at 2");
    assert_int_equal(err.offset, 2);
    pith_model_free(model);

    change c;
    assert_true(change_begin(&c, path));
    gguf_remove_key(c.keys, "tokenizer.chat_template");
    assert_true(change_end(&c, path));
    assert_int_equal(pith_model_load(path, NULL, &model, &err), PITH_OK);
    pith_model_info info;
    pith_model_describe(model, &info);
    assert_false(info.has_chat_template);
    assert_int_equal(pith_chat_render(model, conversations[0].messages, 1, &text, &err), PITH_E_UNSUPPORTED);
    assert_non_null(strstr(err.msg, "the model has no chat template"));
    assert_null(text);
    pith_model_free(model);
    unlink(path);
}

// ------------------------------------------------------------------------------------------- bad templates

static pith_status render(const char *source, size_t bytes, char **text, pith_error *err) {
    return pith_chat_apply_template("model.gguf", (pith_text){source, (uint32_t)bytes}, "", "", now,
                                    conversations[0].messages, 1, text, err);
}

static void expect_refusal(const char *source, const char *part) {
    char *text = (char *)&text;
    pith_error err;
    assert_int_equal(render(source, strlen(source), &text, &err), PITH_E_FORMAT);
    assert_null(text);
    if (!strstr(err.msg, part) || strchr(err.msg, '\n') || strncmp(err.msg, "model.gguf: chat template: ", 27) != 0)
        fail_msg("'%s' in '%s'", part, err.msg);
}

static void test_broken(void **state) {
    (void)state;
    expect_refusal("{{ raise_exception('only users and assistants') }}", "only users and assistants");
    expect_refusal("{{ messages", "");
    expect_refusal("{% if %}", "");
    expect_refusal("{% for m in messages %}", "");
    expect_refusal("{% endfor %}", "");
    expect_refusal("{% break %}", "");
    expect_refusal("{{ 'open }}", "");
    expect_refusal("{{ nothing.at.all() }}", "");
    expect_refusal("{{ 1 / 'a' }}", "");
    expect_refusal("{% unknown %}", "");
}

// `open` n times, then `middle`, then `close` n times.
static pith_status render_nested(const char *open, const char *middle, const char *close, unsigned n, pith_error *err) {
    size_t bytes = n * (strlen(open) + strlen(close)) + strlen(middle) + 16;
    char *source = malloc(bytes), *at = source, *text;
    at += sprintf(at, "%s", *open == '{' && open[1] == '%' ? "" : "{{ ");
    for (unsigned i = 0; i < n; i++) at += sprintf(at, "%s", open);
    at += sprintf(at, "%s", middle);
    for (unsigned i = 0; i < n; i++) at += sprintf(at, "%s", close);
    at += sprintf(at, "%s", *open == '{' && open[1] == '%' ? "" : " }}");
    pith_status status = render(source, (size_t)(at - source), &text, err);
    pith_text_free(text);
    free(source);
    return status;
}

// The engine recurses; without bounds each of these exhausts the stack.
static void test_deep(void **state) {
    (void)state;
    const struct {
        const char *open, *middle, *close;
        unsigned most; // accepted levels
    } cases[] = {
        {"(", "1", ")", 64},
        {"[", "1", "]", 64},
        {"{% if true %}", "x", "{% endif %}", 64},
        {"{% for m in messages %}", "x", "{% endfor %}", 64},
        {"1+", "1", "", 500},
        {"not ", "true", "", 1000},
        {"-", "1", "", 1000},
        {"1 if true else ", "1", "", 200},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pith_error err = {0};
        if (render_nested(cases[i].open, cases[i].middle, cases[i].close, cases[i].most, &err) != PITH_OK)
            fail_msg("%u times '%s': %s", cases[i].most, cases[i].open, err.msg);
        assert_int_equal(render_nested(cases[i].open, cases[i].middle, cases[i].close, 8000, &err), PITH_E_FORMAT);
        if (!strstr(err.msg, "nested too deeply") && !strstr(err.msg, "is too long")) fail_msg("%s", err.msg);
    }
    // elif branches nest inside the parser
    enum { N = 3000 };
    char *source = malloc(N * 32 + 64), *at = source, *text;
    at += sprintf(at, "{%% if false %%}");
    for (int i = 0; i < N; i++) at += sprintf(at, "{%% elif false %%}x");
    at += sprintf(at, "{%% endif %%}");
    pith_error err;
    assert_int_equal(render(source, (size_t)(at - source), &text, &err), PITH_E_FORMAT);
    assert_non_null(strstr(err.msg, "nested too deeply"));
    free(source);
}

static void test_long(void **state) {
    (void)state;
    char *source = malloc(PITH_JINJA_MAX_BYTES + 1), *text;
    memset(source, 'x', PITH_JINJA_MAX_BYTES + 1);
    pith_error err;
    assert_int_equal(render(source, PITH_JINJA_MAX_BYTES, &text, &err), PITH_OK);
    assert_int_equal(strlen(text), PITH_JINJA_MAX_BYTES);
    pith_text_free(text);
    assert_int_equal(render(source, PITH_JINJA_MAX_BYTES + 1, &text, &err), PITH_E_FORMAT);
    assert_non_null(strstr(err.msg, "the template is too long"));
    free(source);
    pith_text_free(NULL);
}

int main(void) {
    setenv("TZ", "UTC", 1); // strftime_now is local time
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_templates), cmocka_unit_test(test_tinyllama), cmocka_unit_test(test_model),
        cmocka_unit_test(test_broken),    cmocka_unit_test(test_deep),      cmocka_unit_test(test_long),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
