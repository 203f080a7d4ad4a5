// The vocabulary: llama.cpp's own test vectors, what pith.h promises of tokens and text, and what is refused because
// libllama would abort on it.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <unistd.h>

#include "base/utf8.h"
#include "change.h"
#include "model/mapping.h"
#include "model/model.h"
#include "model/vocab_check.h"
#include "tiny.h"

static char good[64], bad[64];

static int set_up(void **state) {
    (void)state;
    snprintf(good, sizeof good, "test_vocab.%d.good.gguf", (int)getpid());
    snprintf(bad, sizeof bad, "test_vocab.%d.bad.gguf", (int)getpid());
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    unlink(good);
    unlink(bad);
    return 0;
}

// A vocabulary by itself: the files of test vectors have no weights.
typedef struct loaded {
    pith_mapping mapping;
    pith_gguf gguf;
    pith_vocab *vocab;
} loaded;

static loaded load(const char *path) {
    loaded l = {0};
    pith_error err;
    if (pith_mapping_open(path, &l.mapping, &err) != PITH_OK ||
        pith_gguf_check(l.mapping.base, l.mapping.bytes, path, NULL, &l.gguf, &err) != PITH_OK ||
        pith_vocab_load(path, &l.gguf, NULL, &l.vocab, &err) != PITH_OK)
        fail_msg("%s", err.msg);
    return l;
}

static void unload(loaded *l) {
    pith_vocab_free(l->vocab);
    pith_gguf_free(&l->gguf);
    pith_mapping_close(&l->mapping);
}

// The vocabulary `name` of the llama.cpp tree; skips the test when it is not there.
static loaded load_tree(const char *name, const char *suffix, char path[512]) {
    const char *tree = getenv("PITH_LLAMA_CPP");
    snprintf(path, 512, "%s/models/ggml-vocab-%s.gguf", tree ? tree : ".", name);
    if (access(path, R_OK) != 0) {
        print_message("%s is missing\n", path);
        skip();
    }
    loaded l = load(path);
    strncat(path, suffix, 500 - strlen(path));
    return l;
}

enum { MAX_TEXT = 1 << 16 };

static size_t tokenize(const pith_vocab *v, const char *text, int flags, pith_token *out) {
    size_t n;
    pith_error err;
    if (pith_vocab_tokenize(v, text, strlen(text), flags, out, MAX_TEXT, &n, &err) != PITH_OK) fail_msg("%s", err.msg);
    return n;
}

static size_t text_of(const pith_vocab *v, const pith_token *tokens, size_t n, bool special, char *out,
                      size_t capacity) {
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        at += pith_vocab_text(v, tokens[i], special, out + at, capacity - at);
        assert_true(at < capacity);
    }
    out[at] = 0;
    return at;
}

// ------------------------------------------------------------------------------------------- test vectors

static char *read_file(const char *path) {
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    char *text = calloc(1, MAX_TEXT);
    assert_true(fread(text, 1, MAX_TEXT - 1, f) > 0);
    fclose(f);
    return text;
}

// .inp has texts between lines of `separator`, .out a line of tokens for each.
static void check_vectors(const char *name, bool reversible) {
    static const char separator[] = "\n__ggml_vocab_test__\n";
    char path[512];
    loaded l = load_tree(name, ".inp", path);
    char *texts = read_file(path), *next;
    strcpy(path + strlen(path) - 4, ".out");
    char *lines = read_file(path), *line = lines;
    static pith_token tokens[MAX_TEXT];
    static char back[MAX_TEXT];
    int n_texts = 0;
    for (char *text = texts; text; text = next, n_texts++) {
        next = strstr(text, separator);
        if (next) *next = 0, next += strlen(separator);
        else if (*text == 0) break;
        size_t n = tokenize(l.vocab, text, 0, tokens);
        for (size_t i = 0; i < n; i++) assert_int_equal(strtol(line, &line, 10), tokens[i]);
        while (*line == ' ') line++;
        assert_true(*line == '\n' || *line == 0);
        if (*line) line++;
        text_of(l.vocab, tokens, n, false, back, sizeof back);
        if (reversible) assert_string_equal(back, text);
    }
    print_message("%s: %d texts\n", name, n_texts);
    assert_true(n_texts > 30);
    free(texts);
    free(lines);
    unload(&l);
}

static void test_vectors_qwen2(void **state) { (void)state, check_vectors("qwen2", true); }
static void test_vectors_llama_bpe(void **state) { (void)state, check_vectors("llama-bpe", true); }
static void test_vectors_llama_spm(void **state) {
    (void)state, check_vectors("llama-spm", false);
} // a space comes first
static void test_vectors_deepseek(void **state) { (void)state, check_vectors("deepseek-llm", true); }
static void test_vectors_qwen35(void **state) { (void)state, check_vectors("qwen35", true); }

// ------------------------------------------------------------------------------------------------- promises

static void test_special(void **state) {
    (void)state;
    tiny_spec spec = tiny_default("qwen2", GGML_TYPE_F32);
    assert_true(tiny_model_write(good, &spec));
    loaded l = load(good);
    tiny_tokens id = tiny_control_tokens(spec.n_vocab);
    assert_int_equal(pith_vocab_size(l.vocab), spec.n_vocab);
    pith_token t[64];
    char text[256];

    assert_int_equal(tokenize(l.vocab, "<|im_start|>", PITH_TOKENS_SPECIAL, t), 1);
    assert_int_equal(t[0], id.im_start);
    size_t n = tokenize(l.vocab, "<|im_start|>", 0, t); // text of a stranger stays text
    assert_true(n > 1);
    for (size_t i = 0; i < n; i++) assert_true(t[i] < id.end_of_text);
    text_of(l.vocab, t, n, false, text, sizeof text);
    assert_string_equal(text, "<|im_start|>");

    // Control tokens have a name with `special` only; what is for readers, such as <think>, always.
    assert_int_equal(pith_vocab_text(l.vocab, id.im_start, false, text, sizeof text), 0);
    assert_int_equal(pith_vocab_text(l.vocab, id.im_start, true, text, sizeof text), 12);
    assert_memory_equal(text, "<|im_start|>", 12);
    assert_int_equal(pith_vocab_text(l.vocab, id.think, false, text, sizeof text), 7);
    assert_memory_equal(text, "<think>", 7);
    assert_int_equal(tokenize(l.vocab, "a</think>", 0, t), 2);
    assert_int_equal(t[1], id.end_think);

    // Less room than a name has: its length, and nothing written.
    memset(text, 'x', sizeof text);
    assert_int_equal(pith_vocab_text(l.vocab, id.im_start, true, text, 11), 12);
    assert_int_equal(text[0], 'x');
    assert_int_equal(pith_vocab_text(l.vocab, id.im_start, true, NULL, 0), 12);

    // Outside the vocabulary.
    assert_int_equal(pith_vocab_text(l.vocab, -1, true, text, sizeof text), 0);
    assert_int_equal(pith_vocab_text(l.vocab, (pith_token)spec.n_vocab, true, text, sizeof text), 0);
    assert_false(pith_vocab_ends(l.vocab, -1));
    assert_false(pith_vocab_ends(l.vocab, INT32_MAX));

    assert_true(pith_vocab_ends(l.vocab, id.im_end));
    assert_true(pith_vocab_ends(l.vocab, id.end_of_text));
    assert_false(pith_vocab_ends(l.vocab, id.im_start));
    assert_false(pith_vocab_ends(l.vocab, id.end_think));
    assert_false(pith_vocab_ends(l.vocab, 'a'));
    unload(&l);
}

static void test_begin(void **state) {
    (void)state;
    tiny_spec spec = tiny_default("qwen2", GGML_TYPE_F32);
    tiny_tokens id = tiny_control_tokens(spec.n_vocab);
    const int both = PITH_TOKENS_SPECIAL | PITH_TOKENS_BEGIN;
    pith_token t[64];
    for (int wants = 0; wants < 2; wants++) {
        spec.add_bos = wants;
        assert_true(tiny_model_write(good, &spec));
        loaded l = load(good);
        assert_string_equal(pith_vocab_bos_name(l.vocab), "<|endoftext|>");
        assert_string_equal(pith_vocab_eos_name(l.vocab), "<|im_end|>");
        size_t plain = tokenize(l.vocab, "hello", 0, t);
        assert_true(t[0] != id.end_of_text);
        assert_int_equal(tokenize(l.vocab, "hello", PITH_TOKENS_SPECIAL, t), plain);
        assert_int_equal(tokenize(l.vocab, "hello", both, t), plain + (size_t)wants);
        assert_int_equal(t[0] == id.end_of_text, wants);
        // A template that writes it itself does not get a second one,
        assert_int_equal(tokenize(l.vocab, "<|endoftext|>hello", both, t), plain + 1);
        assert_int_equal(t[0], id.end_of_text);
        assert_true(t[1] != id.end_of_text);
        // but its name as mere text is none.
        size_t literal = tokenize(l.vocab, "<|endoftext|>hello", 0, t);
        assert_int_equal(tokenize(l.vocab, "<|endoftext|>hello", PITH_TOKENS_BEGIN, t), literal + (size_t)wants);
        assert_int_equal(tokenize(l.vocab, "", both, t), wants);
        unload(&l);
    }
}

static void test_capacity(void **state) {
    (void)state;
    tiny_spec spec = tiny_default("qwen2", GGML_TYPE_F32);
    spec.add_bos = true;
    assert_true(tiny_model_write(good, &spec));
    loaded l = load(good);
    const char *text = "the end of the thing";
    const int both = PITH_TOKENS_SPECIAL | PITH_TOKENS_BEGIN;
    pith_token all[64], some[64];
    const size_t n = tokenize(l.vocab, text, both, all);
    assert_true(n > 4 && n < 60);
    for (size_t capacity = 0; capacity <= n + 1; capacity++) {
        memset(some, 0x55, sizeof some);
        size_t needed = 0;
        pith_error err;
        pith_status status = pith_vocab_tokenize(l.vocab, text, strlen(text), both, some, capacity, &needed, &err);
        assert_int_equal(status, capacity < n ? PITH_E_ARG : PITH_OK);
        assert_int_equal(needed, n);
        if (status == PITH_OK) assert_memory_equal(some, all, n * sizeof *all);
        assert_int_equal(some[capacity], 0x55555555); // nothing past it
    }
    size_t needed = 0;
    assert_int_equal(pith_vocab_tokenize(l.vocab, text, strlen(text), both, NULL, 0, &needed, NULL), PITH_E_ARG);
    assert_int_equal(needed, n);
    unload(&l);
}

static void test_utf8(void **state) {
    (void)state;
    // Markus Kuhn's cases: lengths, limits, overlong forms, surrogates, cut off.
    const struct {
        const char *text;
        size_t bytes, valid;
    } cases[] = {
        {"", 0, 0},
        {"plain", 5, 5},
        {"\xc2\x80\xdf\xbf", 4, 4},
        {"\xe0\xa0\x80\xef\xbf\xbf", 6, 6},
        {"\xf0\x90\x80\x80\xf4\x8f\xbf\xbf", 8, 8},
        {"a\x80", 2, 1},
        {"a\xbf", 2, 1},
        {"\xc0\x80", 2, 0},
        {"\xc1\xbf", 2, 0},
        {"ab\xe0\x9f\xbf", 5, 2},
        {"\xf0\x8f\xbf\xbf", 4, 0},
        {"\xed\xa0\x80", 3, 0},
        {"\xed\x9f\xbf", 3, 3},
        {"\xf4\x90\x80\x80", 4, 0},
        {"\xf5\x80\x80\x80", 4, 0},
        {"\xff", 1, 0},
        {"\xe4\xbd", 2, 0},
        {"x\xf0\x9f\x98", 4, 1},
        {"\xc3(", 2, 0},
        {"\xe4\xbd\xa0\xe5\xa5", 5, 3},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *copy = malloc(cases[i].bytes + 1); // exactly, so that a sanitizer sees a read past it
        copy = realloc(copy, cases[i].bytes ? cases[i].bytes : 1);
        memcpy(copy, cases[i].text, cases[i].bytes);
        assert_int_equal(pith_utf8_valid(copy, cases[i].bytes), cases[i].valid);
        free(copy);
    }

    tiny_spec spec = tiny_default("qwen2", GGML_TYPE_F32);
    assert_true(tiny_model_write(good, &spec));
    loaded l = load(good);
    pith_token t[64];
    size_t n;
    pith_error err;
    assert_int_equal(pith_vocab_tokenize(l.vocab, "abc\xff", 4, 0, t, 64, &n, &err), PITH_E_FORMAT);
    assert_int_equal(err.offset, 3);
    assert_string_equal(err.msg, "text: not UTF-8: byte 0xff at 3");
    assert_int_equal(n, 0);
    // A zero byte is a character like any other.
    assert_int_equal(pith_vocab_tokenize(l.vocab, "a\0b", 3, 0, t, 64, &n, &err), PITH_OK);
    assert_int_equal(n, 3);
    assert_int_equal(t[1], 0);
    // So is every character: bytes come back as they were.
    const char *text = "Gr\xc3\xbc\xc3\x9f"
                       "e \xe4\xbd\xa0\xe5\xa5\xbd \xf0\x9f\x99\x82\n\tend";
    char back[128];
    text_of(l.vocab, t, tokenize(l.vocab, text, 0, t), false, back, sizeof back);
    assert_string_equal(back, text);
    unload(&l);
}

// libstdc++'s regular expressions recurse per character: vocabularies that are split by them bound the length of a
// word.
static void test_long_words(void **state) {
    (void)state;
    static pith_token tokens[MAX_TEXT];
    static char text[MAX_TEXT];
    memset(text, 'a', sizeof text - 1);
    const char *const pre[] = {"qwen2", "llama-bpe", "deepseek-v3", "default"};
    for (int i = 0; i < 4; i++) {
        tiny_spec spec = tiny_default("qwen2", GGML_TYPE_F32);
        assert_true(tiny_model_write(good, &spec));
        change c;
        assert_true(change_begin(&c, good));
        gguf_set_val_str(c.keys, "tokenizer.ggml.pre", pre[i]);
        assert_true(change_end(&c, bad));
        loaded l = load(bad);
        size_t n;
        pith_error err;
        bool bounded = i >= 2;
        assert_int_equal(pith_vocab_tokenize(l.vocab, text, 4096, 0, tokens, MAX_TEXT, &n, &err), PITH_OK);
        pith_status status = pith_vocab_tokenize(l.vocab, text, 4097, 0, tokens, MAX_TEXT, &n, &err);
        assert_int_equal(status, bounded ? PITH_E_ARG : PITH_OK);
        if (bounded) assert_non_null(strstr(err.msg, "words of at most 4096 bytes, found one of 4097"));
        if (!bounded)
            assert_int_equal(pith_vocab_tokenize(l.vocab, text, 60000, 0, tokens, MAX_TEXT, &n, &err), PITH_OK);
        text[4000] = ' '; // two words
        assert_int_equal(pith_vocab_tokenize(l.vocab, text, 8000, 0, tokens, MAX_TEXT, &n, &err), PITH_OK);
        text[4000] = 'a';
        unload(&l);
    }
}

// ------------------------------------------------------------------------------------------------- refused

static void expect_refusal(pith_status status, const char *part) {
    pith_mapping m;
    pith_gguf g;
    pith_error err;
    if (pith_mapping_open(bad, &m, &err) != PITH_OK || pith_gguf_check(m.base, m.bytes, bad, NULL, &g, &err) != PITH_OK)
        fail_msg("%s", err.msg);
    pith_vocab *v = (pith_vocab *)&v;
    pith_status got = pith_vocab_load(bad, &g, NULL, &v, &err);
    if (got != status || !strstr(err.msg, part) || !strstr(err.msg, bad))
        fail_msg("expected %s '%s', got %s '%s'", pith_status_name(status), part, pith_status_name(got), err.msg);
    assert_null(v);
    pith_gguf_free(&g);
    pith_mapping_close(&m);
}

#define CASE(edit, status, part)                                                                                       \
    do {                                                                                                               \
        change c;                                                                                                      \
        assert_true(change_begin(&c, good));                                                                           \
        edit;                                                                                                          \
        assert_true(change_end(&c, bad));                                                                              \
        expect_refusal(status, part);                                                                                  \
    } while (0)

static const char tokens_key[] = "tokenizer.ggml.tokens", types_key[] = "tokenizer.ggml.token_type";

static void set_token(change *c, size_t i, const char *text) {
    int64_t key = gguf_find_key(c->keys, tokens_key);
    size_t n = gguf_get_arr_n(c->keys, key);
    const char **list = malloc(n * sizeof *list);
    for (size_t k = 0; k < n; k++) list[k] = strdup(k == i ? text : gguf_get_arr_str(c->keys, key, k));
    gguf_set_arr_str(c->keys, tokens_key, list, n);
    for (size_t k = 0; k < n; k++) free((void *)(uintptr_t)list[k]);
    free(list);
}

static void set_type(change *c, size_t i, int32_t type) {
    int64_t key = gguf_find_key(c->keys, types_key);
    size_t n = gguf_get_arr_n(c->keys, key);
    int32_t *list = malloc(n * sizeof *list);
    memcpy(list, gguf_get_arr_data(c->keys, key), n * sizeof *list);
    list[i] = type;
    gguf_set_arr_data(c->keys, types_key, GGUF_TYPE_INT32, list, n);
    free(list);
}

// The tiny vocabulary as SentencePiece would have it, with `n_bytes` of the 256 byte tokens.
static void make_spm(change *c, int n_bytes) {
    int64_t key = gguf_find_key(c->keys, tokens_key);
    size_t n = gguf_get_arr_n(c->keys, key);
    float *scores = calloc(n, sizeof *scores);
    int32_t *types = calloc(n, sizeof *types);
    const char **list = calloc(n, sizeof *list);
    char(*text)[32] = calloc(n, sizeof *text);
    for (size_t i = 0; i < n; i++) {
        bool byte = i >= 3 && i < 3 + (size_t)n_bytes;
        if (byte) snprintf(text[i], sizeof *text, "<0x%02X>", (unsigned)i - 3);
        else snprintf(text[i], sizeof *text, i < 3 ? "<c%u>" : "w%u", (unsigned)i);
        types[i] = byte ? 6 : i < 3 ? 3 : 1;
        list[i] = text[i];
    }
    gguf_set_val_str(c->keys, "tokenizer.ggml.model", "llama");
    gguf_set_arr_str(c->keys, tokens_key, list, n);
    gguf_set_arr_data(c->keys, types_key, GGUF_TYPE_INT32, types, n);
    gguf_set_arr_data(c->keys, "tokenizer.ggml.scores", GGUF_TYPE_FLOAT32, scores, n);
    gguf_remove_key(c->keys, "tokenizer.ggml.bos_token_id");
    gguf_remove_key(c->keys, "tokenizer.ggml.eos_token_id");
    gguf_remove_key(c->keys, "tokenizer.ggml.add_bos_token");
    free(scores);
    free(types);
    free(list);
    free(text);
}

static void test_refused_tokenizers(void **state) {
    (void)state;
    tiny_spec spec = tiny_default("qwen2", GGML_TYPE_F32);
    assert_true(tiny_model_write(good, &spec));
    CASE(gguf_remove_key(c.keys, "tokenizer.ggml.model"), PITH_E_FORMAT, "tokenizer.ggml.model: the key is missing");
    CASE(gguf_set_val_u32(c.keys, "tokenizer.ggml.model", 3), PITH_E_FORMAT,
         "tokenizer.ggml.model: expected string, found u32");
    CASE(gguf_set_val_str(c.keys, "tokenizer.ggml.model", "bert"), PITH_E_UNSUPPORTED,
         "tokenizer.ggml.model: expected one of gpt2, llama, found 'bert'");
    CASE(gguf_set_val_str(c.keys, "tokenizer.ggml.pre", "what"), PITH_E_UNSUPPORTED,
         "tokenizer.ggml.pre: the pre-tokenizer 'what' is not known");
    CASE(gguf_set_val_str(c.keys, "tokenizer.ggml.add_bos_token", "yes"), PITH_E_FORMAT,
         "libllama refuses its vocabulary");
}

static void test_refused_tokens(void **state) {
    (void)state;
    tiny_spec spec = tiny_default("qwen2", GGML_TYPE_F32);
    assert_true(tiny_model_write(good, &spec));
    const uint32_t n = spec.n_vocab;
    CASE(gguf_remove_key(c.keys, tokens_key), PITH_E_FORMAT, "tokenizer.ggml.tokens: the key is missing");
    CASE(gguf_set_arr_str(c.keys, tokens_key, NULL, 0), PITH_E_FORMAT, "expected 1 to 16777216 tokens, found 0");
    CASE(gguf_set_arr_data(c.keys, tokens_key, GGUF_TYPE_INT32, (int32_t[]){1}, 1), PITH_E_FORMAT,
         "tokenizer.ggml.tokens: expected an array of string, found one of i32");
    CASE(gguf_set_val_str(c.keys, tokens_key, "all"), PITH_E_FORMAT, "expected an array of string, found string");
    CASE(set_token(&c, 200, "a"), PITH_E_FORMAT, "tokenizer.ggml.tokens: tokens 97 and 200 are the same, 'a'");
    CASE(set_token(&c, 200, "\xe4\xbd"), PITH_E_FORMAT, "tokenizer.ggml.tokens: token 200 is not UTF-8");
    CASE((set_token(&c, 200, ""), set_token(&c, 201, "[EMPTY_200]")), PITH_E_FORMAT,
         "empty tokens beside one called [EMPTY_");
    CASE(set_type(&c, 7, 7), PITH_E_FORMAT, "tokenizer.ggml.token_type: token 7: expected a type from 0 to 6, found 7");
    CASE(set_type(&c, 7, -1), PITH_E_FORMAT, "token 7: expected a type from 0 to 6, found -1");
    CASE(set_type(&c, 97, 6), PITH_E_FORMAT, "token 97: expected a byte token's text <0xXX>, found 'a'");
    CASE(gguf_set_arr_data(c.keys, types_key, GGUF_TYPE_INT32, (int32_t[]){1, 1}, 2), PITH_E_FORMAT,
         "tokenizer.ggml.token_type: expected one for each of 384 tokens, found 2");
    float scores[1000] = {0};
    CASE(gguf_set_arr_data(c.keys, "tokenizer.ggml.scores", GGUF_TYPE_FLOAT32, scores, n - 1), PITH_E_FORMAT,
         "tokenizer.ggml.scores: expected one for each of 384 tokens, found 383");
    CASE(gguf_set_arr_data(c.keys, "tokenizer.ggml.scores", GGUF_TYPE_UINT8, scores, n), PITH_E_FORMAT,
         "tokenizer.ggml.scores: expected an array of f32, found one of u8");
}

static void test_refused_merges(void **state) {
    (void)state;
    tiny_spec spec = tiny_default("qwen2", GGML_TYPE_F32);
    assert_true(tiny_model_write(good, &spec));
    CASE(gguf_remove_key(c.keys, "tokenizer.ggml.merges"), PITH_E_FORMAT, "tokenizer.ggml.merges: the key is missing");
    const char *const broken[] = {"", "ab", " ab", "ab ", " a", "a "};
    for (int i = 0; i < 6; i++) {
        const char *list[] = {"t h", broken[i]};
        CASE(gguf_set_arr_str(c.keys, "tokenizer.ggml.merges", list, 2), PITH_E_FORMAT,
             "tokenizer.ggml.merges: merge 1: expected two parts with a space between");
    }
}

static void test_refused_special_ids(void **state) {
    (void)state;
    tiny_spec spec = tiny_default("qwen2", GGML_TYPE_F32);
    assert_true(tiny_model_write(good, &spec));
    const char *const keys[] = {"bos", "eos", "eot", "padding", "unknown", "fim_pre", "mask"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        char key[64], part[128];
        snprintf(key, sizeof key, "tokenizer.ggml.%s_token_id", keys[i]);
        snprintf(part, sizeof part, "%s: expected a token below 384, found 384", key);
        CASE(gguf_set_val_u32(c.keys, key, 384), PITH_E_FORMAT, part);
        snprintf(part, sizeof part, "%s: expected u32, found i32", key);
        CASE(gguf_set_val_i32(c.keys, key, -1), PITH_E_FORMAT, part);
    }
}

static void test_sentencepiece(void **state) {
    (void)state;
    tiny_spec spec = tiny_default("llama", GGML_TYPE_F32);
    assert_true(tiny_model_write(good, &spec));
    CASE(make_spm(&c, 255), PITH_E_FORMAT, "tokenizer.ggml.tokens: expected a token <0xFF>, found none");
    CASE((make_spm(&c, 256), gguf_remove_key(c.keys, "tokenizer.ggml.scores")), PITH_E_FORMAT,
         "tokenizer.ggml.scores: the key is missing");
    change c;
    assert_true(change_begin(&c, good));
    make_spm(&c, 256);
    assert_true(change_end(&c, bad));
    loaded l = load(bad);
    assert_string_equal(pith_vocab_bos_name(l.vocab), "<c1>"); // by convention, as the file names none
    assert_string_equal(pith_vocab_eos_name(l.vocab), "<c2>");
    pith_token t[16];
    assert_int_equal(tokenize(l.vocab, "\xc3\xbc", PITH_TOKENS_BEGIN, t), 1 + 3 + 2); // begin, U+2581, two bytes
    assert_int_equal(t[0], 1);
    assert_int_equal(t[5], 3 + 0xbc);
    unload(&l);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vectors_qwen2),
        cmocka_unit_test(test_vectors_llama_bpe),
        cmocka_unit_test(test_vectors_llama_spm),
        cmocka_unit_test(test_vectors_deepseek),
        cmocka_unit_test(test_vectors_qwen35),
        cmocka_unit_test(test_special),
        cmocka_unit_test(test_begin),
        cmocka_unit_test(test_capacity),
        cmocka_unit_test(test_utf8),
        cmocka_unit_test(test_long_words),
        cmocka_unit_test(test_refused_tokenizers),
        cmocka_unit_test(test_refused_tokens),
        cmocka_unit_test(test_refused_merges),
        cmocka_unit_test(test_refused_special_ids),
        cmocka_unit_test(test_sentencepiece),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
